"""Quality figures: how well a stored spectrum still says what its source said.

Formulas on plain arrays, for the conversion and for the independent verifier
alike. Nothing here reads a file, resamples or decides what is good enough.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import StoreError
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import RaggedSpectra

Floats = NDArray[np.float64]

BASE_PEAK_SHARE = 0.01
"""Local maxima must be above this share of the base peak of their spectrum to count."""

PEAK_PPM = 5.0
"""A peak is kept if a local maximum of the result is this near, or one bin width."""

NO_GAPS = SpacingModel(float("inf"))
"""A native step that no two points are farther apart than."""

NO_COUNTS = 1e-9
"""Inside counts below this share of a pixel's TIC are rounding, not counts."""


@dataclass(frozen=True, slots=True)
class PeakFigures:
    """What became of the peaks of a sample of spectra.

    n_peaks : local maxima of the source above BASE_PEAK_SHARE, inside the axis
    kept : share of them that the result still has; 1 where there are none
    shift_ppm_median, shift_ppm_p95 : distance of the two apices, of kept peaks, in ppm
    """

    n_peaks: int
    kept: float
    shift_ppm_median: float
    shift_ppm_p95: float


@dataclass(frozen=True, slots=True)
class Quality:
    """How much a conversion changed the data.

    tic_ratio_max_error, tic_ratio_median_error : over pixels with counts inside the
        axis, of ``abs(TIC out / (TIC in - outside) - 1)``
    outside_fraction : share of all counts beyond the ends of the axis, 0 to 1
    n_peaks, peaks_kept, apex_shift_ppm_median, apex_shift_ppm_p95 : see `PeakFigures`
    size_ratio : bytes of the output per byte of input, or None where unknown
    """

    tic_ratio_max_error: float
    tic_ratio_median_error: float
    outside_fraction: float
    n_peaks: int
    peaks_kept: float
    apex_shift_ppm_median: float
    apex_shift_ppm_p95: float
    size_ratio: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Quality:
        """Return the figures that `to_json` wrote; StoreError where they are not."""
        try:
            ratio = value["size_ratio"]
            return cls(
                tic_ratio_max_error=float(value["tic_ratio_max_error"]),
                tic_ratio_median_error=float(value["tic_ratio_median_error"]),
                outside_fraction=float(value["outside_fraction"]),
                n_peaks=int(value["n_peaks"]),
                peaks_kept=float(value["peaks_kept"]),
                apex_shift_ppm_median=float(value["apex_shift_ppm_median"]),
                apex_shift_ppm_p95=float(value["apex_shift_ppm_p95"]),
                size_ratio=None if ratio is None else float(ratio),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"quality figures have no usable entry {error}") from error

    def lines(self) -> list[str]:
        """Return the figures as sentences for a terminal."""
        lines = [
            f"TIC    ratio off by {self.tic_ratio_max_error:.1e} at most, median "
            f"{self.tic_ratio_median_error:.1e}; {self.outside_fraction:.3%} of the counts lie "
            "outside the axis",
            f"peaks  {self.peaks_kept:.2%} of {self.n_peaks:,} kept, apex shift median "
            f"{self.apex_shift_ppm_median:.2f} ppm, 95 % below {self.apex_shift_ppm_p95:.2f} ppm",
        ]
        if self.size_ratio is not None:
            lines.append(f"size   {self.size_ratio:.2f} bytes written per byte of input")
        return lines


def measure(
    stored: Floats, source: Floats, outside: Floats, peaks: PeakFigures,
    size_ratio: float | None = None,
) -> Quality:  # fmt: skip
    """Return the figures of one conversion.

    Parameters
    ----------
    stored, source, outside
        (n_pixels,) float64 as in `tic_figures`.
    peaks
        What `peak_figures` found on a sample.
    size_ratio
        Bytes of the output per byte of input.
    """
    largest, median, fraction = tic_figures(stored, source, outside)
    return Quality(
        largest, median, fraction, peaks.n_peaks, peaks.kept, peaks.shift_ppm_median,
        peaks.shift_ppm_p95, size_ratio,
    )  # fmt: skip


def tic_figures(stored: Floats, source: Floats, outside: Floats) -> tuple[float, float, float]:
    """Return how far the TIC of the pixels moved.

    Parameters
    ----------
    stored
        (n_pixels,) float64, sum of what the result holds of each pixel, counts.
    source
        (n_pixels,) float64, sum of the source's intensities, counts.
    outside
        (n_pixels,) float64, the part of `source` beyond the ends of the axis, counts.

    Returns
    -------
    (float, float, float)
        Largest and median of ``abs(stored / (source - outside) - 1)`` over the pixels
        that have counts inside, 0 where none has; share of all counts that is outside.
    """
    inside = source - outside
    counted = inside > NO_COUNTS * source
    error = np.abs(stored[counted] / inside[counted] - 1)
    total = float(source.sum())
    fraction = float(outside.sum()) / total if total > 0 else 0.0
    if not len(error):
        return 0.0, 0.0, fraction
    return float(error.max()), float(np.median(error)), fraction


def peak_figures(
    source: RaggedSpectra, indptr: NDArray[np.int64], indices: NDArray[np.int32],
    values: NDArray[np.floating[Any]], *, centres: Floats, edges: Floats, profile: bool,
    spacing: SpacingModel = NO_GAPS, gap: float = 1.0,
) -> PeakFigures:  # fmt: skip
    """Return what became of the peaks of `source` in the result; see `peak_shifts`."""
    shifts = peak_shifts(
        source, indptr, indices, values, centres=centres, edges=edges, profile=profile,
        spacing=spacing, gap=gap,
    )  # fmt: skip
    return figures_of(shifts)


def figures_of(shifts: Floats) -> PeakFigures:
    """Return the figures of peaks whose shifts are known, as `peak_shifts` returns them."""
    if not len(shifts):
        return PeakFigures(0, 1.0, 0.0, 0.0)
    kept = shifts[np.isfinite(shifts)]
    median, high = np.percentile(kept, [50, 95]) if len(kept) else (0.0, 0.0)
    return PeakFigures(len(shifts), len(kept) / len(shifts), float(median), float(high))


def peak_shifts(
    source: RaggedSpectra, indptr: NDArray[np.int64], indices: NDArray[np.int32],
    values: NDArray[np.floating[Any]], *, centres: Floats, edges: Floats, profile: bool,
    spacing: SpacingModel = NO_GAPS, gap: float = 1.0,
) -> Floats:  # fmt: skip
    """Return how far every peak of `source` moved in the result.

    A peak of a profile is a point (or plateau) higher than both neighbours, what lies
    beyond a spectrum's ends, and in its gaps, being 0; in the result, a bin (or plateau of
    bins) higher than both neighbours, absent bins being 0. Of centroids every point is a
    peak, and every filled bin. Peaks of the source outside the axis are left out.

    Parameters
    ----------
    source
        The sampled spectra, m/z ascending within each.
    indptr, indices, values
        The same spectra in the result: spectrum s owns entries
        [indptr[s], indptr[s + 1]), bins strictly ascending within it, values above 0.
    centres, edges
        (n_bins,) and (n_bins + 1,) float64, ascending, Th.
    profile
        Whether the source is profile data.
    spacing, gap
        Points farther apart than `gap` native steps are no neighbours; by default all are.

    Returns
    -------
    (n_peaks,) float64
        Distance of the two apices in ppm; infinite for a peak that was not kept.
    """
    apart = np.diff(source.mz) > gap * spacing.step(source.mz[1:])
    row, mz = _source_peaks(source, apart, profile=profile)
    inside = (mz >= edges[0]) & (mz <= edges[-1])
    row, mz = row[inside], mz[inside]
    if not len(mz):
        return np.zeros(0)
    distance = _nearest_distance(
        row, mz, *_result_peaks(indptr, indices, values, centres, profile=profile)
    )
    bins = np.clip(np.searchsorted(edges, mz, "right") - 1, 0, len(centres) - 1)
    # The last factor: a bin exactly one width away is near, whatever the rounding.
    near = np.maximum(PEAK_PPM * 1e-6 * mz, np.diff(edges)[bins]) * (1 + 1e-9)
    shifts: Floats = np.where(distance <= near, distance / mz * 1e6, np.inf)
    return shifts


def _owners(indptr: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _source_peaks(
    source: RaggedSpectra, apart: NDArray[np.bool_], *, profile: bool
) -> tuple[NDArray[np.int64], Floats]:
    """Return spectrum and m/z of every peak that counts; both (n_peaks,), ascending.

    apart : (n_points - 1,) bool, whether a gap lies between a point and the next
    """
    row = _owners(source.indptr)
    if profile:
        place = np.arange(len(row))
        place[1:] += np.cumsum(apart)
        first, last = _plateaus(row, source.intensity, place)
    else:
        first = last = np.arange(len(row))
    base = np.zeros(len(source.indptr) - 1)
    np.maximum.at(base, row, source.intensity)
    height = source.intensity[first]
    mz = 0.5 * (source.mz[first] + source.mz[last])
    # A shift in ppm has no meaning at m/z 0.
    counts = (height > BASE_PEAK_SHARE * base[row[first]]) & (mz > 0)
    return row[first][counts], mz[counts]


def _result_peaks(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], values: NDArray[np.floating[Any]],
    centres: Floats, *, profile: bool,
) -> tuple[NDArray[np.int64], Floats]:  # fmt: skip
    """Return spectrum and m/z of every peak of the result; ascending."""
    row = _owners(indptr)
    if not profile:
        # Bins of a feature list are neighbours by number only, not in m/z.
        return row, centres[indices]
    first, last = _plateaus(row, values, indices.astype(np.int64))
    return row[first], 0.5 * (centres[indices[first]] + centres[indices[last]])


def _plateaus(
    row: NDArray[np.int64], values: NDArray[np.floating[Any]], place: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return first and last entry of every stretch of equal values that is a local maximum.

    Entries are neighbours where they share a row and their `place` differs by one;
    what an entry has no neighbour for is 0.
    """
    if not len(values):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    adjacent = (row[1:] == row[:-1]) & (place[1:] == place[:-1] + 1)
    starts = np.concatenate([[True], ~adjacent | (values[1:] != values[:-1])])
    first = np.flatnonzero(starts)
    last = np.append(first[1:], len(values)) - 1
    height = values[first]
    joined = adjacent[first[1:] - 1]
    before = np.concatenate([[0.0], np.where(joined, height[:-1], 0.0)])
    after = np.concatenate([np.where(joined, height[1:], 0.0), [0.0]])
    top = (height > before) & (height > after)
    return first[top], last[top]


def _nearest_distance(
    row: NDArray[np.int64], mz: Floats, in_row: NDArray[np.int64], at: Floats
) -> Floats:
    """Return the distance of each (row, mz) to the nearest `at` of its row, Th; inf without."""
    # Ranks instead of m/z make (row, m/z) one exact integer that can be searched.
    unique, rank = np.unique(np.concatenate([mz, at]), return_inverse=True)
    wanted = row * len(unique) + rank[: len(mz)]
    have = in_row * len(unique) + rank[len(mz) :]
    place = np.searchsorted(have, wanted)
    distance = np.full(len(mz), np.inf)
    for candidate in (place - 1, place):
        usable = np.flatnonzero((candidate >= 0) & (candidate < len(have)))
        usable = usable[in_row[candidate[usable]] == row[usable]]
        found = np.abs(at[candidate[usable]] - mz[usable])
        distance[usable] = np.minimum(distance[usable], found)
    return distance
