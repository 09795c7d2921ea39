// bin_offsets: where each bin begins among the sorted keys.
//
//   offset[b] = number of keys whose bin is below b
//
// Layout    key ascending, as `bin_keys` made them.
// Units     none.
// Launch    1 thread per bin and one more; grid-stride over n_bins + 1.
// Writes    every element of offset exactly once.
// Oracle    gpuconvert/backends/host.py, HostBackend.by_bin
#include "search.cuh"

extern "C" __global__ void bin_offsets(
    const unsigned long long* __restrict__ key, // (n_values,)
    const long long n_values,
    const int place_bits,
    const long long n_bins,
    long long* __restrict__ offset) { // (n_bins + 1,)
    for (long long b = first_item(); b <= n_bins; b += item_stride()) {
        offset[b] = count_below(key, n_values, (unsigned long long)b << place_bits);
    }
}
