"""The binary half of a Bruker ``.d``: frames read together and inflated in threads.

A frame of a TSF file holds two zstd frames after its header: the peaks (indices as
float64, then intensities as float32, then, in some files, widths as float32), and the
samples of the digitizer. A frame of a TDF file holds the peaks of all its scans. What
they inflate to is what `gpuconvert.packed` describes; the widths are left unread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.packed import frame_bytes
from gpuconvert.readers import bruker_blobs as blobs
from gpuconvert.readers.bruker_file import LZF, PACKED, WIDE_POINT_BYTES, BlobFile, Form
from gpuconvert.readers.bruker_sql import BrukerFiles, Frames
from gpuconvert.unpacking import count_samples

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
TOGETHER = 8 << 20
"""Bytes that a thread inflates to in one task, or one frame. A batch for the processor is one
task: there are as many readers as workers, and handing out the frames of a profile one by one
took nearly as much CPU time as inflating them. A batch for a device is larger, and is several."""

COUNT_BYTES = 16 << 20
"""Frames that are read at a time to count their samples, in bytes."""

_SCAN_BYTES = 8
_MOST_THREADS = 8
_COUNT_BYTES, _SUM_BYTES = 4, 9
"""Memory for each sample of the digitizer: to count those that are not zero, to add up scans."""


@dataclass(frozen=True, slots=True)
class Inflated:
    """Frames that lie inflated in a buffer.

    rows : (n_frames,) int64, ascending
    begin : (n_frames,) int64, byte where each begins, a multiple of 8
    n_scans : (n_frames,) int64, 1 for TSF
    n_bytes : size of all of them
    """

    rows: Longs
    begin: Longs
    n_scans: Longs
    n_bytes: int


class FrameFile:
    """Frames of an open file, in the order of the rows that they become.

    path, number : of the file, and (n_rows,) int64 of each frame
    n_points : (n_rows,) int64, points of a frame; of "scans" the most there can be
    stored : (n_rows,) int64, bytes to read of each; 0 where there is nothing to read
    room : (n_rows,) int64, bytes that each may inflate to, whole 8 bytes
    scale : (n_rows,) float64, what stored intensities are multiplied by
    reader_bytes, unpack_bytes : as of an `Acquisition`
    """

    def __init__(self, files: BrukerFiles, frames: Frames, rows: Longs, form: Form) -> None:
        self.form = form
        self.path = files.binary
        self.scale = _scale(files, frames, rows, form)
        self._blobs = BlobFile(files.binary, frames, rows, form)
        self.number = self._blobs.number
        self.stored, self.n_points = self._blobs.stored, self._blobs.n_peaks
        self.room = _room(form, self._blobs)
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        counted, summed = form.content == "profile", form.content == "scans"
        self.reader_bytes = threads * _COUNT_BYTES * form.n_samples if counted else 0
        self.unpack_bytes = _SUM_BYTES * form.n_samples if summed else 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="frames")
        if form.content == "profile":
            try:
                self.n_points = self._count()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._pool.shutdown()
        self._blobs.close()

    def read(self, first: int, last: int, into: Bytes) -> Inflated:
        """Read and inflate what there is of rows [first, last).

        `into` is aligned to 8 bytes and has ``room + stored`` bytes for each row.
        """
        held = first + np.flatnonzero(self.stored[first:last])
        room, stored = self.room[held], self.stored[held]
        begin, n_bytes = np.cumsum(room) - room, int(room.sum())
        blob_at = n_bytes + np.cumsum(stored) - stored
        heads = self._blobs.fetch(held, into, blob_at)

        def work(task: Longs) -> None:
            for k in task:
                blob = into[blob_at[k] : blob_at[k] + heads[k, blobs.SIZE]]
                self._inflate(int(held[k]), blob, heads[k], into[begin[k] : begin[k] + room[k]])

        self._spread(work, room)
        scans = self.form.content == "scans"
        n_scans = heads[:, blobs.SECOND] if scans else np.ones(len(held), np.int64)
        return Inflated(held, begin, n_scans, n_bytes)

    def _spread(self, work: Callable[[Longs], None], sizes: Longs) -> None:
        """Do `work` for all frames of these sizes, in threads where it pays."""
        tasks = list(_cut(sizes, TOGETHER))
        if len(tasks) > 1:
            list(self._pool.map(work, tasks))
            return
        for task in tasks:
            work(task)

    def _inflate(self, row: int, blob: Bytes, head: Longs, into: Bytes) -> None:
        """Inflate what is wanted of the frame of a row."""
        data, content = blob[blobs.HEAD_BYTES :], int(head[blobs.FIRST_CONTENT])
        if self.form.content == "scans" and self.form.compression == LZF:
            self._inflate_lzf(row, blob, int(head[blobs.SECOND]), into)
            return
        if self.form.content == "line":
            data = data[: head[blobs.SECOND]]
        elif self.form.content == "profile":
            data, content = data[head[blobs.SECOND] :], int(head[blobs.SECOND_CONTENT])
        try:
            decompress(data, into[:content])
        except (RuntimeError, ValueError) as error:
            raise self._blobs.damage(row, f"it cannot be inflated ({error})") from error

    def _inflate_lzf(self, row: int, blob: Bytes, n_scans: int, into: Bytes) -> None:
        n_peaks = int(self._blobs.n_peaks[row])
        buffer = np.empty(_SCAN_BYTES * (n_peaks + 1), np.uint8)
        found = blobs.pack_lzf_scans(blob, n_scans, n_peaks, buffer, into)
        if found < 0:
            raise self._blobs.damage(row, blobs.DAMAGE[found])

    def _count(self) -> Longs:
        """Return how many samples of each row are not zero; reads all of them once."""
        counts = np.zeros(len(self.number), np.int64)
        for rows in _cut(self.stored, COUNT_BYTES):
            stored = self.stored[rows]
            at = np.cumsum(stored) - stored
            packed = np.empty(int(stored.sum()), np.uint8)
            heads = self._blobs.fetch(rows, packed, at)

            def work(
                task: Longs, rows: Longs = rows, packed: Bytes = packed, at: Longs = at,
                heads: Longs = heads,
            ) -> None:  # fmt: skip
                samples = np.empty(4 * self.form.n_samples, np.uint8)
                for k in task:
                    blob = packed[at[k] : at[k] + heads[k, blobs.SIZE]]
                    self._inflate(int(rows[k]), blob, heads[k], samples)
                    counts[rows[k]] = count_samples(samples, self.form.n_samples)

            self._spread(work, self.room[rows])
        return counts


def _room(form: Form, frames: BlobFile) -> Longs:
    """Return the bytes that each frame may inflate to, whole 8 bytes."""
    sizes = frame_bytes(PACKED[form.content], frames.n_peaks, frames.n_scans, form.n_samples)
    if form.content == "line":
        sizes = WIDE_POINT_BYTES * frames.n_peaks
    room: Longs = np.where(frames.stored > 0, (sizes + 7) // 8 * 8, 0)
    return room


def _scale(files: BrukerFiles, frames: Frames, rows: Longs, form: Form) -> NDArray[np.float64]:
    """Return 100 ms over the accumulation time of TDF frames; 1 for TSF."""
    if form.content != "scans":
        return np.ones(len(rows))
    times = frames.accumulation[rows]
    bad = ~(np.isfinite(times) & (times > 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise SourceError(
            f"{files.database}: frame {frames.number[rows[row]]} states no accumulation time "
            "above 0 ms, which scales its intensities; export it again"
        )
    with np.errstate(over="ignore"):
        return np.divide(100.0, times)


def _cut(sizes: Longs, most: int) -> Iterator[Longs]:
    """Yield consecutive rows of about `most` bytes together."""
    ends = np.cumsum(sizes)
    first = 0
    while first < len(sizes):
        done = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + most, "right")))
        yield np.arange(first, last)
        first = last
