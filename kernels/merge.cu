// merge: points at no new position are added to the last point that has one.
//
//   count[i] = intensity[i] + those of the points after it, up to the next new position
//            = -1 where point i has no new position itself, or its spectrum has a fault
//
// Layout    spectrum s owns points [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of count exactly once.
// Oracle    gpuconvert/backends/host_parts.py, merge
#include "problem.cuh"

// Whether the position of point i is above every one before it in its spectrum. Rounding
// turns two positions round by less than `disorder`, so that few need be looked at.
__device__ inline bool
is_new(long long i, long long begin, const double* position, double disorder) {
    for (long long k = i - 1; k >= begin; --k) {
        if (position[k] >= position[i]) return false;
        if (position[k] < position[i] - disorder) return true;
    }
    return true;
}

extern "C" __global__ void merge(
    const Problem* __restrict__ problem,
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,            // (n_points,)
    const unsigned char* __restrict__ faults, // (n_spectra,)
    const double* __restrict__ intensity,     // (n_points,)
    const double* __restrict__ position,      // (n_points,)
    double* __restrict__ count) {             // (n_points,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        const int s = owner[i];
        if (faults[s] != 0 || !is_new(i, offset[s], position, problem->disorder)) {
            count[i] = -1;
            continue;
        }
        double sum = intensity[i];
        for (long long k = i + 1; k < offset[s + 1] && position[k] <= position[i]; ++k) {
            sum += intensity[k];
        }
        count[i] = sum;
    }
}
