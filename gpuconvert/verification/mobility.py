"""Checks of a table by m/z and ion mobility: the counts of its main table, parted by 1/K0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import StoreError
from gpuconvert.verification.bruker import BrukerOracle
from gpuconvert.verification.checks import TOLERANCE, Ledger
from gpuconvert.verification.elements import check_link, check_places, check_readable, check_shapes
from gpuconvert.verification.entries import Scan, open_matrix, scan_matrix
from gpuconvert.verification.store import Store
from gpuconvert.verification.structure import Table, check_frames, check_tic, read_columns

SUFFIX = "_mobility"
"""What the name of such a table has more than that of its main table."""

ROUNDING = 1e-9
"""Relative error of m/z and 1/K0 in `var`."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cells:
    """The columns of the table.

    mz : (n_cells,) int64, bin of the main table
    mobility : (n_cells,) float64, middle of the bin of 1/K0
    width : of such a bin
    low, high : ends of all bins of 1/K0
    """

    mz: Ints
    mobility: Floats
    width: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class MobilityTable:
    """What was read of a table by mobility that passed its own checks."""

    name: str
    main: Table
    cells: Cells
    scan: Scan


def check_mobility(
    store: Store, name: str, main: Table | None, ledger: Ledger
) -> MobilityTable | None:
    """Check one table against itself and its main table; return it where all can be compared."""
    key = f"tables/{name}"
    if main is None:
        ledger.fail(key, "not checked: the table that it parts is missing or damaged")
        return None
    shape = ledger.run(f"{key} frames", lambda: check_frames(store, key))
    if shape is None:
        return None
    obs = ledger.run(f"{key} columns", lambda: read_columns(store, key))
    if obs is not None:
        ledger.run(f"{key} places", lambda: check_places(store, key, obs, main.z))
        ledger.run(f"{key} shapes", lambda: check_shapes(store, key, obs))
        ledger.run(f"{key} rows", lambda: _check_rows(key, obs, main))
    ledger.run(f"{key} link", lambda: check_link(store, key))
    ledger.run(f"{key} other arrays", lambda: check_readable(store, key))
    cells = ledger.run(f"{key} cells", lambda: _check_cells(store, key, main))
    matrix = ledger.run(f"{key} pointers", lambda: open_matrix(store, f"{key}/X", *shape))
    if cells is None or matrix is None:
        return None
    scan = ledger.run(
        f"{key} entries", lambda: scan_matrix(store, matrix, main.sample, cells.mobility)
    )
    if scan is None:
        return None
    ledger.run(f"{key} tic", lambda: check_tic(store, key, scan))
    ledger.run(f"{key} sums", lambda: _check_sums(key, cells, scan, main))
    return MobilityTable(name, main, cells, scan)


def _check_rows(key: str, obs: dict[str, Floats], main: Table) -> tuple[str, None]:
    """Check that the rows are those of the main table, and their TIC."""
    for column, values in obs.items():
        expected = main.obs[column]
        if len(values) != len(expected):
            raise StoreError(
                f"{key}/obs has {len(values)} rows, but its main table {len(expected)}"
            )
        off = ~(np.abs(values - expected) <= TOLERANCE * np.abs(expected))
        if off.any():
            row = int(np.argmax(off))
            raise StoreError(
                f"{key}/obs/{column} is {values[row]:.9g} in row {row}, but that of its main table "
                f"{expected[row]:.9g}"
            )
    return "those of the main table, and their tic", None


def _check_cells(store: Store, key: str, main: Table) -> tuple[str, Cells]:
    """Check that cells ascend, lie where their numbers say, and that every one is filled."""
    where = f"{key}/uns/mobility_axis"
    low, high = (float(store.values(f"{where}/{end}").item()) for end in ("low", "high"))
    n_bins = int(store.values(f"{where}/n_bins").item())
    if not (0 < low < high and n_bins > 0):
        raise StoreError(f"{where} has {n_bins} bins from {low:g} to {high:g}")
    mz, own = (store.numbers(f"{key}/var/{name}_index").astype(np.int64) for name in
               ("mz", "mobility"))  # fmt: skip
    if len(mz) and not (mz.min() >= 0 and mz.max() < len(main.centres)):
        raise StoreError(f"{key}/var/mz_index names bins that the main table does not have")
    if len(own) and not (own.min() >= 0 and own.max() < n_bins):
        raise StoreError(f"{key}/var/mobility_index names bins that the axis does not have")
    if (np.diff(mz * n_bins + own) <= 0).any():
        place = int(np.argmax(np.diff(mz * n_bins + own) <= 0)) + 1
        raise StoreError(f"{key}/var: cell {place} does not follow the one before it")
    width = (high - low) / n_bins
    middle = (low + width * (own + 0.5)).astype(np.float64)
    for name, expected in (
        ("mz", main.centres[mz]), ("mz_low", main.edges[mz]), ("mz_high", main.edges[mz + 1]),
        ("mobility", middle), ("mobility_low", middle - width / 2),
        ("mobility_high", middle + width / 2),
    ):  # fmt: skip
        found = store.numbers(f"{key}/var/{name}")
        off = ~(np.abs(found - expected) <= ROUNDING * expected)
        if off.any():
            place = int(np.argmax(off))
            raise StoreError(
                f"{key}/var/{name} is {found[place]:.9g} in cell {place}, expected "
                f"{expected[place]:.9g}"
            )
    words = f"{len(mz):,} of {n_bins} bins of 1/K0 from {low:.4g} to {high:.4g}, in order"
    return words, Cells(mz, middle, width, low, high)


def _check_sums(key: str, cells: Cells, scan: Scan, main: Table) -> tuple[str, None]:
    """Check that the cells of an m/z bin add up to it, in all and in every sampled row."""
    n_bins = len(main.centres)
    all_bins = np.arange(n_bins)
    _compare_sums(key, "all rows", _by_bin(cells.mz, scan.bin_sums, n_bins), main.scan.bin_sums)
    for place, row in enumerate(main.sample):
        parted, whole = (
            _by_bin(column[found.bins[own]], found.values[own], n_bins)
            for found, column in ((scan, cells.mz), (main.scan, all_bins))
            for own in [slice(found.indptr[place], found.indptr[place + 1])]
        )
        _compare_sums(key, f"row {row}", parted, whole)
    if (scan.bin_sums <= 0).any():
        raise StoreError(f"{key} has a cell that is empty: {int(np.argmin(scan.bin_sums))}")
    return f"those of the main table, in all and in {len(main.sample):,} rows", None


def _by_bin(bins: Ints, values: Floats, n_bins: int) -> Floats:
    """Return the sum of the values of each bin; (n_bins,)."""
    sums: Floats = np.bincount(bins, values, n_bins).astype(np.float64)
    return sums


def _compare_sums(key: str, rows: str, parted: Floats, whole: Floats) -> None:
    off = ~(np.abs(parted - whole) <= TOLERANCE * whole)
    if off.any():
        column = int(np.argmax(off))
        raise StoreError(
            f"{key}/X holds {parted[column]:.9g} counts in m/z bin {column} of {rows}, but "
            f"its main table {whole[column]:.9g}"
        )


def compare_mobility(table: MobilityTable, oracle: BrukerOracle) -> tuple[str, None]:
    """Check that every cell of sampled rows holds the counts that the source has there."""
    if table.main.recipe.duplicates == "sum":
        return "not compared: several frames of a pixel are added up", None
    place = {int(order): index for index, order in enumerate(oracle.order)}
    for number, row in enumerate(table.main.sample):
        order = int(table.main.obs["acquisition_order"][row])
        if order not in place:
            raise StoreError(f"frame {order} of tables/{table.name} is not in the source")
        own = slice(table.scan.indptr[number], table.scan.indptr[number + 1])
        bins = table.scan.bins[own].astype(np.int64)
        stored = _by_bin(bins, table.scan.values[own], len(table.cells.mz))
        least, unsure = _least(table, *oracle.mobility(place[order]))
        lacking = least * (1 - TOLERANCE) - stored
        worst = int(np.argmax(lacking)) if len(lacking) else 0
        excess = float(stored.sum() - least.sum())
        allowed = TOLERANCE * float(stored.sum())
        if len(lacking) and lacking[worst] > 0:
            raise StoreError(
                f"cell {worst} of row {row} of tables/{table.name} holds {stored[worst]:.9g} "
                f"counts, but the source has {least[worst]:.9g} of that m/z and 1/K0"
            )
        if excess > unsure + allowed:
            raise StoreError(
                f"row {row} of tables/{table.name} holds {excess:.9g} counts more than the source "
                "has in its cells"
            )
    return f"the cells of {len(table.main.sample):,} sampled rows hold its counts", None


def _least(
    table: MobilityTable, mz: Floats, inverse: Floats, counts: Floats
) -> tuple[Floats, float]:
    """Return the counts that surely lie in each cell, and those near the border of one.

    Counts of a cell that the table does not have are neither: they lack in the row's TIC.
    """
    cells, main = table.cells, table.main
    halfway = 0.5 * (main.centres[1:] + main.centres[:-1])
    borders = np.concatenate([main.edges[:1], halfway, main.edges[-1:]])
    n_bins = round((cells.high - cells.low) / cells.width)
    keys = []
    for away in (-ROUNDING, ROUNDING):
        column = np.searchsorted(borders, mz * (1 + away), "right") - 1
        own = np.floor((inverse * (1 + away) - cells.low) / cells.width)
        own = np.clip(own, 0, n_bins - 1).astype(np.int64)
        keys.append(np.where(column < len(main.centres), column, -1) * n_bins + own)
    outside = (mz < borders[0] * (1 - ROUNDING)) | (mz > borders[-1] * (1 + ROUNDING))
    sure = (keys[0] == keys[1]) & ~outside
    middle = np.floor((cells.mobility - cells.low) / cells.width).astype(np.int64)
    known = cells.mz * n_bins + middle
    at = np.minimum(np.searchsorted(known, keys[0]), max(0, len(known) - 1))
    found = sure & (known[at] == keys[0]) if len(known) else np.zeros(len(mz), bool)
    return _by_bin(at[found], counts[found], len(known)), float(counts[~sure & ~outside].sum())
