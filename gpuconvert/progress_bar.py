"""Progress on a terminal: bytes, rates, peak memory and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from gpuconvert.compiled import nothing_compiled_yet
from gpuconvert.memory import peak_rss
from gpuconvert.report import format_bytes, format_count
from gpuconvert.stages import Step

COMPILING = "compiling kernels, once for an installation: some twenty seconds"
"""Said where a run begins without any."""

REDRAW_SECONDS = 0.1
"""Steps that follow each other more closely than this are drawn together."""


class ProgressBar:
    """A `Listener` that draws bytes, rates, peak memory and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._stage = ""
        self._begun = self._drawn = 0.0

    def step(self, step: Step) -> None:
        """Draw one step, unless the last was drawn just now."""
        now = time.monotonic()
        if step.stage != self._stage:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._stage, self._begun, self._drawn = step.stage, now, 0.0
            self._task = self._progress.add_task(
                step.stage, total=step.total_bytes or None, extra=""
            )
        if self._task is None or now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        rate = step.done_spectra / max(now - self._begun, 1e-3)
        extra = f"{format_count(round(rate))} spectra/s, " if step.total_spectra else ""
        extra += f"peak {format_bytes(peak_rss())}"
        self._progress.update(self._task, completed=step.done_bytes, extra=extra)


@contextmanager
def drawn() -> Iterator[ProgressBar]:
    """Draw a bar on stderr while inside, and leave nothing of it."""
    columns = (
        TextColumn("{task.description:<9}"), BarColumn(), DownloadColumn(),
        TransferSpeedColumn(), TextColumn("{task.fields[extra]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        if nothing_compiled_yet():
            progress.console.print(COMPILING, style="dim")
        yield ProgressBar(progress)
