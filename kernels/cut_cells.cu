// cut_cells: where the cell of every point with a count begins and ends, and in which bins.
//
//   [left[i], right[i]]    = the cell of point i, snapped to bin edges
//   first[i] ... last[i]   = the bins it lies in; -1 and n_bins lie outside the axis
//
// Layout    columns over points after merging; spectrum s owns [offset[s], offset[s + 1]).
// Units     positions: bins (Th for listed centres).
// Launch    1 thread per point; grid-stride over n_points.
// Writes    left, right, first and last where count > 0, exactly once; nowhere else.
// Oracle    gpuconvert/backends/host_parts.py, _cell_edges and _bins_of_cells
#include "cells.cuh"

extern "C" __global__ void cut_cells(
    const Problem* __restrict__ problem,
    const double* __restrict__ edges,     // (n_bins + 1,) of listed centres
    const long long* __restrict__ offset, // (n_spectra + 1,)
    const long long n_points,
    const int* __restrict__ owner,       // (n_points,)
    const double* __restrict__ mz,       // (n_points,)
    const double* __restrict__ count,    // (n_points,) as merge wrote it
    const double* __restrict__ position, // (n_points,)
    double* __restrict__ left,           // (n_points,)
    double* __restrict__ right,          // (n_points,)
    int* __restrict__ first,             // (n_points,)
    int* __restrict__ last) {            // (n_points,)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (!(count[i] > 0)) continue;
        const int s = owner[i];
        const Points points = {*problem, mz, count, position, offset[s], offset[s + 1]};
        const Cell cell = cell_of(i, points, {*problem, edges});
        left[i] = cell.left;
        right[i] = cell.right;
        first[i] = cell.first;
        last[i] = cell.last;
    }
}
