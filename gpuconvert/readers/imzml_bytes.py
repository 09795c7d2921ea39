"""Finding and reading ASCII in a byte array: what the imzML tokenizer is made of.

Bytes are taken eight at a time as one integer, which LLVM turns into a single load.
A uint64 and an int64 make a float64 in Numba, so every sum here is of one kind.
Every function may look at up to 15 bytes beyond the place that it is asked for.
Numba does not see from here that compiled callers are out of date: whoever changes this
file also clears the cache in ``__pycache__``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled

Bytes = NDArray[np.uint8]

MISSING = -(2**63)
"""A number that is not there."""

_ONES, _HIGHS = np.uint64(0x0101010101010101), np.uint64(0x8080808080808080)
_ZEROS, _SIXES = np.uint64(0x3030303030303030), np.uint64(0x0606060606060606)
_NIBBLES = np.uint64(0xF0F0F0F0F0F0F0F0)


def word_of(text: str) -> np.uint64:
    """Return up to eight characters as `word_at` gives them."""
    return np.uint64(int.from_bytes(text.encode("ascii"), "little"))


@compiled
def byte_at(b: Bytes, i: int) -> int:
    """Return the byte at `i`."""
    # An unsigned index spares the check for a negative one.
    return int(b[np.uint64(i)])


@compiled
def word_at(b: Bytes, i: int, size: int) -> np.uint64:
    """Return `size` bytes (1 to 8) from `i` as a little-endian integer: one load when compiled."""
    word = np.uint64(0)
    for k in range(8):
        word |= np.uint64(b[np.uint64(i + k)]) << np.uint64(8 * k)
    return word & (np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(64 - 8 * size))


@compiled
def find_byte(b: Bytes, i: int, hi: int, wanted: int) -> int:
    """Return the first place from `i` that has the byte `wanted`, or `hi`; eight at a time."""
    pattern = np.uint64(wanted) * _ONES
    while i < hi:
        x = word_at(b, i, 8) ^ pattern
        zero = (x - _ONES) & ~x & _HIGHS
        if zero:
            # The lowest marked byte is the first zero byte of x: count the bytes below it.
            below = ((zero & (~zero + np.uint64(1))) - np.uint64(1)) & _ONES
            return min(hi, i + int(np.int64((below * _ONES) >> np.uint64(56))) - 1)
        i += 8
    return hi


@compiled
def integer_at(b: Bytes, start: int, stop: int) -> int:
    """Return the plain integer in [start, stop), or MISSING where it is none."""
    negative = stop > start and byte_at(b, start) == 45
    if negative:
        start += 1
    if stop <= start or stop - start > 18:
        return MISSING
    value = 0
    for k in range(start, stop):
        digit = byte_at(b, k) - 48
        if digit < 0 or digit > 9:
            return MISSING
        value = value * 10 + digit
    return -value if negative else value


@compiled
def hash_bytes(b: Bytes, start: int, stop: int) -> int:
    """Return a hash of bytes [start, stop), at least 0."""
    value = np.uint64(stop - start)
    for k in range(start, stop, 8):
        value = (value ^ word_at(b, k, min(8, stop - k))) * np.uint64(0x9E3779B97F4A7C15)
    return int(np.int64(value >> np.uint64(32)))


@compiled
def seven_digits(b: Bytes, at: int) -> int:
    """Return the number that seven digits from `at` write, or -1 where one is no digit."""
    # With a leading zero they are eight, added up in pairs, then fours, then all.
    x = (word_at(b, at, 7) << np.uint64(8) | np.uint64(48)) - _ZEROS
    if (x | (x + _SIXES)) & _NIBBLES != 0:
        return -1
    x = x * np.uint64(10) + (x >> np.uint64(8))
    mask = np.uint64(0x000000FF000000FF)
    low, high = x & mask, (x >> np.uint64(16)) & mask
    sum_ = low * np.uint64(0x000F424000000064) + high * np.uint64(0x0000271000000001)
    return int(np.int64(sum_ >> np.uint64(32)))
