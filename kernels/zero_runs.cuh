// Runs of zeros in a profile: what is stripped, and what is marked null.
#pragma once
#include "problem.cuh"

// -0 is zero; NaN and subnormal values are not.
__device__ inline bool is_zero(double intensity) {
    return intensity == 0;
}

// Whether point i of the spectrum [begin, end) stays when runs of zeros keep their ends only.
__device__ inline bool stays(long long i, long long begin, long long end, const double* intensity) {
    if (!is_zero(intensity[i])) return true;
    if (i > begin && !is_zero(intensity[i - 1])) return true;
    return i + 1 < end && !is_zero(intensity[i + 1]);
}

// Whether a point that stays is one end of a run of at least two zeros between the points
// `first` and `last`, which are the outermost of its spectrum that are not zero.
__device__ inline bool
is_null(long long i, long long first, long long last, const double* intensity) {
    if (!(first < i && i < last) || !is_zero(intensity[i])) return false;
    return is_zero(intensity[i - 1]) || is_zero(intensity[i + 1]);
}
