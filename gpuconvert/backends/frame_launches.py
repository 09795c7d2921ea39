"""What the kernels of `kernels/` compute of packed spectra: `gpuconvert.packed` on a device.

Their points are left where the kernels of `gpuconvert.backends.launches` read them: m/z
as float64, one spectrum after the other, then the intensities as float32.
"""

from __future__ import annotations

from dataclasses import replace
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

SAMPLE_BYTES = 16 / STRETCH
PEAK_BYTES = 8 + 8 + 8 + 8
SCAN_BYTES = 8 + 8 + 1
FRAME_BYTES = 7 * 8
"""Device memory beside that of the points: per sample (what a stretch holds, its sum); per peak
of scans (step or point, its sum, key, the sort's own); per scan; per frame."""

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
        raw = queue.upload("raw", batch.raw)
        begin = queue.upload("begin", packed.begin)
        models = tuple(
            queue.upload(name, getattr(packed, name)) for name in ("models", "model", "factor")
        )
    find = {"indices": _indices, "samples": _samples, "scans": _scans}[packed.content]
    with queue.span("decode"):
        points, counts = find(queue, packed, len(batch.rows), raw, begin, models)
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


def _of_spectra(packed: Packed, counts: Longs, n_spectra: int) -> Longs:
    """Return the counts of frames, each of a spectrum, as those of all spectra."""
    found = np.zeros(n_spectra, np.int64)
    found[packed.owner] = counts
    return found


def _indices(
    queue: Queue, packed: Packed, n_spectra: int, raw: Array, begin: Array,
    models: tuple[Array, ...],
) -> tuple[Array, Longs]:  # fmt: skip
    point_at = packed.point_at
    n_points = int(point_at[-1])
    points, mz, intensity = _room(queue, n_points)
    queue.launch(
        "unpack_indices", n_points, raw, begin, queue.upload("peak_at", point_at),
        np.int64(len(packed.begin)), *models, np.int64(n_points), mz, intensity,
    )  # fmt: skip
    return points, _of_spectra(packed, packed.n_peaks, n_spectra)


def _samples(
    queue: Queue, packed: Packed, n_spectra: int, raw: Array, begin: Array,
    models: tuple[Array, ...],
) -> tuple[Array, Longs]:  # fmt: skip
    n_frames, each = len(packed.begin), -(-packed.n_samples // STRETCH)
    total = n_frames * each
    given = (raw, begin, *map(np.int64, (n_frames, packed.n_samples, each, STRETCH)))
    kept = queue.empty("kept", total + 1, np.int64)
    queue.launch("count_samples", total, *given, kept)
    kept = queue.scan(kept)
    indptr = queue.empty("indptr", n_frames + 1, np.int64)
    first = queue.upload("scan_at", np.arange(n_frames + 1) * each)
    queue.launch("row_pointers", n_frames + 1, first, np.int64(n_frames), kept, indptr)
    (begins,) = queue.download(indptr)
    counts = np.diff(begins)
    packed.refuse(np.where(counts == packed.n_peaks, 0, OTHER_SAMPLES))
    if not begins[-1]:
        return None, _of_spectra(packed, counts, n_spectra)
    points, mz, intensity = _room(queue, int(begins[-1]))
    queue.launch("emit_samples", total, *given, *models, kept, mz, intensity)
    return points, _of_spectra(packed, counts, n_spectra)


def _scans(
    queue: Queue, packed: Packed, n_spectra: int, raw: Array, begin: Array,
    models: tuple[Array, ...],
) -> tuple[Array, Longs]:  # fmt: skip
    peak_at = packed.point_at
    n_frames, n_peaks = np.int64(len(packed.begin)), np.int64(peak_at[-1])
    index_bits, place_bits = map(np.int32, _widths(packed))
    frames = (
        raw, begin, queue.upload("scan_at", packed.scan_at), queue.upload("peak_at", peak_at),
        n_frames,
    )  # fmt: skip
    key, damage = _peak_keys(queue, packed, n_spectra, frames)
    queue.sort(key)
    # The bins of this sort are spectra, and its places are index and place.
    offset = queue.empty("bin_offset", n_spectra + 1, np.int64)
    queue.launch(
        "bin_offsets", n_spectra + 1, key, n_peaks, index_bits + place_bits, np.int64(n_spectra),
        offset,
    )  # fmt: skip
    kept = queue.empty("kept", int(n_peaks) + 1, np.int64)
    queue.launch(
        "count_runs", int(n_peaks), key, n_peaks, np.int64(n_spectra), index_bits, place_bits, kept
    )
    kept = queue.scan(kept)
    indptr = queue.empty("indptr", n_spectra + 1, np.int64)
    queue.launch("row_pointers", n_spectra + 1, offset, np.int64(n_spectra), kept, indptr)
    begins, of_scans = queue.download(indptr, damage)
    packed.refuse(_first_codes(of_scans, packed.scan_at))
    if not begins[-1]:
        return None, np.diff(begins)
    points, mz, intensity = _room(queue, int(begins[-1]))
    queue.launch(
        "emit_runs", int(n_peaks), *frames, queue.upload("scale", packed.scale), *models, key,
        n_peaks, index_bits, place_bits, kept, mz, intensity,
    )  # fmt: skip
    return points, np.diff(begins)


def _peak_keys(
    queue: Queue, packed: Packed, n_spectra: int, frames: tuple[Any, ...]
) -> tuple[Array, Array]:
    """Return the keys of all peaks of frames of scans, and the damage of every scan."""
    scan_at, peak_at, n_frames = frames[2:]
    n_scans, n_peaks = len(packed.owner), int(packed.n_peaks.sum())
    owner = queue.upload("owners", packed.owner)
    sizes = queue.empty("kept", n_scans + 1, np.int64)
    queue.launch("scan_sizes", n_scans, *frames, np.int64(n_scans), sizes)
    begins = queue.empty("begins", n_scans + 1, np.int64)
    damage = queue.empty("damage", n_scans, np.uint8)
    queue.launch(
        "scan_begins", n_scans + 1, scan_at, peak_at, n_frames, np.int64(n_scans),
        queue.scan(sizes), begins, damage,
    )  # fmt: skip
    steps = queue.empty("kept", n_peaks + 1, np.int64)
    queue.launch("peak_steps", n_peaks, *frames, np.int64(n_peaks), steps)
    sums = queue.scan(steps)
    n_samples = np.int64(packed.n_samples)
    queue.launch("check_scans", n_scans, begins, owner, sums, np.int64(n_scans), n_samples, damage)
    key = queue.empty("key", n_peaks, np.uint64)
    queue.launch(
        "peak_keys", n_peaks, begins, owner, np.int64(n_scans), sums, np.int64(n_peaks), n_samples,
        np.int64(n_spectra), *map(np.int32, _widths(packed)), key,
    )  # fmt: skip
    return key, damage


def _first_codes(damage: NDArray[np.uint8], scan_at: Longs) -> Longs:
    """Return the smallest code of any scan of each frame; 0 where no scan has one."""
    none = np.iinfo(np.uint8).max
    codes = np.minimum.reduceat(np.where(damage == 0, none, damage), scan_at[:-1])
    return np.where(codes == none, 0, codes).astype(np.int64)
