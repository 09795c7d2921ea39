"""The whole job and its three verbs: `make`, `convert_part`, `assemble`; and `run`, all three.

This is what the command line and `gpuconvert.convert` call. A source that is refused
leaves nothing behind; a run that was stopped leaves its plan and its finished parts,
and the same call continues from them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gpuconvert.assemble import PlaneResult
from gpuconvert.backends import Backend, choose_backend
from gpuconvert.decision import AxisDecision
from gpuconvert.errors import PlanError, SettingsError, SourceError
from gpuconvert.finished_store import read_summary as read_store
from gpuconvert.finishing import finish
from gpuconvert.job import Job
from gpuconvert.memory import peak_rss
from gpuconvert.partitions import attempt, convert_missing
from gpuconvert.parts import PartSummary, sweep
from gpuconvert.plan import Plan, read_plan, write_plan
from gpuconvert.planning import Sample, make_plan, project
from gpuconvert.provenance import canonical_json
from gpuconvert.quality import Quality
from gpuconvert.readers import Reader, open_reader, require_pixels
from gpuconvert.safeguards import beating, checked, held, in_words
from gpuconvert.settings import OF_MZPEAK, Settings, check_meaning, wants_mzpeak
from gpuconvert.stages import Monitor
from gpuconvert.summary import Summary
from gpuconvert.workspace import Workspace, check_room, check_target, commit, workspace_for

SMALL_FILES = 2 << 20
"""Disk space of the small files of one plane: some 180, each in blocks of its own."""
BIN_BYTES_STORED = 64
"""Name, m/z, edges and mean of one bin in the store, before compression."""


def _reuse(space: Workspace, reader: Reader, settings: Settings, backend: Backend) -> Plan | None:
    """Return the plan of an interrupted run that this one continues, or None.

    The partitions stay; workers and memory are those of this run, where its memory
    allows partitions of that size.
    """
    if not space.plan.is_file():
        return None
    try:
        plan = read_plan(space.plan)
    except PlanError:
        return None
    fits = canonical_json(plan.identity) == canonical_json(
        reader.acquisition.identity.to_json()
    ) and canonical_json(plan.settings.conversion()) == canonical_json(settings.conversion())
    if not fits:
        return None
    decision = AxisDecision.from_json(plan.decision)
    least = plan.layout.part_nonzeros
    _, layout, projection = project(reader, decision, backend, settings, least_part=least)
    if layout.part_nonzeros < least:
        return None
    return replace(
        plan,
        source=str(Path(reader.acquisition.path).resolve()),
        output=str(space.output),
        settings=settings,
        layout=replace(layout, part_nonzeros=least),
        projection=projection,
    )


def _prepare(
    space: Workspace, reader: Reader, settings: Settings, backend: Backend, monitor: Monitor
) -> tuple[Plan, Sample | None]:
    """Return the plan to follow, written to the work folder; and the sample, if one was taken."""
    with monitor.logged("plan"):
        plan, sample = _reuse(space, reader, settings, backend), None
        if plan is None:
            plan, sample = make_plan(reader, space.output, settings, backend)
            shutil.rmtree(space.parts, ignore_errors=True)
        space.parts.mkdir(parents=True, exist_ok=True)
        sweep(space.parts)
        if not settings.ignore_space:
            took = plan.projection
            rest = SMALL_FILES * len(plan.planes) + BIN_BYTES_STORED * plan.axis.n_bins
            check_room(space, temporary=took.temporary, store=took.store + rest)
        write_plan(plan, space.work)
    return plan, sample


def _require_store(output: Path, settings: Settings) -> None:
    """Raise SettingsError where the output is to be an mzPeak, which has no partitions."""
    if wants_mzpeak(output, settings):
        raise SettingsError(
            f"{output} is to be an mzPeak, which is written in one go: use 'gpuconvert run' or "
            "gpuconvert.export, or say --to spatialdata"
        )
    check_meaning(settings, OF_MZPEAK, "a store; leave it out, or say --to mzpeak")


@contextmanager
def _opened(source: Path, settings: Settings, monitor: Monitor) -> Iterator[Reader]:
    with monitor.logged("index"):
        reader = open_reader(source, settings)
    try:
        require_pixels(reader.acquisition)
        yield reader
    finally:
        reader.close()


def _summary(
    job: Job, quality: Quality, results: list[PlaneResult], *, reused: int, begun: float
) -> Summary:
    stored = read_store(job.space.output)
    return Summary(
        output=str(job.space.output),
        n_spectra=job.reader.acquisition.n_spectra,
        n_pixels=sum(result.last - result.first for result in results),
        n_bins=job.plan.axis.n_bins,
        n_nonzeros=sum(result.n_nonzeros for result in results),
        decision=tuple(job.decision().lines()),
        backend=job.backend_line,
        quality=quality,
        warnings=job.warnings(),
        source_check=job.source_check(),
        parts=len(job.plan.partitions),
        parts_reused=reused,
        dropped=sum(result.dropped for result in results),
        sorted=sum(result.sorted for result in results),
        seconds=time.perf_counter() - begun,
        stages=job.monitor.seconds(),
        peak_memory=peak_rss(),
        projected_memory=job.plan.projection.memory,
        stored=stored.to_json(),
    )


def run(
    source: Path, output: Path, settings: Settings, *, overwrite: bool = False,
    executor: Executor | None = None, monitor: Monitor | None = None,
) -> Summary:  # fmt: skip
    """Convert `source` into a store at `output`; continue where an earlier run stopped.

    Parameters
    ----------
    source, output
        The input, and the store to make.
    settings
        Every choice.
    overwrite
        Replace a store that is there already.
    executor
        Runs the partitions; by default threads of this process. One that runs elsewhere
        must see the same files.
    monitor
        Told of progress, and asked whether to stop.

    Raises
    ------
    SourceError
        Where the source is refused; nothing is left behind.
    SettingsError, BudgetError
        Where an option, or the memory, does not do.
    OutputError
        Where the output exists or cannot be written.
    Stopped
        Where `monitor` was told to stop; the same call continues.
    """
    begun = time.perf_counter()
    monitor = monitor or Monitor()
    _require_store(output, settings)
    space = workspace_for(output, settings.temp_dir)
    check_target(space, overwrite=overwrite)
    with _opened(source, settings, monitor) as reader:
        backend, line = choose_backend(settings.backend, settings.devices or ())
        with held(space, overwrite=overwrite), checked(reader, settings) as check:
            plan, sample = _prepare(space, reader, settings, backend, monitor)
            job = Job(plan, reader, backend, line, space, monitor, sample, check)
            with beating(job):
                reused = convert_missing(job, executor, convert_part)
                quality, results = finish(job)
            commit(space, durable=settings.durable)
        return _summary(job, quality, results, reused=reused, begun=begun)


def make(
    source: Path, output: Path, settings: Settings, *, overwrite: bool = False,
    monitor: Monitor | None = None,
) -> tuple[Path, Plan]:  # fmt: skip
    """Write the plan that converts `source` to `output`; return its path and itself."""
    monitor = monitor or Monitor()
    _require_store(output, settings)
    space = workspace_for(output, settings.temp_dir)
    check_target(space, overwrite=overwrite)
    with _opened(source, settings, monitor) as reader:
        backend, _ = choose_backend(settings.backend, settings.devices or ())
        with held(space, overwrite=overwrite):
            plan, _ = _prepare(space, reader, settings, backend, monitor)
    return space.plan, plan


def _plan_file(path: Path) -> tuple[Plan, Workspace]:
    plan = read_plan(path)
    space = workspace_for(Path(plan.output), plan.settings.temp_dir)
    return plan, space


def _check_source(plan: Plan, reader: Reader) -> None:
    found = reader.acquisition.identity.to_json()
    if canonical_json(found) != canonical_json(plan.identity):
        raise SourceError(
            f"{plan.source} is not the file that was planned (its size or content changed); "
            "plan again"
        )


def convert_part(
    plan_path: str | Path, index: int, backend: str | None = None, *,
    monitor: Monitor | None = None,
) -> PartSummary:  # fmt: skip
    """Convert one partition of a plan; safe to call from any process, any number of times."""
    plan, space = _plan_file(Path(plan_path))
    if not 0 <= index < len(plan.partitions):
        raise PlanError(
            f"the plan has partitions 0 to {len(plan.partitions) - 1}, got index {index}"
        )
    monitor = monitor or Monitor()
    with _opened(Path(plan.source), plan.settings, monitor) as reader:
        _check_source(plan, reader)
        chosen, line = choose_backend(backend or plan.settings.backend, plan.settings.devices or ())
        job = Job(plan, reader, chosen, line, space, monitor)
        with in_words(space):
            return attempt(job.work(), index)


def assemble(
    plan_path: str | Path, *, overwrite: bool = False, monitor: Monitor | None = None
) -> Summary:
    """Make the store of a plan whose partitions are all converted."""
    begun = time.perf_counter()
    monitor = monitor or Monitor()
    plan, space = _plan_file(Path(plan_path))
    check_target(space, overwrite=overwrite)
    with _opened(Path(plan.source), plan.settings, monitor) as reader:
        _check_source(plan, reader)
        backend, line = choose_backend(plan.settings.backend, plan.settings.devices or ())
        with held(space, overwrite=overwrite), checked(reader, plan.settings) as check:
            job = Job(plan, reader, backend, line, space, monitor, check=check)
            with beating(job):
                quality, results = finish(job)
            commit(space, durable=plan.settings.durable)
        return _summary(job, quality, results, reused=len(plan.partitions), begun=begun)
