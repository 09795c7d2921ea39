// find_nonzeros: the first and the last point of every spectrum that is not zero.
//
//   first[s], last[s] = places of those points; offset[s + 1] and offset[s] - 1 where all
//                       intensities are zero
//
// Layout    spectrum s owns points [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per spectrum, which looks at its leading and trailing zeros only;
//           grid-stride over n_spectra.
// Writes    every element of first and last exactly once.
// Oracle    gpuconvert/zero_runs.py, zero_roles; tests/kernels/slow.py
#include "zero_runs.cuh"

extern "C" __global__ void find_nonzeros(
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_spectra,
    const unsigned int* __restrict__ intensity, // offset[n_spectra] values of dtype
    const int dtype,                            // a Stored
    long long* __restrict__ first,              // (n_spectra,)
    long long* __restrict__ last) {             // (n_spectra,)
    for (long long s = first_item(); s < n_spectra; s += item_stride()) {
        const long long begin = offset[s], end = offset[s + 1];
        long long low = begin, high = end - 1;
        while (low < end && is_zero(intensity, dtype, low)) ++low;
        while (high >= begin && is_zero(intensity, dtype, high)) --high;
        first[s] = low;
        last[s] = high;
    }
}
