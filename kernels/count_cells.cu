// count_cells: how many values each point stores, quantity "counts".
//
//   kept[i + 1] = number of bins owned by point i whose value, as float32, is above the
//                 threshold; kept[0] = 0, so that the running sum is where each one begins
//   below[s], above[s] = what lies below bin 0 and above the last bin of a spectrum
//
// Layout    columns over points; spectrum s owns [offset[s], offset[s + 1]).
// Units     counts.
// Launch    1 thread per point, which owns the bins that begin in its cell;
//           grid-stride over n_points.
// Writes    every element of kept exactly once;
//           below and above at most once a spectrum, zeroed before.
// Oracle    gpuconvert/backends/host_parts.py, count_parts
#include "cells.cuh"
#include "visits.cuh"

extern "C" __global__ void count_cells(
    const Problem* __restrict__ problem,
    const double* __restrict__ edges,     // (n_bins + 1,) of listed centres
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,       // (n_points,)
    const double* __restrict__ mz,       // (n_points,)
    const double* __restrict__ count,    // (n_points,) as merge wrote it
    const double* __restrict__ position, // (n_points,)
    const double* __restrict__ left,     // (n_points,) as cut_cells wrote it
    const double* __restrict__ right,    // (n_points,)
    const int* __restrict__ first,       // (n_points,)
    const int* __restrict__ last,        // (n_points,)
    double* __restrict__ below,          // (n_spectra,)
    double* __restrict__ above,          // (n_spectra,)
    long long* __restrict__ kept) {      // (n_points + 1,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (i == 0) kept[0] = 0;
        const int s = owner[i];
        const Points points = {*problem, mz, count, position, offset[s], offset[s + 1]};
        const Cells cells = {points, {*problem, edges}, left, right, first, last};
        CountVisit visit = {*problem, 0, below + s, above + s};
        visit_cell(i, cells, visit);
        kept[i + 1] = visit.kept;
    }
}
