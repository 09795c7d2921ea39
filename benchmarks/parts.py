"""The measured parts of the program, as pytest-benchmark times them, in CPU seconds."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, run_once
from benchmarks.wholes import Place


def name_of(entry: dict[str, Any]) -> str:
    """Return how a result is called: part, shape, bins and engine."""
    facts = entry["extra_info"]
    words = [facts["part"], facts.get("shape", ""), facts.get("n_bins", ""), facts["engine"]]
    return " ".join(str(word) for word in words if word != "")


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield CPU seconds and sizes of every part, by its name."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "parts.json"
        run_once([
            sys.executable, "-m", "pytest", str(ROOT / "benchmarks"), "-q", "--benchmark-only",
            "--benchmark-timer=time.process_time", f"--benchmark-json={report}",
            f"--benchmark-max-time={0.2 if place.quick else 2}",
            "-p", "no:cacheprovider", f"--basetemp={folder}/tmp",
        ])  # fmt: skip
        entries = json.loads(report.read_text())["benchmarks"]
    found = {}
    for entry in entries:
        seconds = entry["stats"]
        figures = {name: float(seconds[name]) for name in ("min", "median")}
        found[name_of(entry)] = figures | {"rounds": seconds["rounds"]} | entry["extra_info"]
        print(f"  {name_of(entry)}: {figures['min'] * 1e3:.2f} ms")
    yield found
