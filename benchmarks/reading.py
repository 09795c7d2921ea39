"""What it takes to read one ion image, or one spectrum, from a finished store.

As a user does it: zarr for the m/z axis and anndata for the matrix on disk. Bytes are
those that the process read from files, by the kernel's count, whether from disk or from
the page cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata.io
import numpy as np
import zarr

from benchmarks.cases import CASES, write_case
from benchmarks.process import run_once, size_of
from benchmarks.wholes import Place, remove, run_command

PPM = 5.0
REPEATS = 9


@dataclass(frozen=True)
class OpenStore:
    """An opened table: the m/z axis in memory, the matrix on disk.

    mz : (n_bins,) float64, Th
    matrix : of anndata, (n_pixels, n_bins)
    """

    mz: Any
    matrix: Any


def open_store(matrix: Path, mz: Path) -> OpenStore:
    """Return the matrix and the axis of a store, the offsets of the matrix loaded."""
    axis: Any = zarr.open_array(mz, mode="r")
    sparse = anndata.io.sparse_dataset(zarr.open_group(matrix, mode="r"))
    # The first selection loads the offsets, which later ones use again.
    sparse[:1, :1] if sparse.format == "csr" else sparse[:, :1]
    return OpenStore(axis[...], sparse)


def ion_image(store: OpenStore, mz: float) -> Any:
    """Return the counts of every pixel within `PPM` of `mz`; (n_pixels,)."""
    first, last = np.searchsorted(store.mz, [mz * (1 - PPM * 1e-6), mz * (1 + PPM * 1e-6)])
    return np.asarray(store.matrix[:, first : max(last, first + 1)].sum(axis=1)).ravel()


def spectrum(store: OpenStore, row: int) -> Any:
    """Return the spectrum of one pixel."""
    return store.matrix[row : row + 1]


def bytes_read() -> int:
    """Return the bytes that this process has read from files so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


def timed(call: Callable[[], object]) -> dict[str, float]:
    """Return wall seconds, CPU seconds and bytes read of one call."""
    read, cpu, wall = bytes_read(), time.process_time(), time.perf_counter()
    call()
    return {
        "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu,
        "bytes": bytes_read() - read,
    }  # fmt: skip


def stored_ions(store: OpenStore, matrix: Path, rng: np.random.Generator) -> list[float]:
    """Return the m/z of randomly chosen stored values: ions that have an image, in Th."""
    group: Any = zarr.open_group(matrix, mode="r")
    places = rng.integers(0, group["data"].shape[0], REPEATS)
    if store.matrix.format == "csc":
        bins = np.searchsorted(group["indptr"][...], places, "right") - 1
    else:
        bins = [group["indices"][int(place)] for place in places]
    return [float(store.mz[number]) for number in bins]


def _typical(calls: list[Callable[[], object]]) -> dict[str, float]:
    """Return the medians over `calls`, each made twice and measured the second time.

    ``most_bytes`` are those of the call that read most.
    """
    for call in calls:
        call()
    taken = [timed(call) for call in calls]
    medians = {name: statistics.median(one[name] for one in taken) for name in taken[0]}
    return medians | {"most_bytes": max(one["bytes"] for one in taken)}


def measure_reading(matrix: Path, mz: Path) -> dict[str, Any]:
    """Return what opening a matrix, an ion image and a spectrum take, files in page cache."""
    open_store(matrix, mz)
    opened = timed(lambda: open_store(matrix, mz))
    store = open_store(matrix, mz)
    rng = np.random.default_rng(11)
    ions = stored_ions(store, matrix, rng)
    rows = rng.integers(0, store.matrix.shape[0], 3)
    return {
        "open": opened,
        "image": _typical([lambda mz=mz: ion_image(store, mz) for mz in ions]),
        "spectrum": _typical([lambda row=row: spectrum(store, int(row)) for row in rows]),
        "format": store.matrix.format,
    }


def section(place: Place) -> Iterator[dict[str, Any]]:
    """Yield what reading takes, of the default store of each case and of one by rows."""
    for case in ("c64",) if place.quick else ("c256", "p64", "z64"):
        yield {case: _measure_store(case, place)}
    case = "c64" if place.quick else "c256"
    yield {f"{case}, csr": _measure_store(case, place, "--layout", "csr")}


def _measure_store(case: str, place: Place, *options: str) -> dict[str, Any]:
    """Return what reading a new store of a case takes."""
    store = place.work / "reading.zarr"
    remove(store)
    run_once(run_command(write_case(CASES[case], place.work), store, *options))
    table = store / "tables" / "msi_z0"
    figures = measure_reading(table / "X", table / "var" / "mz") | {"store": size_of(store)}
    remove(store)
    image, row = figures["image"], figures["spectrum"]
    print(
        f"  {case} {figures['format']}: image {image['wall'] * 1e3:.1f} ms, "
        f"{image['bytes'] / 1e6:.2f} MB; spectrum {row['wall'] * 1e3:.1f} ms"
    )
    return figures
