"""The measurements of devices: that they are counted right, and run, over a stand-in for CuPy."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import gpu, gpu_cases, gpu_frames
from benchmarks.gpu_kernels import must_move
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
    monkeypatch.setattr(gpu_cases, "DISTINCT", 2)
    monkeypatch.setattr(gpu_cases, "POINTS", 900)
    monkeypatch.setattr(gpu_cases, "BINS", (500,))
    sizes = replace(gpu.QUICK, kernel_bytes=10_000, batch_bytes=5_000)
    library = machine.slots
    found = gpu.kernels_section(library, sizes)
    kernels = found["500 bins"]["kernels"]
    assert {"decode", "totals", "merge", "cut_cells", "count_cells", "emit_cells"} <= kernels.keys()
    assert found["500 bins"]["values"] > 0
    assert found["500 bins"]["agrees"]
    by_bin = found["500 bins, by bin"]["kernels"]
    assert by_bin.keys() == {"bin_keys", "sort", "bin_offsets", "bin_gather"}
    moved = sum(entry["must_move"] for entry in kernels.values())
    assert found["500 bins"]["of_copy"] == pytest.approx(
        moved / found["500 bins"]["seconds"] / found["copy_bytes_per_s"]
    )
    assert gpu.transfer_section(library, sizes).keys() == {"to_device", "to_host"}
    monkeypatch.setattr(gpu, "BATCH_FACTORS", (1, 2))
    batches = gpu.batches_section(library, replace(sizes, batch_bytes=40_000))
    assert len(batches) == 2
    assert min(batches.values()) > 0
    zeros = gpu.zero_runs_section(library, sizes)
    assert zeros["kept"] < zeros["points"]
    assert zeros["seconds"].keys() == {
        "find_nonzeros", "count_zero_runs", "scan", "row_pointers", "emit_zero_runs",
    }  # fmt: skip
    monkeypatch.setattr(gpu_frames, "SAMPLES", 3000)
    monkeypatch.setattr(gpu_frames, "FILLED", 200)
    monkeypatch.setattr(gpu_frames, "SCANS", 20)
    frames = gpu.frames_section(library, replace(sizes, batch_bytes=50_000))
    assert frames.keys() == {"samples", "scans"}
    assert all(entry["agrees"] and entry["points"] > 0 for entry in frames.values())
    assert {"count_samples", "emit_samples"} <= frames["samples"]["seconds"].keys()
    assert {"peak_keys", "sort", "emit_runs"} <= frames["scans"]["seconds"].keys()
    pipeline = gpu.pipeline_section(library, sizes)
    assert pipeline["500 bins"]["cuda"]["spectra_per_s"] > 0
    assert pipeline["500 bins"].keys() == {"cuda", "cpu", "scipy, one core"}


def test_every_section_is_kept_as_soon_as_it_is_measured(machine, monkeypatch, tmp_path):  # noqa: F811
    for name in ("host", "compile", "transfer", "kernels", "zero_runs", "frames", "batches",
                 "pipeline"):  # fmt: skip
        monkeypatch.setattr(gpu, f"{name}_section", lambda *_, name=name: {name: 1})

    def lost(*_):
        raise BackendError("device 0 fell off the bus")

    monkeypatch.setattr(gpu, "run_section", lost)
    kept = []
    with pytest.raises(BackendError, match="fell off"):
        gpu.measure(machine.slots, gpu.QUICK, tmp_path, lambda found: kept.append(len(found)))
    assert kept == [2, 3, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("n_bytes", [1, 100_000, 1 << 20, 20 << 20])
def test_a_batch_has_about_the_bytes_that_are_asked_for(n_bytes):
    batch = gpu_cases.make_batch(n_bytes, lambda n: np.empty(n, np.uint8))
    assert len(batch.raw) == 12 * batch.n_points.sum()
    assert len(batch.rows) == 1 or 0.5 * n_bytes < len(batch.raw) < 1.1 * n_bytes


def test_the_host_is_measured_before_and_after(monkeypatch):
    monkeypatch.setattr(gpu, "HOST", gpu.HOST.replace('"cuda"', '"numpy"'))
    found = gpu.host_section()
    assert 0 < found["before"] <= found["opened"] <= found["used"]
    assert found["reckoned"] == 0


def test_the_bytes_of_a_point_are_those_of_its_arrays():
    # float64 m/z and float32 intensity in; owner, m/z, intensity, position, fault out.
    assert must_move("decode", 10, 10, 0) == 10 * (8 + 4 + 4 + 8 + 8 + 8 + 1)
    assert must_move("emit_cells", 0, 0, 5) == 5 * 8
    assert must_move("cut_cells", 7, 0, 0) == 7 * 8


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
