"""Zeros of a profile that need not be stored: which, and how they come back.

A run of zeros between two peaks says nothing but where it begins and ends. mzPeak
keeps one zero beside each peak (`zero_roles`), leaves out the m/z of two that meet
in the middle, and stores a model of the sampling step instead (`fit_models`), from
which a reader puts the two back beside their peaks (`fill_marks`).

This is the definition, on whole batches at a time; `gpuconvert.zero_walk` walks the
same batches point by point, compiled.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuconvert.spacing import SpacingModel

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Roles = NDArray[np.uint8]

DROPPED, KEPT, MARKED = 0, 1, 2
"""What becomes of a point: left out, stored, stored as a zero without its m/z."""

WIDEST_GAP = 1.0
"""Points farther apart than this, in Th, are no neighbours for the model of the step."""

LEAST_PIVOT = 1e-12
"""A pivot of the scaled normal equations below this says that the terms depend on each other."""

WHOLE = -1
"""No mark of a spectrum is out of place."""


def owners(indptr: Ints) -> Ints:
    """Return the spectrum of every point; (n_points,) int64."""
    return np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


def _beside(flags: NDArray[np.bool_], owner: Ints) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the flag of the point before and after each, True beyond the ends of a spectrum."""
    before, after = np.ones((2, len(flags)), bool)
    same = owner[1:] == owner[:-1]
    before[1:] = np.where(same, flags[:-1], True)
    after[:-1] = np.where(same, flags[1:], True)
    return before, after


def zero_roles(indptr: Ints, intensity: NDArray[Any]) -> Roles:
    """Return what becomes of each point; (n_points,) uint8.

    A zero is dropped where both neighbours are zeros, an end of the spectrum counting as
    one. A zero that is kept is marked where a neighbour is a zero and non-zeros lie on
    both sides of it, near or far: after the drop such zeros stand in pairs, never at an
    end. Zero means equal to zero: not NaN, not negative, not subnormal.

    Parameters
    ----------
    indptr
        (n_spectra + 1,) int64; spectrum s owns points [indptr[s], indptr[s + 1]).
    intensity
        (n_points,) counts.
    """
    n_points, owner = len(intensity), owners(indptr)
    zero = intensity == 0
    before, after = _beside(zero, owner)
    roles = np.where(zero & before & after, DROPPED, KEPT).astype(np.uint8)
    place = np.arange(n_points)
    n_spectra = len(indptr) - 1
    first, last = np.full(n_spectra, n_points), np.full(n_spectra, -1)
    np.minimum.at(first, owner[~zero], place[~zero])
    np.maximum.at(last, owner[~zero], place[~zero])
    inside = (first[owner] < place) & (place < last[owner])
    roles[(roles == KEPT) & zero & inside & (before | after)] = MARKED
    return roles


class Stripped(NamedTuple):
    """The points that stay when runs of zeros are stripped, spectrum after spectrum.

    places : (n_kept,) int64, ascending
    marked : (n_kept,) bool, those that are stored without their m/z
    indptr : (n_spectra + 1,) int64; spectrum s owns kept points [indptr[s], indptr[s + 1])
    """

    places: Ints
    marked: NDArray[np.bool_]
    indptr: Ints


def strip(indptr: Ints, roles: Roles) -> Stripped:
    """Return the points that `zero_roles` does not drop."""
    places = np.flatnonzero(roles != DROPPED)
    return Stripped(places, roles[places] == MARKED, np.searchsorted(places, indptr))


def second_median(values: Floats) -> float:
    """Return the median of the values that are not above the median."""
    return float(np.median(values[values <= np.median(values)]))


def _usable_gaps(mz: Floats) -> NDArray[np.bool_]:
    gaps = np.diff(mz)
    usable: NDArray[np.bool_] = (gaps > 0) & (gaps <= WIDEST_GAP)
    return usable


def fit_models(indptr: Ints, mz: Floats, intensity: NDArray[Any]) -> Floats:
    """Return the model of the sampling step of every spectrum; (n_spectra, 3) float64.

    The distance from a point to the one before it, up to `WIDEST_GAP`, is fitted by
    b0 + b1 m + b2 m^2 at the point's m/z, with weights ln(intensity + 1). Where the three
    terms cannot be told apart, or the model is not above 0 at every point it was fitted
    to, it is the constant second median. NaN where there is no distance at all.

    Parameters
    ----------
    indptr
        (n_spectra + 1,) int64.
    mz
        (n_points,) float64, Th, ascending within a spectrum.
    intensity
        (n_points,) counts, of the whole profile, zeros included.
    """
    models = np.full((len(indptr) - 1, 3), np.nan)
    for spectrum, (first, last) in enumerate(pairwise(indptr)):
        own = mz[first:last]
        usable = _usable_gaps(own)
        if usable.any():
            weights = np.log1p(np.maximum(intensity[first + 1 : last].astype(np.float64), 0))
            models[spectrum] = _fit_one(
                own[1:][usable], np.diff(own)[usable], np.nan_to_num(weights[usable], posinf=0.0)
            )
    return models


def _fit_one(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return b0, b1, b2 of one spectrum; `x` in Th, `y` above 0."""
    constant = np.array([second_median(y), 0.0, 0.0])
    total = weights.sum()
    if np.count_nonzero(weights) < 3:
        return constant
    # Centred and scaled: else float64 loses half of its digits on a narrow m/z range.
    centre = float(weights @ x) / total
    scale = float(np.abs(x - centre).max())
    powers = ((x - centre) / scale)[:, None] ** np.arange(3)
    matrix = (powers * weights[:, None]).T @ powers / total
    right = (powers * weights[:, None]).T @ y / total
    solved = solve_three(matrix, right)
    if solved is None or not (powers @ solved > 0).all():
        return constant
    return expand(solved, centre, scale)


def solve_three(matrix: Floats, right: Floats) -> Floats | None:
    """Return the solution of three normal equations by Cholesky; None where they depend."""
    lower = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            rest = matrix[i, j] - lower[i, :j] @ lower[j, :j]
            if i == j:
                if not rest > LEAST_PIVOT:
                    return None
                lower[i, i] = np.sqrt(rest)
            else:
                lower[i, j] = rest / lower[j, j]
    forward = np.zeros(3)
    for i in range(3):
        forward[i] = (right[i] - lower[i, :i] @ forward[:i]) / lower[i, i]
    solved = np.zeros(3)
    for i in (2, 1, 0):
        solved[i] = (forward[i] - lower[i + 1 :, i] @ solved[i + 1 :]) / lower[i, i]
    return solved


def expand(terms: Floats, centre: float, scale: float) -> Floats:
    """Return the ascending powers of m of a quadratic in (m - centre) / scale."""
    a, b, c = terms[0], terms[1] / scale, terms[2] / scale**2
    return np.array([a - b * centre + c * centre**2, b - 2 * c * centre, c])


def fill_marks(
    indptr: Ints, mz: Floats, marked: NDArray[np.bool_], models: Floats
) -> tuple[Floats, Ints]:
    """Return the m/z of every point, marked ones put back beside their peaks.

    Marks stand in pairs between stretches of points, and singly at the ends of a spectrum.
    Each lies one step from the stretch beside it: the second median of the stretch's own
    distances, or, beside a single point, what the model says there.

    Parameters
    ----------
    indptr
        (n_spectra + 1,) int64.
    mz
        (n_points,) float64, Th; anything where marked.
    marked
        (n_points,) bool.
    models
        (n_spectra, 3) float64, b0, b1, b2; NaN where a spectrum has none.

    Returns
    -------
    (n_points,) float64, (n_spectra,) int64
        The m/z; and for each spectrum the first mark, counted from its first point, that
        does not stand as it must or has no model, `WHOLE` where there is none. The marks
        of such a spectrum are not filled.
    """
    filled = mz.copy()
    wrong = np.full(len(indptr) - 1, WHOLE)
    for spectrum in np.unique(owners(indptr)[marked]):
        own = slice(indptr[spectrum], indptr[spectrum + 1])
        wrong[spectrum] = _fill_one(filled[own], marked[own], SpacingModel(*models[spectrum]))
        if wrong[spectrum] != WHOLE:
            filled[own] = mz[own]
    return filled, wrong


def _fill_one(mz: Floats, marked: NDArray[np.bool_], model: SpacingModel) -> int:
    """Fill the marks of one spectrum in place; return the first that cannot be, or WHOLE."""
    real = np.flatnonzero(~marked)
    if not len(real):
        return 0
    breaks = np.flatnonzero(np.diff(real) > 1)
    starts, ends = np.append(real[0], real[breaks + 1]), np.append(real[breaks], real[-1])
    n_left, n_right = starts[0], len(mz) - 1 - ends[-1]
    between = starts[1:] - ends[:-1] - 1
    if n_left > 1:
        return 0
    if (between != 2).any():
        return int(ends[np.argmax(between != 2)] + 1)
    if n_right > 1:
        return int(ends[-1] + 1)
    for start, end in zip(starts, ends, strict=True):
        stretch = mz[start : end + 1]
        step = second_median(np.diff(stretch)) if len(stretch) > 1 else model.step(stretch)[0]
        if not step >= 0:
            return int(start - 1 if start else end + 1)
        if start:
            mz[start - 1] = mz[start] - step
        if end + 1 < len(mz):
            mz[end + 1] = mz[end] + step
    return WHOLE
