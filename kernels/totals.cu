// totals: faults and total ion count of every spectrum.
//
//   faults[s] = the bits of all its points together
//   tic[s]    = the sum of its intensities from left to right; 0 where there is a fault
//
// Layout    spectrum s owns points [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per spectrum, as the sum is defined one after the other; grid-stride
//           over n_spectra.
// Writes    every element of faults and tic exactly once.
// Oracle    gpuconvert/backends/host.py, find_faults and sum_at
#include "problem.cuh"

extern "C" __global__ void totals(
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_spectra,
    const unsigned char* __restrict__ fault, // (offset[n_spectra],)
    const double* __restrict__ intensity,    // (offset[n_spectra],)
    unsigned char* __restrict__ faults,      // (n_spectra,)
    double* __restrict__ tic) {              // (n_spectra,)
    for (long long s = first_item(); s < n_spectra; s += item_stride()) {
        unsigned char bits = 0;
        double sum = 0;
        for (long long i = offset[s]; i < offset[s + 1]; ++i) {
            bits |= fault[i];
            sum += intensity[i];
        }
        faults[s] = bits;
        tic[s] = bits == 0 ? sum : 0;
    }
}
