"""The CUDA backend: batches go to the slots of the devices, and are cut where they do not fit.

A slot is a stream with memory of its own. Whoever has a batch takes the slot that was
given back last, and gives it back, so that copies and kernels of several threads, and
several devices, overlap, and no more slots take memory than there are threads. Which
numbers come out is the affair of `kernels/`.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import queue
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends import frame_launches, launches
from gpuconvert.backends.host import join_blocks
from gpuconvert.backends.kernel_queue import Queue
from gpuconvert.errors import BackendError
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CscBlock, CsrBlock, MemoryUse, RawBatch, select
from gpuconvert.zero_runs import Stripped

HOST_POINT_BYTES = 40
HOST_NONZERO_BYTES = 24
HOST_SPECTRUM_BYTES = 200
HOST_FIXED_BYTES = 1 << 17
"""Host memory of a batch: per point (to decode dtypes that the kernels do not), per non-zero
(in the block, and in a pinned slab of up to twice its size), per spectrum, and whatever the
batch."""

BATCH_BYTES = 64 << 20
"""Reckoned, not measured (benchmarks/gpu.py, section batches): a batch costs some ten launches
and three waits, about 0.1 ms, and PCIe moves 8 MiB in 0.3 ms but 64 MiB in 2.5 ms."""

LIBRARY_BYTES = 320 << 20
CONTEXT_BYTES = 384 << 20
"""Host memory of CuPy and NVRTC, and of the context of each device. Reckoned with care, not
measured (benchmarks/gpu.py, section host): the files of the libraries are 140 and 120 MB."""

DRIVER = "libcuda.so.1"
NO_DRIVER = "no NVIDIA driver is loaded; install one, nvidia-smi then lists the devices"
NO_CUPY = (
    "CuPy is not installed; pip install 'gpuconvert[cuda13]', or [cuda12] for drivers before 580"
)
REMEDY = "free memory on it, or choose another one with --devices"

MOST_POINTS = 2**30
"""Points of a batch that goes to a device at once: the running sum counts in 32 bits."""


class Slot(Queue, Protocol):
    """A queue that is one of several, with so much memory.

    label : its device in words
    room : bytes of device memory that it may hold
    """

    label: str
    room: int

    def running(self) -> AbstractContextManager[None]:
        """Make it the one that the calling thread works with, and wait for it at the end."""
        ...

    def release(self) -> None:
        """Give all device memory back."""
        ...


Found = TypeVar("Found")
Work: TypeAlias = Callable[[Slot, RawBatch], Found]
"""What is done with a batch on a slot."""


def _load_driver() -> None:
    """Load the driver's library, which every other one needs; OSError where there is none."""
    ctypes.CDLL(DRIVER)


def _library() -> Any:  # noqa: ANN401 - a module that type checkers do not see
    """Return the module that talks to CuPy; BackendError where it or the driver is missing.

    Without a driver CuPy is not even loaded: it takes half a second and 100 MB.
    """
    if importlib.util.find_spec("cupy") is None:
        raise BackendError(NO_CUPY)
    try:
        _load_driver()
    except OSError as error:
        raise BackendError(NO_DRIVER) from error
    try:
        return importlib.import_module("gpuconvert.backends.cupy_slots")
    except ImportError as error:
        raise BackendError(f"CuPy cannot be loaded: {error}") from error


def describe() -> list[str]:
    """Return one line for each device; BackendError where there is none, with what to do."""
    lines: list[str] = _library().describe()
    return lines


class DeviceBackend:
    """Resamples on CUDA devices.

    devices : their numbers; all where none is given
    slots : what to work with instead of all slots of those devices
    """

    name = "cuda"
    batch_bytes = BATCH_BYTES

    def __init__(self, devices: Sequence[int] = (), *, slots: Sequence[Slot] | None = None) -> None:
        self._new_buffer: Callable[[int], NDArray[np.uint8]] = _new_pageable
        if slots is None:
            library = _library()
            slots = library.open_slots(tuple(devices))
            self._new_buffer = library.pinned
        n_devices = len({slot.label for slot in slots})
        self.base_bytes = LIBRARY_BYTES + CONTEXT_BYTES * n_devices
        self._free: queue.LifoQueue[Slot] = queue.LifoQueue()
        for slot in reversed(slots):
            self._free.put(slot)

    @contextmanager
    def _slot(self) -> Iterator[Slot]:
        slot = self._free.get()
        try:
            with slot.running():
                yield slot
        finally:
            self._free.put(slot)

    def _in_parts(
        self, batch: RawBatch, too_large: Callable[[RawBatch, int], bool], work: Work[Found]
    ) -> list[Found]:
        """Return what `work` makes of a batch, cut until no part is too large for the room."""
        found: list[Found] = []
        waiting = [batch]
        with self._slot() as slot:
            while waiting:
                part = waiting.pop()
                if too_large(part, slot.room):
                    waiting += reversed(_halves(part, slot))
                else:
                    found += _twice(slot, part, work)
        return found

    def resample(self, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
        """Decode the spectra of `batch` and put them on `axis`."""
        blocks = self._in_parts(
            batch, _is_too_large, lambda slot, part: launches.resample(slot, part, axis, options)
        )
        return blocks[0] if len(blocks) == 1 else join_blocks(blocks, batch.rows)

    def by_bin(self, block: CsrBlock, n_bins: int) -> CscBlock:
        """Sort the non-zeros of `block` by bin; rows keep their order within a bin."""
        with self._slot() as slot:
            # Arrays grow by powers of two: what is asked for may take twice its bytes.
            room = (slot.room // 2 - launches.BIN_BYTES * n_bins) // launches.SORT_BYTES
            pieces = -(-len(block.data) // max(room, 1))
            with suppress(MemoryError):
                return _sorted(slot, block, n_bins, pieces)
            slot.release()
            try:
                return _sorted(slot, block, n_bins, 2 * pieces)
            except MemoryError as error:
                raise BackendError(
                    f"{slot.label} has too little memory to sort {len(block.data)} values in "
                    f"{2 * pieces} pieces: {error}; {REMEDY}"
                ) from error

    def strip_zeros(
        self, indptr: NDArray[np.int64], intensity: NDArray[Any], rows: NDArray[np.int64]
    ) -> Stripped:
        """Return which points stay, and are marked, by `zero_runs.zero_roles`."""
        at, dtype = indptr[:-1] * intensity.itemsize, intensity.dtype
        # A batch whose only arrays are intensities: it is cut, and named, like any other.
        batch = RawBatch(
            intensity.view(np.uint8), at, at, np.diff(indptr), dtype, dtype, rows
        )  # fmt: skip
        parts = self._in_parts(batch, _is_too_large_to_strip, _stripped)
        return parts[0][1] if len(parts) == 1 else _join_stripped(parts)

    def peak_bytes(
        self, n_points: int, n_spectra: int, n_nonzeros: int, largest: int  # noqa: ARG002
    ) -> MemoryUse:  # fmt: skip
        """Return the memory that resampling such a batch takes at its peak."""
        return MemoryUse(
            HOST_POINT_BYTES * n_points
            + HOST_NONZERO_BYTES * n_nonzeros
            + HOST_SPECTRUM_BYTES * n_spectra
            + HOST_FIXED_BYTES,
            2 * (launches.POINT_BYTES + frame_launches.MOST_POINT_BYTES) * n_points
            + 2 * launches.NONZERO_BYTES * n_nonzeros
            + 2 * launches.SPECTRUM_BYTES * n_spectra,
        )

    def buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return a buffer for the bytes of a batch, from which devices copy fastest."""
        return self._new_buffer(n_bytes)


def _sorted(slot: Slot, block: CsrBlock, n_bins: int, pieces: int) -> CscBlock:
    """Return the non-zeros of `block` sorted by bin, so many ranges of bins at a time."""
    ranges = _by_range(block, n_bins, pieces)
    parts = [launches.by_bin(slot, part, n_bins) for part in ranges]
    return parts[0] if len(parts) == 1 else _one_after_another(parts)


def _new_pageable(n_bytes: int) -> NDArray[np.uint8]:
    return np.empty(n_bytes, np.uint8)


def _is_too_large(batch: RawBatch, room: int) -> bool:
    """Return whether a batch cannot go to a device of so much memory at once."""
    return (
        _device_bytes(batch) > room
        or batch.most_points > MOST_POINTS
        or frame_launches.key_bits(batch) > frame_launches.KEY_BITS
    )


def _device_bytes(batch: RawBatch) -> int:
    """Return the device memory that a batch takes before its non-zeros are known."""
    points, spectra = batch.most_points, len(batch.rows)
    own = launches.POINT_BYTES * points + launches.SPECTRUM_BYTES * spectra + len(batch.raw)
    if batch.packed is not None:
        own += frame_launches.unpacked_bytes(batch.packed)
    # Arrays grow by powers of two: what is asked for may take twice its bytes.
    return 2 * own


def _is_too_large_to_strip(batch: RawBatch, room: int) -> bool:
    """Return whether a batch of intensities cannot go to a device of so much memory at once."""
    points, spectra = int(batch.n_points.sum()), len(batch.rows)
    own = launches.ZERO_POINT_BYTES * points + launches.SPECTRUM_BYTES * spectra
    return 2 * own > room or points > MOST_POINTS


def _stripped(slot: Slot, batch: RawBatch) -> tuple[int, Stripped]:
    """Return the number of points of a batch of intensities, and which of them stay."""
    indptr = np.zeros(len(batch.rows) + 1, np.int64)
    np.cumsum(batch.n_points, out=indptr[1:])
    values = batch.raw.view(batch.intensity_dtype)
    return len(values), launches.strip_zeros(slot, indptr, values)


def _join_stripped(parts: list[tuple[int, Stripped]]) -> Stripped:
    """Return the points that stay of consecutive parts, each with its number of points."""
    begins = np.cumsum([0, *(n_points for n_points, _ in parts)])
    kept = np.concatenate([[0], *(np.diff(found.indptr) for _, found in parts)])
    return Stripped(
        np.concatenate(
            [found.places + begin for begin, (_, found) in zip(begins[:-1], parts, strict=True)]
        ),
        np.concatenate([found.marked for _, found in parts]),
        np.cumsum(kept),
    )


def _twice(slot: Slot, batch: RawBatch, work: Work[Found]) -> list[Found]:
    """Return what `work` makes of a batch or, where memory does not suffice, of its halves."""
    with suppress(MemoryError):
        return [_named(slot, batch, work)]
    # Not before the error is gone, which holds on to the arrays of where it was raised.
    slot.release()
    try:
        return [_named(slot, half, work) for half in _halves(batch, slot)]
    except MemoryError as error:
        raise BackendError(
            f"{slot.label} has too little memory for {_words(batch)}, even in two halves: {error}; "
            f"{REMEDY}"
        ) from error


def _named(slot: Slot, batch: RawBatch, work: Work[Found]) -> Found:
    """Return what `work` makes of a batch; an error of the device says which batch it was."""
    try:
        return work(slot, batch)
    except BackendError as error:
        raise BackendError(f"{_words(batch)}: {error}") from error


def _words(batch: RawBatch) -> str:
    points = batch.most_points
    if len(batch.rows) == 1:
        return f"row {int(batch.rows[0])} ({points} points)"
    return f"rows {int(batch.rows[0])} to {int(batch.rows[-1])} ({points} points)"


def _halves(batch: RawBatch, slot: Slot) -> list[RawBatch]:
    """Return a batch as two of about as many points, each with no more bytes than its own."""
    n = len(batch.rows)
    if n == 1:
        raise BackendError(
            f"{slot.label} has too little memory for {_words(batch)}: {slot.room} bytes may be "
            f"used; {REMEDY}"
        )
    ends = np.cumsum(batch.n_points)
    middle = int(np.searchsorted(ends, ends[-1] // 2, "right"))
    middle = min(max(middle, 1), n - 1)
    spectra = np.arange(n)
    return [_trimmed(select(batch, part)) for part in (spectra[:middle], spectra[middle:])]


def _trimmed(batch: RawBatch) -> RawBatch:
    """Return the batch without the bytes before its first array or frame and after its last."""
    if batch.packed is not None:
        packed, raw = batch.packed.trimmed(batch.raw)
        return replace(batch, raw=raw, packed=packed)
    ends = [
        at + batch.n_points * dtype.itemsize
        for at, dtype in (
            (batch.mz_at, batch.mz_dtype),
            (batch.intensity_at, batch.intensity_dtype),
        )
    ]
    first = int(min(batch.mz_at.min(), batch.intensity_at.min()))
    last = int(max(ends[0].max(), ends[1].max()))
    return replace(
        batch, raw=batch.raw[first:last], mz_at=batch.mz_at - first,
        intensity_at=batch.intensity_at - first,
    )  # fmt: skip


def _by_range(block: CsrBlock, n_bins: int, pieces: int) -> list[CsrBlock]:
    """Return a block as `pieces` with about as many non-zeros, by ranges of bins."""
    if pieces <= 1:
        return [block]
    counts = np.bincount(block.indices, minlength=n_bins)
    ends = np.searchsorted(np.cumsum(counts), np.arange(1, pieces) * len(block.data) // pieces)
    bounds = np.unique([0, *(ends + 1), n_bins])
    owner = np.repeat(np.arange(len(block.rows)), np.diff(block.indptr))
    found = []
    for first, last in pairwise(bounds):
        inside = (block.indices >= first) & (block.indices < last)
        indptr = np.zeros(len(block.rows) + 1, np.int64)
        np.cumsum(np.bincount(owner[inside], minlength=len(block.rows)), out=indptr[1:])
        indices, data = block.indices[inside], block.data[inside]
        found.append(replace(block, indptr=indptr, indices=indices, data=data))
    return found


def _one_after_another(parts: list[CscBlock]) -> CscBlock:
    """Return blocks of consecutive ranges of bins as one."""
    begins = np.cumsum([0, *(len(part.data) for part in parts)])
    indptr = [part.indptr[:-1] + begin for part, begin in zip(parts, begins[:-1], strict=True)]
    return CscBlock(
        np.concatenate([part.bins for part in parts]),
        np.concatenate([*indptr, begins[-1:]]).astype(np.int64),
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.data for part in parts]),
    )
