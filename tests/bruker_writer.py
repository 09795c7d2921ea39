"""Writes minimal Bruker ``.d`` folders by hand: every frame, table and byte is the test's choice.

`write_tsf` and `write_tdf` are the one-line entries. What they write is the layout that
readers of the format describe: SQLite tables beside blobs of zstd or LZF.
"""

from __future__ import annotations

import math
import shutil
import sqlite3
import struct
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numcodecs.zstd import compress

HEAD = bytes(64)
"""A binary file begins with zeros; frames follow with gaps in between."""

MODEL_1 = {
    "Id": 1, "ModelType": 1, "DigitizerTimebase": 0.2, "DigitizerDelay": 24800.0, "T1": 25.0,
    "T2": 26.0, "dC1": 20.0, "dC2": 0.0, "C0": 324.9, "C1": 153000.0, "C2": 0.0012, "C3": 0.0,
    "C4": -0.0185,
}  # fmt: skip
"""m/z 95 to 1700 or so for indices 0 to 400,000."""

MODEL_2 = MODEL_1 | {
    "ModelType": 2, "C0": 319.75, "C1": 154829.6, "C2": -0.00104, "C3": 319.75, "C4": -0.00104,
    "C5": 225.95, "C6": 1519.7, "C7": 7, "C8": -4.37e-3, "C9": 1.22e-4, "C10": -7.73e-7,
    "C11": 1.97e-9, "C12": -2.34e-12, "C13": 1.31e-15, "C14": -2.77e-19,
}  # fmt: skip

MOBILITY = {
    "Id": 1, "ModelType": 2, "C0": 1, "C1": 410, "C2": 220.0, "C3": 75.0, "C4": 33.0, "C5": 1,
    "C6": 0.035, "C7": 107.0, "C8": 15.1, "C9": 4916.0,
}  # fmt: skip

PITCH = 20.0


@dataclass
class Frame:
    """One frame; what is None is not there.

    x, y : pixel indices, or None for a frame without a pixel
    line : (indices, intensities) of TSF
    profile : {index: intensity} of TSF
    scans : [(indices, intensities), ...] of TDF, one pair for each scan
    """

    x: int | None = None
    y: int | None = None
    region: int = 0
    line: tuple = ((), ())
    profile: dict = field(default_factory=dict)
    scans: list = field(default_factory=list)
    polarity: str = "+"
    ms_type: int = 0
    t1: float | None = 25.0
    t2: float | None = 26.0
    calibration: int = 1
    accumulation: float | None = 100.0
    motor: tuple | None = None

    def stage(self):
        """Return where the stage was, in micrometres; y runs against the index."""
        if self.motor is not None:
            return self.motor
        return 37000.0 + PITCH * self.x, -25000.0 - PITCH * self.y


def planes(words):
    """Return 32-bit words as four byte planes."""
    little = np.array(words, "<u4").view(np.uint8).reshape(-1, 4)
    return np.ascontiguousarray(little.T).tobytes()


def tsf_blob(frame, n_samples, *, line=True, profile=True, width=False):
    """Return the bytes of a TSF frame."""
    index, intensity = (np.array(values) for values in frame.line)
    raw = index.astype("<f8").tobytes() + intensity.astype("<f4").tobytes()
    raw += np.full(len(index), 0.01, "<f4").tobytes() if width else b""
    first = compress(raw, 1) if line and len(index) else b""
    second = b""
    if profile:
        samples = np.zeros(n_samples, np.uint32)
        samples[list(frame.profile)] = list(frame.profile.values())
        second = compress(planes(samples), 1)
    return struct.pack("<II", 8 + len(first) + len(second), len(first)) + first + second


def tdf_blob(frame):
    """Return the bytes of a TDF frame, compression 2."""
    counts = [len(index) for index, _ in frame.scans]
    if not sum(counts):
        return struct.pack("<II", 8, len(frame.scans))
    words = [0, *(2 * count for count in counts[:-1])]
    for index, intensity in frame.scans:
        steps = np.diff(np.array(index, np.int64), prepend=-1)
        words += np.stack([steps, np.array(intensity, np.int64)], axis=1).ravel().tolist()
    packed = compress(planes(words), 1)
    return struct.pack("<II", 8 + len(packed), len(frame.scans)) + packed


def lzf_blob(frame):
    """Return the bytes of a TDF frame, compression 1."""
    packed = []
    for index, intensity in frame.scans:
        tokens, place = [], 0
        for at, value in zip(index, intensity):
            tokens += [place - at] if at > place else []
            tokens.append(value)
            place = at + 1
        packed.append(lzf_compress(np.array(tokens, "<i4").tobytes()))
    begin = 8 + 4 * (len(packed) + 1)
    offsets = np.cumsum([begin, *map(len, packed)])
    body = offsets.astype("<u4").tobytes() + b"".join(packed)
    return struct.pack("<II", 8 + len(body), len(frame.scans)) + body


def lzf_compress(data):
    """Return `data` in LZF: the longest of the last copies that begin with the same 3 bytes."""
    out, literal, seen, at = bytearray(), bytearray(), {}, 0

    def flush():
        while literal:
            piece = literal[:32]
            out.append(len(piece) - 1)
            out.extend(piece)
            del literal[:32]

    while at < len(data):
        key = data[at : at + 3]
        before = seen.get(key, -1)
        seen[key] = at
        if len(key) < 3 or before < 0 or at - before > 8192:
            literal.append(data[at])
            at += 1
            continue
        length = 3
        while (
            length < 264 and at + length < len(data) and data[before + length] == data[at + length]
        ):
            length += 1
        flush()
        distance = at - before - 1
        if length - 2 < 7:
            out.append((length - 2) << 5 | distance >> 8)
        else:
            out.extend([7 << 5 | distance >> 8, length - 9])
        out.append(distance & 255)
        at += length
    flush()
    return bytes(out)


def write_tsf(
    folder, frames, *, n_samples=400_000, line=True, profile=True, width=False, **options
):
    """Write a TSF folder; return its path. For `options` see `write_folder`."""
    blobs = [
        tsf_blob(frame, n_samples, line=line, profile=profile, width=width) for frame in frames
    ]
    held = {"HasLineSpectra": int(line), "HasProfileSpectra": int(profile),
            "HasLineSpectraPeakWidth": int(width), "TimsCompressionType": 3}  # fmt: skip
    metadata = held | options.pop("metadata", {})
    return write_folder(
        folder, frames, blobs, kind="TSF", n_samples=n_samples, metadata=metadata, **options
    )


def write_tdf(folder, frames, *, n_samples=400_000, compression=2, **options):
    """Write a TDF folder; return its path. For `options` see `write_folder`."""
    blobs = [(tdf_blob if compression == 2 else lzf_blob)(frame) for frame in frames]
    metadata = {"TimsCompressionType": compression} | options.pop("metadata", {})
    return write_folder(
        folder, frames, blobs, kind="TDF", n_samples=n_samples, metadata=metadata, **options
    )


def write_folder(
    folder, frames, blobs, *, kind, n_samples, metadata, name="test.d", calibrations=(MODEL_1,),
    mobility=(MOBILITY,), spots=True, spot_size=PITCH, gap=37, unclosed=False, change=None,
) -> Path:  # fmt: skip
    """Write a ``.d`` folder from finished blobs; return its path.

    metadata : added to what every acquisition says; None takes an entry away
    calibrations, mobility : rows of MzCalibration and TimsCalibration
    spots : whether there is a table MaldiFrameInfo
    spot_size : nominal, in micrometres, or None for no table of lasers
    gap : bytes between blobs
    unclosed : leave the tables in a log beside the database
    change : called with the connection before it is closed
    """
    path = Path(folder) / name
    path.mkdir()
    low = kind.lower()
    binary, places = bytearray(HEAD), []
    for blob in blobs:
        places.append(len(binary))
        binary += blob + bytes(gap)
    if blobs:
        del binary[len(binary) - gap :]
    (path / f"analysis.{low}_bin").write_bytes(binary)
    said = {
        "SchemaType": kind, "SchemaVersionMajor": "3", "SchemaVersionMinor": "4",
        "ClosedProperly": "0" if unclosed else "1", "DigitizerNumSamples": n_samples,
        "MzAcqRangeLower": "100.0", "MzAcqRangeUpper": "1700.0", "AcquisitionSoftware": "timsTOF",
        "AcquisitionSoftwareVersion": "4.1", "InstrumentName": "timsTOF fleX",
        "MaldiApplicationType": "Imaging", "AnalysisId": "00000000-0000-0000-0000-000000000000",
    } | metadata  # fmt: skip
    with tempfile.TemporaryDirectory() as work:
        database = Path(work) / f"analysis.{low}"
        connection = sqlite3.connect(database)
        if unclosed:
            connection.execute("PRAGMA journal_mode=WAL")
        _fill(connection, frames, places, said, kind, calibrations, mobility, spots, spot_size)
        if change is not None:
            change(connection)
        connection.commit()
        if unclosed:
            for file in (database, Path(f"{database}-wal")):
                shutil.copy(file, path)
            connection.close()
        else:
            connection.close()
            shutil.copy(database, path)
    return path


def _fill(connection, frames, places, said, kind, calibrations, mobility, spots, spot_size):
    rows = [(key, str(value)) for key, value in said.items() if value is not None]
    _table(connection, "GlobalMetadata", ["Key", "Value"], rows)
    names = ["Id", "Time", "Polarity", "ScanMode", "MsMsType", "TimsId", "MaxIntensity",
             "SummedIntensities", "NumPeaks", "MzCalibration", "T1", "T2"]  # fmt: skip
    names += ["NumScans", "TimsCalibration", "AccumulationTime"] if kind == "TDF" else []
    records = []
    for number, (frame, place) in enumerate(zip(frames, places), 1):
        counts = list(frame.line[1])
        scale = 1.0
        if kind == "TDF":
            counts = [value for _, values in frame.scans for value in values]
            scale = 100.0 / (frame.accumulation or 100.0)
        record = [number, 0.1 * number, frame.polarity, 20, frame.ms_type, place,
                  math.floor(max(counts, default=0) * scale + 0.5),
                  math.floor(sum(counts) * scale + 0.5), len(counts), frame.calibration,
                  frame.t1, frame.t2]  # fmt: skip
        records.append(
            record + ([len(frame.scans), 1, frame.accumulation] if kind == "TDF" else [])
        )
    _table(connection, "Frames", names, records)
    _dicts(connection, "MzCalibration", calibrations)
    if kind == "TDF":
        _dicts(connection, "TimsCalibration", mobility)
    if spot_size is not None:
        laser = {"Id": 1, "LaserApplicationName": "Custom", "BeamScanSizeX": 14.0,
                 "BeamScanSizeY": 14.0, "SpotSize": spot_size}  # fmt: skip
        _dicts(connection, "MaldiFrameLaserInfo", [laser])
    if spots:
        names = ["Frame", "Chip", "SpotName", "RegionNumber", "XIndexPos", "YIndexPos",
                 "MotorPositionX", "MotorPositionY", "MotorPositionZ", "LaserPower",
                 "NumLaserShots", "LaserInfo"]  # fmt: skip
        placed = [
            (number, 0, f"R{frame.region:02d}X{frame.x}Y{frame.y}", frame.region, frame.x, frame.y,
             *frame.stage(), 0.0, 25.0, 100, 1)
            for number, frame in enumerate(frames, 1) if frame.x is not None
        ]  # fmt: skip
        _table(connection, "MaldiFrameInfo", names, placed)


def _dicts(connection, name, rows):
    names = list(dict.fromkeys(key for row in rows for key in row)) or ["Id"]
    _table(connection, name, names, [[row.get(key) for key in names] for row in rows])


def _table(connection, name, columns, rows):
    connection.execute(f"CREATE TABLE {name} ({', '.join(columns)})")
    marks = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows)
