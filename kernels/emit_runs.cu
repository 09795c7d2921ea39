// emit_runs: the points of spectra that are the sums of scans.
//
//   n = kept[i]:  mz[n]        = m/z of the index of sorted peak i
//                 intensity[n] = the counts of all peaks of that spectrum and index, added up
//                                as whole numbers, times scale
//
// Layout    key is what peak_keys wrote, ascending; kept is the running sum of what count_runs
//           counted. Frames as in peak_steps.
// Units     mz in Th, intensity in counts.
// Launch    1 thread per peak, of which the first of a point adds up all of them;
//           grid-stride over n_peaks.
// Writes    every element of mz and intensity exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "frames.cuh"

extern "C" __global__ void emit_runs(
    const unsigned char* __restrict__ raw, // (n_bytes,)
    const long long* __restrict__ begin,   // (n_frames,)
    const long long* __restrict__ scan_at, // (n_frames + 1,)
    const long long* __restrict__ peak_at, // (n_frames + 1,)
    const long long n_frames,
    const double* __restrict__ scale,           // (n_frames,)
    const Model* __restrict__ models,           // (n_models,)
    const long long* __restrict__ model,        // (n_frames,)
    const double* __restrict__ factor,          // (n_frames,)
    const unsigned long long* __restrict__ key, // (n_peaks,)
    const long long n_peaks,
    const int index_bits,
    const int place_bits,
    const long long* __restrict__ kept, // (n_peaks + 1,)
    double* __restrict__ mz,            // (kept[n_peaks],)
    float* __restrict__ intensity) {    // (kept[n_peaks],)
    const unsigned long long places = (1ULL << place_bits) - 1;
    const unsigned long long indices = (1ULL << index_bits) - 1;
    for (long long i = first_item(); i < n_peaks; i += item_stride()) {
        const long long n = kept[i];
        if (n == kept[i + 1]) continue;
        const unsigned long long point = key[i] >> place_bits;
        // All peaks of a spectrum are of one frame.
        const long long f = last_not_above(peak_at, n_frames, (long long)(key[i] & places));
        const ScanFrame frame(f, begin, scan_at, peak_at);
        long long sum = 0;
        for (long long k = i; k < n_peaks && key[k] >> place_bits == point; ++k) {
            sum += frame.counts(raw, (long long)(key[k] & places) - frame.first_peak);
        }
        mz[n] = mz_of((double)(point & indices), models[model[f]], factor[f]);
        intensity[n] = (float)((double)sum * scale[f]);
    }
}
