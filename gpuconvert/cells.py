"""Cells of m/z and ion mobility: the columns of the second table, from the blocks of a batch.

A cell is one number, ``m/z bin * n_mobility + mobility bin``, so cells ascend with m/z and
within it with mobility.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.spectra import CsrBlock

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CellBlock:
    """Non-zeros sorted by cell; rows ascend within a cell.

    bins : (n_filled,) int64, cells with at least one non-zero, strictly ascending
    counts : (n_filled,) int32, non-zeros of each
    rows : (n_nonzero,) int32, output rows
    data : (n_nonzero,) float32
    """

    bins: Longs
    counts: NDArray[np.int32]
    rows: NDArray[np.int32]
    data: NDArray[np.float32]


def gather_cells(blocks: Sequence[CsrBlock], n_mobility: int, output_row: Longs) -> CellBlock:
    """Return the cells of blocks whose rows are ``spectrum * n_mobility + mobility bin``.

    Parameters
    ----------
    blocks
        Resampled onto the m/z axis, in order.
    n_mobility
        Bins of mobility.
    output_row
        (n_spectra,) int64, row of each spectrum; spectra of one row are added up, in
        float64, and rounded once.
    """
    empty = np.zeros(0, np.int64)
    sizes = [np.diff(block.indptr) for block in blocks]
    owner = np.concatenate(
        [empty, *(np.repeat(b.rows, n) for b, n in zip(blocks, sizes, strict=True))]
    )
    index = np.concatenate([empty, *(block.indices for block in blocks)]).astype(np.int64)
    value = np.concatenate([np.zeros(0), *(block.data for block in blocks)])
    cell = index * n_mobility + owner % n_mobility
    row = output_row[owner // n_mobility]
    order = np.lexsort((row, cell))
    cell, row, value = cell[order], row[order], value[order]
    fresh = np.ones(len(cell), bool)
    fresh[1:] = (cell[1:] != cell[:-1]) | (row[1:] != row[:-1])
    sums = np.bincount(np.cumsum(fresh) - 1, weights=value)
    bins, counts = np.unique(cell[fresh], return_counts=True)
    return CellBlock(
        bins, counts.astype(np.int32), row[fresh].astype(np.int32), sums.astype(np.float32)
    )
