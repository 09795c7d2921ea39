// The monotone cubic of Fritsch and Carlson between two places: gpuconvert/resampling.py.
#pragma once
#include "problem.cuh"

// Rise over width, 0 where there is no width.
__device__ inline double secant_of(double rise, double width, const Problem& problem) {
    return width > problem.narrowest ? rise / width : 0;
}

// The weighted harmonic mean of the secants d0, d1 over widths h0, h1.
__device__ inline double harmonic(double h0, double h1, double d0, double d1) {
    const double w1 = 2 * h1 + h0;
    const double w2 = h1 + 2 * h0;
    return (w1 + w2) / (w1 / d0 + w2 / d1);
}

// G(x): what the cubic gains from the left end of its stretch to x of its width w.
__device__ inline double cubic(double x, double w, double d, double s_l, double s_r) {
    return w * x * (s_l + x * ((3 * d - 2 * s_l - s_r) + x * (s_l + s_r - 2 * d)));
}
