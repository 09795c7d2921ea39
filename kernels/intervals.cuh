// Quantity "height": the interpolant between two points, at the bin centres between them.
//
// The formulas and their order are those of gpuconvert/resampling.py, paragraph height.
#pragma once
#include "axis.cuh"
#include "curve.cuh"
#include "points.cuh"

__device__ inline int sign_of(double value) {
    return (value > 0) - (value < 0);
}

// Width, its inverse and secant from point i to `next`, which is its neighbour.
struct Step {
    double width, inverse, secant;

    __device__ Step(long long i, long long next, const Points& points)
        : width(points.mz[next] - points.mz[i]), inverse(inverse_of(width, points.problem)),
          secant((points.count[next] - points.count[i]) * inverse) {
    }
};

// The three-point derivative at an end, bent back where it would overshoot.
__device__ inline double end_slope(const Step& near, const Step& far) {
    const double h0 = near.width, h1 = far.width, d0 = near.secant, d1 = far.secant;
    const double slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1);
    if (sign_of(slope) != sign_of(d0)) return 0;
    if (sign_of(d0) != sign_of(d1) && fabs(slope) > 3 * fabs(d0)) return 3 * d0;
    return slope;
}

// The derivative of the monotone cubic at point i of its run.
__device__ inline double slope_at(long long i, const Points& points) {
    const long long left = points.before(i), right = points.after(i);
    const bool before = points.joined(left, i), after = points.joined(i, right);
    if (before && after) {
        const Step first(left, i, points), second(i, right, points);
        if (sign_of(first.secant) * sign_of(second.secant) <= 0) return 0;
        return harmonic(first.width, second.width, first.secant, second.secant);
    }
    if (after) {
        const Step near(i, right, points);
        const long long far = points.after(right);
        return points.joined(right, far) ? end_slope(near, Step(right, far, points)) : near.secant;
    }
    if (before) {
        const Step near(left, i, points);
        const long long far = points.before(left);
        return points.joined(far, left) ? end_slope(near, Step(far, left, points)) : near.secant;
    }
    return 0;
}

// Call `visit(bin, value)` for every bin whose centre lies in the interval that point i
// begins, in ascending order; a point without a neighbour after it stands for its own m/z
// alone. Intervals do not overlap, so every bin has one owner.
template <class Visit>
__device__ inline void
visit_interval(long long i, const Points& points, const double* centres, Visit& visit) {
    const Problem& problem = points.problem;
    const double mz = points.mz[i], count = points.count[i];
    if (count < 0) return;
    const long long next = points.after(i);
    if (!points.joined(i, next)) {
        const long long bin = count_below(centres, problem.n_bins, mz);
        if (count > 0 && bin < problem.n_bins && centres[bin] == mz) visit((int)bin, count);
        return;
    }
    if (!(count > 0 || points.count[next] > 0)) return;
    const Step step(i, next, points);
    const long long first = count_below(centres, problem.n_bins, mz);
    const Curve curve =
        problem.linear
            ? straight(step.secant)
            : cubic(step.inverse, step.secant, slope_at(i, points), slope_at(next, points));
    for (long long bin = first; bin < problem.n_bins && centres[bin] < points.mz[next]; ++bin) {
        visit((int)bin, count + curve.gain(centres[bin] - mz));
    }
}
