// check_scans: whether the peaks of every scan lie within the digitizer's range.
//
//   damage[j] = BAD_INDEX where it was 0 and the first peak of scan j lies before sample 0, or
//               its last one, which no other lies behind, not before sample n_samples
//
// Layout    scan j has peaks [begins[j], begins[j + 1]); sums is the running sum of their
//           steps, which within a scan add up to the index plus one.
// Units     samples of the digitizer.
// Launch    1 thread per scan; grid-stride over n_scans.
// Writes    the element of damage of its own scan, which it alone reads.
// Oracle    gpuconvert/unpacking.py, unpack_scans
#include "frames.cuh"

extern "C" __global__ void check_scans(
    const long long* __restrict__ begins, // (n_scans + 1,)
    const long long* __restrict__ owner,  // (n_scans,) spectrum, or -1 for none
    const long long* __restrict__ sums,   // (begins[n_scans] + 1,)
    const long long n_scans,
    const long long n_samples,
    unsigned char* __restrict__ damage) { // (n_scans,)
    for (long long j = first_item(); j < n_scans; j += item_stride()) {
        const long long first = begins[j], last = begins[j + 1];
        if (first == last || owner[j] < 0 || damage[j] != 0) continue;
        const long long lowest = sums[first + 1] - sums[first] - 1;
        const long long highest = sums[last] - sums[first] - 1;
        if (lowest < 0 || highest >= n_samples) damage[j] = BAD_INDEX;
    }
}
