// bin_gather: row and value of every entry, sorted by bin and row.
//
//   k = key[n] modulo 2^place_bits;  sorted_rows[n] = rows[r],  sorted_data[n] = data[k]
//   for the row r that holds value k
//
// Layout    row r of the block owns values [indptr[r], indptr[r + 1]).
// Units     none.
// Launch    1 thread per value; grid-stride over n_values.
// Writes    every element of sorted_rows and sorted_data exactly once.
// Oracle    gpuconvert/backends/host.py, HostBackend.by_bin
#include "search.cuh"

extern "C" __global__ void bin_gather(
    const unsigned long long* __restrict__ key, // (n_values,) ascending
    const long long n_values,
    const int place_bits,
    const long long* __restrict__ rows,   // (n_rows,) output row
    const long long* __restrict__ indptr, // (n_rows + 1,)
    const long long n_rows,
    const float* __restrict__ data,    // (n_values,)
    int* __restrict__ sorted_rows,     // (n_values,)
    float* __restrict__ sorted_data) { // (n_values,)
    const unsigned long long mask = (1ULL << place_bits) - 1;
    for (long long n = first_item(); n < n_values; n += item_stride()) {
        const long long k = (long long)(key[n] & mask);
        sorted_rows[n] = (int)rows[last_not_above(indptr, n_rows, k)];
        sorted_data[n] = data[k];
    }
}
