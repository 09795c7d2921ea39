"""The imzML reader: an index of the XML, and the bytes of the .ibd on demand.

Opening reads the XML once. Reading a batch takes no Python work per spectrum where
arrays lie next to each other in the file; compressed arrays are inflated in threads.
"""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.extents import ExtentFile, place_in_order
from gpuconvert.readers.imzml_header import ImzmlHeader, read_header
from gpuconvert.readers.imzml_ibd import find_ibd
from gpuconvert.readers.imzml_index import (
    BinaryFile,
    ImzmlIndex,
    build_index,
    normal_uuid,
    same_uuid,
)
from gpuconvert.readers.imzml_list import read_list
from gpuconvert.readers.source_files import Declared, Stamps, digest
from gpuconvert.settings import Settings
from gpuconvert.spectra import MAX_MZ, Encoding, RawBatch, SourceIdentity

Longs = NDArray[np.int64]
Bytes = NDArray[np.uint8]

INFLATE_TOGETHER = 256
"""Arrays that a thread inflates in one task."""

EXTENT_BYTES = 32 << 20
"""Inflated m/z that `ImzmlReader.mz_extent` holds at a time, in bytes."""

_MOST_THREADS = 8


class ImzmlReader:
    """An open imzML; see `gpuconvert.readers.Reader`."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        self._stamps = Stamps([path])
        header = read_header(path)
        ibd_path = find_ibd(path, settings.ibd)
        self._stamps.add(ibd_path)
        with ExitStack() as undo:
            self._ibd = ExtentFile(ibd_path)
            undo.callback(self._ibd.close)
            index = build_index(
                path, header, read_list(header),
                ibd=BinaryFile(ibd_path, self._ibd.size, self._ibd.head[:16]),
                identity=_identity(path, ibd_path, header), settings=settings,
            )  # fmt: skip
            self._index: ImzmlIndex = index
            self.acquisition = index.acquisition
            threads = min(_MOST_THREADS, os.cpu_count() or 1)
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="inflate")
            undo.callback(self._pool.shutdown)
            self._shared_mz = self._read_shared_mz()
            undo.pop_all()

    def read(self, first: int, last: int, into: Bytes) -> RawBatch:
        """Return rows [first, last), their bytes in `into`."""
        acquisition = self.acquisition
        encoding = acquisition.encodings[acquisition.encoding[first] if first < last else 0]
        n_points = acquisition.n_points[first:last]
        mz_dtype, intensity_dtype = np.dtype(encoding.mz_dtype), np.dtype(encoding.intensity_dtype)
        mz_size = n_points * (0 if acquisition.shared_mz_points else mz_dtype.itemsize)
        intensity_size = n_points * intensity_dtype.itemsize
        shared = len(self._shared_mz) if first < last else 0
        into[:shared] = self._shared_mz[:shared]
        mz_at, intensity_at = self._places(first, last, mz_size, intensity_size, shared)
        self._read_arrays(first, last, encoding, (mz_at, intensity_at), (mz_size, intensity_size),
                          into)  # fmt: skip
        if acquisition.shared_mz_points:
            mz_at = np.zeros(last - first, np.int64)
        return RawBatch(
            into, mz_at, intensity_at, n_points, mz_dtype, intensity_dtype,
            np.arange(first, last), encoding.representation,
        )  # fmt: skip

    def batch_bytes(self, first: int, last: int) -> int:
        """Return the bytes of buffer that rows [first, last) need."""
        shared = len(self._shared_mz) if first < last else 0
        return shared + int(self.acquisition.raw_bytes[first:last].sum())

    def mz_extent(self) -> tuple[float, float]:
        """Return the smallest and largest m/z of all spectra, in Th.

        The first and last point of every spectrum are looked at. Values that are no
        m/z (not finite, negative, above MAX_MZ) do not count; (0, 0) where there are none.
        """
        low, high = np.inf, -np.inf
        for code, encoding in enumerate(self.acquisition.encodings):
            for values in self._end_points(code, encoding):
                good = values[(values >= 0) & (values <= MAX_MZ)]
                if len(good):
                    low, high = min(low, float(good.min())), max(high, float(good.max()))
        return (low, high) if low <= high else (0.0, 0.0)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file changed since it was opened."""
        self._stamps.check()

    def declared(self) -> tuple[Declared, ...]:
        """Return the checksum that the header declares of the .ibd.

        Raises
        ------
        SourceError
            Where the identifiers of header and .ibd differ.
        """
        identity = self.acquisition.identity
        try:
            same = not identity.uuid or same_uuid(identity.uuid, self._ibd.head[:16])
        except ValueError:
            same = False
        if not same:
            raise SourceError(
                f"{self.path}: the UUID is {identity.uuid} here but {self._ibd.head[:16].hex()} in "
                f"{self._ibd.path}; copy the two files of one acquisition, or leave out "
                "--check-source"
            )
        algorithm, expected = identity.checksum
        if not algorithm:
            return ()
        path = self._ibd.path
        return (Declared(path.name, path, 0, self._ibd.size, algorithm, expected),)

    def close(self) -> None:
        """Close the files; the reader cannot be used afterwards."""
        self._pool.shutdown()
        self._ibd.close()

    def _places(
        self, first: int, last: int, mz_size: Longs, intensity_size: Longs, start: int
    ) -> tuple[Longs, Longs]:
        """Return where the m/z and intensity arrays go in a batch."""
        index = self._index
        mz, intensity = index.mz_offset[first:last], index.intensity_offset[first:last]
        if self.acquisition.shared_mz_points:
            return mz, place_in_order(intensity, intensity_size, start)
        small = (intensity_size % 4 != 0) | (mz_size % 4 != 0)
        if small.any():
            # All m/z first, so that short integers do not push float64 off their alignment.
            at = place_in_order(mz, mz_size, start)
            return at, place_in_order(intensity, intensity_size, start + int(mz_size.sum()))
        at = place_in_order(
            np.stack([mz, intensity], axis=1).ravel(),
            np.stack([mz_size, intensity_size], axis=1).ravel(),
            start,
        )
        return at[::2].copy(), at[1::2].copy()

    def _read_arrays(
        self, first: int, last: int, encoding: Encoding, places: tuple[Longs, Longs],
        sizes: tuple[Longs, Longs], into: Bytes,
    ) -> None:  # fmt: skip
        """Read the arrays of rows [first, last); sizes of 0 are left out."""
        index = self._index
        offsets = (index.mz_offset[first:last], index.intensity_offset[first:last])
        zipped = (encoding.mz_zlib, encoding.intensity_zlib)
        plain = [k for k in (0, 1) if not zipped[k]]
        if plain:
            self._ibd.read_extents(
                np.stack([offsets[k] for k in plain], axis=1).ravel(),
                np.stack([sizes[k] for k in plain], axis=1).ravel(),
                np.stack([places[k] for k in plain], axis=1).ravel(),
                into,
            )
        stored = (index.mz_stored, index.intensity_stored)
        for k in (0, 1):
            if zipped[k]:
                rows = np.flatnonzero(sizes[k] > 0)
                self._inflate(rows + first, offsets[k][rows], stored[k][rows + first],
                              places[k][rows], sizes[k][rows], into)  # fmt: skip

    def _inflate(
        self, rows: Longs, offset: Longs, stored: Longs, to: Longs, size: Longs, into: Bytes
    ) -> None:
        """Read compressed arrays and inflate them to their places, in threads where it pays."""
        packed = np.empty(int(stored.sum()), np.uint8)
        at = place_in_order(offset, stored, 0)
        self._ibd.read_extents(offset, stored, at, packed)
        tasks = [slice(k, k + INFLATE_TOGETHER) for k in range(0, len(rows), INFLATE_TOGETHER)]

        def inflate(task: slice) -> None:
            with packed.data as source, into.data as target:
                columns = (column[task].tolist() for column in (rows, at, stored, to, size))
                for row, begin, length, place, expected in zip(*columns, strict=True):
                    data = self._inflate_one(row, source[begin : begin + length], expected)
                    target[place : place + expected] = data

        if len(tasks) > 1:
            list(self._pool.map(inflate, tasks))
        else:
            for task in tasks:
                inflate(task)

    def _inflate_one(self, row: int, data: memoryview, expected: int) -> bytes:
        """Return an inflated array of exactly `expected` bytes; never more is allocated."""
        inflater = zlib.decompressobj()
        try:
            # One byte more than expected: else zlib stops before it has seen the end.
            inflated = inflater.decompress(data, expected + 1)
        except zlib.error as error:
            raise SourceError(f"{self._name(row)}: {error}; copy or export it again") from error
        if len(inflated) != expected or not inflater.eof or inflater.unused_data:
            found = f"{len(inflated)} bytes"
            if len(inflated) > expected:
                found = f"more than {expected} bytes"
            elif not inflater.eof:
                found += " and no end"
            elif inflater.unused_data:
                found += f" and {len(inflater.unused_data)} bytes of something else"
            raise SourceError(
                f"{self._name(row)}: a compressed array gives {found}, expected {expected} bytes; "
                "copy or export it again"
            )
        return inflated

    def _name(self, row: int) -> str:
        acquisition = self.acquisition
        x = int(acquisition.x[row]) + acquisition.origin[0]
        y = int(acquisition.y[row]) + acquisition.origin[1]
        return f"{self._ibd.path}: spectrum {int(acquisition.order[row])} (x={x}, y={y})"

    def _read_shared_mz(self) -> Bytes:
        """Return the bytes of the shared m/z array; empty where there is none."""
        acquisition = self.acquisition
        if not acquisition.shared_mz_points:
            return np.empty(0, np.uint8)
        encoding = acquisition.encodings[acquisition.encoding[0]]
        size = acquisition.shared_mz_points * np.dtype(encoding.mz_dtype).itemsize
        raw = np.empty(size, np.uint8)
        sizes, start = np.array([size]), np.zeros(1, np.int64)
        offset, stored = self._index.mz_offset[:1], self._index.mz_stored[:1]
        if encoding.mz_zlib:
            self._inflate(np.zeros(1, np.int64), offset, stored, start, sizes, raw)
        else:
            self._ibd.read_extents(offset, sizes, start, raw)
        return raw

    def _end_points(self, code: int, encoding: Encoding) -> list[NDArray[np.float64]]:
        """Return the first and last m/z of all spectra of one encoding, in pieces."""
        dtype = np.dtype(encoding.mz_dtype)
        acquisition = self.acquisition
        if acquisition.shared_mz_points:
            return [self._shared_mz.view(dtype)[[0, -1]].astype(np.float64)]
        rows = np.flatnonzero((acquisition.encoding == code) & (acquisition.n_points > 0))
        offset, size = self._index.mz_offset[rows], acquisition.n_points[rows] * dtype.itemsize
        if not encoding.mz_zlib:
            at = np.concatenate([offset, offset + size - dtype.itemsize])
            return [self._ibd.gather(at, dtype).astype(np.float64)]
        pieces = []
        bounds = np.searchsorted(
            np.cumsum(size), np.arange(EXTENT_BYTES, size.sum() + EXTENT_BYTES, EXTENT_BYTES)
        )
        for part in np.split(np.arange(len(rows)), np.unique(bounds)):
            raw = np.empty(int(size[part].sum()), np.uint8)
            to = np.cumsum(size[part]) - size[part]
            stored = self._index.mz_stored[rows[part]]
            self._inflate(rows[part], offset[part], stored, to, size[part], raw)
            values = raw.view(dtype)
            ends = np.concatenate([to, to + size[part] - dtype.itemsize]) // dtype.itemsize
            pieces.append(values[ends].astype(np.float64))
        return pieces


def _identity(path: Path, ibd: Path, header: ImzmlHeader) -> SourceIdentity:
    roles = (("imzML", path), ("ibd", ibd))
    files = tuple((role, file.stat().st_size, digest(file)) for role, file in roles)
    return SourceIdentity(files, normal_uuid(header.uuid), header.checksum)
