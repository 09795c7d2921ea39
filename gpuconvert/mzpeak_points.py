"""Spectra as rows of an mzPeak signal member: points one by one, or in chunks of m/z.

Chunks keep differences. In a chunk no m/z is more than twice the first, so that every
difference, and every sum of them, is exact in the type of the m/z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpuconvert.compiled import compiled
from gpuconvert.mzpeak_tables import DELTA, SignalFormat

Ints = NDArray[np.int64]

CHUNK_WIDTH = 50.0
"""Width of a chunk, in Th; chunks below it end at powers of 2."""

FIGURES = ("lowest", "highest", "base_mz", "base_intensity", "tic")


@dataclass(frozen=True, slots=True)
class Points:
    """Spectra as they are to be stored, one after the other.

    index : (n_spectra,) int64, ascending
    indptr : (n_spectra + 1,) int64
    mz, intensity : (n_points,) in the types of the format
    marked : (n_points,) bool, m/z that are not stored
    """

    index: Ints
    indptr: Ints
    mz: NDArray[Any]
    intensity: NDArray[Any]
    marked: NDArray[np.bool_]

    def rows(self, form: SignalFormat) -> pa.Table:
        """Return the rows of a signal member that hold these points."""
        owner = np.repeat(self.index.astype(np.uint64), np.diff(self.indptr))
        arrays = _chunks(self, owner) if form.layout == "chunk" else [
            owner, _with_nulls(self.mz, self.marked), _with_nulls(self.intensity, self.marked),
        ]  # fmt: skip
        kind = form.schema.field(0).type
        fields = [pa.array(array, field.type) if isinstance(array, np.ndarray) else array
                  for array, field in zip(arrays, kind, strict=True)]  # fmt: skip
        column = pa.StructArray.from_arrays(fields, fields=list(kind))
        return pa.Table.from_arrays([column], schema=form.schema)


def _with_nulls(values: NDArray[Any], null: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, mask=null) if null.any() else pa.array(values)


def chunk_heads(owner: NDArray[Any], mz: NDArray[Any], marked: NDArray[np.bool_]) -> Ints:
    """Return where chunks begin; (n_chunks,) int64, ascending.

    A chunk ends with its spectrum, at every multiple of `CHUNK_WIDTH`, and below that at
    every power of 2. Marks stay with the point before them: a pair is never torn, and a
    chunk always opens with a point.
    """
    if not len(mz):
        return np.zeros(0, np.int64)
    place = np.arange(len(mz))
    real = mz.astype(np.float64)[np.maximum.accumulate(np.where(marked, 0, place))]
    octave = np.floor(np.log2(np.maximum(real, 2.0**-1000))) - 2000
    key = np.where(real >= CHUNK_WIDTH, np.floor(real / CHUNK_WIDTH), octave)
    fresh = np.ones(len(mz), bool)
    fresh[1:] = (key[1:] != key[:-1]) | (owner[1:] != owner[:-1])
    return np.flatnonzero(fresh)


def _chunks(points: Points, owner: NDArray[np.uint64]) -> list[pa.Array | NDArray[Any]]:
    """Return the columns of chunks that keep differences."""
    mz, marked = points.mz, points.marked
    heads = chunk_heads(owner, mz, marked)
    tails = np.append(heads[1:], len(mz)) - 1 if len(heads) else heads
    last = np.maximum.accumulate(np.where(marked, 0, np.arange(len(mz))))
    values = mz.copy()
    values[1:] -= mz[:-1]
    after_mark = np.zeros(len(mz), bool)
    after_mark[1:] = marked[:-1]
    values[after_mark] = mz[after_mark]
    inside = np.ones(len(mz), bool)
    inside[heads] = False
    counts = tails - heads + 1
    ends = np.cumsum(counts)
    offsets = np.concatenate([[0], ends])
    return [
        owner[heads], mz[heads], mz[last[tails]],
        pa.LargeListArray.from_arrays(
            pa.array(offsets - np.arange(len(offsets))), _with_nulls(values[inside], marked[inside])
        ),
        pa.DictionaryArray.from_arrays(
            pa.array(np.zeros(len(heads), np.int32)), pa.array([DELTA])
        ).cast(pa.string()),
        pa.LargeListArray.from_arrays(
            pa.array(offsets), _with_nulls(points.intensity, marked)
        ),
    ]  # fmt: skip


@compiled
def figures(indptr: Ints, mz: NDArray[np.float64], intensity: NDArray[Any]) -> NDArray[np.float64]:
    """Return what metadata say of every spectrum; (5, n_spectra) float64, see `FIGURES`.

    NaN where a spectrum has no points, but for its total of 0.
    """
    found = np.full((5, len(indptr) - 1), np.nan)
    for spectrum in range(len(indptr) - 1):
        begin, end = indptr[spectrum], indptr[spectrum + 1]
        total = 0.0
        highest = begin
        for point in range(begin, end):
            total += np.float64(intensity[point])
            if intensity[point] > intensity[highest]:
                highest = point
        if begin < end:
            found[0, spectrum], found[1, spectrum] = mz[begin], mz[end - 1]
            found[2, spectrum], found[3, spectrum] = mz[highest], intensity[highest]
        found[4, spectrum] = total
    return found
