"""A whole export: one source, read once and in order, into one mzPeak archive.

Neither ZIP nor Parquet can be continued where it broke off: an export that is stopped
leaves nothing, and the same command starts anew.
The archive is at its place whole or not at all; the last step is one rename.
"""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuconvert.backends import Backend, choose_backend
from gpuconvert.errors import BudgetError, GpuconvertError, OutputError, SettingsError
from gpuconvert.memory import default_budget, peak_rss
from gpuconvert.mzpeak_archive import INDEX, NewArchive
from gpuconvert.mzpeak_members import GROUP_POINTS, Task, write_members
from gpuconvert.mzpeak_spectra import Tally
from gpuconvert.pipeline import Work
from gpuconvert.plan import BASE_BYTES, MIB, SLOT_BYTES, SLOTS
from gpuconvert.planning import decide_axis, make_plan, sample_extent, take_sample
from gpuconvert.readers import Reader, open_reader, require_pixels
from gpuconvert.settings import OF_AXIS, Settings, check_meaning
from gpuconvert.source_check import SourceCheck
from gpuconvert.spectra import Acquisition
from gpuconvert.stages import Monitor
from gpuconvert.workspace import (
    Workspace,
    check_room,
    check_target,
    commit,
    discard,
    locked,
    workspace_for,
)

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
    backend : which stripped or resampled, and why that one; "" where neither was done
    source_check : what ``--check-source`` found, or ""
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
    source_check: str
    warnings: tuple[str, ...]
    seconds: float
    stages: dict[str, float]
    peak_memory: int
    projected_memory: int

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        return asdict(self) | {"warnings": list(self.warnings)}


def _is_archive(path: Path) -> bool:
    """Return whether an mzPeak archive is at `path`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return INDEX in archive.namelist()


def _budget(reader: Reader, settings: Settings, backend: Backend) -> tuple[int, int]:
    """Return the size of a buffer and the memory of the whole export, in bytes."""
    acquisition = reader.acquisition
    budget = settings.memory or default_budget()
    largest = int(acquisition.raw_bytes.max(initial=0)) + reader.batch_bytes(0, 0)
    per_point = float((acquisition.n_points / np.maximum(acquisition.raw_bytes, 1)).max(initial=0))
    fixed = BASE_BYTES + acquisition.reader_bytes + backend.base_bytes
    fixed += acquisition.unpack_bytes + acquisition.n_spectra * SPECTRUM_BYTES
    # What a backend prefers is left aside: most of the work, and of the memory, is the host's.
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
    check_meaning(settings, ("mobility_bins",), "an mzPeak, which has no table of mobility")
    if not settings.resampled:
        check_meaning(
            settings, OF_AXIS, "the spectra of the source; leave it out, or add --resampled"
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
    _check(space, overwrite=overwrite)
    with monitor.logged("index"):
        reader = open_reader(source, settings)
    try:
        require_pixels(reader.acquisition)
        backend, line = _choose_backend(reader.acquisition, settings)
        slot_bytes, projected = _budget(reader, settings, backend)
        with _held(space, overwrite=overwrite), ExitStack() as stack:
            if not settings.ignore_space:
                check_room(space, temporary=0, store=_most_bytes(reader.acquisition))
            check = stack.enter_context(SourceCheck(reader)) if settings.check_source else None
            with NewArchive(space.store) as archive:
                task = _prepare(reader, settings, monitor, archive, slot_bytes, space, backend)
                with monitor.logged("export"):
                    write_members(task)
            compared = "" if check is None else check.result()
            reader.check_unchanged()
            monitor.check()
            written = space.store.stat().st_size
            commit(space, durable=settings.durable)
        seconds = time.perf_counter() - begun
        return _summary(task, space, (line, compared), (written, projected), seconds)
    finally:
        reader.close()


def _most_bytes(acquisition: Acquisition) -> int:
    """Return the size that an archive of these spectra does not exceed, about."""
    widths = [np.dtype(e.mz_dtype).itemsize + 8 for e in acquisition.encodings]
    return int(acquisition.n_points.sum()) * max(widths) + acquisition.n_spectra * SPECTRUM_BYTES


@contextmanager
def _held(space: Workspace, *, overwrite: bool) -> Iterator[None]:
    """Hold the workspace; whatever happens, nothing unfinished is left."""
    with locked(space):
        try:
            # Taking the lock may have moved an older archive back.
            _check(space, overwrite=overwrite)
            yield
        except OSError as error:
            if isinstance(error, GpuconvertError) or error.errno is None:
                raise
            raise OutputError(
                error.errno,
                f"the work on {space.output} broke off ({error.filename or 'file'}: "
                f"{error.strerror}); mend that and run the same command again",
            ) from error
        finally:
            discard(space)


def _check(space: Workspace, *, overwrite: bool) -> None:
    check_target(space, overwrite=overwrite, known=_is_archive, kind="an mzPeak archive")


def _choose_backend(acquisition: Acquisition, settings: Settings) -> tuple[Backend, str]:
    """Return the backend, and a line about it, empty where nothing is computed."""
    profiles = any(item.representation != "centroid" for item in acquisition.encodings)
    if settings.resampled or (profiles and not settings.lossless):
        return choose_backend(settings.backend, settings.devices or ())
    # Its buffers are all that is needed.
    return choose_backend("numpy")[0], ""


def _prepare(
    reader: Reader, settings: Settings, monitor: Monitor, archive: NewArchive, slot_bytes: int,
    space: Workspace, backend: Backend,
) -> Task:  # fmt: skip
    """Return the task, its decisions made."""
    acquisition = reader.acquisition
    work = None
    default = acquisition.representation
    if settings.resampled:
        with monitor.logged("plan"):
            plan, _ = make_plan(reader, space.output, settings, backend)
        rows = np.arange(acquisition.n_spectra)
        work = Work(plan, reader, backend, space.parts, rows, monitor)
        default = default or ("profile" if plan.representation == "profile" else "centroid")
    elif any(item.representation is None for item in acquisition.encodings):
        with monitor.logged("plan"):
            sample = take_sample(reader)
            decision = decide_axis(reader, sample, settings, sample_extent(sample))
        default = "profile" if decision.representation == "profile" else "centroid"
    centroid = np.array([
        (item.representation or default) == "centroid" for item in acquisition.encodings
    ])[acquisition.encoding]  # fmt: skip
    tally = Tally.of(acquisition.n_spectra)
    return Task(reader, settings, monitor, archive, tally, centroid, slot_bytes, backend, work)


def _summary(
    task: Task, space: Workspace, words: tuple[str, str], sizes: tuple[int, int], seconds: float
) -> Export:
    """Return the summary; `words` of backend and source check, `sizes` written and projected."""
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
        bytes_written=sizes[0],
        backend=words[0],
        source_check=words[1],
        warnings=acquisition.warnings,
        seconds=seconds,
        stages=task.monitor.seconds(),
        peak_memory=peak_rss(),
        projected_memory=sizes[1],
    )
