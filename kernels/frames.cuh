// Inflated frames: words of 32 bits in four byte planes. gpuconvert/packed.py says what they mean.
#pragma once
#include "calibration.cuh"
#include "search.cuh"

enum Damage { BAD_COUNTS = 1, BAD_INDEX = 2 };

// Word `k` of the `n` that begin at byte `begin`; k < n.
__device__ inline unsigned int
plane_word(const unsigned char* raw, long long begin, long long n, long long k) {
    const unsigned char* at = raw + begin + k;
    return (unsigned int)at[0] | (unsigned int)at[n] << 8 | (unsigned int)at[2 * n] << 16 |
           (unsigned int)at[3 * n] << 24;
}

// Frame f of scans: where its scans and peaks begin among all, and how many it has.
struct ScanFrame {
    long long begin, first_scan, n_scans, first_peak, n_peaks;

    __device__ ScanFrame(
        long long f, const long long* begins, const long long* scan_at, const long long* peak_at)
        : begin(begins[f]), first_scan(scan_at[f]), n_scans(scan_at[f + 1] - scan_at[f]),
          first_peak(peak_at[f]), n_peaks(peak_at[f + 1] - peak_at[f]) {
    }

    __device__ unsigned int word(const unsigned char* raw, long long k) const {
        return plane_word(raw, begin, n_scans + 2 * n_peaks, k);
    }

    // Peak number k of the frame: steps from the index before, and counts.
    __device__ unsigned int step(const unsigned char* raw, long long k) const {
        return word(raw, n_scans + 2 * k);
    }

    __device__ unsigned int counts(const unsigned char* raw, long long k) const {
        return word(raw, n_scans + 2 * k + 1);
    }
};

// The stretch of samples that thread item i looks at: n_stretches of every frame.
struct Stretch {
    long long frame, first, last;

    __device__ Stretch(long long i, long long n_stretches, long long width, long long n_samples)
        : frame(i / n_stretches), first(i % n_stretches * width),
          last(first + width < n_samples ? first + width : n_samples) {
    }
};
