"""A file that says what a run is doing, written anew every second while it lives.

Whoever wants to know reads it from another terminal; nothing of the run depends on it,
so a disk that is full or a folder that is gone does it no harm.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gpuconvert.memory import current_rss, peak_rss
from gpuconvert.stages import Step

SECONDS = 1.0
"""Time between two writings."""


class Heartbeat:
    """A `Listener` that writes `path` while it is used as a context manager.

    facts : plain JSON values to be written along
    """

    def __init__(self, path: Path, facts: dict[str, Any]) -> None:
        self._path = path
        self._facts = facts
        self._begun = self._stage_begun = time.time()
        self._step = Step("begin", 0, 0, 0, 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._ended.set()
        self._thread.join()
        self._write()

    def step(self, step: Step) -> None:
        """Remember one step."""
        if step.stage != self._step.stage:
            self._stage_begun = time.time()
        self._step = step

    def _beat(self) -> None:
        while not self._ended.wait(SECONDS):
            self._write()

    def _write(self) -> None:
        step, now = self._step, time.time()
        value = self._facts | {
            "process": os.getpid(), "host": socket.gethostname(), "begun": self._begun,
            "seen": now, "stage": step.stage, "stage_seconds": now - self._stage_begun,
            "done_bytes": step.done_bytes, "total_bytes": step.total_bytes,
            "done_spectra": step.done_spectra, "total_spectra": step.total_spectra,
            "rss": current_rss(), "peak_rss": peak_rss(),
        }  # fmt: skip
        draft = self._path.with_name(f"{self._path.name}.tmp")
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(value))
            draft.replace(self._path)
