"""What single points, cells and intervals give to single bins, as columns over a batch.

The NumPy form of `gpuconvert.resampling`: every column runs over all spectra, in
ascending order of spectrum and position, and every formula stands once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import NARROWEST, SNAP, ResampleOptions

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Points:
    """Columns over points, ascending in (spectrum, position).

    owner : (n,) int64, position of the spectrum in the batch
    mz : (n,) float64, Th
    count : (n,) float64
    position : (n,) float64, see `MassAxis.position`
    """

    owner: Ints
    mz: Floats
    count: Floats
    position: Floats

    def take(self, keep: Mask) -> Points:
        """Return the points where `keep` holds."""
        return Points(self.owner[keep], self.mz[keep], self.count[keep], self.position[keep])


@dataclass(frozen=True, slots=True)
class Parts:
    """What single cells or intervals give to single bins, ascending in (spectrum, bin).

    bounds : (n_spectra + 1,) int64, where the parts of each spectrum begin, and the end
    index : (n,) int64, bin; -1 and n_bins lie outside the axis
    value : (n,) float64
    distinct : whether no two parts of a spectrum that are not 0 have the same bin
    """

    bounds: Ints
    index: Ints
    value: Floats
    distinct: bool


def bounds_of(owner: Ints, n_spectra: int) -> Ints:
    """Return where each spectrum begins in ascending `owner`, and the end."""
    return np.searchsorted(owner, np.arange(n_spectra + 1))


def find_starts(keys: NDArray[np.int32] | Ints) -> Mask:
    """Return where a new value begins in sorted `keys`; (n,) bool."""
    starts = np.ones(len(keys), bool)
    starts[1:] = keys[1:] != keys[:-1]
    return starts


def sum_at(place: Ints, value: Floats, n_places: int = 0) -> Floats:
    """Return the sums of `value` by `place`, added one after the other; float64."""
    return np.bincount(place, value, n_places).astype(np.float64, copy=False)


def nearest_parts(owner: Ints, mz: Floats, count: Floats, axis: MassAxis, n_spectra: int) -> Parts:
    """Return every point's count at the bin whose centre is nearest."""
    found = count > 0
    owner, mz, count = owner[found], mz[found], count[found]
    centres = axis.centres
    right = np.minimum(np.searchsorted(centres, mz), axis.n_bins - 1)
    left = np.maximum(right - 1, 0)
    index = np.where(np.abs(centres[right] - mz) <= np.abs(centres[left] - mz), right, left)
    index[mz < axis.low] = -1
    index[mz > axis.high] = axis.n_bins
    return Parts(bounds_of(owner, n_spectra), index, count, distinct=False)


def merge(points: Points) -> Points:
    """Add points at no new position to the one before."""
    new = find_starts(points.owner)
    if (new[1:] | (points.position[1:] > points.position[:-1])).all():
        return points
    # Complex numbers compare by real, then imaginary part: a running maximum per spectrum.
    highest = np.empty(len(points.owner), np.complex128)
    highest.real, highest.imag = points.owner, points.position
    np.maximum.accumulate(highest, out=highest)
    new[1:] |= points.position[1:] > highest.imag[:-1]
    count = sum_at(np.cumsum(new) - 1, points.count)
    return Points(points.owner[new], points.mz[new], count, points.position[new])


def _near_counts(points: Points) -> Points:
    """Return the non-empty points and those beside them, which is all that matters."""
    near = points.count > 0
    if near.all():
        return points
    found = near.copy()
    near[1:] |= found[:-1]
    near[:-1] |= found[1:]
    return points.take(near)


def _joined(points: Points, options: ResampleOptions) -> Mask:
    """Return whether each point and the next are neighbours; (n - 1,) bool."""
    mz, owner = points.mz, points.owner
    with np.errstate(invalid="ignore"):  # an infinite gap times a step of 0 is no limit either
        gap = options.gap * options.spacing.step(mz[1:])
    joined: Mask = ~(mz[1:] - mz[:-1] > gap) & (owner[1:] == owner[:-1])
    return joined


def _width(position: Floats, axis: MassAxis) -> Floats | float:
    """Return the width of the bin that holds each position."""
    if not axis.is_listed:
        return 1.0
    index = np.searchsorted(axis.edges, position, "right") - 1
    return np.diff(axis.edges)[np.clip(index, 0, axis.n_bins - 1)]


def _nearest_bin_edge(edge: Floats, axis: MassAxis) -> Floats:
    """Return the bin edge nearest to each cell edge, the lower of two."""
    if not axis.is_listed:
        below = np.floor(edge)
        return below + (edge - below > below + 1 - edge)
    index = np.clip(np.searchsorted(axis.edges, edge, "right"), 1, axis.n_bins)
    below, above = axis.edges[index - 1], axis.edges[index]
    return np.where(edge - below > above - edge, above, below)


def _snap(edge: Floats, position: Floats, snap: Floats, axis: MassAxis) -> Floats:
    """Return the cell edges of points, on a bin edge where they cannot be told from it."""
    bin_edge = _nearest_bin_edge(edge, axis)
    away = np.abs(edge - bin_edge)
    return np.where((away <= snap) & (away <= 0.5 * np.abs(edge - position)), bin_edge, edge)


def _half_steps(mz: Floats, position: Floats, axis: MassAxis, options: ResampleOptions) -> Floats:
    """Return half the native step at each point, in positions."""
    width = _width(position, axis)
    step = np.maximum(options.spacing.step(mz), 0.0)
    step = step * axis.slope(np.maximum(mz, step))
    return 0.5 * np.where(np.abs(step - width) <= options.spacing.tolerance * width, width, step)


def _cell_edges(
    points: Points, joined: Mask, axis: MassAxis, options: ResampleOptions, eps: float
) -> tuple[Floats, Floats]:
    """Return where the cell of each point begins and ends; two of (n,) float64."""
    mz, position = points.mz, points.position
    snap = np.maximum(SNAP * _width(position, axis), 4 * eps * mz * axis.slope(mz))
    left, right = np.empty(len(mz)), np.empty(len(mz))
    middle = 0.5 * (position[:-1] + position[1:])
    right[:-1] = left[1:] = _snap(middle, position[:-1], snap[:-1], axis)
    # The first and the last points of runs, and what lies on the other side of the gap.
    apart = np.flatnonzero(~joined)
    first, last = np.append(0, apart + 1), np.append(apart, len(mz) - 1)
    across = points.owner[apart] == points.owner[apart + 1]
    before = np.append(-np.inf, np.where(across, position[apart], -np.inf))
    after = np.append(np.where(across, position[apart + 1], np.inf), np.inf)
    here = position[first]
    begin = np.maximum(here - _half_steps(mz[first], here, axis, options), 0.5 * (before + here))
    left[first] = _snap(begin, here, snap[first], axis)
    here = position[last]
    end = np.minimum(here + _half_steps(mz[last], here, axis, options), 0.5 * (here + after))
    right[last] = _snap(end, here, snap[last], axis)
    return left, right


def _edge_slopes(width: Floats, secant: Floats, joined: Mask) -> tuple[Floats, Floats]:
    """Return the slope of F at the left and right end of each cell; two of (n,) float64."""
    between = np.zeros(len(width) + 1)
    filled = secant > 0
    with np.errstate(divide="ignore", invalid="ignore"):  # where a side is flat, not asked for
        mean = _harmonic(width[:-1], width[1:], secant[:-1], secant[1:])
    between[1:-1] = np.where(joined & filled[1:] & filled[:-1], mean, 0.0)
    return between[:-1], between[1:]


def _harmonic(h0: Floats, h1: Floats, d0: Floats, d1: Floats) -> Floats:
    """Return the weighted harmonic mean of the secants d0, d1 over widths h0, h1."""
    w1 = 2 * h1 + h0
    w2 = h1 + 2 * h0
    with np.errstate(over="ignore"):  # the mean with a vanishing secant vanishes
        return (w1 + w2) / (w1 / d0 + w2 / d1)


def _coefficients(h: Floats, d: Floats, s_l: Floats, s_r: Floats) -> tuple[Floats, Floats, Floats]:
    """Return what G(t) = t (s + t (a + t b)) is made of, for stretches of width 1 / h."""
    return s_l, (3 * d - 2 * s_l - s_r) * h, (s_l + s_r - 2 * d) * h * h


def _gain(t: Floats, s: Floats, a: Floats | None = None, b: Floats | None = None) -> Floats:
    """Return G(t), what is gained from the left end of a stretch to t beyond it.

    a, b : None where the curve is a straight line
    """
    return t * s if a is None or b is None else t * (s + t * (a + t * b))


def _inverse(width: Floats) -> Floats:
    """Return 1 / width, 0 where there is no width."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.where(width > NARROWEST, 1 / width, 0.0)


def _bins_of_cells(
    left: Floats, right: Floats, position: Floats, axis: MassAxis
) -> tuple[Ints, Ints]:
    """Return the first and last bin that each cell lies in; two of (n,) int64."""
    n_bins = axis.n_bins
    if axis.is_listed:
        first = np.searchsorted(axis.edges, left, "right") - 1
        last = np.searchsorted(axis.edges, right, "left") - 1
        held = np.searchsorted(axis.edges, position, "right") - 1
        end = axis.high
    else:
        first = np.clip(np.floor(left), -1, n_bins).astype(np.int64)
        last = np.clip(np.ceil(right) - 1, -1, n_bins).astype(np.int64)
        held = np.clip(np.floor(position), -1, n_bins).astype(np.int64)
        end = float(n_bins)
    held[position == end] = n_bins - 1
    narrow = ~(right - left > NARROWEST)
    return np.where(narrow, held, first), np.where(narrow, held, last)


def count_parts(
    points: Points, axis: MassAxis, options: ResampleOptions, eps: float, n_spectra: int
) -> Parts:
    """Return what every non-empty cell gives to every bin it lies in."""
    points = _near_counts(points)
    if not len(points.owner):
        return Parts(np.zeros(n_spectra + 1, np.int64), points.owner, points.count, distinct=True)
    joined = _joined(points, options)
    left, right = _cell_edges(points, joined, axis, options, eps)
    width = right - left
    inverse = _inverse(width)
    secant = points.count * inverse
    curve: tuple[Floats, ...] = (left, secant)
    if options.method != "linear":
        curve = left, *_coefficients(inverse, secant, *_edge_slopes(width, secant, joined))
    filled = points.count > 0
    if not filled.all():
        points, right = points.take(filled), right[filled]
        curve = tuple(column[filled] for column in curve)
    first, last = _bins_of_cells(curve[0], right, points.position, axis)
    cell, index, begin = _expand(first, last)
    edge = axis.edges[np.clip(index + 1, 0, axis.n_bins)] if axis.is_listed else index + 1.0
    at, *rest = (column[cell] for column in curve)
    with np.errstate(over="ignore", invalid="ignore"):  # beyond the ends of narrow cells
        given = _gain(edge - at, *rest)
    # What a cell gave up to the end of each part; all of it at its own end.
    given[begin + last - first] = points.count
    value = np.empty_like(given)
    value[1:] = given[1:] - given[:-1]
    value[begin] = given[begin]
    np.maximum(value, 0.0, out=value)
    bounds = np.append(begin, len(index))[bounds_of(points.owner, n_spectra)]
    distinct = _add_to_the_part_before(value, points.owner, first, last, begin)
    return Parts(bounds, index, value, distinct)


def _add_to_the_part_before(
    value: Floats, owner: Ints, first: Ints, last: Ints, begin: Ints
) -> bool:
    """Add the first part of each cell to the last of the cell before, where they share a bin.

    Nothing is done where that would be too simple, a bin having parts of more than two cells;
    returns whether it was done.
    """
    shared = np.flatnonzero((first[1:] == last[:-1]) & (owner[1:] == owner[:-1])) + 1
    alone = first[shared] == last[shared]
    if (alone[:-1] & (shared[1:] == shared[:-1] + 1)).any():
        return False
    at = begin[shared]
    value[at - 1] += value[at]
    value[at] = 0.0
    return True


def _expand(first: Ints, last: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the cell and the bin of every part, and where the parts of each cell begin.

    first, last : bins of a cell or interval, which has no part where `last` is below `first`
    """
    n_parts = last - first + 1
    begin = np.cumsum(n_parts) - n_parts
    cell = np.repeat(np.arange(len(first)), n_parts)
    return cell, np.arange(len(cell)) + (first - begin)[cell], begin


def height_parts(points: Points, axis: MassAxis, options: ResampleOptions, n_spectra: int) -> Parts:
    """Return the interpolant of every run at every bin centre inside it."""
    mz, count = points.mz, points.count
    joined = _joined(points, options)
    begin = np.searchsorted(axis.centres, mz, "left")
    # A point without a neighbour after it stands for its own m/z alone.
    end = np.searchsorted(axis.centres, mz, "right")
    end[:-1][joined] = begin[1:][joined]
    width = np.ones(len(mz))
    width[:-1][joined] = (mz[1:] - mz[:-1])[joined]
    rise = np.zeros(len(mz))
    rise[:-1][joined] = (count[1:] - count[:-1])[joined]
    inverse = _inverse(width)
    secant = rise * inverse
    filled = np.flatnonzero((count > 0) | (rise > 0))
    interval, index, _ = _expand(begin[filled], end[filled] - 1)
    at = filled[interval]
    bounds = bounds_of(points.owner[at], n_spectra)
    t = axis.centres[index] - mz[at]
    if options.method == "linear":
        return Parts(bounds, index, count[at] + _gain(t, secant[at]), distinct=True)
    slope = _point_slopes(width, secant, joined)
    slope_right = np.zeros(len(mz))
    slope_right[:-1][joined] = slope[1:][joined]
    curve = _coefficients(inverse, secant, slope, slope_right)
    gained = _gain(t, *(column[at] for column in curve))
    return Parts(bounds, index, count[at] + gained, distinct=True)


def _point_slopes(width: Floats, secant: Floats, joined: Mask) -> Floats:
    """Return the derivative of the monotone cubic at each point of each run; (n,) float64.

    width, secant : from each point to the next; joined : (n - 1,), as `_joined` returns
    """
    slope = np.zeros(len(width))
    none = np.zeros(min(len(width), 1), bool)
    after, before = np.append(joined, none), np.append(none, joined)
    inner = np.flatnonzero(after & before)
    inner = inner[np.sign(secant[inner - 1]) * np.sign(secant[inner]) > 0]
    slope[inner] = _harmonic(width[inner - 1], width[inner], secant[inner - 1], secant[inner])
    start, end = np.flatnonzero(after & ~before), np.flatnonzero(before & ~after)
    slope[start], slope[end] = secant[start], secant[end - 1]
    start, end = start[after[start + 1]], end[before[end - 1]]
    slope[start] = _end_slope(width[start], width[start + 1], secant[start], secant[start + 1])
    slope[end] = _end_slope(width[end - 1], width[end - 2], secant[end - 1], secant[end - 2])
    return slope


def _end_slope(h0: Floats, h1: Floats, d0: Floats, d1: Floats) -> Floats:
    """Return the three-point derivative at an end, bent back where it would overshoot."""
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    overshoots = (np.sign(d0) != np.sign(d1)) & (np.abs(slope) > 3 * np.abs(d0))
    bent = np.where(overshoots, 3 * d0, slope)
    return np.where(np.sign(slope) != np.sign(d0), 0.0, bent)
