"""A binary file, read by position in few calls, never written.

Every read names its own place in the file, so threads cannot disturb each other.
"""

from __future__ import annotations

import mmap
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.source_files import reading, refuse_pointer

Longs = NDArray[np.int64]

GAP = 64 << 10
"""Extents at most this far apart are read in one go, the gap with them, in bytes."""

SPAN = 64 << 20
"""Bytes of the file that `gather` maps at a time, which bounds its memory."""

_MOST_PARTS = os.sysconf("SC_IOV_MAX")


def place_in_order(offset: Longs, size: Longs, start: int) -> Longs:
    """Return where arrays go when they are packed in the order of the file, from byte `start`.

    Arrays that follow each other in the file then do so in memory, and need one read.
    """
    order = _ascending(offset)
    sizes = size[order]
    to = np.empty(len(offset), np.int64)
    to[order] = start + np.cumsum(sizes) - sizes
    return to


def _ascending(offset: Longs) -> Longs:
    if (np.diff(offset) < 0).any():
        return np.argsort(offset, kind="stable")
    return np.arange(len(offset))


class ExtentFile:
    """An open binary file.

    path, size : where it is, and its size in bytes when it was opened
    head : its first bytes, up to 64
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            self.size = os.fstat(self._descriptor).st_size
            self.head = os.pread(self._descriptor, 64, 0)
        if not self.head or self.head.startswith(b"version https"):
            self.close()
            refuse_pointer(path, self.head)
            raise SourceError(f"{path} is empty, expected binary data; export or copy it again")

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read_extents(self, offset: Longs, size: Longs, to: Longs, into: NDArray[np.uint8]) -> None:
        """Read many extents, in as few calls as their places allow.

        Parameters
        ----------
        offset, size
            (n,) each, in bytes; any order, overlaps allowed.
        to
            (n,) where each extent goes in `into`, in bytes.
        into
            (n_bytes,) uint8; nothing but the extents is written.
        """
        used = np.flatnonzero(size > 0)
        if not len(used):
            return
        order = used[_ascending(offset[used])]
        offset, size, to = offset[order], size[order], to[order]
        joined = (offset[1:] == offset[:-1] + size[:-1]) & (to[1:] == to[:-1] + size[:-1])
        heads = np.concatenate([[0], np.flatnonzero(~joined) + 1])
        tails = np.append(heads[1:], len(order)) - 1
        begin, end = offset[heads], offset[tails] + size[tails]
        gap = begin[1:] - end[:-1]
        apart = np.flatnonzero((gap < 0) | (gap > GAP)) + 1
        runs = list(zip(begin.tolist(), end.tolist(), to[heads].tolist(), strict=True))
        with into.data as view:
            for first, last in pairwise([0, *apart.tolist(), len(runs)]):
                self._read_runs(runs[first:last], view)

    def _read_runs(self, runs: list[tuple[int, int, int]], view: memoryview) -> None:
        """Read runs (begin, end, to) that lie close together, one after the other in the file."""
        scratch = memoryview(bytearray(GAP)) if len(runs) > 1 else memoryview(b"")
        parts: list[memoryview] = []
        place = runs[0][0]
        for begin, end, to in runs:
            if begin > place:
                parts.append(scratch[: begin - place])
            parts.append(view[to : to + end - begin])
            place = end
        self._fill(parts, runs[0][0])

    def _fill(self, parts: list[memoryview], place: int) -> None:
        """Read on from `place` until all parts are full; short reads are continued."""
        index = 0
        while index < len(parts):
            with reading(self.path):
                got = os.preadv(self._descriptor, parts[index : index + _MOST_PARTS], place)
            if not got:
                raise self._shrunken(place)
            place += got
            while index < len(parts) and got >= len(parts[index]):
                got -= len(parts[index])
                index += 1
            if got:
                parts[index] = parts[index][got:]

    def _shrunken(self, size: int) -> SourceError:
        return SourceError(
            f"{self.path} ended at byte {size}, before the {self.size} bytes that it had "
            "when it was opened; it changed while it was read: start again"
        )

    def gather(self, at: Longs, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the single values at many places; (n,) of `dtype`, in ascending order of place.

        Parts of the file are mapped one after the other, so memory stays bounded.
        """
        at = np.sort(at)
        values = np.empty(len(at), dtype)
        raw = values.view(np.uint8).reshape(len(at), dtype.itemsize)
        width = np.arange(dtype.itemsize)
        first = 0
        while first < len(at):
            base = int(at[first]) // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY
            last = max(first + 1, int(np.searchsorted(at, base + SPAN, "left")))
            length = int(at[last - 1]) + dtype.itemsize - base
            now = os.fstat(self._descriptor).st_size
            if now < base + length:
                raise self._shrunken(now)
            with (
                reading(self.path),
                mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ, offset=base) as mapped,
            ):
                window = np.frombuffer(mapped, np.uint8)
                raw[first:last] = window[(at[first:last] - base)[:, None] + width]
                del window
            first = last
        return values
