"""Codecs and chunk sizes on real matrices: size, speed of writing, cost of reading.

The matrix of a finished store is written anew with each choice, as the program writes it
(data and indices each in shards of whole chunks), and read back as a user would.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec

from benchmarks.process import run_once, size_of
from benchmarks.reading import measure_reading
from benchmarks.wholes import Place, ensure_store, remove, run_command

BLADDER = Path("imzml") / "bladder_PXD001283" / "continuous_f8_f4.imzML"
SHARD = 2**22
"""Elements of a shard: 16 MiB before compression."""

MOST = 40 * 2**20
"""Elements of a matrix that are used; more of the same would tell nothing new."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to store a matrix; `chunk` in elements."""

    codec: str
    level: int
    shuffle: str
    chunk: int

    @property
    def name(self) -> str:
        """How the choice is called in tables."""
        if self.codec == "none":
            return f"none, {self.chunk // 1024} Ki"
        return f"{self.codec}-{self.level} {self.shuffle}, {self.chunk // 1024} Ki"

    def compressor(self) -> BloscCodec | None:
        """Return the codec for zarr."""
        if self.codec == "none":
            return None
        words: Any = {"cname": self.codec, "shuffle": self.shuffle}
        return BloscCodec(clevel=self.level, typesize=4, **words)


CODECS = (
    ("none", 0, ""), ("lz4", 1, "bitshuffle"), ("lz4", 5, "bitshuffle"), ("lz4", 9, "bitshuffle"),
    ("lz4", 5, "shuffle"), ("zstd", 1, "shuffle"), ("zstd", 1, "bitshuffle"),
    ("zstd", 3, "shuffle"), ("zstd", 3, "bitshuffle"), ("zstd", 5, "bitshuffle"),
)  # fmt: skip
CHUNKS = (2**16, 2**18, 2**20)
CHOICES = tuple(
    Choice(codec, level, shuffle, chunk) for codec, level, shuffle in CODECS for chunk in CHUNKS
)


@dataclass(frozen=True, slots=True)
class Matrix:
    """A matrix as stored: its arrays in memory, its attributes, and its m/z axis on disk."""

    data: Any
    indices: Any
    indptr: Any
    attributes: dict[str, Any]
    mz: Path


def read_matrix(store: Path) -> Matrix:
    """Return the matrix of the first table of a store, cut to whole columns after `MOST`."""
    table = store / "tables" / "msi_z0"
    group: Any = zarr.open_group(table / "X", mode="r")
    indptr = group["indptr"][...]
    indptr = np.minimum(indptr, indptr[np.searchsorted(indptr, MOST, "right") - 1])
    end = int(indptr[-1])
    return Matrix(
        group["data"][:end], group["indices"][:end], indptr, dict(group.attrs), table / "var" / "mz"
    )


def write_matrix(matrix: Matrix, folder: Path, choice: Choice) -> None:
    """Write a matrix as the program does, unit by unit of a shard."""
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs.update(matrix.attributes)
    for name in ("data", "indices"):
        values = getattr(matrix, name)
        chunk = min(choice.chunk, len(values))
        shard = max(1, min(SHARD, len(values)) // chunk) * chunk
        array = group.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=(chunk,), shards=(shard,),
            compressors=choice.compressor(), fill_value=0,
        )  # fmt: skip
        for begin in range(0, len(values), shard):
            array[begin : begin + shard] = values[begin : begin + shard]
    offsets = group.create_array(
        "indptr", shape=matrix.indptr.shape, dtype="i8",
        chunks=(min(len(matrix.indptr), 2**17),), compressors=choice.compressor(), fill_value=0,
    )  # fmt: skip
    offsets[...] = matrix.indptr


def measure_choice(matrix: Matrix, folder: Path, choice: Choice) -> dict[str, Any]:
    """Return size, CPU seconds of writing, and what reading takes, of one choice."""
    times = []
    for _ in range(2):
        remove(folder)
        begun = time.process_time()
        write_matrix(matrix, folder, choice)
        times.append(time.process_time() - begun)
    raw = matrix.data.nbytes + matrix.indices.nbytes
    stored = size_of(folder / "data") + size_of(folder / "indices")
    return {
        "codec": choice.codec, "level": choice.level, "shuffle": choice.shuffle,
        "chunk": choice.chunk, "cpu": min(times), "raw": raw, "stored": stored,
        "data_ratio": matrix.data.nbytes / size_of(folder / "data"),
        "indices_ratio": matrix.indices.nbytes / size_of(folder / "indices"),
        "reading": measure_reading(folder, matrix.mz),
    }  # fmt: skip


def _stores(place: Place) -> dict[str, Path]:
    """Return the stores whose matrices are used."""
    found: dict[str, Path] = {}
    bladder = place.data / BLADDER
    if bladder.is_file():
        found["bladder"] = place.store("bladder")
        if not found["bladder"].is_dir():
            run_once(run_command(bladder, found["bladder"]))
    else:
        print("  the bladder file is left out: no public data there; name its folder with --data")
    return found | {name: ensure_store(name, place) for name in _cases(place)}


def _cases(place: Place) -> tuple[str, ...]:
    return ("c64",) if place.quick else ("z64", "c256")


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield figures of every choice by matrix."""
    choices = CHOICES[::7] if place.quick else CHOICES
    for name, store in _stores(place).items():
        matrix = read_matrix(store)
        folder = place.work / "codec.zarr"
        for choice in choices:
            figures = measure_choice(matrix, folder, choice)
            print(
                f"  {name} {choice.name}: {figures['raw'] / figures['stored']:.2f}, "
                f"{figures['raw'] / 1e6 / figures['cpu']:.0f} MB/CPU-s"
            )
            yield {name: {choice.name: figures}}
        remove(folder)
