"""The SQLite half of a Bruker ``.d`` folder: found, opened read-only, read as columns.

The folder holds ``analysis.tsf`` (one spectrum a frame) or ``analysis.tdf`` (one
spectrum per ion mobility scan), and beside it the ``_bin`` file with the spectra. A
database that the instrument did not close is opened on a copy, so that what SQLite
writes to recover it never reaches the source.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.source_files import reading, require_file

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]
Kind = Literal["TSF", "TDF"]

SIDECARS = ("-wal", "-journal")
"""Suffixes of what SQLite leaves beside a database that was not closed."""

_WAL_MARK = 18
"""Byte of an SQLite file that is 2 where changes are written to a log beside it."""

_OTHERS = {
    "analysis.baf": "BAF", "analysis.yep": "YEP", "ser": "solariX", "fid": "flex", "peaks.sqlite":
    "solariX peak list",
}  # fmt: skip
"""Files that tell another kind of ``.d``, and its name."""

UNKNOWN = np.inf
"""Stands in a column of floats where the table has nothing."""


@dataclass(frozen=True, slots=True)
class BrukerFiles:
    """The files of a folder that decide what comes out of it.

    sidecars : what SQLite left beside the database; not empty files
    """

    folder: Path
    kind: Kind
    database: Path
    binary: Path
    sidecars: tuple[Path, ...]

    def all(self) -> tuple[Path, ...]:
        """Return every file, in a fixed order."""
        return self.database, self.binary, *self.sidecars


@dataclass(frozen=True, slots=True)
class Frames:
    """Every frame of an acquisition, by ascending number; each column (n_frames,).

    number : int64, Id
    place : int64, TimsId: where the frame begins in the binary file, in bytes
    n_peaks, n_scans : int64; one scan where there is no ion mobility
    polarity : int8, +1, -1, or 0 where unknown
    ms_type : int64, MsMsType; 0 is MS1
    calibration, mobility : int64, rows of the calibration tables, 0 where not stated
    t1, t2 : float64, degrees Celsius, UNKNOWN where not stated
    accumulation : float64, ms, UNKNOWN where not stated
    """

    number: Longs
    place: Longs
    n_peaks: Longs
    n_scans: Longs
    polarity: NDArray[np.int8]
    ms_type: Longs
    calibration: Longs
    mobility: Longs
    t1: Floats
    t2: Floats
    accumulation: Floats


@dataclass(frozen=True, slots=True)
class Spots:
    """Where frames were taken from, by ascending frame number; each column (n_spots,).

    frame : int64, number of the frame
    x, y, region : int64, pixel indices and region number
    motor_x, motor_y : float64, stage in micrometres, UNKNOWN where not stated
    """

    frame: Longs
    x: Longs
    y: Longs
    region: Longs
    motor_x: Floats
    motor_y: Floats


def find_files(folder: Path) -> BrukerFiles:
    """Return the files of a ``.d`` folder.

    Raises
    ------
    SourceMissingError
        Where the binary file is not there.
    SourceError
        Where it is no folder, or holds another kind of data.
    """
    if not folder.is_dir():
        raise SourceError(f"{folder} is a file, expected a .d folder; name the folder")
    with reading(folder):
        names = {item.name for item in folder.iterdir()}
        found = [name for name in ("analysis.tsf", "analysis.tdf") if name in names]
        # Some tools leave an empty analysis.tdf in a TSF folder.
        found = [name for name in found if (folder / name).stat().st_size] or found
    if not found:
        other = next((words for name, words in _OTHERS.items() if name in names), "")
        what = f"holds {other} data, which is not supported" if other else "has neither"
        raise SourceError(f"{folder} {what}; expected analysis.tsf or analysis.tdf in it")
    if len(found) > 1:
        raise SourceError(
            f"{folder} holds {' and '.join(found)}, expected one of them; remove the one that "
            "does not belong there"
        )
    database = folder / found[0]
    require_file(database, "an SQLite database")
    binary = folder / f"{found[0]}_bin"
    if not binary.is_file():
        raise SourceMissingError(
            f"{database} needs its binary file {binary.name} beside it, which is not there; "
            "copy the whole folder"
        )
    beside = [folder / (found[0] + suffix) for suffix in SIDECARS]
    sidecars = tuple(file for file in beside if file.is_file() and file.stat().st_size)
    kind: Kind = "TSF" if found[0] == "analysis.tsf" else "TDF"
    return BrukerFiles(folder, kind, database, binary, sidecars)


@contextmanager
def opened(database: Path, sidecars: tuple[Path, ...] = ()) -> Iterator[sqlite3.Connection]:
    """Open a database for reading; it and the files beside it stay as they are."""
    with ExitStack() as stack:
        mode = "ro"
        with reading(database):
            with database.open("rb") as stream:
                head = stream.read(_WAL_MARK + 2)
            if sidecars or head[_WAL_MARK:] == b"\2\2":
                # Even a reader would have to write a file beside such a database.
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="gpuconvert-")))
                for file in (database, *sidecars):
                    shutil.copyfile(file, folder / file.name)
                database_copy, mode = folder / database.name, "rw"
            else:
                database_copy = database
        try:
            uri = f"{database_copy.absolute().as_uri()}?mode={mode}"
            connection = sqlite3.connect(uri, uri=True)
            stack.callback(connection.close)
            connection.text_factory = _as_text
            yield connection
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise SourceError(
                f"{database} cannot be read as an SQLite database ({error}); is it complete? "
                "copy the whole folder again"
            ) from error


def _as_text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def column_names(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """Return the columns of a table; none where there is no such table."""
    return tuple(row[1] for row in connection.execute(f'PRAGMA table_info("{table}")'))


def read_pairs(connection: sqlite3.Connection) -> dict[str, str]:
    """Return GlobalMetadata; empty where there is none."""
    if not column_names(connection, "GlobalMetadata"):
        return {}
    found = connection.execute("SELECT Key, Value FROM GlobalMetadata ORDER BY Key")
    return {str(key): "" if value is None else str(value) for key, value in found}


def read_records(connection: sqlite3.Connection, table: str) -> list[dict[str, Any]]:
    """Return the rows of a small table as dicts; empty where there is no such table."""
    names = column_names(connection, table)
    if not names:
        return []
    return [
        dict(zip(names, row, strict=True)) for row in connection.execute(f'SELECT * FROM "{table}"')
    ]


def _read_columns(
    connection: sqlite3.Connection, table: str, wanted: dict[str, tuple[str, str, str]], order: str
) -> dict[str, Any]:
    """Return columns of a table as arrays, by their name here.

    `wanted` has (column, dtype, SQL of what stands for a missing value), for each name.
    """
    present = {name.lower() for name in column_names(connection, table)}
    terms = []
    for column, dtype, default in wanted.values():
        cast = "REAL" if dtype == "f8" else "INTEGER"
        known = column.lower() in present
        terms.append(f'COALESCE(CAST("{column}" AS {cast}), {default})' if known else default)
    rows = connection.execute(f'SELECT {", ".join(terms)} FROM "{table}" ORDER BY "{order}"')
    kinds = np.dtype([(name, dtype) for name, (_, dtype, _) in wanted.items()])
    records: NDArray[Any] = np.fromiter(rows, kinds)
    return {name: np.ascontiguousarray(records[name]) for name in wanted}


def read_frames(connection: sqlite3.Connection, database: Path) -> Frames:
    """Return all frames; SourceError where the table is not one that is known."""
    names = column_names(connection, "Frames")
    for needed in ("Id", "TimsId", "NumPeaks"):
        if needed not in names:
            raise SourceError(
                f"{database} has no column {needed} in a table Frames: its schema is not known"
            )
    _require_numbers(connection, database, ("Id", "NumPeaks"))
    unknown = "9e999"
    columns = _read_columns(
        connection, "Frames", {
            "number": ("Id", "i8", "0"), "place": ("TimsId", "i8", "-1"),
            "n_peaks": ("NumPeaks", "i8", "0"), "n_scans": ("NumScans", "i8", "1"),
            "ms_type": ("MsMsType", "i8", "0"), "calibration": ("MzCalibration", "i8", "0"),
            "mobility": ("TimsCalibration", "i8", "0"), "t1": ("T1", "f8", unknown),
            "t2": ("T2", "f8", unknown), "accumulation": ("AccumulationTime", "f8", unknown),
        }, "Id",
    )  # fmt: skip
    polarity = np.zeros(len(columns["number"]), np.int8)
    if "Polarity" in names:
        signs = "CASE Polarity WHEN '+' THEN 1 WHEN '-' THEN -1 ELSE 0 END"
        found = connection.execute(f"SELECT {signs} FROM Frames ORDER BY Id")
        polarity = np.fromiter((row[0] for row in found), np.int8)
    for name, column, most in (("NumPeaks", "n_peaks", 2**31), ("NumScans", "n_scans", 2**20)):
        bad = (columns[column] < 0) | (columns[column] > most)
        if bad.any():
            at = int(np.argmax(bad))
            raise SourceError(
                f"{database}: frame {columns['number'][at]} states {columns[column][at]} {name}, "
                f"expected 0 to {most}; copy the whole folder again"
            )
    return Frames(polarity=polarity, **columns)


def _require_numbers(
    connection: sqlite3.Connection, database: Path, columns: tuple[str, ...]
) -> None:
    """Raise SourceError where a frame has no whole number in a column that decides what is read.

    Taken for 0, a missing number of peaks would empty the frame.
    """
    for column in columns:
        found = connection.execute(
            f'SELECT Id, "{column}" FROM Frames WHERE "{column}" IS NULL OR "{column}" = \'\' '
            f"OR \"{column}\" GLOB '*[^0-9.+-]*' ORDER BY Id LIMIT 1"
        ).fetchone()
        if found is not None:
            value = "no" if found[1] is None else repr(found[1])
            raise SourceError(
                f"{database}: frame {found[0]} states {value} {column}, expected a whole number; "
                "copy the whole folder again"
            )


def read_spots(connection: sqlite3.Connection) -> Spots:
    """Return where frames were taken from; no spots where the acquisition has no pixels."""
    names = column_names(connection, "MaldiFrameInfo")
    if not {"Frame", "XIndexPos", "YIndexPos"} <= set(names):
        empty, none = np.zeros(0, np.int64), np.zeros(0)
        return Spots(empty, empty, empty, empty, none, none)
    lost = str(-(2**62))
    columns = _read_columns(
        connection, "MaldiFrameInfo", {
            "frame": ("Frame", "i8", "-1"), "x": ("XIndexPos", "i8", lost),
            "y": ("YIndexPos", "i8", lost), "region": ("RegionNumber", "i8", "0"),
            "motor_x": ("MotorPositionX", "f8", "9e999"),
            "motor_y": ("MotorPositionY", "f8", "9e999"),
        }, "Frame",
    )  # fmt: skip
    placed = (columns["x"] != int(lost)) & (columns["y"] != int(lost))
    return Spots(**{name: column[placed] for name, column in columns.items()})
