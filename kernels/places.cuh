// Method "nearest": every point's count goes to the bin whose centre is nearest.
//
// gpuconvert/resampling.py, paragraph nearest.
#pragma once
#include "axis.cuh"

// The bin whose centre is nearest to an m/z, ties to the right; -1 or n_bins outside.
__device__ inline int place_of(double mz, const double* centres, const Problem& problem) {
    if (mz < problem.low) return -1;
    if (mz > problem.high) return (int)problem.n_bins;
    const long long found = count_below(centres, problem.n_bins, mz);
    const long long right = found < problem.n_bins ? found : problem.n_bins - 1;
    const long long left = right > 0 ? right - 1 : 0;
    return (int)(fabs(centres[right] - mz) <= fabs(centres[left] - mz) ? right : left);
}

// Call `visit(bin, value)` if point i is the first with a count at its bin: the value is
// the sum over all points of its spectrum, [begin, end), at that bin, in ascending order.
template <class Visit>
__device__ inline void visit_place(
    long long i,
    long long begin,
    long long end,
    const double* count,
    const int* place,
    Visit& visit) {
    if (!(count[i] > 0)) return;
    for (long long k = i - 1; k >= begin && place[k] == place[i]; --k) {
        if (count[k] > 0) return;
    }
    double value = count[i];
    for (long long k = i + 1; k < end && place[k] == place[i]; ++k) {
        value += count[k];
    }
    visit(place[i], value);
}
