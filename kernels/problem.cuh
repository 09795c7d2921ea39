// What every thread of a launch must know: the axis, the options, and the constants
// of gpuconvert/resampling.py. Python fills it; the layout is that of PROBLEM in
// gpuconvert/backends/launches.py.
#pragma once

enum Law {
    LISTED = 0,
    CONSTANT = 1,
    LINEAR_TOF = 2,
    REFLECTOR_TOF = 3,
    TOF = 4,
    ORBITRAP = 5,
    FTICR = 6
};

struct Problem {
    double u0, du, a, b;      // coordinate of edge 0, width of a bin in u, terms of law "tof"
    double low, high;         // ends of the axis, Th
    double threshold;         // values not above it are not stored, counts
    double eps;               // relative precision of the m/z in the file
    double gap;               // neighbours are at most this many native steps apart
    double b0, b1, b2;        // native step b0 + m (b1 + m b2), Th
    double fit_low, fit_high; // m/z between which the native step varies, Th
    double tolerance;         // relative error of the native step
    double disorder;          // how far rounding may turn two positions round; 0 for exact laws
    double snap, narrowest;   // SNAP and NARROWEST of the definition
    double mz_floor, max_mz;  // MZ_FLOOR, MAX_MZ, Th
    double max_intensity;     // MAX_INTENSITY, counts
    long long n_bins;
    int law;    // a Law
    int linear; // whether the interpolant is the straight line
};

// The first point, spectrum or bin of this thread, and how far it is to its next one:
// every kernel is a grid-stride loop and takes any number of blocks and threads.
__device__ inline long long first_item() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ inline long long item_stride() {
    return (long long)gridDim.x * blockDim.x;
}
