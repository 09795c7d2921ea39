"""The index of an imzML file: this program's reader and pyimzML on the same bytes."""

from __future__ import annotations

import pytest

from benchmarks.cases import Case, write_case
from benchmarks.indexing import open_ours, open_pyimzml


@pytest.fixture(scope="module")
def indexed(folder, measured):
    """Return a file of about 100,000 spectra of ten points."""
    case = Case("x100k", "index", 316 if measured else 32, 10)
    return case, write_case(case, folder)


def test_index(benchmark, indexed):
    case, path = indexed
    benchmark.extra_info.update(engine="gpuconvert", part="index", n_spectra=case.n_pixels)
    assert benchmark(open_ours, path) == case.n_pixels


def test_index_by_pyimzml(benchmark, indexed):
    case, path = indexed
    benchmark.extra_info.update(engine="pyimzML", part="index", n_spectra=case.n_pixels)
    assert benchmark.pedantic(open_pyimzml, (path,), rounds=1) == case.n_pixels
