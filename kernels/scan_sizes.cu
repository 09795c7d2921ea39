// scan_sizes: how many peaks every scan is said to have.
//
//   sizes[j + 1] = half of word number (scan + 1) of its frame; 0 for the last scan of a
//                  frame, of which nothing is said;  sizes[0] = 0
//
// Layout    frame f is words in byte planes from byte begin[f] on, has scans
//           [scan_at[f], scan_at[f + 1]), at least one, and peaks [peak_at[f], peak_at[f + 1]).
// Units     peaks.
// Launch    1 thread per scan; grid-stride over n_scans.
// Writes    every element of sizes exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "frames.cuh"

extern "C" __global__ void scan_sizes(
    const unsigned char* __restrict__ raw, // (n_bytes,)
    const long long* __restrict__ begin,   // (n_frames,)
    const long long* __restrict__ scan_at, // (n_frames + 1,)
    const long long* __restrict__ peak_at, // (n_frames + 1,)
    const long long n_frames,
    const long long n_scans,
    long long* __restrict__ sizes) { // (n_scans + 1,)
    for (long long j = first_item(); j < n_scans; j += item_stride()) {
        if (j == 0) sizes[0] = 0;
        const ScanFrame frame(last_not_above(scan_at, n_frames, j), begin, scan_at, peak_at);
        const long long scan = j - frame.first_scan;
        sizes[j + 1] = scan + 1 < frame.n_scans ? frame.word(raw, scan + 1) / 2 : 0;
    }
}
