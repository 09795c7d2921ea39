"""One partition from the source to a finished part: read ahead, resample, sort, store."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.accumulate import row_sums
from gpuconvert.backends import Backend
from gpuconvert.cells import gather_cells
from gpuconvert.errors import BackendError, SourceError
from gpuconvert.parts import PartSummary, read_summary, write_part
from gpuconvert.pixels import merge_rows
from gpuconvert.plan import SLOT_BYTES, SLOTS, Partition, Plan
from gpuconvert.readers import Reader, cut_batches, with_mobility
from gpuconvert.repairs import Repair, repair
from gpuconvert.spectra import Acquisition, CsrBlock, RawBatch, describe_fault
from gpuconvert.stages import Monitor


@dataclass(frozen=True, slots=True)
class Work:
    """What converting any partition of a plan needs.

    rows : (n_spectra,) int64, output row of every spectrum
    """

    plan: Plan
    reader: Reader
    backend: Backend
    parts: Path
    rows: NDArray[np.int64]
    monitor: Monitor

    @property
    def slot_bytes(self) -> int:
        """Size of a buffer: as planned, but for a plan for a backend of larger batches."""
        return min(self.plan.layout.slot_bytes, max(self.backend.batch_bytes, SLOT_BYTES))


def read_ahead(
    reader: Reader, ranges: list[tuple[int, int]], backend: Backend, monitor: Monitor
) -> Iterator[RawBatch]:
    """Yield the spectra of each range, read by a thread into a ring of buffers.

    A batch is valid until the next one is asked for.
    """
    free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    ready: queue.SimpleQueue[tuple[int, RawBatch] | BaseException | None] = queue.SimpleQueue()
    needed = max(reader.batch_bytes(first, last) for first, last in ranges)
    slots = [backend.buffer(max(needed, 1)) for _ in range(min(SLOTS, len(ranges)))]
    for slot in range(len(slots)):
        free.put(slot)

    def fill() -> None:
        try:
            for first, last in ranges:
                slot = free.get()
                if slot is None:
                    return
                with monitor.timed("read"):
                    batch = reader.read(first, last, slots[slot])
                ready.put((slot, batch))
            ready.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever takes it
            ready.put(error)

    thread = threading.Thread(target=fill, name="gpuconvert-read", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[1]
            free.put(item[0])
    finally:
        free.put(None)
        thread.join()


def resample(work: Work, batch: RawBatch) -> tuple[CsrBlock, Repair]:
    """Return the resampled batch, its faults repaired or refused."""
    options = work.plan.options_for(batch.representation)
    block = work.backend.resample(batch, work.plan.axis, options)
    if not block.faults.any():
        return block, Repair()
    if not work.plan.settings.repair:
        raise SourceError(refusal(work.reader.acquisition, batch, block.faults))
    repaired, done = repair(batch)
    return work.backend.resample(repaired, work.plan.axis, options), done


def refusal(acquisition: Acquisition, batch: RawBatch, faults: NDArray[np.uint8]) -> str:
    """Return the sentence that says which spectra of a batch have faults; some must."""
    index = int(np.flatnonzero(faults)[0])
    spectrum = int(batch.rows[index])
    more = int((faults != 0).sum()) - 1
    others = f"; {more} more in the same batch" if more else ""
    x0, y0, _ = acquisition.origin
    return (
        f"{Path(acquisition.path).name}: spectrum {int(acquisition.order[spectrum])} "
        f"(x={int(acquisition.x[spectrum]) + x0}, y={int(acquisition.y[spectrum]) + y0}): "
        f"{describe_fault(batch, index)}{others}; give --repair to sort and drop such points"
    )


def _join(blocks: list[CsrBlock]) -> CsrBlock:
    """Return consecutive blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    counts = np.concatenate([np.diff(block.indptr) for block in blocks])
    indptr = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    joined: dict[str, Any] = {
        name: np.concatenate([getattr(block, name) for block in blocks])
        for name in ("rows", "indices", "data", "tic", "outside", "faults")
    }
    return CsrBlock(indptr=indptr, **joined)


def _part_arrays(work: Work, block: CsrBlock) -> dict[str, NDArray[Any]]:
    """Return what a part stores of a block."""
    stored = row_sums(block.indptr, block.data)
    arrays: dict[str, NDArray[Any]] = {"tics": np.concatenate([stored, block.tic, block.outside])}
    if work.plan.settings.layout == "csr":
        row_nnz = np.diff(block.indptr)
        return arrays | {"row_nnz": row_nnz, "indices": block.indices, "data": block.data}
    with work.monitor.timed("by_bin"):
        # Rows of the part: small numbers are half of the bytes to write and read again.
        shifted = replace(block, rows=block.rows - block.rows[0])
        columns = work.backend.by_bin(shifted, work.plan.axis.n_bins)
    small = block.rows[-1] - block.rows[0] < 2**16
    return arrays | {
        "bins": columns.bins,
        "counts": np.diff(columns.indptr).astype(np.int32),
        "rows": columns.rows.astype(np.uint16) if small else columns.rows,
        "data": columns.data,
    }


def _batches_with_rows(work: Work, partition: Partition) -> Iterator[RawBatch]:
    sizes = work.reader.acquisition.raw_bytes
    ranges = list(cut_batches(work.reader, partition.first, partition.last, work.slot_bytes))
    for batch in read_ahead(work.reader, ranges, work.backend, work.monitor):
        work.monitor.check()
        yield batch
        work.monitor.advance(int(sizes[batch.rows].sum()), len(batch.rows))


@contextmanager
def _of_partition(index: int) -> Iterator[None]:
    """Say to which partition a failure of the backend belongs."""
    try:
        yield
    except BackendError as error:
        raise BackendError(f"partition {index}: {error}") from error


def convert_partition(work: Work, index: int) -> PartSummary:
    """Read, resample, sort by bin and store one partition; nothing if it is done already."""
    plan = work.plan
    partition = plan.partitions[index]
    fingerprint = plan.part_fingerprint(index)
    done = read_summary(work.parts, index, fingerprint)
    if done is not None:
        return done
    blocks: list[CsrBlock] = []
    points = dropped = resorted = 0
    for batch in _batches_with_rows(work, partition):
        with _of_partition(index), work.monitor.timed("resample"):
            block, repairs = resample(work, batch)
        points += int(batch.n_points.sum())
        dropped += repairs.dropped
        resorted += repairs.sorted
        blocks.append(block)
    block = _to_output_rows(work, _join(blocks))
    first_row = plan.planes[partition.plane].first
    summary = PartSummary(
        index, int(block.rows[0]) - first_row, int(block.rows[-1]) + 1 - first_row,
        len(block.data), partition.last - partition.first, points, dropped, resorted,
    )  # fmt: skip
    with _of_partition(index):
        arrays = _part_arrays(work, block) | _cell_arrays(work, partition, block.rows)
    work.reader.check_unchanged()
    with work.monitor.timed("write part"):
        write_part(work.parts, fingerprint, summary, arrays, durable=plan.settings.durable)
    return summary


def _cell_arrays(
    work: Work, partition: Partition, rows: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Return what a part of these rows stores by ion mobility; nothing where it was not asked."""
    parted = with_mobility(work.reader)
    if parted is None:
        return {}
    reader, axis = parted
    buffer = np.empty(0, np.uint8)
    blocks: list[CsrBlock] = []
    for first, last in cut_batches(work.reader, partition.first, partition.last, work.slot_bytes):
        work.monitor.check()
        needed = work.reader.batch_bytes(first, last)
        if needed > len(buffer):
            buffer = np.empty(needed, np.uint8)
        with work.monitor.timed("mobility"):
            blocks.append(resample(work, reader.read_mobility(first, last, buffer))[0])
    cells = gather_cells(blocks, axis.n_bins, work.rows)
    own = cells.rows - np.int32(rows[0])
    return {
        "cell_bins": cells.bins, "cell_counts": cells.counts, "cell_rows": own,
        "cell_data": cells.data, "cell_tic": np.bincount(own, cells.data, len(rows)),
    }  # fmt: skip


def _to_output_rows(work: Work, block: CsrBlock) -> CsrBlock:
    """Return the block with spectra replaced by output rows, merged where asked for."""
    placed = replace(block, rows=work.rows[block.rows])
    return merge_rows(placed) if work.plan.merge else placed
