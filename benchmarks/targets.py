"""The targets of the work on the CPU: what was measured, what was wanted, whether it is reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import CASES
from benchmarks.indexing import PYIMZML
from benchmarks.results import Results
from benchmarks.scaling import members
from benchmarks.wholes import NAIVE, OURS, THYRA

BINS = (90_000, 300_000)
MB = 1e6


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the table; `reached` is None where something was not measured."""

    name: str
    wanted: str
    measured: str
    reached: bool | None


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure and the most (or, for a ratio of speed, the least) that it may be."""

    name: str
    limit: float
    unit: str
    digits: int = 2
    at_least: bool = False

    def judge(self, figure: Callable[[], float]) -> Target:
        """Return the line of this bound; `figure` raises KeyError where it was not measured."""
        sign = ">=" if self.at_least else "<="
        wanted = f"{sign} {self.limit:g}{self.unit}"
        try:
            value = figure()
        except KeyError:
            return Target(self.name, wanted, "not measured", None)
        reached = value >= self.limit if self.at_least else value <= self.limit
        return Target(self.name, wanted, f"{value:.{self.digits}f}{self.unit}", reached)


def _times(name: str, limit: float) -> Bound:
    return Bound(name, limit, " times", 1, at_least=True)


def _against_thyra(results: Results) -> Iterator[Target]:
    def whole(case: str, program: str, field: str) -> float:
        return float(results["processes"][case][program][field])

    def faster(case: str) -> float:
        return whole(case, THYRA, "cpu") / whole(case, OURS, "cpu")

    def marginal(program: str) -> float:
        more = CASES["c256"].n_pixels - CASES["c128"].n_pixels
        return (whole("c256", program, "cpu") - whole("c128", program, "cpu")) / more

    yield _times("`c256`, whole process, CPU: Thyra / ours", 10).judge(lambda: faster("c256"))
    yield Bound("`c256`, peak RSS", 450, " MB", 0).judge(lambda: whole("c256", OURS, "rss") / MB)
    yield _times("further 500-peak spectrum (c256 - c128), CPU: Thyra / ours", 15).judge(
        lambda: marginal(THYRA) / marginal(OURS)
    )
    yield _times("`p64`, whole process, CPU: Thyra / ours", 4).judge(lambda: faster("p64"))
    yield Bound("`p64`, peak RSS", 600, " MB", 0).judge(lambda: whole("p64", OURS, "rss") / MB)


def part_seconds(results: Results, name: str) -> float:
    """Return the CPU seconds of a measured part, per spectrum."""
    entry = results["parts"][name]
    return float(entry["min"]) / entry["n_spectra"]


def _kernels(results: Results) -> Iterator[Target]:
    def speed(n_bins: int, engine: str, peer: str) -> float:
        name = f"pchip stripped {n_bins}"
        return part_seconds(results, f"{name} {peer}") / part_seconds(results, f"{name} {engine}")

    peers = (("scipy, zeros restored", "all 30,000 points"), ("scipy", "the stored points alone"))
    for engine, limits in (("cpu", (15, 12)), ("numpy", (3, 3))):
        for n_bins, limit in zip(BINS, limits, strict=True):
            for peer, points in peers:
                title = f"`z64` onto {n_bins:,} bins, one thread: SciPy on {points} / `{engine}`"
                yield _times(title, limit).judge(lambda n=n_bins, e=engine, p=peer: speed(n, e, p))


def _naive(results: Results) -> Iterator[Target]:
    def ratio(field: str) -> float:
        entry = results["processes"]["z64"]
        return float(entry[NAIVE][field]) / float(entry[OURS][field])

    yield _times("`z64`, whole process, CPU: naive / ours", 10).judge(lambda: ratio("cpu"))
    yield _times("`z64`, peak RSS: naive / ours", 3).judge(lambda: ratio("rss"))


def _index(results: Results) -> Iterator[Target]:
    def each(way: str) -> float:
        entry = results["index"]["x1m"][way]
        return float(entry["cpu"]) / entry["n_spectra"] * 1e6

    yield Bound("`x1m` index, CPU per spectrum", 1.5, " us").judge(lambda: each(OURS))
    yield _times("`x1m` index: pyimzML / ours", 30).judge(lambda: each(PYIMZML) / each(OURS))


def growth(family: dict[str, Any]) -> float:
    """Return by how many per cent memory grows from the least to the most pixels.

    Every matrix must be larger than the budget.
    """
    if any(member["matrix"] <= member["memory"] for member in family.values()):
        raise KeyError("a matrix larger than the budget")
    by_pixels = sorted(family.values(), key=lambda member: int(member["pixels"]))
    if not by_pixels or by_pixels[-1]["pixels"] < 16 * by_pixels[0]["pixels"]:
        raise KeyError("16 times the pixels")
    return (by_pixels[-1]["rss"] / by_pixels[0]["rss"] - 1) * 100


def _memory(results: Results) -> Iterator[Target]:
    title = "RSS at 16 times the pixels, same `--memory`, all matrices above it: growth"
    yield Bound(title, 5, " %", 1).judge(lambda: growth(members(results, "profile")))

    def closest() -> float:
        ours = [case[OURS] for case in results["processes"].values() if OURS in case]
        return max(float(entry["rss"]) / entry["projected"] for entry in ours)

    yield Bound("peak RSS / projected, the largest of all cases", 1, "").judge(closest)


def _rest(results: Results) -> Iterator[Target]:
    yield Bound("`gpuconvert --help`, CPU", 0.25, " s").judge(
        lambda: float(results["start"]["gpuconvert --help"]["cpu_median"])
    )

    def image(field: str) -> float:
        return float(results["reading"]["c256"]["image"][field])

    yield Bound("one ion image of `c256`, warm", 30, " ms", 1).judge(lambda: image("wall") * 1e3)
    yield Bound("one ion image of `c256`, read", 2, " MB").judge(lambda: image("bytes") / MB)

    def largest() -> float:
        both = [case for case in results["processes"].values() if OURS in case and THYRA in case]
        if not both:
            raise KeyError(THYRA)
        return max(float(case[OURS]["store"]) / case[THYRA]["store"] for case in both)

    yield Bound("store size / Thyra's, the largest of all cases", 1, "").judge(largest)


def judge_all(results: Results) -> list[Target]:
    """Return every target in the order of the task."""
    groups = (_against_thyra, _kernels, _naive, _index, _memory, _rest)
    return [target for group in groups for target in group(results)]
