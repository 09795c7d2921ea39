"""The sampling grid of profile spectra: one step in u for all, and its phase where shared.

Points of a spectrum are numbered by whole steps, and a straight line is put through
u over these numbers. Across a gap the number of steps is only trusted once the step
is known well enough, so the fit starts from short runs and links them as it improves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.decision_evidence import Points, coordinate, slope

Floats = NDArray[np.float64]

FIRST_ERROR = 0.02
"""Relative error of the step that the fit starts from."""

LINK_ERROR = 0.2
LINK_RESIDUAL = 0.3
"""Steps by which the length of a gap may be uncertain, and by which it may miss a whole number."""

RMS_MOST = 0.05
"""Points scatter by no more than this about a grid, beyond the rounding of m/z, in steps."""

PHASE_MOST = 0.02
"""Spectra with one phase agree to this, in steps."""

ON_GRID_LEAST = 0.98
"""Share of points that must lie on a shared grid."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A uniform sampling grid in the coordinate of a law.

    step : in u
    anchor : a u on the grid, or None where the spectra have no phase in common
    rms : distance of points from the grid, root mean square, in steps
    phase_spread : largest distance of a spectrum's phase from their mean, in steps
    """

    step: float
    anchor: float | None
    rms: float
    phase_spread: float

    def to_json(self) -> dict[str, Any]:
        """Return the figures as plain JSON values."""
        return {
            "step_u": self.step, "anchor_u": self.anchor, "rms_steps": self.rms,
            "phase_spread_steps": self.phase_spread,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Runs:
    """A fit with one step and a phase per run of linked points.

    run : (n_points,) int64, ascending from 0
    base : (n_runs,) float64, fitted u of the first point of each run
    """

    step: float
    error: float
    rms: float
    run: NDArray[np.int64]
    base: Floats


def fit_grid(points: Points, law: str, step: float) -> Grid | None:
    """Return the grid in u of `law` near `step` that the points lie on, or None."""
    if len(points.mz) < 2 or not step > 0:
        return None
    u = coordinate(points.mz, law)
    rms_most = RMS_MOST + 1.5 * _rounding(points, law, step)
    runs: _Runs | None = None
    error = FIRST_ERROR
    for _ in range(12):
        better = _fit_runs(u, points.spectrum, step, error)
        if better is None or better.rms > rms_most:
            break
        linked = runs is None or len(better.base) < len(runs.base)
        runs, step, error = better, better.step, better.error
        if not linked:
            break
    if runs is None:
        return None
    anchor, spread = _common_phase(points, runs)
    if spread > _phase_tolerance(points, runs):
        return Grid(runs.step, None, runs.rms, spread)
    return _fit_all(u, runs, anchor, spread, rms_most)


def _rounding(points: Points, law: str, step: float) -> float:
    """Return the root mean square of the rounding of m/z in the file, in steps."""
    eps = np.finfo(np.float32 if points.single else np.float64).eps
    rounding = eps * points.mz * slope(points.mz, law) / (step * math.sqrt(12))
    return math.sqrt(float(np.mean(rounding**2)))


def _fit_runs(u: Floats, spectrum: NDArray[np.int64], step: float, error: float) -> _Runs | None:
    """Return the fit to runs linked by a `step` that is known to a relative `error`."""
    jump = np.diff(u) / step
    whole = np.rint(jump)
    linked = (spectrum[1:] == spectrum[:-1]) & (whole >= 1)
    linked &= (jump * error < LINK_ERROR) & (np.abs(jump - whole) < LINK_RESIDUAL)
    if not linked.any():
        return None
    run = np.concatenate([[0], np.cumsum(~linked)])
    k = np.concatenate([[0.0], np.cumsum(np.where(linked, whole, 0.0))])
    count = np.bincount(run)
    k_mean = np.bincount(run, k) / count
    u_mean = np.bincount(run, u) / count
    dk, du = k - k_mean[run], u - u_mean[run]
    power = float(dk @ dk)
    fitted = float(dk @ du) / power
    residual = (du - fitted * dk) / fitted
    rms = math.sqrt(float(residual @ residual) / max(1, len(u) - len(count)))
    first = np.flatnonzero(np.concatenate([[True], ~linked]))
    base = u_mean - fitted * (k_mean - k[first])
    return _Runs(fitted, max(4 * rms / math.sqrt(power), 1e-12), rms, run, base)


def _common_phase(points: Points, runs: _Runs) -> tuple[float, float]:
    """Return a u at the mean phase of all spectra, and how far their phases lie from it."""
    count = np.bincount(runs.run)
    origin = float(runs.base[np.argmax(count)])
    turn = np.exp(2j * np.pi * ((runs.base - origin) / runs.step))
    weighted = count * turn
    mean = np.angle(weighted.sum()) / (2 * np.pi)
    first = np.flatnonzero(np.concatenate([[True], np.diff(runs.run) > 0]))
    owner = np.unique(points.spectrum[first], return_inverse=True)[1]
    real = np.bincount(owner, weighted.real)
    imaginary = np.bincount(owner, weighted.imag)
    off = np.angle((real + 1j * imaginary) * np.exp(-2j * np.pi * mean)) / (2 * np.pi)
    return origin + mean * runs.step, float(np.abs(off).max())


def _phase_tolerance(points: Points, runs: _Runs) -> float:
    """Return how far phases may lie apart: what rounding of the shortest spectrum explains."""
    least = np.unique(points.spectrum, return_counts=True)[1].min()
    return max(PHASE_MOST, min(0.1, 4 * runs.rms / math.sqrt(float(least))))


def _fit_all(u: Floats, runs: _Runs, anchor: float, spread: float, rms_most: float) -> Grid:
    """Fit one line through the points of all spectra together."""
    step, rms, on_grid = runs.step, runs.rms, 0.0
    for _ in range(3):
        k = np.rint((u - anchor) / step)
        kept = np.abs((u - anchor) / step - k) < LINK_RESIDUAL
        on_grid = float(kept.mean())
        if on_grid < ON_GRID_LEAST:
            return Grid(runs.step, None, runs.rms, spread)
        k_mean, u_mean = float(k[kept].mean()), float(u[kept].mean())
        dk, du = k[kept] - k_mean, u[kept] - u_mean
        power = float(dk @ dk)
        step = float(dk @ du) / power if power > 0 else step
        anchor = u_mean + step * (round(k_mean) - k_mean)
        residual = (du - step * dk) / step
        rms = math.sqrt(float(residual @ residual) / len(residual))
    if rms > rms_most:
        return Grid(runs.step, None, runs.rms, spread)
    return Grid(step, anchor, rms, spread)
