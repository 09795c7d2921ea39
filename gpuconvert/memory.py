"""How much memory there is, how much is used, and what may be used by default."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

GIB = 2**30
DEFAULT_CEILING = 4 * GIB
"""The default budget never exceeds this, in bytes."""


def _read_int(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _meminfo_available(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _own_groups(root: Path, mark: str, base: Path) -> list[Path]:
    """Return the folders of the control groups of one hierarchy that this process is in.

    `mark` stands before the path of the group in ``/proc/self/cgroup``.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    folders = [base]
    for line in lines:
        _, found, group = line.partition(mark)
        if found and (mark != "0::" or line.startswith(mark)):
            place = base / group.lstrip("/")
            folders += [place, *(above for above in place.parents if base in above.parents)]
    return folders


def _cgroup_free(root: Path) -> list[int]:
    """Return what each control group above this process still leaves free, in bytes."""
    base = root / "sys/fs/cgroup"
    older = base / "memory"
    pairs: list[tuple[Path, Path]] = []
    for names, folders in (
        (("memory.max", "memory.current"), _own_groups(root, "0::", base)),
        (("memory.limit_in_bytes", "memory.usage_in_bytes"), _own_groups(root, ":memory:", older)),
    ):
        pairs += [(folder / names[0], folder / names[1]) for folder in folders]
    free = []
    for limit_file, usage_file in pairs:
        limit, usage = _read_int(limit_file), _read_int(usage_file)
        if limit is not None and usage is not None:
            free.append(max(0, limit - usage))
    return free


def available(root: Path = Path("/")) -> int:
    """Return the bytes that this process could still take, by machine and control group.

    `root` is the root of the file tree that is asked, for tests.
    """
    known = [*_cgroup_free(root)]
    machine = _meminfo_available(root)
    if machine is not None:
        known.append(machine)
    # Where the system tells nothing, promise no more than a small machine has.
    return min(known) if known else 2 * GIB


def default_budget() -> int:
    """Return the smaller of 4 GiB and a quarter of what is free, in bytes."""
    return min(DEFAULT_CEILING, available() // 4)


def peak_rss() -> int:
    """Return the largest resident size of this process so far, in bytes."""
    try:
        # What getrusage tells begins with the size of the process that started this one.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024
    except (OSError, ValueError, IndexError, StopIteration):
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def current_rss() -> int:
    """Return the resident size of this process now, in bytes; the peak where that is not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return peak_rss()
    return pages * resource.getpagesize()
