"""What is held while a job runs: its folder, words for what fails, a check, a heartbeat.

Each is a context around a part of a job, and leaves the disk in a state
from which the same command goes on, or as it was.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from gpuconvert.errors import (
    DamagedPartError,
    GpuconvertError,
    OutputError,
    SourceError,
    SourceReadError,
)
from gpuconvert.heartbeat import Heartbeat
from gpuconvert.job import Job
from gpuconvert.readers import Reader
from gpuconvert.settings import Settings
from gpuconvert.source_check import SourceCheck
from gpuconvert.workspace import Workspace, check_target, discard, locked


@contextmanager
def held(space: Workspace, *, overwrite: bool) -> Iterator[None]:
    """Hold the workspace; leave nothing behind where there is nothing to continue from."""
    with locked(space):
        try:
            # Taking the lock may have moved an older store back.
            check_target(space, overwrite=overwrite)
            with in_words(space):
                yield
        except GpuconvertError as error:
            refused = isinstance(error, SourceError) and not isinstance(error, SourceReadError)
            if refused or not space.plan.is_file():
                discard(space)
            raise


@contextmanager
def in_words(space: Workspace) -> Iterator[None]:
    """Turn what the system says of files into a sentence with a remedy."""
    try:
        yield
    except OSError as error:
        if isinstance(error, GpuconvertError):
            raise
        raise OutputError(
            error.errno,
            f"the work on {space.output} broke off ({error.filename or 'file'}: "
            f"{error.strerror}); mend that and run the same command again, finished "
            "partitions are kept",
        ) from error


@contextmanager
def damaged_removed() -> Iterator[None]:
    """Remove a part that turns out damaged, so that the same command makes it again."""
    try:
        yield
    except DamagedPartError as error:
        shutil.rmtree(error.folder, ignore_errors=True)
        raise


@contextmanager
def checked(reader: Reader, settings: Settings) -> Iterator[SourceCheck | None]:
    """Compare the source with what it declares, in a thread, where that was asked for."""
    if not settings.check_source:
        yield None
        return
    with SourceCheck(reader) as check:
        yield check


@contextmanager
def beating(job: Job) -> Iterator[None]:
    """Write beside the output what is being done."""
    job.space.staging.mkdir(parents=True, exist_ok=True)
    facts = {
        "output": str(job.space.output), "source": job.plan.source, "work": str(job.space.work),
        "projected_memory": job.plan.projection.memory,
    }  # fmt: skip
    with Heartbeat(job.space.status, facts) as heartbeat, job.monitor.heard_by(heartbeat):
        yield
