"""A log for machines: one line of JSON for every stage and every partition that has ended."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

from gpuconvert.errors import OutputError
from gpuconvert.memory import current_rss, peak_rss


class Journal:
    """Appends to a file what a `Monitor` tells; several processes may share the file.

    A line is written at once and whole. A disk that is full ends the log, not the run.
    """

    def __init__(self, path: Path) -> None:
        """Open the file; OutputError where it cannot be written."""
        try:
            self._handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                error.errno, f"--log-file {path} cannot be written: {error.strerror}"
            ) from error

    def record(self, stage: str, seconds: float, n_bytes: int, partition: int | None) -> None:
        """Write one line; times are seconds since 1970, sizes bytes."""
        line = {
            "time": round(time.time(), 3), "process": os.getpid(), "stage": stage,
            "partition": partition, "seconds": round(seconds, 4), "bytes": n_bytes,
            "rss": current_rss(), "peak_rss": peak_rss(),
        }  # fmt: skip
        with contextlib.suppress(OSError):
            os.write(self._handle, (json.dumps(line) + "\n").encode("ascii"))

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
