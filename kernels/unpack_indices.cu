// unpack_indices: the points of frames that hold indices and intensities.
//
//   mz[i] = m/z of the index of point i;  intensity[i] = as it is stored
//   damage[f] = BAD_INDEX where an index of frame f is not from 0 to below n_samples
//
// Layout    frame f begins at byte begin[f], a multiple of 8: indices as float64, then
//           intensities as float32; it has points [point_at[f], point_at[f + 1]).
// Units     mz in Th, intensity in counts.
// Launch    1 thread per point; grid-stride over n_points.
// Writes    every element of mz and intensity exactly once; elements of damage, which was 0,
//           by every thread that finds damage, all the same value.
// Oracle    gpuconvert/unpacking.py, unpack_indices
#include "frames.cuh"
#include "raw.cuh"

extern "C" __global__ void unpack_indices(
    const unsigned int* __restrict__ raw,   // (n_words,)
    const long long* __restrict__ begin,    // (n_frames,)
    const long long* __restrict__ point_at, // (n_frames + 1,)
    const long long n_frames,
    const long long n_samples,
    const Model* __restrict__ models,    // (n_models,)
    const long long* __restrict__ model, // (n_frames,)
    const double* __restrict__ factor,   // (n_frames,)
    const long long n_points,
    double* __restrict__ mz,         // (n_points,)
    float* __restrict__ intensity,   // (n_points,)
    long long* __restrict__ damage) { // (n_frames,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        const long long f = last_not_above(point_at, n_frames, i);
        const long long k = i - point_at[f];
        const long long middle = begin[f] + 8 * (point_at[f + 1] - point_at[f]);
        const double index = load_value(raw, begin[f], k, STORED_F8);
        if (!(index >= 0 && index < (double)n_samples)) damage[f] = BAD_INDEX;
        mz[i] = mz_of(index, models[model[f]], factor[f]);
        intensity[i] = (float)load_value(raw, middle, k, STORED_F4);
    }
}
