// Points of a batch after merging, and which of them are neighbours.
#pragma once
#include "problem.cuh"

// Columns over the points of all spectra; spectrum s owns [offset[s], offset[s + 1]).
// count[i] < 0 marks what is no point: it was added to the one before, or its spectrum
// has a fault. Every other count is at least 0, and positions ascend within a spectrum.
struct Points {
    const Problem& problem;
    const double* mz;
    const double* count;
    const double* position;
    long long begin, end; // of the spectrum at hand

    // The point before i, or `begin - 1`.
    __device__ long long before(long long i) const {
        do --i;
        while (i >= begin && count[i] < 0);
        return i;
    }

    // The point after i, or `end`.
    __device__ long long after(long long i) const {
        do ++i;
        while (i < end && count[i] < 0);
        return i;
    }

    // Whether two consecutive points are neighbours; either may lie outside the spectrum.
    __device__ bool joined(long long i, long long next) const {
        if (i < begin || next >= end) return false;
        return !(mz[next] - mz[i] > problem.gap * step(mz[next]));
    }

    // The native step at an m/z, in Th.
    __device__ double step(double at) const {
        const double m = fmin(fmax(at, problem.fit_low), problem.fit_high);
        return problem.b0 + m * (problem.b1 + m * problem.b2);
    }
};
