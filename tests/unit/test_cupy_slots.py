"""The slots of CUDA devices, over a stand-in for CuPy whose kernels are emulated.

Held here: what memory is kept and refused, what is reused between batches, and the words
for every way in which a device can be missing or fail. No claim that CuPy does the same.
"""

import importlib
import shutil
import sys
import time
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from gpuconvert.backends import device
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.host import HostBackend
from gpuconvert.errors import BackendError
from gpuconvert.resampling import ResampleOptions
from tests.kernels.emulator import run_kernel
from tests.strategies import make_axis, pack
from tests.unit.test_backends import blocks_are_equal, peaks, step_of

NAME = "gpuconvert.backends.cupy_slots"


class CudaError(RuntimeError):
    """What both interfaces of CUDA raise."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises where the device has no more."""


class Pointer:
    """Where an array lies."""

    def __init__(self, array):
        self.bytes = np.asarray(array).reshape(-1).view(np.uint8)

    def copy_from_device_async(self, other, n_bytes, stream):
        self.bytes[:n_bytes] = other.bytes[:n_bytes]


class Event:
    """A moment of a stream."""

    def record(self, stream):
        self.seconds = time.perf_counter()


class Array(np.ndarray):
    """An array of the device: host memory with CuPy's verbs."""

    data = property(Pointer)

    def set(self, values, stream):
        self[...] = values

    def get(self, stream, out, blocking):
        assert not blocking
        out[...] = self


@contextmanager
def entered():
    yield


class Machine:
    """What CuPy finds: drivers, devices and their memory."""

    driver, runtime, count = 13020, 13020, 2
    broken, full = None, False

    def __init__(self):
        self.allocated = []
        self.freed = 0
        self.launched = []
        self.pinned = []
        self.compilers = []

    def get_count(self):
        if self.driver < self.runtime:
            raise CudaError("cudaErrorInsufficientDriver")
        if self.count == 0:
            raise CudaError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.count

    def empty(self, shape, dtype):
        array = np.full(int(np.prod(shape)) * np.dtype(dtype).itemsize, 0x5A, np.uint8)
        self.allocated.append(array.nbytes)
        return array.view(dtype).reshape(shape).view(Array)

    def function(self, kernel):
        def call(grid, block, arguments):
            if kernel == self.broken:
                raise CudaError("CUDA_ERROR_INVALID_IMAGE")
            self.launched.append((kernel, grid, block))
            run_kernel(kernel, (*grid, *block, 0), arguments)

        return call

    def leave(self):
        if self.broken == "stream":
            raise CudaError("cudaErrorIllegalAddress: an error of an earlier launch")

    def synchronize(self):
        if self.broken == "stream":
            raise CudaError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    def scan(self, values, kind):
        """Like CUB's, in place, with memory of its own; None where it counts in too few bits."""
        assert kind == 5
        return np.cumsum(values, out=values) if len(values) < 2**31 else None

    def empty_pinned(self, size, dtype):
        if self.full:
            raise CudaError("cudaErrorMemoryAllocation: out of memory")
        self.pinned.append(size)
        return np.full(size, 0xC3, np.uint8).view(dtype)

    def modules(self):
        """Return the stand-ins for cupy and cupyx."""
        kind = type("Device", (), {
            "__init__": lambda self, number: None, "__enter__": lambda self: self,
            "__exit__": lambda *_: self.leave(), "compute_capability": "90",
            "pci_bus_id": "0000:1B:00.0",
        })  # fmt: skip
        stream = type("Stream", (), {
            "__init__": lambda self, non_blocking: None, "__enter__": lambda self: self,
            "__exit__": lambda self, *_: None, "synchronize": lambda _: self.synchronize(),
        })  # fmt: skip
        cupy, cupyx = ModuleType("cupy"), ModuleType("cupyx")
        cupy.__spec__ = ModuleSpec("cupy", None)
        cupy.cuda = SimpleNamespace(
            runtime=SimpleNamespace(
                CUDARuntimeError=CudaError, getDeviceCount=self.get_count,
                driverGetVersion=lambda: self.driver, runtimeGetVersion=lambda: self.runtime,
                memGetInfo=lambda: (30 * 10**9, 40 * 10**9),
                getDeviceProperties=lambda _: {"name": b"Standin", "multiProcessorCount": 2},
            ),
            driver=SimpleNamespace(CUDADriverError=CudaError), Device=kind, Stream=stream,
            Event=Event, cub=SimpleNamespace(CUPY_CUB_CUMSUM=5, cub_scan=self.scan),
            get_elapsed_time=lambda first, second: 1000 * (second.seconds - first.seconds),
        )  # fmt: skip
        cupy.empty = self.empty
        cupy.ndarray = lambda shape, dtype, memptr: (
            memptr.bytes[: int(np.prod(shape)) * np.dtype(dtype).itemsize]
            .view(dtype)
            .reshape(shape)
            .view(Array)
        )
        cupy.RawModule = lambda path: SimpleNamespace(get_function=self.function)
        cupy.get_default_memory_pool = lambda: SimpleNamespace(
            free_all_blocks=lambda: setattr(self, "freed", self.freed + 1)
        )
        cupyx.empty_pinned = self.empty_pinned
        return cupy, cupyx


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with two devices, and the module under test loaded upon it."""
    made = Machine()
    for module in made.modules():
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.delitem(sys.modules, NAME, raising=False)
    made.slots = importlib.import_module(NAME)
    monkeypatch.setattr(made.slots, "load_nvrtc", made.compilers.append)
    monkeypatch.setattr(made.slots, "cubin_path", lambda name, *_: tmp_path / name)
    monkeypatch.setattr(made.slots, "PCI_FOLDER", tmp_path)
    monkeypatch.setattr(device, "_load_driver", lambda: None)
    yield made
    sys.modules.pop(NAME, None)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"driver": 0}, "no NVIDIA driver answers: cudaErrorInsufficientDriver"),
        (
            {"driver": 12040},
            r"the driver is for CUDA 12.4 and CuPy for 13.2; update the driver, or",
        ),
        ({"count": 0}, "the driver finds no CUDA device: cudaErrorNoDevice"),
    ],
)
def test_a_missing_device_is_explained(machine, state, words):
    for name, value in state.items():
        setattr(machine, name, value)
    with pytest.raises(BackendError, match=words):
        machine.slots.open_slots(())


def test_a_number_without_a_device_is_refused(machine):
    with pytest.raises(BackendError, match="there is no CUDA device 2; the last one is 1"):
        machine.slots.open_slots((0, 2))


def test_a_missing_compiler_is_found_out_at_once(machine, monkeypatch):
    def missing(newest):
        assert newest == 13
        raise BackendError("the compiler NVRTC is not installed")

    monkeypatch.setattr(machine.slots, "load_nvrtc", missing)
    with pytest.raises(BackendError, match="NVRTC is not installed"):
        DeviceBackend()


def test_slots_alternate_between_devices_and_share_their_memory(machine):
    found = machine.slots.open_slots(())
    assert [slot.label for slot in found[:3]] == [
        "device 0 (Standin)", "device 1 (Standin)", "device 0 (Standin)",
    ]  # fmt: skip
    assert len(found) == 2 * machine.slots.SLOTS_PER_DEVICE
    assert {slot.room for slot in found} == {30 * 10**9 * 8 // 10 // 4}
    assert {slot.label for slot in machine.slots.open_slots((1,))} == {"device 1 (Standin)"}


def test_devices_are_described(machine, tmp_path):
    folder = tmp_path / "0000:1b:00.0"
    folder.mkdir()
    (folder / "current_link_speed").write_text("32.0 GT/s PCIe\n")
    (folder / "current_link_width").write_text("16\n")
    assert machine.slots.describe()[1] == (
        "device 1 (Standin), sm_90, 30.0 of 40.0 GB free, PCIe 32.0 GT/s PCIe x16, "
        "driver for CUDA 13.2, runtime 13.2"
    )
    shutil.rmtree(folder)
    assert "PCIe link unknown" in machine.slots.describe()[0]


AXIS = make_axis("linear-tof", 700)
OPTIONS = ResampleOptions("pchip", spacing=step_of())


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_memory_is_kept_between_batches_and_nothing_of_the_one_before_shows(machine):
    backend = DeviceBackend((0,))
    sizes = [300, 300, 40, 300, 7, 120]
    batches = [pack(peaks(seed, 3, n), "<f8", "<f4", gaps=[1]) for seed, n in enumerate(sizes)]
    nearest = ResampleOptions("nearest")
    taken = []
    for batch in (*batches, *batches, *batches):
        for options in (OPTIONS, nearest, ResampleOptions("linear", "height", spacing=step_of())):
            found = backend.resample(batch, AXIS, options)
            assert blocks_are_equal(found, HostBackend().resample(batch, AXIS, options))
        sorted_, wanted = (each.by_bin(found, AXIS.n_bins) for each in (backend, HostBackend()))
        assert sorted_.rows.tolist() == wanted.rows.tolist()
        assert sorted_.data.tolist() == wanted.data.tolist()
        profile = np.repeat(found.data > 0, 3).astype(np.float32)
        bounds, rows = np.array([0, len(profile)]), np.zeros(1, np.int64)
        stays, wanted = (b.strip_zeros(bounds, profile, rows) for b in (backend, HostBackend()))
        assert stays.places.tolist() == wanted.places.tolist()
        assert stays.marked.tolist() == wanted.marked.tolist()
        taken.append(len(machine.allocated))
    # The last third of the batches goes through slots that have seen them all.
    assert taken[-1] == taken[-7]
    powers = [size for size in machine.allocated if size & (size - 1)]
    assert {size // 8 for size in powers} <= {AXIS.n_bins, 1}
    assert {block for _, _, block in machine.launched} == {(256,)}
    assert max(grid[0] for _, grid, _ in machine.launched) <= 2 * 32


def test_a_slot_refuses_what_is_beyond_its_room(machine):
    slot = machine.slots.open_slots((0,))[0]
    slot.room = 4096
    with slot.running():
        slot.empty("a", 200, np.float64)
        with pytest.raises(MemoryError, match="b would take 4096 bytes more"):
            slot.empty("b", 300, np.float64)
        with pytest.raises(MemoryError, match="edges would take 8000 bytes more"):
            slot.constant("edges x", np.zeros(1000))
        slot.empty("a", 512, np.float64)
        slot.release()
        assert machine.freed == 2
        slot.empty("b", 300, np.float64)


def test_a_sort_counts_the_memory_of_its_own(machine):
    slot = machine.slots.open_slots((0,))[0]
    with slot.running():
        keys = slot.empty("key", 512, np.uint64)
        keys[:] = np.arange(512)[::-1]
        slot.room = 8191
        with pytest.raises(MemoryError, match="the sort would take 4096 bytes more"):
            slot.sort(keys)
        slot.room = 8192
        slot.sort(keys)
    assert keys.tolist() == list(range(512))


def running_out(times, call):
    """What runs out of memory so often, as CuPy says it, before it does as `call`."""
    left = [times]

    def called(*arguments):
        left[0] -= 1
        if left[0] >= 0:
            raise OutOfMemoryError("Out of memory allocating 1,024 bytes")
        return call(*arguments)

    return called


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_a_scan_or_a_sort_that_runs_out_of_memory_is_tried_smaller_and_then_named(
    machine, monkeypatch
):
    batch, backend = pack(peaks(5, 6, 300)), DeviceBackend((0,))
    wanted = HostBackend().resample(batch, AXIS, OPTIONS)
    cub, scan = machine.slots.cp.cuda.cub, machine.scan
    monkeypatch.setattr(cub, "cub_scan", running_out(1, scan))
    found = backend.resample(batch, AXIS, OPTIONS)
    assert blocks_are_equal(found, wanted)
    monkeypatch.setattr(cub, "cub_scan", running_out(2, scan))
    with pytest.raises(BackendError, match=r"rows 0 to 5 .*, even in two halves: Out of memory al"):
        backend.resample(batch, AXIS, OPTIONS)
    sort = np.ndarray.sort
    monkeypatch.setattr(Array, "sort", running_out(1, sort), raising=False)
    sorted_, wanted = (each.by_bin(found, AXIS.n_bins) for each in (backend, HostBackend()))
    assert sorted_.rows.tolist() == wanted.rows.tolist()
    assert sorted_.data.tolist() == wanted.data.tolist()
    monkeypatch.setattr(Array, "sort", running_out(2, sort), raising=False)
    with pytest.raises(BackendError, match=r"to sort \d+ values in 2 pieces: Out of memory alloc"):
        backend.by_bin(found, AXIS.n_bins)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_what_a_library_of_cuda_says_is_told(machine, monkeypatch):
    backend = DeviceBackend((0,))
    block = backend.resample(pack(peaks(5, 6, 300)), AXIS, OPTIONS)

    def failing(self):
        raise RuntimeError("radix_sort: failed on 1st step: cudaErrorIllegalAddress")

    monkeypatch.setattr(Array, "sort", failing, raising=False)
    match = r"the sort by bin could not be started on device 0 \(Standin\): radix_sort: failed"
    with pytest.raises(BackendError, match=match):
        backend.by_bin(block, AXIS.n_bins)
    monkeypatch.setattr(machine.slots.cp.cuda.cub, "cub_scan", lambda *_: None)
    with pytest.raises(BackendError, match="has no running sum of 151 int64 in place"):
        backend.resample(pack([(np.linspace(100, 101, 150), np.ones(150))]), AXIS, OPTIONS)


def test_a_host_without_pinned_memory_is_told(machine):
    machine.full = True
    match = "the host gives no 1000 bytes of pinned memory: cudaErrorMemoryAllocation.*--workers"
    with pytest.raises(BackendError, match=match):
        machine.slots.pinned(1000)


def test_a_device_lost_between_launches_is_told(machine, monkeypatch):
    slot = machine.slots.open_slots((0,))[0]

    def lost(shape, dtype):
        raise CudaError("cudaErrorIllegalAddress")

    monkeypatch.setattr(machine.slots.cp, "empty", lost)
    match = r"the allocation of owner could not be started on device 0 \(Standin\): cudaErrorIll"
    with pytest.raises(BackendError, match=match), slot.running():
        slot.empty("owner", 3, np.int32)


def test_few_axes_are_kept(machine):
    slot = machine.slots.open_slots((0,))[0]
    with slot.running():
        for number in range(10):
            assert slot.constant(f"edges {number}", np.full(3, number)).tolist() == [number] * 3
        before = len(machine.allocated)
        slot.constant("edges 9", np.zeros(3))
        assert len(machine.allocated) == before
        assert slot.constant("edges 0", np.zeros(3)).tolist() == [0] * 3


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_a_kernel_that_does_not_start_is_named(machine):
    machine.broken = "merge"
    match = (
        r"rows 0 to 2 \(\d+ points\): kernel merge could not be started on device 0 \(Standin\): "
        "CUDA_ERROR_INVALID_IMAGE"
    )
    with pytest.raises(BackendError, match=match):
        DeviceBackend((0,)).resample(pack(peaks(1, 3, 50)), AXIS, OPTIONS)


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_a_failure_that_shows_later_names_the_last_kernel(machine):
    backend = DeviceBackend((0,))
    machine.broken = "stream"
    match = (
        r"^rows 0 to 2 \(\d+ points\): device 0 \(Standin\) failed at or before "
        "kernel row_pointers: cudaErrorIllegalAddress"
    )
    with pytest.raises(BackendError, match=match):
        backend.resample(pack(peaks(1, 3, 50)), AXIS, OPTIONS)


def test_a_kernel_that_does_not_load_is_named_with_its_file(machine, monkeypatch, tmp_path):
    def load(path):
        raise CudaError("CUDA_ERROR_NO_BINARY_FOR_GPU")

    monkeypatch.setattr(machine.slots.cp, "RawModule", load)
    slot = machine.slots.open_slots((1,))[0]
    match = r"device 1 \(Standin\) does not load kernel pyramid_u8 from .*/pyramid: CUDA_ERROR_NO"
    with pytest.raises(BackendError, match=match):
        slot.launch("pyramid_u8", 1)


def test_buffers_are_pinned(machine):
    assert len(DeviceBackend((0,)).buffer(1000)) == 1000
    assert machine.pinned == [1000]
