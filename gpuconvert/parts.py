"""Finished partitions on disk: one small Zarr group each, present only when complete.

A part is written beside its final name and renamed into place, so a directory
called ``00042`` is always whole. Nothing else records that partition 42 is done.

A part of a CSC result holds ``bins``, ``rows``, ``data`` (see `CscBlock`; rows count from
the first of the part, in 16 bits where they fit) and ``counts``, the entries of each bin;
a part of a CSR result ``row_nnz``, ``indices``, ``data``. Both hold one entry per row of
``stored_tic``, ``source_tic`` and ``outside``, one after the other in ``tics``. Where a
table by ion mobility was asked for, ``cell_bins``, ``cell_counts``, ``cell_rows`` and
``cell_data`` are those of a CSC result whose bins are cells, and ``cell_tic`` has an entry a row.

Each array is one uncompressed chunk: any Zarr reader opens it, and its file is written
and read in slices here without a copy in between. The attributes of the group hold type,
length and block checksums of every array, and a checksum of themselves: what is read is
what was written, or is refused.
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

from gpuconvert.checksums import BLOCK, block_checksums, checksum, first_damaged
from gpuconvert.errors import DamagedPartError, OutputError, PlanError
from gpuconvert.plain_zarr import array_metadata, number_codec
from gpuconvert.provenance import canonical_json

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


def _write_array(folder: Path, values: NDArray[Any]) -> dict[str, Any]:
    """Write one array; return what the group says of it."""
    folder.mkdir(parents=True)
    rows = max(1, len(values))
    metadata = array_metadata(
        values.shape, values.dtype, (rows,), [number_codec(values.dtype)], separator="."
    )
    (folder / "zarr.json").write_text(json.dumps(metadata))
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    raw = np.ascontiguousarray(little).view(np.uint8)
    if len(raw):
        with (folder / CHUNK).open("wb", buffering=0) as file:
            left = memoryview(raw.data)
            while left:
                left = left[file.write(left) :]
    return {"dtype": little.dtype.str, "length": len(values), "crc32c": block_checksums(raw)}


def _seal(attributes: dict[str, Any]) -> int:
    """Return the checksum of the attributes of a part but for itself."""
    said = {name: value for name, value in attributes.items() if name != "crc32c"}
    return checksum(canonical_json(said).encode("ascii"))


def write_part(
    folder: Path, fingerprint: str, summary: PartSummary, arrays: dict[str, NDArray[Any]]
) -> None:
    """Store one finished partition, whole or not at all.

    A part of another fingerprint under the same index is replaced; one of the same
    fingerprint, finished meanwhile by another worker, is kept and this one dropped.
    """
    final = folder / _name(summary.index)
    draft = folder / f"{_name(summary.index)}.{uuid.uuid4().hex}.tmp"
    attributes: dict[str, Any] = {"fingerprint": fingerprint, "summary": summary.to_json()}
    try:
        attributes["arrays"] = {
            name: _write_array(draft / name, values) for name, values in arrays.items()
        }
        attributes["crc32c"] = _seal(attributes)
        group = {"zarr_format": 3, "node_type": "group", "attributes": attributes}
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


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the group of a part says of one array: type, length, checksum of every block."""

    dtype: np.dtype[Any]
    length: int
    sums: list[int]


def _read_group(
    folder: Path, index: int, fingerprint: str
) -> tuple[PartSummary, dict[str, _Stored]] | None:
    try:
        group = json.loads((folder / _name(index) / "zarr.json").read_text())
        attributes = group["attributes"]
        if attributes["fingerprint"] != fingerprint or attributes["crc32c"] != _seal(attributes):
            return None
        arrays = {
            name: _Stored(np.dtype(said["dtype"]), said["length"], said["crc32c"])
            for name, said in attributes["arrays"].items()
        }
        return PartSummary(**attributes["summary"]), arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_summary(folder: Path, index: int, fingerprint: str) -> PartSummary | None:
    """Return the summary of a finished part, or None where there is none of this fingerprint."""
    found = _read_group(folder, index, fingerprint)
    return None if found is None else found[0]


class Part:
    """One finished part, its arrays read by slices; safe to use from several threads."""

    def __init__(self, folder: Path, index: int, fingerprint: str) -> None:
        found = _read_group(folder, index, fingerprint)
        if found is None:
            raise PlanError(
                f"part {index} is missing in {folder} or belongs to another run; "
                f"run 'gpuconvert convert' with index {index}"
            )
        self.summary, self._arrays = found
        self._folder = folder / _name(index)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Return entries [start, stop) of an array; all of it by default.

        Raises
        ------
        DamagedPartError
            Where the bytes around them are not those that were written.
        """
        stored = self._arrays.get(name)
        if stored is None:
            raise DamagedPartError(self._folder, f"part {self.summary.index} has no array {name!r}")
        stop = stored.length if stop is None else stop
        if stop <= start:
            return np.empty(0, stored.dtype)
        size = stored.dtype.itemsize
        first, last = start * size // BLOCK, -(-stop * size // BLOCK)
        begin = first * BLOCK
        raw = np.empty(min(last * BLOCK, stored.length * size) - begin, np.uint8)
        self._fill(name, raw, begin)
        wrong = first_damaged(raw, stored.sums[first:last])
        if wrong is not None:
            raise DamagedPartError(
                self._folder,
                f"{self._folder / name / CHUNK} has other bytes from {begin + wrong * BLOCK} on "
                "than were written there",
            )
        values: NDArray[Any] = raw[start * size - begin : stop * size - begin].view(stored.dtype)
        return values

    def _fill(self, name: str, raw: NDArray[np.uint8], begin: int) -> None:
        """Fill `raw` with the bytes of an array from `begin` on."""
        path = self._folder / name / CHUNK
        try:
            handle = os.open(path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise DamagedPartError(self._folder, f"{path} is gone") from error
        try:
            left, at = memoryview(raw.data), begin
            while left:
                done = os.preadv(handle, [left], at)
                if not done:
                    raise DamagedPartError(
                        self._folder, f"{path} ends at byte {at}, expected {begin + len(raw)}"
                    )
                left, at = left[done:], at + done
        finally:
            os.close(handle)


def sweep(folder: Path) -> None:
    """Remove what an interrupted writer left beside the finished parts."""
    for draft in folder.glob("*.tmp"):
        shutil.rmtree(draft, ignore_errors=True)
