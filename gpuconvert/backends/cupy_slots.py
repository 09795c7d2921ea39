"""Slots on CUDA devices: a stream each, with memory that is kept, through CuPy.

The only module that imports CuPy, and imported where a device is asked for. It moves
bytes and starts kernels; what they compute is in `kernels/`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import cupy as cp
import cupyx
import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.kernel_source import Nvrtc, cubin_path, file_of_kernel, load_nvrtc
from gpuconvert.errors import BackendError
from gpuconvert.stages import span

BLOCK_THREADS = 256
"""Threads of a block: `kernels/budgets.toml` counts registers by it."""

BLOCKS_PER_PROCESSOR = 32
"""Blocks of a launch per multiprocessor at most: kernels stride over the rest."""

SLOTS_PER_DEVICE = 4
"""One copies in, one computes, one copies out, and one waits for its host."""

SHARE = 0.8
"""Of the free memory of a device; the rest is for the scan, for memory in unlike pieces and for
other programs."""

CONSTANTS = 4
"""Axes kept in a slot: a plan has one."""

ALIGNMENT = 256
"""Arrays begin at multiples of this in a pinned slab, in bytes."""

LEAST_OUTBOX = 1 << 16
"""Smallest pinned slab of a slot, in bytes."""

PCI_FOLDER = Path("/sys/bus/pci/devices")

CudaErrors = (cp.cuda.runtime.CUDARuntimeError, cp.cuda.driver.CUDADriverError)


def count_devices() -> int:
    """Return the number of devices; BackendError where there is none, with what to do."""
    try:
        found = int(cp.cuda.runtime.getDeviceCount())
    except cp.cuda.runtime.CUDARuntimeError as error:
        driver = int(cp.cuda.runtime.driverGetVersion())
        if driver == 0:
            raise BackendError(f"no NVIDIA driver answers: {error}") from error
        needed = int(cp.cuda.runtime.runtimeGetVersion())
        if driver < needed:
            raise BackendError(
                f"the driver is for CUDA {_version(driver)} and CuPy for {_version(needed)}; "
                "update the driver, or pip install 'gpuconvert[cuda12]'"
            ) from error
        raise BackendError(f"the driver finds no CUDA device: {error}") from error
    if not found:
        raise BackendError("the driver finds no CUDA device; look at CUDA_VISIBLE_DEVICES")
    return found


def find_nvrtc() -> Nvrtc:
    """Return the compiler whose kernels the driver loads."""
    return load_nvrtc(int(cp.cuda.runtime.driverGetVersion()) // 1000)


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


class CudaDevice:
    """One device, and the kernels loaded on it."""

    def __init__(self, number: int) -> None:
        self.number = number
        properties = cp.cuda.runtime.getDeviceProperties(number)
        self.name = properties["name"].decode()
        self.processors = int(properties["multiProcessorCount"])
        self.arch = int(cp.cuda.Device(number).compute_capability)
        self._functions: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def label(self) -> str:
        """The device in words."""
        return f"device {self.number} ({self.name})"

    def current(self) -> AbstractContextManager[Any]:
        """Make this the device of the calling thread."""
        device: AbstractContextManager[Any] = cp.cuda.Device(self.number)
        return device

    def memory(self) -> tuple[int, int]:
        """Return free and total memory in bytes."""
        with self.current():
            free, total = cp.cuda.runtime.memGetInfo()
        return int(free), int(total)

    def link(self) -> str:
        """Return speed and width of its PCIe link, as the system tells them."""
        folder = PCI_FOLDER / str(cp.cuda.Device(self.number).pci_bus_id).lower()
        try:
            speed, width = (
                (folder / f"current_link_{what}").read_text().strip() for what in ("speed", "width")
            )
        except OSError:
            return "PCIe link unknown"
        return f"PCIe {speed} x{width}"

    def function(self, kernel: str) -> Any:  # noqa: ANN401 - of CuPy
        """Return a kernel of this device, compiled and loaded when first asked for."""
        with self._lock:
            if kernel not in self._functions:
                path = cubin_path(file_of_kernel()[kernel], self.arch, find_nvrtc)
                try:
                    module = cp.RawModule(path=str(path))
                    self._functions[kernel] = module.get_function(kernel)
                except CudaErrors as error:
                    raise BackendError(
                        f"{self.label} does not load kernel {kernel} from {path}: {error}"
                    ) from error
            return self._functions[kernel]


class CudaSlot:
    """A stream of one device, with device memory and one pinned slab of its own.

    Memory is kept by name and grows by powers of two: none is taken in the steady state.
    """

    def __init__(self, device: CudaDevice, room: int) -> None:
        self.label = device.label
        self.room = room
        self._device = device
        self._stream = cp.cuda.Stream(non_blocking=True)
        self._memory: dict[str, Any] = {}
        self._constants: dict[str, Any] = {}
        self._outbox: Any = None
        self._last = "no kernel"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make device and stream those of the calling thread, and wait for all at the end."""
        first: BaseException | None = None
        try:
            with self._device.current(), self._stream:
                try:
                    yield
                except BaseException as error:
                    first = error
                    with suppress(BackendError):
                        self._wait()
                    raise
                self._wait()
        except CudaErrors as error:
            # A device that is lost fails even where it is left; what went wrong first is told.
            if isinstance(first, BackendError):
                raise first from first.__cause__
            raise self._failure(error) from error

    @contextmanager
    def _starting(self, what: str) -> Iterator[None]:
        """Say what could not be started."""
        try:
            yield
        # Thrust has none of CUDA's own errors, not even where a kernel before it failed.
        except RuntimeError as error:
            raise BackendError(f"{what} could not be started on {self.label}: {error}") from error

    def _wait(self) -> None:
        try:
            self._stream.synchronize()
        except CudaErrors as error:
            raise self._failure(error) from error

    def _failure(self, error: Exception) -> BackendError:
        """Return what a device says late: any kernel until now may be why."""
        return BackendError(f"{self.label} failed at or before {self._last}: {error}")

    def release(self) -> None:
        """Give all device memory back."""
        self._memory.clear()
        self._constants.clear()
        cp.get_default_memory_pool().free_all_blocks()

    def _held(self) -> int:
        kept = (*self._memory.values(), *self._constants.values())
        return sum(int(values.nbytes) for values in kept)

    def empty(self, name: str, n: int, dtype: type[np.generic] | np.dtype[Any]) -> Any:  # noqa: ANN401
        """Return the array called `name`, `n` long, with whatever is in it.

        Raises
        ------
        MemoryError
            Where the slot would hold more than its room, or the device has no more.
        """
        return self._shaped(name, (n,), np.dtype(dtype))

    def _shaped(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:  # noqa: ANN401
        needed = max(int(np.prod(shape)) * dtype.itemsize, 512)
        block = self._memory.get(name)
        if block is None or block.nbytes < needed:
            self._memory.pop(name, None)
            del block
            size = 1 << (needed - 1).bit_length()
            if self._held() + size > self.room:
                raise MemoryError(f"{name} would take {size} bytes more")
            with self._starting(f"the allocation of {name}"):
                block = self._memory[name] = cp.empty(size, np.uint8)
        return cp.ndarray(shape, dtype, memptr=block.data)

    def upload(self, name: str, values: NDArray[Any]) -> Any:  # noqa: ANN401 - of CuPy
        """Return `values` on the device; bytes end in a whole word."""
        values = np.ascontiguousarray(values)
        if values.dtype == np.uint8:
            words = self._shaped(name, (-(-values.nbytes // 4),), np.dtype(np.uint32))
            # Kernels read bytes by words: what follows the last byte is set, and never shown.
            with self._starting(f"the copy of {name}"):
                words[-1:].fill(0)
            target = cp.ndarray(values.shape, values.dtype, memptr=words.data)
        else:
            target = self._shaped(name, values.shape, values.dtype)
        if values.nbytes:
            with self._starting(f"the copy of {name}"):
                target.set(values, stream=self._stream)
        return target

    def constant(self, key: str, values: NDArray[np.float64]) -> Any:  # noqa: ANN401 - of CuPy
        """Return `values` on the device; sent once for a `key`."""
        if key not in self._constants:
            while len(self._constants) >= CONSTANTS:
                self._constants.pop(next(iter(self._constants)))
            if self._held() + values.nbytes > self.room:
                raise MemoryError(f"{key.partition(' ')[0]} would take {values.nbytes} bytes more")
            with self._starting(f"the copy of {key.partition(' ')[0]}"):
                target = cp.empty(values.shape, values.dtype)
                target.set(np.ascontiguousarray(values), stream=self._stream)
            self._constants[key] = target
        return self._constants[key]

    def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:  # noqa: ANN401
        """Start `kernel` with at least one thread, `n_threads` at best."""
        function = self._device.function(kernel)
        most = self._device.processors * BLOCKS_PER_PROCESSOR
        blocks = min(-(-n_threads // BLOCK_THREADS), most)
        # Failures of a kernel show later, when its results are waited for.
        self._last = f"kernel {kernel}"
        with self._starting(self._last):
            function((blocks,), (BLOCK_THREADS,), arguments)

    def scan(self, values: Any) -> Any:  # noqa: ANN401 - of CuPy
        """Return the running sums of int64 `values`, which they replace."""
        # cumsum would copy them first, by a kernel that CuPy compiles, and for which it needs
        # headers of CUDA; this is what it calls then.
        with self._starting("the running sum"):
            done = cp.cuda.cub.cub_scan(values, cp.cuda.cub.CUPY_CUB_CUMSUM)
        if done is None:
            raise BackendError(f"CuPy has no running sum of {values.size} {values.dtype} in place")
        return done

    def sort(self, values: Any) -> None:  # noqa: ANN401 - of CuPy
        """Sort uint64 `values` by a radix sort, which takes as much memory again.

        Raises
        ------
        MemoryError
            Where that is more than the room, or the device has no more.
        """
        if self._held() + values.nbytes > self.room:
            raise MemoryError(f"the sort would take {values.nbytes} bytes more")
        with self._starting("the sort by bin"):
            values.sort()

    def download(self, *values: Any) -> list[NDArray[Any]]:  # noqa: ANN401 - of CuPy
        """Return all `values` on the host, once all before is done, with one wait."""
        ends = np.cumsum([-(-int(each.nbytes) // ALIGNMENT) * ALIGNMENT for each in values])
        if self._outbox is None or self._outbox.nbytes < ends[-1]:
            self._outbox = None
            size = 1 << (max(int(ends[-1]), LEAST_OUTBOX) - 1).bit_length()
            self._outbox = pinned(size)
        slabs = []
        for each, begin in zip(values, [0, *ends[:-1]], strict=True):
            slab = self._outbox[begin : begin + each.nbytes].view(each.dtype).reshape(each.shape)
            if each.size:
                with self._starting("a copy to the host"):
                    each.get(stream=self._stream, out=slab, blocking=False)
            slabs.append(slab)
        self._wait()
        return [np.array(slab) for slab in slabs]

    def span(self, stage: str) -> AbstractContextManager[None]:
        """Name what the block does, for profilers and traces."""
        return span(stage)


def pinned(n_bytes: int) -> NDArray[np.uint8]:
    """Return a buffer that devices copy from without the host's help.

    CuPy keeps such memory and hands it out again, in powers of two.
    """
    try:
        buffer: NDArray[np.uint8] = cupyx.empty_pinned(n_bytes, np.uint8)
    except CudaErrors as error:
        raise BackendError(
            f"the host gives no {n_bytes} bytes of pinned memory: {error}; give a smaller "
            "--memory or fewer --workers"
        ) from error
    return buffer


def find_devices(numbers: tuple[int, ...]) -> list[CudaDevice]:
    """Return the devices with these numbers, all where none is given.

    Raises
    ------
    BackendError
        Where there is no driver, no device, none of a number given, or no NVRTC.
    """
    found = count_devices()
    missing = [number for number in numbers if number >= found]
    if missing:
        raise BackendError(f"there is no CUDA device {missing[0]}; the last one is {found - 1}")
    find_nvrtc()
    return [CudaDevice(number) for number in (numbers or range(found))]


def open_slots(numbers: tuple[int, ...]) -> list[CudaSlot]:
    """Return the slots of these devices, the first of every device before the second of any."""
    devices = find_devices(numbers)
    rooms = []
    for device in devices:
        with device.current():
            # What a backend before this one gave back is free, whatever the driver says.
            cp.get_default_memory_pool().free_all_blocks()
        rooms.append(int(device.memory()[0] * SHARE) // SLOTS_PER_DEVICE)
    slots = []
    for _ in range(SLOTS_PER_DEVICE):
        for device, room in zip(devices, rooms, strict=True):
            with device.current():
                slots.append(CudaSlot(device, room))
    return slots


def describe(numbers: tuple[int, ...] = ()) -> list[str]:
    """Return one line for each device: name, memory, link, driver and runtime."""
    driver = _version(int(cp.cuda.runtime.driverGetVersion()))
    runtime = _version(int(cp.cuda.runtime.runtimeGetVersion()))
    lines = []
    for device in find_devices(numbers):
        free, total = device.memory()
        lines.append(
            f"{device.label}, sm_{device.arch}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free, "
            f"{device.link()}, driver for CUDA {driver}, runtime {runtime}"
        )
    return lines
