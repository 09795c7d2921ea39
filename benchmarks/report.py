"""Measure everything, keep the figures, and make the tables of the README from them.

``python -m benchmarks.report`` does all of it. ``--only SECTION`` (several times) measures
some and merges them into the same file; ``--only-tables`` measures nothing.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks import (
    codecs,
    indexing,
    mzpeak,
    parts,
    peers,
    reading,
    roofline,
    scaling,
    stages,
    wholes,
)
from benchmarks.process import ROOT
from benchmarks.results import default_path, load, newest, save
from benchmarks.tables import rewrite
from benchmarks.wholes import CONVERTED, PROGRAMS, Place

SECTIONS = (
    "processes", "start", "index", "parts", "stages", "roofline", "reading", "codecs", "scaling",
    "mzpeak",
)  # fmt: skip
Measurement = Callable[[], Iterable[dict[str, Any]]]
"""Yields figures of a section as they come, to be merged into the results."""

QUICK_CASES = ("c64",)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.report", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--only", action="append", choices=SECTIONS, help="measure this section; repeatable")
    add("--only-tables", action="store_true", help="make the tables from the newest results")
    add("--cases", help=f"cases of whole processes, default {','.join(CONVERTED)}")
    add("--programs", help=f"programs of whole processes, default {','.join(PROGRAMS)}")
    add(
        "--peers",
        type=Path,
        default=peers.default_folder(),
        metavar="FOLDER",
        help="environments made by python -m benchmarks.peers, default in the user's cache",
    )
    add(
        "--data",
        type=Path,
        default=ROOT.parent / "shared" / "data",
        metavar="FOLDER",
        help="public files; what needs them is left out where it is missing",
    )
    add(
        "--work",
        type=Path,
        metavar="FOLDER",
        default=Path(tempfile.gettempdir()) / "gpuconvert-benchmarks",
        help="cases and stores, about 15 GB; kept, so that the next report is quicker",
    )
    add("--runs", type=int, default=3, help="measured runs of this program, default 3")
    add("--peer-runs", type=int, default=1, help="measured runs of the others, default 1")
    add("--into", type=Path, metavar="FILE", help="results to merge into, default today's")
    add("--quick", action="store_true", help="small sizes, to see that everything works")
    return parser.parse_args()  # fmt: skip


def _list(text: str | None, known: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names in a comma-separated text, all known ones by default."""
    if text is None:
        return known
    names = tuple(name.strip() for name in text.split(","))
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise SystemExit(f"unknown {', '.join(unknown)}; available: {', '.join(known)}")
    return names


def _measurements(
    options: argparse.Namespace, place: Place
) -> dict[str, Callable[[], Iterable[Any]]]:
    """Return the measurement of every section."""
    standard = QUICK_CASES if options.quick and options.cases is None else CONVERTED
    cases = _list(options.cases, CONVERTED) if options.cases else standard
    programs = _list(options.programs, tuple(PROGRAMS))
    return {
        "processes": lambda: wholes.section(place, cases, programs),
        "start": lambda: wholes.start_section(place),
        "index": lambda: indexing.section(place),
        "parts": lambda: parts.section(place),
        "stages": lambda: stages.section(place),
        "roofline": lambda: roofline.section(place),
        "reading": lambda: reading.section(place),
        "codecs": lambda: codecs.section(place),
        "scaling": lambda: scaling.section(place),
        "mzpeak": lambda: mzpeak.section(place),
    }


def main() -> None:
    """Measure what was asked for and make the tables."""
    options = _arguments()
    if options.only_tables:
        path = options.into or newest()
        if path is None:
            raise SystemExit("there are no results yet; run python -m benchmarks.report")
        rewrite(load(path))
        return
    options.work.mkdir(parents=True, exist_ok=True)
    runs = 1 if options.quick else options.runs
    place = Place(
        options.work.resolve(), options.peers.resolve(), options.data.resolve(), runs,
        options.peer_runs, options.quick,
    )  # fmt: skip
    # Small sizes are no results: they are kept apart.
    path = options.into or (options.work / "quick.json" if options.quick else default_path())
    measurements = _measurements(options, place)
    for section in options.only or SECTIONS:
        print(section, flush=True)
        for figures in measurements[section]():
            results = save(path, section, figures)
            if not options.quick:
                rewrite(results)
    print(f"results in {path}")


if __name__ == "__main__":
    main()
