// find_places: the bin whose centre is nearest to every point.
//
//   place[i] = the nearest bin, the right one of two; -1 and n_bins lie outside the axis
//
// Layout    columns over points.
// Units     mz and centres in Th.
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of place exactly once.
// Oracle    gpuconvert/backends/host_parts.py, nearest_parts
#include "places.cuh"

extern "C" __global__ void find_places(
    const Problem* __restrict__ problem,
    const double* __restrict__ centres, // (n_bins,) ascending
    const long long n_points,
    const double* __restrict__ mz, // (n_points,)
    int* __restrict__ place) {     // (n_points,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        place[i] = place_of(mz[i], centres, *problem);
    }
}
