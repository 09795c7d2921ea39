// Quantity "counts": the cell of a point, and what it gives to bins.
//
// The formulas and their order are those of gpuconvert/resampling.py, paragraphs Cells,
// Snap and counts. `cell_of` says where a cell lies, `curve_of` what it gives; nothing else
// knows.
#pragma once
#include "axis.cuh"
#include "curve.cuh"
#include "points.cuh"

// The stretch of positions that a point owns, and the first and last bin it lies in;
// -1 and n_bins lie outside the axis.
struct Cell {
    double left, right;
    int first, last;
};

// A cell edge of point i, on the bin edge where it cannot be told from it.
__device__ inline double snapped(double edge, long long i, const Points& points, const Bins& bins) {
    const Problem& problem = points.problem;
    const double bin_edge = bins.nearest_edge(edge);
    const double mz = points.mz[i], position = points.position[i];
    const double noise = 4 * problem.eps * mz * slope_of(mz, problem);
    const double snap = fmax(problem.snap * bins.width_at(position), noise);
    const bool close = fabs(edge - bin_edge) <= fmin(snap, 0.5 * fabs(edge - position));
    return close ? bin_edge : edge;
}

// Half the native step at point i, in positions.
__device__ inline double half_step(long long i, const Points& points, const Bins& bins) {
    const double width = bins.width_at(points.position[i]);
    double step = fmax(points.step(points.mz[i]), 0.0);
    step = step * slope_of(fmax(points.mz[i], step), points.problem);
    if (fabs(step - width) <= points.problem.tolerance * width) step = width;
    return 0.5 * step;
}

// Where the cell of point i ends; `next` is the point after it.
__device__ inline double
right_edge(long long i, long long next, const Points& points, const Bins& bins) {
    const double position = points.position[i];
    const bool last = next >= points.end;
    const double middle = last ? 1.0 / 0.0 : 0.5 * (position + points.position[next]);
    if (points.joined(i, next)) return snapped(middle, i, points, bins);
    return snapped(fmin(position + half_step(i, points, bins), middle), i, points, bins);
}

// Where the cell of point i begins; `previous` is the point before it.
__device__ inline double
left_edge(long long i, long long previous, const Points& points, const Bins& bins) {
    if (points.joined(previous, i)) return right_edge(previous, i, points, bins);
    const double position = points.position[i];
    double edge = position - half_step(i, points, bins);
    if (previous >= points.begin) {
        edge = fmax(edge, 0.5 * (points.position[previous] + position));
    }
    return snapped(edge, i, points, bins);
}

// The cell of point i, which is not empty.
__device__ inline Cell cell_of(long long i, const Points& points, const Bins& bins) {
    const Problem& problem = points.problem;
    Cell cell;
    cell.left = left_edge(i, points.before(i), points, bins);
    cell.right = right_edge(i, points.after(i), points, bins);
    if (cell.right - cell.left > problem.narrowest) {
        cell.first = bins.at(cell.left);
        cell.last = bins.below(cell.right);
        return cell;
    }
    const double position = points.position[i];
    const bool at_end = position == bins.edge(problem.n_bins);
    cell.first = cell.last = at_end ? (int)problem.n_bins - 1 : bins.at(position);
    return cell;
}

// All cells of a batch, as `cut_cells` wrote them: columns over points, read where count > 0.
struct Cells {
    Points points;
    Bins bins;
    const double* left;
    const double* right;
    const int* first;
    const int* last;

    __device__ double width(long long i) const {
        return right[i] - left[i];
    }

    __device__ double secant(long long i) const {
        return points.count[i] * inverse_of(width(i), points.problem);
    }

    // The slope of F between the cells of points i and `next`; 0 where either is empty.
    __device__ double slope_between(long long i, long long next) const {
        if (!points.joined(i, next)) return 0;
        if (!(points.count[i] > 0 && points.count[next] > 0)) return 0;
        const double d0 = secant(i), d1 = secant(next);
        return d0 > 0 && d1 > 0 ? harmonic(width(i), width(next), d0, d1) : 0;
    }
};

// What the cell of point i gives from its left edge on, inside it.
__device__ inline Curve curve_of(long long i, const Cells& cells) {
    const Points& points = cells.points;
    if (points.problem.linear) return straight(cells.secant(i));
    const double slope_left = cells.slope_between(points.before(i), i);
    const double slope_right = cells.slope_between(i, points.after(i));
    const double h = inverse_of(cells.width(i), points.problem);
    return cubic(h, cells.secant(i), slope_left, slope_right);
}

// Whether no earlier cell lies in the first bin of the cell of point i.
__device__ inline bool owns_first_bin(long long i, const Cells& cells) {
    const Points& points = cells.points;
    const double low = cells.bins.edge(cells.first[i]);
    for (long long k = i - 1; k >= points.begin; --k) {
        if (points.count[k] > 0) return cells.last[k] != cells.first[i];
        // Cells of points before an empty one end at it or before.
        if (points.count[k] == 0 && points.position[k] <= low) return true;
    }
    return true;
}

// The value of a bin in which the cell of point i ends: what that cell gives, and every
// later one that lies in it, in ascending order.
__device__ inline double add_later(long long i, int bin, double value, const Cells& cells) {
    const Points& points = cells.points;
    const double high = cells.bins.edge(bin + 1LL);
    for (long long k = i + 1; k < points.end; ++k) {
        if (points.count[k] == 0 && points.position[k] >= high) return value;
        if (!(points.count[k] > 0)) continue;
        if (cells.first[k] != bin) return value;
        if (cells.last[k] != bin) {
            return value + fmax(curve_of(k, cells).gain(high - cells.left[k]), 0.0);
        }
        value += points.count[k];
    }
    return value;
}

// Call `visit(bin, value)` for every bin that point i owns, in ascending order: those that
// its cell lies in, the first one only if no earlier cell does. Every bin that any cell
// lies in has one owner, bins -1 and n_bins among them.
template <class Visit>
__device__ inline void visit_cell(long long i, const Cells& cells, Visit& visit) {
    const double count = cells.points.count[i];
    if (!(count > 0)) return;
    const int first = cells.first[i], last = cells.last[i];
    const bool owns = owns_first_bin(i, cells);
    double given = 0;
    if (first < last) {
        const Curve curve = curve_of(i, cells);
        const double left = cells.left[i];
        for (int bin = first; bin < last; ++bin) {
            const double total = curve.gain(cells.bins.edge(bin + 1LL) - left);
            if (bin > first || owns) visit(bin, fmax(total - given, 0.0));
            given = total;
        }
    } else if (!owns) {
        return;
    }
    visit(last, add_later(i, last, fmax(count - given, 0.0), cells));
}
