"""An mzPeak archive as plain zipfile and pyarrow read it: one row group after the other.

No code is shared with the reader of the conversion. Points are put together one by one,
in Python, straight from the rules of the format.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpuconvert.errors import SourceError, SourceMissingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

INDEX = "mzpeak_index.json"
BLOCK = 1 << 20

SIGNS = {"MS:1000130": 1, "MS:1000129": -1}
"""Polarities of writers that have terms in place of numbers."""

READ_ERRORS = (OSError, pa.ArrowException, ValueError, LookupError, TypeError, AttributeError,
               struct.error, zipfile.BadZipFile)  # fmt: skip
"""What zipfile, json and pyarrow raise on files that they cannot read."""


class MzPeakOracle:
    """The spectra of an mzPeak that have a pixel, in the order of the file.

    coordinates : (n_spectra, 3) int64; x, y, z, each from 0 at the smallest observed
    n_points : (n_spectra,) int64, marked zeros counted
    order : (n_spectra,) int64, place of each among all spectra of the file
    facts : polarity; (n_spectra,) int64
    """

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        """Open `path`; SourceError where it cannot be read as an mzPeak of images.

        `parameters` are those of the store: whether a spectrum that is in both members
        is taken from the peaks.
        """
        if not (path.is_file() or path.is_dir()):
            raise SourceMissingError(f"{path} does not exist; check the path")
        self.path = path
        self._stack = ExitStack()
        try:
            self._files = _Files(path, self._stack)
            spectra = _spectra(self._files)
            self._signals = [_Signal(self._files, kind) for kind in ("data_arrays", "peaks")]
        except SourceError:
            self._stack.close()
            raise
        except READ_ERRORS as error:
            self._stack.close()
            raise SourceError(
                f"{path} cannot be read by pyarrow, on which verify relies: {error!r}"
            ) from error
        self._centroids = parameters.get("spectrum_type") == "centroid"
        self._numbers = [number for number, _ in spectra]
        places = np.array([place for _, place in spectra], np.int64).reshape(-1, 3)
        self.coordinates = places - places.min(axis=0)
        self.order = np.array([self._files.rank[number] for number in self._numbers], np.int64)
        self.facts = {
            "polarity": np.array([self._files.polarity[k] for k in self._numbers], np.int64)
        }
        self.n_points = np.array(
            [self._signal_of(number).counts.get(number, 0) for number in self._numbers], np.int64
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    @property
    def n_bytes(self) -> int:
        """Size of the archive."""
        if self.path.is_dir():
            return sum(file.stat().st_size for file in self.path.iterdir() if file.is_file())
        return self.path.stat().st_size

    def spectrum(self, index: int) -> tuple[Floats, Floats]:
        """Return m/z and intensities of one spectrum as float64, marked zeros put back."""
        number = self._numbers[index]
        try:
            mz, intensity = self._signal_of(number).points(number)
            filled = _fill(mz, self._files.models.get(number) or [])
        except READ_ERRORS as error:
            raise SourceError(
                f"spectrum {number} of {self.path} cannot be read: {error}"
            ) from error
        return np.array(filled, np.float64), np.array(intensity, np.float64)

    def _signal_of(self, number: int) -> _Signal:
        data, peaks = self._signals
        first, second = (peaks, data) if self._centroids else (data, peaks)
        return first if number in first.counts else second


class _Files:
    """The members of an archive or folder, and the index.

    models, rank, polarity : by number of a spectrum: delta model, place in the table, sign
    """

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        self._stack = stack
        self._zip = None if path.is_dir() else stack.enter_context(zipfile.ZipFile(path))
        with self.open(INDEX) as stream:
            index = json.loads(stream.read())
        self.entries = [
            {key: str(entry.get(key) or "").lower().replace(" ", "_") for key in
             ("entity_type", "data_kind")} | {"name": entry["name"], "sum": entry.get("checksum")}
            for entry in index["files"]
        ]  # fmt: skip
        self.models: dict[int, Any] = {}
        self.rank: dict[int, int] = {}
        self.polarity: dict[int, int] = {}
        for entry in self.entries:
            if entry["sum"]:
                self._check_sum(str(entry["name"]), str(entry["sum"]))

    def open(self, name: str) -> IO[bytes]:
        """Open a member."""
        opened = (self.path / name).open("rb") if self._zip is None else self._zip.open(name)
        return self._stack.enter_context(opened)

    def table(self, kind: str) -> pq.ParquetFile | None:
        """Open a table of spectra by what it holds, or return None."""
        for entry in self.entries:
            if (entry["entity_type"], entry["data_kind"]) == ("spectrum", kind):
                return pq.ParquetFile(self.open(str(entry["name"])))
        return None

    def _check_sum(self, name: str, stated: str) -> None:
        found = hashlib.sha512()
        with self.open(name) as stream:
            while block := stream.read(BLOCK):
                found.update(block)
        if found.hexdigest() != stated.lower():
            raise SourceError(
                f"{self.path}: {name} has not the SHA-512 that {INDEX} states; is it complete?"
            )


def _rows(
    table: pq.ParquetFile | None, root: str, wanted: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield rows of a table as dicts of the wanted things, by words that their names hold."""
    if table is None:
        return
    schema = table.schema_arrow
    packed = root in schema.names
    names = [field.name for field in schema.field(root).type] if packed else schema.names
    chosen = {}
    for want in wanted:
        fitting = [name for name in names if name == want or name.endswith(f"_{want}")]
        if fitting:
            chosen[want] = min(fitting, key=len)
    columns = [f"{root}.{name}" if packed else name for name in chosen.values()]
    for batch in table.iter_batches(1 << 12, columns=columns):
        for row in batch.to_pylist():
            values = row[root] if packed else row
            if values is not None:
                yield {want: values[name] for want, name in chosen.items()}


def _spectra(files: _Files) -> list[tuple[int, tuple[int, int, int]]]:
    """Return number and position of the spectra that are pixels."""
    levels: dict[int, int] = {}
    wanted = ("index", "ms_level", "mz_delta_model", "scan_polarity")
    for row in _rows(files.table("metadata"), "spectrum", wanted):
        number = int(row["index"])
        files.rank[number] = len(files.rank)
        levels[number] = int(row.get("ms_level") or 0)
        files.models[number] = row.get("mz_delta_model")
        sign = row.get("scan_polarity") or 0
        files.polarity[number] = SIGNS.get(sign, 0) if isinstance(sign, str) else int(sign)
    scans = files.table("scans") or files.table("metadata")
    places: dict[int, set[tuple[int, int, int]]] = {}
    for row in _rows(scans, "scan", ("source_index", "position_x", "position_y", "position_z")):
        x, y, z = (row.get(f"position_{axis}") for axis in "xyz")
        if x is not None and y is not None:
            place = (int(x), int(y), 1 if z is None else int(z))
            places.setdefault(int(row["source_index"]), set()).add(place)
    single = {number: found.pop() for number, found in places.items() if len(found) == 1}
    if not single:
        raise SourceError(f"{files.path} has no spectrum with a position, nothing to verify with")
    lowest = max(1, min(levels[number] for number in single))
    return [(number, single[number]) for number in files.rank
            if number in single and levels[number] <= lowest]  # fmt: skip


class _Signal:
    """A member of signals, one row group of it in memory.

    counts : points by number of the spectrum
    """

    def __init__(self, files: _Files, kind: str) -> None:
        self.counts: dict[int, int] = {}
        self._groups: dict[int, list[int]] = {}
        self._table = files.table(kind)
        self._loaded: tuple[int, Any] = (-1, None)
        if self._table is None:
            return
        self._root = self._table.schema_arrow.names[0]
        fields = [field.name for field in self._table.schema_arrow.field(0).type]
        self._index = fields[0]
        packed = [name for name in fields if name.startswith("intensity_numpress")]
        self._counts = "intensity" if "intensity" in fields else packed[0]
        self._slof = bool(packed) and "slof" in packed[0] and self._counts == packed[0]
        if self._counts != "intensity" and not self._slof:
            raise SourceError(f"{files.path}: verify cannot read intensities of {self._counts}")
        for group in range(self._table.num_row_groups):
            self._count(group)

    def _count(self, group: int) -> None:
        columns = [f"{self._root}.{self._index}"]
        if self._root == "chunk":
            columns.append(f"{self._root}.{self._counts}")
        rows = self._load(group, columns)
        numbers = rows.field(self._index).to_numpy()
        sizes = np.ones(len(rows), np.int64)
        if self._root == "chunk":
            lengths = pc.fill_null(pc.list_value_length(rows.field(self._counts)), 0)
            sizes = lengths.to_numpy(zero_copy_only=False).astype(np.int64)
            sizes = np.maximum(sizes - 8, 0) // 2 if self._slof else sizes
        found, place = np.unique(numbers, return_inverse=True)
        totals = np.bincount(place, weights=sizes).astype(np.int64)
        for number, total in zip(found.tolist(), totals.tolist(), strict=True):
            self.counts[number] = self.counts.get(number, 0) + total
            self._groups.setdefault(number, []).append(group)

    def _load(self, group: int, columns: list[str] | None) -> pa.StructArray:
        assert self._table is not None
        table = self._table.read_row_group(group, columns=columns)
        return pa.concat_arrays(table.column(self._root).chunks)

    def points(self, number: int) -> tuple[list[float | None], list[float]]:
        """Return m/z, None where it is not in the file, and intensities of a spectrum."""
        mz: list[float | None] = []
        intensity: list[float] = []
        for group in self._groups.get(number, []):
            if self._loaded[0] != group:
                self._loaded = (group, self._load(group, None))
            rows = self._loaded[1]
            first, last = np.searchsorted(rows.field(self._index).to_numpy(), [number, number + 1])
            for row in rows.slice(first, last - first).to_pylist():
                if self._root == "point":
                    mz.append(row["mz"])
                    intensity.append(row["intensity"] or 0.0)
                    continue
                counts = self._intensities(row)
                mz += _chunk(row, len(counts))
                intensity += counts
        return mz, intensity

    def _intensities(self, row: dict[str, Any]) -> list[float]:
        if not self._slof:
            return [value or 0.0 for value in row[self._counts] or []]
        data = bytes(row[self._counts] or [])
        if not data:
            return []
        (scale,) = struct.unpack(">d", data[:8])
        words = struct.unpack(f"<{(len(data) - 8) // 2}H", data[8:])
        return [math.exp(word / scale) - 1 for word in words]


def _chunk(row: dict[str, Any], n_points: int) -> list[float | None]:
    """Return the m/z of a chunk of `n_points` points."""
    encoding = row["chunk_encoding"]
    if encoding == "MS:1002312":
        data = next(value for name, value in row.items() if name.startswith("mz_numpress"))
        return [value or None for value in _numpress_linear(bytes(data or []), n_points)]
    if encoding == "MS:1003826":
        return _grid(row["mz_grid"])
    if encoding not in ("MS:1000576", "MS:1003089"):
        raise SourceError(f"a chunk has the encoding {encoding}, which verify does not know")
    values = list(row["mz_chunk_values"] or [])
    mz: list[float | None] = []
    if len(values) < n_points:
        mz.append(row["mz_chunk_start"])
    for value in values:
        before = mz[-1] if mz else None
        sums = encoding == "MS:1003089" and value is not None and before is not None
        mz.append(before + value if sums and before is not None else value)
    return mz


def _grid(grid: dict[str, Any]) -> list[float | None]:
    a, b, *rest = grid["parameters"]
    scale = rest[0] if rest else 1.0
    place, mz = 0, []
    for step in grid["indices"]:
        place += step
        value = a + b * place
        if grid["grid_type"] == "MS:1003825":
            value *= value
        elif grid["grid_type"] != "MS:1003824":
            raise SourceError(f"a grid has the type {grid['grid_type']}, unknown to verify")
        mz.append(value / scale)
    return mz


def _numpress_linear(data: bytes, n_points: int) -> list[float]:
    """Decode linear Numpress one half-byte at a time."""
    if not n_points:
        return []
    (scale,) = struct.unpack(">d", data[:8])
    known = list(struct.unpack(f"<{min(n_points, 2)}I", data[8 : 8 + 4 * min(n_points, 2)]))
    halves = [half for byte in data[16:] for half in (byte >> 4, byte & 15)]
    place = 0
    while len(known) < n_points:
        head = halves[place]
        filled = head if head <= 8 else head - 8
        digits = halves[place + 1 : place + 1 + 8 - filled]
        digits += [0 if head <= 8 else 15] * filled
        word = sum(digit << 4 * k for k, digit in enumerate(digits))
        place += 9 - filled
        error = word - (1 << 32) if word >= 1 << 31 else word
        known.append(2 * known[-1] - known[-2] + error)
    return [value / scale for value in known]


def _fill(mz: list[float | None], model: list[float]) -> list[float]:
    """Return m/z with every None beside a point put one step from it."""
    filled = list(mz)
    stretch: list[int] = []
    for place in range(len(mz) + 1):
        if place < len(mz) and mz[place] is not None:
            stretch.append(place)
            continue
        if stretch:
            _fill_beside(filled, mz, stretch, model)
        stretch = []
    if any(value is None for value in filled):
        raise SourceError("an m/z is null that has no point beside it")
    return cast("list[float]", filled)


def _fill_beside(
    filled: list[float | None], mz: list[float | None], stretch: list[int], model: list[float]
) -> None:
    """Fill the nulls on both sides of a stretch of points."""
    values = [cast("float", mz[place]) for place in stretch]
    if len(values) == 1:
        step = sum(term * values[0] ** power for power, term in enumerate(model))
    else:
        gaps = [after - before for before, after in pairwise(values)]
        step = statistics.median(gap for gap in gaps if gap <= statistics.median(gaps))
    first, last = stretch[0], stretch[-1]
    if first > 0:
        filled[first - 1] = values[0] - step
    if last + 1 < len(mz):
        filled[last + 1] = values[-1] + step
