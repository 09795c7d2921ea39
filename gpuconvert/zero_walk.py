"""The functions of `gpuconvert.zero_runs`, compiled: one walk along each spectrum.

Roles and filled m/z are the same to the last bit. Models agree in what they predict;
their sums are taken point by point instead of by matrix products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner
from gpuconvert.zero_runs import (
    DROPPED,
    KEPT,
    LEAST_PIVOT,
    MARKED,
    WHOLE,
    WIDEST_GAP,
    Floats,
    Ints,
    Roles,
)


@compiled
def zero_roles(indptr: Ints, intensity: NDArray[Any]) -> Roles:
    """Return what becomes of each point; see `zero_runs.zero_roles`."""
    roles = np.empty(len(intensity), np.uint8)
    for spectrum in range(len(indptr) - 1):
        begin, end = indptr[spectrum], indptr[spectrum + 1]
        last = end - 1
        while last >= begin and intensity[last] == 0:
            last -= 1
        seen = False
        for point in range(begin, end):
            if intensity[point] != 0:
                roles[point] = KEPT
                seen = True
                continue
            before = point == begin or intensity[point - 1] == 0
            after = point == end - 1 or intensity[point + 1] == 0
            if before and after:
                roles[point] = DROPPED
            elif (before or after) and seen and point < last:
                roles[point] = MARKED
            else:
                roles[point] = KEPT
    return roles


@inner
def _second_median(values: Floats) -> float:
    middle = np.median(values)
    n_low = 0
    low = np.empty(len(values))
    for value in values:
        if value <= middle:
            low[n_low] = value
            n_low += 1
    return float(np.median(low[:n_low]))


@inner
def _constant(mz: Floats) -> float:
    """Return the second median of the usable distances; NaN where there is none."""
    gaps = np.empty(max(len(mz) - 1, 0))
    n_gaps = 0
    for point in range(1, len(mz)):
        gap = mz[point] - mz[point - 1]
        if 0 < gap <= WIDEST_GAP:
            gaps[n_gaps] = gap
            n_gaps += 1
    return _second_median(gaps[:n_gaps]) if n_gaps else np.nan


@inner
def _weight(value: float) -> float:
    """Return ln(value + 1); 0 for what is no finite count."""
    return float(np.log1p(value)) if 0 < value < np.inf else 0.0


@inner
def _solve(moments: Floats, right: Floats, out: Floats) -> bool:
    """Solve the normal equations of 1, x, x^2 by Cholesky; False where terms depend."""
    lower = np.zeros((3, 3))
    for i in range(3):
        for j in range(i + 1):
            rest = moments[i + j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            if i != j:
                lower[i, j] = rest / lower[j, j]
            elif rest > LEAST_PIVOT:
                lower[i, i] = np.sqrt(rest)
            else:
                return False
    for i in range(3):
        rest = right[i]
        for k in range(i):
            rest -= lower[i, k] * out[k]
        out[i] = rest / lower[i, i]
    for i in range(2, -1, -1):
        rest = out[i]
        for k in range(i + 1, 3):
            rest -= lower[k, i] * out[k]
        out[i] = rest / lower[i, i]
    return True


@inner
def _fit(mz: Floats, intensity: NDArray[Any], model: Floats) -> bool:
    """Put the quadratic model of one spectrum into `model`; False where there is none."""
    total = first = 0.0
    n_used = 0
    for point in range(1, len(mz)):
        gap = mz[point] - mz[point - 1]
        weight = _weight(np.float64(intensity[point]))
        if 0 < gap <= WIDEST_GAP and weight > 0:
            total += weight
            first += weight * mz[point]
            n_used += 1
    if n_used < 3:
        return False
    centre = first / total
    scale = 0.0
    for point in range(1, len(mz)):
        if 0 < mz[point] - mz[point - 1] <= WIDEST_GAP:
            scale = max(scale, abs(mz[point] - centre))
    moments, right, terms = np.zeros(5), np.zeros(3), np.zeros(3)
    for point in range(1, len(mz)):
        gap = mz[point] - mz[point - 1]
        weight = _weight(np.float64(intensity[point])) / total
        if 0 < gap <= WIDEST_GAP and weight > 0:
            x = (mz[point] - centre) / scale
            power = weight
            for k in range(5):
                moments[k] += power
                if k < 3:
                    right[k] += power * gap
                power *= x
    if not _solve(moments, right, terms):
        return False
    for point in range(1, len(mz)):
        if 0 < mz[point] - mz[point - 1] <= WIDEST_GAP:
            x = (mz[point] - centre) / scale
            if not terms[0] + x * (terms[1] + x * terms[2]) > 0:
                return False
    b, c = terms[1] / scale, terms[2] / (scale * scale)
    model[0] = terms[0] - b * centre + c * centre * centre
    model[1] = b - 2 * c * centre
    model[2] = c
    return True


@compiled
def fit_models(indptr: Ints, mz: Floats, intensity: NDArray[Any]) -> Floats:
    """Return the model of the sampling step of every spectrum; see `zero_runs.fit_models`."""
    models = np.zeros((len(indptr) - 1, 3))
    for spectrum in range(len(models)):
        begin, end = indptr[spectrum], indptr[spectrum + 1]
        if not _fit(mz[begin:end], intensity[begin:end], models[spectrum]):
            step = _constant(mz[begin:end])
            models[spectrum, 0] = step
            # No step at all: no term means anything.
            models[spectrum, 1:] = 0.0 if step == step else np.nan
    return models


@inner
def _stretch_step(mz: Floats, model: Floats, gaps: Floats) -> float:
    """Return the step beside a stretch of points."""
    if len(mz) == 1:
        return float(model[0] + mz[0] * (model[1] + mz[0] * model[2]))
    for point in range(1, len(mz)):
        gaps[point - 1] = mz[point] - mz[point - 1]
    return _second_median(gaps[: len(mz) - 1])


@inner
def _fill(mz: Floats, marked: NDArray[np.bool_], model: Floats, gaps: Floats) -> int:
    """Fill the marks of one spectrum in place; return the first that cannot be, or WHOLE."""
    n_points = len(mz)
    start = 0
    # Where the marks of a run must end: one at either end of a spectrum, two between.
    while start < n_points and marked[start]:
        start += 1
    if start == n_points or start > 1:
        return 0
    while True:
        end = start
        while end + 1 < n_points and not marked[end + 1]:
            end += 1
        after = end + 1
        while after < n_points and marked[after]:
            after += 1
        if after - end - 1 != (2 if after < n_points else min(1, n_points - 1 - end)):
            return end + 1
        if after == n_points:
            break
        start = after
    start = 1 if marked[0] else 0
    while start < n_points:
        end = start
        while end + 1 < n_points and not marked[end + 1]:
            end += 1
        step = _stretch_step(mz[start : end + 1], model, gaps)
        if not step >= 0:
            return start - 1 if start > 0 else end + 1
        if start > 0:
            mz[start - 1] = mz[start] - step
        if end + 1 < n_points:
            mz[end + 1] = mz[end] + step
        start = end + 3
    return WHOLE


@compiled
def fill_marks(
    indptr: Ints, mz: Floats, marked: NDArray[np.bool_], models: Floats
) -> tuple[Floats, Ints]:
    """Return the m/z of every point, and marks out of place; see `zero_runs.fill_marks`."""
    filled = mz.copy()
    wrong = np.full(len(indptr) - 1, WHOLE)
    longest = 0
    for spectrum in range(len(indptr) - 1):
        longest = max(longest, indptr[spectrum + 1] - indptr[spectrum])
    gaps = np.empty(longest)
    for spectrum in range(len(indptr) - 1):
        begin, end = indptr[spectrum], indptr[spectrum + 1]
        if not marked[begin:end].any():
            continue
        wrong[spectrum] = _fill(filled[begin:end], marked[begin:end], models[spectrum], gaps)
        if wrong[spectrum] != WHOLE:
            filled[begin:end] = mz[begin:end]
    return filled, wrong
