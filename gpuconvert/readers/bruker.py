"""The Bruker reader: timsTOF ``.d`` folders, TSF and TDF, without the vendor's library.

Opening reads the SQLite tables as columns; reading inflates frames, and the backend makes
points of them (`gpuconvert.packed`): m/z in float64, by the coefficients and temperatures
of that frame, and intensities in float32: as stored for TSF; for TDF summed over all
mobility scans and scaled to an accumulation time of 100 ms, as the file's own sums are.
They are not rounded to whole counts afterwards, so weak peaks of long accumulations stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.packed import Packed
from gpuconvert.readers.bruker_calibration import MzCalibration, build_calibration, mz_ends
from gpuconvert.readers.bruker_facts import (
    check_schema,
    find_form,
    plain_record,
    read_instrument,
    read_range,
    read_recalibrations,
)
from gpuconvert.readers.bruker_file import PACKED, Form
from gpuconvert.readers.bruker_frames import FrameFile, Inflated
from gpuconvert.readers.bruker_geometry import (
    Pitch,
    Pixels,
    choose,
    find_pitch,
    frames_in_a_row,
    place_frames,
    take,
)
from gpuconvert.readers.bruker_mobility import ScanBins
from gpuconvert.readers.bruker_sql import (
    BrukerFiles,
    Frames,
    Spots,
    find_files,
    opened,
    read_frames,
    read_pairs,
    read_records,
    read_spots,
)
from gpuconvert.readers.findings import Findings, row_order
from gpuconvert.readers.source_files import Stamps, digest
from gpuconvert.settings import Settings
from gpuconvert.spectra import Acquisition, Encoding, RawBatch, Representation, SourceIdentity

Longs = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Records = list[dict[str, Any]]

MZ_DTYPE, INTENSITY_DTYPE = "<f8", "<f4"

INTENSITIES = {
    "line": "counts as stored",
    "profile": "counts as stored",
    "scans": "counts as stored, summed over the mobility scans, times 100 ms / AccumulationTime",
}
"""What the intensities of each content are."""


@dataclass(frozen=True, slots=True)
class Tables:
    """What is read of the database.

    metadata : GlobalMetadata
    mz, mobility, lasers, info : rows of MzCalibration, TimsCalibration,
        MaldiFrameLaserInfo and CalibrationInfo
    """

    metadata: dict[str, str]
    frames: Frames
    spots: Spots
    mz: Records
    mobility: Records
    lasers: Records
    info: Records


def read_tables(files: BrukerFiles) -> Tables:
    """Return the tables of an acquisition whose schema is known."""
    with opened(files.database, files.sidecars) as connection:
        metadata = read_pairs(connection)
        check_schema(files, metadata)
        return Tables(
            metadata, read_frames(connection, files.database), read_spots(connection),
            *(read_records(connection, name) for name in (
                "MzCalibration", "TimsCalibration", "MaldiFrameLaserInfo", "CalibrationInfo",
            )),
        )  # fmt: skip


class BrukerReader:
    """An open ``.d`` folder; see `gpuconvert.readers.Reader`.

    frames : the binary file; its rows are those of the acquisition
    calibration : of every row
    mobility : bins of ion mobility, where they were asked for
    """

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        files = find_files(path)
        self._stamps = Stamps(files.all())
        findings = Findings(path, settings.strict)
        tables = read_tables(files)
        _note_state(files, tables.metadata, findings)
        form = find_form(files, tables.metadata, settings, findings)
        pixels, imaging = _find_pixels(path, tables, settings, findings)
        rows, origin = _arrange(path, pixels, settings, findings)
        pixels = take(pixels, rows)
        self._form = form
        self.calibration = build_calibration(
            str(path), tables.frames, pixels.frame, tables.mz, tables.metadata,
            n_samples=form.n_samples, chord=settings.calibration == "chord",
        )  # fmt: skip
        for note in self.calibration.notes:
            findings.note(note)
        recalibrations = read_recalibrations(path, findings)
        identity = _identity(files, tables.metadata)
        pitch = Pitch((1.0, 1.0), "no image")
        if imaging:
            pitch = find_pitch(pixels, tables.lasers, settings, findings)
        self._scans = _scan_bins(path, tables, pixels, form, settings)
        self.mobility = None if self._scans is None else self._scans.axis
        self.frames = FrameFile(files, tables.frames, pixels.frame, form)
        self.acquisition = self._describe(
            tables, identity, pixels, origin, pitch, settings, imaging=imaging,
            warnings=findings.warnings, recalibrations=recalibrations,
        )  # fmt: skip

    def read(self, first: int, last: int, into: Bytes) -> RawBatch:
        """Return rows [first, last), their frames in `into`."""
        found = self.frames.read(first, last, into)
        owner = np.repeat(found.rows - first, found.n_scans)
        n_points = self.frames.n_points[first:last]
        return self._batch(found, into, owner, np.arange(first, last), n_points)

    def read_mobility(self, first: int, last: int, into: Bytes) -> RawBatch:
        """Return rows [first, last) as one spectrum for every mobility bin of a scan."""
        if self._scans is None:
            raise ValueError("the reader was opened without mobility bins")
        found = self.frames.read(first, last, into)
        none = np.zeros(0, np.int64)
        owners, numbers, sizes, size = [none], [none], [], 0
        for row, n_scans in zip(found.rows.tolist(), found.n_scans.tolist(), strict=True):
            bins, own = self._scans.of_row(row, n_scans)
            owners.append(own + size)
            numbers.append(row * self._scans.axis.n_bins + bins)
            sizes.append(len(bins))
            size += len(bins)
        n_points = np.repeat(self.frames.n_points[found.rows], np.array(sizes, np.int64))
        return self._batch(found, into, np.concatenate(owners), np.concatenate(numbers), n_points)

    def _batch(
        self, found: Inflated, into: Bytes, owner: Longs, rows: Longs, n_points: Longs
    ) -> RawBatch:
        """Return inflated frames, their scans given to spectra, as a batch."""
        own, frames, calibration = found.rows, self.frames, self.calibration
        packed = Packed(
            content=PACKED[self._form.content], path=str(frames.path), number=frames.number[own],
            begin=found.begin, n_peaks=frames.n_points[own],
            scan_at=np.concatenate([[0], np.cumsum(found.n_scans)]).astype(np.int64), owner=owner,
            scale=frames.scale[own], n_samples=self._form.n_samples, models=calibration.models,
            model=calibration.model[own], factor=calibration.factor[own],
        )  # fmt: skip
        none = np.zeros(0, np.int64)
        return RawBatch(
            into[: found.n_bytes], none, none, n_points, np.dtype(MZ_DTYPE),
            np.dtype(INTENSITY_DTYPE), rows, self.acquisition.encodings[0].representation, packed,
        )  # fmt: skip

    def batch_bytes(self, first: int, last: int) -> int:
        """Return the bytes of buffer that rows [first, last) need."""
        return int(self.acquisition.raw_bytes[first:last].sum())

    def mz_extent(self) -> tuple[float, float]:
        """Return the m/z of the digitizer's first and last sample, in Th.

        No frame has a point beyond them, and acquisitions of one method get one axis.
        """
        return self.stated_extent() or (0.0, 0.0)

    def stated_extent(self) -> tuple[float, float] | None:
        """Return the same; it is known unread."""
        ends = mz_ends(self.calibration, self._form.n_samples)
        if np.isfinite(ends).all() and 0 <= ends[0] < ends[1]:
            return ends
        return self.acquisition.mz_range

    def check_unchanged(self) -> None:
        """Raise SourceError if a file changed since it was opened."""
        self._stamps.check()

    def close(self) -> None:
        """Close the files; the reader cannot be used afterwards."""
        self.frames.close()

    def _describe(
        self, tables: Tables, identity: SourceIdentity, pixels: Pixels,
        origin: tuple[int, int, int], pitch: Pitch, settings: Settings, *, imaging: bool,
        warnings: list[str], recalibrations: Records,
    ) -> Acquisition:  # fmt: skip
        """Return the acquisition of `pixels`, which are in row order."""
        frames = self.frames
        x, y = (
            (column - low).astype(np.int32)
            for column, low in zip((pixels.x, pixels.y), origin, strict=False)
        )
        n_rows = len(x)
        representation: Representation = (
            "profile" if self._form.content == "profile" else ("centroid")
        )
        if settings.spectrum_type != "auto":
            representation = settings.spectrum_type
        return Acquisition(
            path=str(self.path), format=f"Bruker {'TDF' if self._is_tdf else 'TSF'}",
            identity=identity, x=x, y=y, z=np.zeros(n_rows, np.int32), order=pixels.frame,
            n_points=frames.n_points, raw_bytes=frames.room + frames.stored,
            encoding=np.zeros(n_rows, np.uint8),
            encodings=(Encoding(MZ_DTYPE, INTENSITY_DTYPE, representation=representation),),
            shared_mz_points=0, polarity=tables.frames.polarity[pixels.frame],
            region=pixels.region.astype(np.int32), origin=origin, pixel_size=pitch.size,
            pixel_size_source=pitch.source, instrument=read_instrument(tables.metadata),
            mz_range=read_range(tables.metadata), imaging=imaging, warnings=tuple(warnings),
            reader_bytes=frames.reader_bytes, unpack_bytes=frames.unpack_bytes,
            metadata=_metadata(tables, self._form, self.calibration, pixels, pitch,
                               recalibrations),
        )  # fmt: skip

    @property
    def _is_tdf(self) -> bool:
        return self._form.content == "scans"


def _scan_bins(
    path: Path, tables: Tables, pixels: Pixels, form: Form, settings: Settings
) -> ScanBins | None:
    """Return the mobility bins that were asked for."""
    if settings.mobility_bins is None:
        return None
    if form.content != "scans":
        raise SourceError(f"{path} is TSF, which holds no ion mobility; leave out --mobility-bins")
    return ScanBins(str(path), tables.frames, pixels.frame, tables.mobility, settings.mobility_bins)


def _identity(files: BrukerFiles, metadata: dict[str, str]) -> SourceIdentity:
    roles = tuple(
        (file.name.removeprefix("analysis."), file.stat().st_size, digest(file))
        for file in files.all()
    )
    uuid = metadata.get("AnalysisId", "").lower().replace("-", "")
    return SourceIdentity(roles, uuid if uuid.strip("0") else "")


def _note_state(files: BrukerFiles, metadata: dict[str, str], findings: Findings) -> None:
    if files.sidecars:
        names = " and ".join(file.name for file in files.sidecars)
        findings.note(f"the acquisition left {names}: its database was recovered on a copy")
    if metadata.get("ClosedProperly", "1") != "1":
        findings.contradict(
            "the acquisition was not closed properly (ClosedProperly is "
            f"{metadata['ClosedProperly']}); frames may be missing at its end"
        )


def _find_pixels(
    path: Path, tables: Tables, settings: Settings, findings: Findings
) -> tuple[Pixels, bool]:
    """Return the frames to convert, in the order of the file, and whether they are an image."""
    application = tables.metadata.get("MaldiApplicationType", "Imaging")
    if len(tables.spots.frame) and application == "Imaging":
        pixels = place_frames(path, tables.frames, tables.spots, findings)
        return choose(path, pixels, tables.frames, settings), True
    if len(tables.spots.frame):
        findings.note(f"its MaldiApplicationType is {application!r}: its spots are no pixels")
    pixels = frames_in_a_row(tables.frames)
    if settings.ms_level is not None:
        pixels = choose(path, pixels, tables.frames, settings)
    return pixels, False


def _arrange(
    path: Path, pixels: Pixels, settings: Settings, findings: Findings
) -> tuple[Longs, tuple[int, int, int]]:
    """Return the pixels in row order, some of them left out as asked for, and the origin."""
    if not len(pixels.frame):
        return np.zeros(0, np.int64), (0, 0, 0)
    origin = (int(pixels.x.min()), int(pixels.y.min()), 0)
    for name, column in (("x", pixels.x), ("y", pixels.y), ("region", pixels.region)):
        low, high = int(column.min()), int(column.max())
        if high - low >= 2**31 or (name == "region" and not 0 <= low <= high < 2**31):
            raise SourceError(
                f"{path}: {name} runs from {low} to {high}, expected fewer than 2^31 of them"
            )
    places = (np.zeros_like(pixels.x), pixels.y - origin[1], pixels.x - origin[0])
    return row_order(path, places, origin, findings, settings.duplicates), origin


def _metadata(
    tables: Tables, form: Form, calibration: MzCalibration, pixels: Pixels, pitch: Pitch,
    recalibrations: Records,
) -> dict[str, Any]:  # fmt: skip
    """Return further facts of the tables as plain JSON values."""
    frames = tables.frames
    used = np.unique(frames.calibration[pixels.frame]).tolist()
    mobility = np.unique(frames.mobility[pixels.frame]).tolist()

    def span(values: NDArray[np.float64]) -> list[float]:
        known = values[np.isfinite(values)]
        return [float(known.min()), float(known.max())] if len(known) else []

    regions = [
        {
            "region": int(region),
            "frames": int((pixels.region == region).sum()),
            "x": _ends(pixels.x[pixels.region == region]),
            "y": _ends(pixels.y[pixels.region == region]),
        }
        for region in np.unique(pixels.region)
    ]
    return {
        "content": form.content,
        "intensities": INTENSITIES[form.content],
        "mz_calibration": "chord" if calibration.approximate else "exact",
        "mz_calibrations": [plain_record(row) for row in tables.mz if row.get("Id") in used],
        "temperatures": [span(frames.t1[pixels.frame]), span(frames.t2[pixels.frame])],
        "mobility_calibrations": [
            plain_record(row) for row in tables.mobility if row.get("Id") in mobility
        ],
        "calibration_info": [plain_record(row) for row in tables.info],
        "recalibrations": recalibrations,
        "regions": regions,
        "stage_residual_um": pitch.residual,
        "lasers": [plain_record(row) for row in tables.lasers],
        "ms_types": np.unique(frames.ms_type[pixels.frame]).tolist(),
        "frames_in_file": len(frames.number),
        "global": plain_record(dict(tables.metadata)),
    }


def _ends(values: Longs) -> list[int]:
    return [int(values.min()), int(values.max())]
