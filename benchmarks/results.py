"""The file of measured figures: one JSON per day and machine, filled section by section."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT

FOLDER = ROOT / "benchmarks" / "results"
LIBRARIES = (
    "numpy", "numba", "scipy", "zarr", "numcodecs", "pyarrow", "anndata", "pyimzML",
    "pytest-benchmark",
)  # fmt: skip

Results = dict[str, Any]


def _first_match(path: Path, pattern: str, otherwise: str) -> str:
    try:
        found = re.search(pattern, path.read_text(), re.MULTILINE)
    except OSError:
        return otherwise
    return found[1].strip() if found else otherwise


def _git(*words: str) -> str:
    answer = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def describe_machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, memory, system, versions, commit."""
    memory = int(_first_match(Path("/proc/meminfo"), r"^MemTotal:\s+(\d+)", "0")) * 1024
    processor = _first_match(Path("/proc/cpuinfo"), r"^model name\s*:\s*(.+)$", platform.machine())
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory": memory,
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "gpuconvert")),
        "load": [round(value, 2) for value in os.getloadavg()],
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }


def default_path() -> Path:
    """Return the file of today and this machine."""
    machine = describe_machine()
    model = re.sub(r"[^a-z0-9]+", "-", machine["processor"].lower()).strip("-")
    return FOLDER / f"{time.strftime('%Y-%m-%d')}-{machine['cores']}x-{model}.json"


def newest() -> Path | None:
    """Return the file whose name sorts last, which is the newest, or None."""
    return max(FOLDER.glob("*.json"), default=None)


def load(path: Path) -> Results:
    """Return what is in a file; nothing where there is none."""
    found: Results = json.loads(path.read_text()) if path.is_file() else {}
    return found


def save(path: Path, section: str, values: Any) -> Results:
    """Merge one section into the file at `path` and return all of it.

    Entries of a section that were not measured this time are kept.
    """
    results = load(path)
    results[section] = _merged(results.get(section), values)
    results["machine"] = describe_machine()
    measured = results.setdefault("measured", {})
    measured[section] = {
        name: results["machine"][name] for name in ("when", "load", "commit", "uncommitted")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def _merged(old: Any, new: Any) -> Any:
    """Return `new` with the entries of `old` that it lacks, down to the figures of a program."""
    if not isinstance(old, dict) or not isinstance(new, dict) or "cpu" in new:
        return new
    return old | {name: _merged(old.get(name), value) for name, value in new.items()}
