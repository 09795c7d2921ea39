"""The matrix X of a table, streamed: pointers, indices and values, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import StoreError
from gpuconvert.verification.store import Store, shown

BLOCK = 2**22
"""Non-zeros looked at together: some 150 MB at the peak."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Entries = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Matrix:
    """Where X of a table is, and its shape.

    key : of the group X
    by_bin : whether it is CSC, its pointers running over bins
    indptr : (n_major + 1,) int64, checked
    """

    key: str
    by_bin: bool
    n_obs: int
    n_var: int
    indptr: Ints

    @property
    def n_nonzero(self) -> int:
        """Number of stored entries."""
        return int(self.indptr[-1])


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over X found.

    row_sums : (n_obs,) float64
    row_moments : (n_obs,) float64, sums of value times m/z
    bin_sums : (n_var,) float64
    indptr, bins, values : the sampled rows: row s of the sample owns entries
        [indptr[s], indptr[s + 1]), bins strictly ascending
    """

    row_sums: Floats
    row_moments: Floats
    bin_sums: Floats
    indptr: Ints
    bins: NDArray[np.int32]
    values: Floats


def open_matrix(store: Store, key: str, n_obs: int, n_var: int) -> tuple[str, Matrix]:
    """Return X after checking its shape, types and pointers; StoreError where they are wrong."""
    attributes = store.attributes(key)
    kind = attributes.get("encoding-type")
    if kind not in {"csc_matrix", "csr_matrix"}:
        raise StoreError(f"{key} has encoding {kind!r}, expected csc_matrix or csr_matrix")
    if attributes.get("shape") != [n_obs, n_var]:
        raise StoreError(
            f"{key} has shape {attributes.get('shape')}, but obs has {n_obs} rows and var {n_var}"
        )
    for name, dtype in (("data", "float32"), ("indices", "int32"), ("indptr", "int64")):
        array = store.array(f"{key}/{name}")
        if array.dtype != dtype or array.ndim != 1:
            raise StoreError(
                f"{key}/{name} is {array.dtype} of {array.ndim} dimensions, expected {dtype} of 1"
            )
    by_bin = kind == "csc_matrix"
    indptr = store.values(f"{key}/indptr")
    _check_pointers(store, key, indptr, n_var if by_bin else n_obs)
    words = f"{n_obs:,} x {n_var:,} with {int(indptr[-1]):,} entries, {kind}"
    return words, Matrix(key, by_bin, n_obs, n_var, indptr)


def _check_pointers(store: Store, key: str, indptr: Ints, n_major: int) -> None:
    if len(indptr) != n_major + 1:
        raise StoreError(f"{key}/indptr has {len(indptr)} entries, expected {n_major + 1}")
    hint = store.missing_hint(f"{key}/indptr")
    if indptr[0] != 0:
        raise StoreError(f"{key}/indptr starts at {indptr[0]}, expected 0{hint}")
    falls = np.flatnonzero(indptr[1:] < indptr[:-1])
    if len(falls):
        place = int(falls[0]) + 1
        raise StoreError(
            f"{key}/indptr falls to {indptr[place]} at {place} after {indptr[place - 1]}{hint}"
        )
    lengths = [store.length(f"{key}/{name}") for name in ("data", "indices")]
    if lengths != [int(indptr[-1])] * 2:
        raise StoreError(
            f"{key}/indptr ends at {indptr[-1]}, but data has {lengths[0]} and indices "
            f"{lengths[1]} entries{hint}"
        )


def scan_matrix(store: Store, matrix: Matrix, sample: Ints, centres: Floats) -> tuple[str, Scan]:
    """Check every entry of X and return what they add up to.

    Parameters
    ----------
    store, matrix
        As `open_matrix` returned it.
    sample
        (n_sampled,) int64 rows to keep, ascending.
    centres
        (n_var,) float64, m/z of the bins, Th.

    Raises
    ------
    StoreError
        At the first entry or chunk that is wrong.
    """
    slot = np.full(matrix.n_obs, -1, np.int64)
    slot[sample] = np.arange(len(sample))
    row_sums, row_moments, bin_sums = (
        np.zeros(length) for length in (matrix.n_obs, matrix.n_obs, matrix.n_var)
    )
    kept: list[tuple[Ints, NDArray[np.int32], Floats]] = []
    for rows, bins, values in _checked_blocks(store, matrix):
        row_sums += np.bincount(rows, values, matrix.n_obs)
        row_moments += np.bincount(rows, values * centres[bins], matrix.n_obs)
        bin_sums += np.bincount(bins, values, matrix.n_var)
        wanted = np.flatnonzero(slot[rows] >= 0)
        kept.append((slot[rows[wanted]], bins[wanted], values[wanted].astype(np.float64)))
    found = Scan(row_sums, row_moments, bin_sums, *_by_row(kept, len(sample)))
    return "values above 0, indices in range and in order", found


def _checked_blocks(store: Store, matrix: Matrix) -> Iterator[Entries]:
    """Yield row, bin and value of the entries of X, block by block."""
    data_key, indices_key = f"{matrix.key}/data", f"{matrix.key}/indices"
    missing = store.missing_chunks(data_key)
    if missing:
        raise StoreError(f"chunk file {shown(missing)} is missing or empty, but X holds no zeros")
    data, indices = store.array(data_key), store.array(indices_key)
    step = max(1, BLOCK // data.chunks[0]) * data.chunks[0]
    before = -1
    for first in range(0, matrix.n_nonzero, step):
        last = min(first + step, matrix.n_nonzero)
        values = store.block(data, data_key, first, last)
        minor = store.block(indices, indices_key, first, last)
        _check_values(data_key, values, first)
        _check_indices(store, matrix, minor, first, before)
        before = int(minor[-1])
        major = _majors(matrix.indptr, first, last)
        yield (minor, major, values) if matrix.by_bin else (major, minor, values)


def _majors(indptr: Ints, first: int, last: int) -> NDArray[np.int32]:
    """Return the column (CSC) or row (CSR) of entries [first, last)."""
    start = int(np.searchsorted(indptr, first, "right")) - 1
    stop = int(np.searchsorted(indptr, last, "left"))
    ends = np.clip(indptr[start : stop + 1], first, last)
    counts = ends[1:] - ends[:-1]
    return np.repeat(np.arange(start, stop, dtype=np.int32), counts)


def _check_values(key: str, values: NDArray[np.float32], first: int) -> None:
    good = np.isfinite(values) & (values > 0)
    if not good.all():
        place = int(np.flatnonzero(~good)[0])
        raise StoreError(f"{key} is {values[place]:g} at entry {first + place}, expected above 0")


def _check_indices(
    store: Store, matrix: Matrix, minor: NDArray[np.int32], first: int, before: int
) -> None:
    """Check entries [first, first + len(minor)); `before` is the one before them."""
    key = f"{matrix.key}/indices"
    n_minor = matrix.n_obs if matrix.by_bin else matrix.n_var
    outside = np.flatnonzero((minor < 0) | (minor >= n_minor))
    if len(outside):
        place = int(outside[0])
        raise StoreError(
            f"{key} is {minor[place]} at entry {first + place}, expected 0 to {n_minor - 1}"
        )
    ascends = np.diff(minor, prepend=np.int64(before)) > 0
    within = matrix.indptr[np.searchsorted(matrix.indptr, first) :]
    begins = within[: np.searchsorted(within, first + len(minor))] - first
    ascends[begins] = True
    if not ascends.all():
        place = int(np.flatnonzero(~ascends)[0])
        found = minor[place - 1] if place else before
        line = "column" if matrix.by_bin else "row"
        raise StoreError(
            f"{key} is {minor[place]} after {found} at entry {first + place}, expected to ascend "
            f"within a {line}{store.missing_hint(key)}"
        )


def _by_row(
    kept: list[tuple[Ints, NDArray[np.int32], Floats]], n_sampled: int
) -> tuple[Ints, NDArray[np.int32], Floats]:
    """Return pointers, bins and values of the sampled rows, row after row."""
    indptr = np.zeros(n_sampled + 1, np.int64)
    if not kept:
        return indptr, np.zeros(0, np.int32), np.zeros(0)
    slots, bins, values = (np.concatenate(column) for column in zip(*kept, strict=True))
    np.cumsum(np.bincount(slots, minlength=n_sampled), out=indptr[1:])
    # Blocks come in the order of X: a stable sort leaves the bins of a row ascending.
    order = np.argsort(slots, kind="stable")
    return indptr, bins[order], values[order]
