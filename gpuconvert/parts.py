"""Finished partitions on disk: one small Zarr group each, present only when complete.

A part is written beside its final name and renamed into place, so a directory
called ``00042`` is always whole. Nothing else records that partition 42 is done.

A part of a CSC result holds ``bins``, ``rows``, ``data`` (see `CscBlock`; rows count from
the first of the part, in 16 bits where they fit) and ``counts``, the entries of each bin;
a part of a CSR result ``row_nnz``, ``indices``, ``data``. Both hold one entry per row of
``stored_tic``, ``source_tic`` and ``outside``, one after the other in ``tics``.

Each array is one uncompressed chunk: any Zarr reader opens it, and its file is written
and read in slices here without a copy in between.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import OutputError, PlanError
from gpuconvert.plain_zarr import array_metadata, number_codec

CHUNK = "c.0"
"""File of the one chunk of an array; a dot instead of a folder is one inode less to make."""


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


def _write_array(folder: Path, values: NDArray[Any]) -> None:
    folder.mkdir(parents=True)
    rows = max(1, len(values))
    metadata = array_metadata(values, rows, [number_codec(values)], separator=".")
    (folder / "zarr.json").write_text(json.dumps(metadata))
    if len(values):
        little = values.astype(values.dtype.newbyteorder("<"), copy=False)
        with (folder / CHUNK).open("wb", buffering=0) as file:
            left = memoryview(np.ascontiguousarray(little).view(np.uint8).data)
            while left:
                left = left[file.write(left) :]


def write_part(
    folder: Path, fingerprint: str, summary: PartSummary, arrays: dict[str, NDArray[Any]]
) -> None:
    """Store one finished partition, whole or not at all.

    A part of another fingerprint under the same index is replaced; one of the same
    fingerprint, finished meanwhile by another worker, is kept and this one dropped.
    """
    final = folder / _name(summary.index)
    draft = folder / f"{_name(summary.index)}.{uuid.uuid4().hex}.tmp"
    attributes = {"fingerprint": fingerprint, "summary": summary.to_json()}
    group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    try:
        for name, values in arrays.items():
            _write_array(draft / name, values)
        (draft / "zarr.json").write_text(json.dumps(group))
        if final.exists() and read_summary(folder, summary.index, fingerprint) is None:
            shutil.rmtree(final)
        _rename(draft, final)
    except OSError as error:
        raise OutputError(
            error.errno,
            f"part {summary.index} cannot be written to {folder}: {error.strerror}; make room or "
            "name another --temp-dir, and run the same command again",
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
    try:
        group = json.loads((folder / _name(index) / "zarr.json").read_text())
        attributes = group["attributes"]
        if attributes["fingerprint"] != fingerprint:
            return None
        return PartSummary(**attributes["summary"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Part:
    """One finished part, its arrays read by slices; safe to use from several threads."""

    def __init__(self, folder: Path, index: int, fingerprint: str) -> None:
        summary = read_summary(folder, index, fingerprint)
        if summary is None:
            raise PlanError(
                f"part {index} is missing in {folder} or belongs to another run; "
                f"run 'gpuconvert convert' with index {index}"
            )
        self.summary = summary
        self._folder = folder / _name(index)
        self._arrays: dict[str, tuple[np.dtype[Any], int]] = {}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return entries [start, stop) of an array; all of it by default."""
        dtype, length = self._describe(name)
        stop = length if stop is None else stop
        values = np.empty(stop - start, dtype)
        if not len(values):
            return values
        path = self._folder / name / CHUNK
        handle = os.open(path, os.O_RDONLY)
        try:
            left, at = values.view(np.uint8).data, start * dtype.itemsize
            while left:
                done = os.preadv(handle, [left], at)
                if not done:
                    raise PlanError(
                        f"{path} ends at byte {at}, expected {length * dtype.itemsize}; "
                        f"remove {self._folder} and run the same command again"
                    )
                left, at = left[done:], at + done
        finally:
            os.close(handle)
        return values

    def _describe(self, name: str) -> tuple[np.dtype[Any], int]:
        """Return dtype and length of an array."""
        if name not in self._arrays:
            try:
                found = json.loads((self._folder / name / "zarr.json").read_text())
            except (OSError, ValueError) as error:
                raise PlanError(
                    f"part {self.summary.index} has no array {name!r}; "
                    f"remove {self._folder} and run the same command again"
                ) from error
            dtype = np.dtype(found["data_type"]).newbyteorder("<")
            self._arrays[name] = dtype, int(found["shape"][0])
        return self._arrays[name]


def sweep(folder: Path) -> None:
    """Remove what an interrupted writer left beside the finished parts."""
    for draft in folder.glob("*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)
