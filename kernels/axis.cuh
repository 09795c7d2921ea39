// Positions on the mass axis, and bins by position: gpuconvert/mass_axis.py.
#pragma once
#include "problem.cuh"
#include "search.cuh"

// Where an m/z lies: in bins for a law, in Th for listed centres.
__device__ inline double position_of(double mz, const Problem& problem) {
    if (problem.law == LISTED) return mz;
    const double m = fmax(mz, problem.mz_floor);
    double u = m;
    if (problem.law == LINEAR_TOF) u = sqrt(m);
    if (problem.law == REFLECTOR_TOF) u = log(m);
    if (problem.law == TOF) u = 2 / sqrt(problem.b) * asinh(sqrt(problem.b * m / problem.a));
    if (problem.law == ORBITRAP) u = -1 / sqrt(m);
    if (problem.law == FTICR) u = -1 / m;
    return (u - problem.u0) / problem.du;
}

// d position / d m/z, in bins (or Th) per Th.
__device__ inline double slope_of(double mz, const Problem& problem) {
    if (problem.law == LISTED) return 1;
    const double m = fmax(mz, problem.mz_floor);
    double slope = 1;
    if (problem.law == LINEAR_TOF) slope = 0.5 / sqrt(m);
    if (problem.law == REFLECTOR_TOF) slope = 1 / m;
    if (problem.law == TOF) slope = 1 / sqrt(m * (problem.a + problem.b * m));
    if (problem.law == ORBITRAP) slope = 0.5 / (m * sqrt(m));
    if (problem.law == FTICR) slope = 1 / (m * m);
    return slope / problem.du;
}

// The axis as cells see it. `edges` is (n_bins + 1,) for listed centres, unused for a law.
struct Bins {
    const Problem& problem;
    const double* edges;

    // The listed bin that holds a position, the first or last one beyond the ends.
    __device__ long long listed_bin(double position) const {
        const long long k = count_not_above(edges, problem.n_bins + 1, position) - 1;
        return k < 0 ? 0 : k < problem.n_bins ? k : problem.n_bins - 1;
    }

    // The lower edge of a bin from 0 to n_bins; bin -1 begins nowhere, n_bins + 1 is past all.
    __device__ double edge(long long bin) const {
        if (bin < 0) return -1.0 / 0.0;
        if (bin > problem.n_bins) return 1.0 / 0.0;
        return problem.law == LISTED ? edges[bin] : (double)bin;
    }

    // The width of the bin that holds a position.
    __device__ double width_at(double position) const {
        if (problem.law != LISTED) return 1;
        const long long k = listed_bin(position);
        return edges[k + 1] - edges[k];
    }

    // The bin edge nearest to a position, the lower of two.
    __device__ double nearest_edge(double position) const {
        if (problem.law != LISTED) {
            const double below = floor(position);
            return position - below > below + 1 - position ? below + 1 : below;
        }
        const long long k = listed_bin(position);
        return position - edges[k] > edges[k + 1] - position ? edges[k + 1] : edges[k];
    }

    // A whole number as a bin; -1 and n_bins lie outside the axis.
    __device__ int whole(double number) const {
        return (int)fmin(fmax(number, -1.0), (double)problem.n_bins);
    }

    // The bin that begins at or below a position.
    __device__ int at(double position) const {
        if (problem.law != LISTED) return whole(floor(position));
        return (int)(count_not_above(edges, problem.n_bins + 1, position) - 1);
    }

    // The bin that begins below a position.
    __device__ int below(double position) const {
        if (problem.law != LISTED) return whole(ceil(position) - 1);
        return (int)(count_below(edges, problem.n_bins + 1, position) - 1);
    }
};
