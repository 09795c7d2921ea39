"""Small data sets for whole runs, and what a test reads from a store with zarr alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import zarr

from tests.imzml_writer import write_imzml


def pixels(nx=5, ny=3, missing=((0, 0), (3, 1))):
    """Places (1-based) of a sparse grid that is not square, so that a transpose shows."""
    return [(x + 1, y + 1) for y in range(ny) for x in range(nx) if (x, y) not in missing]


def profile_spectra(places, seed=0, n=4000, low=100.0, high=400.0, peaks=12):
    """Zero-stripped profiles uniform in sqrt(m/z), peaks of a few samples."""
    rng = np.random.default_rng(seed)
    u = np.linspace(np.sqrt(low), np.sqrt(high), n)
    centres = rng.choice(np.arange(20, n - 20), peaks, replace=False)
    spectra = []
    for x, y in places:
        counts = np.zeros(n)
        for centre in centres:
            index = np.arange(centre - 8, centre + 9)
            counts[index] += rng.poisson(
                rng.gamma(2, 300) * np.exp(-(((index - centre) / 2.5) ** 2))
            )
        kept = counts > 0
        spectra.append((x, y, (u**2)[kept], counts[kept]))
    return spectra


def centroid_spectra(places, seed=0, ions=60, peaks=40, ppm=3.0):
    """Peaks of shared ions whose m/z scatter between pixels."""
    rng = np.random.default_rng(seed)
    mz = np.sort(rng.uniform(100, 900, ions))
    spectra = []
    for x, y in places:
        chosen = np.sort(rng.choice(ions, peaks, replace=False))
        found = mz[chosen] * (1 + ppm * 1e-6 * rng.standard_normal(peaks))
        order = np.argsort(found)
        spectra.append((x, y, found[order], rng.gamma(2, 100, peaks)[order]))
    return spectra


def write_profile(folder, **options):
    """Write a profile data set; return its path."""
    places = options.pop("places", None) or pixels()
    words = {"representation": "profile", "pixel_size": 10.0} | options
    seed = words.pop("seed", 0)
    return write_imzml(folder, profile_spectra(places, seed), **words)


def write_centroid(folder, **options):
    """Write a centroid data set; return its path."""
    places = options.pop("places", None) or pixels()
    words = {"representation": "centroid", "pixel_size": 10.0} | options
    seed = words.pop("seed", 0)
    return write_imzml(folder, centroid_spectra(places, seed), **words)


@dataclass(frozen=True)
class Table:
    """What zarr alone reads of one table."""

    x: sp.csr_matrix
    mz: np.ndarray
    obs: dict[str, np.ndarray]
    kind: str


def read_table(store: Path, name: str = "msi_z0") -> Table:
    """Read a table without anndata."""
    group = zarr.open_group(store, mode="r")[f"tables/{name}"]
    kind = group["X"].attrs["encoding-type"]
    arrays = [group["X"][part][:] for part in ("data", "indices", "indptr")]
    build = sp.csc_matrix if kind == "csc_matrix" else sp.csr_matrix
    matrix = build(tuple(arrays), shape=tuple(group["X"].attrs["shape"])).tocsr()
    matrix.sort_indices()
    columns = {
        column: group["obs"][column][:]
        for column in ("x", "y", "tic", "source_tic", "outside_tic", "n_points")
    }
    return Table(matrix, group["var/mz"][:], columns, kind)


def matrix_bytes(store: Path) -> dict[str, str]:
    """Digest of every file of every X."""
    files = sorted(file for file in store.glob("tables/*/X/**/*") if file.is_file())
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
    }


def store_bytes(store: Path) -> dict[str, str]:
    """Digest of every file but those of recorded times."""
    files = sorted(file for file in store.rglob("*") if file.is_file())
    return {
        str(file.relative_to(store)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if "/uns/gpuconvert/times/" not in str(file)
    }
