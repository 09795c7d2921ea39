"""A clock of CPU time by stage inside one run of the program; `benchmarks.stages` starts it.

The program runs unchanged, in a process of its own, with its stage clock
(`gpuconvert.stages.Monitor.timed`), the loading of modules, the loading of compiled kernels and
the compressor watched. At every beginning and end, the CPU time since the last one is credited:
that of a thread inside a stage to that stage; that of threads outside any (those of
zarr) to the stages at work. The run has one worker, so there is one such stage beside the
reading ahead, which uses no other thread. What is credited to no stage is ``rest``.
"""

from __future__ import annotations

import builtins
import importlib
import json
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

REST = "rest"
BETWEEN = ", between stages"
READ = "read"
LOOPS = {"pipeline": "convert_partition", "assemble": "assemble_plane"}
"""Functions that call the stages, by module; what they do themselves is a label too."""


class CpuClock:
    """CPU seconds by label; a thread works for the label it entered last."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._stacks: dict[int, list[str]] = {}
        self._marks: dict[int, float] = {}
        self._process = time.process_time()
        self._seconds: defaultdict[str, float] = defaultdict(float, start=self._process)
        self.enter(REST)

    def enter(self, label: str) -> None:
        """Credit this thread's time to `label` from now on."""
        with self._lock:
            self._settle()
            own = threading.get_ident()
            self._marks.setdefault(own, time.thread_time())
            self._stacks.setdefault(own, []).append(label)

    def leave(self) -> None:
        """Credit this thread's time to the label before again, or to none."""
        with self._lock:
            self._settle()
            own = threading.get_ident()
            self._stacks[own].pop()
            if not self._stacks[own]:
                del self._stacks[own], self._marks[own]

    @contextmanager
    def inside(self, label: str) -> Iterator[None]:
        """Credit this thread's time in the block to `label`."""
        self.enter(label)
        try:
            yield
        finally:
            self.leave()

    def seconds(self) -> dict[str, float]:
        """Return the seconds of every label so far."""
        with self._lock:
            self._settle()
            return dict(self._seconds)

    def _settle(self) -> None:
        now = time.process_time()
        others = now - self._process
        self._process = now
        for thread, stack in self._stacks.items():
            spent = time.clock_gettime(time.pthread_getcpuclockid(thread))
            self._seconds[stack[-1]] += spent - self._marks[thread]
            others -= spent - self._marks[thread]
            self._marks[thread] = spent
        tops = {stack[-1] for stack in self._stacks.values()}
        working = tops - {REST, READ, "compress"} or {REST}
        if len(working) > 1:
            working = {name for name in working if not name.endswith(BETWEEN)} or working
        for label in working:
            self._seconds[label] += others / len(working)


def _watch_imports(clock: CpuClock) -> None:
    original = builtins.__import__
    within = threading.local()

    def watched(name: str, *context: Any, **more: Any) -> Any:
        level = more.get("level", context[3] if len(context) > 3 else 0)
        if getattr(within, "importing", False) or (not level and name in sys.modules):
            return original(name, *context, **more)
        within.importing = True
        try:
            with clock.inside("import"):
                return original(name, *context, **more)
        finally:
            within.importing = False

    builtins.__import__ = watched


def _watch_kernels(clock: CpuClock) -> None:
    """Credit the loading of compiled code to a label of its own."""
    event: Any = importlib.import_module("numba.core.event")

    class Listener(event.Listener):  # type: ignore[misc, name-defined]
        def on_start(self, event: object) -> None:  # noqa: ARG002
            clock.enter("load kernels")

        def on_end(self, event: object) -> None:  # noqa: ARG002
            clock.leave()

    event.register("numba:compiler_lock", Listener())


def _labelled(clock: CpuClock, label: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def run(*values: Any, **named: Any) -> Any:
        with clock.inside(label):
            return call(*values, **named)

    return run


def _watch_compressor(clock: CpuClock) -> None:
    blosc: Any = importlib.import_module("numcodecs.blosc")
    blosc.Blosc.encode = _labelled(clock, "compress", blosc.Blosc.encode)
    blosc.compress = _labelled(clock, "compress", blosc.compress)


def _watch_stages(clock: CpuClock) -> None:
    """Credit the program's own stages, and what its two loops do between them."""
    stages: Any = importlib.import_module("gpuconvert.stages")
    original = stages.Monitor.timed

    @contextmanager
    def timed(self: object, stage: str) -> Iterator[None]:
        with original(self, stage), clock.inside(stage):
            yield

    stages.Monitor.timed = timed
    for name, function in LOOPS.items():
        module: Any = importlib.import_module(f"gpuconvert.{name}")
        loop = getattr(module, function)
        setattr(module, function, _labelled(clock, name + BETWEEN, loop))


def _watched_run(report: str, words: list[str]) -> None:
    """Run the program's command line in this process and write its seconds to `report`."""
    clock = CpuClock()
    _watch_imports(clock)
    with clock.inside("import"):
        _watch_kernels(clock)
        _watch_compressor(clock)
        _watch_stages(clock)
    # What `gpuconvert.cli.main` does, but for ending the process.
    importlib.import_module("gpuconvert.allocator").keep_freed_memory()
    with suppress(SystemExit):
        importlib.import_module("gpuconvert.cli").call(words)
    seconds = clock.seconds()
    Path(report).write_text(json.dumps(seconds))


if __name__ == "__main__":
    _watched_run(sys.argv[1], sys.argv[2:])
