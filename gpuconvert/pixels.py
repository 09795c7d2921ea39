"""Several spectra of one pixel: which output row each belongs to, and their sum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gpuconvert.spectra import Acquisition, CsrBlock


def first_of_pixel(acquisition: Acquisition) -> NDArray[np.bool_]:
    """Return whether each spectrum is the first of its pixel; (n_spectra,) bool."""
    first = np.ones(acquisition.n_spectra, bool)
    same = np.ones(max(0, acquisition.n_spectra - 1), bool)
    for column in (acquisition.x, acquisition.y, acquisition.z):
        same &= column[1:] == column[:-1]
    first[1:] = ~same
    return first


def one_row_per_pixel(acquisition: Acquisition) -> Acquisition:
    """Return the acquisition as its pixels: the first spectrum stands for all of a pixel.

    Numbers of points add up; everything else is that of the first spectrum.
    """
    first = first_of_pixel(acquisition)
    if first.all():
        return acquisition
    starts = np.flatnonzero(first)
    columns = {
        name: getattr(acquisition, name)[starts]
        for name in ("x", "y", "z", "order", "encoding", "polarity")
    }
    region = acquisition.region
    return replace(
        acquisition,
        **columns,
        n_points=np.add.reduceat(acquisition.n_points, starts),
        raw_bytes=np.add.reduceat(acquisition.raw_bytes, starts),
        region=None if region is None else region[starts],
    )


def merge_rows(block: CsrBlock) -> CsrBlock:
    """Return `block` with the spectra of equal rows added up.

    Values add in the order of the spectra, in float64, and are rounded once.
    """
    fresh = np.r_[True, block.rows[1:] != block.rows[:-1]][: len(block.rows)]
    starts = np.flatnonzero(fresh)
    if len(starts) == len(block.rows):
        return block
    group = np.zeros(len(block.rows), np.int64)
    group[starts[1:]] = 1
    group = np.cumsum(group)
    owner = np.repeat(group, np.diff(block.indptr))
    order = np.lexsort((block.indices, owner))
    owner, bins = owner[order], block.indices[order]
    fresh = np.r_[True, (owner[1:] != owner[:-1]) | (bins[1:] != bins[:-1])][: len(bins)]
    cell = np.cumsum(fresh) - 1
    sums = np.bincount(cell, weights=block.data[order].astype(np.float64))
    indptr = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(np.bincount(owner[fresh], minlength=len(starts)), out=indptr[1:])
    return CsrBlock(
        rows=block.rows[starts],
        indptr=indptr,
        indices=bins[fresh],
        data=sums.astype(np.float32),
        tic=np.bincount(group, weights=block.tic).astype(np.float64),
        outside=np.bincount(group, weights=block.outside).astype(np.float64),
        faults=np.bitwise_or.reduceat(block.faults, starts),
    )
