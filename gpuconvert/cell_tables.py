"""The matrix of a second table: pixels by cells of m/z and ion mobility that occur.

It is assembled like the first, from the same parts: what they call ``cell_bins`` is
numbered by its place among all cells of the plane, and takes the part of the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.assemble import parts_of, write_matrix
from gpuconvert.mobility_axis import MobilityAxis
from gpuconvert.parts import Part
from gpuconvert.plan import Plan
from gpuconvert.stages import Monitor

Longs = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class CellResult:
    """What is known of the second matrix of one z plane once it is written.

    z : from 0
    cells : (n_cells,) int64, ``m/z bin * n_mobility + mobility bin``, strictly ascending
    tic : (n_rows,) float64, sums of the stored values
    average : (n_cells,) float64, mean of the rows
    mobility : the bins of 1/K0
    """

    z: int
    cells: Longs
    tic: NDArray[np.float64]
    average: NDArray[np.float64]
    mobility: MobilityAxis


class _CellPart:
    """A part whose bins are cells, numbered by their place among those that occur."""

    def __init__(self, part: Part, cells: Longs) -> None:
        self.summary = part.summary
        self._part = part
        self._cells = cells

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return entries [start, stop) of an array of cells."""
        values = self._part.read(f"cell_{name}", start, stop)
        if name != "bins":
            return values
        return np.searchsorted(self._cells, values).astype(np.int32)


def _occurring(parts: Sequence[Part]) -> Longs:
    """Return the cells that occur in any part, ascending."""
    return reduce(np.union1d, (part.read("cell_bins") for part in parts), np.zeros(0, np.int64))


def assemble_cells(
    plan: Plan, number: int, parts_folder: Path, table: Path, executor: Executor, monitor: Monitor,
    mobility: MobilityAxis,
) -> CellResult:  # fmt: skip
    """Write the matrix by m/z and `mobility` of one z plane, as CSC.

    Other parameters and errors are those of `assemble.assemble_plane`.
    """
    plane = plan.planes[number]
    parts = parts_of(plan, number, parts_folder)
    cells = _occurring(parts)
    shape = (plane.last - plane.first, len(cells))
    sums, _ = write_matrix(
        plan, [_CellPart(part, cells) for part in parts], shape, table, executor, monitor, csc=True
    )
    tic = np.concatenate([part.read("cell_tic") for part in parts])
    return CellResult(plane.z, cells, tic, sums / max(1, shape[0]), mobility)
