"""Whole processes, side by side: this program, Thyra and the naive converter on every case."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from benchmarks.cases import CASES, write_case
from benchmarks.peers import thyra_command, thyra_python
from benchmarks.process import Usage, measure, run_once, size_of

OURS, THYRA, NAIVE = "gpuconvert", "thyra 4.6.0", "naive"
VARIANTS = {"z64-90k": ("z64", ("--axis", "linear-tof", "--bins", "90000"))}
"""Cases converted with other options than the defaults; Thyra has none that mean the same."""

CONVERTED = ("c64", "c128", "c256", "p32", "p64", "z64", *VARIANTS)
COMMAND = [sys.executable, "-m", "gpuconvert"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where things are, and how often they are run.

    work : folder of the cases and of the stores made from them
    peers : folder of the peers' environments
    data : folder of the public files; it may be missing
    runs, peer_runs : measured runs of this program, and of the others
    quick : small sizes, to see that all of it works
    """

    work: Path
    peers: Path
    data: Path
    runs: int = 3
    peer_runs: int = 1
    quick: bool = False

    def store(self, case: str, program: str = OURS) -> Path:
        """Return where `program` puts the store of a case."""
        return self.work / f"{case}.{program.split()[0]}.zarr"


def remove(path: Path) -> None:
    """Remove a folder if it is there."""
    shutil.rmtree(path, ignore_errors=True)


def run_command(source: Path, target: Path, *options: str) -> list[str]:
    """Return the command that converts `source` with this program."""
    return [*COMMAND, "run", str(source), str(target), "--json", *options]


def facts_of(usage: Usage) -> dict[str, Any]:
    """Return what this program said of its run, as far as the report uses it."""
    said = json.loads(usage.stdout)
    return {
        "n_bins": said["n_bins"], "n_nonzeros": said["n_nonzeros"], "parts": said["parts"],
        "n_spectra": said["n_spectra"], "projected": said["projected_memory"],
    }  # fmt: skip


def source_of(case: str, place: Place) -> tuple[Path, tuple[str, ...]]:
    """Return the file of a case or variant, written if it is not there, and its options."""
    name, options = VARIANTS.get(case, (case, ()))
    return write_case(CASES[name], place.work), options


def ensure_store(case: str, place: Place) -> Path:
    """Return this program's store of a case, made if it is not there."""
    target = place.store(case)
    if not target.is_dir():
        source, options = source_of(case, place)
        run_once(run_command(source, target, *options))
    return target


def measure_run(source: Path, target: Path, runs: int, *options: str) -> dict[str, Any]:
    """Return figures and facts of converting `source` with this program."""
    command = run_command(source, target, *options)
    figures, last = measure(command, runs, prepare=lambda: remove(target))
    return figures | {"store": size_of(target)} | facts_of(last)


def save_edges(store: Path) -> Path:
    """Save the edges of the bins of a store for the naive converter; return where."""
    table = zarr.open_group(store / "tables" / "msi_z0", mode="r")
    low: Any = table["var/mz_low"]
    high: Any = table["var/mz_high"]
    path = store.with_suffix(".edges.npy")
    np.save(path, np.append(low[...], high[-1:]))
    return path


def _ours(case: str, place: Place) -> dict[str, Any]:
    source, options = source_of(case, place)
    target = place.store(case)
    # Kernels compiled after a change of the program are cached by a run that is not counted.
    remove(target)
    run_once(run_command(source, target, *options))
    return measure_run(source, target, place.runs, *options)


def _thyra(case: str, place: Place) -> dict[str, Any] | None:
    python = thyra_python(place.peers)
    if case in VARIANTS:
        return None
    if python is None:
        print(f"  {THYRA} is left out: no environment; see python -m benchmarks.peers --help")
        return None
    (source, _), target = source_of(case, place), place.store(case, THYRA)
    command = thyra_command(python, source, target)
    figures, _ = measure(command, place.peer_runs, prepare=lambda: remove(target))
    return figures | {"store": size_of(target)}


def _naive(case: str, place: Place) -> dict[str, Any]:
    (source, _), target = source_of(case, place), place.store(case, NAIVE)
    ours = ensure_store(case, place)
    # A continuous file keeps its own axis, as this program's default does.
    edges = [] if case in {"p32", "p64"} else [str(save_edges(ours))]
    command = [sys.executable, "-m", "benchmarks.naive", str(source), str(target), *edges]
    figures, _ = measure(command, place.peer_runs, prepare=lambda: remove(target))
    return figures | {"store": size_of(target)} | compare(ours, target)


def compare(ours: Path, naive: Path) -> dict[str, Any]:
    """Return how far apart the TIC of the two matrices is, in the worst pixel, as a fraction."""
    sums = []
    for group in (ours / "tables" / "msi_z0" / "X", naive / "X"):
        matrix = zarr.open_group(group, mode="r")
        indices: Any = matrix["indices"]
        data: Any = matrix["data"]
        sums.append(np.bincount(indices[...], weights=data[...]))
    return {"tic_apart": float(np.max(np.abs(sums[0] / sums[1] - 1)))}


PROGRAMS: dict[str, Callable[[str, Place], dict[str, Any] | None]] = {
    OURS: _ours, THYRA: _thyra, NAIVE: _naive,
}  # fmt: skip


def section(
    place: Place, cases: Iterable[str], programs: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Yield figures by case and program; every case is done by all before the next."""
    for case in cases:
        for program in programs:
            figures = PROGRAMS[program](case, place)
            if figures is None:
                continue
            print(f"  {case} {program}: {figures['cpu']:.2f} CPU-s, {figures['rss'] / 1e6:.0f} MB")
            yield {case: {program: figures}}
            if program != OURS:
                remove(place.store(case, program))


def start_section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield what it takes to start: the interpreter alone, and the help."""
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "gpuconvert --help": [*COMMAND, "--help"],
        "gpuconvert run --help": [*COMMAND, "run", "--help"],
    }
    yield {name: measure(command, 2 + place.runs)[0] for name, command in commands.items()}
