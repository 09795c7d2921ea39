"""Kernels and copies of a device, timed one by one: what they move, beside what they must."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import gpu_cases
from benchmarks.gpu_cases import STORED, Sizes, make_axis, make_batch, make_options
from gpuconvert.backends.host import HostBackend
from gpuconvert.backends.launches import resample, strip_zeros
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CsrBlock, RawBatch


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
    }.get(kernel, 0)


def _timed_slot(library: Any, number: int) -> Any:
    """Return a slot with nearly all memory of a device, and the milliseconds of its kernels."""
    cp = library.cp

    class Timed(library.CudaSlot):
        """Records an event before and after every launch."""

        def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:
            events = cp.cuda.Event(), cp.cuda.Event()
            events[0].record(self._stream)
            super().launch(kernel, n_threads, *arguments)
            events[1].record(self._stream)
            self.events.append((kernel, events))

    device = library.CudaDevice(number)
    with device.current():
        slot = Timed(device, int(device.memory()[0] * 0.9))
    slot.events = []
    return slot


def kernels_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bandwidth of every kernel, of all together, and of a copy within the device."""
    cp = library.cp
    slot = _timed_slot(library, 0)
    batch = make_batch(sizes.kernel_bytes, library.pinned)
    points = int(batch.n_points.sum())
    found: dict[str, Any] = {"points": points, "raw_bytes": len(batch.raw)}
    copied = max(sizes.kernel_bytes // 2, 1 << 20)
    with slot.running():
        source, target = cp.empty(copied, np.uint8), cp.empty(copied, np.uint8)
        times = []
        for _ in range(sizes.repeats + 1):
            events = cp.cuda.Event(), cp.cuda.Event()
            events[0].record(slot._stream)
            target.data.copy_from_device_async(source.data, copied, slot._stream)
            events[1].record(slot._stream)
            slot._wait()
            times.append(cp.cuda.get_elapsed_time(*events) / 1000)
        del source, target
    copy = 2 * copied / min(times[1:])
    found["copy_bytes_per_s"] = copy
    for n_bins in gpu_cases.BINS:
        axis, options = make_axis(n_bins), make_options()
        best: dict[str, float] = {}
        block = None
        for _ in range(sizes.repeats):
            slot.events.clear()
            with slot.running():
                block = resample(slot, batch, axis, options)
            for kernel, events in slot.events:
                seconds = cp.cuda.get_elapsed_time(*events) / 1000
                best[kernel] = min(best.get(kernel, seconds), seconds)
        assert block is not None
        _check(block, batch, axis, options)
        # Every stored point of a stripped profile has a count.
        moved = {kernel: must_move(kernel, points, points, len(block.data)) for kernel in best}
        found[f"{n_bins} bins"] = {
            "values": len(block.data),
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
    slot.release()
    return found


def _check(block: CsrBlock, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> None:
    """Stop where the first spectra are not those of the NumPy backend, bit for bit."""
    few = min(4, len(batch.rows))
    part = RawBatch(
        batch.raw, batch.mz_at[:few], batch.intensity_at[:few], batch.n_points[:few],
        batch.mz_dtype, batch.intensity_dtype, batch.rows[:few], batch.representation,
    )  # fmt: skip
    wanted = HostBackend().resample(part, axis, options)
    n = len(wanted.data)
    if not (
        np.array_equal(block.indptr[: few + 1], wanted.indptr)
        and np.array_equal(block.indices[:n], wanted.indices)
        and np.array_equal(block.data[:n], wanted.data)
    ):
        raise SystemExit("the device does not give the numbers of the numpy backend")


def zero_runs_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bandwidth of the kernels that find zero runs, one point in ten not zero."""
    cp = library.cp
    slot = _timed_slot(library, 0)
    per_spectrum = 10 * gpu_cases.POINTS
    n_spectra = max(1, sizes.kernel_bytes // (4 * per_spectrum))
    once = np.zeros(per_spectrum, np.float32)
    once[np.random.default_rng(3).integers(0, per_spectrum, gpu_cases.POINTS)] = 1
    values = np.tile(once, n_spectra)
    indptr = np.arange(n_spectra + 1, dtype=np.int64) * per_spectrum
    points = len(values)
    best: dict[str, float] = {}
    kept = 0
    for _ in range(sizes.repeats):
        slot.events.clear()
        with slot.running():
            kept = len(strip_zeros(slot, indptr, values).places)
        for kernel, events in slot.events:
            seconds = cp.cuda.get_elapsed_time(*events) / 1000
            best[kernel] = min(best.get(kernel, seconds), seconds)
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
