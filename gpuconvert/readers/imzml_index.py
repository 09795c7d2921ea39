"""The index of an imzML: one row per pixel, in ascending (z, y, x), as columns.

What the header says is held against what the spectra say; the spectra win, and a
disagreement is reported. Spectra are counted from 0 in the order of the file.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers import imzml_scan as scan
from gpuconvert.readers.findings import Findings, row_order
from gpuconvert.readers.imzml_bytes import MISSING
from gpuconvert.readers.imzml_checks import Checker, distinct
from gpuconvert.readers.imzml_facts import PIXEL_SIZE, ScanSettings, pixel_size
from gpuconvert.readers.imzml_header import ImzmlHeader
from gpuconvert.readers.imzml_slow import SpectrumTable
from gpuconvert.readers.imzml_xml import LATIN
from gpuconvert.settings import Settings
from gpuconvert.spectra import Acquisition, Encoding, Representation, SourceIdentity

Longs = NDArray[np.int64]

MOST_ENCODINGS = 255
"""`Acquisition.encoding` is uint8."""


@dataclass(frozen=True, slots=True)
class BinaryFile:
    """What is known of the .ibd before its arrays are read.

    path, size : where it is, and its size in bytes
    uuid : its first 16 bytes
    """

    path: Path
    size: int
    uuid: bytes


@dataclass(frozen=True, slots=True)
class ImzmlIndex:
    """Where the arrays of every row lie.

    mz_offset, mz_stored : (n_spectra,) int64, place and size in the file, in bytes
    intensity_offset, intensity_stored : the same of the intensities
    """

    acquisition: Acquisition
    mz_offset: Longs
    mz_stored: Longs
    intensity_offset: Longs
    intensity_stored: Longs


def build_index(
    path: Path, header: ImzmlHeader, table: SpectrumTable, *, ibd: BinaryFile,
    identity: SourceIdentity, settings: Settings,
) -> ImzmlIndex:  # fmt: skip
    """Return the checked index of a file.

    Raises
    ------
    SourceError
        Where a spectrum cannot be read as declared, pixels occur twice and
        ``settings.duplicates`` is "error", or a contradiction is found and
        ``settings.strict`` is set.
    """
    findings = Findings(path, settings.strict)
    _compare_header(header, table, ibd, findings)
    checker = Checker(path, ibd.path, ibd.size, table, findings)
    checker.check_all()
    shared = _is_shared(header, checker, findings)
    encodings, encoding = _encodings(header, checker, findings, settings)
    z, y, x, origin = _rebase(path, table, findings)
    rows = row_order(path, (z, y, x), origin, findings, settings.duplicates)
    chosen = _choose_scan_settings(header, (x, y), origin, findings)
    size, size_source = _pixel_size(path, chosen, findings, settings)
    mz, intensity = checker.mz, checker.intensity
    raw_bytes = intensity.length * intensity.item_sizes()
    if not shared:
        raw_bytes += mz.length * mz.item_sizes()
    acquisition = Acquisition(
        path=str(path), format="imzML", identity=identity,
        x=x[rows].astype(np.int32), y=y[rows].astype(np.int32), z=z[rows].astype(np.int32),
        order=rows, n_points=mz.length[rows], raw_bytes=raw_bytes[rows],
        encoding=encoding[rows], encodings=encodings,
        shared_mz_points=int(mz.length[0]) if shared else 0,
        polarity=_polarity(header, checker, findings)[rows], region=None, origin=origin,
        pixel_size=size, pixel_size_source=size_source, instrument=header.instrument,
        mz_range=header.mz_range, warnings=tuple(findings.warnings),
        metadata=_metadata(header, chosen),
    )  # fmt: skip
    return ImzmlIndex(
        acquisition, mz.offset[rows], mz.stored[rows], intensity.offset[rows],
        intensity.stored[rows],
    )  # fmt: skip


def _compare_header(
    header: ImzmlHeader, table: SpectrumTable, ibd: BinaryFile, findings: Findings
) -> None:
    if header.source.junk:
        findings.note(f"skipped {header.source.start} bytes before the XML begins")
    if header.encoding == LATIN:
        findings.note("the text is not in the encoding that it declares; read as ISO-8859-1")
    found = table.columns.shape[1]
    if header.count is not None and header.count != found:
        findings.contradict(f"spectrumList declares {header.count} spectra, but {found} are there")
    if header.uuid:
        _compare_uuid(header.uuid, ibd, findings)


def normal_uuid(text: str) -> str:
    """Return an identifier as lower-case hex without braces and dashes."""
    return text.strip().lower().removeprefix("urn:uuid:").strip("{}()").replace("-", "")


def same_uuid(text: str, raw: bytes) -> bool:
    """Return whether 16 bytes are the identifier `text`; ValueError where that is none."""
    known = uuid.UUID(hex=text)
    # Some writers store the first fields little-endian, as Windows does.
    return raw in (known.bytes, known.bytes_le)


def _compare_uuid(said: str, ibd: BinaryFile, findings: Findings) -> None:
    text = normal_uuid(said)
    try:
        same = same_uuid(text, ibd.uuid)
    except ValueError:
        findings.contradict(f"the UUID {said[:60]!r} (IMS:1000080) is not 32 hexadecimal digits")
        return
    if not same:
        findings.contradict(
            f"the UUID is {text} here but {ibd.uuid.hex()} in {ibd.path}; "
            "do the two files belong together?"
        )


def _is_shared(header: ImzmlHeader, checker: Checker, findings: Findings) -> bool:
    """Return whether all spectra have one m/z array, whatever the header says."""
    mz = checker.mz
    if len(mz.length) == 1:
        return header.mode == "continuous" and bool(mz.length[0] > 0)
    alike = (mz.offset, mz.length, mz.stored, mz.code)
    shared = bool(mz.length[0] > 0) and all(bool((column == column[0]).all()) for column in alike)
    if header.mode == "both":
        findings.contradict("the header says both continuous and processed")
    elif header.mode == "continuous" and not shared and mz.length.any():
        findings.contradict(
            "the header says continuous, but spectra have m/z arrays of their own: "
            "read as processed"
        )
    elif header.mode == "processed" and shared:
        findings.contradict(
            "the header says processed, but all spectra share one m/z array: read as continuous"
        )
    return shared


def _one_of(bits: int, first: int, second: int) -> int:
    """Return the one of two bits that is set, or 0."""
    said = bits & (first | second)
    return said if said in (first, second) else 0


def _said_per_spectrum(
    header: ImzmlHeader, checker: Checker, findings: Findings, *, bits: tuple[int, int], what: str
) -> Longs:
    """Return which of two bits holds for each spectrum, 0 where unknown; (n_spectra,) int64.

    The spectrum itself is asked first, then the file content, then the groups.
    """
    pair = bits[0] | bits[1]
    said = checker.spectrum_terms & pair
    if (said == pair).any():
        findings.contradict(
            f"{int((said == pair).sum())} spectra say two things about their {what}; "
            "taken as unknown"
        )
    by_file = _one_of(header.file_bits, *bits)
    values = {int(value) for value in np.unique(said)} - {0, pair}
    if by_file and values and values != {by_file}:
        findings.contradict(f"file content and spectra disagree about the {what}; spectra count")
    fallback = by_file or _one_of(header.group_bits, *bits)
    said = np.where(said == 0, fallback, said)
    said[said == pair] = 0
    return said


def _polarity(header: ImzmlHeader, checker: Checker, findings: Findings) -> NDArray[np.int8]:
    """Return +1, -1 or 0 for each spectrum; (n_spectra,) int8."""
    bits = (scan.POSITIVE, scan.NEGATIVE)
    said = _said_per_spectrum(header, checker, findings, bits=bits, what="polarity")
    sign: NDArray[np.int8] = (said == scan.POSITIVE).astype(np.int8)
    sign[said == scan.NEGATIVE] = -1
    return sign


def _encodings(
    header: ImzmlHeader, checker: Checker, findings: Findings, settings: Settings
) -> tuple[tuple[Encoding, ...], NDArray[np.uint8]]:
    """Return the table of encodings, and which of them each spectrum has; (n_spectra,) uint8."""
    bits = (scan.PROFILE, scan.CENTROID)
    if settings.spectrum_type == "auto":
        said = _said_per_spectrum(header, checker, findings, bits=bits, what="spectrum type")
    else:
        forced = scan.PROFILE if settings.spectrum_type == "profile" else scan.CENTROID
        said = np.full(len(checker.flags), forced, np.int64)
    mz, intensity = checker.mz, checker.intensity
    compressed = mz.zlib.astype(np.int64) | intensity.zlib.astype(np.int64) << 1
    values, code = distinct(said | compressed << 8 | mz.code << 4 | intensity.code)
    if len(values) > MOST_ENCODINGS:
        raise SourceError(
            f"{checker.path} encodes its arrays in {len(values)} ways, expected at most "
            f"{MOST_ENCODINGS}; export it again"
        )
    names: dict[int, Representation] = {scan.PROFILE: "profile", scan.CENTROID: "centroid"}
    encodings = tuple(
        Encoding(
            mz.dtypes[key >> 4 & 15], intensity.dtypes[key & 15], bool(key >> 8 & 1),
            bool(key >> 9 & 1), names.get(key & (scan.PROFILE | scan.CENTROID)),
        )
        for key in values.tolist()
    )  # fmt: skip
    return encodings, code.astype(np.uint8)


def _rebase(
    path: Path, table: SpectrumTable, findings: Findings
) -> tuple[Longs, Longs, Longs, tuple[int, int, int]]:
    """Return z, y and x counted from 0, and the origin (x, y, z); (n_spectra,) int64 each."""
    z = table.columns[scan.Z]
    absent = z == MISSING
    if absent.any():
        # A file without z is the first plane; imzML counts from 1.
        lowest = 1 if absent.all() else int(z[~absent].min())
        if not absent.all():
            findings.note(f"{int(absent.sum())} spectra have no position z; taken as {lowest}")
        z = np.where(absent, lowest, z)
    columns = {"z": z, "y": table.columns[scan.Y], "x": table.columns[scan.X]}
    origin = {name: int(column.min()) for name, column in columns.items()}
    for name, column in columns.items():
        if int(column.max()) - origin[name] >= 2**31:
            raise SourceError(
                f"{path}: position {name} runs from {origin[name]} to {int(column.max())}, "
                "expected fewer than 2^31 pixels; export it again"
            )
    based = [column - origin[name] for name, column in columns.items()]
    return based[0], based[1], based[2], (origin["x"], origin["y"], origin["z"])


def _choose_scan_settings(
    header: ImzmlHeader, xy: tuple[Longs, Longs], origin: tuple[int, int, int], findings: Findings
) -> ScanSettings | None:
    """Return the scan settings that hold for this grid, and report where they disagree."""
    if not header.scan_settings:
        return None
    span = [int(column.max()) + 1 for column in xy]
    fitting = [{size, size + low - 1} for size, low in zip(span, origin, strict=False)]

    def fits(item: ScanSettings) -> bool:
        pairs = zip(item.counts, fitting, strict=True)
        return all(count is None or count in sizes for count, sizes in pairs)

    def completeness(item: ScanSettings) -> tuple[bool, bool, bool]:
        sized = item.find(PIXEL_SIZE[0]) is not None
        complete = sized and None not in item.counts
        return complete and fits(item), complete, sized

    chosen = max(header.scan_settings, key=completeness)
    sizes = {
        tuple(term.value for name in PIXEL_SIZE if (term := item.find(name)))
        for item in header.scan_settings
    }
    if len(sizes - {()}) > 1:
        findings.contradict(
            f"{len(header.scan_settings)} scanSettings give different pixel sizes; "
            f"{chosen.name!r} is used"
        )
    if not fits(chosen):
        said = " x ".join("?" if count is None else str(count) for count in chosen.counts)
        findings.contradict(
            f"the header declares {said} pixels (x, y), but {span[0]} x {span[1]} are covered, "
            f"from x={origin[0]}, y={origin[1]}"
        )
    return chosen


def _pixel_size(
    path: Path, chosen: ScanSettings | None, findings: Findings, settings: Settings
) -> tuple[tuple[float, float], str]:
    """Return the pixel size (x, y) in micrometres, and where it is from."""
    if settings.pixel_size is not None:
        return settings.pixel_size, "given"
    if chosen is not None:
        size, warnings = pixel_size(path, chosen)
        for text in warnings:
            findings.note(text)
        if size is not None:
            return size, f"header ({PIXEL_SIZE[0]})"
    findings.note("the header gives no pixel size; 1 um is assumed, give --pixel-size")
    return (1.0, 1.0), "assumed"


def _metadata(header: ImzmlHeader, chosen: ScanSettings | None) -> dict[str, object]:
    return header.metadata | {
        "mode": header.mode,
        "declared_spectra": header.count,
        "declared_grid": None if chosen is None else list(chosen.counts),
    }
