"""Which frames become pixels, where they lie, and how large a pixel is.

The raster index of a frame is its pixel; all regions lie in one raster. The size of a
pixel is the distance of the stage from one index to the next, by least squares over all
frames: the laser's own scan range is not it, and the nominal spot size need not be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.bruker_sql import Frames, Spots
from gpuconvert.readers.findings import Findings
from gpuconvert.settings import Settings

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

NOMINAL_MOST = 0.05
"""A measured pitch this far from the nominal spot size is worth a warning; a fraction."""

MS1 = 0


@dataclass(frozen=True, slots=True)
class Pixels:
    """Frames that become spectra, in the order of the file; each column (n,).

    frame : int64, position in the table of frames
    x, y, region : int64, as in the file
    motor_x, motor_y : float64, micrometres, not finite where unknown
    """

    frame: Longs
    x: Longs
    y: Longs
    region: Longs
    motor_x: Floats
    motor_y: Floats


@dataclass(frozen=True, slots=True)
class Pitch:
    """The size of a pixel.

    size : (x, y) in micrometres
    source : where it is from, in words
    residual : root mean square of the stage about its raster, in micrometres; 0 where unknown
    """

    size: tuple[float, float]
    source: str
    residual: float = 0.0


def place_frames(path: Path, frames: Frames, spots: Spots, findings: Findings) -> Pixels:
    """Return the frames that have a pixel, and report those that have none."""
    at = np.minimum(np.searchsorted(frames.number, spots.frame), max(0, len(frames.number) - 1))
    if not len(frames.number):
        raise SourceError(f"{path} has no frames, expected at least one; was it acquired?")
    known = frames.number[at] == spots.frame
    lost = int((~known).sum())
    if lost:
        findings.contradict(f"{lost} entries of MaldiFrameInfo name frames that are not there")
    at = at[known]
    without = len(frames.number) - len(np.unique(at))
    if without:
        findings.note(f"{without} frames have no pixel (MaldiFrameInfo) and are left out")
    columns = (spots.x, spots.y, spots.region, spots.motor_x, spots.motor_y)
    x, y, region, motor_x, motor_y = (column[known] for column in columns)
    return Pixels(at, x, y, region, motor_x, motor_y)


def frames_in_a_row(frames: Frames) -> Pixels:
    """Return all frames as pixels of one row: an acquisition that is no image."""
    n = len(frames.number)
    zero, unknown = np.zeros(n, np.int64), np.full(n, np.inf)
    return Pixels(np.arange(n), np.arange(n), zero, zero, unknown, unknown)


def choose(path: Path, pixels: Pixels, frames: Frames, settings: Settings) -> Pixels:
    """Return the pixels of the regions and of the MS level that were asked for.

    Raises
    ------
    SourceError
        Where nothing is left, or both levels occur and none was asked for.
    """
    keep = np.ones(len(pixels.frame), bool)
    if settings.region is not None:
        present = np.unique(pixels.region).tolist()
        absent = [region for region in settings.region if region not in present]
        if absent:
            raise SourceError(
                f"{path} has no region {absent[0]}, only {', '.join(map(str, present))}; give one "
                "of them with --region"
            )
        keep &= np.isin(pixels.region, settings.region)
    level = frames.ms_type[pixels.frame]
    other = np.flatnonzero(keep & (level != MS1))
    if settings.ms_level is None and len(other):
        first = int(pixels.frame[other[0]])
        raise SourceError(
            f"{path}: {len(other)} frames are MS/MS, the first is frame {frames.number[first]} "
            f"(MsMsType {frames.ms_type[first]}), and fragments and precursors do not belong in "
            "one store; give --ms-level 1 or 2"
        )
    if settings.ms_level is not None:
        keep &= (level == MS1) == (settings.ms_level == 1)
        if not keep.any():
            raise SourceError(
                f"{path} has no frames of MS level {settings.ms_level}; leave out --ms-level"
            )
    return take(pixels, np.flatnonzero(keep))


def take(pixels: Pixels, keep: Longs) -> Pixels:
    """Return the pixels at positions `keep`."""
    return Pixels(*(getattr(pixels, name)[keep] for name in Pixels.__slots__))


def find_pitch(
    pixels: Pixels, lasers: Sequence[dict[str, Any]], settings: Settings, findings: Findings
) -> Pitch:
    """Return the size of a pixel: given, else of the stage, else nominal, else assumed."""
    if settings.pixel_size is not None:
        return Pitch(settings.pixel_size, "given")
    spot = _spot_size(lasers)
    measured = _regress(pixels)
    if measured is None:
        if spot is None:
            findings.note("the file gives no pixel size; 1 um is assumed, give --pixel-size")
            return Pitch((1.0, 1.0), "assumed")
        findings.note(
            f"the stage positions tell no pixel size; the nominal spot size {spot:g} um is taken"
        )
        return Pitch((spot, spot), "nominal spot size (MaldiFrameLaserInfo)")
    off = [abs(size / spot - 1) for size in measured.size] if spot else [0.0]
    if max(off) > NOMINAL_MOST:
        x, y = measured.size
        findings.note(
            f"pixels are {x:.4g} x {y:.4g} um apart on the stage, but the nominal spot size is "
            f"{spot:g} um; the stage counts, give --pixel-size if it is wrong"
        )
    return measured


def _spot_size(lasers: Sequence[dict[str, Any]]) -> float | None:
    """Return the one spot size of all lasers, in micrometres; None where there is no such."""
    try:
        sizes = {float(str(row["SpotSize"])) for row in lasers if row.get("SpotSize")}
    except ValueError:
        return None
    size = sizes.pop() if len(sizes) == 1 else 0.0
    return size if 0 < size < np.inf else None


def _regress(pixels: Pixels) -> Pitch | None:
    """Return the distance of neighbours on the stage; None where the frames do not tell.

    Each region has its own offset; steps along x and y are common. A raster that is
    turned against the stage has its true pitch all the same.
    """
    known = np.isfinite(pixels.motor_x) & np.isfinite(pixels.motor_y)
    if not known.any():
        return None
    region = np.unique(pixels.region[known], return_inverse=True)[1]
    members = np.bincount(region)

    def centred(values: NDArray[Any]) -> Floats:
        column = values[known].astype(np.float64)
        means: Floats = np.bincount(region, column) / members
        return column - means[region]

    index = np.stack([centred(pixels.x), centred(pixels.y)], axis=1)
    stage = np.stack([centred(pixels.motor_x), centred(pixels.motor_y)], axis=1)
    moving = np.flatnonzero((index != 0).any(axis=0))
    if not len(moving):
        return None
    try:
        with np.errstate(all="ignore"):
            steps, _, rank, _ = np.linalg.lstsq(index[:, moving], stage, rcond=None)
            sizes = np.hypot(steps[:, 0], steps[:, 1])
            residual = float(np.sqrt(((stage - index[:, moving] @ steps) ** 2).sum(axis=1).mean()))
    except np.linalg.LinAlgError:
        return None
    if rank < len(moving) or not ((sizes > 0) & (sizes < np.inf)).all():
        return None
    if not np.isfinite(residual):
        return None
    # A single line or column has the same pitch across as along.
    x, y = float(sizes[0]), float(sizes[-1])
    words = f"stage positions (least squares over {len(stage)} frames, rms {residual:.2g} um)"
    return Pitch((x, y), words, residual)
