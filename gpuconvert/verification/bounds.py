"""What a method may do to a spectrum, as bounds that follow from its definition alone.

The arithmetic of the backends is not repeated. With ``nearest`` a point's counts lie
in the bin whose centre is nearest. Else they lie between the points before and after
it, and of heights only those between the two points around a bin can occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MZ_ROUNDING = 1e-9
"""Relative error of m/z within which a point may be on either side of a boundary."""

SUM_ROUNDING = 1.2e-7
"""Relative error of a float32 value, both ways."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A spectrum of the source: m/z strictly ascending, Th; intensity in counts; float64."""

    mz: Floats
    intensity: Floats


@dataclass(frozen=True, slots=True)
class Bins:
    """The bins of the store: (n_bins,) centres and (n_bins + 1,) edges, Th, ascending."""

    centres: Floats
    edges: Floats


def merged(mz: Floats, intensity: Floats) -> Spectrum:
    """Return a spectrum sorted by m/z, with the intensities of equal m/z added."""
    unique, place = np.unique(mz, return_inverse=True)
    counts = np.zeros(len(unique))
    np.add.at(counts, place, intensity)
    return Spectrum(unique, counts)


def moments(spectrum: Spectrum, bins: Bins, *, exact: bool) -> tuple[float, float, float]:
    """Return what the mean m/z of the stored spectrum must be near to.

    Returns
    -------
    (float, float, float)
        Counts inside the axis; their sum times m/z; and, times the counts too, how far
        the mean may move: half the width of a bin, or of a sampling step where that is
        wider, and what can cross the ends of the axis.
    """
    low, high = bins.edges[0], bins.edges[-1]
    first, last = np.searchsorted(spectrum.mz, low), np.searchsorted(spectrum.mz, high, "right")
    mz, counts = spectrum.mz[first:last], spectrum.intensity[first:last]
    total = float(counts.sum())
    if total <= 0:
        return 0.0, 0.0, 0.0
    moment = float(counts @ mz)
    mean = moment / total
    place = np.searchsorted(bins.edges, mz, "right") - 1
    width = np.diff(bins.edges)[np.minimum(place, len(bins.centres) - 1)]
    crossing = 0.0
    if not exact:
        step = np.diff(mz, prepend=-np.inf, append=np.inf)
        nearest = np.minimum(step[:-1], step[1:])
        width = np.maximum(width, np.where(np.isfinite(nearest), nearest, 0))
        for end, before in ((low, first), (high, last)):
            beside = spectrum.intensity[max(0, before - 1) : before + 1].sum()
            crossing += float(beside) * abs(end - mean)
    rounding = SUM_ROUNDING * float(counts @ np.abs(mz - mean)) + 1e-12 * moment
    return total, moment, 0.5 * float(counts @ width) + crossing + rounding


def misplaced(
    spectrum: Spectrum, bins: Bins, places: NDArray[np.int32], values: Floats, *, exact: bool
) -> float:
    """Return the share of the counts of a stored spectrum that lie where they cannot.

    At every boundary of a filled bin, the counts below it in the store are held
    against those of the source, which are known up to the points that the boundary
    may cut.
    """
    marks = np.unique(np.concatenate([places, places + 1, [0, len(bins.centres)]]))
    sums = np.append(0, np.cumsum(spectrum.intensity))
    if exact:
        halfway = 0.5 * (bins.centres[1:] + bins.centres[:-1])
        at = np.concatenate([bins.edges[:1], halfway, bins.edges[-1:]])[marks]
        slack = MZ_ROUNDING * np.abs(at)
        least = sums[np.searchsorted(spectrum.mz, at - slack)]
        most = sums[np.searchsorted(spectrum.mz, at + slack, "right")]
    else:
        below = np.searchsorted(spectrum.mz, bins.edges[marks], "right")
        least = sums[np.maximum(below - 1, 0)]
        most = sums[np.minimum(below + 1, len(spectrum.mz))]
    stored = np.append(0, np.cumsum(values))[np.searchsorted(places, marks)]
    # What lies below the axis is not in the store, and is as uncertain at its own boundary.
    excess = np.maximum((least - most[0]) - stored, stored - (most - least[0])).max()
    if not sums[-1]:
        return float(excess > 0)
    return max(0.0, float(excess)) / float(sums[-1])


def overshoot(spectrum: Spectrum, bins: Bins, places: NDArray[np.int32], values: Floats) -> float:
    """Return how far heights leave those of the points around them, of the base peak."""
    if not len(spectrum.mz):
        return float(len(values) > 0)
    centres = bins.centres[places]
    last = len(spectrum.mz) - 1
    left = np.searchsorted(spectrum.mz, centres * (1 - MZ_ROUNDING)) - 1
    right = np.searchsorted(spectrum.mz, centres * (1 + MZ_ROUNDING), "right")
    around = spectrum.intensity[np.clip([left, left + 1, right], 0, last)]
    excess = np.maximum(around.min(axis=0) - values, values - around.max(axis=0))
    base = max(float(spectrum.intensity.max()), np.finfo(float).tiny)
    return max(0.0, float(excess.max(initial=0.0))) / base
