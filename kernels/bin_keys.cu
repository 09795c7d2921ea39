// bin_keys: what to sort the values of a block by, so that bins ascend and rows within them.
//
//   key[k] = bin * 2^place_bits + k
//
// Layout    values in the order of a CsrBlock, in which rows ascend.
// Units     none.
// Launch    1 thread per value; grid-stride over n_values.
// Writes    every element of key exactly once.
// Oracle    gpuconvert/backends/host.py, HostBackend.by_bin
#include "problem.cuh"

extern "C" __global__ void bin_keys(
    const int* __restrict__ indices, // (n_values,) bin
    const long long n_values,
    const int place_bits,                   // n_values <= 2^place_bits
    unsigned long long* __restrict__ key) { // (n_values,)
    for (long long k = first_item(); k < n_values; k += item_stride()) {
        key[k] = (unsigned long long)indices[k] << place_bits | (unsigned long long)k;
    }
}
