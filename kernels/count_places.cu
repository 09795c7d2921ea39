// count_places: how many values each point stores, method "nearest".
//
//   kept[i + 1] = number of bins owned by point i whose value, as float32, is above the
//                 threshold; kept[0] = 0, so that the running sum is where each one begins
//   below[s], above[s] = what lies below bin 0 and above the last bin of a spectrum
//
// Layout    columns over points; spectrum s owns [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point, which owns the bins that no earlier point with a count is nearest to;
//           grid-stride over n_points.
// Writes    every element of kept exactly once;
//           below and above at most once a spectrum, zeroed before.
// Oracle    gpuconvert/backends/host_parts.py, nearest_parts
#include "places.cuh"
#include "visits.cuh"

extern "C" __global__ void count_places(
    const Problem* __restrict__ problem,
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,            // (n_points,)
    const double* __restrict__ count,         // (n_points,) as decoded
    const int* __restrict__ place,            // (n_points,) as find_places wrote it
    const unsigned char* __restrict__ faults, // (n_spectra,)
    double* __restrict__ below,               // (n_spectra,)
    double* __restrict__ above,               // (n_spectra,)
    long long* __restrict__ kept) {           // (n_points + 1,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const int s = owner[i];
        CountVisit visit = {*problem, 0, below + s, above + s};
        if (faults[s] == 0) visit_place(i, offset[s], offset[s + 1], count, place, visit);
        kept[i + 1] = visit.kept;
    }
}
