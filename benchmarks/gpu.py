"""Everything about CUDA devices in one command: ``python -m benchmarks.gpu``, under 8 minutes.

Bytes are counted first, from what each kernel must read and write; then kernels are timed
by events on the device, beside a copy within its memory in the same run. Pipelines and
whole runs are timed by the clock, beside the CPU with all its cores and SciPy, and beside
what moving the same bytes costs. Figures go to ``results/gpu/``; without a device there
are none, and the program says so and ends with 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from benchmarks.cases import CASES, flight_time_axis, stripped_profile, write_case
from benchmarks.process import size_of
from benchmarks.results import FOLDER, save
from benchmarks.wholes import remove, run_command
from gpuconvert.backends import choose_backend
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.host import HostBackend
from gpuconvert.backends.kernel_source import cubin_path, file_of_kernel
from gpuconvert.backends.launches import resample
from gpuconvert.errors import BackendError
from gpuconvert.mass_axis import MassAxis, of_law
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import CsrBlock, RawBatch

POINTS = 30_000
"""Samples of a spectrum before zeros are dropped, as in case z64."""

DISTINCT = 64
"""Different spectra in a batch; the others repeat them."""

STORED = 12
"""Bytes of a point in the file: m/z as float64, intensity as float32."""

BINS = (90_000, 300_000)
LOW, HIGH = 100.0, 1000.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    kernel_bytes : of the batch whose kernels are timed
    batch_bytes : of a batch of the pipeline
    batches : of the pipeline
    scipy_spectra : that SciPy is given
    case : of the whole runs
    repeats : of every timing
    """

    kernel_bytes: int = 1_500_000_000
    batch_bytes: int = 64 << 20
    batches: int = 64
    scipy_spectra: int = 40
    case: str = "z64"
    repeats: int = 5


QUICK = Sizes(2_000_000, 1_000_000, 4, 3, "c64", 2)


def make_axis(n_bins: int) -> MassAxis:
    """Return a flight-time axis of so many bins over the range of the spectra."""
    return of_law("linear-tof", LOW, HIGH, du=(HIGH**0.5 - LOW**0.5) / n_bins)


def make_options() -> ResampleOptions:
    """Return how profiles are resampled by default: counts, pchip, the native step known."""
    mz = flight_time_axis(POINTS)
    slope, intercept = np.polyfit(mz[1:], np.diff(mz), 1, w=1 / np.diff(mz))
    return ResampleOptions("pchip", spacing=SpacingModel(float(intercept), float(slope)))


def make_batch(n_bytes: int, new: Callable[[int], Any]) -> RawBatch:
    """Return a batch of about `n_bytes` of zero-stripped profiles, in a buffer made by `new`."""
    rng = np.random.default_rng(7)
    pairs = [stripped_profile(POINTS, rng) for _ in range(DISTINCT)]
    arrays = [values.view(np.uint8) for pair in pairs for values in pair]
    once = np.concatenate(arrays)
    starts = np.cumsum([0, *(len(values) for values in arrays)])[:-1]
    repeats = max(1, n_bytes // len(once))
    raw = new(repeats * len(once))
    raw.reshape(repeats, len(once))[:] = once
    shift = np.arange(repeats)[:, None] * len(once)
    n = DISTINCT * repeats
    return RawBatch(
        raw, (shift + starts[::2]).ravel(), (shift + starts[1::2]).ravel(),
        np.tile(np.array([len(mz) for mz, _ in pairs], np.int64), repeats),
        np.dtype("<f8"), np.dtype("<f4"), np.arange(n, dtype=np.int64), "profile",
    )  # fmt: skip


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
    for n_bins in BINS:
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


def _pipeline(backend: Any, batches: Sequence[RawBatch], n_bins: int, threads: int) -> float:
    """Return the seconds in which `threads` put all batches on an axis and sort them by bin."""
    axis, options = make_axis(n_bins), make_options()

    def work(batch: RawBatch) -> int:
        return len(backend.by_bin(backend.resample(batch, axis, options), n_bins).data)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, batches[:threads]))
        begun = time.perf_counter()
        list(pool.map(work, batches))
        return time.perf_counter() - begun


def _scipy_seconds(n_bins: int, spectra: int) -> float:
    """Return the seconds of one spectrum by SciPy: the cumulative count, differenced at edges."""
    rng = np.random.default_rng(7)
    edges = np.sqrt(make_axis(n_bins).edges)
    pairs = [stripped_profile(POINTS, rng) for _ in range(spectra)]
    begun = time.perf_counter()
    for mz, counts in pairs:
        root = np.sqrt(mz)
        total = np.cumsum(counts, dtype=np.float64)
        np.diff(PchipInterpolator(root, total)(np.clip(edges, root[0], root[-1])))
    return (time.perf_counter() - begun) / spectra


def pipeline_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return spectra and bytes a second of whole batches: device, all cores, SciPy on one."""
    cores = len(os.sched_getaffinity(0))
    device = DeviceBackend((0,))
    batch = make_batch(sizes.batch_bytes, device.buffer)
    batches = [batch] * sizes.batches
    spectra, n_bytes = sizes.batches * len(batch.rows), sizes.batches * len(batch.raw)
    # The processor is given fewer, for it takes longer.
    fewer = max(cores, sizes.batches // 4)
    cpu, _ = choose_backend("cpu")
    found: dict[str, Any] = {"cores": cores, "batch_bytes": len(batch.raw)}
    for n_bins in BINS:
        seconds = _pipeline(device, batches, n_bins, library.SLOTS_PER_DEVICE + 2)
        beside = _pipeline(cpu, [batch] * fewer, n_bins, cores)
        found[f"{n_bins} bins"] = {
            "cuda": {"spectra_per_s": spectra / seconds, "bytes_per_s": n_bytes / seconds},
            "cpu": {"spectra_per_s": fewer * len(batch.rows) / beside},
            "scipy, one core": {"spectra_per_s": 1 / _scipy_seconds(n_bins, sizes.scipy_spectra)},
        }
    return found


def compile_section() -> dict[str, float]:
    """Return the seconds to have all kernels compiled, in an empty cache and in a filled one."""
    found = {}
    before = os.environ.get("GPUCONVERT_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GPUCONVERT_CACHE_DIR"] = folder
        try:
            for name in ("first", "later"):
                begun = time.perf_counter()
                for file in sorted(set(file_of_kernel().values())):
                    cubin_path(file, 90)
                found[name] = time.perf_counter() - begun
        finally:
            os.environ.pop("GPUCONVERT_CACHE_DIR")
            if before is not None:
                os.environ["GPUCONVERT_CACHE_DIR"] = before
    return found


def stage_overlap(trace: Path) -> dict[str, Any]:
    """Return seconds by stage, their sum, and the wall time that they fill, of one trace."""
    events = [entry for entry in json.loads(trace.read_text())["traceEvents"] if entry["ph"] == "X"]
    seconds: defaultdict[str, float] = defaultdict(float)
    for entry in events:
        seconds[entry["name"]] += entry["dur"] / 1e6
    begun = min((entry["ts"] for entry in events), default=0)
    ended = max((entry["ts"] + entry["dur"] for entry in events), default=0)
    return {
        "stages": dict(seconds), "sum": sum(seconds.values()), "wall": (ended - begun) / 1e6,
    }  # fmt: skip


def _move_seconds(files: Sequence[Path], n_bytes: int, folder: Path) -> float:
    """Return the seconds to read `files` and to write `n_bytes`, with nothing done to them."""
    block = memoryview(bytearray(16 << 20))
    begun = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as source:
            while source.readinto(block):
                pass
    with (folder / "written").open("wb", buffering=0) as target:
        for at in range(0, n_bytes, len(block)):
            target.write(block[: min(len(block), n_bytes - at)])
    took = time.perf_counter() - begun
    (folder / "written").unlink()
    return took


def run_section(sizes: Sizes, work: Path) -> dict[str, Any]:
    """Return the wall time of whole runs by backend, and of moving their bytes alone."""
    source = write_case(CASES[sizes.case], work)
    files = [source, source.with_suffix(".ibd")]
    found: dict[str, Any] = {"case": sizes.case, "input": sum(map(size_of, files))}
    target, trace = work / "gpu.zarr", work / "gpu.trace.json"
    for backend in ("cuda", "cpu"):
        command = run_command(
            source, target, "--backend", backend, "--axis", "linear-tof", "--bins", "90000",
            "--trace", str(trace),
        )  # fmt: skip
        walls = []
        for _ in range(max(2, sizes.repeats // 2)):
            remove(target)
            begun = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            walls.append(time.perf_counter() - begun)
            if done.returncode:
                raise SystemExit(f"the run on {backend} failed: {done.stderr[-2000:]}")
        # The first run compiles kernels and fills the page cache.
        said = json.loads(done.stdout)
        found[backend] = {
            "wall": min(walls[1:]), "said": said["seconds"], "store": size_of(target),
            "overlap": stage_overlap(trace),
        }  # fmt: skip
    moved = statistics.median(
        _move_seconds(files, found["cuda"]["store"], work) for _ in range(sizes.repeats)
    )
    found["move_the_bytes"] = moved
    found["cuda_over_move"] = found["cuda"]["wall"] / moved
    remove(target)
    return found


def measure(library: Any, sizes: Sizes, work: Path) -> dict[str, Any]:
    """Return all sections, each said as it is done."""
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "compile": compile_section,
        "transfer": lambda: transfer_section(library, sizes),
        "kernels": lambda: kernels_section(library, sizes),
        "pipeline": lambda: pipeline_section(library, sizes),
        "run": lambda: run_section(sizes, work),
    }
    found: dict[str, Any] = {"devices": library.describe()}
    for name, section in sections.items():
        begun = time.perf_counter()
        found[name] = section()
        print(f"{name} ({time.perf_counter() - begun:.0f} s)")
        print(json.dumps(found[name], indent=1))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and keep the figures; 1 where there is no device."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    default = Path(tempfile.gettempdir()) / "gpuconvert-benchmarks"
    parser.add_argument("--work", type=Path, default=default, help="folder of cases and stores")
    parser.add_argument("--quick", action="store_true", help="small sizes; keeps no figures")
    chosen = parser.parse_args(arguments)
    try:
        choose_backend("cuda")
    except BackendError as error:
        print(f"no device, nothing was measured: {error}", file=sys.stderr)
        return 1
    library = sys.modules["gpuconvert.backends.cupy_slots"]
    chosen.work.mkdir(parents=True, exist_ok=True)
    found = measure(library, QUICK if chosen.quick else Sizes(), chosen.work)
    if not chosen.quick:
        model = re.sub(r"[^a-z0-9]+", "-", found["devices"][0].partition(",")[0].lower()).strip("-")
        path = FOLDER / "gpu" / f"{time.strftime('%Y-%m-%d')}-{model}.json"
        save(path, "gpu", found)
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
