"""Kernels and copies of a device, timed one by one: what they move, beside what they must."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

import numpy as np

from benchmarks import gpu_cases
from benchmarks.gpu_cases import STORED, Sizes, make_axis, make_batch, make_options
from gpuconvert.backends.host import HostBackend
from gpuconvert.backends.launches import by_bin, resample, strip_zeros
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CsrBlock, RawBatch, select

Found = TypeVar("Found")

MEMORY_OF_A_BYTE = 60
"""Bytes of device memory, about, that one byte of a batch becomes, its values sorted by bin."""


def must_move(kernel: str, points: int, filled: int, values: int) -> int:
    """Return the bytes that a kernel must read and write at least.

    points, filled, values : points, those with a count, values stored
    """
    return {
        # raw -> owner, mz, intensity, position, fault
        "decode": points * (STORED + 4 + 8 + 8 + 8 + 1),
        # fault, intensity
        "totals": points * (1 + 8),
        # owner, intensity, position -> count
        "merge": points * (4 + 8 + 8 + 8),
        # count; owner, mz, position -> left, right, first, last
        "cut_cells": points * 8 + filled * (4 + 8 + 8 + 8 + 8 + 4 + 4),
        # count -> kept; owner, mz, position, left, right, first, last
        "count_cells": points * (8 + 8) + filled * (4 + 8 + 8 + 8 + 8 + 4 + 4),
        # kept; owner, count, mz, position, left, right, first, last -> index, value
        "emit_cells": points * 8 + filled * (4 + 8 + 8 + 8 + 8 + 8 + 4 + 4) + values * 8,
        # in place
        "scan": points * (8 + 8),
        # bin -> key; key -> key; key, value -> row, value
        "bin_keys": values * (4 + 8),
        "sort": values * (8 + 8),
        "bin_gather": values * (8 + 4 + 4 + 4),
    }.get(kernel, 0)


def timed_slot(library: Any, number: int) -> Any:
    """Return a slot with nearly all memory of a device, and the events around what it runs."""
    cp = library.cp

    class Timed(library.CudaSlot):
        """Records an event before and after every launch, scan and sort."""

        @contextmanager
        def timed(self, name: str) -> Iterator[None]:
            events = cp.cuda.Event(), cp.cuda.Event()
            events[0].record(self._stream)
            yield
            events[1].record(self._stream)
            self.events.append((name, events))

        def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
            with self.timed(kernel):
                super().launch(kernel, n_threads, *arguments)

        def scan(self, values: Any) -> Any:
            with self.timed("scan"):
                return super().scan(values)

        def sort(self, values: Any) -> None:
            with self.timed("sort"):
                super().sort(values)

    device = library.CudaDevice(number)
    with device.current():
        slot = Timed(device, int(device.memory()[0] * 0.9))
    slot.events = []
    return slot


def least_seconds(
    library: Any, slot: Any, repeats: int, work: Callable[[], Found]
) -> tuple[dict[str, float], Found]:
    """Return the least seconds of each kernel in so many runs of `work`, and what that gives."""
    best: dict[str, float] = {}
    for _ in range(repeats):
        slot.events.clear()
        with slot.running():
            found = work()
        for kernel, events in slot.events:
            seconds = library.cp.cuda.get_elapsed_time(*events) / 1000
            best[kernel] = min(best.get(kernel, seconds), seconds)
    return best, found


def _copy_bytes_per_s(library: Any, slot: Any, n_bytes: int, repeats: int) -> float:
    """Return bytes a second, read and written, of a copy within the device."""
    cp = library.cp
    times = []
    with slot.running():
        source, target = cp.empty(n_bytes, np.uint8), cp.empty(n_bytes, np.uint8)
        for _ in range(repeats + 1):
            events = cp.cuda.Event(), cp.cuda.Event()
            events[0].record(slot._stream)
            target.data.copy_from_device_async(source.data, n_bytes, slot._stream)
            events[1].record(slot._stream)
            slot._wait()
            times.append(cp.cuda.get_elapsed_time(*events) / 1000)
    return 2 * n_bytes / min(times[1:])


def _kernel_bytes(library: Any, sizes: Sizes) -> int:
    """Return the size of a batch that a device has the memory for, with all that it becomes."""
    return int(min(sizes.kernel_bytes, library.CudaDevice(0).memory()[0] // MEMORY_OF_A_BYTE))


def kernels_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bandwidth of every kernel, of all together, and of a copy within the device."""
    slot = timed_slot(library, 0)
    batch = make_batch(_kernel_bytes(library, sizes), library.pinned)
    points = int(batch.n_points.sum())
    copy = _copy_bytes_per_s(library, slot, max(len(batch.raw) // 2, 1 << 20), sizes.repeats)
    found: dict[str, Any] = {
        "points": points, "raw_bytes": len(batch.raw), "copy_bytes_per_s": copy,
    }  # fmt: skip
    for n_bins in gpu_cases.BINS:
        axis, options = make_axis(n_bins), make_options()
        best, block = least_seconds(
            library, slot, sizes.repeats, partial(resample, slot, batch, axis, options)
        )
        entry = _bandwidths(best, points, len(block.data), copy)
        found[f"{n_bins} bins"] = entry | {"agrees": _agrees(block, batch, axis, options)}
        if n_bins == min(gpu_cases.BINS):
            best, _ = least_seconds(
                library, slot, sizes.repeats, partial(by_bin, slot, block, n_bins)
            )
            found[f"{n_bins} bins, by bin"] = _bandwidths(best, points, len(block.data), copy)
    slot.release()
    return found


def _bandwidths(best: dict[str, float], points: int, values: int, copy: float) -> dict[str, Any]:
    # Every stored point of a stripped profile has a count.
    moved = {kernel: must_move(kernel, points, points, values) for kernel in best}
    return {
        "values": values,
        "kernels": {
            kernel: {
                "seconds": seconds, "must_move": moved[kernel],
                "of_copy": moved[kernel] / seconds / copy,
            }
            for kernel, seconds in best.items()
        },
        "seconds": sum(best.values()),
        "of_copy": sum(moved.values()) / sum(best.values()) / copy,
    }  # fmt: skip


def _agrees(block: CsrBlock, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> bool:
    """Return whether the first spectra are those of the NumPy backend, bit for bit."""
    few = min(4, len(batch.rows))
    wanted = HostBackend().resample(select(batch, np.arange(few)), axis, options)
    n = len(wanted.data)
    return (
        np.array_equal(block.indptr[: few + 1], wanted.indptr)
        and np.array_equal(block.indices[:n], wanted.indices)
        and np.array_equal(block.data[:n], wanted.data)
    )


def zero_runs_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bandwidth of the kernels that find zero runs, one point in ten not zero."""
    slot = timed_slot(library, 0)
    per_spectrum = 10 * gpu_cases.POINTS
    n_spectra = max(1, _kernel_bytes(library, sizes) // (4 * per_spectrum))
    once = np.zeros(per_spectrum, np.float32)
    once[np.random.default_rng(3).integers(0, per_spectrum, gpu_cases.POINTS)] = 1
    values = np.tile(once, n_spectra)
    indptr = np.arange(n_spectra + 1, dtype=np.int64) * per_spectrum
    points = len(values)
    best, stripped = least_seconds(
        library, slot, sizes.repeats, partial(strip_zeros, slot, indptr, values)
    )
    kept = len(stripped.places)
    slot.release()
    # intensity -> kept; kept, intensity of what stays -> place, mark
    moved = {"count_zero_runs": points * (4 + 8), "emit_zero_runs": points * 8 + kept * (4 + 9)}
    return {
        "points": points, "kept": kept, "seconds": best,
        "bytes_per_s": {kernel: n / best[kernel] for kernel, n in moved.items()},
    }  # fmt: skip


def transfer_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bytes a second between pinned host memory and the device, either way."""
    cp = library.cp
    slot = library.open_slots((0,))[0]
    host = library.pinned(sizes.batch_bytes)
    found = {}
    with slot.running():
        there = cp.empty(sizes.batch_bytes, np.uint8)
        for name, move in (
            ("to_device", lambda: there.set(host, stream=slot._stream)),
            ("to_host", lambda: there.get(stream=slot._stream, out=host, blocking=False)),
        ):
            seconds = []
            for _ in range(sizes.repeats + 1):
                begun = time.perf_counter()
                move()
                slot._wait()
                seconds.append(time.perf_counter() - begun)
            found[name] = sizes.batch_bytes / min(seconds[1:])
    return found
