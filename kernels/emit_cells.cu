// emit_cells: the stored values of each point, quantity "counts".
//
//   indices[kept[i] ...], data[kept[i] ...] = the bins that point i owns and their values,
//                                             where above the threshold as float32
//
// Layout    columns over points; spectrum s owns [offset[s], offset[s + 1]). Bins ascend
//           within a spectrum, each at most once.
// Units     counts.
// Launch    1 thread per point, which owns the bins that begin in its cell;
//           grid-stride over n_points.
// Writes    every element of indices and data exactly once.
// Oracle    gpuconvert/backends/host_parts.py, count_parts
#include "cells.cuh"
#include "visits.cuh"

extern "C" __global__ void emit_cells(
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
    const long long* __restrict__ kept,  // (n_points + 1,) running sum
    int* __restrict__ indices,           // (kept[n_points],)
    float* __restrict__ data) {          // (kept[n_points],)
    for (long long i = first_item(); i < n_points; i += item_stride()) {
        if (kept[i] == kept[i + 1]) continue;
        const int s = owner[i];
        const Points points = {*problem, mz, count, position, offset[s], offset[s + 1]};
        const Cells cells = {points, {*problem, edges}, left, right, first, last};
        EmitVisit visit = {*problem, kept[i], indices, data};
        visit_cell(i, cells, visit);
    }
}
