"""Memory stays under what was projected, and that under --memory, whatever the shape of the data.

The peak is the kernel's count of the whole process, taken by a small parent of its own.
"""

import json
import sys

import numpy as np
import pytest

import gpuconvert
from benchmarks.cases import Case, write_case
from benchmarks.process import run_once
from gpuconvert import finishing
from gpuconvert.errors import BudgetError
from gpuconvert.inspection import inspect
from gpuconvert.settings import Settings
from tests.e2e.data import centroid_spectra, pixels
from tests.e2e.test_command_line import call
from tests.imzml_writer import write_imzml

MIB = 2**20

SHAPES = [
    # spectra, points and bins each at their ends
    (Case("few-long", "stripped", 10, 100_000), 1_000_000, 1200),
    (Case("few-short", "centroid", 10, 10), 100, 700),
    (Case("middle", "centroid", 100, 1000), 100_000, 900),
    (Case("many-short", "index", 1000, 10), 100, 1200),
    (Case("many-bins", "centroid", 100, 100), 1_000_000, 1000),
]


def _peak(source, output, *options):
    """Convert in a process of its own; return its peak and what it said of itself."""
    words = [sys.executable, "-m", "gpuconvert", "run", source, output, *options, "--json"]
    usage = run_once([str(word) for word in words])
    return usage.rss, json.loads(usage.stdout)


def _holds(tmp_path, case, bins, budget, layout):
    source = write_case(case, tmp_path)
    options = ("--axis", "orbitrap", "--bins", bins, "--memory", f"{budget}MiB")
    rss, said = _peak(source, tmp_path / "o.zarr", *options, "--layout", layout)
    assert said["n_bins"] == bins
    assert said["n_pixels"] == case.n_pixels
    assert rss <= said["projected_memory"] <= budget * MIB
    sys.stdout.write(
        f"{case.name} {layout}: peak {rss / MIB:.0f}, projected "
        f"{said['projected_memory'] / MIB:.0f}, budget {budget} MiB\n"
    )


@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_memory_is_kept_on_a_small_shape(tmp_path, layout):
    _holds(tmp_path, *SHAPES[1], layout)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["csc", "csr"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape[0].name)
def test_memory_is_kept_on_every_shape(tmp_path, shape, layout):
    _holds(tmp_path, *shape, layout)


def _with_one_of(n_points):
    spectra = centroid_spectra(pixels())
    mz = np.linspace(100, 900, n_points)
    spectra[4] = (*spectra[4][:2], mz, np.ones(n_points))
    return spectra


def test_one_enormous_spectrum_is_refused_by_name_before_the_run(tmp_path, capsys):
    source = write_imzml(tmp_path, _with_one_of(500_000), representation="centroid")
    words = "spectrum 4 \\(x=1, y=2\\) alone has 500000 points"
    with pytest.raises(BudgetError, match=f"--memory 320 MiB is too little.*; {words}$"):
        gpuconvert.convert(source, tmp_path / "o.zarr", memory="320MiB")
    assert not list(tmp_path.glob("o.zarr*"))
    assert words.replace("\\", "") in inspect(source, Settings(memory=320 * MIB)).refusal
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr", "--memory", "320MiB")
    assert code == 2
    assert err.count("\n") == 1


def test_memory_that_runs_out_all_the_same_is_told_in_a_line(tmp_path, monkeypatch, capsys):
    def full(*_arguments):
        raise MemoryError("Unable to allocate 7.45 GiB")

    source = write_imzml(tmp_path, centroid_spectra(pixels()), representation="centroid")
    monkeypatch.setattr(finishing, "judge", full)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 1
    assert err.startswith("error: memory ran out (Unable to allocate 7.45 GiB); give a smaller")
    assert err.count("\n") == 1
    monkeypatch.undo()
    assert call(capsys, "run", source, tmp_path / "o.zarr")[0] == 0


@pytest.mark.slow
def test_twenty_million_points_among_small_spectra_are_converted_within_memory(tmp_path):
    source = _write_large(tmp_path, 20_000_000)
    rss, said = _peak(source, tmp_path / "o.zarr", "--memory", "16GiB", "--workers", "1")
    assert said["quality"]["tic_ratio_max_error"] < 1e-6
    assert rss <= said["projected_memory"]


def _write_large(folder, n_points):
    """The large spectrum is appended to the .ibd, which the writer would pack value by value."""
    from tests.imzml_writer import Array, Document, external, ref

    document = Document.of(centroid_spectra(pixels()), representation="centroid")
    at = len(document.ibd)
    mz = np.linspace(100, 900, n_points)
    raw = mz.astype("<f8").tobytes() + np.ones(n_points, "<f4").tobytes()
    document.ibd += raw
    document.spectra[4].arrays = [
        Array([ref("mzArray"), *external(at, n_points, 8 * n_points)]),
        Array([ref("intensityArray"), *external(at + 8 * n_points, n_points, 4 * n_points)]),
    ]
    return document.write(folder)
