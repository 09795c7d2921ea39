"""The tables of ``benchmarks/README.md``, made from a file of results and nothing else.

Each stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, and is replaced whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT
from benchmarks.results import Results
from benchmarks.scaling import FAMILIES, members
from benchmarks.targets import judge_all
from benchmarks.wholes import CONVERTED, OURS, PROGRAMS

README = ROOT / "benchmarks" / "README.md"
NOT_MEASURED = "Not measured yet."

Row = Sequence[object]


def markdown(head: Row, rows: Sequence[Row]) -> str:
    """Return a table, numbers to the right."""
    if not rows:
        return NOT_MEASURED
    ruler = ["---", *("---:" for _ in head[1:])]
    lines = [head, ruler, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def megabytes(n_bytes: float, digits: int = 0) -> str:
    """Return bytes in MB of 10^6."""
    return f"{n_bytes / 1e6:,.{digits}f}"


def machine(results: Results) -> str:
    """Return what was measured on, in a paragraph."""
    facts = results.get("machine")
    if facts is None:
        return NOT_MEASURED
    libraries = ", ".join(f"{name} {version}" for name, version in facts["libraries"].items())
    changed = ", with uncommitted changes" if facts["uncommitted"] else ""
    return (
        f"{facts['cores']} cores of {facts['processor']}, {facts['memory'] / 2**30:.0f} GiB, "
        f"{facts['system']}; Python {facts['python']}, {libraries}. Commit "
        f"{facts['commit'][:10]}{changed}; last measured {facts['when']} at a load of "
        f"{facts['load'][0]}."
    )


def targets(results: Results) -> str:
    """Return every target, what was measured, and whether it is reached."""
    words = {True: "yes", False: "**no**", None: "?"}
    rows = [
        (line.name, line.measured, line.wanted, words[line.reached]) for line in judge_all(results)
    ]
    return markdown(("target", "measured", "wanted", "reached"), rows)


def processes(results: Results) -> str:
    """Return whole processes by case and program."""
    rows = []
    measured = results.get("processes", {})
    for case in (name for name in CONVERTED if name in measured):
        programs = measured[case]
        for program in (name for name in PROGRAMS if name in programs):
            figures, ours = programs[program], programs.get(OURS)
            ratio = f"{figures['cpu'] / ours['cpu']:.1f}" if ours else ""
            projected = megabytes(figures["projected"]) if "projected" in figures else ""
            rows.append((
                f"`{case}`", program, f"{figures['cpu']:.2f}", f"{figures['cpu_median']:.2f}",
                figures["runs"], f"{figures['wall']:.2f}", ratio, megabytes(figures["rss"]),
                projected, megabytes(figures["store"], 1),
            ))  # fmt: skip
    head = ("case", "program", "CPU-s, least", "CPU-s, median", "runs", "wall s, least",
            "CPU / ours", "peak RSS, MB", "projected, MB", "store, MB")  # fmt: skip
    return markdown(head, rows)


def start(results: Results) -> str:
    """Return what starting takes."""
    rows = [
        (f"`{name}`", f"{figures['cpu_median']:.3f}", megabytes(figures["rss"]))
        for name, figures in results.get("start", {}).items()
    ]
    return markdown(("command", "CPU-s, median", "peak RSS, MB"), rows)


def index(results: Results) -> str:
    """Return what opening the large index takes."""
    rows = [
        (
            f"`{case}`", way, figures["runs"], f"{figures['cpu']:.2f}",
            f"{figures['cpu'] / figures['n_spectra'] * 1e6:.2f}", f"{figures['wall']:.2f}",
            f"{figures['bytes'] / figures['cpu'] / 1e6:,.0f}", megabytes(figures["rss"]),
        )
        for case, ways in results.get("index", {}).items()
        for way, figures in ways.items()
    ]  # fmt: skip
    head = ("case", "reader", "runs", "CPU-s", "CPU-us per spectrum", "wall s", "MB/CPU-s",
            "peak RSS, MB")  # fmt: skip
    return markdown(head, rows)


def parts(results: Results) -> str:
    """Return the measured parts, in CPU time, per unit of their work."""
    rows = []
    for name, figures in sorted(results.get("parts", {}).items()):
        values = figures.get("n_values")
        each = (
            f"{figures['min'] / values * 1e9:,.2f} ns per value"
            if values
            else f"{figures['min'] / figures['n_spectra'] * 1e6:,.1f} us per spectrum"
        )
        points = figures.get("n_points")
        rows.append((
            name, f"{figures['min'] * 1e3:.2f}", f"{figures['median'] * 1e3:.2f}",
            each,
            f"{points / figures['min'] / 1e6:,.1f}" if points else "",
        ))  # fmt: skip
    head = ("part", "CPU ms, least", "CPU ms, median", "least, per unit", "million points/CPU-s")
    return markdown(head, rows)


def stages(results: Results) -> str:
    """Return CPU seconds by stage and case."""
    cases: dict[str, Any] = results.get("stages", {})
    names = dict.fromkeys(name for entry in cases.values() for name in entry["stages"])
    rows: list[Row] = [
        (name, *(_share(entry["stages"].get(name), entry["cpu"]) for entry in cases.values()))
        for name in names
    ]
    if rows:
        rows.append(("**whole process**", *(f"{entry['cpu']:.2f}" for entry in cases.values())))
        rows.append(("**explained**", *(f"{entry['explained']:.1%}" for entry in cases.values())))
    return markdown(("stage", *(f"`{case}`" for case in cases)), rows)


def _share(seconds: float | None, total: float) -> str:
    return "" if seconds is None else f"{seconds:.3f} ({seconds / total:.0%})"


MOVED: dict[str, tuple[str, Callable[[dict[str, Any]], float]]] = {
    "index": ("read from the page cache", lambda run: run["index_bytes"]),
    "read": ("read from the page cache", lambda run: run["source_bytes"]),
    "resample": ("copy", lambda run: run["source_bytes"] + 8 * run["n_nonzeros"]),
    "by_bin": ("copy", lambda run: 16 * run["n_nonzeros"]),
    "write part": ("write to a file", lambda run: 8 * run["n_nonzeros"]),
    "assemble": ("copy", lambda run: 16 * run["n_nonzeros"]),
    "write X": ("write to a file", lambda run: 8 * run["n_nonzeros"]),
}
"""What bounds a stage, and the bytes it has to move at least."""


def roofline(results: Results) -> str:
    """Return, for the stages that move the data, the time that moving it takes at least."""
    rates: dict[str, float] = results.get("roofline", {})
    rows = []
    for case, run in results.get("stages", {}).items():
        for stage, (bound, moved) in MOVED.items():
            if stage not in run["stages"] or bound not in rates:
                continue
            least = moved(run) / rates[bound]
            rows.append((
                f"`{case}`", stage, bound, megabytes(moved(run)), f"{least:.3f}",
                f"{run['stages'][stage]:.3f}", f"{least / run['stages'][stage]:.0%}",
            ))  # fmt: skip
    head = ("case", "stage", "bounded by", "moved, MB", "least CPU-s", "measured CPU-s", "reached")
    return markdown(head, rows)


def rates(results: Results) -> str:
    """Return what the machine reached with one thread."""
    rows = [(name, f"{value / 1e9:.2f}") for name, value in results.get("roofline", {}).items()]
    return markdown(("operation", "GB per CPU-s"), rows)


def reading(results: Results) -> str:
    """Return what reading the default stores takes."""
    rows = [
        (
            f"`{case}`", megabytes(figures["store"], 1),
            *_reading_cells(figures, ("open", "image")),
            megabytes(figures["image"]["most_bytes"], 2), *_reading_cells(figures, ("spectrum",)),
        )
        for case, figures in results.get("reading", {}).items()
    ]  # fmt: skip
    head = ("case", "store, MB", "open, ms", "open, MB", "ion image, ms", "ion image, MB",
            "at most, MB", "spectrum, ms", "spectrum, MB")  # fmt: skip
    return markdown(head, rows)


def _reading_cells(figures: dict[str, Any], actions: tuple[str, ...]) -> list[str]:
    return [
        cell
        for action in actions
        for cell in (
            f"{figures[action]['wall'] * 1e3:.1f}", megabytes(figures[action]["bytes"], 2)
        )
    ]  # fmt: skip


def codecs(results: Results) -> str:
    """Return every choice of codec and chunk by matrix."""
    rows = [
        (
            matrix, name, f"{entry['raw'] / entry['stored']:.2f}", f"{entry['data_ratio']:.2f}",
            f"{entry['indices_ratio']:.2f}", f"{entry['raw'] / 1e6 / entry['cpu']:.0f}",
            *_reading_cells(entry["reading"], ("image", "spectrum")),
        )
        for matrix, choices in results.get("codecs", {}).items()
        for name, entry in choices.items()
    ]  # fmt: skip
    head = ("matrix", "codec and chunk", "ratio", "of data", "of indices", "write, MB/CPU-s",
            "ion image, ms", "ion image, MB", "spectrum, ms", "spectrum, MB")  # fmt: skip
    return markdown(head, rows)


def scaling(results: Results) -> str:
    """Return memory and CPU per spectrum by number of pixels."""
    rows = [
        (
            f"`{case}`", f"{entry['pixels']:,}", megabytes(entry["memory"]),
            megabytes(entry["matrix"]), megabytes(entry["rss"]), megabytes(entry["projected"]),
            f"{entry['cpu']:.2f}", f"{entry['cpu'] / entry['pixels'] * 1e6:,.0f}",
        )
        for family in FAMILIES
        for case, entry in members(results, family).items()
    ]  # fmt: skip
    head = ("case", "pixels", "`--memory`, MB", "matrix, MB", "peak RSS, MB", "projected, MB",
            "CPU-s", "CPU-us per spectrum")  # fmt: skip
    return markdown(head, rows)


def threads(results: Results) -> str:
    """Return wall and CPU time by number of threads."""
    rows = [
        (f"`{case}`", count, f"{entry['wall']:.2f}", f"{entry['cpu']:.2f}", megabytes(entry["rss"]))
        for case, counts in results.get("scaling", {}).get("threads", {}).items()
        for count, entry in counts.items()
    ]
    return markdown(("case", "`--workers`", "wall s", "CPU-s", "peak RSS, MB"), rows)


def mzpeak(results: Results) -> str:
    """Return size, writing and reading of every form of a source."""
    rows = []
    for case, forms in results.get("mzpeak", {}).items():
        for form, entry in forms.items():
            million = entry["read"]["points"] / 1e6
            written = entry.get("write")
            rows.append((
                f"`{case}`", form, megabytes(entry["bytes"], 1),
                f"{entry['bytes'] / entry['source']:.3f}",
                f"{entry['bytes'] / entry['read']['points']:.2f}",
                "" if written is None else f"{written['cpu'] / million * 1e3:.0f}",
                f"{entry['read']['cpu'] / million * 1e3:.0f}",
                "" if written is None else megabytes(written["rss"]),
            ))  # fmt: skip
    head = ("case", "form", "MB", "of the source", "bytes a point", "write, CPU-ms per 10^6 points",
            "read, CPU-ms per 10^6 points", "peak RSS of writing, MB")  # fmt: skip
    return markdown(head, rows)


TABLES: dict[str, Callable[[Results], str]] = {
    table.__name__: table
    for table in (
        machine, targets, processes, start, index, parts, stages, rates, roofline, reading,
        codecs, scaling, threads, mzpeak,
    )
}  # fmt: skip


def fill(text: str, results: Results) -> str:
    """Return `text` with every table between its markers made anew.

    Raises
    ------
    KeyError
        Where a marker names no table.
    """
    pattern = re.compile(r"<!-- table: (\w+) -->.*?<!-- end -->", re.DOTALL)

    def made(match: re.Match[str]) -> str:
        return f"<!-- table: {match[1]} -->\n{TABLES[match[1]](results)}\n<!-- end -->"

    return pattern.sub(made, text)


def rewrite(results: Results, readme: Path = README) -> None:
    """Make the tables of the README anew."""
    readme.write_text(fill(readme.read_text(), results))
