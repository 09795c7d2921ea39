"""The compiled loops that find the points of packed spectra; `gpuconvert.packed` says how they lie.

A loop that meets something impossible writes the code of what it is for that frame, and
goes on with the next one. m/z and intensities go where the frame's points begin, and are
written in float64 and float32.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.calibration import mz_of
from gpuconvert.compiled import compiled, inner

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
Singles = NDArray[np.float32]

BAD_COUNTS, BAD_INDEX, OTHER_SAMPLES = 1, 2, 3
"""Codes of damage; 0 is none."""

BLOCK = 64
"""Samples looked at together: most of a profile is empty."""


@inner
def _word_at(planes: Bytes, n: int, k: int) -> int:
    """Return word `k` of the `n` that `planes` begins with."""
    low = np.int64(planes[k]) | np.int64(planes[n + k]) << 8
    return int(low | np.int64(planes[2 * n + k]) << 16 | np.int64(planes[3 * n + k]) << 24)


@inner
def _is_empty(
    a: Bytes, b: Bytes, c: Bytes, d: Bytes, first: int | np.uint64, last: int | np.uint64
) -> bool:
    """Return whether samples [first, last), of whose planes each is given, are all zero."""
    found = np.uint8(0)
    for k in range(first, last):
        found |= a[k] | b[k] | c[k] | d[k]
    return bool(found == 0)


@compiled
def count_samples(planes: Bytes, n: int) -> int:
    """Return how many of `n` samples are not zero. `planes` has 4 n bytes."""
    a, b, c, d = planes[:n], planes[n : 2 * n], planes[2 * n : 3 * n], planes[3 * n : 4 * n]
    count = 0
    # Of unsigned places Numba sees that none is negative, and uses vectors.
    for first in range(np.uint64(0), np.uint64(n), np.uint64(BLOCK)):
        last = min(first + np.uint64(BLOCK), np.uint64(n))
        if _is_empty(a, b, c, d, first, last):
            continue
        for k in range(first, last):
            if a[k] | b[k] | c[k] | d[k]:
                count += 1
    return count


@inner
def _take_samples(
    planes: Bytes, n: int, model: Floats, factor: float, mz: Floats, intensity: Singles
) -> int:
    """Write the points of a frame; return 1 where there are others than there is room for."""
    a, b, c, d = planes[:n], planes[n : 2 * n], planes[2 * n : 3 * n], planes[3 * n : 4 * n]
    count = 0
    for first in range(np.uint64(0), np.uint64(n), np.uint64(BLOCK)):
        last = min(first + np.uint64(BLOCK), np.uint64(n))
        if _is_empty(a, b, c, d, first, last):
            continue
        for k in range(first, last):
            if not (a[k] | b[k] | c[k] | d[k]):
                continue
            if count == len(mz):
                return 1
            mz[count] = mz_of(float(k), model, factor)
            low = np.int64(a[k]) | np.int64(b[k]) << 8
            intensity[count] = low | np.int64(c[k]) << 16 | np.int64(d[k]) << 24
            count += 1
    return int(count < len(mz))


@compiled
def unpack_samples(
    raw: Bytes, begin: Longs, point_at: Longs, n_samples: int, models: Floats, model: Longs,
    factor: Floats, mz: Floats, intensity: Singles,
) -> Longs:  # fmt: skip
    """Write the points of frames of samples; return the code of each, (n_frames,) int64.

    Parameters
    ----------
    raw, begin, n_samples, models, model, factor
        As in `gpuconvert.packed.Packed`.
    point_at
        (n_frames + 1,) frame f has points [point_at[f], point_at[f + 1]).
    mz, intensity
        (point_at[n_frames],) outputs.
    """
    codes = np.zeros(len(begin), np.int64)
    for f in range(len(begin)):
        planes = raw[begin[f] : begin[f] + 4 * n_samples]
        own = slice(point_at[f], point_at[f + 1])
        if _take_samples(planes, n_samples, models[model[f]], factor[f], mz[own], intensity[own]):
            codes[f] = OTHER_SAMPLES
    return codes


@compiled
def unpack_indices(
    raw: Bytes, begin: Longs, point_at: Longs, n_samples: int, models: Floats, model: Longs,
    factor: Floats, mz: Floats, intensity: Singles,
) -> Longs:  # fmt: skip
    """Write the points of frames of indices; for the rest see `unpack_samples`."""
    codes = np.zeros(len(begin), np.int64)
    for f in range(len(begin)):
        n = point_at[f + 1] - point_at[f]
        middle = begin[f] + 8 * n
        index = raw[begin[f] : middle].view(np.float64)
        counts = raw[middle : middle + 4 * n].view(np.float32)
        row = models[model[f]]
        for k in range(n):
            if not 0 <= index[k] < n_samples:
                codes[f] = BAD_INDEX
                break
            mz[point_at[f] + k] = mz_of(index[k], row, factor[f])
            intensity[point_at[f] + k] = counts[k]
    return codes


@inner
def _find_ends(planes: Bytes, n_scans: int, n_peaks: int, ends: Longs) -> int:
    """Write how many peaks there are up to the end of each scan; return a code."""
    n, done = n_scans + 2 * n_peaks, 0
    for s in range(n_scans - 1):
        done += _word_at(planes, n, s + 1) // 2
        if done > n_peaks:
            return BAD_COUNTS
        ends[s] = done
    ends[n_scans - 1] = n_peaks
    return 0


@inner
def _order_scans(owner: Longs, lowest: int, starts: Longs, order: Longs) -> None:
    """Order scans by their spectrum; spectrum ``lowest + o`` has order[starts[o]:starts[o + 1]]."""
    starts[:] = 0
    for s in range(len(owner)):
        if owner[s] >= 0:
            starts[owner[s] - lowest + 1] += 1
    for o in range(1, len(starts)):
        starts[o] += starts[o - 1]
    cursor = starts[:-1].copy()
    for s in range(len(owner)):
        if owner[s] >= 0:
            order[cursor[owner[s] - lowest]] = s
            cursor[owner[s] - lowest] += 1


@inner
def _add_peaks(
    planes: Bytes, n_scans: int, n_peaks: int, first: int, last: int, sums: Longs,
    seen: NDArray[np.uint64],
) -> int:  # fmt: skip
    """Add the peaks [first, last) of a frame, which are one scan, to the sums; return a code."""
    n = n_scans + 2 * n_peaks
    index = -1
    for k in range(first, last):
        index += _word_at(planes, n, n_scans + 2 * k)
        if index < 0 or index >= len(sums):
            return BAD_INDEX
        sums[index] += _word_at(planes, n, n_scans + 2 * k + 1)
        seen[index >> 6] |= np.uint64(1) << np.uint64(index & 63)
    return 0


@inner
def _take_sums(
    sums: Longs, seen: NDArray[np.uint64], scale: float, model: Floats, factor: float, mz: Floats,
    intensity: Singles,
) -> int:  # fmt: skip
    """Write a point for each index that was seen, ascending; return how many. All is zero again."""
    count = 0
    for group in range(len(seen)):
        if seen[group] == 0:
            continue
        for bit in range(64):
            if seen[group] >> np.uint64(bit) & np.uint64(1):
                index = 64 * group + bit
                mz[count] = mz_of(float(index), model, factor)
                intensity[count] = sums[index] * scale
                sums[index] = 0
                count += 1
        seen[group] = 0
    return count


@inner
def _sum_frame(
    planes: Bytes, n_peaks: int, owner: Longs, scale: float, model: Floats, factor: float,
    sums: Longs, seen: NDArray[np.uint64], mz: Floats, intensity: Singles, place: Longs,
    counts: Longs,
) -> int:  # fmt: skip
    """Write the points of the spectra that the scans of a frame belong to; return a code."""
    n_scans, lowest, highest = len(owner), -1, -1
    for s in range(n_scans):
        if owner[s] >= 0 and (owner[s] < lowest or lowest < 0):
            lowest = int(owner[s])
        highest = max(highest, int(owner[s]))
    ends, order = np.empty(n_scans, np.int64), np.empty(n_scans, np.int64)
    code = _find_ends(planes, n_scans, n_peaks, ends)
    if code or highest < 0:
        return code
    starts = np.empty(highest - lowest + 2, np.int64)
    _order_scans(owner, lowest, starts, order)
    done = 0
    for o in range(len(starts) - 1):
        for s in order[starts[o] : starts[o + 1]]:
            first = ends[s - 1] if s > 0 else 0
            code = _add_peaks(planes, n_scans, n_peaks, first, ends[s], sums, seen)
            if code:
                return code
        place[lowest + o] += done
        counts[lowest + o] = _take_sums(
            sums, seen, scale, model, factor, mz[done:], intensity[done:]
        )
        done += counts[lowest + o]
    return 0


@compiled
def unpack_scans(
    raw: Bytes, begin: Longs, point_at: Longs, scan_at: Longs, owner: Longs, scale: Floats,
    n_samples: int, models: Floats, model: Longs, factor: Floats, mz: Floats, intensity: Singles,
    place: Longs, counts: Longs,
) -> Longs:  # fmt: skip
    """Write the points of frames of scans; return the code of each, (n_frames,) int64.

    Stops at the first frame that has one. Peaks of one index are added up as whole
    numbers, then scaled once.

    Parameters
    ----------
    raw, begin, scan_at, owner, scale, n_samples, models, model, factor
        As in `gpuconvert.packed.Packed`.
    point_at
        (n_frames + 1,) frame f has peaks, and room for points, [point_at[f], point_at[f + 1]).
    mz, intensity
        (point_at[n_frames],) outputs, not all of them written.
    place, counts
        (n_spectra,) outputs: where the points of each spectrum begin, and how many they are;
        zero where no frame is of a spectrum.
    """
    codes = np.zeros(len(begin), np.int64)
    sums, seen = np.zeros(n_samples, np.int64), np.zeros(-(-n_samples // 64), np.uint64)
    for f in range(len(begin)):
        mine = owner[scan_at[f] : scan_at[f + 1]]
        n_peaks = point_at[f + 1] - point_at[f]
        size = 4 * (len(mine) + 2 * n_peaks)
        own = slice(point_at[f], point_at[f + 1])
        for s in range(len(mine)):
            if mine[s] >= 0:
                place[mine[s]] = point_at[f]
        codes[f] = _sum_frame(
            raw[begin[f] : begin[f] + size], n_peaks, mine, scale[f], models[model[f]], factor[f],
            sums, seen, mz[own], intensity[own], place, counts,
        )  # fmt: skip
        if codes[f]:
            break
    return codes
