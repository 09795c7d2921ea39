// peak_steps: the step of every peak from the index before it in its scan.
//
//   steps[k + 1] = the step of peak k;  steps[0] = 0
//
// Layout    frame f is words in byte planes from byte begin[f] on, has scans
//           [scan_at[f], scan_at[f + 1]) and peaks [peak_at[f], peak_at[f + 1]).
// Units     samples of the digitizer.
// Launch    1 thread per peak; grid-stride over n_peaks.
// Writes    every element of steps exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "frames.cuh"

extern "C" __global__ void peak_steps(
    const unsigned char* __restrict__ raw, // (n_bytes,)
    const long long* __restrict__ begin,   // (n_frames,)
    const long long* __restrict__ scan_at, // (n_frames + 1,)
    const long long* __restrict__ peak_at, // (n_frames + 1,)
    const long long n_frames,
    const long long n_peaks,
    long long* __restrict__ steps) { // (n_peaks + 1,)
    for (long long k = first_item(); k < n_peaks; k += item_stride()) {
        if (k == 0) steps[0] = 0;
        const ScanFrame frame(last_not_above(peak_at, n_frames, k), begin, scan_at, peak_at);
        steps[k + 1] = frame.step(raw, k - frame.first_peak);
    }
}
