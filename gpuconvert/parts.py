"""Finished partitions on disk: one small Zarr array each, present only when complete.

A part is written beside its final name and renamed into place, so a directory
called ``00042`` is always whole. Nothing else records that partition 42 is done.

A part of a CSC result holds ``bins``, ``rows``, ``data`` (see `CscBlock`; rows count from
the first of the part, in 16 bits where they fit) and ``counts``, the entries of each bin;
a part of a CSR result ``row_nnz``, ``indices``, ``data``. Both hold one entry per row of
``stored_tic``, ``source_tic`` and ``outside``, one after the other in ``tics``. Where a
table by ion mobility was asked for, ``cell_bins``, ``cell_counts``, ``cell_rows`` and
``cell_data`` are those of a CSC result whose bins are cells, and ``cell_tic`` has an entry a row.

Their bytes follow each other in one uncompressed chunk, as every further file costs as much
time as 2 MB of values: any Zarr reader opens it, and it is written and read in slices here
without a copy in between. The attributes hold type, place, length and
block checksums of each, and a checksum of themselves: what is read is what was written, or
is refused.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.checksums import BLOCK, block_checksums, checksum, first_damaged
from gpuconvert.durable import rename
from gpuconvert.errors import DamagedPartError, OutputError, PlanError
from gpuconvert.plain_zarr import array_metadata, number_codec
from gpuconvert.provenance import canonical_json

CHUNK = "c.0"
"""File of the one chunk; a dot instead of a folder is one inode less to make."""


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


def _write_values(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Write all arrays into the chunk of a part; return what its attributes say of each."""
    said: dict[str, Any] = {}
    place = 0
    with (folder / CHUNK).open("wb", buffering=0) as file:
        for name, values in arrays.items():
            little = values.astype(values.dtype.newbyteorder("<"), copy=False)
            raw = np.ascontiguousarray(little).view(np.uint8)
            said[name] = {
                "dtype": little.dtype.str, "place": place, "length": len(values),
                "crc32c": block_checksums(raw).tolist(),
            }  # fmt: skip
            place += len(raw)
            left = memoryview(raw.data)
            while left:
                left = left[file.write(left) :]
    return said


def _seal(attributes: dict[str, Any]) -> int:
    """Return the checksum of the attributes of a part but for itself."""
    said = {name: value for name, value in attributes.items() if name != "crc32c"}
    return checksum(canonical_json(said).encode("ascii"))


def write_part(
    folder: Path, fingerprint: str, summary: PartSummary, arrays: dict[str, NDArray[Any]], *,
    durable: bool = False,
) -> None:  # fmt: skip
    """Store one finished partition, whole or not at all.

    A part of another fingerprint under the same index is replaced; one of the same
    fingerprint, finished meanwhile by another worker, is kept and this one dropped.
    """
    final = folder / _name(summary.index)
    draft = folder / f"{_name(summary.index)}.{uuid.uuid4().hex}.tmp"
    attributes: dict[str, Any] = {"fingerprint": fingerprint, "summary": summary.to_json()}
    try:
        draft.mkdir(parents=True)
        attributes["arrays"] = _write_values(draft, arrays)
        attributes["crc32c"] = _seal(attributes)
        shape = (sum(values.nbytes for values in arrays.values()),)
        described = array_metadata(
            shape, "u1", (max(1, *shape),), [number_codec("u1")], attributes=attributes,
            separator=".",
        )  # fmt: skip
        (draft / "zarr.json").write_text(json.dumps(described))
        if final.exists() and read_summary(folder, summary.index, fingerprint) is None:
            shutil.rmtree(final)
        _rename(draft, final, durable=durable)
    except OSError as error:
        raise OutputError(
            error.errno,
            f"part {summary.index} cannot be written to {folder}: {error.strerror}; make room or "
            "name another --temp-dir, and run the same command again",
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _rename(draft: Path, final: Path, *, durable: bool) -> None:
    try:
        rename(draft, final, durable=durable)
    except OSError:
        # Another worker renamed the same part first; both hold the same bytes.
        if not final.exists():
            raise


@dataclass(frozen=True, slots=True)
class _Stored:
    """What a part says of one array: type, first byte, length, checksum of every block."""

    dtype: np.dtype[Any]
    place: int
    length: int
    sums: NDArray[np.uint32]


def _read_attributes(
    folder: Path, index: int, fingerprint: str
) -> tuple[PartSummary, dict[str, _Stored]] | None:
    try:
        attributes = json.loads((folder / _name(index) / "zarr.json").read_bytes())["attributes"]
        if attributes["fingerprint"] != fingerprint or attributes["crc32c"] != _seal(attributes):
            return None
        arrays = {
            name: _Stored(
                np.dtype(said["dtype"]),
                said["place"],
                said["length"],
                np.array(said["crc32c"], np.uint32),
            )
            for name, said in attributes["arrays"].items()
        }
        return PartSummary(**attributes["summary"]), arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def read_summary(folder: Path, index: int, fingerprint: str) -> PartSummary | None:
    """Return the summary of a finished part, or None where there is none of this fingerprint."""
    found = _read_attributes(folder, index, fingerprint)
    return None if found is None else found[0]


class Part:
    """One finished part, its arrays read by slices; safe to use from several threads."""

    def __init__(self, folder: Path, index: int, fingerprint: str) -> None:
        found = _read_attributes(folder, index, fingerprint)
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
        self._fill(raw, stored.place + begin)
        wrong = first_damaged(raw, stored.sums[first:last])
        if wrong is not None:
            at = stored.place + begin + wrong * BLOCK
            raise DamagedPartError(
                self._folder,
                f"{self._folder / CHUNK} has other bytes from {at} on than were written there",
            )
        values: NDArray[Any] = raw[start * size - begin : stop * size - begin].view(stored.dtype)
        return values

    def _fill(self, raw: NDArray[np.uint8], begin: int) -> None:
        """Fill `raw` with the bytes of the chunk from `begin` on."""
        path = self._folder / CHUNK
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
