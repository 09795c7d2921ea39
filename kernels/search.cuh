// Places in ascending arrays, by bisection.
#pragma once
#include "problem.cuh"

// How many of `n` ascending values are below x: the first place not below it.
template <class T>
__device__ inline long long count_below(const T* values, long long n, T x) {
    long long low = 0;
    while (n > 0) {
        const long long half = n / 2;
        const bool below = values[low + half] < x;
        low = below ? low + half + 1 : low;
        n = below ? n - half - 1 : half;
    }
    return low;
}

// How many of `n` ascending values are not above x.
template <class T>
__device__ inline long long count_not_above(const T* values, long long n, T x) {
    long long low = 0;
    while (n > 0) {
        const long long half = n / 2;
        const bool not_above = values[low + half] <= x;
        low = not_above ? low + half + 1 : low;
        n = not_above ? n - half - 1 : half;
    }
    return low;
}

// Which of `n` stretches that begin at ascending `begins` holds x; begins[0] <= x.
template <class T>
__device__ inline long long last_not_above(const T* begins, long long n, T x) {
    return count_not_above(begins, n, x) - 1;
}
