"""The measurements of devices: that they are counted right, and run, over a stand-in for CuPy."""

import json
import shutil
from dataclasses import replace

import pytest

from benchmarks import gpu
from gpuconvert.errors import BackendError
from tests.unit.test_cupy_slots import machine  # noqa: F401 - a fixture


def test_without_a_device_it_says_so_and_measures_nothing(monkeypatch, capsys):
    def missing(_):
        raise BackendError("no NVIDIA driver is loaded")

    monkeypatch.setattr(gpu, "choose_backend", missing)
    assert gpu.main([]) == 1
    captured = capsys.readouterr()
    assert captured.err == "no device, nothing was measured: no NVIDIA driver is loaded\n"
    assert captured.out == ""


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_kernels_transfers_and_pipelines_are_measured(machine, monkeypatch):  # noqa: F811
    monkeypatch.setattr(gpu, "DISTINCT", 2)
    monkeypatch.setattr(gpu, "POINTS", 900)
    monkeypatch.setattr(gpu, "BINS", (500,))
    sizes = replace(gpu.QUICK, kernel_bytes=10_000, batch_bytes=5_000)
    library = machine.slots
    found = gpu.kernels_section(library, sizes)
    kernels = found["500 bins"]["kernels"]
    assert {"decode", "totals", "merge", "cut_cells", "count_cells", "emit_cells"} <= kernels.keys()
    assert found["500 bins"]["values"] > 0
    moved = sum(entry["must_move"] for entry in kernels.values())
    assert found["500 bins"]["of_copy"] == pytest.approx(
        moved / found["500 bins"]["seconds"] / found["copy_bytes_per_s"]
    )
    assert gpu.transfer_section(library, sizes).keys() == {"to_device", "to_host"}
    pipeline = gpu.pipeline_section(library, sizes)
    assert pipeline["500 bins"]["cuda"]["spectra_per_s"] > 0
    assert pipeline["500 bins"].keys() == {"cuda", "cpu", "scipy, one core"}


def test_the_bytes_of_a_point_are_those_of_its_arrays():
    # float64 m/z and float32 intensity in; owner, m/z, intensity, position, fault out.
    assert gpu.must_move("decode", 10, 10, 0) == 10 * (8 + 4 + 4 + 8 + 8 + 8 + 1)
    assert gpu.must_move("emit_cells", 0, 0, 5) == 5 * 8
    assert gpu.must_move("cut_cells", 7, 0, 0) == 7 * 8


def test_the_overlap_of_a_trace(tmp_path):
    events = [
        {"ph": "M", "name": "thread_name"},
        {"ph": "X", "name": "read", "ts": 1_000_000, "dur": 2_000_000},
        {"ph": "X", "name": "read", "ts": 3_000_000, "dur": 1_000_000},
        {"ph": "X", "name": "resample", "ts": 2_000_000, "dur": 3_000_000},
    ]
    path = tmp_path / "trace.json"
    path.write_text(json.dumps({"traceEvents": events}))
    assert gpu.stage_overlap(path) == {
        "stages": {"read": 3.0, "resample": 3.0}, "sum": 6.0, "wall": 4.0,
    }  # fmt: skip
