"""Frames of a digitizer on a device: what unpacking them takes there, beside one core."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.gpu_cases import Sizes
from benchmarks.gpu_kernels import least_seconds, timed_slot
from gpuconvert import calibration
from gpuconvert.backends import frame_launches
from gpuconvert.packed import Content, Packed
from gpuconvert.spectra import RawBatch

SAMPLES = 400_000
"""Samples of the digitizer."""

FILLED = 20_000
"""Samples of a profile that are not zero, or peaks of all scans of a frame, about."""

SCANS = 900
DISTINCT = 4
"""Different frames; the others repeat them."""

CONTENTS: tuple[Content, ...] = ("samples", "scans")


def _words(content: Content, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """Return the words of one frame, and its peaks."""
    if content == "samples":
        words = np.zeros(SAMPLES, "<u4")
        words[rng.integers(0, SAMPLES, FILLED)] = rng.integers(1, 5000, FILLED)
        return words, int(np.count_nonzero(words))
    scans = [np.unique(rng.integers(0, SAMPLES, FILLED // SCANS)) for _ in range(SCANS)]
    steps = np.concatenate([np.diff(index, prepend=-1) for index in scans])
    pairs = np.stack([steps, rng.integers(1, 5000, len(steps))], axis=1)
    heads = [0, *(2 * len(index) for index in scans[:-1])]
    return np.concatenate([heads, pairs.ravel()]).astype("<u4"), len(steps)


def make_frames(content: Content, n_bytes: int, new: Callable[[int], Any]) -> RawBatch:
    """Return a batch of about `n_bytes` of inflated frames, in a buffer made by `new`."""
    rng = np.random.default_rng(7)
    made = [_words(content, rng) for _ in range(DISTINCT)]
    # As they are stored: all lowest bytes, then all second ones, and so on.
    frames = [words.view(np.uint8).reshape(-1, 4).T.ravel() for words, _ in made]
    rooms = [-(-len(frame) // 8) * 8 for frame in frames]
    n = max(1, n_bytes * DISTINCT // sum(rooms))
    chosen = np.arange(n) % DISTINCT
    sizes = np.array(rooms)[chosen]
    begin = np.cumsum(sizes) - sizes
    raw = new(int(sizes.sum()))
    for at, k in zip(begin.tolist(), chosen.tolist(), strict=True):
        raw[at : at + len(frames[k])] = frames[k]
    peaks = np.array([count for _, count in made])[chosen]
    each = SCANS if content == "scans" else 1
    models = np.zeros((1, calibration.MODEL_SIZE))
    models[0, : calibration.C2] = calibration.MODEL_1, 0.2, 24_864.0, 313.6, 157_424.0
    packed = Packed(
        content=content, path="frames", number=np.arange(n), begin=begin, n_peaks=peaks,
        scan_at=np.arange(n + 1) * each, owner=np.repeat(np.arange(n), each), scale=np.ones(n),
        n_samples=SAMPLES, models=models, model=np.zeros(n, np.int64), factor=np.ones(n),
    )  # fmt: skip
    none = np.zeros(0, np.int64)
    return RawBatch(
        raw, none, none, peaks, np.dtype("<f8"), np.dtype("<f4"), np.arange(n), "profile", packed
    )


def frames_section(library: Any, sizes: Sizes) -> dict[str, Any]:
    """Return seconds of every kernel, and bytes of frames a second, there and on one core."""
    found: dict[str, Any] = {}
    for content in CONTENTS:
        slot = timed_slot(library, 0)
        batch = make_frames(content, sizes.batch_bytes, library.pinned)
        packed: Any = batch.packed
        work = partial(_unpack, slot, batch, packed)
        best, points = least_seconds(library, slot, sizes.repeats, work)
        begun = time.perf_counter()
        wanted = packed.unpack(batch.raw, len(batch.rows))
        host = time.perf_counter() - begun
        found[content] = {
            "frames": len(packed.begin), "bytes": len(batch.raw), "points": len(points) // 12,
            "seconds": best, "bytes_per_s": len(batch.raw) / sum(best.values()),
            "one_core_bytes_per_s": len(batch.raw) / host,
            "agrees": _agrees(points, wanted),
        }  # fmt: skip
        slot.release()
    return found


def _unpack(slot: Any, batch: RawBatch, packed: Packed) -> np.ndarray:
    points, _ = frame_launches.unpack(slot, batch, packed)
    (raw,) = slot.download(points)
    return raw


def _agrees(points: np.ndarray, wanted: Any) -> bool:
    """Return whether m/z and intensities are those of the host, bit for bit."""
    mz, intensity = (
        np.concatenate([
            wanted.raw[at : at + width * count]
            for at, count in zip(begins, wanted.n_points, strict=True)
        ])
        for begins, width in ((wanted.mz_at, 8), (wanted.intensity_at, 4))
    )  # fmt: skip
    return np.array_equal(points, np.concatenate([mz, intensity]))
