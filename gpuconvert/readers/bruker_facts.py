"""What the tables of a Bruker ``.d`` say of schema, instrument, laser and calibration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpuconvert.errors import SourceError
from gpuconvert.readers.bruker_file import LZF, ZSTD, Content, Form
from gpuconvert.readers.bruker_sql import BrukerFiles, Kind, opened, read_records
from gpuconvert.readers.findings import Findings
from gpuconvert.readers.imzml_facts import LONGEST_TEXT
from gpuconvert.settings import Settings
from gpuconvert.spectra import Instrument

SCHEMA_MOST = 3
"""Newest SchemaVersionMajor that is known."""

COMPRESSIONS: dict[Kind, tuple[int, ...]] = {"TSF": (3,), "TDF": (LZF, ZSTD)}
"""Known values of TimsCompressionType."""

SAMPLES_MOST = 2**27
"""Samples that a digitizer can have; real ones take less than a hundredth of it."""

_CONTENTS: tuple[tuple[Content, str], ...] = (
    ("line", "HasLineSpectra"), ("profile", "HasProfileSpectra"),
)  # fmt: skip

_TERMS = (
    "InstrumentName", "InstrumentVendor", "InstrumentSerialNumber", "AcquisitionSoftware",
    "AcquisitionSoftwareVersion",
)  # fmt: skip


def check_schema(files: BrukerFiles, metadata: dict[str, str]) -> None:
    """Refuse a schema or a compression that is not known."""
    said = metadata.get("SchemaType", files.kind)
    if said != files.kind:
        raise SourceError(f"{files.database} has schema {said!r}, expected {files.kind!r}")
    major = metadata.get("SchemaVersionMajor", "3")
    if not (major.isdecimal() and int(major) <= SCHEMA_MOST):
        raise SourceError(
            f"{files.database} has schema version {major}, expected at most {SCHEMA_MOST}: a newer "
            "gpuconvert may read it"
        )
    known = COMPRESSIONS[files.kind]
    compression = metadata.get("TimsCompressionType", "")
    if compression not in map(str, known):
        raise SourceError(
            f"{files.database} has TimsCompressionType {compression or 'unstated'}, expected "
            f"{' or '.join(map(str, known))}"
        )
    scale = metadata.get("PeakListIndexScaleFactor", "1")
    if scale.strip() not in ("1", "1.0"):
        raise SourceError(
            f"{files.database} has PeakListIndexScaleFactor {scale}, expected 1: what other "
            "factors do to m/z is not known"
        )


def find_form(
    files: BrukerFiles, metadata: dict[str, str], settings: Settings, findings: Findings
) -> Form:
    """Return how frames are stored, and which of their spectra is converted."""
    samples = metadata.get("DigitizerNumSamples", "")
    if not (samples.isdecimal() and 0 < int(samples) <= SAMPLES_MOST):
        raise SourceError(
            f"{files.database} states {samples or 'no'} DigitizerNumSamples, expected a number "
            f"from 1 to {SAMPLES_MOST}; export it again"
        )
    content = _choose_content(files, metadata, settings, findings)
    return Form(content, int(metadata["TimsCompressionType"]), int(samples))


def _choose_content(
    files: BrukerFiles, metadata: dict[str, str], settings: Settings, findings: Findings
) -> Content:
    if files.kind == "TDF":
        if settings.spectrum == "profile":
            raise SourceError(
                f"{files.folder} is TDF, which holds peaks and no profile; leave out --spectrum"
            )
        return "scans"
    # A file that is silent has both, as all known ones do.
    held = [content for content, key in _CONTENTS if metadata.get(key, "1") == "1"]
    if not held:
        raise SourceError(f"{files.folder} declares neither line nor profile spectra")
    if settings.spectrum == "auto":
        if len(held) > 1:
            findings.note(
                "frames hold line and profile spectra; the line spectra are converted, give "
                "--spectrum profile for the others"
            )
        return held[0]
    if settings.spectrum not in held:
        raise SourceError(
            f"{files.folder} declares no {settings.spectrum} spectra; give --spectrum {held[0]}"
        )
    return settings.spectrum


def read_instrument(metadata: dict[str, str]) -> Instrument:
    """Return the instrument; every kind that writes this format is a time-of-flight one."""
    terms = tuple(
        f"{name} {metadata[name].strip()}"[:LONGEST_TEXT] for name in _TERMS if metadata.get(name)
    )
    return Instrument(metadata.get("InstrumentName", "").strip(), "time-of-flight", terms)


def read_range(metadata: dict[str, str]) -> tuple[float, float] | None:
    """Return the acquisition range, in Th; None where it is not stated."""
    try:
        low, high = (float(metadata[f"MzAcqRange{end}"]) for end in ("Lower", "Upper"))
    except (KeyError, ValueError):
        return None
    return (low, high) if 0 <= low < high < np.inf else None


def plain_record(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of a table as plain JSON values; blobs by their length, long texts cut."""
    return {name: _plain(value) for name, value in row.items() if value is not None}


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever SQLite holds
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value[:LONGEST_TEXT] if isinstance(value, str) else value


def read_recalibrations(folder: Path, findings: Findings) -> list[dict[str, Any]]:
    """Return what ``calibration.sqlite`` lists, and say that it is not applied."""
    database = folder / "calibration.sqlite"
    if not database.is_file() or not database.stat().st_size:
        return []
    try:
        with opened(database) as connection:
            states = [plain_record(row) for row in read_records(connection, "CalibrationState")]
    except SourceError as error:
        findings.note(f"{error}; its recalibrations are not listed")
        return []
    if states:
        last = states[-1]
        findings.note(
            f"calibration.sqlite holds {len(states)} calibration states (the last of "
            f"{last.get('DateTime', 'an unstated date')}), which would change m/z and are not "
            "applied: m/z are those of the acquisition"
        )
    return states
