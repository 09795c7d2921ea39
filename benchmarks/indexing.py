"""The index of a large imzML: CPU time per spectrum of opening it, each way in its own process."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyimzml.ImzMLParser import ImzMLParser

from benchmarks.cases import CASES, Case, write_case
from benchmarks.process import run_once, size_of
from benchmarks.wholes import Place
from gpuconvert.readers import open_reader
from gpuconvert.settings import Settings

SMALL = Case("x100k", "index", 316, 10)
OURS, PYIMZML = "gpuconvert", "pyimzML"


def open_ours(path: Path) -> int:
    """Open `path` with this program's reader; return the number of spectra."""
    reader = open_reader(path, Settings())
    reader.close()
    return reader.acquisition.n_spectra


def open_pyimzml(path: Path) -> int:
    """Open `path` with pyimzML; return the number of spectra."""
    with ImzMLParser(str(path)) as parser:
        return len(parser.coordinates)


WAYS = {OURS: open_ours, PYIMZML: open_pyimzml}


def _time_one(way: str, path: str) -> None:
    """Write seconds of opening `path` to stdout, compiled code and modules being loaded."""
    with tempfile.TemporaryDirectory() as folder:
        WAYS[way](write_case(Case("warm", "index", 8, 10), Path(folder)))
    cpu, wall = time.process_time(), time.perf_counter()
    count = WAYS[way](Path(path))
    figures = {
        "cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "n_spectra": count,
    }  # fmt: skip
    sys.stdout.write(json.dumps(figures))


def section(place: Place, ways: tuple[str, ...] = (OURS, PYIMZML)) -> Iterator[dict[str, Any]]:
    """Yield seconds, spectra and memory of each way on the large index."""
    case = SMALL if place.quick else CASES["x1m"]
    source = write_case(case, place.work)
    for way in ways:
        runs = []
        for _ in range(place.runs if way == OURS else 1):
            usage = run_once([sys.executable, "-m", "benchmarks.indexing", way, str(source)])
            runs.append(json.loads(usage.stdout) | {"rss": usage.rss})
        best = min(runs, key=lambda run: float(run["cpu"]))
        best |= {"runs": len(runs), "bytes": size_of(source), "case": case.name}
        print(f"  {way}: {best['cpu'] / best['n_spectra'] * 1e6:.2f} CPU-us per spectrum")
        yield {case.name: {way: best}}


if __name__ == "__main__":
    _time_one(*sys.argv[1:3])
