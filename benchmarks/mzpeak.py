"""mzPeak beside imzML and gzip'd imzML: size, and CPU time of writing and of reading all of it.

Every figure is that of a process of its own, once its compiled code is loaded. Writing an
imzML is not measured: it is the source. Reading is decoding every spectrum by this
program's reader; a gzip'd imzML is unpacked first, as it must be.
"""

from __future__ import annotations

import gzip
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import CASES, Case, write_case
from benchmarks.process import run_once, size_of
from benchmarks.wholes import Place
from gpuconvert.exporting import run
from gpuconvert.readers import cut_batches, open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode

IMZML, ZIPPED = "imzML", "imzML, gzip -6"
FORMS: dict[str, dict[str, Any]] = {
    "mzPeak": {},
    "mzPeak, chunk": {"mzpeak_layout": "chunk"},
    "mzPeak, lossless": {"lossless": True},
    "mzPeak, lossless, chunk": {"lossless": True, "mzpeak_layout": "chunk"},
}
"""Settings of every form of mzPeak that is measured."""

SLOT_BYTES = 8 << 20
MEASURED = ("c64", "p32", "w32", "z64")
SMALL = Case("w8", "whole", 8, 5_000)


def read_all(path: Path) -> int:
    """Decode every spectrum of `path`; return the number of points."""
    reader = open_reader(path, Settings())
    ranges = list(cut_batches(reader, 0, reader.acquisition.n_spectra, SLOT_BYTES))
    buffer = np.empty(max(reader.batch_bytes(*rows) for rows in ranges), np.uint8)
    points = sum(len(decode(reader.read(*rows, buffer)).mz) for rows in ranges)
    reader.close()
    return points


def zip_both(source: Path, folder: Path) -> None:
    """Compress both files of an imzML into `folder`."""
    for file in (source, source.with_suffix(".ibd")):
        with file.open("rb") as plain, gzip.open(folder / f"{file.name}.gz", "wb", 6) as packed:
            shutil.copyfileobj(plain, packed, 1 << 20)


def read_zipped(folder: Path) -> int:
    """Unpack an imzML that `zip_both` made, and decode it."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        for file in sorted(folder.glob("*.gz")):
            with gzip.open(file) as packed, (Path(fresh) / file.stem).open("wb") as plain:
                shutil.copyfileobj(packed, plain, 1 << 20)
        return read_all(next(Path(fresh).glob("*.imzML")))


def write(form: str, source: Path, target: Path) -> int:
    """Write `source` in a form; return the number of points stored, 0 where none are counted."""
    if form == ZIPPED:
        target.mkdir(exist_ok=True)
        zip_both(source, target)
        return 0
    return run(source, target, Settings(**FORMS[form]), overwrite=True).points_stored


def read(form: str, target: Path) -> int:
    """Read what `write` wrote, or the source; return the number of points."""
    return read_zipped(target) if form == ZIPPED else read_all(target)


def _time_one(verb: str, form: str, source: str, target: str) -> None:
    """Write CPU seconds of one verb to stdout, compiled code and modules being loaded."""
    with tempfile.TemporaryDirectory() as folder:
        warm = write_case(SMALL, Path(folder))
        made = Path(folder) / "warm.mzpeak"
        if form != IMZML:
            write(form, warm, made)
        read(form, warm if form == IMZML else made)
    begun, wall = time.process_time(), time.perf_counter()
    points = (
        write(form, Path(source), Path(target)) if verb == "write" else read(form, Path(target))
    )
    figures = {"cpu": time.process_time() - begun, "wall": time.perf_counter() - wall,
               "points": points}  # fmt: skip
    sys.stdout.write(json.dumps(figures))


def _measure(verb: str, form: str, source: Path, target: Path, runs: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.mzpeak", verb, form, str(source), str(target)]
    found = []
    for _ in range(runs):
        usage = run_once(command)
        found.append(json.loads(usage.stdout) | {"rss": usage.rss})
    return min(found, key=lambda figures: float(figures["cpu"]))


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield size, writing and reading of every form by case."""
    cases = [SMALL] if place.quick else [CASES[name] for name in MEASURED]
    for case in cases:
        source = write_case(case, place.work)
        raw = size_of(source) + size_of(source.with_suffix(".ibd"))
        for form in (IMZML, ZIPPED, *FORMS):
            target = source
            figures: dict[str, Any] = {"source": raw}
            if form != IMZML:
                target = place.work / f"{case.name}.{'gz' if form == ZIPPED else 'mzpeak'}"
                figures["write"] = _measure("write", form, source, target, place.runs)
            figures["read"] = _measure("read", form, source, target, place.runs)
            figures["bytes"] = raw if form == IMZML else size_of(target)
            print(f"  {case.name} {form}: {figures['bytes'] / raw:.3f} of the source")
            yield {case.name: {form: figures}}


if __name__ == "__main__":
    _time_one(*sys.argv[1:5])
