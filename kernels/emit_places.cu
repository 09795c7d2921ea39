// emit_places: the stored values of each point, method "nearest".
//
//   indices[kept[i] ...], data[kept[i] ...] = the bins that point i owns and their values,
//                                             where above the threshold as float32
//
// Layout    columns over points; spectrum s owns [offset[s], offset[s + 1]). Bins ascend
//           within a spectrum, each at most once.
// Units     counts.
// Launch    1 thread per point, which owns the bins that no earlier point with a count is nearest to;
//           grid-stride over n_points.
// Writes    every element of indices and data exactly once.
// Oracle    gpuconvert/backends/host_parts.py, nearest_parts
#include "places.cuh"
#include "visits.cuh"

extern "C" __global__ void emit_places(
    const Problem* __restrict__ problem,
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,      // (n_points,)
    const double* __restrict__ count,   // (n_points,) as decoded
    const int* __restrict__ place,      // (n_points,) as find_places wrote it
    const long long* __restrict__ kept, // (n_points + 1,) running sum
    int* __restrict__ indices,          // (kept[n_points],)
    float* __restrict__ data) {         // (kept[n_points],)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (kept[i] == kept[i + 1]) continue;
        const int s = owner[i];
        EmitVisit visit = {*problem, kept[i], indices, data};
        visit_place(i, offset[s], offset[s + 1], count, place, visit);
    }
}
