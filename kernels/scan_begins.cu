// scan_begins: where the peaks of every scan begin.
//
//   begins[j] = first peak of the frame + peaks of the scans before j in it
//   damage[j] = BAD_COUNTS where those are more than the frame has, else 0; begins[j] is
//               then the frame's last peak and one
//
// Layout    sums is the running sum of what scan_sizes wrote; frame f has scans
//           [scan_at[f], scan_at[f + 1]) and peaks [peak_at[f], peak_at[f + 1]).
// Units     peaks of all frames, one frame after the other.
// Launch    1 thread per scan and one more; grid-stride over n_scans + 1.
// Writes    every element of begins and damage exactly once.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "frames.cuh"

extern "C" __global__ void scan_begins(
    const long long* __restrict__ scan_at, // (n_frames + 1,)
    const long long* __restrict__ peak_at, // (n_frames + 1,)
    const long long n_frames,
    const long long n_scans,
    const long long* __restrict__ sums,   // (n_scans + 1,)
    long long* __restrict__ begins,       // (n_scans + 1,)
    unsigned char* __restrict__ damage) { // (n_scans,)
    for (long long j = first_item(); j <= n_scans; j += item_stride()) {
        if (j == n_scans) {
            begins[j] = peak_at[n_frames];
            continue;
        }
        const long long f = last_not_above(scan_at, n_frames, j);
        const long long before = sums[j] - sums[scan_at[f]];
        const long long n_peaks = peak_at[f + 1] - peak_at[f];
        begins[j] = peak_at[f] + (before > n_peaks ? n_peaks : before);
        damage[j] = before > n_peaks ? BAD_COUNTS : 0;
    }
}
