"""From the index of a digitizer's sample to m/z, by a row of numbers.

Model 1, of a spectrum whose temperatures are T1, T2 (T1ref, T2ref those of the row)::

    f = 1 + 1e-6 (dC1 (T1ref - T1) + dC2 (T2ref - T2))
    t = index * DigitizerTimebase + DigitizerDelay                       in ns
    t = C0 + b s + (C2/f) s^2 + C3 s^3,   b = sqrt(1e12 / (C1 f)),   s = sqrt(m/z + C4)

Model 2 takes m1 from C0, C1 and C2 alone and corrects it by a polynomial P of C7 terms::

    x = m1 within [C5, C6],   m/z = m1 - P(x) exp(-(m1 - x)^2),   P(x) = sum C[8 + k] x^k

A chord is uniform in the square root of m/z: ``m/z = (C0 + C1 index)^2``.

`kernels/calibration.cuh` does the same operations in the same order. They are rounded
correctly everywhere but for the exponential, so only model 2 may differ, by its last bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

CHORD, MODEL_1, MODEL_2 = 0, 1, 2

KIND, TIMEBASE, DELAY, C0, C1, C2, C3, C4, LOW, HIGH, TERMS = range(11)
MOST_TERMS = 7
MODEL_SIZE = TERMS + MOST_TERMS
"""Entries of a model: its kind, then coefficients."""

NEWTON_STEPS = 12
"""Quadratic convergence from a start that is right to C3: three steps suffice for real data."""


@inner
def _base_mz(index: float, model: Floats, factor: float) -> float:
    """Return m/z by model 1; by model 2 before its correction."""
    b = math.sqrt(1e12 / (model[C1] * factor))
    c2 = model[C2] / factor
    d = index * model[TIMEBASE] + model[DELAY] - model[C0]
    s = 2.0 * d / (b + math.sqrt(b * b + 4.0 * c2 * d))
    c3 = model[C3]
    if c3 != 0.0:
        for _ in range(NEWTON_STEPS):
            step = (((c3 * s + c2) * s + b) * s - d) / ((3.0 * c3 * s + 2.0 * c2) * s + b)
            s -= step
            if abs(step) <= 1e-16 * abs(s):
                break
    return float(s * s - model[C4])


@inner
def mz_of(index: float, model: Floats, factor: float) -> float:
    """Return the m/z of an index; `model` is (MODEL_SIZE,), `factor` the f of the spectrum."""
    if model[KIND] == CHORD:
        root = model[C0] + model[C1] * index
        return float(root * root)
    mz = _base_mz(index, model, factor)
    if model[KIND] == MODEL_1:
        return mz
    x = min(max(mz, model[LOW]), model[HIGH])
    correction = 0.0
    for k in range(MOST_TERMS - 1, -1, -1):
        correction = correction * x + model[TERMS + k]
    return mz - correction * math.exp(-((mz - x) * (mz - x)))


@compiled
def calibrated(index: Floats, model: Floats, factor: float) -> Floats:
    """Return the m/z of many indices of one spectrum; (n_points,) float64, Th."""
    mz = np.empty(len(index))
    for k in range(len(index)):
        mz[k] = mz_of(index[k], model, factor)
    return mz
