"""What the kernels of `kernels/` compute together: their order, arguments and memory.

No arithmetic happens here; `gpuconvert.backends.kernel_queue` says where they run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.frame_launches import unpack
from gpuconvert.backends.kernel_queue import Array, Queue
from gpuconvert.mass_axis import MZ_FLOOR, MassAxis
from gpuconvert.resampling import NARROWEST, SNAP, ResampleOptions
from gpuconvert.spectra import (
    MAX_INTENSITY,
    MAX_MZ,
    CscBlock,
    CsrBlock,
    RawBatch,
    decode,
    from_ragged,
)
from gpuconvert.zero_runs import Stripped

STORED_CODES = {"f4": 0, "f8": 1, "i4": 2, "i8": 3}
"""How `raw.cuh` calls the dtypes it reads; others are read on the host."""

PROBLEM = np.dtype(
    [
        *((name, np.float64) for name in (
            "u0", "du", "a", "b", "low", "high", "threshold", "eps", "gap", "b0", "b1", "b2",
            "fit_low", "fit_high", "tolerance", "disorder", "snap", "narrowest", "mz_floor",
            "max_mz", "max_intensity",
        )),
        ("n_bins", np.int64),
        ("law", np.int32),
        ("linear", np.int32),
    ]
)  # fmt: skip
"""The layout of `Problem` in `problem.cuh`."""

POINT_BYTES = 4 + 8 + 8 + 8 + 1 + 8 + 8 + 8 + 4 + 4 + 8
"""Device memory per point: owner, mz, intensity, position, fault, count, left, right, first,
last, kept."""
NONZERO_BYTES = 4 + 4
SPECTRUM_BYTES = 8 + 8 + 8 + 8 + 8 + 8 + 8 + 1
SORT_BYTES = 4 + 4 + 8 + 8 + 4 + 4
"""Device memory per non-zero of `by_bin`: bin, value, key, the sort's own, row, value."""


ZERO_POINT_BYTES = 8 + 8 + 8 + 1
"""Device memory per point of `strip_zeros`: intensity, kept, place, mark."""
BIN_BYTES = 8
"""Device memory per bin of `by_bin`: where it begins."""


@dataclass(frozen=True, slots=True)
class _Spectra:
    """A batch as kernels see it: columns over points, and over spectra.

    n_spectra, n_points : how many
    problem : PROBLEM
    offset : (n_spectra + 1,) int64
    owner : (n_points,) int32
    mz, intensity, position : (n_points,) float64
    faults : (n_spectra,) uint8
    tic : (n_spectra,) float64
    """

    n_spectra: int
    n_points: int
    problem: Array
    offset: Array
    owner: Array
    mz: Array
    intensity: Array
    position: Array
    faults: Array
    tic: Array


def make_problem(axis: MassAxis, options: ResampleOptions, eps: float) -> NDArray[Any]:
    """Return axis, options and constants as one PROBLEM; (1,)."""
    model = options.spacing
    # A logarithm is within an ulp of the true one, and so within two of its neighbours'.
    largest = max(abs(axis.u0), abs(axis.u0 + axis.n_bins * axis.du))
    disorder = 0.0 if axis.exact else 8 * np.finfo(np.float64).eps * largest / axis.du
    problem = np.zeros(1, PROBLEM)
    problem[0] = (
        axis.u0, axis.du, axis.a, axis.b, axis.low, axis.high, options.threshold, eps,
        options.gap, model.b0, model.b1, model.b2, model.low, model.high, model.tolerance,
        disorder, SNAP, NARROWEST, MZ_FLOOR, MAX_MZ, MAX_INTENSITY,
        axis.n_bins, axis.code, options.method == "linear",
    )  # fmt: skip
    return problem


def readable(batch: RawBatch) -> RawBatch:
    """Return the batch in dtypes that kernels read; rare ones are decoded here."""
    names = batch.mz_dtype.str[1:], batch.intensity_dtype.str[1:]
    if STORED_CODES.keys() >= set(names):
        return batch
    return from_ragged(decode(batch), batch.rows, batch.representation)


def _fetch(queue: Queue, batch: RawBatch) -> tuple[Array, RawBatch]:
    """Return the bytes of a batch where kernels run, and what says where its arrays lie in them.

    Where there are no points there are no bytes either.
    """
    if batch.packed is not None:
        return unpack(queue, batch, batch.packed)
    batch = readable(batch)
    if not batch.n_points.any():
        return None, batch
    with queue.span("h2d"):
        return queue.upload("raw", batch.raw), batch


def _decode(queue: Queue, raw: Array, batch: RawBatch, problem: NDArray[Any]) -> _Spectra:
    n_spectra = len(batch.rows)
    offset = np.zeros(n_spectra + 1, np.int64)
    np.cumsum(batch.n_points, out=offset[1:])
    n_points = int(offset[-1])
    with queue.span("h2d"):
        spectra = _Spectra(
            n_spectra=n_spectra,
            n_points=n_points,
            problem=queue.upload("problem", problem.view(np.uint8)),
            offset=queue.upload("offset", offset),
            owner=queue.empty("owner", n_points, np.int32),
            mz=queue.empty("mz", n_points, np.float64),
            intensity=queue.empty("intensity", n_points, np.float64),
            position=queue.empty("position", n_points, np.float64),
            faults=queue.empty("faults", n_spectra, np.uint8),
            tic=queue.empty("tic", n_spectra, np.float64),
        )
        mz_at = queue.upload("mz_at", batch.mz_at)
        intensity_at = queue.upload("intensity_at", batch.intensity_at)
    codes = (
        np.int32(STORED_CODES[dtype.str[1:]]) for dtype in (batch.mz_dtype, batch.intensity_dtype)
    )
    fault = queue.empty("fault", n_points, np.uint8)
    with queue.span("decode"):
        queue.launch(
            "decode", n_points, spectra.problem, raw, mz_at, intensity_at, spectra.offset,
            np.int64(n_spectra), np.int64(n_points), *codes, spectra.owner, spectra.mz,
            spectra.intensity, spectra.position, fault,
        )  # fmt: skip
        queue.launch(
            "totals", n_spectra, spectra.offset, np.int64(n_spectra), fault, spectra.intensity,
            spectra.faults, spectra.tic,
        )  # fmt: skip
    return spectra


def _merged(queue: Queue, spectra: _Spectra) -> Array:
    count = queue.empty("count", spectra.n_points, np.float64)
    queue.launch(
        "merge", spectra.n_points, spectra.problem, spectra.offset, np.int64(spectra.n_points),
        spectra.owner, spectra.faults, spectra.intensity, spectra.position, count,
    )  # fmt: skip
    return count


def _cells(queue: Queue, spectra: _Spectra, axis: MassAxis) -> tuple[Array, ...]:
    """Return what the kernels of quantity "counts" take first."""
    n = spectra.n_points
    edges = axis.edges if axis.is_listed else np.zeros(1)
    given = (
        spectra.problem, queue.constant(f"edges {axis.sha256}", edges), spectra.offset,
        np.int64(n), spectra.owner, spectra.mz, _merged(queue, spectra), spectra.position,
    )  # fmt: skip
    cut = (
        *(queue.empty(name, n, np.float64) for name in ("left", "right")),
        *(queue.empty(name, n, np.int32) for name in ("first", "last")),
    )
    queue.launch("cut_cells", n, *given, *cut)
    return *given, *cut


def _intervals(queue: Queue, spectra: _Spectra, axis: MassAxis) -> tuple[Array, ...]:
    """Return what the kernels of quantity "height" take first."""
    centres = queue.constant(f"centres {axis.sha256}", axis.centres)
    return (
        spectra.problem, centres, spectra.offset, np.int64(spectra.n_points), spectra.owner,
        spectra.mz, _merged(queue, spectra), spectra.position,
    )  # fmt: skip


def _places(queue: Queue, spectra: _Spectra, axis: MassAxis) -> tuple[Array, ...]:
    """Return what the kernels of method "nearest" take first."""
    n = np.int64(spectra.n_points)
    centres = queue.constant(f"centres {axis.sha256}", axis.centres)
    place = queue.empty("first", spectra.n_points, np.int32)
    queue.launch("find_places", spectra.n_points, spectra.problem, centres, n, spectra.mz, place)
    return (
        spectra.problem, spectra.offset, n, spectra.owner, spectra.intensity, place,
    )  # fmt: skip


def resample(queue: Queue, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
    """Return the spectra of `batch` on `axis`, as `gpuconvert.resampling` defines it."""
    # Of the dtype in the file, whatever the kernels read.
    problem = make_problem(axis, options, batch.precision)
    raw, batch = _fetch(queue, batch)
    if not batch.n_points.any():
        return _empty_block(batch.rows)
    spectra = _decode(queue, raw, batch, problem)
    n_spectra, n_points = spectra.n_spectra, spectra.n_points
    outside = queue.upload("outside", np.zeros((2, n_spectra)))
    kept = queue.empty("kept", n_points + 1, np.int64)
    indptr = queue.empty("indptr", n_spectra + 1, np.int64)
    with queue.span("resample"):
        ends: tuple[Array, ...] = (outside[0], outside[1])
        if options.method == "nearest":
            stem, taken = "places", _places(queue, spectra, axis)
            ends = (spectra.faults, *ends)
        elif options.quantity == "height":
            stem, taken, ends = "intervals", _intervals(queue, spectra, axis), ()
        else:
            stem, taken = "cells", _cells(queue, spectra, axis)
        queue.launch(f"count_{stem}", n_points, *taken, *ends, kept)
        kept = queue.scan(kept)
        queue.launch(
            "row_pointers", n_spectra + 1, spectra.offset, np.int64(n_spectra), kept, indptr
        )
        (rows_begin,) = queue.download(indptr)
        total = int(rows_begin[-1])
        indices = queue.empty("indices", total, np.int32)
        data = queue.empty("data", total, np.float32)
        if total:
            queue.launch(f"emit_{stem}", n_points, *taken, kept, indices, data)
    with queue.span("d2h"):
        bins, values, tic, ends_of, faults = queue.download(
            indices, data, spectra.tic, outside, spectra.faults
        )
    return CsrBlock(batch.rows, rows_begin, bins, values, tic, ends_of[0] + ends_of[1], faults)


def _empty_block(rows: NDArray[np.int64]) -> CsrBlock:
    """Return the block of spectra without points."""
    n = len(rows)
    return CsrBlock(
        rows, np.zeros(n + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32),
        np.zeros(n), np.zeros(n), np.zeros(n, np.uint8),
    )  # fmt: skip


def by_bin(queue: Queue, block: CsrBlock, n_bins: int) -> CscBlock:
    """Return the non-zeros of `block` sorted by bin; rows keep their order within a bin.

    Values are told apart by their place, so that one sort of whole numbers is stable.
    """
    n_values = len(block.data)
    if not n_values:
        return CscBlock(
            np.zeros(0, np.int32), np.zeros(1, np.int64), np.zeros(0, np.int32),
            np.zeros(0, np.float32),
        )  # fmt: skip
    n, bits = np.int64(n_values), np.int32(n_values.bit_length())
    with queue.span("h2d"):
        indices = queue.upload("indices", block.indices)
        data = queue.upload("data", block.data)
        rows, indptr = queue.upload("rows", block.rows), queue.upload("indptr", block.indptr)
    key = queue.empty("key", n_values, np.uint64)
    offset = queue.empty("bin_offset", n_bins + 1, np.int64)
    with queue.span("by_bin"):
        queue.launch("bin_keys", n_values, indices, n, bits, key)
        queue.sort(key)
        queue.launch("bin_offsets", n_bins + 1, key, n, bits, np.int64(n_bins), offset)
        sorted_rows = queue.empty("sorted_rows", n_values, np.int32)
        sorted_data = queue.empty("sorted_data", n_values, np.float32)
        queue.launch(
            "bin_gather", n_values, key, n, bits, rows, indptr, np.int64(len(block.rows)), data,
            sorted_rows, sorted_data,
        )  # fmt: skip
    with queue.span("d2h"):
        begins, to_rows, to_data = queue.download(offset, sorted_rows, sorted_data)
    filled = np.flatnonzero(np.diff(begins))
    starts = np.append(begins[filled], np.int64(n_values))
    return CscBlock(filled.astype(np.int32), starts, to_rows, to_data)


def strip_zeros(queue: Queue, indptr: NDArray[np.int64], intensity: NDArray[Any]) -> Stripped:
    """Return which points stay, and are marked, by `zero_runs.zero_roles`.

    Parameters
    ----------
    indptr
        (n_spectra + 1,) int64; spectrum s owns points [indptr[s], indptr[s + 1]).
    intensity
        (n_points,) of a dtype in STORED_CODES.
    """
    n_points, n_spectra = len(intensity), len(indptr) - 1
    if not n_points:
        return Stripped(np.zeros(0, np.int64), np.zeros(0, bool), np.zeros_like(indptr))
    n, code = np.int64(n_points), np.int32(STORED_CODES[intensity.dtype.str[1:]])
    with queue.span("h2d"):
        bounds = queue.upload("offset", indptr), np.int64(n_spectra)
        values = queue.upload("raw", intensity.view(np.uint8)), code
    first = queue.empty("mz_at", n_spectra, np.int64)
    last = queue.empty("intensity_at", n_spectra, np.int64)
    kept = queue.empty("kept", n_points + 1, np.int64)
    begins = queue.empty("indptr", n_spectra + 1, np.int64)
    with queue.span("zero_runs"):
        queue.launch("find_nonzeros", n_spectra, *bounds, *values, first, last)
        queue.launch("count_zero_runs", n_points, *bounds, n, *values, kept)
        kept = queue.scan(kept)
        queue.launch("row_pointers", n_spectra + 1, *bounds, kept, begins)
        (rows_begin,) = queue.download(begins)
        places = queue.empty("places", int(rows_begin[-1]), np.int64)
        null = queue.empty("fault", int(rows_begin[-1]), np.uint8)
        queue.launch(
            "emit_zero_runs", n_points, *bounds, n, *values, first, last, kept, places, null
        )
    with queue.span("d2h"):
        found, marked = queue.download(places, null)
    return Stripped(found, marked.view(bool), rows_begin)


def halve_image(queue: Queue, image: NDArray[Any]) -> NDArray[Any]:
    """Return an image at half its resolution, by means of two by two pixels.

    image : (n_channels, n_rows, n_columns) uint8, uint16 or float32; the result is
        (n_channels, (n_rows + 1) // 2, (n_columns + 1) // 2), whole numbers rounded to the
        nearest, ties to the even one
    """
    n_channels, n_rows, n_columns = image.shape
    shape = (n_channels, (n_rows + 1) // 2, (n_columns + 1) // 2)
    n = n_channels * shape[1] * shape[2]
    if not n:
        return np.zeros(shape, image.dtype)
    half = queue.empty("half", n, image.dtype)
    kernel = {"u1": "pyramid_u8", "u2": "pyramid_u16", "f4": "pyramid_f32"}[image.dtype.str[1:]]
    queue.launch(
        kernel, n, queue.upload("image", np.ascontiguousarray(image).reshape(-1)),
        np.int64(n_channels), np.int64(n_rows), np.int64(n_columns), half,
    )  # fmt: skip
    (found,) = queue.download(half)
    return found.reshape(shape)
