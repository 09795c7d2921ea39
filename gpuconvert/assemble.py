"""Parts into one matrix: range by range, in bounded memory, without ever sorting.

X of a z plane is written in units of whole shards. For CSC a unit is a range of
bins: each part holds its entries of that range in one contiguous slice, and parts
are in row order, so a cursor per bin places them. For CSR it is a concatenation.
Units are independent; workers make them, and they are summed up in order.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuconvert.accumulate import add_by_index, add_by_range, place
from gpuconvert.compressors import Compressor
from gpuconvert.errors import OutputError
from gpuconvert.parts import Part, PartSummary
from gpuconvert.plain_zarr import write_group
from gpuconvert.plan import SHARD_CHUNKS, Plan
from gpuconvert.stages import Monitor
from gpuconvert.zarr_shards import LongArray

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PlaneResult:
    """What is known of one z plane once its matrix is written.

    z : from 0
    first, last : output rows
    stored_tic, source_tic, outside : (n_rows,) float64
    average : (n_bins,) float64, mean spectrum of the rows
    n_nonzeros : of the matrix
    dropped, sorted : repairs
    """

    z: int
    first: int
    last: int
    stored_tic: NDArray[np.float64]
    source_tic: NDArray[np.float64]
    outside: NDArray[np.float64]
    average: NDArray[np.float64]
    n_nonzeros: int
    dropped: int
    sorted: int


@dataclass(frozen=True, slots=True)
class _Unit:
    """Elements [start, stop) of X, and their values."""

    start: int
    stop: int
    indices: NDArray[np.int32]
    data: NDArray[np.float32]


def compressor_for(compression: str, level: int, *, values: bool) -> Compressor | None:
    """Return what compresses X for the words of the command line; None for "none".

    values : of the data; indices shuffle bytes instead of bits, which with lz4 is twice
        as fast and compresses sorted numbers as well
    """
    if compression == "none":
        return None
    bits = compression == "lz4" and values
    return Compressor(compression, level, "bitshuffle" if bits else "shuffle")


class _Matrix:
    """The arrays of X being written."""

    def __init__(
        self, plan: Plan, table: Path, shape: tuple[int, int], nonzeros: int, *, csc: bool
    ) -> None:
        compression, level, self._chunk = plan.settings.storage_choice()
        kind = "csc_matrix" if csc else "csr_matrix"
        attributes = {"encoding-type": kind, "encoding-version": "0.1.0", "shape": list(shape)}
        self._folder = table / "X"
        shutil.rmtree(self._folder, ignore_errors=True)
        write_group(self._folder, attributes)
        self._numbers = compressor_for(compression, level, values=False)
        self.data = self._new(
            "data", nonzeros, "f4", compressor_for(compression, level, values=True)
        )
        self.indices = self._new("indices", nonzeros, "i4", self._numbers)

    def _new(self, name: str, length: int, dtype: str, compressor: Compressor | None) -> LongArray:
        chunk = 4 * self._chunk // np.dtype(dtype).itemsize
        return LongArray(
            self._folder / name, length, dtype, chunk=chunk, chunks_per_shard=SHARD_CHUNKS,
            compressor=compressor,
        )  # fmt: skip

    def write_indptr(self, indptr: NDArray[np.int64]) -> None:
        """Store the offsets, as int64 whatever their size."""
        self._new("indptr", len(indptr), "i8", self._numbers).write(0, indptr)

    def write(self, unit: _Unit) -> None:
        """Store the elements of a unit."""
        self.data.write(unit.start, unit.data)
        self.indices.write(unit.start, unit.indices)


class PartLike(Protocol):
    """A part, or a view of one whose columns are others; see `gpuconvert.parts.Part`."""

    summary: PartSummary

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return entries [start, stop) of an array; all of it by default."""
        ...


def _count_bins(parts: Sequence[PartLike], n_bins: int) -> NDArray[np.int64]:
    """Return where each bin begins in the data of a CSC matrix; (n_bins + 1,) int64."""
    counts = np.zeros(n_bins + 1, np.int64)
    for part in parts:
        counts[part.read("bins") + 1] += part.read("counts")
    return np.cumsum(counts)


def _slice_parts(parts: Sequence[PartLike], ranges: list[tuple[int, int]]) -> NDArray[np.uint32]:
    """Return what each part has of each range of bins.

    Returns
    -------
    (n_ranges, n_parts, 2, 2) uint32
        First and last position in the part's ``bins``, and in its ``rows`` and ``data``; a
        part has far fewer than 2^32 entries.
    """
    edges = np.array(ranges, np.int64).reshape(-1, 2)
    slices = np.empty((len(edges), len(parts), 2, 2), np.uint32)
    for number, part in enumerate(parts):
        found = np.searchsorted(part.read("bins"), edges)
        entries = np.concatenate([[0], np.cumsum(part.read("counts"), dtype=np.int64)])
        slices[:, number, 0] = found
        slices[:, number, 1] = entries[found]
    return slices


def _csc_units(
    plan: Plan, parts: Sequence[PartLike], indptr: NDArray[np.int64]
) -> list[Callable[[], _Unit]]:
    """Return one call per unit that makes it."""
    size = plan.layout.unit_nonzeros
    total = int(indptr[-1])
    bounds = [(start, min(start + size, total)) for start in range(0, total, size)]
    ranges = [
        (int(np.searchsorted(indptr, start, "right")) - 1, int(np.searchsorted(indptr, stop)))
        for start, stop in bounds
    ]
    slices = _slice_parts(parts, ranges)

    def make(number: int) -> _Unit:
        start, stop = bounds[number]
        first, last = ranges[number]
        cursor = indptr[first:last] - start
        unit = _Unit(start, stop, np.empty(stop - start, "i4"), np.empty(stop - start, "f4"))
        for part, (bins, entries) in zip(parts, slices[number].tolist(), strict=True):
            if bins[0] < bins[1]:
                place(
                    part.read("bins", *bins), part.read("counts", *bins),
                    part.read("rows", *entries), part.read("data", *entries),
                    part.summary.first, cursor, first, unit.indices, unit.data,
                )  # fmt: skip
        return unit

    return [partial(make, number) for number in range(len(bounds))]


def _csr_units(
    plan: Plan, parts: Sequence[PartLike], indptr: NDArray[np.int64]
) -> list[Callable[[], _Unit]]:
    """Return one call per unit that makes it."""
    size = plan.layout.unit_nonzeros
    total = int(indptr[-1])
    begins = np.cumsum([0] + [part.summary.n_nonzeros for part in parts])

    def make(start: int) -> _Unit:
        stop = min(start + size, total)
        unit = _Unit(start, stop, np.empty(stop - start, "i4"), np.empty(stop - start, "f4"))
        for part, begin in zip(parts, begins, strict=False):
            low = max(start, int(begin))
            high = min(stop, int(begin) + part.summary.n_nonzeros)
            if low < high:
                here = slice(low - start, high - start)
                unit.indices[here] = part.read("indices", low - begin, high - begin)
                unit.data[here] = part.read("data", low - begin, high - begin)
        return unit

    return [partial(make, start) for start in range(0, total, size)]


def _make_and_write(call: Callable[[], _Unit], matrix: _Matrix, monitor: Monitor) -> _Unit:
    with monitor.timed("assemble"):
        unit = call()
    with monitor.timed("write X"):
        matrix.write(unit)
    return unit


def _in_order(
    calls: Sequence[Callable[[], _Unit]], executor: Executor, workers: int, monitor: Monitor
) -> Iterator[_Unit]:
    """Yield the results in order, with at most `workers` of them under way or waiting."""
    pending: deque[Future[_Unit]] = deque()
    try:
        for call in calls:
            monitor.check()
            pending.append(executor.submit(call))
            if len(pending) >= workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
            if not future.cancelled():
                future.exception()


def _read_tics(parts: list[Part]) -> NDArray[np.float64]:
    """Return stored, source and outside TIC of all rows; (3, n_rows) float64."""
    return np.concatenate([part.read("tics").reshape(3, -1) for part in parts], axis=1)


def _row_indptr(parts: Sequence[PartLike]) -> NDArray[np.int64]:
    counts = [part.read("row_nnz") for part in parts]
    return np.concatenate([[0], np.cumsum(np.concatenate(counts), dtype=np.int64)])


def parts_of(plan: Plan, number: int, folder: Path) -> list[Part]:
    """Return the finished parts of a plane, in row order; PlanError where one is missing."""
    mine = [index for index, part in enumerate(plan.partitions) if part.plane == number]
    return [Part(folder, index, plan.part_fingerprint(index)) for index in mine]


def write_matrix(
    plan: Plan, parts: Sequence[PartLike], shape: tuple[int, int], table: Path,
    executor: Executor, monitor: Monitor, *, csc: bool,
) -> tuple[NDArray[np.float64], int]:  # fmt: skip
    """Write X of `shape` from finished parts in row order; return column sums and non-zeros.

    Raises
    ------
    OutputError
        Where the store cannot be written.
    """
    with monitor.timed("count"):
        indptr = _count_bins(parts, shape[1]) if csc else _row_indptr(parts)
    sums = np.zeros(shape[1])
    calls = (_csc_units if csc else _csr_units)(plan, parts, indptr)
    try:
        matrix = _Matrix(plan, table, shape, int(indptr[-1]), csc=csc)
        steps = [partial(_make_and_write, call, matrix, monitor) for call in calls]
        for unit in _in_order(steps, executor, plan.layout.workers, monitor):
            if csc:
                add_by_range(indptr, unit.start, unit.data, sums)
            else:
                add_by_index(unit.indices, unit.data, sums)
            monitor.advance(unit.data.nbytes + unit.indices.nbytes)
        matrix.write_indptr(indptr)
    except OSError as error:
        raise OutputError(
            error.errno,
            f"the store cannot be written to {table}: {error.strerror}; make room and run the "
            "same command again",
        ) from error
    return sums, int(indptr[-1])


def assemble_plane(
    plan: Plan, number: int, parts_folder: Path, table: Path, executor: Executor, monitor: Monitor
) -> PlaneResult:
    """Write X of one z plane from its finished parts.

    Parameters
    ----------
    plan
        Whose parts these are.
    number
        Which of ``plan.planes``.
    parts_folder, table
        Where the parts are, and the folder of the table whose X is made.
    executor
        Runs the units.
    monitor
        Told of the bytes written; asked whether to stop between units.

    Raises
    ------
    PlanError
        Where a part is missing.
    OutputError
        Where the store cannot be written.
    """
    plane = plan.planes[number]
    parts = parts_of(plan, number, parts_folder)
    sums, n_nonzeros = write_matrix(
        plan, parts, (plane.last - plane.first, plan.axis.n_bins), table, executor, monitor,
        csc=plan.settings.layout == "csc",
    )  # fmt: skip
    stored, source, outside = _read_tics(parts)
    return PlaneResult(
        plane.z, plane.first, plane.last, stored, source, outside,
        average=sums / max(1, len(stored)), n_nonzeros=n_nonzeros,
        dropped=sum(part.summary.dropped for part in parts),
        sorted=sum(part.summary.sorted for part in parts),
    )  # fmt: skip
