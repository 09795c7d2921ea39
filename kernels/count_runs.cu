// count_runs: which sorted peaks are the first of a point.
//
//   kept[i + 1] = 1 where peak i is of some spectrum and the one before it is of another
//                 spectrum or index, else 0;  kept[0] = 0
//
// Layout    key is what peak_keys wrote, ascending.
// Units     points.
// Launch    1 thread per peak; grid-stride over n_peaks.
// Writes    every element of kept exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "problem.cuh"

extern "C" __global__ void count_runs(
    const unsigned long long* __restrict__ key, // (n_peaks,)
    const long long n_peaks,
    const long long n_spectra,
    const int index_bits,
    const int place_bits,
    long long* __restrict__ kept) { // (n_peaks + 1,)
    for (long long i = first_item(); i < n_peaks; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const unsigned long long point = key[i] >> place_bits;
        const bool first = i == 0 || key[i - 1] >> place_bits != point;
        kept[i + 1] = first && (long long)(point >> index_bits) < n_spectra;
    }
}
