// Runs of zeros in a profile: what is stripped, and what is marked null.
#pragma once
#include "problem.cuh"
#include "raw.cuh"
#include "search.cuh"

// Whether value `i` of an array of `dtype` that begins at a whole word is zero. -0 is; NaN,
// subnormal values and whole numbers that float64 rounds are not: bits are looked at alone.
__device__ inline bool is_zero(const unsigned int* values, int dtype, long long i) {
    // Either zero of a float is all zeros without its sign.
    const int sign = dtype == STORED_F4 || dtype == STORED_F8;
    if (stored_bytes(dtype) == 4) return values[i] << sign == 0;
    return (values[2 * i] | values[2 * i + 1] << sign) == 0;
}

// Whether point i of the spectrum [begin, end) stays when runs of zeros keep their ends only.
__device__ inline bool
stays(long long i, long long begin, long long end, const unsigned int* intensity, int dtype) {
    if (!is_zero(intensity, dtype, i)) return true;
    if (i > begin && !is_zero(intensity, dtype, i - 1)) return true;
    return i + 1 < end && !is_zero(intensity, dtype, i + 1);
}

// Whether a point that stays is one end of a run of at least two zeros between the points
// `first` and `last`, which are the outermost of its spectrum that are not zero.
__device__ inline bool
is_null(long long i, long long first, long long last, const unsigned int* intensity, int dtype) {
    if (!(first < i && i < last) || !is_zero(intensity, dtype, i)) return false;
    return is_zero(intensity, dtype, i - 1) || is_zero(intensity, dtype, i + 1);
}
