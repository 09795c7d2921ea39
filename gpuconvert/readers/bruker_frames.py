"""The binary half of a Bruker ``.d``: frames read together and decoded in threads.

A frame of a TSF file holds two zstd frames after its header: the peaks (indices as
float64, then intensities as float32, then, in some files, widths as float32), and the
samples of the digitizer. A frame of a TDF file holds the peaks of all its scans; they
are added up over the scans here, so each index occurs once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers import bruker_blobs as blobs
from gpuconvert.readers.bruker_calibration import MzCalibration, calibrate
from gpuconvert.readers.bruker_file import POINT_BYTES, ZSTD, BlobFile, Form
from gpuconvert.readers.bruker_sql import BrukerFiles, Frames

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
TOGETHER = 16
"""Frames that a thread decodes in one task."""

COUNT_BYTES = 16 << 20
"""Frames that are read at a time to count their samples, in bytes."""

_SCAN_BYTES = 8
_MOST_THREADS = 8


class _Scratch(threading.local):
    """Memory of one thread, kept between frames."""

    def __init__(self) -> None:
        self.planes = np.empty(0, np.uint8)
        self.scan = np.empty(0, np.int32)
        self.tof = np.empty(0, np.int32)
        self.intensity = np.empty(0, np.uint32)
        self.sums = np.empty(0, np.int64)
        self.seen = np.empty(0, np.uint64)

    def bytes(self, size: int) -> Bytes:
        """Return `size` bytes."""
        if len(self.planes) < size:
            self.planes = np.empty(size, np.uint8)
        return self.planes[:size]

    def peaks(self, count: int) -> tuple[blobs.Ints, blobs.Ints, blobs.Words]:
        """Return room for scan, index and intensity of `count` peaks."""
        if len(self.tof) < count:
            self.scan, self.tof = np.empty(count, np.int32), np.empty(count, np.int32)
            self.intensity = np.empty(count, np.uint32)
        return self.scan[:count], self.tof[:count], self.intensity[:count]

    def sums_of(self, n_samples: int) -> tuple[Longs, NDArray[np.uint64]]:
        """Return a sum and a bit for every sample, all zero."""
        if len(self.sums) != n_samples:
            self.sums = np.zeros(n_samples, np.int64)
            self.seen = np.zeros(-(-n_samples // 64), np.uint64)
        return self.sums, self.seen


class FrameFile:
    """Frames of an open file, in the order of the rows that they become.

    n_points : (n_rows,) int64, points of a decoded frame; of "scans" the most there can be
    stored : (n_rows,) int64, bytes to read of each; 0 where there is nothing to decode
    scale : (n_rows,) float64, what stored intensities are multiplied by
    """

    def __init__(self, files: BrukerFiles, frames: Frames, rows: Longs, form: Form) -> None:
        self.form = form
        self.scale = _scale(files, frames, rows, form)
        self._blobs = BlobFile(files.binary, frames, rows, form)
        self.stored, self.n_points = self._blobs.stored, self._blobs.n_peaks
        self._scratch = _Scratch()
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
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

    def read(
        self, first: int, last: int, into: Bytes, point_at: Longs, packed_at: Longs,
        calibration: MzCalibration,
    ) -> Longs:  # fmt: skip
        """Read and decode rows [first, last); return how many points each has.

        Parameters
        ----------
        into
            (n_bytes,) uint8, aligned to 8 bytes.
        point_at, packed_at
            (n,) where in `into` the points of each row go, multiples of 8, and where its
            stored bytes may lie. The intensities follow `n_points` m/z.
        calibration
            Of all rows.
        """
        rows = np.arange(first, last)
        heads = self._blobs.fetch(rows, into, packed_at)
        counts = np.zeros(len(rows), np.int64)
        decode = {"line": self._line, "profile": self._profile, "scans": self._summed}
        one = decode[self.form.content]
        values = into[: len(into) // 8 * 8].view(np.float64)

        def work(task: slice) -> None:
            for k in range(task.start, task.stop):
                if self.stored[rows[k]]:
                    blob = into[packed_at[k] : packed_at[k] + heads[k, blobs.SIZE]]
                    counts[k] = one(int(rows[k]), blob, heads[k], into, int(point_at[k]))
            here = rows[task]
            calibrate(
                values, point_at[task] // 8, counts[task], calibration.models,
                calibration.model[here], calibration.factor[here],
            )  # fmt: skip

        self._spread(work, len(rows))
        return counts

    def read_binned(
        self, first: int, last: int, into: Bytes, point_at: Longs, packed_at: Longs,
        calibration: MzCalibration, bins: Callable[[int, int], Longs], n_bins: int,
    ) -> Longs:  # fmt: skip
        """Do what `read` does, the scans of each bin added up by themselves.

        The m/z of a row follow each other bin by bin, and so do its intensities. `bins`
        returns the bin of every scan of a row, given the row and its number of scans.

        Returns
        -------
        (n_rows, n_bins) int64
            Points of each bin of each row.
        """
        rows = np.arange(first, last)
        heads = self._blobs.fetch(rows, into, packed_at)
        counts = np.zeros((len(rows), n_bins), np.int64)
        values = into[: len(into) // 8 * 8].view(np.float64)

        def work(task: slice) -> None:
            for k in range(task.start, task.stop):
                row = int(rows[k])
                if self.stored[row]:
                    blob = into[packed_at[k] : packed_at[k] + heads[k, blobs.SIZE]]
                    scan_bin = bins(row, int(heads[k, blobs.SECOND]))
                    self._binned(row, blob, heads[k], into, int(point_at[k]), scan_bin, counts[k])
            here = rows[task]
            calibrate(
                values, point_at[task] // 8, counts[task].sum(axis=1), calibration.models,
                calibration.model[here], calibration.factor[here],
            )  # fmt: skip

        self._spread(work, len(rows))
        return counts

    def peaks(self, row: int) -> tuple[blobs.Ints, blobs.Ints, blobs.Words]:
        """Return scan, index and stored intensity of every peak of a TDF frame, scan by scan."""
        packed = np.empty(int(self.stored[row]), np.uint8)
        if not len(packed):
            return np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.uint32)
        head = self._blobs.fetch(np.array([row]), packed, np.zeros(1, np.int64))[0]
        found = self._split(row, packed[: head[blobs.SIZE]], head)
        return found[0].copy(), found[1].copy(), found[2].copy()

    def _spread(self, work: Callable[[slice], None], count: int) -> None:
        """Do `work` for all of `count` frames, in threads where it pays."""
        tasks = [slice(k, min(k + TOGETHER, count)) for k in range(0, count, TOGETHER)]
        if len(tasks) > 1:
            list(self._pool.map(work, tasks))
            return
        for task in tasks:
            work(task)

    def _inflate(self, row: int, data: Bytes, into: Bytes) -> None:
        """Inflate a zstd frame whose header states the size of `into`."""
        try:
            decompress(data, into)
        except (RuntimeError, ValueError) as error:
            raise self._blobs.damage(row, f"it cannot be inflated ({error})") from error

    def _points(self, row: int, into: Bytes, at: int) -> tuple[blobs.Floats, NDArray[np.float32]]:
        """Return where index (later m/z) and intensity of a row go."""
        middle = at + 8 * int(self.n_points[row])
        end = middle + 4 * int(self.n_points[row])
        return into[at:middle].view(np.float64), into[middle:end].view(np.float32)

    def _line(self, row: int, blob: Bytes, head: Longs, into: Bytes, at: int) -> int:
        data = blob[blobs.HEAD_BYTES : blobs.HEAD_BYTES + int(head[blobs.SECOND])]
        size = POINT_BYTES * int(self._blobs.n_peaks[row])
        content = int(head[blobs.FIRST_CONTENT])
        if content == size:
            self._inflate(row, data, into[at : at + size])
        else:
            wide = self._scratch.bytes(content)
            self._inflate(row, data, wide)
            into[at : at + size] = wide[:size]
        return int(self._blobs.n_peaks[row])

    def _planes(self, row: int, blob: Bytes, head: Longs) -> Bytes:
        """Return the samples of a row, as byte planes."""
        planes = self._scratch.bytes(4 * self.form.n_samples)
        self._inflate(row, blob[blobs.HEAD_BYTES + int(head[blobs.SECOND]) :], planes)
        return planes

    def _profile(self, row: int, blob: Bytes, head: Longs, into: Bytes, at: int) -> int:
        index, intensity = self._points(row, into, at)
        planes = self._planes(row, blob, head)
        count = blobs.compact_samples(planes, self.form.n_samples, index, intensity)
        if count != len(index):
            raise SourceError(
                f"{self._blobs.path}: frame {self._blobs.number[row]} has other samples than when "
                "it was opened; it changed while it was read: start again"
            )
        return int(count)

    def _split(
        self, row: int, blob: Bytes, head: Longs
    ) -> tuple[blobs.Ints, blobs.Ints, blobs.Words]:
        """Return scan, index and stored intensity of every peak, in memory of this thread."""
        n_peaks, n_scans = int(self._blobs.n_peaks[row]), int(head[blobs.SECOND])
        found = self._scratch.peaks(n_peaks)
        if self.form.compression == ZSTD:
            planes = self._scratch.bytes(4 * (n_scans + 2 * n_peaks))
            self._inflate(row, blob[blobs.HEAD_BYTES :], planes)
            count = blobs.split_scans(planes, n_scans, n_peaks, *found)
        else:
            # A peak takes a word, and another one for the gap before it.
            buffer = self._scratch.bytes(_SCAN_BYTES * (n_peaks + 1))
            count = blobs.split_lzf_scans(blob, n_scans, n_peaks, buffer, *found)
        if count != n_peaks:
            raise self._blobs.damage(row, blobs.DAMAGE[count if count < 0 else blobs.BAD_PEAKS])
        return found

    def _summed(self, row: int, blob: Bytes, head: Longs, into: Bytes, at: int) -> int:
        _, tof, intensity = self._split(row, blob, head)
        sums, seen = self._scratch.sums_of(self.form.n_samples)
        index, total = self._points(row, into, at)
        count = blobs.add_scans(tof, intensity, self.scale[row], sums, seen, index, total)
        if count < 0:
            raise self._blobs.damage(row, blobs.DAMAGE[count])
        return int(count)

    def _binned(
        self, row: int, blob: Bytes, head: Longs, into: Bytes, at: int, scan_bin: Longs,
        counts: Longs,
    ) -> None:  # fmt: skip
        """Write the points of each bin one after the other, and how many they are to `counts`."""
        scan, tof, intensity = self._split(row, blob, head)
        starts = np.zeros(len(counts) + 1, np.int64)
        ordered, weights = np.empty_like(tof), np.empty_like(intensity)
        blobs.group_peaks(scan, tof, intensity, scan_bin, starts, ordered, weights)
        sums, seen = self._scratch.sums_of(self.form.n_samples)
        index, total = self._points(row, into, at)
        done = 0
        for b in np.flatnonzero(np.diff(starts)):
            own = slice(starts[b], starts[b + 1])
            count = blobs.add_scans(
                ordered[own], weights[own], self.scale[row], sums, seen, index[done:], total[done:]
            )
            if count < 0:
                raise self._blobs.damage(row, blobs.DAMAGE[count])
            counts[b] = count
            done += count

    def _count(self) -> Longs:
        """Return how many samples of each row are not zero; reads all of them once."""
        counts = np.zeros(len(self._blobs.number), np.int64)
        for rows in _cut(self.stored, COUNT_BYTES):
            stored = self.stored[rows]
            at = np.cumsum(stored) - stored
            packed = np.empty(int(stored.sum()), np.uint8)
            heads = self._blobs.fetch(rows, packed, at)

            def work(
                task: slice, rows: Longs = rows, packed: Bytes = packed, at: Longs = at,
                heads: Longs = heads,
            ) -> None:  # fmt: skip
                for k in range(task.start, task.stop):
                    blob = packed[at[k] : at[k] + heads[k, blobs.SIZE]]
                    planes = self._planes(int(rows[k]), blob, heads[k])
                    counts[rows[k]] = blobs.count_samples(planes, self.form.n_samples)

            self._spread(work, len(rows))
        return counts


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
