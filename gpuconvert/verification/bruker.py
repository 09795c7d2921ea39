"""A Bruker ``.d`` folder as the format's descriptions say, read slowly: the verifier's oracle.

sqlite3, NumPy and numcodecs alone are used, frame by frame; no code is shared with the
reader of the conversion. The equation of flight is solved by Newton's method here,
where the reader has its closed form; LZF is undone byte by byte in Python.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import struct
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import numpy as np
from numcodecs.zstd import decompress
from numpy.typing import NDArray

from gpuconvert.errors import SourceError, SourceMissingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NEWTON_STEPS = 60
RANGE_MARGIN = 5.0
"""Th by which the digitizer of older software reaches beyond the range that it states."""

READ_ERRORS = (OSError, sqlite3.Error, struct.error, ValueError, KeyError, TypeError, RuntimeError,
               IndexError, ArithmeticError)  # fmt: skip
"""What reading a folder that is not as described may raise."""


class BrukerOracle:
    """Spectra of a folder, in the order of its frames.

    coordinates : (n_spectra, 3) int64; x, y, z, each from 0 at the smallest observed
    n_points : (n_spectra,) int64
    order : (n_spectra,) int64, position of each frame in the table of frames
    facts : region_number and polarity; (n_spectra,) int64 each
    """

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        """Open `path` as the store's parameters say: spectrum, region, MS level, calibration."""
        self.path = path
        self._chord = parameters.get("calibration") == "chord"
        with ExitStack() as undo:
            try:
                self._database, self._binary = _find(path)
                self._stream = undo.enter_context(self._binary.open("rb"))
                self._read_tables(parameters)
                self.n_points = self._count_points()
            except READ_ERRORS as error:
                if isinstance(error, SourceError):
                    raise
                raise SourceError(f"{path} cannot be read to verify by: {error!r}") from error
            undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stream.close()

    @property
    def n_bytes(self) -> int:
        """Size of the database and of the binary file."""
        return self._database.stat().st_size + self._binary.stat().st_size

    def spectrum(self, index: int) -> tuple[Floats, Floats]:
        """Return m/z and intensities of one spectrum as float64."""
        frame = self._frames[index]
        try:
            places, counts = self._decode(frame)
            return self._mz(frame, places), counts
        except READ_ERRORS as error:
            raise SourceError(
                f"frame {frame['Id']} of {self.path} is damaged: {error!r}"
            ) from error

    def mobility(self, index: int) -> tuple[Floats, Floats, Floats]:
        """Return m/z, 1/K0 and scaled counts of every peak of a TDF frame, scan by scan."""
        frame = self._frames[index]
        try:
            row = next(row for row in self._mobilities if row["Id"] == frame["TimsCalibration"])
            c = [_number(row.get(f"C{k}")) for k in range(8)]
            mz, inverse, counts = [], [], []
            for scan, (places, values) in enumerate(self._frame_scans(frame)):
                stated = min(scan, int(frame["NumScans"]) - 1)
                voltage = c[2] + (c[3] - c[2]) / c[1] * (stated - c[0] - c[4])
                mz.append(self._mz(frame, places.astype(np.float64)))
                inverse.append(np.full(len(places), 1 / (c[6] + c[7] / abs(voltage))))
                counts.append(values * (100.0 / frame["AccumulationTime"]))
        except (*READ_ERRORS, StopIteration) as error:
            raise SourceError(
                f"frame {frame['Id']} of {self.path} is damaged: {error!r}"
            ) from error
        none = np.zeros(0)
        return (
            np.concatenate([none, *mz]), np.concatenate([none, *inverse]),
            np.concatenate([none, *counts]),
        )  # fmt: skip

    def _frame_scans(self, frame: dict[str, Any]) -> list[tuple[Ints, Ints]]:
        """Return indices and stored intensities of every scan of a TDF frame."""
        if not frame["NumPeaks"]:
            return []
        self._stream.seek(frame["TimsId"])
        size, n_scans = struct.unpack("<II", self._stream.read(8))
        return self._scans(self._stream.read(size - 8), n_scans, int(frame["NumPeaks"]))

    def _read_tables(self, parameters: dict[str, Any]) -> None:
        with TemporaryDirectory(prefix="gpuconvert-") as folder:
            # A copy: recovering what was not closed writes beside the database.
            for suffix in ("", "-wal", "-journal"):
                file = Path(f"{self._database}{suffix}")
                if file.is_file():
                    shutil.copyfile(file, Path(folder) / file.name)
            connection = sqlite3.connect(Path(folder) / self._database.name)
            try:
                connection.row_factory = sqlite3.Row
                said = connection.execute("SELECT Key, Value FROM GlobalMetadata")
                self._said = {row["Key"]: row["Value"] for row in said}
                self._calibrations = _rows(connection, "MzCalibration")
                self._mobilities = _rows(connection, "TimsCalibration")
                frames = _rows(connection, "Frames")
                spots = {row["Frame"]: row for row in _rows(connection, "MaldiFrameInfo")}
            finally:
                connection.close()
        frames.sort(key=lambda row: row["Id"])
        wanted = parameters.get("region")
        level = parameters.get("ms_level")
        used = [
            (order, frame | {"spot": spots[frame["Id"]]})
            for order, frame in enumerate(frames)
            if frame["Id"] in spots
            and (wanted is None or spots[frame["Id"]]["RegionNumber"] in wanted)
            and (level is None or (level == 1) == (frame.get("MsMsType", 0) == 0))
        ]
        if not used:
            raise SourceError(f"{self.path} has no frame that the store could be made of")
        self.order = np.array([order for order, _ in used], np.int64)
        self._frames = [frame for _, frame in used]
        signs = {"+": 1, "-": -1}
        self.facts = {
            "region_number": np.array(
                [frame["spot"].get("RegionNumber") or 0 for frame in self._frames], np.int64
            ),
            "polarity": np.array(
                [signs.get(str(frame.get("Polarity")), 0) for frame in self._frames], np.int64
            ),
        }
        places = [
            (frame["spot"]["XIndexPos"], frame["spot"]["YIndexPos"], 0) for frame in self._frames
        ]
        found = np.array(places, np.int64)
        self.coordinates = found - found.min(axis=0)
        self._n_samples = int(self._said["DigitizerNumSamples"])
        self._profile = self._wants_profile(str(parameters.get("spectrum", "auto")))

    def _wants_profile(self, asked: str) -> bool:
        if self._database.suffix == ".tdf":
            return False
        return asked == "profile" or (
            asked == "auto" and str(self._said.get("HasLineSpectra", "1")) != "1"
        )

    def _count_points(self) -> Ints:
        """Return the points of each spectrum; of TDF the peaks before they are added up."""
        if self._profile:
            counts = [len(self._decode(frame)[0]) for frame in self._frames]
        else:
            counts = [frame["NumPeaks"] for frame in self._frames]
        return np.array(counts, np.int64)

    def _decode(self, frame: dict[str, Any]) -> tuple[Floats, Floats]:
        """Return indices, ascending, and intensities of a frame."""
        n_peaks = int(frame["NumPeaks"])
        if n_peaks == 0 and not self._profile:
            return np.zeros(0), np.zeros(0)
        self._stream.seek(frame["TimsId"])
        size, second = struct.unpack("<II", self._stream.read(8))
        body = self._stream.read(size - 8)
        if len(body) != size - 8:
            raise ValueError("the binary file ends within the frame")
        if self._database.suffix == ".tdf":
            return _sum_scans(self._scans(body, second, n_peaks), 100.0 / frame["AccumulationTime"])
        if self._profile:
            samples = _unplane(decompress(body[second:]))
            if len(samples) != self._n_samples:
                raise ValueError(f"{len(samples)} samples, expected {self._n_samples}")
            filled = np.flatnonzero(samples)
            return filled.astype(np.float64), samples[filled].astype(np.float64)
        raw = decompress(body[:second])
        return (
            np.frombuffer(raw, "<f8", n_peaks),
            np.frombuffer(raw, "<f4", n_peaks, 8 * n_peaks).astype(np.float64),
        )

    def _scans(self, body: bytes, n_scans: int, n_peaks: int) -> list[tuple[Ints, Ints]]:
        """Return indices and stored intensities of every scan."""
        if str(self._said["TimsCompressionType"]) == "1":
            offsets = struct.unpack(f"<{n_scans + 1}I", body[: 4 * (n_scans + 1)])
            # Offsets count from the beginning of the frame, whose header is not in `body`.
            pieces = [body[a - 8 : b - 8] for a, b in pairwise(offsets)]
            return [_lzf_scan(piece) for piece in pieces]
        words = _unplane(decompress(body)).astype(np.int64)
        counts = [int(word) // 2 for word in words[1:n_scans]]
        counts.append(n_peaks - sum(counts))
        steps, values = words[n_scans::2], words[n_scans + 1 :: 2]
        scans, first = [], 0
        for count in counts:
            last = first + count
            scans.append((np.cumsum(steps[first:last]) - 1, values[first:last]))
            first = last
        return scans

    def _mz(self, frame: dict[str, Any], index: Floats) -> Floats:
        """Return the m/z of indices of a frame."""
        rows = [row for row in self._calibrations if row["Id"] == frame.get("MzCalibration")]
        row = {name: _number(value) for name, value in rows[0].items()} if rows else {}
        model = int(row.get("ModelType", 0))
        if model not in (1, 2):
            return self._chord_mz(index)
        time = index * row["DigitizerTimebase"] + row["DigitizerDelay"]
        factor = 1.0
        for slope, reference in (("dC1", "T1"), ("dC2", "T2")):
            if row[slope] and frame.get(reference) is not None:
                factor += 1e-6 * row[slope] * (row[reference] - frame[reference])
        c3, c4 = (row["C3"], row["C4"]) if model == 1 else (0.0, 0.0)
        b, c2 = math.sqrt(1e12 / (row["C1"] * factor)), row["C2"] / factor
        root = (time - row["C0"]) / b
        for _ in range(NEWTON_STEPS):
            excess = row["C0"] + b * root + c2 * root**2 + c3 * root**3 - time
            root = root - excess / (b + 2 * c2 * root + 3 * c3 * root**2)
        mz: Floats = root**2 - c4
        if model == 1:
            return mz
        inside = np.clip(mz, row["C5"], row["C6"])
        correction = sum(row[f"C{8 + k}"] * inside**k for k in range(int(row["C7"])))
        corrected: Floats = mz - correction * np.exp(-(np.abs(mz - inside) ** 2))
        return corrected

    def _chord_mz(self, index: Floats) -> Floats:
        if not self._chord:
            raise SourceError(f"{self.path} has frames without a calibration that is known")
        ends = [float(self._said[f"MzAcqRange{end}"]) for end in ("Lower", "Upper")]
        if self._said.get("AcquisitionSoftware") == "Bruker otofControl":
            ends = [ends[0] - RANGE_MARGIN, ends[1] + RANGE_MARGIN]
        low, high = np.sqrt(ends)
        mz: Floats = (low + (high - low) * index / self._n_samples) ** 2
        return mz


def _find(path: Path) -> tuple[Path, Path]:
    """Return the database and the binary file of a folder."""
    for kind in ("tsf", "tdf"):
        database = path / f"analysis.{kind}"
        if database.is_file() and database.stat().st_size:
            binary = path / f"analysis.{kind}_bin"
            if not binary.is_file():
                raise SourceMissingError(f"{binary} does not exist; copy the whole folder")
            return database, binary
    raise SourceMissingError(f"{path} has neither analysis.tsf nor analysis.tdf; check the path")


def _rows(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """Return a table as dicts; empty where there is no such table."""
    try:
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table}")]
    except sqlite3.OperationalError:
        return []


def _number(value: object) -> float:
    return 0.0 if value is None else float(str(value))


def _unplane(raw: bytes) -> Ints:
    """Return the words whose bytes are stored plane by plane."""
    planes = np.frombuffer(raw, np.uint8).reshape(4, -1).astype(np.int64)
    weights: Ints = np.array([1, 2**8, 2**16, 2**24])
    words: Ints = weights @ planes
    return words


def _sum_scans(scans: list[tuple[Ints, Ints]], scale: float) -> tuple[Floats, Floats]:
    """Return the distinct indices of all scans, and their sums times `scale`."""
    places, values = (np.concatenate([scan[k] for scan in scans]) for k in (0, 1))
    index, owner = np.unique(places, return_inverse=True)
    sums: Floats = np.bincount(owner, values).astype(np.float64) * scale
    return index.astype(np.float64), sums


def _lzf_scan(packed: bytes) -> tuple[Ints, Ints]:
    """Return indices and intensities of a scan in LZF."""
    plain = bytearray()
    at = 0
    while at < len(packed):
        control = packed[at]
        at += 1
        if control < 32:
            plain += packed[at : at + control + 1]
            at += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[at]
            at += 1
        distance = (control & 31) * 256 + packed[at] + 1
        at += 1
        for _ in range(length + 2):
            plain.append(plain[-distance])
    places, values, place = [], [], 0
    for value in struct.unpack(f"<{len(plain) // 4}i", plain):
        if value > 0:
            places.append(place)
            values.append(value)
            place += 1
        else:
            place -= value
    return np.array(places, np.int64), np.array(values, np.int64)
