"""The native sampling step of a profile spectrum as a smooth function of m/z.

One model serves the gap rule of resampling, the decision about the axis and
the null marking of mzPeak: delta(m) = b0 + b1 m + b2 m^2, in Th.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import PlanError


@dataclass(frozen=True, slots=True)
class SpacingModel:
    """Distance between neighbouring samples, delta(m) = b0 + b1 m + b2 m^2.

    b0, b1, b2 : coefficients in Th, 1 and 1/Th, ascending powers
    tolerance : relative error of the model (standard deviation of the fit), 0 to 1
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
        except (KeyError, TypeError) as error:
            raise PlanError(f"spacing model has no usable entry {error}; plan again") from error
