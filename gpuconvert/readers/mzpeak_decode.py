"""The points of a batch of rows of a signal member: contiguous m/z, marks and intensities.

A null m/z is a marked zero, whatever the column's transform says: its m/z is not in
the file, its intensity is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from gpuconvert.compiled import compiled
from gpuconvert.errors import SourceError
from gpuconvert.readers import numpress
from gpuconvert.readers.mzpeak_arrays import (
    GRID,
    NUMPRESS_LINEAR,
    NUMPRESS_PIC,
    NUMPRESS_SLOF,
    SignalLayout,
)

Ints = NDArray[np.int64]

NO_COMPRESSION, DELTA = "MS:1000576", "MS:1003089"
LINEAR_GRID, SQRT_GRID = "MS:1003824", "MS:1003825"

PLAIN_CODE, DELTA_CODE, NUMPRESS_CODE, GRID_CODE = range(4)
_CODES = {NO_COMPRESSION: PLAIN_CODE, DELTA: DELTA_CODE, NUMPRESS_LINEAR: NUMPRESS_CODE,
          GRID: GRID_CODE}  # fmt: skip

FITS = -1
"""No chunk has another number of m/z than of intensities."""


@dataclass(frozen=True, slots=True)
class Space:
    """Where points go: equally long stretches of three arrays.

    mz, intensity : of the dtypes of the layout
    marked : bool, set where the m/z is not in the file
    """

    mz: NDArray[Any]
    intensity: NDArray[Any]
    marked: NDArray[np.bool_]

    def part(self, first: int, last: int) -> Space:
        """Return the stretch of points [first, last)."""
        own = slice(first, last)
        return Space(self.mz[own], self.intensity[own], self.marked[own])


def numbers(array: pa.Array) -> NDArray[Any]:
    """Return the values of a column of numbers, 0 where null, without a copy where possible."""
    if array.null_count:
        array = array.fill_null(0)
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values


def nulls(array: pa.Array) -> NDArray[np.bool_] | None:
    """Return where a column is null, or None where it is nowhere."""
    if not array.null_count:
        return None
    found: NDArray[np.bool_] = array.is_null().to_numpy(zero_copy_only=False)
    return found


@dataclass(frozen=True, slots=True)
class Lists:
    """A column of lists: row k is values [offsets[k], offsets[k + 1])."""

    values: NDArray[Any]
    null: NDArray[np.bool_] | None
    offsets: Ints

    @property
    def counts(self) -> Ints:
        """Length of every list; (n_rows,) int64."""
        return np.diff(self.offsets)


def lists(array: pa.Array) -> Lists:
    """Return a column of lists of numbers as flat values and offsets."""
    if not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
        raise SourceError(f"a column of type {array.type} was found, expected lists of numbers")
    offsets = array.offsets.to_numpy().astype(np.int64)
    if len(array) == 0:
        return Lists(np.zeros(0, np.uint8), None, np.zeros(1, np.int64))
    first = int(offsets[0])
    values = array.values.slice(first, int(offsets[-1]) - first)
    return Lists(numbers(values), nulls(values), offsets - first)


def chunk_counts(layout: SignalLayout, rows: pa.StructArray) -> Ints:
    """Return the points of every chunk, from its intensities; (n_rows,) int64."""
    if layout.intensity:
        return lists(rows.field(layout.intensity)).counts
    packed = lists(rows.field(layout.intensity_bytes))
    if layout.packing == NUMPRESS_PIC:
        return numpress.count_pic(_bytes(packed), packed.offsets)
    return numpress.count_slof(packed.offsets)


def decode_points(layout: SignalLayout, rows: pa.StructArray, space: Space) -> None:
    """Put the points of rows of the point layout into `space`, which is as long."""
    mz, intensity = rows.field(layout.mz), rows.field(layout.intensity)
    space.mz[:] = numbers(mz)
    space.intensity[:] = numbers(intensity)
    marked = nulls(mz)
    if marked is not None:
        space.marked[:] = marked


def decode_chunks(layout: SignalLayout, rows: pa.StructArray, counts: Ints, space: Space) -> None:
    """Put the points of chunks into `space`, which is as long as `counts` add up to.

    Raises
    ------
    SourceError
        Where a chunk is encoded in a way that is not known, or does not have as many m/z
        as intensities. Its message begins with what is wrong, for the caller to place.
    """
    places = np.cumsum(counts) - counts
    _unpack_intensity(layout, rows, (places, counts), space.intensity)
    codes = _encodings(rows.field(layout.encoding))
    values = lists(rows.field(layout.mz))
    absent = np.zeros(0, bool) if values.null is None else values.null
    starts = numbers(rows.field(layout.mz_start)).astype(space.mz.dtype)
    wrong = _decode_values(
        codes, starts, values.values.astype(space.mz.dtype, copy=False), absent, values.offsets,
        places, counts, space.mz, space.marked,
    )  # fmt: skip
    if wrong != FITS:
        raise SourceError(
            f"a chunk from m/z {starts[wrong]:g} has {values.counts[wrong]} m/z after its first, "
            f"but {counts[wrong]} intensities"
        )
    _decode_numpress(layout, rows, codes, (places, counts), space)
    _decode_grid(layout, rows, codes, (places, counts), space)


def _bytes(packed: Lists) -> NDArray[np.uint8]:
    return np.ascontiguousarray(packed.values.astype(np.uint8, copy=False))


def _unpack_intensity(
    layout: SignalLayout, rows: pa.StructArray, where: tuple[Ints, Ints], out: NDArray[Any]
) -> None:
    if layout.intensity:
        out[:] = lists(rows.field(layout.intensity)).values
        return
    packed = lists(rows.field(layout.intensity_bytes))
    decode = {NUMPRESS_SLOF: numpress.slof, NUMPRESS_PIC: numpress.pic}[layout.packing]
    wrong = decode(_bytes(packed), packed.offsets, *where, out)
    if wrong != numpress.GOOD:
        raise SourceError(
            f"a chunk of {where[1][wrong]} points has {packed.counts[wrong]} bytes of packed "
            f"intensities ({layout.packing}), which is not what they take"
        )


def _encodings(column: pa.Array) -> NDArray[np.int8]:
    """Return how each chunk is encoded; (n_rows,) int8."""
    words = pc.dictionary_encode(column)
    names = words.dictionary.to_pylist()
    unknown = [name for name in names if name not in _CODES]
    if unknown or words.null_count:
        raise SourceError(
            f"a chunk has the encoding {unknown[0] if unknown else 'null'}, which is not known "
            f"(known are {', '.join(_CODES)}); export it with one of them"
        )
    table = np.array([_CODES[name] for name in names], np.int8)
    place: Ints = words.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return table[place]


@compiled
def _decode_values(
    codes: NDArray[np.int8], starts: Any, values: Any, absent: NDArray[np.bool_],  # noqa: ANN401 - floats of either size
    offsets: Ints, places: Ints, counts: Ints, mz: Any, marked: NDArray[np.bool_],  # noqa: ANN401
) -> int:  # fmt: skip
    """Decode plain and delta chunks; return the first whose lengths differ, or FITS.

    A list one shorter than its intensities leaves out the first m/z, which is that of
    the start; a list as long opens with a null. What follows a null is absolute.
    """
    some = len(absent) > 0
    for row in range(len(codes)):
        if codes[row] > DELTA_CODE:
            continue
        begin, end, to = offsets[row], offsets[row + 1], places[row]
        if counts[row] == 0 and end == begin:
            continue
        fresh = True
        now = starts[row]
        if end - begin + 1 == counts[row]:
            mz[to] = now
            to += 1
            fresh = False
        elif end - begin != counts[row]:
            return row
        for place in range(begin, end):
            if some and absent[place]:
                mz[to] = 0
                marked[to] = True
                fresh = True
            else:
                now = values[place] if fresh or codes[row] == PLAIN_CODE else now + values[place]
                mz[to] = now
                fresh = False
            to += 1
    return FITS


def _decode_numpress(
    layout: SignalLayout, rows: pa.StructArray, codes: NDArray[np.int8],
    where: tuple[Ints, Ints], space: Space,
) -> None:  # fmt: skip
    chosen = np.flatnonzero(codes == NUMPRESS_CODE)
    if not len(chosen):
        return
    if not layout.mz_bytes:
        raise SourceError("a chunk is encoded by Numpress, but no column has its bytes")
    packed = lists(rows.field(layout.mz_bytes))
    wrong = numpress.linear(_bytes(packed), packed.offsets, chosen, *where, space.mz)
    if wrong != numpress.GOOD:
        raise SourceError(
            f"a chunk of {where[1][wrong]} points has {packed.counts[wrong]} bytes of Numpress "
            "m/z, which is not what they take"
        )
    # Numpress knows no nulls: old writers put a 0 where they meant one.
    inside = np.repeat(codes == NUMPRESS_CODE, where[1])
    space.marked[inside] |= space.mz[inside] == 0


def _decode_grid(
    layout: SignalLayout, rows: pa.StructArray, codes: NDArray[np.int8],
    where: tuple[Ints, Ints], space: Space,
) -> None:  # fmt: skip
    """Decode chunks on a grid: (a + b i) / s, or (a + b i)^2 / s, i kept as differences."""
    chosen = np.flatnonzero(codes == GRID_CODE)
    if not len(chosen):
        return
    if not layout.mz_grid:
        raise SourceError("a chunk is encoded on a grid, but no column has its positions")
    grid = rows.field(layout.mz_grid)
    kinds = grid.field("grid_type")
    unknown = set(pc.unique(kinds.take(pa.array(chosen))).to_pylist()) - {LINEAR_GRID, SQRT_GRID}
    if unknown:
        raise SourceError(
            f"a chunk lies on a grid of type {min(map(str, unknown))}, which is not known (known "
            f"are {LINEAR_GRID} and {SQRT_GRID}); export it with another encoding"
        )
    indices, parameters = lists(grid.field("indices")), lists(grid.field("parameters"))
    square = pc.equal(kinds, SQRT_GRID).fill_null(False).to_numpy(zero_copy_only=False)
    wrong = _decode_steps(
        chosen, square, _grid_terms(parameters, chosen), indices.values.astype(np.int64),
        indices.offsets, *where, space.mz,
    )  # fmt: skip
    if wrong != FITS:
        raise SourceError(
            f"a chunk has {indices.counts[wrong]} grid positions, but {where[1][wrong]} intensities"
        )


@compiled
def _decode_steps(
    chosen: Ints, square: NDArray[np.bool_], terms: NDArray[np.float64], steps: Ints,
    offsets: Ints, places: Ints, counts: Ints, mz: Any,  # noqa: ANN401 - floats of either size
) -> int:  # fmt: skip
    """Decode chunks on a grid; return the first whose lengths differ, or FITS."""
    for row in chosen:
        begin, end = offsets[row], offsets[row + 1]
        if end - begin != counts[row]:
            return int(row)
        a, b, scale = terms[row, 0], terms[row, 1], terms[row, 2]
        position = 0
        for k in range(end - begin):
            position += steps[begin + k]
            value = a + b * position
            mz[places[row] + k] = (value * value if square[row] else value) / scale
    return FITS


def _grid_terms(parameters: Lists, chosen: Ints) -> NDArray[np.float64]:
    """Return a, b, s of every chunk; (n_rows, 3) float64, s = 1 where it is left out."""
    terms = np.ones((len(parameters.counts), 3))
    counts = parameters.counts[chosen]
    if not np.isin(counts, (2, 3)).all():
        raise SourceError(
            f"a grid has {int(counts[~np.isin(counts, (2, 3))][0])} parameters, expected 2 or 3"
        )
    for k in range(3):
        has = chosen[counts > k]
        terms[has, k] = parameters.values[parameters.offsets[has] + k]
    return terms
