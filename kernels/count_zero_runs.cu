// count_zero_runs: which points stay when runs of zeros are stripped to their ends.
//
//   kept[i + 1] = 1 unless point i is zero and so are both of its neighbours, those beyond
//                 the ends of its spectrum counting as zero; kept[0] = 0
//
// Layout    spectrum s owns points [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of kept exactly once.
// Oracle    gpuconvert/zero_runs.py, zero_roles; tests/kernels/slow.py
#include "zero_runs.cuh"

extern "C" __global__ void count_zero_runs(
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_spectra,
    const long long n_points,
    const unsigned int* __restrict__ intensity, // n_points values of dtype
    const int dtype,                            // a Stored
    long long* __restrict__ kept) {             // (n_points + 1,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const long long s = last_not_above(offset, n_spectra, i);
        kept[i + 1] = stays(i, offset[s], offset[s + 1], intensity, dtype);
    }
}
