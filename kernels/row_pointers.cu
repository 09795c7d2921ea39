// row_pointers: where the stored values of every spectrum begin.
//
//   indptr[s] = kept[offset[s]]
//
// Layout    kept is the running sum over points that the count kernels leave.
// Units     values.
// Launch    1 thread per spectrum and one more; grid-stride over n_spectra + 1.
// Writes    every element of indptr exactly once.
// Oracle    gpuconvert/backends/host.py, _block
#include "problem.cuh"

extern "C" __global__ void row_pointers(
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_spectra,
    const long long* __restrict__ kept, // (offset[n_spectra] + 1,)
    long long* __restrict__ indptr) {   // (n_spectra + 1,)
    for (long long s = first_item(); s <= n_spectra; s += item_stride()) {
        indptr[s] = kept[offset[s]];
    }
}
