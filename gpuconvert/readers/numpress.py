"""MS-Numpress, as published by Teleman et al. (2014): decoding many arrays at once, compiled.

``linear`` keeps the error of a line through the two values before, in half-bytes;
``pic`` keeps whole counts, likewise; ``slof`` keeps logarithms in two bytes each.
Numbers before the half-bytes: the scale as a big-endian float64, integers little-endian.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner

Ints = NDArray[np.int64]
Bytes = NDArray[np.uint8]

SCALE_BYTES, FIRST_BYTES = 8, 4
GOOD = -1
"""No array is damaged."""


@inner
def _scale(data: Bytes, begin: int, word: NDArray[np.uint8]) -> float:
    for place in range(8):
        word[7 - place] = data[begin + place]
    return float(word.view(np.float64)[0])


@inner
def _first(data: Bytes, begin: int) -> np.int64:
    value = np.int64(0)
    for place in range(4):
        value |= np.int64(data[begin + place]) << (8 * place)
    return value


@inner
def _half_byte(data: Bytes, place: int) -> np.int64:
    """Return half-byte `place` of `data`, the high half of a byte first."""
    byte = np.int64(data[place >> 1])
    return byte & 15 if place & 1 else byte >> 4


@inner
def _integer(data: Bytes, place: int, end: int) -> tuple[np.int64, int]:
    """Return the integer at half-byte `place` and the place after it; -1 where it is cut off.

    The first half-byte says how many leading half-bytes of the 32-bit number are left
    out: that many zeros, or, above 8, that many less 8 of ones.
    """
    if place >= end:
        return np.int64(0), -1
    head = _half_byte(data, place)
    place += 1
    left_out = head if head <= 8 else head - 8
    if place + 8 - left_out > end:
        return np.int64(0), -1
    value = np.int64(0)
    for k in range(8 - left_out):
        value |= np.int64(_half_byte(data, place)) << (4 * k)
        place += 1
    if head > 8:
        value |= (np.int64(0xFFFFFFFF) << (4 * (8 - left_out))) & np.int64(0xFFFFFFFF)
    if value >= np.int64(0x80000000):
        value -= np.int64(0x100000000)
    return value, place


@compiled
def linear(data: Bytes, offsets: Ints, arrays: Ints, places: Ints, counts: Ints, out: Any) -> int:  # noqa: ANN401 - floats of either size
    """Decode arrays of linear Numpress; return the first that is damaged, or GOOD.

    Parameters
    ----------
    data
        (n_bytes,) uint8.
    offsets
        (n_arrays + 1,) int64; array k is bytes [offsets[k], offsets[k + 1]).
    arrays
        Which of them to decode.
    places, counts
        (n_arrays,) int64, where each goes in `out`, and how many values it must have.
    out
        Decoded values.
    """
    word = np.empty(8, np.uint8)
    for array in arrays:
        begin, end = offsets[array], offsets[array + 1]
        count, to = counts[array], places[array]
        if count == 0:
            continue
        if end - begin < SCALE_BYTES + FIRST_BYTES * min(count, 2):
            return int(array)
        scale = _scale(data, begin, word)
        before = _first(data, begin + SCALE_BYTES)
        out[to] = before / scale
        if count == 1:
            continue
        now = _first(data, begin + SCALE_BYTES + FIRST_BYTES)
        out[to + 1] = now / scale
        place = 2 * (begin + SCALE_BYTES + 2 * FIRST_BYTES)
        for k in range(2, count):
            error, place = _integer(data, place, 2 * end)
            if place < 0:
                return int(array)
            before, now = now, 2 * now - before + error
            out[to + k] = now / scale
        # At most half a byte of padding may be left.
        if 2 * end - place > 1:
            return int(array)
    return GOOD


@compiled
def slof(data: Bytes, offsets: Ints, places: Ints, counts: Ints, out: Any) -> int:  # noqa: ANN401 - floats of either size
    """Decode arrays of short logged floats; return the first that is damaged, or GOOD."""
    word = np.empty(8, np.uint8)
    for array in range(len(counts)):
        begin, count, to = offsets[array], counts[array], places[array]
        if count == 0:
            continue
        if offsets[array + 1] - begin != SCALE_BYTES + 2 * count:
            return array
        scale = _scale(data, begin, word)
        at = begin + SCALE_BYTES
        for k in range(count):
            stored = np.int64(data[at + 2 * k]) | np.int64(data[at + 2 * k + 1]) << 8
            out[to + k] = np.exp(stored / scale) - 1.0
    return GOOD


@compiled
def pic(data: Bytes, offsets: Ints, places: Ints, counts: Ints, out: Any) -> int:  # noqa: ANN401 - floats of either size
    """Decode arrays of positive integer counts; return the first that is damaged, or GOOD."""
    for array in range(len(counts)):
        place, end = 2 * offsets[array], 2 * offsets[array + 1]
        for k in range(counts[array]):
            value, place = _integer(data, place, end)
            if place < 0:
                return array
            out[places[array] + k] = value
    return GOOD


@compiled
def count_pic(data: Bytes, offsets: Ints) -> Ints:
    """Return the number of values of each array of positive integer counts; (n_arrays,) int64."""
    counts = np.zeros(len(offsets) - 1, np.int64)
    for array in range(len(counts)):
        place, end = 2 * offsets[array], 2 * offsets[array + 1]
        # A half-byte 0 to 7 that is alone at the end is padding, not a number cut off.
        while place < end:
            _, place = _integer(data, place, end)
            if place < 0:
                break
            counts[array] += 1
    return counts


def count_slof(offsets: Ints) -> Ints:
    """Return the number of values of each array of short logged floats; (n_arrays,) int64."""
    counts: Ints = np.maximum(np.diff(offsets) - SCALE_BYTES, 0) // 2
    return counts
