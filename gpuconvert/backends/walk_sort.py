"""The sort by bin: first into buckets of neighbouring bins, then within each in the cache.

Each pass reads its input from beginning to end and places at random only among as many
bucket ends, or within as small a bucket, as the nearest caches hold: a block is larger
than those, and comes from memory. Entries keep their order within a bin, as every
pass keeps it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.walk_types import Bins, Ints
from gpuconvert.compiled import compiled, inner

Words = NDArray[np.uint32]

MOST_BUCKETS = 160
"""Measured on blocks of 1.5 million entries that are not in the cache: 5.4 ns an entry with
160 buckets, 7.3 ns with 320, 6.0 ns with 80; a transpose in windows of bins takes 8.6 ns,
a radix sort 27 ns."""

WIDEST = 16
"""Bins of a bucket, as a power of two: their numbers within it have 16 bits."""


def bucket_shift(n_bins: int) -> int:
    """Return the bins of a bucket, as a power of two."""
    shift = max(0, n_bins - 1).bit_length()
    while shift > 0 and (n_bins - 1) >> (shift - 1) < MOST_BUCKETS:
        shift -= 1
    return min(shift, WIDEST)


@inner
def _count(indices: Bins, n_buckets: int, shift: int) -> Ints:
    """Return where each bucket begins, and the end of the last; (n_buckets + 1,) int64."""
    # Four counters a bucket, in turn: a row often has neighbours in one bucket, and counting
    # on would wait for the count before.
    counts = np.zeros((4, n_buckets), np.int64)
    for entry in range(len(indices)):
        # Places without a sign, as Numba would first ask whether they count from the end.
        counts[np.uintp(entry & 3), np.uintp(indices[entry] >> shift)] += 1
    begins = np.empty(n_buckets + 1, np.int64)
    begin = 0
    for bucket in range(n_buckets):
        begins[bucket] = begin
        for turn in range(4):
            begin += counts[turn, bucket]
    begins[n_buckets] = begin
    return begins


@inner
def _fill(
    rows: Ints, indptr: Ints, indices: Bins, bits: Words, shift: int, ends: Ints, to_rows: Bins,
    to_bits: Words, local: NDArray[np.uint16],
) -> None:  # fmt: skip
    """Put every entry at the end of its bucket; `ends` are where the buckets begin.

    local : (n_entries,) bin within the bucket
    """
    mask = np.int32((1 << shift) - 1)
    for k in range(len(rows)):
        row = np.int32(rows[k])
        for entry in range(indptr[k], indptr[k + 1]):
            bin_ = indices[entry]
            bucket = np.uintp(bin_ >> shift)
            place = ends[bucket]
            ends[bucket] = place + 1
            at = np.uintp(place)
            to_rows[at], to_bits[at], local[at] = row, bits[entry], np.uint16(bin_ & mask)


@inner
def _sort_bucket(
    rows: Bins, bits: Words, local: NDArray[np.uint16], places: Words, buffer: NDArray[np.uint64]
) -> None:
    """Sort the entries of one bucket; `places` are where its bins begin."""
    for entry in range(len(local)):
        bin_ = np.uintp(local[entry])
        place = places[bin_]
        places[bin_] = place + np.uint32(1)
        word = np.uint64(np.uint32(rows[entry])) << np.uint64(32) | np.uint64(bits[entry])
        buffer[np.uintp(place)] = word
    for entry in range(len(local)):
        rows[entry] = np.int32(buffer[entry] >> np.uint64(32))
        bits[entry] = np.uint32(buffer[entry] & np.uint64(0xFFFFFFFF))


@compiled
def transpose(
    rows: Ints, indptr: Ints, indices: Bins, bits: Words, n_bins: int, shift: int
) -> tuple[Bins, Ints, Bins, Words]:
    """Return filled bins, their offsets, and rows and values sorted by bin.

    rows, indptr, indices : as in `CsrBlock`
    bits : the values as 32-bit words
    shift : from `bucket_shift`
    """
    n_entries = len(indices)
    n_buckets = ((n_bins - 1) >> shift) + 1
    to_rows, to_bits = np.empty(n_entries, np.int32), np.empty(n_entries, np.uint32)
    local = np.empty(n_entries, np.uint16)
    begins = _count(indices, n_buckets, shift)
    _fill(rows, indptr, indices, bits, shift, begins[:-1].copy(), to_rows, to_bits, local)
    # One place more than needed, as a bin is written before it is known to be filled.
    filled = np.empty(min(n_entries, n_bins) + 1, np.int32)
    offsets = np.empty(len(filled), np.int64)
    places = np.empty(1 << shift, np.uint32)
    buffer = np.empty(np.diff(begins).max(), np.uint64)
    n_filled = 0
    for bucket in range(n_buckets):
        begin, end = begins[bucket], begins[bucket + 1]
        if begin == end:
            continue
        places[:] = 0
        for entry in range(begin, end):
            places[np.uintp(local[entry])] += np.uint32(1)
        place = np.uint32(0)
        for k in range(len(places)):
            count = places[k]
            places[k] = place
            at = np.uintp(n_filled)
            filled[at], offsets[at] = (bucket << shift) + k, begin + place
            n_filled += int(count > 0)
            place += count
        _sort_bucket(to_rows[begin:end], to_bits[begin:end], local[begin:end], places, buffer)
    offsets[n_filled] = n_entries
    return filled[:n_filled].copy(), offsets[: n_filled + 1].copy(), to_rows, to_bits
