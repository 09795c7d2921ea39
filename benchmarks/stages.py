"""Where the CPU time of one whole run goes, stage by stage, with one worker.

The figures are CPU time, measured as `benchmarks.stage_clock` says; beside them stand
the wall times of the program's own stage clock. What belongs to no stage is ``rest``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, write_case
from benchmarks.process import run_once
from benchmarks.stage_clock import REST
from benchmarks.wholes import Place, remove


def measure_stages(source: Path, target: Path) -> dict[str, Any]:
    """Convert `source` with one worker; return CPU seconds by stage.

    Returns
    -------
    dict
        ``cpu`` of the whole process; ``stages``, with what comes before and after the
        program as ``start`` and ``exit``; ``explained``, all but ``rest`` as a fraction of
        ``cpu``; ``own_clock``, the wall seconds that the program itself reports.
    """
    remove(target)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "stages.json"
        usage = run_once([
            sys.executable, "-m", "benchmarks.stage_clock", str(report), "run", str(source),
            str(target), "--workers", "1", "--json",
        ])  # fmt: skip
        seconds: dict[str, float] = json.loads(report.read_text())
    said: dict[str, Any] = json.loads(usage.stdout)
    seconds["exit"] = usage.cpu - sum(seconds.values())
    return {
        "cpu": round(usage.cpu, 3),
        "stages": {name: round(value, 4) for name, value in seconds.items()},
        "explained": round(1 - seconds[REST] / usage.cpu, 4),
        "own_clock": said["stages"],
        "n_nonzeros": said["n_nonzeros"],
        "n_spectra": said["n_spectra"],
        "source_bytes": source.with_suffix(".ibd").stat().st_size,
        "index_bytes": source.stat().st_size,
        "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "load": [round(value, 2) for value in os.getloadavg()],
    }


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield the stages of the least disturbed of some runs, by case."""
    for case in ("c64",) if place.quick else ("c256", "p64", "z64"):
        source, target = write_case(CASES[case], place.work), place.work / "stages.zarr"
        # The first run may compile kernels; it is not counted.
        runs = [measure_stages(source, target) for _ in range(1 + place.runs)][1:]
        best = min(runs, key=lambda run: float(run["cpu"]))
        remove(target)
        print(f"  {case}: {best['cpu']:.2f} CPU-s, {best['explained']:.1%} explained")
        yield {case: best}
