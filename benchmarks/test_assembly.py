"""Finished parts to disk, and parts into the matrix of a store."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import zarr

from benchmarks.cases import Case, write_case
from gpuconvert.assemble import assemble_plane
from gpuconvert.conversion import convert_part, make
from gpuconvert.executors import make_executor
from gpuconvert.parts import Part, PartSummary, write_part
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor
from gpuconvert.workspace import workspace_for


@pytest.fixture(scope="module")
def planned(folder, measured):
    """Return a plan of centroids whose partitions are all converted."""
    case = Case("parts", "centroid", 64 if measured else 16, 500)
    source, target = write_case(case, folder), folder / "parts.zarr"
    path, plan = make(source, target, Settings(pixel_size=(25.0, 25.0)))
    for index in range(len(plan.partitions)):
        convert_part(path, index)
    return case, plan, workspace_for(target).parts


def test_part_write(benchmark, tmp_path, measured):
    n_values = 2**22 if measured else 2**12
    rng = np.random.default_rng(3)
    arrays = {
        "rows": rng.integers(0, 4096, n_values).astype(np.int32),
        "data": rng.gamma(0.8, 300, n_values).astype(np.float32),
    }
    number = itertools.count()

    def write():
        summary = PartSummary(next(number), 0, 4096, n_values, 4096, n_values, 0, 0)
        write_part(tmp_path, "0" * 64, summary, arrays)

    benchmark.extra_info.update(engine="gpuconvert", part="part write", n_values=n_values)
    benchmark.pedantic(write, rounds=5 if measured else 1, warmup_rounds=1)
    written = Part(tmp_path, 0, "0" * 64)
    np.testing.assert_array_equal(written.read("data"), arrays["data"])


def test_assembly(benchmark, planned, tmp_path, measured):
    case, plan, parts = planned
    number = itertools.count()

    def assemble():
        table = tmp_path / str(next(number))
        with make_executor(1) as executor:
            return assemble_plane(plan, 0, parts, table, executor, Monitor())

    benchmark.extra_info.update(
        engine="gpuconvert", part="assembly", n_values=case.n_pixels * case.points
    )
    result = benchmark.pedantic(assemble, rounds=5 if measured else 1, warmup_rounds=1)
    matrix = zarr.open_group(tmp_path / "0" / "X", mode="r")
    np.testing.assert_allclose(
        np.sum(matrix["data"][...], dtype=np.float64), result.stored_tic.sum(), rtol=1e-6
    )
