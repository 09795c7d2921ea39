"""A whole run on the cuda backend whose kernels are emulated: the same store as on the CPU."""

import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import gpuconvert
from gpuconvert import conversion, plan
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.host import HostBackend
from gpuconvert.errors import BackendError
from gpuconvert.settings import Settings
from tests.e2e import test_bruker, test_bruker_mobility
from tests.e2e.data import matrix_bytes, pixels, write_centroid, write_profile
from tests.e2e.test_mzpeak import full_profiles
from tests.imzml_writer import write_imzml
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
    assert any(slot.points for slot in emulated.slots)
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


@pytest.mark.parametrize("planned", ["cuda", "numpy"])
def test_a_plan_for_one_backend_converts_with_another(tmp_path, emulated, monkeypatch, planned):
    monkeypatch.setattr(plan, "PART_NONZEROS", 3 * 2**19)
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 20_000)
    monkeypatch.setattr("gpuconvert.pipeline.SLOT_BYTES", 20_000)
    monkeypatch.setattr(DeviceBackend, "batch_bytes", 80_000)
    source = write_profile(tmp_path, places=pixels(6, 4))
    options = {"bins": 3000, "axis": "linear-tof", "memory": 4 << 30}
    mine = Settings(backend=planned, **options)
    path, made = conversion.make(source, tmp_path / "a.zarr", mine)
    assert made.layout.slot_bytes == (80_000 if planned == "cuda" else 20_000)
    other = "numpy" if planned == "cuda" else "cuda"
    sizes = []
    for kind in (HostBackend, DeviceBackend):
        monkeypatch.setattr(kind, "buffer", lambda _, n: sizes.append(n) or np.empty(n, np.uint8))
    for index in range(len(made.partitions)):
        conversion.convert_part(path, index, other)
    assert 0 < max(sizes) <= 20_000
    assert planned == "cuda" or any(slot.launched for slot in emulated.slots)
    conversion.assemble(path)
    gpuconvert.convert(source, tmp_path / "b.zarr", backend=planned, **options)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")
    _, again = conversion.make(source, tmp_path / "c.zarr", replace(mine, backend=other))
    assert again.fingerprint == made.fingerprint
    assert again.partitions == made.partitions


@pytest.mark.parametrize("types", [("f8", "f4"), ("f4", "f8"), ("f8", "i4")])
@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_the_archive_is_that_of_the_cpu(tmp_path, emulated, types, layout):
    source = write_imzml(
        tmp_path, full_profiles(pixels(6, 4)), representation="profile", mz_dtype=types[0],
        intensity_dtype=types[1],
    )  # fmt: skip
    for name in ("cuda", "cpu", "numpy"):
        done = gpuconvert.export(
            source, tmp_path / f"{name}.mzpeak", backend=name, mzpeak_layout=layout
        )
        assert done.backend == f"backend {name}: asked for"
        assert done.points_marked > 100
    assert sum(slot.launched for slot in emulated.slots) >= 4
    assert emulated.buffers
    made = [(tmp_path / f"{name}.mzpeak").read_bytes() for name in ("cuda", "cpu", "numpy")]
    assert made[0] == made[1] == made[2]


def test_a_device_that_fails_leaves_no_archive(tmp_path, emulated):
    source = write_profile(tmp_path, places=pixels(6, 4))
    before = sorted(tmp_path.iterdir())
    for slot in emulated.slots:
        slot.launches_left = 2
    with pytest.raises(BackendError, match=r"rows 0 to 2\d .*: device 0 \(Emulated\) fell off"):
        gpuconvert.export(source, tmp_path / "a.mzpeak", devices=(0,))
    assert sorted(tmp_path.iterdir()) == before


def test_what_is_not_computed_needs_no_device(tmp_path, emulated):
    for number, (write, options) in enumerate(
        [(write_profile, {"lossless": True}), (write_centroid, {})]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        source = write(folder)
        done = gpuconvert.export(source, folder / "a.mzpeak", backend="cuda", **options)
        assert done.backend == ""
    assert not emulated.buffers
    assert not any(slot.launched for slot in emulated.slots)


def test_a_device_that_fails_leaves_a_job_leaves_a_job_that_another_backend_continues(
    tmp_path, emulated
):
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
