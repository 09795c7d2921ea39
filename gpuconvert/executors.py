"""Who runs the partitions: any `concurrent.futures.Executor`, threads by default.

A Dask client's `get_executor()` or a process pool serves as well: the work is a
function of a plan's path and an index.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class SerialExecutor(Executor):
    """Runs each call at once in the calling thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run the call and return its finished future."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - a future carries whatever was raised
            future.set_exception(error)
        return future


def default_workers() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def make_executor(workers: int) -> Executor:
    """Return threads for more than one worker, and the calling thread for one."""
    if workers == 1:
        return SerialExecutor()
    return ThreadPoolExecutor(workers, thread_name_prefix="gpuconvert")
