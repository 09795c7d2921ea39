"""Cells of one spectrum: where each begins and ends, the bins it lies in, and its cubic.

The formulas and their order are those of `gpuconvert.resampling`. Whatever is done
at every point is a loop without a branch, which vectorises; ends of runs, cells
without a width and listed axes are seen to one by one.
"""

from __future__ import annotations

import math

import numpy as np

from gpuconvert.backends.walk_types import (
    LINEAR,
    Axis,
    Cells,
    Floats,
    Points,
    Rules,
    are_neighbours,
    harmonic,
    last_at_or_below,
    slope_of,
    step_of,
)
from gpuconvert.compiled import inner
from gpuconvert.mass_axis import MZ_FLOOR
from gpuconvert.resampling import NARROWEST, SNAP


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
def _listed_bin(position: float, edges: Floats, near: int) -> int:
    """Return the listed bin that holds a position, the first or last one beyond the ends."""
    return min(max(last_at_or_below(edges, position, near), 0), len(edges) - 2)


@inner
def _nearest_whole(position: float) -> float:
    """Return the whole number nearest to a position, the lower of two."""
    below = float(np.floor(position))
    return below + 1.0 if position - below > below + 1 - position else below


@inner
def _nearest_edge(position: float, edges: Floats, near: int) -> float:
    """Return the bin edge nearest to a position, the lower of two."""
    if len(edges) == 0:
        return _nearest_whole(position)
    k = _listed_bin(position, edges, near)
    below, above = float(edges[k]), float(edges[k + 1])
    return above if position - below > above - position else below


@inner
def _snap(edge: float, bin_edge: float, position: float, snap: float) -> float:
    """Return a cell edge of a point, on the bin edge where it cannot be told from it."""
    away = abs(edge - bin_edge)
    return bin_edge if (away <= snap) & (away <= 0.5 * abs(edge - position)) else edge


@inner
def _write_snaps(
    points: Points, n: int, axis: Axis, rules: Rules, edges: Floats, cells: Cells
) -> None:
    """Write how near its bin edge an edge of each cell has to be to lie on it."""
    mz, snap, first = points.mz, cells.snap, cells.first
    for i in range(n):
        snap[i] = SNAP
    if len(edges) > 0:
        near = int(np.int64(0))
        for i in range(n):
            first[i] = near = _listed_bin(points.position[i], edges, near)
            snap[i] = SNAP * (edges[near + 1] - edges[near])
    if len(edges) > 0 or _most_noise(mz[0], mz[n - 1], axis, rules) > SNAP:
        for i in range(n):
            snap[i] = max(snap[i], _noise_of(mz[i], axis, rules))


@inner
def _half_step(mz: float, width: float, axis: Axis, rules: Rules) -> float:
    """Return half the native step at a point in a bin of this width, in positions."""
    step = max(step_of(mz, rules), 0.0)
    step = step * slope_of(max(mz, step), axis)
    if abs(step - width) <= rules.tolerance * width:
        step = width
    return 0.5 * step


@inner
def _write_ends(
    points: Points, n: int, axis: Axis, rules: Rules, edges: Floats, cells: Cells
) -> None:
    """Write where each cell begins and ends."""
    mz, p, snap = points.mz, points.position, cells.snap
    left, right, joined, first = cells.left, cells.right, cells.joined, cells.first
    for i in range(n - 1):
        joined[i] = are_neighbours(mz[i], mz[i + 1], rules)
    joined[n - 1] = False
    if len(edges) == 0:
        for i in range(n - 1):
            middle = 0.5 * (p[i] + p[i + 1])
            right[i] = _snap(middle, _nearest_whole(middle), p[i], snap[i])
    else:
        for i in range(n - 1):
            middle = 0.5 * (p[i] + p[i + 1])
            goal = _nearest_edge(middle, edges, first[i])
            right[i] = _snap(middle, goal, p[i], snap[i])
    for i in range(n - 1):
        left[i + 1] = right[i]
    width = 1.0
    for i in range(n):
        if i > 0 and joined[i - 1] and joined[i]:
            continue
        k = first[i]
        if len(edges) > 0:
            width = edges[k + 1] - edges[k]
        half = _half_step(mz[i], width, axis, rules)
        if i == 0 or not joined[i - 1]:
            before = p[i - 1] if i > 0 else -math.inf
            begin = max(p[i] - half, 0.5 * (before + p[i]))
            left[i] = _snap(begin, _nearest_edge(begin, edges, k), p[i], snap[i])
        if not joined[i]:
            after = p[i + 1] if i + 1 < n else math.inf
            end = min(p[i] + half, 0.5 * (p[i] + after))
            right[i] = _snap(end, _nearest_edge(end, edges, k), p[i], snap[i])


@inner
def _whole_bin(number: float, axis: Axis) -> int:
    """Return a whole number as a bin; -1 and n_bins lie outside the axis."""
    return int(min(max(number, -1.0), float(axis.n_bins)))


@inner
def _held_bin(position: float, axis: Axis, edges: Floats) -> int:
    """Return the bin that holds all of a cell without a width."""
    if len(edges) > 0:
        held = last_at_or_below(edges, position, 0)
        return held - 1 if position == edges[-1] else held
    held = _whole_bin(np.floor(position), axis)
    return held - 1 if position == axis.n_bins else held


@inner
def _write_bins(points: Points, n: int, axis: Axis, edges: Floats, cells: Cells) -> int:
    """Write the first and the last bin of each cell; return how many bins that are."""
    left, right, first, last = cells.left, cells.right, cells.first, cells.last
    narrow = 0
    for i in range(n):
        narrow += not (right[i] - left[i] > NARROWEST)
    if len(edges) == 0:
        for i in range(n):
            first[i] = _whole_bin(np.floor(left[i]), axis)
            last[i] = _whole_bin(np.ceil(right[i]) - 1, axis)
    else:
        for i in range(n):
            end = last_at_or_below(edges, right[i], first[i])
            first[i] = last_at_or_below(edges, left[i], first[i])
            last[i] = end - 1 if end >= 0 and edges[end] == right[i] else end
    if narrow > 0:
        for i in range(n):
            if not right[i] - left[i] > NARROWEST:
                first[i] = last[i] = _held_bin(points.position[i], axis, edges)
    n_bins = 0
    for i in range(n):
        n_bins += last[i] - first[i] + 1
    return n_bins


@inner
def cut_cells(points: Points, n: int, axis: Axis, rules: Rules, edges: Floats, cells: Cells) -> int:
    """Write the ends and the bins of the cells of `n` points; return how many bins these are.

    edges : (n_bins + 1,) float64 bin edges of listed centres, empty for a law
    """
    if n == 0:
        return 0
    _write_snaps(points, n, axis, rules, edges, cells)
    _write_ends(points, n, axis, rules, edges, cells)
    return _write_bins(points, n, axis, edges, cells)


@inner
def write_curves(counts: Floats, n: int, rules: Rules, cells: Cells) -> None:
    """Write the cubic of each of `n` cells, whose ends are known: ``slope``, ``a`` and ``b``."""
    left, right, joined, secant = cells.left, cells.right, cells.joined, cells.secant
    slope, a, b = cells.slope, cells.a, cells.b
    for i in range(n):
        # A quotient beside the comparison, and not behind it, is computed without a branch.
        width = right[i] - left[i]
        inverse = 1 / width
        a[i] = inverse if width > NARROWEST else 0.0
        secant[i] = counts[i] * a[i]
    if rules.method == LINEAR:
        for i in range(n):
            slope[i], a[i], b[i] = secant[i], 0.0, 0.0
        return
    slope[0] = slope[n] = 0.0
    for i in range(1, n):
        d0, d1 = secant[i - 1], secant[i]
        mean = harmonic(right[i - 1] - left[i - 1], right[i] - left[i], d0, d1)
        slope[i] = mean if joined[i - 1] & (d0 > 0) & (d1 > 0) else 0.0
    for i in range(n):
        d, h, s_l, s_r = secant[i], a[i], slope[i], slope[i + 1]
        a[i] = (3 * d - 2 * s_l - s_r) * h
        b[i] = (s_l + s_r - 2 * d) * h * h
