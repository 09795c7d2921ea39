"""Finished partitions on disk: one small Zarr group each, present only when complete.

A part is written beside its final name and renamed into place, so a directory
called ``00042`` is always whole. Nothing else records that partition 42 is done.

A part of a CSC result holds ``bins``, ``indptr``, ``rows``, ``data`` (see `CscBlock`;
rows count from the first row of the plane); a part of a CSR result ``row_nnz``,
``indices``, ``data``. Both hold one entry per row of ``stored_tic``, ``source_tic``
and ``outside``.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from gpuconvert.errors import OutputError, PlanError

PART_CHUNK = 2**18
"""Elements of a chunk of a part: slices read in assembly are longer than this."""


@dataclass(frozen=True, slots=True)
class PartSummary:
    """What one part holds.

    index : of the partition
    first, last : output rows, counted from the first row of the plane
    n_nonzeros : stored values
    n_spectra, n_points : converted spectra and their points
    dropped, sorted : points dropped and spectra sorted by ``--repair``
    """

    index: int
    first: int
    last: int
    n_nonzeros: int
    n_spectra: int
    n_points: int
    dropped: int
    sorted: int

    def to_json(self) -> dict[str, int]:
        """Return the summary as plain JSON values."""
        return {name: getattr(self, name) for name in self.__slots__}


def _name(index: int) -> str:
    return f"{index:05d}"


def write_part(
    folder: Path, fingerprint: str, summary: PartSummary, arrays: dict[str, NDArray[Any]]
) -> None:
    """Store one finished partition, whole or not at all.

    A part of another fingerprint under the same index is replaced; one of the same
    fingerprint, finished meanwhile by another worker, is kept and this one dropped.
    """
    final = folder / _name(summary.index)
    draft = folder / f"{_name(summary.index)}.{uuid.uuid4().hex}.tmp"
    try:
        group = zarr.open_group(draft, mode="w", zarr_format=3)
        for name, values in arrays.items():
            chunk = max(1, min(PART_CHUNK, len(values)))
            array = group.create_array(
                name, shape=values.shape, dtype=values.dtype, chunks=(chunk,), compressors=None
            )
            array[...] = values
        group.attrs.update({"fingerprint": fingerprint, "summary": summary.to_json()})
        if final.exists() and read_summary(folder, summary.index, fingerprint) is None:
            shutil.rmtree(final)
        _rename(draft, final)
    except OSError as error:
        raise OutputError(
            error.errno, f"part {summary.index} cannot be written to {folder}: {error.strerror}"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _rename(draft: Path, final: Path) -> None:
    try:
        draft.rename(final)
    except OSError:
        # Another worker renamed the same part first; both hold the same bytes.
        if not final.exists():
            raise


def read_summary(folder: Path, index: int, fingerprint: str) -> PartSummary | None:
    """Return the summary of a finished part, or None where there is none of this fingerprint."""
    path = folder / _name(index)
    if not path.is_dir():
        return None
    try:
        attributes = dict(zarr.open_group(path, mode="r").attrs)
        if attributes.get("fingerprint") != fingerprint:
            return None
        summary: Any = attributes["summary"]
        return PartSummary(**summary)
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Part:
    """One finished part, its arrays read by slices."""

    def __init__(self, folder: Path, index: int, fingerprint: str) -> None:
        summary = read_summary(folder, index, fingerprint)
        if summary is None:
            raise PlanError(
                f"part {index} is missing in {folder} or belongs to another run; "
                f"run 'gpuconvert convert' with index {index}"
            )
        self.summary = summary
        self._group = zarr.open_group(folder / _name(index), mode="r")
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def length(self, name: str) -> int:
        """Return the number of entries of an array."""
        return int(self._array(name).shape[0])

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return entries [start, stop) of an array; all of it by default."""
        array = self._array(name)
        return np.asarray(array[start : array.shape[0] if stop is None else stop])

    def _array(self, name: str) -> zarr.Array[Any]:
        if name not in self._arrays:
            found = self._group[name]
            if not isinstance(found, zarr.Array):
                raise PlanError(f"part {self.summary.index} has no array {name!r}; convert again")
            self._arrays[name] = found
        return self._arrays[name]


def sweep(folder: Path) -> None:
    """Remove what an interrupted writer left beside the finished parts."""
    for draft in folder.glob("*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)
