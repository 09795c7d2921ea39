"""Cells and intervals of one spectrum: where each begins and ends, and its interpolant.

The formulas and their order are those of `gpuconvert.resampling`; only non-empty
cells, and intervals with a height at either end, are written down.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.walk_types import (
    Axis,
    Cells,
    Floats,
    Points,
    Rules,
    last_at_or_below,
    slope_of,
    step_of,
)
from gpuconvert.compiled import inner
from gpuconvert.mass_axis import MZ_FLOOR
from gpuconvert.resampling import NARROWEST, SNAP


@inner
def are_neighbours(first: float, second: float, rules: Rules) -> bool:
    """Return whether two consecutive points, by their m/z, are neighbours."""
    return not second - first > rules.gap * step_of(second, rules)


@inner
def harmonic(h0: float, h1: float, d0: float, d1: float) -> float:
    """Return the weighted harmonic mean of the secants d0, d1 over widths h0, h1."""
    w1 = 2 * h1 + h0
    w2 = h1 + 2 * h0
    return (w1 + w2) / (w1 / d0 + w2 / d1)


@inner
def cubic(x: float, w: float, d: float, s_l: float, s_r: float) -> float:
    """Return G(x), what the cubic gains from the left end of its stretch to x."""
    return w * x * (s_l + x * ((3 * d - 2 * s_l - s_r) + x * (s_l + s_r - 2 * d)))


@inner
def secant_of(rise: float, width: float) -> float:
    """Return rise / width, 0 where there is no width."""
    return rise / width if width > NARROWEST else 0.0


@inner
def _noise_of(mz: float, axis: Axis, rules: Rules) -> float:
    """Return how far the precision of its m/z moves a point, in positions."""
    return 4 * rules.eps * mz * slope_of(mz, axis)


@inner
def _most_noise(low: float, high: float, axis: Axis, rules: Rules) -> float:
    """Return what `_noise_of` stays below between two m/z."""
    # m u'(m) is monotone in m for every law, hence largest at an end; 2 for rounding.
    at_low = _noise_of(max(low, MZ_FLOOR), axis, rules)
    return 2 * max(at_low, _noise_of(max(high, MZ_FLOOR), axis, rules))


@inner
def _snap(
    edge: float, bin_edge: float, width: float, mz: float, position: float, most: float,
    axis: Axis, rules: Rules,
) -> float:  # fmt: skip
    """Return a cell edge of a point, on the bin edge where it cannot be told from it.

    width : of the bin of the point
    most : what `_noise_of` stays below, so that it is seldom asked
    """
    away = abs(edge - bin_edge)
    close = away <= SNAP * width or (away <= most and away <= _noise_of(mz, axis, rules))
    return bin_edge if close and away <= 0.5 * abs(edge - position) else edge


@inner
def _half_step(mz: float, width: float, axis: Axis, rules: Rules) -> float:
    """Return half the native step at a point in a bin of this width, in positions."""
    step = max(step_of(mz, rules), 0.0)
    step = step * slope_of(max(mz, step), axis)
    if abs(step - width) <= rules.tolerance * width:
        step = width
    return 0.5 * step


@inner
def _whole_bin(number: float, axis: Axis) -> int:
    """Return a whole number as a bin; -1 and n_bins lie outside the axis."""
    return int(min(max(number, -1.0), float(axis.n_bins)))


@inner
def _nearest_whole(position: float) -> float:
    """Return the whole number nearest to a position, the lower of two."""
    below = float(np.floor(position))
    return below + 1.0 if position - below > below + 1 - position else below


@inner
def _listed_bin(position: float, edges: Floats, near: int) -> int:
    """Return the listed bin that holds a position, the first or last one beyond the ends."""
    return min(max(last_at_or_below(edges, position, near), 0), len(edges) - 2)


@inner
def _bin_width(position: float, edges: Floats, near: int) -> float:
    """Return the width of the bin that holds a position; no `edges` where all are 1 wide."""
    if len(edges) == 0:
        return 1.0
    k = _listed_bin(position, edges, near)
    return float(edges[k + 1] - edges[k])


@inner
def _nearest_listed(position: float, edges: Floats, near: int) -> float:
    """Return the listed bin edge nearest to a position, the lower of two."""
    k = _listed_bin(position, edges, near)
    below, above = float(edges[k]), float(edges[k + 1])
    return above if position - below > above - position else below


@inner
def _listed_bins(
    begin: float, end: float, position: float, edges: Floats, near: int
) -> tuple[int, int]:
    """Return the first and the last listed bin of a cell; -1 and n_bins lie outside."""
    if end - begin > NARROWEST:
        last = last_at_or_below(edges, end, near)
        if last >= 0 and edges[last] == end:
            last -= 1
        return last_at_or_below(edges, begin, near), last
    held = last_at_or_below(edges, position, near)
    if position == edges[-1]:
        held -= 1
    return held, held


@inner
def _whole_bins(begin: float, end: float, position: float, axis: Axis) -> tuple[int, int]:
    """Return the first and the last bin of a cell on the axis of a law."""
    if end - begin > NARROWEST:
        return _whole_bin(np.floor(begin), axis), _whole_bin(np.ceil(end) - 1, axis)
    held = _whole_bin(np.floor(position), axis)
    if position == axis.n_bins:
        held -= 1
    return held, held


@inner
def cut_cells(
    points: Points, n: int, axis: Axis, rules: Rules, edges: Floats, cells: Cells
) -> tuple[int, int]:
    """Write the non-empty cells of `n` points; return their number, and a bound on the bins.

    edges : (n_bins + 1,) float64 bin edges of listed centres, empty for a law
    """
    if n == 0:
        return 0, 0
    mz, count, position = points
    listed = len(edges) > 0
    most = _most_noise(mz[0], mz[n - 1], axis, rules)
    # Typed, as a literal 0 would have all that is called with it compiled twice.
    k, near, total = int(np.int64(0)), int(np.int64(0)), 0
    end, after, follows = 0.0, False, False
    for i in range(n):
        before, follows = after, after and count[i - 1] > 0
        after = i + 1 < n and are_neighbours(mz[i], mz[i + 1], rules)
        if not count[i] > 0:
            continue
        p = position[i]
        width = _bin_width(p, edges, near) if listed else 1.0
        half = 0.0 if before and after else _half_step(mz[i], width, axis, rules)
        begin = end
        if not follows:
            at = i - 1 if before else i
            begin = -math.inf if before else p - half
            if i > 0:
                begin = max(begin, 0.5 * (position[i - 1] + p))
            goal = _nearest_listed(begin, edges, near) if listed else _nearest_whole(begin)
            size = _bin_width(position[at], edges, near) if listed else 1.0
            begin = _snap(begin, goal, size, mz[at], position[at], most, axis, rules)
        end = math.inf if after else p + half
        if i + 1 < n:
            end = min(end, 0.5 * (p + position[i + 1]))
        goal = _nearest_listed(end, edges, near) if listed else _nearest_whole(end)
        end = _snap(end, goal, width, mz[i], p, most, axis, rules)
        if listed:
            first, near = _listed_bins(begin, end, p, edges, near)
        else:
            first, near = _whole_bins(begin, end, p, axis)
        cells.left[k], cells.right[k], cells.counts[k] = begin, end, count[i]
        cells.first[k], cells.last[k] = first, near
        cells.slope_left[k] = 1.0 if follows else 0.0
        total += near - first + 1
        k += 1
    _write_slopes(cells, k)
    return k, total


@inner
def _write_slopes(cells: Cells, n: int) -> None:
    """Write the secants of `n` cells, and the slopes of F between neighbours.

    `slope_left` comes as 1 where the cell before is a neighbour, else 0. Loops without a
    branch, which vectorise: four divisions a cell would be most of the work.
    """
    left, right, counts, secant, slope_left, slope_right, _, _ = cells
    for k in range(n):
        width = right[k] - left[k]
        ratio = counts[k] / width
        secant[k] = ratio if width > NARROWEST else 0.0
        slope_right[k] = 0.0
    for k in range(1, n):
        d0, d1 = secant[k - 1], secant[k]
        mean = harmonic(right[k - 1] - left[k - 1], right[k] - left[k], d0, d1)
        slope = mean if slope_left[k] > 0 and d0 > 0 and d1 > 0 else 0.0
        slope_left[k] = slope
        slope_right[k - 1] = slope


@inner
def _end_slope(h0: float, h1: float, d0: float, d1: float) -> float:
    """Return the three-point derivative at an end, bent back where it would overshoot."""
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    if np.sign(slope) != np.sign(d0):
        return 0.0
    if np.sign(d0) != np.sign(d1) and abs(slope) > 3 * abs(d0):
        return 3 * d0
    return slope


@inner
def _interval(points: Points, i: int) -> tuple[float, float]:
    """Return the width and the secant between points i and i + 1."""
    width = points.mz[i + 1] - points.mz[i]
    return width, secant_of(points.counts[i + 1] - points.counts[i], width)


@inner
def _slope_at(i: int, points: Points, joined: NDArray[np.bool_]) -> float:
    """Return the derivative of the monotone cubic at point i of its run."""
    before = i > 0 and joined[i - 1]
    if not (before or joined[i]):
        return 0.0
    if before and joined[i]:
        h0, d0 = _interval(points, i - 1)
        h1, d1 = _interval(points, i)
        return harmonic(h0, h1, d0, d1) if np.sign(d0) * np.sign(d1) > 0 else 0.0
    near = i - 1 if before else i
    far = i - 2 if before else i + 1
    h0, d0 = _interval(points, near)
    if far < 0 or not joined[far]:
        return d0
    h1, d1 = _interval(points, far)
    return _end_slope(h0, h1, d0, d1)


@inner
def _first_centre(mz: float, centres: Floats, near: int) -> int:
    """Return the first bin whose centre is not below an m/z; `near` is a guess."""
    k = last_at_or_below(centres, mz, near)
    return k if k >= 0 and centres[k] == mz else k + 1


@inner
def cut_intervals(
    points: Points, n: int, axis: Axis, rules: Rules, centres: Floats, cells: Cells
) -> tuple[int, int]:
    """Write the intervals with a height between `n` points, and the last points of runs.

    Returns their number, and that of the bin centres in them.
    """
    joined = np.zeros(n, np.bool_)
    for i in range(n - 1):
        joined[i] = are_neighbours(points.mz[i], points.mz[i + 1], rules)
    k, near, total = int(np.int64(0)), int(np.int64(0)), 0
    for i in range(n):
        if not (points.counts[i] > 0 or (joined[i] and points.counts[i + 1] > 0)):
            continue
        cells.left[k] = points.mz[i]
        cells.counts[k] = points.counts[i]
        cells.first[k] = near = _first_centre(points.mz[i], centres, near)
        if joined[i]:
            cells.right[k] = points.mz[i + 1]
            cells.secant[k] = _interval(points, i)[1]
            cells.slope_left[k] = _slope_at(i, points, joined)
            cells.slope_right[k] = _slope_at(i + 1, points, joined)
            cells.last[k] = _first_centre(points.mz[i + 1], centres, near) - 1
        else:
            # A point without a neighbour after it stands for its own m/z alone.
            cells.right[k] = points.mz[i] + 1.0
            cells.secant[k] = cells.slope_left[k] = cells.slope_right[k] = 0.0
            here = near < axis.n_bins and centres[near] == points.mz[i]
            cells.last[k] = near if here else near - 1
        total += cells.last[k] - cells.first[k] + 1
        k += 1
    return k, total
