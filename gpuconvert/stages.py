"""What a run is doing: named stages with their times, progress, and the wish to stop.

One `Monitor` goes through a run. Stages are NVTX ranges too, so a profiler shows
the same names, and so does a trace written by `tracing`, without any profiler.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import nvtx

from gpuconvert.errors import OutputError, Stopped

DOMAIN = "gpuconvert"

Event = tuple[str, int, str, int, int]
"""Stage, number and name of the thread, begin and duration in nanoseconds."""

_recorders: list[list[Event]] = []
"""Where `span` writes; empty unless a trace is being made."""


@contextmanager
def span(stage: str) -> Iterator[None]:
    """Name what the block does: an NVTX range, and an event of every trace being made."""
    with nvtx.annotate(stage, domain=DOMAIN):
        if not _recorders:
            yield
            return
        begun = time.perf_counter_ns()
        try:
            yield
        finally:
            thread = threading.current_thread()
            took = time.perf_counter_ns() - begun
            event = (stage, threading.get_native_id(), thread.name, begun, took)
            for events in _recorders:
                events.append(event)


@contextmanager
def tracing(path: Path | None) -> Iterator[None]:
    """Write what the block did to `path`, as JSON for Perfetto or chrome://tracing.

    Written however the block ends; nothing is recorded where `path` is None.

    Raises
    ------
    OutputError
        Where the file cannot be written; before the block, if that can be known.
    """
    if path is None:
        yield
        return
    _write_trace(path, [])
    events: list[Event] = []
    _recorders.append(events)
    try:
        yield
    finally:
        _recorders[:] = [other for other in _recorders if other is not events]
        _write_trace(path, events)


def _write_trace(path: Path, events: list[Event]) -> None:
    process = os.getpid()
    threads = {thread: name for _, thread, name, _, _ in events}
    entries: list[dict[str, object]] = [
        {"name": "thread_name", "ph": "M", "pid": process, "tid": thread, "args": {"name": name}}
        for thread, name in threads.items()
    ]
    # Microseconds, as the format asks.
    entries += [
        {"name": stage, "cat": DOMAIN, "ph": "X", "pid": process, "tid": thread,
         "ts": begun / 1000, "dur": took / 1000}
        for stage, thread, _, begun, took in events
    ]  # fmt: skip
    try:
        path.write_text(json.dumps({"traceEvents": entries, "displayTimeUnit": "ms"}))
    except OSError as error:
        raise OutputError(
            error.errno, f"trace {path} cannot be written: {error.strerror}"
        ) from error


@dataclass(frozen=True, slots=True)
class Step:
    """How far a stage is: bytes and spectra done, out of how many."""

    stage: str
    done_bytes: int
    total_bytes: int
    done_spectra: int
    total_spectra: int


class Listener(Protocol):
    """Whoever wants to see progress; called from worker threads."""

    def step(self, step: Step) -> None:
        """Take notice of one step."""
        ...


class Log(Protocol):
    """Whoever keeps what was done; called from worker threads."""

    def record(self, stage: str, seconds: float, n_bytes: int, partition: int | None) -> None:
        """Keep that `stage`, of one partition or of all, took so many seconds."""
        ...


class Monitor:
    """Times of the stages, progress so far, and whether to stop; safe between threads.

    log : told of stages and partitions when they have ended
    """

    def __init__(self, listener: Listener | None = None, log: Log | None = None) -> None:
        self._listeners = [] if listener is None else [listener]
        self._log = log
        self._lock = threading.Lock()
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._stop = threading.Event()
        self._stage = ""
        self._totals = (0, 0)
        self._done = [0, 0]

    def stop(self) -> None:
        """Ask the run to stop at the next place where nothing is half done."""
        self._stop.set()

    def check(self) -> None:
        """Raise Stopped if `stop` was called."""
        if self._stop.is_set():
            raise Stopped("stopped on request; run the same command again to continue")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block to `stage`; threads add up."""
        begun = time.perf_counter()
        try:
            with span(stage):
                yield
        finally:
            with self._lock:
                self._seconds[stage] += time.perf_counter() - begun

    def note(
        self, stage: str, seconds: float, n_bytes: int = 0, partition: int | None = None
    ) -> None:
        """Tell the log that `stage`, of one partition or of all, has ended well."""
        if self._log is not None:
            self._log.record(stage, seconds, n_bytes, partition)

    @contextmanager
    def logged(self, stage: str) -> Iterator[None]:
        """Time the block as `timed` does, and tell the log of it."""
        begun = time.perf_counter()
        with self.timed(stage):
            yield
        self.note(stage, time.perf_counter() - begun)

    @contextmanager
    def heard_by(self, listener: Listener) -> Iterator[None]:
        """Have one more listener for the time of the block."""
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every stage so far, summed over threads."""
        with self._lock:
            return {name: round(value, 4) for name, value in self._seconds.items()}

    def begin(self, stage: str, total_bytes: int, total_spectra: int = 0) -> None:
        """Start counting progress of `stage` from nothing."""
        with self._lock:
            self._stage, self._totals, self._done = stage, (total_bytes, total_spectra), [0, 0]
        self.advance(0)

    def advance(self, n_bytes: int, n_spectra: int = 0) -> None:
        """Count progress of the current stage and tell the listener."""
        with self._lock:
            self._done[0] += n_bytes
            self._done[1] += n_spectra
            step = Step(self._stage, self._done[0], self._totals[0], self._done[1], self._totals[1])
        for listener in tuple(self._listeners):
            listener.step(step)
