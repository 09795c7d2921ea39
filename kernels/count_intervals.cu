// count_intervals: how many values each point stores, quantity "height".
//
//   kept[i + 1] = number of bins owned by point i whose value, as float32, is above the
//                 threshold; kept[0] = 0, so that the running sum is where each one begins
//
// Layout    columns over points; spectrum s owns [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point, which owns the bins that have their centre before the next point;
//           grid-stride over n_points.
// Writes    every element of kept exactly once.
// Oracle    gpuconvert/backends/host_parts.py, height_parts
#include "intervals.cuh"
#include "visits.cuh"

extern "C" __global__ void count_intervals(
    const Problem* __restrict__ problem,
    const double* __restrict__ centres,   // (n_bins,) ascending, Th
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,       // (n_points,)
    const double* __restrict__ mz,       // (n_points,)
    const double* __restrict__ count,    // (n_points,) as merge wrote it
    const double* __restrict__ position, // (n_points,)
    long long* __restrict__ kept) {      // (n_points + 1,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const int s = owner[i];
        const Points points = {*problem, mz, count, position, offset[s], offset[s + 1]};
        CountVisit visit = {*problem, 0, nullptr, nullptr};
        visit_interval(i, points, centres, visit);
        kept[i + 1] = visit.kept;
    }
}
