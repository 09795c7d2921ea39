"""The native sampling step of a profile spectrum as a smooth function of m/z.

One model serves the gap rule of resampling, the decision about the axis and
the null marking of mzPeak: delta(m) = b0 + b1 m + b2 m^2, in Th.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import PlanError

TOLERANCE = (0.01, 0.3)
"""Least and largest tolerance of a fitted model."""


@dataclass(frozen=True, slots=True)
class SpacingModel:
    """Distance between neighbouring samples, delta(m) = b0 + b1 m + b2 m^2.

    b0, b1, b2 : coefficients in Th, 1 and 1/Th, ascending powers
    tolerance : largest relative error of the model over what it was fitted to, 0 to 1
    low, high : m/z between which it was fitted; outside it is held constant
    """

    b0: float
    b1: float = 0.0
    b2: float = 0.0
    tolerance: float = 0.05
    low: float = 0.0
    high: float = float("inf")

    def step(self, mz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the native step at each m/z, in Th; same shape as `mz`."""
        m = np.minimum(np.maximum(mz, self.low), self.high)
        return self.b0 + m * (self.b1 + m * self.b2)

    def to_json(self) -> dict[str, float | None]:
        """Return the model as plain JSON values; an infinite bound is null."""
        return {
            "b0": self.b0, "b1": self.b1, "b2": self.b2, "tolerance": self.tolerance,
            "low": self.low, "high": None if np.isinf(self.high) else self.high,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SpacingModel:
        """Return the model that `to_json` wrote."""
        try:
            high = value["high"]
            return cls(
                b0=float(value["b0"]), b1=float(value["b1"]), b2=float(value["b2"]),
                tolerance=float(value["tolerance"]), low=float(value["low"]),
                high=float("inf") if high is None else float(high),
            )  # fmt: skip
        except KeyError as error:
            raise PlanError(f"spacing model has no entry {error}; plan again") from error
        except (TypeError, ValueError) as error:
            raise PlanError(f"spacing model cannot be used: {error}; plan again") from error


def fit_spacing(mz: NDArray[np.float64], step: NDArray[np.float64]) -> SpacingModel:
    """Return the model whose relative error over these native steps is smallest.

    Terms are dropped where there are too few steps for them, or where the model would
    fall below half of the smallest step between the first and the last m/z.

    Parameters
    ----------
    mz
        (n,) float64, Th; at least one, in any order.
    step
        (n,) float64, Th, above 0: the native step at each `mz`.
    """
    low, high = float(mz.min()), float(mz.max())
    scale = high if high > 0 else 1.0
    least = 0.5 * float(step.min())
    terms = min(3, len(np.unique(mz)))
    while True:
        powers = (mz[:, None] / scale) ** np.arange(terms)
        fitted = np.linalg.lstsq(powers / step[:, None], np.ones(len(mz)), rcond=None)[0]
        b0, b1, b2 = (float(value) for value in [*fitted / scale ** np.arange(terms), 0, 0][:3])
        model = SpacingModel(b0, b1, b2, 0.0, low, high)
        # A parabola is least at an end or at its vertex.
        vertex = -0.5 * b1 / b2 if b2 else low
        if terms == 1 or float(model.step(np.array([low, vertex, high])).min()) >= least:
            break
        terms -= 1
    error = float(np.abs(model.step(mz) / step - 1).max())
    return replace(model, tolerance=min(max(error, TOLERANCE[0]), TOLERANCE[1]))
