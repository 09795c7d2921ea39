// emit_samples: the samples of a digitizer's frames that are not zero.
//
//   mz[n], intensity[n] = of sample n - kept[i] of stretch i that is not zero
//
// Layout    as count_samples; kept is the running sum of what it counted, so that points are in
//           the order of frames and samples.
// Units     mz in Th, intensity in counts.
// Launch    1 thread per stretch; grid-stride over n_frames * n_stretches.
// Writes    every element of mz and intensity exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_samples
#include "frames.cuh"

extern "C" __global__ void emit_samples(
    const unsigned char* __restrict__ raw, // (n_bytes,)
    const long long* __restrict__ begin,   // (n_frames,)
    const long long n_frames,
    const long long n_samples,
    const long long n_stretches,
    const long long width,
    const Model* __restrict__ models,    // (n_models,)
    const long long* __restrict__ model, // (n_frames,)
    const double* __restrict__ factor,   // (n_frames,)
    const long long* __restrict__ kept,  // (n_frames * n_stretches + 1,)
    double* __restrict__ mz,             // (kept[n_frames * n_stretches],)
    float* __restrict__ intensity) {     // (kept[n_frames * n_stretches],)
    for (long long i = first_item(); i < n_frames * n_stretches; i += item_stride()) {
        long long n = kept[i];
        if (n == kept[i + 1]) continue;
        const Stretch own(i, n_stretches, width, n_samples);
        const long long f = own.frame;
        for (long long k = own.first; k < own.last; ++k) {
            const unsigned int value = plane_word(raw, begin[f], n_samples, k);
            if (value == 0) continue;
            mz[n] = mz_of((double)k, models[model[f]], factor[f]);
            intensity[n] = (float)value;
            ++n;
        }
    }
}
