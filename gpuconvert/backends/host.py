"""The NumPy backend: the definition of `gpuconvert.resampling`, a whole batch at a time.

Everything per point, cell or part of a cell is a column over all spectra, in
ascending order of spectrum and position. Sums go through ``numpy.bincount``, which
adds one after the other, as the definition asks; ``numpy.sum`` adds in pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends.host_parts import (
    Floats,
    Ints,
    Parts,
    Points,
    count_parts,
    find_starts,
    height_parts,
    merge,
    nearest_parts,
    sum_at,
)
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import (
    MAX_MZ,
    CscBlock,
    CsrBlock,
    MemoryUse,
    RawBatch,
    decode,
    find_faults,
    select,
    unpack,
)
from gpuconvert.zero_runs import Stripped, strip, zero_roles

SLICE_POINTS = 1 << 15
"""Points that are resampled at once: their columns stay in the second-level cache."""

POINT_BYTES = 230
NONZERO_BYTES = 110
SPECTRUM_BYTES = 160
FIXED_BYTES = 1 << 16
"""Memory at the peak of `HostBackend.resample` per point, per non-zero, per spectrum and
whatever the batch: tests/unit/test_backends.py holds them against tracemalloc."""


class HostBackend:
    """Resamples with NumPy alone."""

    name = "numpy"
    batch_bytes = 0
    base_bytes = 0

    def resample(self, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
        """Decode the spectra of `batch` and put them on `axis`."""
        batch = unpack(batch)
        shared = None
        if batch.shared_mz and options.method != "nearest":
            # Faulty m/z give positions that nobody asks for.
            mz = decode(select(batch, np.zeros(1, np.int64))).mz
            shared = axis.position(np.clip(mz, 0.0, MAX_MZ))
        slices = _slices(batch.n_points)
        return join_blocks(
            [_resample(select(batch, part), axis, options, shared) for part in slices], batch.rows
        )

    def by_bin(self, block: CsrBlock, n_bins: int) -> CscBlock:  # noqa: ARG002 - of the protocol
        """Sort the non-zeros of `block` by bin; rows keep their order within a bin."""
        order = _stable_order(block.indices)
        indices = block.indices[order]
        rows = np.repeat(block.rows.astype(np.int32), np.diff(block.indptr))
        first = np.flatnonzero(find_starts(indices))
        indptr = np.append(first, len(indices)).astype(np.int64)
        return CscBlock(indices[first], indptr, rows[order], block.data[order])

    def strip_zeros(self, indptr: Ints, intensity: NDArray[Any], rows: Ints) -> Stripped:  # noqa: ARG002
        """Return which points stay, and are marked, by `zero_runs.zero_roles`."""
        return strip(indptr, zero_roles(indptr, intensity))

    def peak_bytes(
        self, n_points: int, n_spectra: int, n_nonzeros: int, largest: int  # noqa: ARG002
    ) -> MemoryUse:  # fmt: skip
        """Return the memory that resampling such a batch takes at its peak."""
        return MemoryUse(
            POINT_BYTES * n_points
            + NONZERO_BYTES * n_nonzeros
            + SPECTRUM_BYTES * n_spectra
            + FIXED_BYTES
        )

    def buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return a buffer that the bytes of batches are best read into."""
        return np.empty(n_bytes, np.uint8)


def _slices(n_points: Ints) -> list[Ints]:
    """Return consecutive spectra in slices of about SLICE_POINTS points."""
    number = np.cumsum(n_points) // SLICE_POINTS
    return np.split(np.arange(len(n_points)), np.flatnonzero(np.diff(number)) + 1)


def join_blocks(blocks: list[CsrBlock], rows: Ints) -> CsrBlock:
    """Return consecutive blocks as one; (n_rows,) int64 are the output rows of all."""
    indptr = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.concatenate([np.diff(block.indptr) for block in blocks]), out=indptr[1:])
    columns = ("indices", "data", "tic", "outside", "faults")
    joined = ([getattr(block, name) for block in blocks] for name in columns)
    return CsrBlock(rows, indptr, *(np.concatenate(column) for column in joined))


def _resample(
    batch: RawBatch, axis: MassAxis, options: ResampleOptions, shared: Floats | None
) -> CsrBlock:
    """Resample one slice; `shared` holds the positions of the m/z that its spectra share."""
    spectra = decode(batch)
    faults = find_faults(spectra)
    owner = np.repeat(np.arange(len(faults)), np.diff(spectra.indptr))
    mz, count = spectra.mz, spectra.intensity
    if faults.any():
        sound = faults[owner] == 0
        owner, mz, count = owner[sound], mz[sound], count[sound]
    tic = sum_at(owner, count, len(faults))
    if options.method == "nearest":
        parts = nearest_parts(owner, mz, count, axis, len(faults))
    else:
        if shared is None:
            position = axis.position(mz)
        else:
            position = np.tile(shared, int((faults == 0).sum()))
        points = merge(Points(owner, mz, count, position))
        if options.quantity == "height":
            parts = height_parts(points, axis, options, len(faults))
        else:
            eps = batch.precision
            parts = count_parts(points, axis, options, eps, len(faults))
    return _block(parts, batch.rows, axis.n_bins, options.threshold, tic, faults)


def _stable_order(indices: NDArray[np.int32]) -> Ints:
    """Return the stable order of non-negative `indices`, in two radix passes of 16 bits."""
    order = np.argsort((indices & 0xFFFF).astype(np.uint16), kind="stable")
    if len(indices) and int(indices.max()) > 0xFFFF:
        order = order[np.argsort((indices[order] >> 16).astype(np.uint16), kind="stable")]
    return order


def _block(
    parts: Parts, rows: Ints, n_bins: int, threshold: float, tic: Floats,
    faults: NDArray[np.uint8],
) -> CsrBlock:  # fmt: skip
    """Return the sums of `parts` by spectrum and bin, those outside set apart."""
    bounds, index, value = parts.bounds, parts.index, parts.value
    below, above = index < 0, index >= n_bins
    outside = np.zeros(len(rows))
    if below.any() or above.any():
        owner = np.repeat(np.arange(len(rows)), np.diff(bounds))
        outside += sum_at(owner[below], value[below], len(rows))
        outside += sum_at(owner[above], value[above], len(rows))
    if not parts.distinct:
        starts = find_starts(index)
        starts[bounds[:-1][bounds[:-1] < len(index)]] = True
        value = sum_at(np.cumsum(starts) - 1, value)
        bounds, index = np.append(0, np.cumsum(starts))[bounds], index[starts]
        below, above = below[starts], above[starts]
    data = value.astype(np.float32)
    kept = np.flatnonzero((data > np.float64(threshold)) & ~below & ~above)
    indptr = np.searchsorted(kept, bounds)
    return CsrBlock(rows, indptr, index[kept].astype(np.int32), data[kept], tic, outside, faults)
