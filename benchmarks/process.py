"""One command as a whole process: wall time, CPU time and peak memory, by the kernel's own count.

The command is started by a small process of its own (this file, run as a script).
A process inherits the peak memory of the one that started it, so a large parent
would hide every peak below its own; the small one stays under 20 MB.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
"""The checkout, in which every command is run."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process took.

    wall, cpu : seconds; cpu is user + system, of the process and those it waited for
    rss : bytes, largest resident size
    stdout : what it wrote
    """

    wall: float
    cpu: float
    rss: int
    stdout: str


class CommandError(RuntimeError):
    """A measured command failed; its figures would mean nothing."""


def run_once(command: Sequence[str]) -> Usage:
    """Run `command` in the checkout and return what it took.

    Raises
    ------
    CommandError
        Where it ends with anything but 0.
    """
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), *command]
    with tempfile.TemporaryFile("w+") as errors:
        ended = subprocess.run(
            launcher, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, check=False
        )
        errors.seek(0)
        tail = errors.read()[-2000:]
    stdout, _, figures = ended.stdout.rpartition("\n\x1e")
    if ended.returncode != 0 or not figures:
        raise CommandError(f"{Path(command[0]).name} ended with {ended.returncode}: {tail}")
    taken = json.loads(figures)
    return Usage(taken["wall"], taken["cpu"], taken["rss"], stdout)


def measure(
    command: Sequence[str], runs: int, *, prepare: Callable[[], None] | None = None
) -> tuple[dict[str, Any], Usage]:
    """Run `command` several times; return its figures, and its last run.

    `prepare` is called before every run and is not measured.
    """
    usages = []
    for _ in range(runs):
        if prepare is not None:
            prepare()
        usages.append(run_once(command))
    return summarise(usages), usages[-1]


def summarise(usages: Sequence[Usage]) -> dict[str, Any]:
    """Return least and median seconds and the largest memory of some runs."""
    return {
        "runs": len(usages),
        "cpu": round(min(usage.cpu for usage in usages), 3),
        "cpu_median": round(statistics.median(usage.cpu for usage in usages), 3),
        "wall": round(min(usage.wall for usage in usages), 3),
        "wall_median": round(statistics.median(usage.wall for usage in usages), 3),
        "rss": max(usage.rss for usage in usages),
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _launch(command: Sequence[str]) -> int:
    begun = time.perf_counter()
    child = subprocess.Popen(command)
    _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - begun
    unit = 1 if sys.platform == "darwin" else 1024
    figures = {
        "wall": wall, "cpu": used.ru_utime + used.ru_stime, "rss": used.ru_maxrss * unit,
    }  # fmt: skip
    sys.stdout.write(f"\n\x1e{json.dumps(figures)}")
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    raise SystemExit(_launch(sys.argv[1:]))
