"""What a sample of spectra says about spacing, law and m/z scatter: numbers, no choices.

Every function takes `Points`, a bounded and evenly spread part of the sample, and
returns plain figures; `gpuconvert.decision` weighs them. All of it is
deterministic, and bounded in time whatever the size of the sample.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.mass_axis import LAWS, MZ_FLOOR, TIMS_TOF_TERMS
from gpuconvert.spectra import MAX_MZ, Instrument, RaggedSpectra

Floats = NDArray[np.float64]

POINTS_MOST = 400_000
SPACINGS_MOST = 120_000
PAIRS_MOST = 500_000
"""Bounds on the points, spacings and pairs looked at: some tenths of a second of work."""

SAME_MZ = 1e-9
"""Neighbours closer than this fraction of their m/z are one point; no instrument parts them."""

STRETCHES = 12
STRETCH_LEAST = 8
"""Stretches of the m/z range with equal counts, and spacings that one needs to be of use."""

NEAR_STEP = (0.7, 1.4)
"""Spacings within these multiples of the typical one are averaged; two steps are not among them."""

PAIR_PPM = 200.0
PEAK_PPM = 60.0
EQUAL_PPM = 10.0
"""Pairs are taken up to the first, the background beyond the second, a list below the third."""

CONTRAST_MOST = 1000.0
"""Reported where there is no background at all."""


@dataclass(frozen=True, slots=True)
class Points:
    """The points that evidence is taken from.

    spectrum : (n_points,) int64, ascending
    mz : (n_points,) float64, Th, ascending by more than SAME_MZ within a spectrum
    single : whether every m/z is a float32, so that it is known to that precision only
    """

    spectrum: NDArray[np.int64]
    mz: Floats
    single: bool

    @property
    def n_spectra(self) -> int:
        """Number of spectra that have a point."""
        return len(np.unique(self.spectrum))


def select_points(sample: RaggedSpectra) -> Points:
    """Return whole spectra of `sample`, evenly spread, of about POINTS_MOST points in all.

    Points that have no usable m/z, and repetitions within a spectrum, are left out.
    """
    counts = np.diff(sample.indptr)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return Points(np.zeros(0, np.int64), np.zeros(0), single=False)
    most = max(2, int(POINTS_MOST / counts[filled].mean()))
    places = np.linspace(0, len(filled) - 1, min(len(filled), most)).round()
    chosen = filled[np.unique(places.astype(np.int64))]
    spectrum = np.repeat(chosen, counts[chosen])
    mz = np.concatenate([sample.mz[sample.indptr[s] : sample.indptr[s + 1]] for s in chosen])
    usable = (mz >= 0) & (mz <= MAX_MZ)
    spectrum, mz = spectrum[usable], mz[usable]
    if ((mz[1:] <= mz[:-1] * (1 + SAME_MZ)) & (spectrum[1:] == spectrum[:-1])).any():
        order = np.lexsort((mz, spectrum))
        spectrum, mz = spectrum[order], mz[order]
        fresh = np.ones(len(mz), bool)
        fresh[1:] = (mz[1:] > mz[:-1] * (1 + SAME_MZ)) | (spectrum[1:] != spectrum[:-1])
        spectrum, mz = spectrum[fresh], mz[fresh]
    return Points(spectrum, mz, single=bool((mz.astype(np.float32) == mz).all()))


def law_terms(law: str) -> tuple[float, float]:
    """Return the two terms that `law` is used with here."""
    return TIMS_TOF_TERMS if law == "tof" else (1.0, 1.0)


def coordinate(mz: Floats, law: str) -> Floats:
    """Return u(m) of `law`; same shape as `mz`."""
    return LAWS[law].forward(np.maximum(mz, MZ_FLOOR), *law_terms(law))


def slope(mz: Floats, law: str) -> Floats:
    """Return du/dm of `law`; same shape as `mz`."""
    return LAWS[law].slope(np.maximum(mz, MZ_FLOOR), *law_terms(law))


@dataclass(frozen=True, slots=True)
class Spacings:
    """Neighbouring points of one spectrum each, by ascending m/z.

    left, right : (n,) float64, Th, ``left < right``
    """

    left: Floats
    right: Floats

    def stretches(self, most: int = STRETCHES) -> int:
        """Return into how many stretches of equal count the spacings can be cut, 0 to `most`.

        The same spacing in several spectra is one: a gap that all share must not fill
        a stretch.
        """
        distinct = 1 + int(np.count_nonzero(np.diff(self.left))) if len(self.left) else 0
        return min(most, distinct // STRETCH_LEAST)


def find_spacings(points: Points) -> Spacings:
    """Return the spacings of `points`, thinned evenly to SPACINGS_MOST."""
    mz = points.mz
    inside = points.spectrum[1:] == points.spectrum[:-1]
    # Below the floor all m/z have the same coordinate, so they have no spacing in u.
    inside &= mz[:-1] >= MZ_FLOOR
    at = np.flatnonzero(inside)
    at = at[:: -(-len(at) // SPACINGS_MOST) or 1]
    at = at[np.argsort(mz[at], kind="stable")]
    return Spacings(mz[at], mz[at + 1])


def _typical(spacing: Floats) -> float:
    """Return the spacing of neighbouring samples, gaps left out.

    The median of the lower half finds it; the mean of what lies near, taken twice, takes
    out the rounding of m/z to float32 and centres on what jitters.
    """
    lower = np.sort(spacing)[: (len(spacing) + 1) // 2]
    typical = float(lower[len(lower) // 2])
    for _ in range(2):
        near = (spacing >= NEAR_STEP[0] * typical) & (spacing <= NEAR_STEP[1] * typical)
        typical = float(spacing[near].mean())
    return typical


def local_steps(spacings: Spacings, law: str, n_stretches: int) -> tuple[Floats, Floats]:
    """Return the m/z and the local step in u of `law` of each stretch; both (n_stretches,)."""
    step = _in_law(spacings, law)
    parts = np.array_split(np.arange(len(step)), max(1, n_stretches))
    mz = [float(np.median(spacings.left[part])) for part in parts]
    return np.array(mz), np.array([_typical(step[part]) for part in parts])


def _in_law(spacings: Spacings, law: str) -> Floats:
    step = coordinate(spacings.right, law) - coordinate(spacings.left, law)
    # Two m/z one rounding apart can have the same u; a logarithm follows.
    return np.maximum(step, np.finfo(np.float64).tiny)


def law_scores(spacings: Spacings, laws: tuple[str, ...]) -> dict[str, float]:
    """Return per law the spread of the local step in u: the standard deviation of its logarithm.

    The right law scores near 0. Empty where there are too few spacings for three stretches.
    """
    n = spacings.stretches()
    if n < 3:
        return {}
    scores = {law: float(np.std(np.log(local_steps(spacings, law, n)[1]))) for law in laws}
    return dict(sorted(scores.items(), key=lambda item: item[1]))


def spacing_deviation(spacings: Spacings, laws: tuple[str, ...]) -> float | None:
    """Return how irregular the spacings within a stretch are; None where there are too few.

    It is the median absolute deviation of their logarithm, in the law that makes it
    smallest: at most 0.06 for profiles, 0.4 and more for centroids.
    """
    n = spacings.stretches()
    if n < 2:
        return None
    deviations = []
    for law in laws:
        step = np.log(_in_law(spacings, law))
        parts = np.array_split(step, n)
        within = [float(np.median(np.abs(part - np.median(part)))) for part in parts]
        deviations.append(float(np.median(within)))
    return min(deviations)


@dataclass(frozen=True, slots=True)
class Scatter:
    """How the m/z of the same ion differs between spectra.

    ppm : half width at half height of an ion's m/z, or None where it cannot be told
    contrast : density of pairs near 0 over that of the background, 0 to CONTRAST_MOST
    equal_share : of the pairs within EQUAL_PPM, the share that is exactly equal, 0 to 1
    pairs : number of pairs of points from different spectra, within PAIR_PPM
    near_pairs : those within EQUAL_PPM
    """

    ppm: float | None
    contrast: float
    equal_share: float
    pairs: int
    near_pairs: int

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "ppm": self.ppm, "contrast": self.contrast, "equal_share": self.equal_share,
            "pairs": self.pairs, "near_pairs": self.near_pairs,
        }  # fmt: skip


def _pair_distances(points: Points) -> Floats:
    """Return the distances of pairs from different spectra up to PAIR_PPM; ascending, ppm."""
    order = np.argsort(points.mz, kind="stable")
    order = order[points.mz[order] >= MZ_FLOOR]
    mz, spectrum = points.mz[order], points.spectrum[order]
    n = len(mz)
    reach = np.searchsorted(mz, mz * (1 + PAIR_PPM * 1e-6), "right") - np.arange(n) - 1
    total = int(reach.sum())
    if total > PAIRS_MOST:
        # A fixed seed: evenly strided anchors would beat with lists of equal m/z.
        few = max(1, int(n * (PAIRS_MOST / total)))
        anchor = np.random.default_rng(0).choice(n, few, replace=False)
    else:
        anchor = np.arange(n)
    count = np.minimum(reach[anchor], PAIRS_MOST)
    first = np.repeat(anchor, count)
    ends = np.cumsum(count)
    second = first + 1 + np.arange(len(first)) - np.repeat(ends - count, count)
    other = spectrum[first] != spectrum[second]
    first, second = first[other], second[other]
    return np.sort((mz[second] - mz[first]) / mz[first] * 1e6)


def measure_scatter(points: Points) -> Scatter:
    """Return the m/z scatter between spectra, from the excess of pairs at small distances.

    The window shrinks to a few times the half width found in it, so that what
    crowds around the same nominal mass counts as background.
    """
    distance = _pair_distances(points)
    near = int(np.searchsorted(distance, EQUAL_PPM, "right"))
    equal = int(np.searchsorted(distance, 0.0, "right"))
    window, half, contrast, found = PEAK_PPM, 0.0, 0.0, False
    for _ in range(8):
        half, contrast, found = _central_peak(distance, window)
        smaller = max(6 * half, 1e-3)
        if not found or smaller > 0.9 * window:
            break
        window = smaller
    return Scatter(
        # For a normal scatter, half of the distances lie below 0.954 of its standard
        # deviation, and its half width at half height is 1.177 of it. Where more than
        # half of the distances are 0, the width hides below the rounding of m/z.
        ppm=max(half * 1.177 / 0.954, 0.01) if found and half > 0 else None,
        contrast=contrast,
        equal_share=equal / near if near else 0.0,
        pairs=len(distance),
        near_pairs=near,
    )


def _central_peak(distance: Floats, window: float) -> tuple[float, float, bool]:
    """Return the median distance of the pairs in excess, the contrast, and whether it is real."""
    outer = min(PAIR_PPM, window * PAIR_PPM / PEAK_PPM)
    inside = distance[: np.searchsorted(distance, window, "right")]
    beyond = int(np.searchsorted(distance, outer, "right")) - len(inside)
    background = beyond / (outer - window)
    excess = len(inside) - background * window
    if excess < max(20.0, 5 * math.sqrt(len(inside))):
        return 0.0, 0.0, False
    reached = np.arange(1, len(inside) + 1) - background * inside >= 0.5 * excess
    half = float(inside[np.argmax(reached)])
    below = background * half
    contrast = min(CONTRAST_MOST, 1 + 0.5 * excess / below) if below > 0 else CONTRAST_MOST
    return half, contrast, contrast >= 1.5


@dataclass(frozen=True, slots=True)
class Prior:
    """What the header makes us expect.

    law : the law of the instrument
    family : laws whose sampling would not contradict the header
    words : the words of the header that say so
    """

    law: str
    family: tuple[str, ...]
    words: str


_TOF = ("reflector-tof", "linear-tof", "tof")
_ANALYSERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"orbitrap|exactive|exploris", "orbitrap", ("orbitrap",)),
    (r"ft-?icr|ion cyclotron|solarix|scimax|\bmrms\b|ltq ft\b|\bapex\b", "fticr", ("fticr",)),
    (r"timstof", "reflector-tof", _TOF),
    (r"reflectron off|axial tof|linear tof", "linear-tof", _TOF),
    (
        r"time.of.flight|tof\b|reflectron|(ultra|auto|rapi|micro)fle?x|flex series|qstar|synapt",
        "reflector-tof",
        _TOF,
    ),
    (r"quadrupole|ion trap", "constant", ("constant",)),
)
"""Pattern in the header's words, law, laws that do not contradict it; the first match counts."""


def instrument_prior(instrument: Instrument) -> Prior | None:
    """Return what the header's instrument terms make us expect; None where they say nothing."""
    texts = [text for text in (instrument.analyser, instrument.name, *instrument.terms) if text]
    for pattern, law, family in _ANALYSERS:
        for text in texts:
            if re.search(pattern, text.lower()):
                return Prior(law, family, text)
    return None


def candidate_laws(instrument: Instrument, asked: str) -> tuple[str, ...]:
    """Return the laws to score; the two-term law only for a timsTOF or when asked for."""
    words = " ".join((instrument.name, instrument.analyser, *instrument.terms)).lower()
    both = "timstof" in words or asked == "tof"
    return tuple(law for law in LAWS if law != "tof" or both)
