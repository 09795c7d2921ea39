"""The partitions of a job, converted on an executor: here in threads, or anywhere.

Where one fails, the others stop at the next place where nothing is half done.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait

from gpuconvert.errors import Stopped
from gpuconvert.executors import make_executor
from gpuconvert.job import Job
from gpuconvert.parts import PartSummary, read_summary
from gpuconvert.pipeline import Work, convert_partition
from gpuconvert.plan import Plan
from gpuconvert.readers import Reader
from gpuconvert.stages import Monitor

Elsewhere = Callable[[str, int, str], PartSummary]


def convert_missing(job: Job, executor: Executor | None, elsewhere: Elsewhere) -> int:
    """Convert the partitions that are not done yet; return how many were.

    Parameters
    ----------
    job
        Of this process.
    executor
        Runs `elsewhere`; threads of this process run the job itself where it is None.
    elsewhere
        Converts a partition in any process: takes the path of the plan, the index and the
        name of the backend.
    """
    plan = job.plan
    missing = [
        index
        for index in range(len(plan.partitions))
        if read_summary(job.space.parts, index, plan.part_fingerprint(index)) is None
    ]
    acquisition = job.reader.acquisition
    job.monitor.begin("convert", int(acquisition.raw_bytes.sum()), acquisition.n_spectra)
    if executor is not None:
        _wait([_submit(job, executor, elsewhere, index) for index in missing], job.monitor)
    else:
        work = job.work()
        with make_executor(min(plan.layout.workers, max(1, len(missing)))) as own:
            _wait([own.submit(attempt, work, index) for index in missing], job.monitor)
    return len(plan.partitions) - len(missing)


def _submit(job: Job, executor: Executor, elsewhere: Elsewhere, index: int) -> Future[PartSummary]:
    """Have a partition converted elsewhere, and count it when it is done."""
    begun = time.perf_counter()
    sizes = _partition_bytes(job.plan, job.reader, index)
    path, name = str(job.space.plan), job.plan.settings.backend
    future = executor.submit(elsewhere, path, index, name)

    def count(ended: Future[PartSummary]) -> None:
        if not ended.cancelled() and ended.exception() is None:
            job.monitor.advance(sizes, ended.result().n_spectra)
            job.monitor.note("convert", time.perf_counter() - begun, sizes, index)

    future.add_done_callback(count)
    return future


def _partition_bytes(plan: Plan, reader: Reader, index: int) -> int:
    part = plan.partitions[index]
    return int(reader.acquisition.raw_bytes[part.first : part.last].sum())


def attempt(work: Work, index: int) -> PartSummary:
    """Convert a partition; where that fails, let the others stop where they are."""
    begun = time.perf_counter()
    try:
        summary = convert_partition(work, index)
    except BaseException:
        work.monitor.stop()
        raise
    n_bytes = _partition_bytes(work.plan, work.reader, index)
    work.monitor.note("convert", time.perf_counter() - begun, n_bytes, index)
    return summary


def _wait(futures: list[Future[PartSummary]], monitor: Monitor) -> None:
    """Wait for all; at the first failure drop the rest and raise it."""
    try:
        wait(futures, return_when=FIRST_EXCEPTION)
    finally:
        for future in futures:
            future.cancel()
    wait(futures)
    errors = [future.exception() for future in futures if not future.cancelled()]
    # Those that were stopped because another failed say nothing of why.
    for error in sorted(filter(None, errors), key=lambda error: isinstance(error, Stopped)):
        raise error
    monitor.check()
