"""Rows of a Parquet member, streamed: any range, in bounded memory, from several threads.

pyarrow decodes a column from the beginning of a row group only. A cursor therefore
moves forward through one, and stays where the last range ended: ranges that follow
each other decode every page once. Nothing decoded is kept but the batch at hand.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gpuconvert.readers.mzpeak_archive import Member, understood

MOST_CURSORS = 8
"""Cursors that wait for the range that follows theirs."""


class _Cursor:
    """A place in a member, and the batches from there to the end of its row group."""

    def __init__(self, rows: ParquetRows) -> None:
        self._rows = rows
        self.group = -1
        self.position = 0
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._rest: pa.RecordBatch | None = None

    def move(self, row: int) -> None:
        """Go to a row, backwards or past the row group by opening its row group."""
        group = self._rows.group_of(row)
        if group == self.group and self.position <= row:
            return
        self._rows.release(self.group)
        self.group, self.position, self._rest = group, int(self._rows.starts[group]), None
        self._batches = self._rows.open_group(group)

    def take(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield rows [first, last) in pieces."""
        while first < last:
            self.move(first)
            batch = self._rest if self._rest is not None else next(self._batches, None)
            if batch is None:
                raise pa.ArrowInvalid(f"row group {self.group} ends at row {self.position}")
            end = self.position + len(batch)
            if end <= first:
                self._rest = None
                self.position = end
                continue
            stop = min(end, last)
            yield batch.slice(first - self.position, stop - first)
            self._rest = batch.slice(stop - self.position) if stop < end else None
            self.position = first = stop


class ParquetRows:
    """Some columns of a Parquet member, by row.

    schema : of the whole member
    footer : its key-value metadata as text
    starts : (n_groups + 1,) int64, first row of every row group, and the number of rows
    """

    def __init__(self, member: Member, columns: tuple[str, ...], batch_rows: int) -> None:
        self.member = member
        self.columns = columns
        self.batch_rows = batch_rows
        with understood(member.file.path, member.name):
            opened = pq.ParquetFile(member.open())
            self.metadata = opened.metadata
            self.schema: pa.Schema = opened.schema_arrow
        counts = [self.metadata.row_group(k).num_rows for k in range(self.metadata.num_row_groups)]
        self.starts = np.cumsum([0, *counts])
        self._idle: list[_Cursor] = []
        self._lock = threading.Lock()

    @property
    def n_rows(self) -> int:
        """Number of rows of the member."""
        return int(self.starts[-1])

    def footer(self) -> dict[str, str]:
        """Return the key-value metadata of the member."""
        pairs = (self.metadata.metadata or {}).items()
        return {
            key.decode("utf-8", "replace"): value.decode("utf-8", "replace") for key, value in pairs
        }

    def group_of(self, row: int) -> int:
        """Return the row group that a row is in."""
        return int(np.searchsorted(self.starts, row, "right")) - 1

    def select(self, columns: tuple[str, ...], batch_rows: int) -> ParquetRows:
        """Return other columns of the same member."""
        return ParquetRows(self.member, columns, batch_rows)

    def open_group(self, group: int) -> Iterator[pa.RecordBatch]:
        """Return the batches of one row group, decoded as they are asked for."""
        file = pq.ParquetFile(self.member.open(), metadata=self.metadata)
        batches: Iterator[pa.RecordBatch] = file.iter_batches(
            self.batch_rows, row_groups=[group], columns=list(self.columns), use_threads=False
        )
        return batches

    def release(self, group: int) -> None:
        """Give the memory of the pages of a row group back to the system."""
        if group < 0:
            return
        found = self.metadata.row_group(group)
        for place in range(found.num_columns):
            column = found.column(place)
            if column.path_in_schema.startswith(self.columns):
                begin = column.dictionary_page_offset or column.data_page_offset
                self.member.release(begin, column.total_compressed_size)

    def batches(self, first: int, last: int) -> Iterator[pa.RecordBatch]:
        """Yield rows [first, last) in pieces, in order."""
        if first >= last:
            return
        with understood(self.member.file.path, self.member.name), self._cursor(first) as cursor:
            self.member.file.check()
            yield from cursor.take(first, last)

    @contextmanager
    def _cursor(self, row: int) -> Iterator[_Cursor]:
        """Lend the cursor that is nearest before a row; a new one where none is."""
        group = self.group_of(row)
        with self._lock:
            near = [c for c in self._idle if c.group == group and c.position <= row]
            ended = [c for c in self._idle if c.position == row]
            chosen = max(near, key=lambda c: c.position) if near else (ended[0] if ended else None)
            if chosen is None and len(self._idle) >= MOST_CURSORS:
                chosen = self._idle[0]
            if chosen is None:
                chosen = _Cursor(self)
            else:
                self._idle.remove(chosen)
        yield chosen
        # A cursor that failed half-way is not used again.
        with self._lock:
            self._idle.append(chosen)
