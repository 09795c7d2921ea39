"""The axis of ion mobility: bins of equal width in 1/K0."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UNIT = "V s / cm2"


@dataclass(frozen=True, slots=True)
class MobilityAxis:
    """Bins of 1/K0; `low` and `high` are the outer edges, in V s / cm2, ``low < high``."""

    low: float
    high: float
    n_bins: int

    @property
    def edges(self) -> Floats:
        """The edges of the bins; (n_bins + 1,), ascending."""
        return np.linspace(self.low, self.high, self.n_bins + 1)

    @property
    def centres(self) -> Floats:
        """The middle of each bin; (n_bins,), ascending."""
        edges = self.edges
        return 0.5 * (edges[1:] + edges[:-1])

    def bin_of(self, values: Floats) -> NDArray[np.int64]:
        """Return the bin of each value; what lies beyond an end is in the bin there."""
        found = np.searchsorted(self.edges, values, "right") - 1
        return np.clip(found, 0, self.n_bins - 1)

    def to_json(self) -> dict[str, Any]:
        """Return the axis as plain JSON values."""
        return {"low": self.low, "high": self.high, "n_bins": self.n_bins, "quantity": "1/K0",
                "unit": UNIT}  # fmt: skip
