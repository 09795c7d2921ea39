// emit_zero_runs: the points that stay, and which of them stand for a run of zeros.
//
//   n = kept[i]:  places[n] = i
//                 null[n]   = 1 where point i is one of the two ends of a run of zeros
//                             between two points of its spectrum that are not zero
//
// Layout    spectrum s owns points [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of places and null exactly once.
// Oracle    gpuconvert/zero_runs.py, zero_roles; tests/kernels/slow.py
#include "zero_runs.cuh"

extern "C" __global__ void emit_zero_runs(
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_spectra,
    const long long n_points,
    const unsigned int* __restrict__ intensity, // n_points values of dtype
    const int dtype,                            // a Stored
    const long long* __restrict__ first,        // (n_spectra,) as find_nonzeros wrote it
    const long long* __restrict__ last,         // (n_spectra,)
    const long long* __restrict__ kept,         // (n_points + 1,) running sum
    long long* __restrict__ places,             // (kept[n_points],)
    unsigned char* __restrict__ null) {         // (kept[n_points],)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        const long long n = kept[i];
        if (n == kept[i + 1]) continue;
        const long long s = last_not_above(offset, n_spectra, i);
        places[n] = i;
        null[n] = is_null(i, first[s], last[s], intensity, dtype);
    }
}
