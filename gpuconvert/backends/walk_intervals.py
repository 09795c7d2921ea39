"""Intervals between the points of one spectrum, and the interpolant of its heights in each.

The formulas and their order are those of `gpuconvert.resampling`; only intervals with
a height at either end are written down.
"""

from __future__ import annotations

import numpy as np

from gpuconvert.backends.walk_types import (
    LINEAR,
    Axis,
    Cells,
    Flags,
    Floats,
    Points,
    Rules,
    are_neighbours,
    harmonic,
    inverse_of,
    last_at_or_below,
)
from gpuconvert.compiled import inner


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
    return width, (points.counts[i + 1] - points.counts[i]) * inverse_of(width)


@inner
def _slope_at(i: int, points: Points, joined: Flags) -> float:
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
) -> int:
    """Write the bins whose centres lie from each point to the next, and the interpolant there.

    The last point of a run stands for its own m/z alone. Without a height at either
    end there are no bins. Returns how many bins there are.
    """
    mz, counts, joined, first, last = (
        points.mz,
        points.counts,
        cells.joined,
        cells.first,
        cells.last,
    )
    for i in range(n):
        joined[i] = i + 1 < n and are_neighbours(mz[i], mz[i + 1], rules)
    near, total = int(np.int64(0)), 0
    for i in range(n):
        cells.slope[i] = cells.a[i] = cells.b[i] = 0.0
        if not (counts[i] > 0 or (joined[i] and counts[i + 1] > 0)):
            first[i], last[i] = 0, -1
            continue
        first[i] = near = _first_centre(mz[i], centres, near)
        if joined[i]:
            last[i] = _first_centre(mz[i + 1], centres, near) - 1
            width, d = _interval(points, i)
            cells.slope[i] = d
            if rules.method != LINEAR:
                h, s_l, s_r = (
                    inverse_of(width),
                    _slope_at(i, points, joined),
                    _slope_at(i + 1, points, joined),
                )
                cells.slope[i] = s_l
                cells.a[i] = (3 * d - 2 * s_l - s_r) * h
                cells.b[i] = (s_l + s_r - 2 * d) * h * h
        else:
            here = near < axis.n_bins and centres[near] == mz[i]
            last[i] = near if here else near - 1
        total += last[i] - first[i] + 1
    return total
