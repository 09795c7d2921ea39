"""A whole run on the cuda backend whose kernels are emulated: the same store as on the CPU."""

import shutil
from types import SimpleNamespace

import numpy as np
import pytest

import gpuconvert
from gpuconvert import plan
from gpuconvert.errors import BackendError
from tests.e2e import test_bruker, test_bruker_mobility
from tests.e2e.data import matrix_bytes, pixels, write_centroid, write_profile
from tests.unit.test_device import Slot

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")


@pytest.fixture
def emulated(monkeypatch):
    """Stand two emulated slots in for CuPy; return them."""
    slots = [Slot(), Slot()]
    buffers = []

    def pinned(n_bytes):
        buffers.append(n_bytes)
        return np.empty(n_bytes, np.uint8)

    library = SimpleNamespace(open_slots=lambda devices: slots, pinned=pinned, buffers=buffers)
    monkeypatch.setattr("gpuconvert.backends.device._library", lambda: library)
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    return SimpleNamespace(slots=slots, buffers=buffers)


@pytest.mark.parametrize("write", [write_profile, write_centroid])
def test_the_store_is_that_of_the_cpu(tmp_path, emulated, write):
    source = write(tmp_path, places=pixels(6, 4))
    options = {"bins": 3000, "axis": "linear-tof", "workers": 3}
    made = gpuconvert.convert(source, tmp_path / "a.zarr", backend="cuda", **options)
    gpuconvert.convert(source, tmp_path / "b.zarr", backend="numpy", **options)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")
    assert made.backend == "backend cuda: asked for"
    assert all(slot.points for slot in emulated.slots)
    # The reader fills the buffers of the backend, and no others.
    assert emulated.buffers


@pytest.mark.parametrize("kind", ["line", "profile", "scans", "lzf", "mobility"])
def test_the_store_of_frames_is_that_of_the_cpu(tmp_path, emulated, kind):
    options = {"workers": 3}
    if kind == "mobility":
        source = test_bruker_mobility.write(tmp_path, test_bruker_mobility.image())
        options |= {"mobility_bins": 7, "bins": 4000}
    else:
        source = test_bruker.write_kind(kind, tmp_path, test_bruker.image(3, 2))
        options |= {"spectrum": kind} if kind in ("line", "profile") else {}
    gpuconvert.convert(source, tmp_path / "a.zarr", backend="cuda", **options)
    gpuconvert.convert(source, tmp_path / "b.zarr", backend="cpu", **options)
    found = matrix_bytes(tmp_path / "a.zarr")
    assert found == matrix_bytes(tmp_path / "b.zarr")
    assert len({name.split("/")[1] for name in found}) == (2 if kind == "mobility" else 1)
    assert all(slot.points for slot in emulated.slots)


def test_a_device_that_fails_leaves_a_job_that_another_backend_continues(tmp_path, emulated):
    source = write_profile(tmp_path, places=pixels(6, 4))
    options = {"bins": 3000, "axis": "linear-tof", "workers": 1}
    for slot in emulated.slots:
        slot.launches_left = 60
    match = r"partition [1-9]\d*: row.*: device 0 \(Emulated\) fell off the bus"
    with pytest.raises(BackendError, match=match):
        gpuconvert.convert(source, tmp_path / "a.zarr", backend="cuda", **options)
    assert not (tmp_path / "a.zarr").exists()
    made = gpuconvert.convert(source, tmp_path / "a.zarr", backend="numpy", **options)
    assert 0 < made.parts_reused < made.parts
    gpuconvert.convert(source, tmp_path / "b.zarr", backend="numpy", **options)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")
