// peak_keys: what to sort the peaks of a batch by, so that those of one point come together.
//
//   key[k] = spectrum * 2^(index_bits + place_bits) + index * 2^place_bits + k
//
// Layout    scan j has peaks [begins[j], begins[j + 1]) and belongs to spectrum owner[j];
//           peaks of no spectrum come last, as if of spectrum n_spectra. sums is the running
//           sum of their steps. A damaged index is moved into the digitizer's range.
// Units     index in samples of the digitizer.
// Launch    1 thread per peak; grid-stride over n_peaks.
// Writes    every element of key exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "search.cuh"

extern "C" __global__ void peak_keys(
    const long long* __restrict__ begins, // (n_scans + 1,)
    const long long* __restrict__ owner,  // (n_scans,) spectrum, or -1 for none
    const long long n_scans,
    const long long* __restrict__ sums, // (n_peaks + 1,)
    const long long n_peaks,
    const long long n_samples, // <= 2^index_bits
    const long long n_spectra,
    const int index_bits,
    const int place_bits,                   // n_peaks <= 2^place_bits
    unsigned long long* __restrict__ key) { // (n_peaks,)
    for (long long k = first_item(); k < n_peaks; k += item_stride()) {
        const long long j = last_not_above(begins, n_scans, k);
        long long index = sums[k + 1] - sums[begins[j]] - 1;
        if (index >= n_samples) index = n_samples - 1;
        if (index < 0) index = 0;
        const unsigned long long spectrum = owner[j] < 0 ? n_spectra : owner[j];
        key[k] = (spectrum << index_bits | (unsigned long long)index) << place_bits |
                 (unsigned long long)k;
    }
}
