// count_samples: how many samples of every stretch of a digitizer's frames are not zero.
//
//   kept[i + 1] = samples of stretch i that are not zero;  kept[0] = 0
//
// Layout    frame f is n_samples words in byte planes from byte begin[f] on, and is cut in
//           n_stretches stretches of `width` samples, the last one shorter.
// Units     samples.
// Launch    1 thread per stretch: most hold nothing; grid-stride over n_frames * n_stretches.
// Writes    every element of kept exactly once.
// Oracle    gpuconvert/unpacking.py, count_samples
#include "frames.cuh"

extern "C" __global__ void count_samples(
    const unsigned char* __restrict__ raw, // (n_bytes,)
    const long long* __restrict__ begin,   // (n_frames,)
    const long long n_frames,
    const long long n_samples,
    const long long n_stretches,
    const long long width,
    long long* __restrict__ kept) { // (n_frames * n_stretches + 1,)
    for (long long i = first_item(); i < n_frames * n_stretches; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const Stretch own(i, n_stretches, width, n_samples);
        long long count = 0;
        for (long long k = own.first; k < own.last; ++k) {
            count += plane_word(raw, begin[own.frame], n_samples, k) != 0;
        }
        kept[i + 1] = count;
    }
}
