"""The CPU backend: `gpuconvert.resampling` as a walk along each spectrum, compiled by Numba.

Kernels release the GIL and use no fast-math, so that they give the bits of
`gpuconvert.backends.host`; one thread takes one spectrum after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.walk import DTYPE_CODES, walk_batch
from gpuconvert.backends.walk_sort import bucket_shift, transpose
from gpuconvert.backends.walk_types import (
    LINEAR,
    NEAREST,
    PCHIP,
    Axis,
    Columns,
    Rules,
    Source,
)
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CscBlock, CsrBlock, MemoryUse, RawBatch, decode, from_ragged, unpack
from gpuconvert.zero_runs import Ints, Stripped, strip
from gpuconvert.zero_walk import zero_roles

METHOD_CODES = {"pchip": PCHIP, "linear": LINEAR, "nearest": NEAREST}

SPARE = 1.05
"""Room for non-zeros beyond what the spectra so far suggest."""

SCRATCH_BYTES = 136
POINT_BYTES = 40
NONZERO_BYTES = 12
SPECTRUM_BYTES = 64
FIXED_BYTES = 1 << 16
"""Memory at the peak of `JitBackend.resample`: per point of the largest spectrum; per point (to
decode dtypes that the kernels do not); per non-zero (8, and half as much to spare); per
spectrum; and whatever the batch. tests/unit/test_backends.py holds them against tracemalloc."""


class JitBackend:
    """Resamples on the CPU, one spectrum after the other."""

    name = "cpu"
    batch_bytes = 0
    base_bytes = 0

    def resample(self, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
        """Decode the spectra of `batch` and put them on `axis`."""
        batch = unpack(batch)
        source, flat = _source(batch), _axis(axis)
        edges = axis.edges if axis.is_listed else np.zeros(0)
        rules = _rules(options, batch.precision)
        n_spectra = len(batch.rows)
        columns = Columns(
            np.zeros(n_spectra + 1, np.int64), np.zeros(n_spectra), np.zeros(n_spectra),
            np.zeros(n_spectra, np.uint8),
        )  # fmt: skip
        indices, data = np.empty(0, np.int32), np.empty(0, np.float32)
        done = size = 0
        points = np.cumsum(batch.n_points)
        room = int(points[-1]) + 1 if n_spectra else 0
        while done < n_spectra:
            indices, data = _lengthen(indices, size, room), _lengthen(data, size, room)
            done, size, need = walk_batch(
                source, flat, rules, edges, axis.centres, done, size, columns, indices, data
            )
            # As many a point as so far, and what the next spectrum asks for.
            rate = (size + need) / max(int(points[min(done, n_spectra - 1)]), 1)
            room = max(size + need, int(SPARE * rate * points[-1])) + 1
        # A shorter array keeps its place, and nothing else refers to it yet.
        indices.resize(size, refcheck=False)
        data.resize(size, refcheck=False)
        return CsrBlock(batch.rows, columns.indptr, indices, data, *columns[1:])

    def by_bin(self, block: CsrBlock, n_bins: int) -> CscBlock:
        """Sort the non-zeros of `block` by bin; rows keep their order within a bin."""
        bits, shift = block.data.view(np.uint32), bucket_shift(n_bins)
        filled, indptr, rows, bits = transpose(
            block.rows, block.indptr, block.indices, bits, n_bins, shift
        )
        return CscBlock(filled, indptr, rows, bits.view(np.float32))

    def strip_zeros(self, indptr: Ints, intensity: NDArray[Any], rows: Ints) -> Stripped:  # noqa: ARG002
        """Return which points stay, and are marked, by `zero_runs.zero_roles`."""
        return strip(indptr, zero_roles(indptr, intensity))

    def peak_bytes(self, n_points: int, n_spectra: int, n_nonzeros: int, largest: int) -> MemoryUse:
        """Return the memory that resampling such a batch takes at its peak."""
        return MemoryUse(
            SCRATCH_BYTES * largest
            + POINT_BYTES * n_points
            + NONZERO_BYTES * n_nonzeros
            + SPECTRUM_BYTES * n_spectra
            + FIXED_BYTES
        )

    def buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return a buffer that the bytes of batches are best read into."""
        return np.empty(n_bytes, np.uint8)


def _lengthen(values: NDArray[Any], size: int, room: int) -> NDArray[Any]:
    """Return an array of `room` values that begins with the first `size`; the rest is not set."""
    longer = np.empty(room, values.dtype)
    longer[:size] = values[:size]
    return longer


def _axis(axis: MassAxis) -> Axis:
    u0, du, a, b = (float(value) for value in (axis.u0, axis.du, axis.a, axis.b))
    return Axis(axis.code, axis.n_bins, u0, du, a, b, axis.low, axis.high)


def _rules(options: ResampleOptions, eps: float) -> Rules:
    model = options.spacing
    threshold = np.float32(options.threshold)
    if threshold > options.threshold:
        threshold = np.nextafter(threshold, np.float32(-np.inf))
    floats = (
        eps, options.gap, model.b0, model.b1, model.b2, model.low, model.high,
        model.tolerance,
    )  # fmt: skip
    height = options.quantity == "height"
    return Rules(
        METHOD_CODES[options.method], height, threshold, *(float(value) for value in floats)
    )


def _source(batch: RawBatch) -> Source:
    names = batch.mz_dtype.str[1:], batch.intensity_dtype.str[1:]
    shared = batch.shared_mz
    if not DTYPE_CODES.keys() >= set(names):
        batch = from_ragged(decode(batch), batch.rows, batch.representation)
        names = ("f8", "f8")
        shared = False
    mz_code, intensity_code = (DTYPE_CODES[name] for name in names)
    return Source(
        batch.raw, batch.mz_at, batch.intensity_at, batch.n_points, mz_code, intensity_code, shared
    )
