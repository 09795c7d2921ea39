"""What it takes to read one ion image, or one spectrum, from a finished store.

As a user does it: zarr for the m/z axis and anndata for the matrix on disk. Bytes are
those that the process read from files, by the kernel's count, whether from disk or from
the page cache.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata.io
import numpy as np
import zarr

from benchmarks.process import size_of
from benchmarks.wholes import Place, ensure_store

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


def ion_image(store: OpenStore, mz: float) -> Any:  # noqa: ANN401 - a NumPy array
    """Return the counts of every pixel within `PPM` of `mz`; (n_pixels,)."""
    first, last = np.searchsorted(store.mz, [mz * (1 - PPM * 1e-6), mz * (1 + PPM * 1e-6)])
    return np.asarray(store.matrix[:, first : max(last, first + 1)].sum(axis=1)).ravel()


def spectrum(store: OpenStore, row: int) -> Any:  # noqa: ANN401 - a sparse row
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


def _typical(calls: list[Callable[[], object]]) -> dict[str, float]:
    """Return the medians over `calls`, each made twice and measured the second time."""
    for call in calls:
        call()
    taken = [timed(call) for call in calls]
    return {name: statistics.median(one[name] for one in taken) for name in taken[0]}


def measure_reading(matrix: Path, mz: Path) -> dict[str, Any]:
    """Return what opening a matrix, an ion image and a spectrum take, files in page cache."""
    open_store(matrix, mz)
    opened = timed(lambda: open_store(matrix, mz))
    store = open_store(matrix, mz)
    rng = np.random.default_rng(11)
    ions = rng.choice(store.mz, REPEATS)
    rows = rng.integers(0, store.matrix.shape[0], 3)
    return {
        "open": opened,
        "image": _typical([lambda mz=mz: ion_image(store, mz) for mz in ions]),
        "spectrum": _typical([lambda row=row: spectrum(store, int(row)) for row in rows]),
        "format": store.matrix.format,
    }


def section(place: Place, cases: tuple[str, ...] = ("c256", "p64", "z64")) -> dict[str, Any]:
    """Return what reading the default store of each case takes."""
    found: dict[str, Any] = {}
    for case in ("c64",) if place.quick else cases:
        store = ensure_store(case, place)
        table = store / "tables" / "msi_z0"
        found[case] = measure_reading(table / "X", table / "var" / "mz")
        found[case]["store"] = size_of(store)
        image = found[case]["image"]
        print(f"  {case}: image {image['wall'] * 1e3:.1f} ms, {image['bytes'] / 1e6:.2f} MB")
    return found
