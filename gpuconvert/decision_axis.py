"""From findings to an axis: bins that are given, or those of a law.

`Findings` is what a sample and a header say; `listed_axis` takes the bins that a file
or the source gives, `law_axis` chooses law, width and phase. Each choice carries the
words that say where it is from.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.decision_evidence import (
    Points,
    Prior,
    Scatter,
    Spacings,
    coordinate,
    law_terms,
    local_steps,
    slope,
)
from gpuconvert.decision_grid import Grid, fit_grid
from gpuconvert.errors import SettingsError
from gpuconvert.mass_axis import LAWS, MZ_FLOOR, MassAxis, of_centres, of_law, read_axis, told_apart
from gpuconvert.settings import Settings
from gpuconvert.spacing import SpacingModel, fit_spacing
from gpuconvert.spectra import Representation

Floats = NDArray[np.float64]

CLEAR_SCORE = 0.1
CLOSE_SCORE = 0.003
"""A law is told by the data if it scores below the first, and the next one more than
twice as high and the second besides."""

FEATURE_LIST = 0.9
FEATURE_PAIRS = 10
"""Share of equal m/z from which centroids are a shared list, and pairs needed to say so."""

DEFAULT_WIDTH, DEFAULT_AT = 0.005, 1000.0
NOMINAL_RANGE = (100.0, 1000.0)
LOWEST_ION = 1.0
"""Default width of a bin, and the m/z it holds at; range where there are no points;
no ion is lighter than the last. All in Th."""

END_MARGIN = 1e-12
"""The ends of a range move out by this fraction: u and back may miss an m/z by a rounding."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the sample and the header say, before anything is chosen.

    scores : spread per law, smallest first; empty where there are too few points
    sampled : whether the points sample peak shapes evenly, whatever they are called
    """

    points: Points
    spacings: Spacings
    scores: dict[str, float]
    deviation: float | None
    scatter: Scatter
    prior: Prior | None
    representation: Representation
    representation_source: str
    sampled: bool
    warnings: tuple[str, ...]

    @property
    def is_list(self) -> bool:
        """Whether the spectra are centroids that share one list of m/z."""
        scatter = self.scatter
        enough = scatter.near_pairs >= FEATURE_PAIRS
        is_centroid = self.representation == "centroid"
        return is_centroid and enough and scatter.equal_share >= FEATURE_LIST

    @property
    def best_law(self) -> str:
        """The law that fits the spacing best, else that of the header, else ``constant``."""
        if self.scores:
            return next(iter(self.scores))
        return self.prior.law if self.prior else "constant"


@dataclass(frozen=True, slots=True)
class Choice:
    """An axis and where each part of it is from."""

    axis: MassAxis
    law_source: str
    width_source: str
    phase_source: str
    grid: Grid | None = None
    warnings: tuple[str, ...] = ()


def _given_width(settings: Settings) -> str | None:
    """Return the option that sets the width of a bin; None where there is none."""
    widths = {
        "--bins": settings.bins, "--bin-width": settings.bin_width, "--bin-ppm": settings.bin_ppm,
    }  # fmt: skip
    return next((name for name, value in widths.items() if value is not None), None)


def listed_axis(
    found: Findings, shared_mz: Floats | None, union: Callable[[], Floats], settings: Settings
) -> tuple[Choice | None, tuple[str, ...]]:
    """Return the axis that a file or the source gives, or None and why it cannot be taken."""
    if settings.axis not in ("auto", "source") and settings.axis not in LAWS:
        return _file_axis(settings), ()
    asked = settings.axis == "source"
    is_shared = shared_mz is not None and len(shared_mz) > 0
    if not asked and (settings.axis != "auto" or _given_width(settings)):
        return None, ()
    if not (asked or is_shared or found.is_list):
        return None, ()
    source = "the m/z that all spectra share" if is_shared else "the m/z values of the source"
    if not is_shared and not asked:
        source = f"feature list: {found.scatter.equal_share:.0%} of near pairs are equal"
    try:
        mz = shared_mz if is_shared and shared_mz is not None else union()
        choice = _of_source(mz, source, settings)
    except SettingsError as error:
        if asked:
            raise
        return None, (f"the m/z values of the source are not taken as bins: {error}",)
    return choice, ()


def _of_source(mz: Floats, source: str, settings: Settings) -> Choice:
    """Return the axis whose bin centres are the distinct m/z of the source."""
    centres = np.unique(mz[np.isfinite(mz) & (mz >= 0)])
    # Bins one rounding apart would have no width; such m/z are one.
    centres = centres[np.concatenate([np.ones(min(1, len(centres)), bool), told_apart(centres)])]
    if not len(centres):
        raise SettingsError("the source has no m/z to take as bins; name a law with --axis")
    n_given = len(mz)
    ascends = n_given == len(centres) and bool((mz == centres).all())
    axis = _crop(of_centres(centres, "source"), settings)
    if axis.n_bins > settings.max_bins:
        raise SettingsError(
            f"the source has {axis.n_bins} distinct m/z, more than --max-bins "
            f"{settings.max_bins}; name a law with --axis, or raise --max-bins"
        )
    warning = f"the {n_given} m/z of the source do not all ascend: {len(centres)} distinct are bins"
    kept = "as the source gives them"
    return Choice(axis, source, kept, kept, warnings=() if ascends else (warning,))


def _file_axis(settings: Settings) -> Choice:
    """Return the axis in the file that was asked for."""
    width = _given_width(settings)
    if width:
        raise SettingsError(
            f"{width} has no meaning with --axis {settings.axis}, whose bins are given"
        )
    axis = _crop(read_axis(Path(settings.axis)), settings)
    if axis.n_bins > settings.max_bins:
        raise SettingsError(
            f"the axis in {settings.axis} has {axis.n_bins} bins, more than --max-bins "
            f"{settings.max_bins}; raise --max-bins"
        )
    return Choice(axis, f"file {settings.axis}", "as the file gives it", "as the file gives it")


def _crop(axis: MassAxis, settings: Settings) -> MassAxis:
    """Return the bins of `axis` whose centres lie inside --mz-range."""
    if settings.mz_range is None:
        return axis
    low, high = settings.mz_range
    first = int(np.searchsorted(axis.centres, low, "left"))
    last = int(np.searchsorted(axis.centres, high, "right"))
    if last <= first:
        raise SettingsError(
            f"--mz-range {low:g}:{high:g} holds none of the bins, whose centres go from "
            f"{axis.centres[0]:g} to {axis.centres[-1]:g} Th"
        )
    if axis.is_listed:
        return of_centres(axis.listed[first:last], axis.law)
    return replace(axis, n_bins=last - first, u0=axis.u0 + first * axis.du)


def law_axis(found: Findings, extent: tuple[float, float], settings: Settings) -> Choice:
    """Return the axis of a law: what was asked for, else what the data say."""
    law, law_source, law_warnings = _choose_law(found, settings)
    low, high, range_warnings = _range(extent, settings)
    warnings = (*law_warnings, *range_warnings)
    if settings.bins is not None:
        ends = coordinate(np.array([low, high]), law)
        du = float(ends[1] - ends[0]) / settings.bins
        axis = _build(law, low, high, du=du)
        return Choice(axis, law_source, "asked for with --bins", _START, None, warnings)
    du, width_source, grid, width_warnings = _choose_width(found, law, (low, high), settings)
    anchor = None if grid is None or _given_width(settings) else grid.anchor
    phase = _START
    if grid is not None and anchor is not None:
        n = found.points.n_spectra
        phase = f"on the sampling grid of {n} spectra (rms {grid.rms:.2g} bin)"
    if anchor is None and settings.mz_range is None:
        low, high = _padded(law, low, high, du)
    axis = _build(law, low, high, du=du, anchor=anchor)
    return Choice(axis, law_source, width_source, phase, grid, (*warnings, *width_warnings))


_START = "the first bin starts at the lowest m/z"


def _build(
    law: str, low: float, high: float, *, du: float, anchor: float | None = None
) -> MassAxis:
    a, b = law_terms(law)
    return of_law(law, low, high, du=du, anchor=anchor, a=a, b=b)


def _padded(law: str, low: float, high: float, du: float) -> tuple[float, float]:
    """Return the range with half a bin more at either end: the outer halves of the end points."""
    outer = coordinate(np.array([0.5 * low, low, high, 2 * high]), law)
    ends = np.array([max(outer[1] - du / 2, outer[0]), min(outer[2] + du / 2, outer[3])])
    padded = LAWS[law].inverse(ends, *law_terms(law))
    return float(padded[0]), float(padded[1])


def _range(extent: tuple[float, float], settings: Settings) -> tuple[float, float, tuple[str, ...]]:
    """Return the m/z range of the axis, in Th, and what to say about it."""
    low, high = extent
    warnings: tuple[str, ...] = ()
    if settings.mz_range is not None:
        low, high = settings.mz_range
    elif not (math.isfinite(low) and math.isfinite(high) and high > 0 and low <= high):
        low, high = NOMINAL_RANGE
        warnings = (f"the source has no m/z above 0: the axis goes from {low:g} to {high:g} Th",)
    elif low < LOWEST_ION:
        floor = LOWEST_ION if high > LOWEST_ION else max(low, MZ_FLOOR)
        if floor > low:
            warnings = (f"m/z from {low:g} to {floor:g} Th are no ions and lie outside the axis",)
        low, high = floor, max(floor, high)
    if high - low < 1e-6 * low and settings.mz_range is None:
        return low * (1 - 1e-4), high * (1 + 1e-4), warnings
    return low * (1 - END_MARGIN), high * (1 + END_MARGIN), warnings


def _choose_law(found: Findings, settings: Settings) -> tuple[str, str, tuple[str, ...]]:
    """Return the law, where it is from, and what to say about it."""
    prior = found.prior
    if settings.axis != "auto":
        return settings.axis, "asked for with --axis", ()
    if settings.bin_ppm is not None:
        return "reflector-tof", "constant ppm, as --bin-ppm asks", ()
    if found.sampled and found.scores:
        return _law_by_data(found.scores, prior)
    if prior is not None:
        return prior.law, f"header: {prior.words}", ()
    if found.sampled:
        warning = "too few points to tell the law of the axis: constant; set it with --axis"
        return "constant", "default: too few points to tell", (warning,)
    return "reflector-tof", "default: centroids do not tell, nor does the header", ()


def _law_by_data(scores: dict[str, float], prior: Prior | None) -> tuple[str, str, tuple[str, ...]]:
    """Return the law that the spacing of the points tells, weighed against the header."""
    (best, score), (second, next_score) = list(scores.items())[:2]
    told = f"data: spread {score:.3f}; next {second} {next_score:.2g}"
    clear = score < CLEAR_SCORE and next_score > 2 * score + CLOSE_SCORE
    if prior is None:
        close = f"the spacing of the points hardly tells the law of the axis ({told}): {best}"
        return best, told, () if clear else (close,)
    expected = scores.get(prior.law, math.inf)
    if not clear and expected <= 2 * score + CLEAR_SCORE:
        return prior.law, f"header: {prior.words}; spread {expected:.3f}", ()
    if best in prior.family:
        return best, told, ()
    contradiction = (
        f"the header says {prior.words!r} ({prior.law}, spread {expected:.2g}), but the points "
        f"are spaced as {best} (spread {score:.3f}); the data decide, set --axis to change that"
    )
    return best, told, (contradiction,)


def _choose_width(
    found: Findings, law: str, ends: tuple[float, float], settings: Settings
) -> tuple[float, str, Grid | None, tuple[str, ...]]:
    """Return the width of a bin in u, where it is from, the grid if any, and what to say."""
    if settings.bin_width is not None:
        width, at = settings.bin_width
        return width * _slope(law, at), "asked for with --bin-width", None, ()
    if settings.bin_ppm is not None:
        middle = math.sqrt(ends[0] * ends[1])
        du = settings.bin_ppm * 1e-6 * middle * _slope(law, middle)
        return du, "asked for with --bin-ppm", None, ()
    if found.sampled:
        step = float(np.median(_native_steps(found, law)))
        grid = fit_grid(found.points, law, step)
        if grid is not None:
            return grid.step, f"sampling step, rms {grid.rms:.2g} of it", grid, ()
        return step, "median of the sampling step over the range", None, ()
    return _width_of_centroids(found, law)


def _width_of_centroids(
    found: Findings, law: str
) -> tuple[float, str, Grid | None, tuple[str, ...]]:
    """Return the width of a bin from the m/z scatter, else the documented default."""
    scatter = found.scatter
    if scatter.ppm is not None and not found.is_list:
        middle = float(np.median(found.points.mz))
        du = scatter.ppm * 1e-6 * middle * _slope(law, middle)
        told = f"m/z scatter {scatter.ppm:.2g} ppm, contrast {scatter.contrast:.2g}"
        return du, told, None, ()
    told = f"default: {1e3 * DEFAULT_WIDTH:g} mDa at m/z {DEFAULT_AT:g}"
    warning = f"the data do not tell how wide a bin should be ({told}); set it with --bin-width"
    return DEFAULT_WIDTH * _slope(law, DEFAULT_AT), told, None, (warning,)


def _slope(law: str, mz: float) -> float:
    return float(slope(np.array([mz]), law)[0])


def _native_steps(found: Findings, law: str) -> Floats:
    """Return the native step in u of `law` in stretches over the range; (n_stretches,)."""
    return local_steps(found.spacings, law, found.spacings.stretches())[1]


def native_spacing(found: Findings, axis: MassAxis) -> SpacingModel:
    """Return the native step of the points; the width of a bin where they are no samples."""
    if found.sampled:
        return _sampled_spacing(found)
    low = max(axis.low, MZ_FLOOR)
    mz = np.geomspace(low, max(axis.high, low), 48)
    if not axis.is_listed:
        return fit_spacing(mz, 1 / axis.slope(mz))
    if found.scatter.ppm is not None:
        return fit_spacing(mz, found.scatter.ppm * 1e-6 * mz)
    law = found.prior.law if found.prior else "reflector-tof"
    return fit_spacing(mz, DEFAULT_WIDTH * _slope(law, DEFAULT_AT) / slope(mz, law))


def _sampled_spacing(found: Findings) -> SpacingModel:
    """Return the native step: of the law where one is clear, else as found in stretches."""
    law = found.best_law
    if found.scores.get(law, math.inf) > CLEAR_SCORE:
        mz, step = local_steps(found.spacings, law, found.spacings.stretches(48))
        return fit_spacing(mz, step / slope(mz, law))
    low = max(float(found.points.mz.min()), MZ_FLOOR)
    mz = np.geomspace(low, float(found.points.mz.max()), 48)
    return fit_spacing(mz, np.median(_native_steps(found, law)) / slope(mz, law))
