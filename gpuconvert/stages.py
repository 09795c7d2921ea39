"""What a run is doing: named stages with their times, progress, and the wish to stop.

One `Monitor` goes through a run. Stages are NVTX ranges too, so a profiler shows
the same names.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import nvtx

from gpuconvert.errors import Stopped

DOMAIN = "gpuconvert"


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
            with nvtx.annotate(stage, domain=DOMAIN):
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
