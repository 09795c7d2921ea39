// The monotone cubic of Fritsch and Carlson between two places: gpuconvert/resampling.py.
#pragma once
#include "problem.cuh"

// 1 / width, 0 where there is no width.
__device__ inline double inverse_of(double width, const Problem& problem) {
    return width > problem.narrowest ? 1 / width : 0;
}

// The weighted harmonic mean of the secants d0, d1 over widths h0, h1.
__device__ inline double harmonic(double h0, double h1, double d0, double d1) {
    const double w1 = 2 * h1 + h0;
    const double w2 = h1 + 2 * h0;
    return (w1 + w2) / (w1 / d0 + w2 / d1);
}

// What is gained from the left end of a stretch on: G(t) = t (s + t (a + t b)).
struct Curve {
    double s, a, b;

    __device__ double gain(double t) const {
        return t * (s + t * (a + t * b));
    }
};

// The straight line of secant d: every product with a and b is 0, so G(t) is t d.
__device__ inline Curve straight(double d) {
    return {d, 0, 0};
}

// The cubic over a stretch of width 1 / h, with secant d and these slopes at its ends.
__device__ inline Curve cubic(double h, double d, double s_l, double s_r) {
    return {s_l, (3 * d - 2 * s_l - s_r) * h, (s_l + s_r - 2 * d) * h * h};
}
