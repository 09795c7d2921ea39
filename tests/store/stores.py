"""Small stores for tests: sparse, non-square planes with a matrix written by hand."""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
import zarr

from gpuconvert.mass_axis import MassAxis, of_law
from gpuconvert.spatial import PlaneFacts, finish_store
from gpuconvert.spectra import Acquisition, Encoding, SourceIdentity

PIXEL_SIZE = (12.5, 40.0)
ORIGIN = (4, 9, 1)

PLANES = (
    ((0, 0), (3, 0), (6, 0), (1, 1), (2, 1), (5, 1), (0, 2), (4, 2)),
    ((2, 0), (6, 1), (1, 2)),
)
"""(x, y) of the pixels of two planes on a grid of 7 x 3, most of it empty."""

AXIS = of_law("orbitrap", 150.0, 900.0, du=1.2e-3)


def make_acquisition(planes=PLANES, *, region=True, pixel_size=PIXEL_SIZE) -> Acquisition:
    """Return an acquisition of these pixels; its columns are all different."""
    cells = [(x, y, z) for z, pixels in enumerate(planes) for x, y in pixels]
    n = len(cells)
    x, y, z = np.array(cells, np.int32).T
    return Acquisition(
        path="/somewhere/else/tissue.imzML", format="imzML",
        identity=SourceIdentity((("header", 1, "00"),)),
        x=x, y=y, z=z, order=np.arange(n, dtype=np.int64)[::-1].copy(),
        n_points=np.arange(n, dtype=np.int64) * 7 + 3, raw_bytes=np.full(n, 64, np.int64),
        encoding=np.zeros(n, np.uint8),
        encodings=(Encoding("<f8", "<f4", representation="centroid"),),
        shared_mz_points=0, polarity=np.where(np.arange(n) % 2, -1, 1).astype(np.int8),
        region=(np.arange(n, dtype=np.int32) % 3 if region else None),
        origin=ORIGIN, pixel_size=pixel_size, pixel_size_source="header", mz_range=(140.0, 950.0),
    )  # fmt: skip


def make_matrices(planes=PLANES, axis: MassAxis = AXIS) -> list[sp.csr_matrix]:
    """Return a float32 matrix per plane, a tenth of it filled."""
    rng = np.random.default_rng(5)
    return [
        sp.random(
            len(pixels), axis.n_bins, 0.1, "csr", np.float32, rng,
            data_rvs=lambda size: rng.gamma(0.5, 100, size).astype(np.float32),
        )
        for pixels in planes
    ]  # fmt: skip


def write_matrix(
    folder: Path, matrix: sp.csr_matrix, layout: str, *, chunk: int = 16, **options
) -> None:
    """Write X as assembly does: a group of its own, with nothing above it."""
    stored = matrix.tocsc() if layout == "csc" else matrix.tocsr()
    stored.sort_indices()
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    group.attrs.update(
        {
            "encoding-type": f"{layout}_matrix",
            "encoding-version": "0.1.0",
            "shape": list(stored.shape),
        }
    )
    for name, dtype in (("data", "f4"), ("indices", "i4"), ("indptr", "i8")):
        values = getattr(stored, name)
        array = group.create_array(
            name, shape=values.shape, dtype=dtype, chunks=(chunk,),
            config={"write_empty_chunks": True},
            **(options if name != "indptr" else {}),
        )  # fmt: skip
        array[...] = values


def make_facts(acquisition: Acquisition, matrices) -> list[PlaneFacts]:
    """Return the facts of each plane; source TIC and outside are made up but different."""
    facts = []
    first = 0
    for z, matrix in enumerate(matrices):
        tic = np.asarray(matrix.astype(np.float64).sum(axis=1)).ravel()
        average = np.asarray(matrix.astype(np.float64).mean(axis=0)).ravel()
        rows = slice(first, first + len(tic))
        facts.append(PlaneFacts(z, rows, tic, tic * 2 + 1, tic + 1, average))
        first = rows.stop
    return facts


def make_store(
    folder: Path, *, planes=PLANES, axis: MassAxis = AXIS, layout: str = "csc",
    dataset_id: str = "run.1", provenance=None, region: bool = True, **options,
) -> Path:  # fmt: skip
    """Write a whole store and return its folder."""
    acquisition = make_acquisition(planes, region=region)
    matrices = make_matrices(planes, axis)
    for z, matrix in enumerate(matrices):
        write_matrix(folder / "tables" / f"{dataset_id}_z{z}" / "X", matrix, layout, **options)
    finish_store(
        folder, acquisition, axis, make_facts(acquisition, matrices),
        dataset_id=dataset_id, provenance={"note": "made"} if provenance is None else provenance,
    )  # fmt: skip
    return folder
