"""A whole export: one source, read once and in order, into one mzPeak archive.

Batches are read ahead by a thread, stripped and marked here, and encoded by another
thread, so that the three overlap. Neither ZIP nor Parquet can be continued where it
broke off: an export that is stopped leaves nothing, and the same command starts anew.
The archive is at its place whole or not at all; the last step is one rename.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpuconvert.backends import choose_backend
from gpuconvert.errors import BudgetError, OutputError, SettingsError
from gpuconvert.memory import default_budget, peak_rss
from gpuconvert.mzpeak_archive import INDEX, NewArchive
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
from gpuconvert.plan import BASE_BYTES, MIB, SLOT_BYTES, SLOTS, Plan
from gpuconvert.planning import decide_axis, make_plan, sample_extent, take_sample
from gpuconvert.readers import Reader, cut_batches, open_reader, require_pixels
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor
from gpuconvert.workspace import (
    Workspace,
    check_target,
    commit,
    discard,
    locked,
    workspace_for,
)

GROUP_POINTS = 1 << 19
"""Points of a row group, about; whole spectra. Small enough that a reader decodes little twice."""
TABLE_ROWS = 1 << 16
"""Rows of a table of metadata made at a time."""

BATCH_BYTES = 150
"""Buffers, decoded, stripped and filled arrays, of one point of a batch."""
GROUP_BYTES = 60
"""Arrow arrays and encoded pages of one point of a row group; two groups are there at once."""
SPECTRUM_BYTES = 600
"""Index and columns of one spectrum, and its row of metadata."""


@dataclass(frozen=True)
class Export:
    """What an export did.

    output : the finished archive
    n_profile, n_centroid : spectra in either member
    points_read, points_stored, points_marked : of the source, in the archive, and how many of
        those are zeros without their m/z
    mz_error, mz_error_ppm : how far a reader puts such a zero from where it was, at most,
        in Th and in ppm
    unmarked : spectra whose zeros keep their m/z because they would not come back in order
    dropped, sorted : points dropped and spectra sorted by ``--repair``
    layout, dialect, lossless, resampled : as asked for
    bytes_read, bytes_written : sizes of source and archive
    backend : of the resampling, or ""
    warnings : sentences about the source
    seconds, stages, peak_memory, projected_memory : as for a conversion
    """

    output: str
    n_profile: int
    n_centroid: int
    points_read: int
    points_stored: int
    points_marked: int
    mz_error: float
    mz_error_ppm: float
    unmarked: int
    dropped: int
    sorted: int
    layout: str
    dialect: str
    lossless: bool
    resampled: bool
    bytes_read: int
    bytes_written: int
    backend: str
    warnings: tuple[str, ...]
    seconds: float
    stages: dict[str, float]
    peak_memory: int
    projected_memory: int

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self) | {"warnings": list(self.warnings)}


@dataclass(frozen=True)
class _Task:
    """What the parts of an export share.

    centroid : (n_spectra,) bool, which member each spectrum goes to
    plan : of the resampling, or None
    """

    reader: Reader
    settings: Settings
    monitor: Monitor
    archive: NewArchive
    tally: Tally
    centroid: NDArray[np.bool_]
    slot_bytes: int
    plan: Plan | None
    work: Work | None


def _is_archive(path: Path) -> bool:
    """Return whether an mzPeak archive is at `path`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return INDEX in archive.namelist()


def _budget(reader: Reader, settings: Settings) -> tuple[int, int]:
    """Return the size of a buffer and the memory of the whole export, in bytes."""
    acquisition = reader.acquisition
    budget = settings.memory or default_budget()
    largest = int(acquisition.raw_bytes.max(initial=0)) + reader.batch_bytes(0, 0)
    per_point = float((acquisition.n_points / np.maximum(acquisition.raw_bytes, 1)).max(initial=0))
    fixed = BASE_BYTES + acquisition.reader_bytes + acquisition.n_spectra * SPECTRUM_BYTES
    slot = SLOT_BYTES
    while True:
        held = max(slot, largest)
        points = held * per_point
        group = min(GROUP_POINTS, points) + points
        needed = int(fixed + SLOTS * held + points * BATCH_BYTES + 2 * group * GROUP_BYTES)
        if needed <= budget:
            return held, needed
        if slot <= largest or slot <= MIB // 4:
            raise BudgetError(
                f"--memory {budget / MIB:.0f} MiB is too little: {acquisition.n_spectra} spectra, "
                f"the largest of {largest} bytes, need at least {-(-needed // MIB)} MiB; raise "
                "--memory"
            )
        slot //= 2


def _check_options(settings: Settings) -> None:
    if settings.duplicates == "sum":
        raise SettingsError(
            "--duplicates sum adds up resampled spectra, which an mzPeak of spectra is not made "
            "of; give first, last or keep"
        )
    if settings.lossless and settings.resampled:
        raise SettingsError(
            "--lossless keeps the spectra of the source and --resampled replaces them; give one"
        )


def run(
    source: Path, output: Path, settings: Settings, *, overwrite: bool = False,
    monitor: Monitor | None = None,
) -> Export:  # fmt: skip
    """Write the spectra of `source` into an mzPeak archive at `output`.

    Parameters
    ----------
    source, output
        The input, and the archive to make.
    settings
        Every choice.
    overwrite
        Replace an archive that is there already.
    monitor
        Told of progress, and asked whether to stop.

    Raises
    ------
    SourceError
        Where the source is refused.
    SettingsError, BudgetError
        Where an option, or the memory, does not do.
    OutputError
        Where the output exists or cannot be written.
    Stopped
        Where `monitor` was told to stop. Nothing is left, whatever was raised.
    """
    begun = time.perf_counter()
    monitor = monitor or Monitor()
    _check_options(settings)
    space = workspace_for(output)
    check_target(space, overwrite=overwrite, known=_is_archive, kind="an mzPeak archive")
    with monitor.timed("index"):
        reader = open_reader(source, settings)
    try:
        require_pixels(reader.acquisition)
        slot_bytes, projected = _budget(reader, settings)
        with _held(space):
            with NewArchive(space.store) as archive:
                task, line = _prepare(reader, settings, monitor, archive, slot_bytes, space)
                _write(task)
            reader.check_unchanged()
            monitor.check()
            written = space.store.stat().st_size
            commit(space)
        return _summary(task, space, line, written, projected, time.perf_counter() - begun)
    finally:
        reader.close()


@contextmanager
def _held(space: Workspace) -> Iterator[None]:
    """Hold the workspace; whatever happens, nothing unfinished is left."""
    with locked(space):
        try:
            yield
        except OSError as error:
            if isinstance(error, OutputError) or error.errno is None:
                raise
            raise OutputError(
                error.errno,
                f"the work on {space.output} broke off ({error.filename or 'file'}: "
                f"{error.strerror}); mend that and run the same command again",
            ) from error
        finally:
            discard(space)


def _prepare(
    reader: Reader, settings: Settings, monitor: Monitor, archive: NewArchive, slot_bytes: int,
    space: Workspace,
) -> tuple[_Task, str]:  # fmt: skip
    """Return the task, its decisions made, and a line about the backend."""
    acquisition = reader.acquisition
    plan, work, line = None, None, ""
    default = acquisition.representation
    if settings.resampled:
        with monitor.timed("plan"):
            backend, line = choose_backend(settings.backend)
            plan, _ = make_plan(reader, space.output, settings, backend)
        rows = np.arange(acquisition.n_spectra)
        work = Work(plan, reader, backend, space.parts, rows, monitor)
        default = default or ("profile" if plan.representation == "profile" else "centroid")
    elif any(item.representation is None for item in acquisition.encodings):
        with monitor.timed("plan"):
            sample = take_sample(reader)
            decision = decide_axis(reader, sample, settings, sample_extent(sample))
        default = "profile" if decision.representation == "profile" else "centroid"
    centroid = np.array([
        (item.representation or default) == "centroid" for item in acquisition.encodings
    ])[acquisition.encoding]  # fmt: skip
    tally = Tally.of(acquisition.n_spectra)
    task = _Task(reader, settings, monitor, archive, tally, centroid, slot_bytes, plan, work)
    return task, line


def _write(task: _Task) -> None:
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


def _entry(task: _Task, name: str, kind: str, mapping: list[dict[str, Any]]) -> dict[str, Any]:
    if task.settings.dialect == "packed":
        kind = kind.replace("_", " ")
    return {"name": name, "entity_type": "spectrum", "data_kind": kind,
            "column_mapping": mapping, "parameters": []}  # fmt: skip


def _format(task: _Task, chosen: NDArray[np.bool_]) -> SignalFormat:
    """Return how the member of the chosen spectra is written."""
    acquisition, settings = task.reader.acquisition, task.settings
    shared = bool(acquisition.shared_mz_points) or task.plan is not None
    mz, counts = np.dtype("<f8"), np.dtype("<f4")
    if task.plan is None:
        mz, counts = stored_types(acquisition, np.unique(acquisition.encoding[chosen]))
    # Zeros of spectra that share their m/z are found in a small dictionary: nothing is gained
    # by a model, and the common axis would be lost.
    profiles = not task.centroid[chosen].any()
    marks = profiles and not settings.lossless and not shared
    return SignalFormat(settings.mzpeak_layout, mz, counts, marks, settings.dialect, shared)


def _write_signal(task: _Task, name: str, kind: str, chosen: NDArray[np.bool_]) -> None:
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


def _groups(task: _Task, form: SignalFormat, chosen: NDArray[np.bool_]) -> Iterator[pa.Table]:
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


def _points(task: _Task, form: SignalFormat, chosen: NDArray[np.bool_]) -> Iterator[Points]:
    """Yield the chosen spectra as they are stored, batch by batch."""
    reader, settings, monitor = task.reader, task.settings, task.monitor
    acquisition = reader.acquisition
    everything = cut_batches(reader, 0, acquisition.n_spectra, task.slot_bytes)
    ranges = [found for found in everything if chosen[found[0]]]
    if not ranges:
        return
    strip = not settings.lossless and not task.centroid[chosen].any()
    for batch in read_ahead(reader, ranges, monitor):
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
                    batch, acquisition, form, task.tally, strip=strip, mend=settings.repair
                )
        yield points
        monitor.advance(int(acquisition.raw_bytes[batch.rows].sum()), len(batch.rows))


def _processing(task: _Task) -> dict[str, Any]:
    """Return what was done to the spectra, for the file's own record."""
    settings, tally = task.settings, task.tally
    done: dict[str, Any] = {"source format": task.reader.acquisition.format}
    if task.plan is not None:
        axis = task.plan.axis
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


def _write_metadata(task: _Task) -> None:
    """Write the tables of spectra and scans, and the index."""
    acquisition, tally = task.reader.acquisition, task.tally
    grid = Grid.of(acquisition)
    kinds = {"centroid"} if task.centroid.any() else set()
    kinds |= {"profile"} if (~task.centroid).any() else set()
    described = describe_file(acquisition, grid, kinds, _processing(task))
    if acquisition.shared_mz_points and task.settings.lossless:
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


def _write_split(task: _Task, grid: Grid, facts: SpectrumFacts, footer: dict[str, str]) -> None:
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


def _write_packed(task: _Task, grid: Grid, facts: SpectrumFacts, footer: dict[str, str]) -> None:
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


def _summary(
    task: _Task, space: Workspace, line: str, written: int, projected: int, seconds: float
) -> Export:
    tally, settings = task.tally, task.settings
    acquisition = task.reader.acquisition
    return Export(
        output=str(space.output),
        n_profile=int((~task.centroid).sum()),
        n_centroid=int(task.centroid.sum()),
        points_read=tally.read,
        points_stored=tally.stored,
        points_marked=tally.marked,
        mz_error=tally.error,
        mz_error_ppm=tally.error_ppm,
        unmarked=tally.unmarked,
        dropped=tally.dropped,
        sorted=tally.sorted,
        layout=settings.mzpeak_layout,
        dialect=settings.dialect,
        lossless=settings.lossless,
        resampled=settings.resampled,
        bytes_read=sum(size for _, size, _ in acquisition.identity.files),
        bytes_written=written,
        backend=line,
        warnings=acquisition.warnings,
        seconds=seconds,
        stages=task.monitor.seconds(),
        peak_memory=peak_rss(),
        projected_memory=projected,
    )
