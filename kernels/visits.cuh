// What is done with the value of a bin: counted first, written second.
#pragma once
#include "problem.cuh"

// Whether a value is stored: rounded to float32 it is above the threshold.
__device__ inline bool is_kept(int bin, float value, const Problem& problem) {
    return bin >= 0 && bin < problem.n_bins && (double)value > problem.threshold;
}

// Counts the values that are stored; keeps what lies outside the axis, which at most one
// point of a spectrum is given for either end.
struct CountVisit {
    const Problem& problem;
    long long kept;
    double* below; // of this spectrum
    double* above;

    __device__ void operator()(int bin, double value) {
        if (bin < 0) {
            *below = value;
        } else if (bin >= problem.n_bins) {
            *above = value;
        } else {
            kept += is_kept(bin, (float)value, problem);
        }
    }
};

// Writes the values that are stored from place `at` on.
struct EmitVisit {
    const Problem& problem;
    long long at;
    int* indices;
    float* data;

    __device__ void operator()(int bin, double value) {
        const float rounded = (float)value;
        if (!is_kept(bin, rounded, problem)) return;
        indices[at] = bin;
        data[at] = rounded;
        ++at;
    }
};
