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
from pathlib import Path
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator

from benchmarks import gpu_cases
from benchmarks.cases import CASES, stripped_profile, write_case
from benchmarks.gpu_cases import QUICK, Sizes, make_axis, make_batch, make_options
from benchmarks.gpu_frames import frames_section
from benchmarks.gpu_kernels import kernels_section, transfer_section, zero_runs_section
from benchmarks.process import ROOT, size_of
from benchmarks.results import FOLDER, save
from benchmarks.wholes import remove, run_command
from gpuconvert.backends import choose_backend
from gpuconvert.backends.device import DeviceBackend
from gpuconvert.backends.kernel_source import cubin_path, file_of_kernel
from gpuconvert.errors import BackendError
from gpuconvert.spectra import RawBatch

BATCH_FACTORS = (1 / 32, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4)
"""Sizes of batches, in those of `Sizes.batch_bytes`."""

HOST = """
import json
import numpy as np
from benchmarks.gpu_cases import make_axis, make_batch, make_options
from gpuconvert import conversion
from gpuconvert.backends import choose_backend
from gpuconvert.memory import current_rss
sizes = [current_rss()]
backend = choose_backend("cuda")[0]
sizes.append(current_rss())
batch = make_batch(1, lambda n: np.empty(n, np.uint8))
backend.by_bin(backend.resample(batch, make_axis(1000), make_options()), 1000)
sizes.append(current_rss())
print(json.dumps({"before": sizes[0], "opened": sizes[1], "used": sizes[2],
                  "reckoned": backend.base_bytes}))
"""


def host_section() -> dict[str, int]:
    """Return the resident bytes of a process before, with, and after use of, the backend.

    What is between the first and the last is what `base_bytes` of the backend should say.
    """
    done = subprocess.run(
        [sys.executable, "-c", HOST], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: dict[str, int] = json.loads(done.stdout)
    return found


def batches_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return bytes a second of the pipeline by the size of its batches.

    The least size that is near the best is what `batch_bytes` of the backend should say.
    """
    found = {}
    threads = library.SLOTS_PER_DEVICE + 2
    for factor in BATCH_FACTORS:
        backend = DeviceBackend((0,))
        batch = make_batch(int(sizes.batch_bytes * factor), backend.buffer)
        number = max(2 * threads, int(sizes.batches // factor) // 2)
        seconds = _pipeline(backend, [batch] * number, gpu_cases.BINS[0], threads)
        found[str(len(batch.raw))] = number * len(batch.raw) / seconds
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
    pairs = [stripped_profile(gpu_cases.POINTS, rng) for _ in range(spectra)]
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
    for n_bins in gpu_cases.BINS:
        seconds = _pipeline(device, batches, n_bins, library.SLOTS_PER_DEVICE + 2)
        beside = _pipeline(cpu, [batch] * fewer, n_bins, cores)
        found[f"{n_bins} bins"] = {
            "cuda": {"spectra_per_s": spectra / seconds, "bytes_per_s": n_bytes / seconds},
            "cpu": {"spectra_per_s": fewer * len(batch.rows) / beside},
            "scipy, one core": {"spectra_per_s": 1 / _scipy_seconds(n_bins, sizes.scipy_spectra)},
        }
    return found


def compile_section(library: Any) -> dict[str, float]:
    """Return the seconds to have all kernels compiled, in an empty cache and in a filled one."""
    found = {}
    arch = library.CudaDevice(0).arch
    before = os.environ.get("GPUCONVERT_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GPUCONVERT_CACHE_DIR"] = folder
        try:
            for name in ("first", "later"):
                begun = time.perf_counter()
                for file in sorted(set(file_of_kernel().values())):
                    cubin_path(file, arch, library.find_nvrtc)
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


def _move_seconds(files: Sequence[Path], n_bytes: int, folder: Path) -> tuple[float, float]:
    """Return the seconds to read `files`, and to write `n_bytes`, with nothing done to them."""
    block = memoryview(bytearray(16 << 20))
    begun = time.perf_counter()
    for file in files:
        with file.open("rb", buffering=0) as source:
            while source.readinto(block):
                pass
    read = time.perf_counter()
    with (folder / "written").open("wb", buffering=0) as target:
        for at in range(0, n_bytes, len(block)):
            target.write(block[: min(len(block), n_bytes - at)])
    written = time.perf_counter()
    (folder / "written").unlink()
    return read - begun, written - read


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
    moves = [_move_seconds(files, found["cuda"]["store"], work) for _ in range(sizes.repeats)]
    read, write = map(statistics.median, zip(*moves, strict=True))
    found |= {"read_the_input": read, "write_the_output": write}
    found["cuda_over_move"] = found["cuda"]["wall"] / (read + write)
    remove(target)
    return found


def measure(
    library: Any, sizes: Sizes, work: Path, keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """Return all sections, each said and kept as it is done: a device may be lost any time."""
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "host": host_section,
        "compile": lambda: compile_section(library),
        "transfer": lambda: transfer_section(library, sizes),
        "kernels": lambda: kernels_section(library, sizes),
        "zero runs": lambda: zero_runs_section(library, sizes),
        "frames": lambda: frames_section(library, sizes),
        "batches": lambda: batches_section(library, sizes),
        "pipeline": lambda: pipeline_section(library, sizes),
        "run": lambda: run_section(sizes, work),
    }
    found: dict[str, Any] = {"devices": library.describe()}
    for name, section in sections.items():
        begun = time.perf_counter()
        found[name] = section()
        print(f"{name} ({time.perf_counter() - begun:.0f} s)")
        print(json.dumps(found[name], indent=1), flush=True)
        keep(found)
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
    model = re.sub(r"[^a-z0-9]+", "-", library.CudaDevice(0).name.lower()).strip("-")
    path = FOLDER / "gpu" / f"{time.strftime('%Y-%m-%d')}-{model}.json"

    def keep(found: dict[str, Any]) -> None:
        if not chosen.quick:
            save(path, "gpu", found)

    measure(library, QUICK if chosen.quick else Sizes(), chosen.work, keep)
    if not chosen.quick:
        print(f"kept in {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
