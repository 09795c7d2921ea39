"""A signal member of an mzPeak: how many points each spectrum has there, and its points.

The member is counted once when it is opened, by its index column; it is sized by what it
holds, not by what its metadata say. Rows of a spectrum lie together and spectra ascend.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.mzpeak_archive import Member
from gpuconvert.readers.mzpeak_arrays import SignalLayout, read_layout
from gpuconvert.readers.mzpeak_decode import (
    Space,
    chunk_counts,
    decode_chunks,
    decode_points,
    numbers,
)
from gpuconvert.readers.mzpeak_rows import ParquetRows
from gpuconvert.zero_walk import fill_marks

Ints = NDArray[np.int64]

POINTS_TOGETHER = 1 << 17
"""Points decoded at a time, about."""

CHUNKS_TOGETHER = 1 << 9
"""Chunks decoded at a time; a chunk holds some hundred points."""

LOOKS = 8
"""Places, evenly spread, where the number format of m/z is looked at."""


class Signal:
    """One signal member, and which spectra it holds.

    layout : how it stores them
    n_points : (n_spectra,) int64, points of every spectrum in this member, marked ones too
    """

    def __init__(self, member: Member, spectra: Ints) -> None:
        """Count a member; `spectra` are the identifiers of all spectra, ascending."""
        self.where = f"{member.file.path}: {member.name}"
        plain = ParquetRows(member, (), POINTS_TOGETHER)
        self.layout: SignalLayout = read_layout(
            member.file.path, member.name, plain.schema, plain.footer()
        )
        self._spectra = spectra
        batch_rows = CHUNKS_TOGETHER if self.layout.chunked else POINTS_TOGETHER
        self._rows = plain.select(self.layout.signal_columns, batch_rows)
        self.n_points = np.zeros(len(spectra), np.int64)
        self._counts = np.zeros(len(spectra), np.int64)
        self._extent = np.zeros((2, len(spectra)))
        self._count(plain.select(self.layout.counting_columns, batch_rows))
        self._starts = np.cumsum(self._counts) - self._counts

    def extent(self, chosen: NDArray[np.bool_]) -> tuple[float, float] | None:
        """Return the least and greatest m/z of the chosen spectra, or None where there is none."""
        chosen = chosen & (self.n_points > 0)
        if not chosen.any():
            return None
        if self.layout.chunked:
            low, high = self._extent[:, chosen]
        else:
            stated = self._stated_extent() if chosen[self.n_points > 0].all() else None
            if stated is not None:
                return stated
            low, high = self._measure(chosen)
        real = high > 0
        return (float(low[real].min()), float(high[real].max())) if real.any() else None

    def is_single(self) -> bool:
        """Return whether m/z are float32 in float64 columns, by a look at some of them."""
        if self.layout.mz_dtype != np.float64 or not self.n_points.any():
            return False
        size = self._rows.batch_rows
        last = max(self._rows.n_rows - size, 0)
        for begin in np.unique(np.linspace(0, last, LOOKS).astype(np.int64)).tolist():
            end = min(begin + size, self._rows.n_rows)
            for rows in self._batches(self._rows, begin, end):
                mz, marked = self._mz_of(rows)
                with np.errstate(over="ignore"):
                    if (mz.astype(np.float32) != mz)[~marked].any():
                        return False
        return True

    def _mz_of(self, rows: pa.StructArray) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Return the m/z of a batch of rows, and which of them are marked."""
        counts = np.ones(len(rows), np.int64)
        if self.layout.chunked:
            counts = chunk_counts(self.layout, rows)
        total = int(counts.sum())
        space = Space(
            np.empty(total), np.empty(total, self.layout.intensity_dtype), np.zeros(total, bool)
        )
        self._unpack(rows, counts, space)
        return space.mz, space.marked

    def read(self, spectra: Ints, models: NDArray[np.float64], space: Space) -> None:
        """Put the points of spectra into `space`, one after the other.

        Parameters
        ----------
        spectra
            Positions, ascending.
        models
            (len(spectra), 3) float64, models of the sampling step, for marked points.
        space
            As long as the spectra together.
        """
        indptr = np.cumsum(np.concatenate([[0], self.n_points[spectra]]))
        used = spectra[self.n_points[spectra] > 0]
        ends = self._starts[used] + self._counts[used]
        apart = np.flatnonzero(self._starts[used][1:] != ends[:-1]) + 1
        at = 0
        for first, last in pairwise([0, *apart.tolist(), len(used)]):
            if first < last:
                begin, end = int(self._starts[used[first]]), int(ends[last - 1])
                at = self._decode(begin, end, space, at)
        if at != indptr[-1]:
            raise SourceError(f"{self.where} has fewer points than were counted; start again")
        self._settle(spectra, indptr, models, space)

    def _settle(
        self, spectra: Ints, indptr: Ints, models: NDArray[np.float64], space: Space
    ) -> None:
        """Give marked points their m/z."""
        if not space.marked.any():
            return
        loud = np.flatnonzero(space.marked & (space.intensity != 0))
        if len(loud):
            which = int(np.searchsorted(indptr, loud[0], "right")) - 1
            raise SourceError(
                f"{self._name(spectra[which])}: point {int(loud[0] - indptr[which])} has no m/z "
                f"but an intensity of {space.intensity[loud[0]]:g}, expected 0; export it again"
            )
        filled, wrong = fill_marks(indptr, space.mz.astype(np.float64), space.marked, models)
        bad = np.flatnonzero(wrong >= 0)
        if len(bad):
            raise SourceError(
                f"{self._name(spectra[bad[0]])}: the m/z of point {int(wrong[bad[0]])} is null, "
                "but nulls stand only in pairs between points, singly at the ends, and beside a "
                "single point only with a delta model; export it without null marking"
            )
        space.mz[:] = filled

    def _name(self, position: int) -> str:
        return f"{self.where}: spectrum {int(self._spectra[position])}"

    def _decode(self, begin: int, end: int, space: Space, at: int) -> int:
        """Decode rows [begin, end) to place `at`; return the place behind them."""
        for rows in self._batches(self._rows, begin, end):
            counts = np.ones(len(rows), np.int64)
            if self.layout.chunked:
                counts = chunk_counts(self.layout, rows)
            part = space.part(at, at + int(counts.sum()))
            self._unpack(rows, counts, part)
            at += len(part.mz)
        return at

    def _unpack(self, rows: pa.StructArray, counts: Ints, space: Space) -> None:
        """Put the points of rows into `space`, which is as long as `counts` add up to."""
        if not self.layout.chunked:
            decode_points(self.layout, rows, space)
            return
        try:
            decode_chunks(self.layout, rows, counts, space)
        except SourceError as error:
            raise SourceError(f"{self.where}: {error}") from error

    def _batches(self, rows: ParquetRows, begin: int, end: int) -> Iterator[pa.StructArray]:
        for batch in rows.batches(begin, end):
            yield batch.column(0)

    def _positions(self, rows: pa.StructArray, before: int) -> Ints:
        """Return the position of the spectrum of every row, after checking that they ascend."""
        column = rows.field(self.layout.index)
        if column.null_count:
            raise SourceError(f"{self.where} has a row of no spectrum; export it again")
        index = numbers(column).astype(np.int64)
        if len(index) and (index[0] < before or (np.diff(index) < 0).any()):
            place = int(np.argmax(np.diff(index, prepend=before) < 0))
            raise SourceError(
                f"{self.where}: {self.layout.index} {int(index[place])} follows "
                f"{int(index[place - 1]) if place else before}, expected ascending spectra; "
                "export it again"
            )
        position = np.searchsorted(self._spectra, index)
        found = position < len(self._spectra)
        found[found] = self._spectra[position[found]] == index[found]
        if not found.all():
            raise SourceError(
                f"{self.where} has points of spectrum {int(index[~found][0])}, which the metadata "
                "do not list; export it again"
            )
        return position

    def _count(self, rows: ParquetRows) -> None:
        last = 0
        for batch in self._batches(rows, 0, rows.n_rows):
            position = self._positions(batch, last)
            if not len(position):
                continue
            last = int(self._spectra[position[-1]])
            heads = np.flatnonzero(np.diff(position, prepend=-1))
            which, lengths = position[heads], np.diff(np.append(heads, len(position)))
            self._counts[which] += lengths
            if not self.layout.chunked:
                self.n_points[which] += lengths
                continue
            self.n_points[which] += np.add.reduceat(chunk_counts(self.layout, batch), heads)
            self._widen(batch, which, heads)

    def _widen(self, chunks: pa.StructArray, which: Ints, heads: Ints) -> None:
        """Widen the extents of spectra by those of their chunks."""
        start, end = (
            numbers(chunks.field(name)) for name in (self.layout.mz_start, self.layout.mz_end)
        )
        # Chunks without a point are from 0 to 0; those with one may end at 0.
        low = np.minimum.reduceat(np.where(start > 0, start, np.inf), heads)
        high = np.maximum.reduceat(np.maximum(start, end), heads)
        known = self._extent[1, which] > 0
        self._extent[0, which] = np.where(known, np.minimum(self._extent[0, which], low), low)
        self._extent[1, which] = np.maximum(self._extent[1, which], high)

    def _stated_extent(self) -> tuple[float, float] | None:
        """Return the extent of all m/z by the statistics of the member, or None."""
        low, high = np.inf, -np.inf
        (path,) = self.layout.paths(self.layout.mz)
        metadata = self._rows.metadata
        for group in range(metadata.num_row_groups):
            found = metadata.row_group(group)
            if not found.num_rows:
                continue
            columns = [found.column(k) for k in range(found.num_columns)]
            own = [column.statistics for column in columns if column.path_in_schema == path]
            statistics = own[0] if own else None
            if statistics is None or not statistics.has_min_max:
                return None
            low, high = min(low, statistics.min), max(high, statistics.max)
        sound = np.isfinite(low) and np.isfinite(high) and low >= 0
        return (float(low), float(high)) if sound else None

    def _measure(self, chosen: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return least and greatest m/z of the chosen spectra by reading them; (2, n)."""
        rows = self._rows.select(self.layout.paths(self.layout.mz), POINTS_TOGETHER)
        used = np.flatnonzero(chosen)
        ends = self._starts[used] + self._counts[used]
        apart = np.flatnonzero(self._starts[used][1:] != ends[:-1]) + 1
        extents: list[Any] = []
        for first, last in pairwise([0, *apart.tolist(), len(used)]):
            for batch in self._batches(rows, int(self._starts[used[first]]), int(ends[last - 1])):
                mz = numbers(batch.field(self.layout.mz))
                good = mz[np.isfinite(mz) & (mz > 0)]
                if len(good):
                    extents.append((good.min(), good.max()))
        return np.array(extents, np.float64).reshape(-1, 2).T
