"""How the program scales: memory and CPU with the number of pixels, wall time with threads.

The two families hold 1, 4 and 16 times the pixels of their first member, and all runs of a
family have the same ``--memory``. All matrices of the second family are larger than it, and
those of the first smaller: buffers and parts that are not yet full grow with the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import CASES, Case, write_case
from benchmarks.process import run_once
from benchmarks.wholes import Place, measure_run, remove, run_command

MIB = 2**20


@dataclass(frozen=True, slots=True)
class Family:
    """Cases that differ in their number of pixels, and the budget they are converted with."""

    cases: tuple[Case, ...]
    memory: int


FAMILIES = {
    "centroid": Family((CASES["c64"], CASES["c128"], CASES["c256"]), 480 * MIB),
    "profile": Family(
        (
            CASES["p64"],
            Case("p128", "continuous", 128, 20_000),
            Case("p256", "continuous", 256, 20_000),
        ),
        480 * MIB,
    ),
}
THREADS = (1, 2)


def members(results: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the figures of the cases of a family, by pixels; not of former members."""
    found = results.get("scaling", {}).get(name, {})
    return {case.name: found[case.name] for case in FAMILIES[name].cases if case.name in found}


def _grow(family: Family, place: Place) -> Iterator[dict[str, Any]]:
    for case in family.cases[: 2 if place.quick else None]:
        source, target = write_case(case, place.work), place.work / "scaling.zarr"
        figures = measure_run(
            source, target, 1 if place.quick else 2, "--memory", str(family.memory)
        )
        figures |= {"pixels": case.n_pixels, "memory": family.memory,
                    "matrix": figures["n_nonzeros"] * 8}  # fmt: skip
        remove(target)
        print(f"  {case.name}: {figures['rss'] / 1e6:.0f} MB, {figures['cpu']:.2f} CPU-s")
        yield {case.name: figures}


def _threads(case: str, place: Place) -> dict[str, Any]:
    source, target = write_case(CASES[case], place.work), place.work / "scaling.zarr"
    remove(target)
    run_once(run_command(source, target))
    found = {
        str(count): measure_run(source, target, place.runs, "--workers", str(count))
        for count in THREADS
    }
    remove(target)
    for count, figures in found.items():
        print(f"  {case}, {count} threads: {figures['wall']:.2f} s, {figures['cpu']:.2f} CPU-s")
    return found


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield figures of each family by case, and of some cases by number of threads."""
    for name, family in FAMILIES.items():
        for figures in _grow(family, place):
            yield {name: figures}
    for case in ("c64",) if place.quick else ("c256", "p64", "z64"):
        yield {"threads": {case: _threads(case, place)}}
