"""What this machine can do at most: copying, reading, writing and compressing, on one thread.

A stage that moves its bytes at this speed cannot be made faster by better code.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numcodecs import Blosc

from benchmarks.cases import CASES, write_case
from benchmarks.codecs import read_matrix
from benchmarks.wholes import Place, ensure_store

SIZE = 2**28
BLOCK = 2**20
"""Bytes of a block that a codec is given: one chunk."""

RUNS = 5


def rate(n_bytes: int, call: Callable[[], object]) -> float:
    """Return bytes per CPU second of the fastest of some calls."""
    best = float("inf")
    for _ in range(RUNS):
        begun = time.process_time()
        call()
        best = min(best, time.process_time() - begun)
    return n_bytes / best


def _read_all(path: Path, into: memoryview) -> None:
    with path.open("rb", buffering=0) as file:
        while file.readinto(into):
            pass


def _write_all(path: Path, block: memoryview) -> None:
    with path.open("wb", buffering=0) as file:
        for _ in range(SIZE // len(block)):
            file.write(block)


def _memory() -> dict[str, float]:
    source = np.ones(SIZE, np.uint8)
    target = np.zeros(SIZE, np.uint8)
    values = source[: SIZE // 16].view(np.float32)
    order = np.random.default_rng(2).permutation(len(values))
    placed = np.zeros(len(values), np.float32)

    def scatter() -> None:
        placed[order] = values

    return {
        "copy": rate(SIZE, lambda: np.copyto(target, source)),
        "scatter 4-byte values": rate(values.nbytes, scatter),
    }


def _files(source: Path) -> dict[str, float]:
    into = memoryview(bytearray(16 * BLOCK))
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        written = rate(SIZE, lambda: _write_all(Path(folder) / "file", into))
    size = os.stat(source).st_size  # noqa: PTH116
    return {
        "read from the page cache": rate(size, lambda: _read_all(source, into)),
        "write to a file": written,
    }


def _codecs(arrays: dict[str, Any]) -> dict[str, float]:
    """Return raw bytes per CPU second of compressing the arrays of a matrix in chunks."""
    found = {}
    for name, level, shuffle in (("lz4", 5, Blosc.BITSHUFFLE), ("zstd", 1, Blosc.SHUFFLE)):
        codec = Blosc(name, level, shuffle)
        for label, values in arrays.items():
            raw = np.ascontiguousarray(values[: 2**24]).view(np.uint8)
            blocks = [raw[at : at + BLOCK] for at in range(0, len(raw), BLOCK)]
            key = f"compress {label}, {name}-{level}"
            found[key] = rate(len(raw), lambda b=blocks, c=codec: [c.encode(part) for part in b])
    return found


def section(place: Place) -> Iterator[dict[str, float]]:
    """Yield bytes per CPU second by operation."""
    case = "c64" if place.quick else "c256"
    source = write_case(CASES[case], place.work)
    matrix = read_matrix(ensure_store(case, place))
    found = (
        _memory()
        | _files(source.with_suffix(".ibd"))
        | _codecs({"data": matrix.data, "indices": matrix.indices})
    )
    for name, value in found.items():
        print(f"  {name}: {value / 1e9:.2f} GB/CPU-s")
    yield found
