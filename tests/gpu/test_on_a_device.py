"""What only a device can show: ``pytest -m gpu``. The tests of all backends run on it as well."""

import gc
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpuconvert
from gpuconvert.backends import choose_backend, frame_launches
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.host import HostBackend
from gpuconvert.backends.kernel_source import cubin_path, file_of_kernel
from gpuconvert.backends.launches import halve_image
from gpuconvert.errors import BackendError, SourceError
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CsrBlock, decode
from tests.e2e.data import matrix_bytes, pixels, write_profile
from tests.e2e.test_bruker import image, write_kind
from tests.frames import packed_batches
from tests.kernels.slow import half
from tests.strategies import make_axis, pack
from tests.unit.test_backends import blocks_are_equal, peaks, step_of
from tests.unit.test_packed import DAMAGE, damaged

pytestmark = pytest.mark.gpu

ROOT = Path(__file__).parents[2]
AXIS = make_axis("linear-tof", 20_000)
OPTIONS = ResampleOptions("pchip", spacing=step_of())


@pytest.fixture(scope="module")
def library():
    """The module that talks to CuPy, where a device answers."""
    try:
        choose_backend("cuda")
    except BackendError as error:
        pytest.skip(str(error))
    return sys.modules["gpuconvert.backends.cupy_slots"]


@pytest.fixture(autouse=True)
def memory_given_back(library):
    """Give back what a test took of device and host, for the processes that others start."""
    yield
    gc.collect()
    library.cp.get_default_memory_pool().free_all_blocks()
    library.cp.get_default_pinned_memory_pool().free_all_blocks()


@pytest.fixture
def slot(library):
    return library.open_slots((0,))[0]


def test_kernels_compile_in_seconds_and_load_at_once(library, tmp_path, monkeypatch):
    monkeypatch.setenv("GPUCONVERT_CACHE_DIR", str(tmp_path))
    arch = library.CudaDevice(0).arch
    seconds = []
    for _ in range(2):
        begun = time.perf_counter()
        for file in sorted(set(file_of_kernel().values())):
            cubin_path(file, arch, library.find_nvrtc)
        seconds.append(time.perf_counter() - begun)
    assert seconds[0] < 10
    assert seconds[1] < 0.1


def test_images_are_those_of_the_slow_version(slot):
    image = np.random.default_rng(4).integers(0, 2**16, (2, 33, 21)).astype(np.uint16)
    with slot.running():
        halved = halve_image(slot, image)
    assert halved.tolist() == [half(channel.tolist()) for channel in image]


@pytest.mark.parametrize("content", ["indices", "samples", "scans"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_packed_points_have_the_bits_of_the_processor(slot, content, data):
    batch = data.draw(packed_batches(content))
    with slot.running():
        points, said = frame_launches.unpack(slot, batch, batch.packed)
        raw = np.zeros(0, np.uint8) if points is None else slot.download(points)[0]
    found, wanted = decode(replace(said, raw=raw)), decode(batch)
    for name in ("indptr", "mz", "intensity"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes(), name


def test_damage_is_told_in_the_sentence_of_the_processor(slot):
    for kind in DAMAGE:
        batch = damaged(*kind[:3])
        with pytest.raises(SourceError) as told:
            decode(batch)
        with pytest.raises(SourceError, match=f"^{re.escape(str(told.value))}$"), slot.running():
            frame_launches.unpack(slot, batch, batch.packed)


@pytest.mark.parametrize("kind", ["line", "profile", "scans"])
def test_the_store_of_frames_is_that_of_the_processor(library, tmp_path, kind):
    source = write_kind(kind, tmp_path, image())
    # A law whose positions are rounded correctly everywhere.
    options = {"axis": "linear-tof", "bins": 20_000}
    options |= {"spectrum": kind} if kind != "scans" else {}
    gpuconvert.convert(source, tmp_path / "a.zarr", backend="cuda", **options)
    gpuconvert.convert(source, tmp_path / "b.zarr", backend="cpu", **options)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8"])
def test_zero_runs_of_many_points_are_those_of_the_processor(library, dtype):
    random = np.random.default_rng(4)
    lengths = random.integers(0, 60_000, 300)
    indptr = np.append(0, np.cumsum(lengths))
    values = random.choice(np.array([0, 0, 0, 2, -1], dtype), indptr[-1])
    if dtype[0] == "f":
        values[random.integers(0, len(values), 10**5)] = np.finfo(dtype).smallest_subnormal
        values[random.integers(0, len(values), 10**5)] = -0.0
    given = indptr, values, np.arange(300)
    found, wanted = DeviceBackend((0,)).strip_zeros(*given), HostBackend().strip_zeros(*given)
    for column, expected in zip(found, wanted, strict=True):
        assert np.array_equal(column, expected)


def test_an_archive_is_that_of_the_processor(library, tmp_path):
    source = write_profile(tmp_path, places=pixels(6, 4))
    for name in ("cuda", "cpu"):
        gpuconvert.export(source, tmp_path / f"{name}.mzpeak", backend=name)
    assert (tmp_path / "cuda.mzpeak").read_bytes() == (tmp_path / "cpu.mzpeak").read_bytes()


def test_a_device_with_little_room_gives_the_same(library):
    batch = pack(peaks(3, 40, 3000))
    slot = library.open_slots((0,))[0]
    slot.room = 2_000_000
    found = DeviceBackend(slots=[slot]).resample(batch, AXIS, OPTIONS)
    assert blocks_are_equal(found, HostBackend().resample(batch, AXIS, OPTIONS))


def fill_memory(cp):
    """Take all memory of a device but for less than a MiB; return it."""
    taken, size = [], 2**40
    while size >= 2**20:
        try:
            taken.append(cp.empty(size, np.uint8))
        except MemoryError:
            size //= 2
    return taken


def test_a_device_without_memory_is_named_and_works_when_it_has_some(library):
    slot = library.open_slots((0,))[0]
    # Room that the device does not have: its own refusal is answered with halves.
    slot.room = 2**60
    backend = DeviceBackend(slots=[slot])
    # Whatever the library and the driver take when a kernel first runs is taken now.
    small, large = pack(peaks(3, 2, 300)), pack(peaks(3, 300, 3000))
    wanted = HostBackend().resample(large, AXIS, OPTIONS)
    backend.by_bin(backend.resample(small, AXIS, OPTIONS), AXIS.n_bins)
    profile = np.array([0, 2**21]), np.ones(2**21, np.float32), np.array([7])
    slot.release()
    taken = fill_memory(library.cp)
    try:
        with pytest.raises(BackendError, match="has too little memory for rows 0 to 299"):
            backend.resample(large, AXIS, OPTIONS)
        with pytest.raises(BackendError, match=r"too little memory to sort \d+ values in 2 pieces"):
            backend.by_bin(wanted, AXIS.n_bins)
        with pytest.raises(BackendError, match="has too little memory for row 7"):
            backend.strip_zeros(*profile)
    finally:
        taken.clear()
        slot.release()
    assert blocks_are_equal(backend.resample(large, AXIS, OPTIONS), wanted)
    assert len(backend.strip_zeros(*profile).places) == 2**21


def test_a_sort_without_memory_of_its_own_is_no_wrong_sort(library):
    # Thrust once sorted without its memory, and said nothing: cupy/cupy#9894.
    slot = library.open_slots((0,))[0]
    n = 2**24
    keys = np.random.default_rng(1).integers(0, 2**62, n).astype(np.uint64)
    with slot.running():
        there = slot.upload("key", keys)
        slot.sort(there)
        sorted_ = slot.download(there)[0]
        there = slot.upload("key", keys)
        library.cp.get_default_memory_pool().free_all_blocks()
        taken = fill_memory(library.cp)
        with pytest.raises(MemoryError):
            slot.sort(there)
        taken.clear()
    assert np.array_equal(sorted_, np.sort(keys))


@pytest.mark.slow
def test_more_values_than_32_bits_count_are_sorted(library):
    # 2^31 + 2^20 values in 4 rows would need distinct bins: 70,000 rows of every 30th bin do.
    n_bins, n_rows = 1_000_000, 70_000
    per_row = -(-(2**31 + 2**20) // n_rows)
    row = np.arange(per_row, dtype=np.int32) * (n_bins // per_row)
    free, _ = library.CudaDevice(0).memory()
    if free < 110e9:
        pytest.skip(f"needs 110 GB of device memory, {free / 1e9:.0f} GB are free")
    total = per_row * n_rows
    none = np.zeros(n_rows)
    block = CsrBlock(
        np.arange(n_rows), np.arange(n_rows + 1, dtype=np.int64) * per_row, np.tile(row, n_rows),
        np.ones(total, np.float32), none, none, none.astype(np.uint8),
    )  # fmt: skip
    slot = library.open_slots((0,))[0]
    slot.room = int(free * 0.95)
    found = DeviceBackend(slots=[slot]).by_bin(block, n_bins)
    assert found.bins.tolist() == row.tolist()
    assert found.indptr[-1] == total > 2**31
    assert (np.diff(found.indptr) == n_rows).all()
    for k in (0, per_row // 2, per_row - 1):
        part = slice(found.indptr[k], found.indptr[k + 1])
        assert np.array_equal(found.rows[part], np.arange(n_rows))


SANITIZED = """
import numpy as np
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.resampling import ResampleOptions
from tests.strategies import make_axis, pack
from tests.unit.test_backends import METHODS, peaks, step_of
from tests.unit.test_device import FRAMES, packed_frames
backend = DeviceBackend((0,))
for method, quantity in METHODS:
    for law in ("linear-tof", "tof"):
        axis = make_axis(law, 900)
        options = ResampleOptions(method, quantity, spacing=step_of())
        for seed, n in enumerate((40, 3, 300, 7)):
            batch = pack(peaks(seed, 3, n), "<f8", "<f4", gaps=[1, 2, 3])
            backend.by_bin(backend.resample(batch, axis, options), 900)
        for content in FRAMES:
            backend.resample(packed_frames(content), axis, options)
for dtype in ("f4", "f8", "i4", "i8"):
    for lengths in ((40, 0, 3), (1,), (300, 7), (0,)):
        bounds = np.cumsum((0, *lengths))
        backend.strip_zeros(bounds, np.resize([0, 0, 0, 2], bounds[-1]).astype(dtype), bounds[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "initcheck"])
def test_the_sanitizer_of_cuda_finds_nothing(library, tool):
    program = shutil.which("compute-sanitizer")
    if program is None:
        pytest.skip("compute-sanitizer is not installed")
    done = subprocess.run(
        [program, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", SANITIZED],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


# After so many launches a kernel is given memory that is not there: the device is lost to
# this process, as after any error of its own.
LOST = """
import sys
import numpy as np
from gpuconvert import cli, plan
from gpuconvert.backends import cupy_slots
plan.PART_NONZEROS = 100
launch, left = cupy_slots.CudaSlot.launch, [60]
def failing(self, kernel, n_threads, *arguments):
    left[0] -= 1
    if left[0] == 0:
        nowhere = cupy_slots.cp.cuda.UnownedMemory(8, 1 << 30, None, 0)
        pointer = cupy_slots.cp.cuda.MemoryPointer(nowhere, 0)
        key = cupy_slots.cp.ndarray((1 << 20,), np.uint64, memptr=pointer)
        indices = self.empty("indices", 1 << 20, np.int32)
        launch(self, "bin_keys", 1 << 20, indices, np.int64(1 << 20), np.int32(20), key)
    launch(self, kernel, n_threads, *arguments)
cupy_slots.CudaSlot.launch = failing
cli.main(sys.argv[1:])
"""


def test_a_device_lost_in_the_middle_leaves_a_job_that_continues(library, tmp_path):
    source = write_profile(tmp_path, places=pixels(6, 4))
    options = ["--axis", "linear-tof", "--bins", "3000", "--workers", "1"]
    command = ["run", str(source), str(tmp_path / "a.zarr"), "--backend", "cuda", *options]
    lost = subprocess.run(
        [sys.executable, "-c", LOST, *command], cwd=ROOT, capture_output=True, text=True
    )
    assert lost.returncode == 1, lost.stderr
    assert "partition" in lost.stderr
    assert not (tmp_path / "a.zarr").exists()
    again = [sys.executable, "-m", "gpuconvert"]
    done = subprocess.run([*again, *command, "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command[2], command[4] = str(tmp_path / "b.zarr"), "numpy"
    subprocess.run([*again, *command], cwd=ROOT, check=True, capture_output=True)
    assert matrix_bytes(tmp_path / "a.zarr") == matrix_bytes(tmp_path / "b.zarr")
