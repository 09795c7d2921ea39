"""The compiled loops of pipeline and assembly: sums of rows and columns, and placing entries.

They lie apart from their callers because a change in a file that compiled code imports
compiles it anew.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled

Longs = NDArray[np.int64]


@compiled
def row_sums(indptr: NDArray[np.int64], data: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the sum of the values of each row, left to right, in float64."""
    sums = np.zeros(len(indptr) - 1)
    for row in range(len(sums)):
        total = 0.0
        for entry in range(indptr[row], indptr[row + 1]):
            total += np.float64(data[entry])
        sums[row] = total
    return sums


@compiled
def place(
    bins: NDArray[np.int32], counts: NDArray[np.int32], rows: NDArray[Any],
    data: NDArray[np.float32], first_row: int, cursor: Longs, first_bin: int,
    out_rows: NDArray[np.int32], out_data: NDArray[np.float32],
) -> None:  # fmt: skip
    """Put a part's entries where `cursor` says, and move the cursors on.

    Entries whose place is before the unit or behind it belong to another unit.
    """
    size, last = len(out_rows), 0
    for k in range(len(bins)):
        # Places without a sign, as Numba would first ask whether they count from the end.
        bin_ = np.uintp(bins[k] - first_bin)
        place = cursor[bin_]
        first, last = last, last + counts[k]
        shift = place - first
        cursor[bin_] = last + shift
        for entry in range(max(first, -shift), min(last, size - shift)):
            at = np.uintp(entry + shift)
            out_rows[at] = rows[np.uintp(entry)] + first_row
            out_data[at] = data[np.uintp(entry)]


@compiled
def add_by_index(
    indices: NDArray[np.int32], data: NDArray[np.float32], sums: NDArray[np.float64]
) -> None:
    """Add elements to the sums of the columns that `indices` name."""
    for entry in range(len(indices)):
        sums[indices[entry]] += np.float64(data[entry])


@compiled
def add_by_range(
    indptr: Longs, start: int, data: NDArray[np.float32], sums: NDArray[np.float64]
) -> None:
    """Add elements from `start` on to the sums of the columns that own them."""
    column, entry = int(np.searchsorted(indptr, start, side="right")) - 1, 0
    while entry < len(data):
        total = sums[column]
        end = min(indptr[column + 1] - start, len(data))
        for k in range(entry, end):
            total += np.float64(data[k])
        sums[column] = total
        column, entry = column + 1, end
