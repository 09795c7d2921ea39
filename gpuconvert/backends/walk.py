"""The walk along each spectrum: decode, look for faults, keep what matters, fill the bins.

`walk_batch` is what the CPU backend compiles. Scratch is as long as the longest
spectrum and stays in the cache; non-zeros go to buffers that the caller lengthens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.walk_cells import cubic, cut_cells, cut_intervals, secant_of
from gpuconvert.backends.walk_types import (
    LINEAR,
    NEAREST,
    Axis,
    Cells,
    Columns,
    Floats,
    Ints,
    Points,
    Rules,
    Source,
    last_at_or_below,
    write_positions,
)
from gpuconvert.compiled import compiled, inner
from gpuconvert.mass_axis import LISTED_CODE
from gpuconvert.resampling import NARROWEST
from gpuconvert.spectra import (
    FAULT_INTENSITY,
    FAULT_MZ,
    FAULT_NEGATIVE,
    FAULT_ORDER,
    MAX_INTENSITY,
    MAX_MZ,
)

Bytes = NDArray[np.uint8]
Bins = NDArray[np.int32]
Values = NDArray[np.float32]

DTYPE_CODES = {"f8": 0, "f4": 1, "i4": 2}
"""How `_load` calls the dtypes it decodes; each costs time to compile."""

DTYPE_BYTES = (8, 4, 4)


@inner
def _widen(values: NDArray[Any], n: int, into: Floats) -> None:
    for k in range(n):
        into[k] = values[k]


@inner
def _load(raw: Bytes, at: int, n: int, code: int, scratch: Bytes, into: Floats) -> None:
    """Decode `n` values of a dtype at byte `at`; `scratch` aligns them."""
    size = DTYPE_BYTES[code]
    stored = raw[at : at + n * size]
    aligned = into.view(np.uint8) if code == 0 else scratch
    for k in range(n * size):
        aligned[k] = stored[k]
    if code == 1:
        _widen(scratch.view(np.float32), n, into)
    elif code == 2:
        _widen(scratch.view(np.int32), n, into)


@inner
def _mz_faults(mz: Floats, n: int) -> int:
    """Return the FAULT_* bits of the m/z of one spectrum."""
    disorder = unusable = 0
    for i in range(n):
        unusable |= not (mz[i] >= 0 and mz[i] <= MAX_MZ)
    for i in range(1, n):
        disorder |= mz[i] < mz[i - 1]
    return disorder * FAULT_ORDER | unusable * FAULT_MZ


@inner
def _intensity_faults(intensity: Floats, n: int) -> int:
    """Return the FAULT_* bits of the intensities of one spectrum."""
    unusable = negative = 0
    for i in range(n):
        unusable |= not abs(intensity[i]) <= MAX_INTENSITY
        negative |= intensity[i] < 0
    return unusable * FAULT_INTENSITY | negative * FAULT_NEGATIVE


@inner
def _ascend(position: Floats, n: int) -> bool:
    """Return whether each of `n` positions is above the one before."""
    stalls = 0
    for k in range(1, n):
        stalls |= position[k] <= position[k - 1]
    return stalls == 0


@inner
def _keep_near(spectrum: Points, n: int, kept: Points) -> tuple[int, float]:
    """Keep the non-empty points, two points before and one after each.

    Returns how many, and the sum of the counts. Positions are copied, found or not.
    """
    mz, count, position = spectrum
    k, i, done, tic = 0, 0, 0, 0.0
    while i < n:
        if count[i] == 0:
            i += 1
            continue
        start = max(done, i - 2)
        while i < n and count[i] > 0:
            tic += count[i]
            i += 1
        done = i = min(i + 1, n)
        for j in range(start, done):
            kept.mz[k], kept.counts[k], kept.position[k] = mz[j], count[j], position[j]
            k += 1
    return k, tic


@inner
def _keep_all(spectrum: Points, n: int, kept: Points) -> tuple[int, float]:
    """Keep every point, those at no new position added to the one before.

    Returns how many, and the sum of the counts.
    """
    mz, count, position = spectrum
    k, tic = 0, 0.0
    for j in range(n):
        tic += count[j]
        if k > 0 and position[j] <= kept.position[k - 1]:
            kept.counts[k - 1] += count[j]
            continue
        kept.mz[k], kept.counts[k], kept.position[k] = mz[j], count[j], position[j]
        k += 1
    return k, tic


@inner
def _put(
    bin_: int, value: float, axis: Axis, rules: Rules, size: int, indices: Bins, data: Values
) -> tuple[int, float]:
    """Write a finished bin where it is above the threshold.

    Returns the new size, and the value of a bin that lies outside the axis.
    """
    if bin_ < 0 or bin_ >= axis.n_bins:
        return size, value
    rounded = np.float32(value)
    # Written in any case, and kept by counting it: no branch to guess wrong.
    indices[size] = bin_
    data[size] = rounded
    return size + int(np.float64(rounded) > rules.threshold), 0.0


@inner
def _fill_from_cells(
    cells: Cells, n: int, axis: Axis, rules: Rules, edges: Floats, size: int, indices: Bins,
    data: Values,
) -> tuple[int, float]:  # fmt: skip
    """Write the bins that `n` cells lie in; return the new size, and what lies outside."""
    bin_, value, outside = int(np.int64(-1)), 0.0, 0.0
    for k in range(n):
        begin, count, secant = cells.left[k], cells.counts[k], cells.secant[k]
        slope_left, slope_right = cells.slope_left[k], cells.slope_right[k]
        width, last = cells.right[k] - begin, cells.last[k]
        scale = 1 / width
        given, total = 0.0, 0.0
        for j in range(cells.first[k], last + 1):
            if j == last:
                total = count
            else:
                edge = edges[j + 1] if len(edges) > 0 else j + 1.0
                x = (edge - begin) * scale
                if rules.method == LINEAR:
                    total = count * x
                else:
                    total = cubic(x, width, secant, slope_left, slope_right)
            part = max(total - given, 0.0)
            given = total
            if j == bin_:
                part += value
            else:
                size, beyond = _put(bin_, value, axis, rules, size, indices, data)
                outside += beyond
            bin_, value = j, part
    size, beyond = _put(bin_, value, axis, rules, size, indices, data)
    return size, outside + beyond


@inner
def _fill_from_intervals(
    cells: Cells, n: int, axis: Axis, rules: Rules, centres: Floats, size: int, indices: Bins,
    data: Values,
) -> int:  # fmt: skip
    """Write the interpolant at the bin centres in `n` intervals; return the new size."""
    for k in range(n):
        width = cells.right[k] - cells.left[k]
        scale = secant_of(1.0, width)
        for j in range(cells.first[k], cells.last[k] + 1):
            t = centres[j] - cells.left[k]
            if rules.method == LINEAR:
                gained = cells.secant[k] * t
            else:
                slopes = cells.slope_left[k], cells.slope_right[k]
                gained = cubic(t * scale, width, cells.secant[k], slopes[0], slopes[1])
            size, _ = _put(j, cells.counts[k] + gained, axis, rules, size, indices, data)
    return size


@inner
def _find_places(spectrum: Points, n: int, axis: Axis, centres: Floats, places: Ints) -> None:
    """Write the bin whose centre is nearest, ties to the right; -1 or n_bins outside."""
    mz, _, position = spectrum
    write_positions(mz, n, axis, position)
    near = int(np.int64(0))
    for i in range(n):
        m = mz[i]
        if m < axis.low or m > axis.high:
            places[i] = -1 if m < axis.low else axis.n_bins
            continue
        if axis.code == LISTED_CODE:
            # Guess by the spacing here, which changes little from bin to bin.
            beside = min(near + 1, axis.n_bins - 1)
            ahead = (m - centres[near]) / max(centres[beside] - centres[near], NARROWEST)
            guess = min(near + max(ahead, 0.0), axis.n_bins - 1.0)
            near = max(last_at_or_below(centres, m, int(guess)), 0)
        else:
            near = int(min(max(np.floor(position[i]), 0.0), axis.n_bins - 1.0))
        # The bin that holds an m/z is a neighbour of the nearest: a centre is midway in m/z.
        while near + 1 < axis.n_bins and abs(centres[near + 1] - m) <= abs(centres[near] - m):
            near += 1
        while near > 0 and abs(centres[near - 1] - m) < abs(centres[near] - m):
            near -= 1
        places[i] = near


@inner
def _fill_from_places(
    count: Floats, places: Ints, n: int, axis: Axis, rules: Rules, size: int, indices: Bins,
    data: Values,
) -> tuple[int, float, float]:  # fmt: skip
    """Add the counts by place; return the new size, their sum, and what lies outside."""
    bin_, value, outside, tic = int(np.int64(-1)), 0.0, 0.0, 0.0
    for i in range(n):
        if count[i] == 0:
            continue
        tic += count[i]
        if places[i] == bin_:
            value += count[i]
        else:
            size, beyond = _put(bin_, value, axis, rules, size, indices, data)
            outside += beyond
            bin_, value = places[i], count[i]
    size, beyond = _put(bin_, value, axis, rules, size, indices, data)
    return size, tic, outside + beyond


@inner
def _new_points(n: int) -> Points:
    return Points(np.empty(n), np.empty(n), np.empty(n))


@inner
def _new_cells(n: int) -> Cells:
    return Cells(
        np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n, np.int64), np.empty(n, np.int64),
    )  # fmt: skip


@inner
def _cut(
    spectrum: Points, n: int, placed: int, axis: Axis, rules: Rules, edges: Floats,
    centres: Floats, kept: Points, cells: Cells,
) -> tuple[int, int, float]:  # fmt: skip
    """Write the cells or intervals of a spectrum.

    placed : 1 where the positions of all points are known

    Returns their number, a bound on the bins they lie in, and the sum of the counts.
    """
    n_kept, tic, sparse = 0, 0.0, not rules.height
    if sparse:
        n_kept, tic = _keep_near(spectrum, n, kept)
        if placed == 0:
            write_positions(kept.mz, n_kept, axis, kept.position)
        # Which points are one point can be seen from all of them only.
        sparse = _ascend(kept.position, n_kept)
    if not sparse:
        if placed == 0:
            write_positions(spectrum.mz, n, axis, spectrum.position)
        n_kept, tic = _keep_all(spectrum, n, kept)
    if rules.height:
        n_cells, need = cut_intervals(kept, n_kept, axis, rules, centres, cells)
    else:
        n_cells, need = cut_cells(kept, n_kept, axis, rules, edges, cells)
    return n_cells, need, tic


@compiled
def walk_batch(
    source: Source, axis: Axis, rules: Rules, edges: Floats, centres: Floats, start: int,
    size: int, columns: Columns, indices: Bins, data: Values,
) -> tuple[int, int, int]:  # fmt: skip
    """Resample spectra from `start` on, writing non-zeros from `size` on, while there is room.

    edges : (n_bins + 1,) float64 bin edges of listed centres, empty for a law
    centres : (n_bins,) float64

    Returns the first spectrum that is not done, the non-zeros written in all, and the
    room that this spectrum needs (0 where all are done).
    """
    most = max(source.n_points.max(), 1)
    scratch, spectrum, kept = np.empty(8 * most, np.uint8), _new_points(most), _new_points(most)
    cells = _new_cells(1 if rules.method == NEAREST else most)
    places = np.empty(most if rules.method == NEAREST else 1, np.int64)
    mz_faults, placed = 0, 0
    for s in range(start, len(source.n_points)):
        n, at = source.n_points[s], source.intensity_at[s]
        if s == start or not source.shared:
            _load(source.raw, source.mz_at[s], n, source.mz_code, scratch, spectrum.mz)
            mz_faults = _mz_faults(spectrum.mz, n)
            if mz_faults == 0 and rules.method == NEAREST:
                _find_places(spectrum, n, axis, centres, places)
            elif mz_faults == 0 and source.shared:
                write_positions(spectrum.mz, n, axis, spectrum.position)
                placed = 1
        _load(source.raw, at, n, source.intensity_code, scratch, spectrum.counts)
        columns.faults[s] = mz_faults | _intensity_faults(spectrum.counts, n)
        columns.indptr[s + 1] = size
        if columns.faults[s] != 0:
            continue
        n_cells, need, tic, outside = 0, min(n, axis.n_bins), 0.0, 0.0
        if rules.method != NEAREST:
            n_cells, need, tic = _cut(spectrum, n, placed, axis, rules, edges, centres, kept, cells)
        if size + need >= len(indices):
            return s, size, need + 1
        if rules.method == NEAREST:
            size, tic, outside = _fill_from_places(
                spectrum.counts, places, n, axis, rules, size, indices, data
            )
        elif rules.height:
            size = _fill_from_intervals(cells, n_cells, axis, rules, centres, size, indices, data)
        else:
            size, outside = _fill_from_cells(
                cells, n_cells, axis, rules, edges, size, indices, data
            )
        columns.indptr[s + 1], columns.tic[s], columns.outside[s] = size, tic, outside
    return len(source.n_points), size, 0
