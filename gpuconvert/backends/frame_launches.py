"""What the kernels of `kernels/` compute of packed spectra: `gpuconvert.packed` on a device.

Their points are left where the kernels of `gpuconvert.backends.launches` read them: m/z
as float64, one spectrum after the other, then the intensities as float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.kernel_queue import Array, Queue
from gpuconvert.packed import POINT_BYTES, Packed
from gpuconvert.spectra import RawBatch
from gpuconvert.unpacking import OTHER_SAMPLES

Longs = NDArray[np.int64]

STRETCH = 64
"""Samples that a thread looks at: most of a profile is empty."""

SAMPLE_BYTES = 8 / STRETCH
PEAK_BYTES = 8 + 8 + 8
SCAN_BYTES = 8 + 8 + 1
FRAME_BYTES = 7 * 8
"""Device memory beside that of the points: per sample (what a stretch holds); per peak of
scans (step or point, key, the sort's own); per scan; per frame."""

MOST_POINT_BYTES = POINT_BYTES + PEAK_BYTES
"""Device memory that a point takes at most to be unpacked."""

KEY_BITS = 64


def unpacked_bytes(packed: Packed) -> int:
    """Return the device memory that unpacking takes beside the bytes that are sent."""
    n_frames, n_peaks = len(packed.begin), int(packed.n_peaks.sum())
    needed = POINT_BYTES * n_peaks + FRAME_BYTES * n_frames + packed.models.nbytes
    if packed.content == "samples":
        return needed + int(SAMPLE_BYTES * n_frames * (packed.n_samples + STRETCH))
    if packed.content == "scans":
        return needed + PEAK_BYTES * n_peaks + SCAN_BYTES * len(packed.owner)
    return needed


def key_bits(batch: RawBatch) -> int:
    """Return the bits of the keys by which the peaks of a batch are sorted; at most KEY_BITS do."""
    if batch.packed is None or batch.packed.content != "scans":
        return 0
    return sum(_widths(batch.packed)) + len(batch.rows).bit_length()


def _widths(packed: Packed) -> tuple[int, int]:
    """Return the bits of an index and of the place of a peak."""
    return (packed.n_samples - 1).bit_length(), int(packed.n_peaks.sum()).bit_length()


@dataclass(frozen=True, slots=True)
class _Frames:
    """Packed frames where kernels run.

    packed, n_spectra : how they are packed, and the spectra of the batch
    raw, begin : the bytes of the batch, and where in them each frame begins
    models : the columns models, model and factor of `packed`
    """

    packed: Packed
    n_spectra: int
    raw: Array
    begin: Array
    models: tuple[Array, ...]


def unpack(queue: Queue, batch: RawBatch, packed: Packed) -> tuple[Array, RawBatch]:
    """Return the points of a packed batch on the device, and what says where they lie.

    Where there are none there is no array of them.

    Raises
    ------
    SourceError
        Where a frame is damaged; it says what `Packed.unpack` does.
    """
    if not len(packed.begin):
        return None, _described(batch, np.zeros(len(batch.rows), np.int64))
    with queue.span("h2d"):
        frames = _Frames(
            packed, len(batch.rows), queue.upload("raw", batch.raw),
            queue.upload("begin", packed.begin),
            tuple(queue.upload(name, getattr(packed, name)) for name in (
                "models", "model", "factor",
            )),
        )  # fmt: skip
    find = {"indices": _indices, "samples": _samples, "scans": _scans}[packed.content]
    with queue.span("decode"):
        points, counts = find(queue, frames)
    return points, _described(batch, counts)


def _described(batch: RawBatch, counts: Longs) -> RawBatch:
    """Return a batch of so many points in each spectrum, one after the other, without its bytes."""
    first, total = np.cumsum(counts) - counts, int(counts.sum())
    return replace(
        batch, raw=np.zeros(0, np.uint8), mz_at=8 * first, intensity_at=8 * total + 4 * first,
        n_points=counts, packed=None,
    )  # fmt: skip


def _room(queue: Queue, n_points: int) -> tuple[Array, Array, Array]:
    """Return memory for points, and where in it m/z and intensities go."""
    points = queue.empty("points", POINT_BYTES * n_points, np.uint8)
    middle = 8 * n_points
    return points, points[:middle].view(np.float64), points[middle:].view(np.float32)


def _of_spectra(frames: _Frames) -> Longs:
    """Return the points of all spectra, of which each has one frame or none."""
    counts = np.zeros(frames.n_spectra, np.int64)
    counts[frames.packed.owner] = frames.packed.n_peaks
    return counts


def _indices(queue: Queue, frames: _Frames) -> tuple[Array, Longs]:
    point_at = frames.packed.point_at
    n_points = int(point_at[-1])
    points, mz, intensity = _room(queue, n_points)
    damage = queue.upload("damage", np.zeros(len(point_at) - 1, np.int64))
    queue.launch(
        "unpack_indices", n_points, frames.raw, frames.begin, queue.upload("peak_at", point_at),
        np.int64(len(point_at) - 1), np.int64(frames.packed.n_samples), *frames.models,
        np.int64(n_points), mz, intensity, damage,
    )  # fmt: skip
    (codes,) = queue.download(damage)
    frames.packed.refuse(codes)
    return points, _of_spectra(frames)


def _samples(queue: Queue, frames: _Frames) -> tuple[Array, Longs]:
    packed = frames.packed
    n_frames, each = len(packed.begin), -(-packed.n_samples // STRETCH)
    total = n_frames * each
    sizes = map(np.int64, (n_frames, packed.n_samples, each, STRETCH))
    given = (frames.raw, frames.begin, *sizes)
    kept = queue.empty("kept", total + 1, np.int64)
    queue.launch("count_samples", total, *given, kept)
    kept = queue.scan(kept)
    indptr = queue.empty("indptr", n_frames + 1, np.int64)
    first = queue.upload("scan_at", np.arange(n_frames + 1) * each)
    queue.launch("row_pointers", n_frames + 1, first, np.int64(n_frames), kept, indptr)
    (begins,) = queue.download(indptr)
    packed.refuse(np.where(np.diff(begins) == packed.n_peaks, 0, OTHER_SAMPLES))
    if not begins[-1]:
        return None, _of_spectra(frames)
    points, mz, intensity = _room(queue, int(begins[-1]))
    queue.launch("emit_samples", total, *given, *frames.models, kept, mz, intensity)
    return points, _of_spectra(frames)


def _scans(queue: Queue, frames: _Frames) -> tuple[Array, Longs]:
    packed = frames.packed
    n_peaks, bits = int(packed.n_peaks.sum()), tuple(map(np.int32, _widths(packed)))
    given = (
        frames.raw, frames.begin, queue.upload("scan_at", packed.scan_at),
        queue.upload("peak_at", packed.point_at), np.int64(len(packed.begin)),
    )  # fmt: skip
    key, damage = _peak_keys(queue, frames, given, bits)
    queue.sort(key)
    kept, indptr = _runs(queue, key, n_peaks, frames.n_spectra, bits)
    begins, of_scans = queue.download(indptr, damage)
    packed.refuse(_first_codes(of_scans, packed.scan_at))
    if not begins[-1]:
        return None, np.diff(begins)
    points, mz, intensity = _room(queue, int(begins[-1]))
    queue.launch(
        "emit_runs", n_peaks, *given, queue.upload("scale", packed.scale), *frames.models, key,
        np.int64(n_peaks), *bits, kept, mz, intensity,
    )  # fmt: skip
    return points, np.diff(begins)


def _peak_keys(
    queue: Queue, frames: _Frames, given: tuple[Any, ...], bits: tuple[np.int32, ...]
) -> tuple[Array, Array]:
    """Return the keys of all peaks of frames of scans, and the damage of every scan.

    given : what the kernels of scans take first, the last three of them whence scans and
        peaks begin in each frame, and how many frames there are
    """
    packed = frames.packed
    n_scans, n_peaks = len(packed.owner), int(packed.n_peaks.sum())
    scans, peaks, samples = map(np.int64, (n_scans, n_peaks, packed.n_samples))
    owner = queue.upload("owners", packed.owner)
    sizes = queue.empty("kept", n_scans + 1, np.int64)
    queue.launch("scan_sizes", n_scans, *given, scans, sizes)
    begins = queue.empty("begins", n_scans + 1, np.int64)
    damage = queue.empty("damage", n_scans, np.uint8)
    sums = queue.scan(sizes)
    queue.launch("scan_begins", n_scans + 1, *given[2:], scans, sums, begins, damage)
    steps = queue.empty("kept", n_peaks + 1, np.int64)
    queue.launch("peak_steps", n_peaks, *given, peaks, steps)
    sums = queue.scan(steps)
    queue.launch("check_scans", n_scans, begins, owner, sums, scans, samples, damage)
    key = queue.empty("key", n_peaks, np.uint64)
    queue.launch(
        "peak_keys", n_peaks, begins, owner, scans, sums, peaks, samples,
        np.int64(frames.n_spectra), *bits, key,
    )  # fmt: skip
    return key, damage


def _runs(
    queue: Queue, key: Array, n_peaks: int, n_spectra: int, bits: tuple[np.int32, ...]
) -> tuple[Array, Array]:
    """Return the running sum of points over sorted peaks, and where each spectrum begins in it."""
    peaks, spectra = np.int64(n_peaks), np.int64(n_spectra)
    # The bins of this sort are spectra, and its places are index and place.
    offset = queue.empty("bin_offset", n_spectra + 1, np.int64)
    queue.launch("bin_offsets", n_spectra + 1, key, peaks, np.int32(sum(bits)), spectra, offset)
    kept = queue.empty("kept", n_peaks + 1, np.int64)
    queue.launch("count_runs", n_peaks, key, peaks, spectra, *bits, kept)
    kept = queue.scan(kept)
    indptr = queue.empty("indptr", n_spectra + 1, np.int64)
    queue.launch("row_pointers", n_spectra + 1, offset, spectra, kept, indptr)
    return kept, indptr


def _first_codes(damage: NDArray[np.uint8], scan_at: Longs) -> Longs:
    """Return the smallest code of any scan of each frame; 0 where no scan has one."""
    none = np.iinfo(np.uint8).max
    codes = np.minimum.reduceat(np.where(damage == 0, none, damage), scan_at[:-1])
    return np.where(codes == none, 0, codes).astype(np.int64)
