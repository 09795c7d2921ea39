"""The members of an mzPeak, written one after the other from the batches of a source.

Batches are read ahead by a thread, stripped and marked here, and encoded by another
thread, so that the three overlap. What is held is a batch and two row groups.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpuconvert.backends import Backend
from gpuconvert.mzpeak_archive import NewArchive
from gpuconvert.mzpeak_metadata import (
    Grid,
    SpectrumFacts,
    describe_file,
    scan_values,
    spectrum_values,
)
from gpuconvert.mzpeak_points import Points
from gpuconvert.mzpeak_spectra import Tally, resampled_points, source_points, stored_types
from gpuconvert.mzpeak_tables import (
    COMMON_MZ,
    OWN_BLOCK,
    PACKED_SCAN_COLUMNS,
    SCAN_COLUMNS,
    SPECTRUM_COLUMNS,
    SignalFormat,
    column_mapping,
    packed_schema,
    records,
    struct_type,
    table_schema,
)
from gpuconvert.pipeline import Work, read_ahead, resample
from gpuconvert.readers import Reader, cut_batches
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor

GROUP_POINTS = 1 << 19
"""Points of a row group, about; whole spectra. Small enough that a reader decodes little twice."""
TABLE_ROWS = 1 << 16
"""Rows of a table of metadata made at a time."""


@dataclass(frozen=True)
class Task:
    """What the parts of an export share.

    centroid : (n_spectra,) bool, which member each spectrum goes to
    backend : has the buffers that are read into, strips and resamples
    work : the resampling, or None
    """

    reader: Reader
    settings: Settings
    monitor: Monitor
    archive: NewArchive
    tally: Tally
    centroid: NDArray[np.bool_]
    slot_bytes: int
    backend: Backend
    work: Work | None


def write_members(task: Task) -> None:
    """Write all members and the index."""
    acquisition = task.reader.acquisition
    task.monitor.begin("export", int(acquisition.raw_bytes.sum()), acquisition.n_spectra)
    members = [("spectra_data.parquet", "data_arrays", ~task.centroid)]
    if task.centroid.any():
        members.append(("spectra_peaks.parquet", "peaks", task.centroid))
    for name, kind, chosen in members:
        _write_signal(task, name, kind, chosen)
    with task.monitor.timed("metadata"):
        _write_metadata(task)


def _entry(task: Task, name: str, kind: str, mapping: list[dict[str, Any]]) -> dict[str, Any]:
    if task.settings.dialect == "packed":
        kind = kind.replace("_", " ")
    return {"name": name, "entity_type": "spectrum", "data_kind": kind,
            "column_mapping": mapping, "parameters": []}  # fmt: skip


def _format(task: Task, chosen: NDArray[np.bool_]) -> SignalFormat:
    """Return how the member of the chosen spectra is written."""
    acquisition, settings = task.reader.acquisition, task.settings
    shared = bool(acquisition.shared_mz_points) or task.work is not None
    mz, counts = np.dtype("<f8"), np.dtype("<f4")
    if task.work is None:
        mz, counts = stored_types(acquisition, np.unique(acquisition.encoding[chosen]))
    # Zeros of spectra that share their m/z are found in a small dictionary: nothing is gained
    # by a model, and the common axis would be lost.
    profiles = not task.centroid[chosen].any()
    marks = profiles and not settings.lossless and not shared
    return SignalFormat(settings.mzpeak_layout, mz, counts, marks, settings.dialect, shared)


def _write_signal(task: Task, name: str, kind: str, chosen: NDArray[np.bool_]) -> None:
    """Write the member of the chosen spectra, row group by row group."""
    form = _format(task, chosen)
    entry = _entry(task, name, kind, [])
    before = task.tally.stored
    with (
        task.archive.table(entry, form.schema, **form.parquet_options()) as writer,
        ThreadPoolExecutor(1, thread_name_prefix="gpuconvert-encode") as pool,
    ):
        pending: Future[None] | None = None
        for group in _groups(task, form, chosen):
            if pending is not None:
                pending.result()
            pending = pool.submit(_encode, task.monitor, writer, group)
        if pending is not None:
            pending.result()
        stored = np.flatnonzero(chosen & (task.tally.n_stored > 0))
        writer.add_key_value_metadata({
            "spectrum_array_index": json.dumps(form.array_index()),
            "spectrum_count": str(int(stored[-1]) + 1 if len(stored) else 0),
            "spectrum_data_point_count": str(task.tally.stored - before),
        })  # fmt: skip


def _encode(monitor: Monitor, writer: pq.ParquetWriter, group: pa.Table) -> None:
    with monitor.timed("encode"):
        writer.write_table(group, row_group_size=max(1, len(group)))


def _groups(task: Task, form: SignalFormat, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Yield row groups of whole spectra."""
    waiting: list[pa.Table] = []
    held = 0
    for points in _points(task, form, chosen):
        if len(points.mz):
            with task.monitor.timed("rows"):
                waiting.append(points.rows(form))
            held += len(points.mz)
        if held >= GROUP_POINTS:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting, held = [], 0
    if held:
        yield pa.concat_tables(waiting).combine_chunks()


def _points(task: Task, form: SignalFormat, chosen: NDArray[np.bool_]) -> Iterator[Points]:
    """Yield the chosen spectra as they are stored, batch by batch."""
    reader, settings, monitor = task.reader, task.settings, task.monitor
    acquisition = reader.acquisition
    everything = cut_batches(reader, 0, acquisition.n_spectra, task.slot_bytes)
    ranges = [found for found in everything if chosen[found[0]]]
    if not ranges:
        return
    strip = not settings.lossless and not task.centroid[chosen].any()
    for batch in read_ahead(reader, ranges, task.backend, monitor):
        monitor.check()
        with monitor.timed("resample" if task.work else "strip"):
            if task.work is not None:
                block, done = resample(task.work, batch)
                task.tally.dropped += done.dropped
                task.tally.sorted += done.sorted
                task.tally.read += int(batch.n_points.sum())
                centres = task.work.plan.axis.centres[block.indices]
                points = resampled_points(block.rows, block.indptr, centres, block.data, task.tally)
            else:
                points = source_points(
                    batch, acquisition, form, task.tally, backend=task.backend, strip=strip,
                    mend=settings.repair,
                )  # fmt: skip
        yield points
        monitor.advance(int(acquisition.raw_bytes[batch.rows].sum()), len(batch.rows))


def _processing(task: Task) -> dict[str, Any]:
    """Return what was done to the spectra, for the file's own record."""
    settings, tally = task.settings, task.tally
    done: dict[str, Any] = {"source format": task.reader.acquisition.format}
    if task.work is not None:
        axis = task.work.plan.axis
        done["resampled onto"] = f"{axis.n_bins} bins of law {axis.law}, sha256 {axis.sha256}"
    elif settings.lossless or task.centroid.all():
        done["fidelity"] = "values and number formats of the source"
    else:
        done["fidelity"] = "runs of zeros stripped; every other value that of the source"
    if tally.marked:
        done |= {
            "zeros stored without their m/z": tally.marked,
            "largest m/z error of such a zero (Th)": tally.error,
            "largest m/z error of such a zero (ppm)": tally.error_ppm,
        }
    if tally.dropped or tally.sorted:
        done |= {"faulty points dropped": tally.dropped, "spectra sorted": tally.sorted}
    return done


def _write_metadata(task: Task) -> None:
    """Write the tables of spectra and scans, and the index."""
    acquisition, tally = task.reader.acquisition, task.tally
    grid = Grid.of(acquisition)
    kinds = {"centroid"} if task.centroid.any() else set()
    kinds |= {"profile"} if (~task.centroid).any() else set()
    described = describe_file(acquisition, grid, kinds, _processing(task))
    whole = task.work is None and (task.settings.lossless or bool(task.centroid.all()))
    if acquisition.shared_mz_points and whole:
        described[OWN_BLOCK] = {COMMON_MZ: acquisition.shared_mz_points}
    footer = {
        key: json.dumps(value) for key, value in described.items()
        if key not in ("version", "cv_list", "imaging", OWN_BLOCK)
    } | {"spectrum_count": str(acquisition.n_spectra),
         "spectrum_data_point_count": str(tally.stored)}  # fmt: skip
    facts = SpectrumFacts(task.centroid, tally.n_stored, tally.figures, tally.models)
    if task.settings.dialect == "packed":
        _write_packed(task, grid, facts, footer)
    else:
        _write_split(task, grid, facts, footer)
    task.archive.finish(described, described=task.settings.dialect == "split")


def _slices(n_rows: int) -> Iterator[tuple[int, int]]:
    for first in range(0, n_rows, TABLE_ROWS):
        yield first, min(first + TABLE_ROWS, n_rows)


def _write_split(task: Task, grid: Grid, facts: SpectrumFacts, footer: dict[str, str]) -> None:
    """Write a table of spectra and one of scans."""
    acquisition = task.reader.acquisition
    name = "spectra_metadata.parquet"
    schema = table_schema(SPECTRUM_COLUMNS)
    entry = _entry(task, name, "metadata", column_mapping(SPECTRUM_COLUMNS))
    with task.archive.table(entry, schema) as writer:
        for first, last in _slices(acquisition.n_spectra):
            values = spectrum_values(acquisition, facts, first, last)
            arrays = records(SPECTRUM_COLUMNS, values, last - first)
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        writer.add_key_value_metadata(footer)
    columns = tuple(c for c in SCAN_COLUMNS if grid.planes or c.name != "position_z")
    schema = table_schema(columns)
    entry = _entry(task, "spectra_metadata_scans.parquet", "scans", column_mapping(columns))
    with task.archive.table(entry, schema) as writer:
        for first, last in _slices(acquisition.n_spectra):
            values = scan_values(acquisition, grid, first, last)
            arrays = records(columns, values, last - first)
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def _write_packed(task: Task, grid: Grid, facts: SpectrumFacts, footer: dict[str, str]) -> None:
    """Write spectra and scans side by side into one table."""
    acquisition = task.reader.acquisition
    schema = packed_schema()
    entry = _entry(task, "spectra_metadata.parquet", "metadata", [])
    with task.archive.table(entry, schema) as writer:
        for first, last in _slices(acquisition.n_spectra):
            structs = [
                pa.StructArray.from_arrays(
                    records(columns, values, last - first),
                    fields=list(struct_type(columns, "packed")),
                )
                for columns, values in (
                    (SPECTRUM_COLUMNS, spectrum_values(acquisition, facts, first, last)),
                    (PACKED_SCAN_COLUMNS, scan_values(acquisition, grid, first, last)),
                )
            ]
            structs += [pa.nulls(last - first, field.type) for field in list(schema)[2:]]
            writer.write_table(pa.Table.from_arrays(structs, schema=schema))
        writer.add_key_value_metadata(footer)
