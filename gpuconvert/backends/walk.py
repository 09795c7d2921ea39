"""The walk along each spectrum: decode, look for faults, keep what matters, fill the bins.

`walk_batch` is what the CPU backend compiles. Scratch is as long as the longest
spectrum and stays in the cache; non-zeros go to buffers that the caller lengthens.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.walk_cells import cut_cells, write_curves
from gpuconvert.backends.walk_intervals import cut_intervals
from gpuconvert.backends.walk_places import find_places
from gpuconvert.backends.walk_types import (
    NEAREST,
    Axis,
    Bins,
    Cells,
    Columns,
    Floats,
    Points,
    Rules,
    Source,
    write_positions,
)
from gpuconvert.compiled import compiled, inner
from gpuconvert.spectra import (
    FAULT_INTENSITY,
    FAULT_MZ,
    FAULT_NEGATIVE,
    FAULT_ORDER,
    MAX_INTENSITY,
    MAX_MZ,
)

Bytes = NDArray[np.uint8]
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
def _keep_near(spectrum: Points, n: int, kept: Points) -> int:
    """Keep the non-empty points, two points before and one after each; return how many.

    Positions are copied, found or not.
    """
    mz, count, position = spectrum
    k, i, done = 0, 0, 0
    while i < n:
        if count[i] == 0:
            i += 1
            continue
        start = max(done, i - 2)
        while i < n and count[i] > 0:
            i += 1
        done = i = min(i + 1, n)
        for j in range(start, done):
            kept.mz[k], kept.counts[k], kept.position[k] = mz[j], count[j], position[j]
            k += 1
    return k


@inner
def _merge(spectrum: Points, n: int, merged: Points) -> int:
    """Copy the points at new positions, others added to the one before; return how many."""
    mz, count, position = spectrum
    k = 0
    for j in range(n):
        if k > 0 and position[j] <= merged.position[k - 1]:
            merged.counts[k - 1] += count[j]
            continue
        merged.mz[k], merged.counts[k], merged.position[k] = mz[j], count[j], position[j]
        k += 1
    return k


@inner
def _has_zero(counts: Floats, n: int) -> bool:
    """Return whether any of `n` counts is 0."""
    zeros = 0
    for k in range(n):
        zeros += counts[k] == 0
    return zeros > 0


@inner
def _total(counts: Floats, n: int) -> float:
    """Return the sum of `n` counts, added one after the other."""
    total = 0.0
    for k in range(n):
        total += counts[k]
    return total


@inner
def _put(
    bin_: int, value: float, axis: Axis, rules: Rules, size: int, indices: Bins, data: Values
) -> tuple[int, float]:
    """Write a finished bin where it is above the threshold.

    Returns the new size, and the value of a bin that lies outside the axis.
    """
    if bin_ < 0 or bin_ >= axis.n_bins:
        return size, value
    # Written in any case, and kept by counting it: no branch to guess wrong. A place
    # without a sign, as Numba would first ask whether it counts from the end.
    at, rounded = np.uintp(size), np.float32(value)
    indices[at] = bin_
    data[at] = rounded
    return size + int(rounded > rules.threshold), 0.0


@inner
def _cubic(t: float, slope: float, a: float, b: float) -> float:
    """Return G(t), what the cubic gains from the left end of its stretch to t beyond it."""
    return t * (slope + t * (a + t * b))


@inner
def _edge_after(bin_: int, edges: Floats) -> float:
    """Return the upper edge of a bin."""
    return edges[bin_ + 1] if len(edges) > 0 else bin_ + 1.0


@inner
def _fill_from_cells(
    counts: Floats, n: int, cells: Cells, axis: Axis, rules: Rules, edges: Floats, size: int,
    indices: Bins, data: Values,
) -> tuple[int, float]:  # fmt: skip
    """Write the bins that `n` cells lie in; return the new size, and what lies outside."""
    bin_, value, outside = int(np.int64(-1)), 0.0, 0.0
    for i in range(n):
        count, first, last = counts[i], int(cells.first[i]), int(cells.last[i])
        if count == 0:
            continue
        given = 0.0
        if first < last:
            left, slope, a, b = cells.left[i], cells.slope[i], cells.a[i], cells.b[i]
            given = _cubic(_edge_after(first, edges) - left, slope, a, b)
            part = max(given, 0.0)
            if first == bin_:
                part += value
            else:
                size, beyond = _put(bin_, value, axis, rules, size, indices, data)
                outside += beyond
            size, beyond = _put(first, part, axis, rules, size, indices, data)
            outside += beyond
            bin_, value = last, 0.0
            # Bins between the first and the last of a cell lie on the axis, and in no other.
            for j in range(first + 1, last):
                gained = _cubic(_edge_after(j, edges) - left, slope, a, b)
                at, rounded = np.uintp(size), np.float32(max(gained - given, 0.0))
                indices[at] = j
                data[at] = rounded
                size += int(rounded > rules.threshold)
                given = gained
        part = max(count - given, 0.0)
        if last == bin_:
            value += part
        else:
            size, beyond = _put(bin_, value, axis, rules, size, indices, data)
            outside += beyond
            bin_, value = last, part
    size, beyond = _put(bin_, value, axis, rules, size, indices, data)
    return size, outside + beyond


@inner
def _fill_from_intervals(
    points: Points, n: int, cells: Cells, axis: Axis, rules: Rules, centres: Floats, size: int,
    indices: Bins, data: Values,
) -> int:  # fmt: skip
    """Write the interpolant at the bin centres in `n` intervals; return the new size."""
    for i in range(n):
        mz, height, slope, a, b = (
            points.mz[i],
            points.counts[i],
            cells.slope[i],
            cells.a[i],
            cells.b[i],
        )
        for j in range(cells.first[i], cells.last[i] + 1):
            gained = _cubic(centres[j] - mz, slope, a, b)
            size, _ = _put(j, height + gained, axis, rules, size, indices, data)
    return size


@inner
def _fill_from_places(
    count: Floats, places: Bins, n: int, axis: Axis, rules: Rules, size: int, indices: Bins,
    data: Values,
) -> tuple[int, float]:  # fmt: skip
    """Add the counts by place; return the new size, and what lies outside."""
    bin_, value, outside = int(np.int64(-1)), 0.0, 0.0
    for i in range(n):
        if count[i] == 0:
            continue
        if places[i] == bin_:
            value += count[i]
        else:
            size, beyond = _put(bin_, value, axis, rules, size, indices, data)
            outside += beyond
            bin_, value = int(places[i]), count[i]
    size, beyond = _put(bin_, value, axis, rules, size, indices, data)
    return size, outside + beyond


@inner
def _new_points(n: int) -> Points:
    return Points(np.empty(n), np.empty(n), np.empty(n))


@inner
def _new_cells(n: int) -> Cells:
    return Cells(
        np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n),
        np.empty(n, np.bool_), np.empty(n, np.int32), np.empty(n, np.int32),
    )  # fmt: skip


@inner
def _keep(
    spectrum: Points,
    n: int,
    placed: bool,  # noqa: FBT001
    axis: Axis,
    rules: Rules,
    kept: Points,
) -> tuple[Points, int]:
    """Return the points of a spectrum that matter, at ascending positions, and how many.

    placed : whether the positions of all points are known
    kept : for those that cannot stay where they are
    """
    points, n_points = spectrum, n
    if not rules.height and _has_zero(spectrum.counts, n):
        points, n_points = kept, _keep_near(spectrum, n, kept)
    if not placed:
        write_positions(points.mz, n_points, axis, points.position)
    if _ascend(points.position, n_points):
        return points, n_points
    # Which points are one point can be seen from all of them only.
    if not placed:
        write_positions(spectrum.mz, n, axis, spectrum.position)
    return kept, _merge(spectrum, n, kept)


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
    cells = _new_cells(1 if rules.method == NEAREST else most + 1)
    places = np.empty(most if rules.method == NEAREST else 1, np.int32)
    mz_faults, placed = 0, False
    for s in range(start, len(source.n_points)):
        n, at = source.n_points[s], source.intensity_at[s]
        if s == start or not source.shared:
            _load(source.raw, source.mz_at[s], n, source.mz_code, scratch, spectrum.mz)
            mz_faults = _mz_faults(spectrum.mz, n)
            if mz_faults == 0 and rules.method == NEAREST:
                find_places(spectrum, n, axis, centres, places)
            elif mz_faults == 0 and source.shared:
                write_positions(spectrum.mz, n, axis, spectrum.position)
                placed = True
        _load(source.raw, at, n, source.intensity_code, scratch, spectrum.counts)
        columns.faults[s] = mz_faults | _intensity_faults(spectrum.counts, n)
        columns.indptr[s + 1] = size
        if columns.faults[s] != 0:
            continue
        points, n_points, need = spectrum, n, min(n, axis.n_bins)
        if rules.method != NEAREST:
            points, n_points = _keep(spectrum, n, placed, axis, rules, kept)
        if rules.method != NEAREST and rules.height:
            need = cut_intervals(points, n_points, axis, rules, centres, cells)
        elif rules.method != NEAREST:
            need = cut_cells(points, n_points, axis, rules, edges, cells)
        if size + need >= len(indices):
            return s, size, need + 1
        outside = 0.0
        if rules.method == NEAREST:
            size, outside = _fill_from_places(
                spectrum.counts, places, n, axis, rules, size, indices, data
            )
        elif rules.height:
            size = _fill_from_intervals(
                points, n_points, cells, axis, rules, centres, size, indices, data
            )
        else:
            write_curves(points.counts, n_points, rules, cells)
            size, outside = _fill_from_cells(
                points.counts, n_points, cells, axis, rules, edges, size, indices, data
            )
        columns.indptr[s + 1], columns.outside[s] = size, outside
        columns.tic[s] = _total(spectrum.counts, n)
    return len(source.n_points), size, 0
