r"""What resampling means here: the definition that every backend implements.

**Positions.** All geometry is done in ``p = axis.position(m/z)``: bins for the axis
of a law (edge j is exactly j), Th for listed centres (edge j is ``axis.edges[j]``).
`W` is the width of the bin that holds a position (1 for a law).

**Points.** Points of a spectrum whose position is not above that of the point before
are one point with it: intensities add, the first m/z counts. Sums run left to right in float64.

**Neighbours.** Points i and i + 1 are neighbours unless
``m[i+1] - m[i] > gap * spacing.step(m[i+1])``. A run is a longest chain of neighbours.

**Cells** (quantity ``counts``). Point i owns the cell [l_i, r_i] of positions.
Between neighbours the edge is the midpoint ``0.5 * (p[i] + p[i+1])``; at either end
of a run it lies half a native step from the point, but never beyond the midpoint to
the point across the gap. The native step is ``s = spacing.step(m) * axis.slope(m)``,
and is W itself where ``abs(s - W) <= spacing.tolerance * W``: the model cannot tell
them apart.

**Snap** (identity rule). A cell edge within ``snap`` of a bin edge lies on it:
``snap = max(1e-6 * W, 4 * eps * m * slope(m))`` at the point to its left (to its right
for the left end of a run), eps being that of the m/z dtype in the file; but never more than a quarter of
the distance from that point to the next (half of the half step at the end of a run).

**counts.** Let F be the cumulative count at the cell edges, flat across gaps and
beyond the ends. ``pchip`` puts the monotone cubic of Fritsch and Carlson through F
(slope 0 wherever a side is flat or a cell is empty; otherwise the weighted harmonic
mean ``(w1 + w2) / (w1 / d0 + w2 / d1)``, ``w1 = 2 h1 + h0``, ``w2 = h1 + 2 h0``, of
the secants d0, d1 over widths h0, h1, as scipy.interpolate.PchipInterpolator);
``linear`` a straight line per cell. The value of bin j is ``F(edge j+1) - F(edge j)``:
the sum, in ascending order of cells, of the parts of non-empty cells inside the bin.
The part of a cell that lies wholly inside is its count, with no arithmetic.
Otherwise it is ``G(x1) - G(x0)``, at least 0, with ``x = (p - l) / w``, w = r - l and

    pchip:   G(x) = w x (s_l + x ((3 d - 2 s_l - s_r) + x (s_l + s_r - 2 d))),  d = c / w
    linear:  G(x) = c x

with G(0) = 0 and G(1) = c exactly. A cell of no width lies wholly in the bin of its position.

**height.** The interpolant through (m/z, intensity) of each run by itself, in m/z,
evaluated at the bin centres ``axis.centres``: ``pchip`` equals
scipy.interpolate.PchipInterpolator, ``linear`` equals numpy.interp; 0 outside the
runs. A run of one point is its intensity at exactly its own m/z.

**nearest.** Every point inside [axis.low, axis.high] adds its count to the bin whose
centre is nearest in m/z, ties to the right. Either quantity.

**Outside.** What lies below edge 0 or above edge n_bins is dropped and summed per
spectrum in `CsrBlock.outside` (0 for height with pchip or linear).

**Output.** A value is rounded to float32 and kept if it is above `threshold`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from gpuconvert.mass_axis import MassAxis
from gpuconvert.spacing import SpacingModel

Method = Literal["pchip", "linear", "nearest"]
Quantity = Literal["counts", "height"]

SNAP = 1e-6
"""Cell edges closer than this to a bin edge lie on it, in bins."""

FINE_SAMPLING = 0.25
"""Profiles sampled finer than this many bins are resampled with ``linear``."""


@dataclass(frozen=True, slots=True)
class ResampleOptions:
    """How spectra are put on the axis; see the module for what each word means.

    method, quantity : the two independent choices
    threshold : values not above it are not stored, counts
    gap : neighbours are at most this many native steps apart
    spacing : the native step
    """

    method: Method
    quantity: Quantity = "counts"
    threshold: float = 0.0
    gap: float = 1.5
    spacing: SpacingModel = SpacingModel(0.0)

    def to_json(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        return {
            "method": self.method, "quantity": self.quantity, "threshold": self.threshold,
            "gap": self.gap, "spacing": self.spacing.to_json(),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ResampleOptions:
        """Return the options that `to_json` wrote."""
        return cls(
            value["method"], value["quantity"], float(value["threshold"]), float(value["gap"]),
            SpacingModel.from_json(value["spacing"]),
        )  # fmt: skip


def bins_per_step(axis: MassAxis, spacing: SpacingModel) -> float:
    """Return the largest number of bins that one native step covers, anywhere on the axis."""
    mz = np.geomspace(max(axis.low, 1e-3), axis.high, 1025)
    widths = np.interp(mz, axis.centres, np.diff(axis.edges))
    return float(np.max(spacing.step(mz) / widths))


def adaptive_method(profile: bool, axis: MassAxis, spacing: SpacingModel) -> Method:  # noqa: FBT001
    """Return the method that ``adaptive`` stands for on these spectra.

    Centroids go to the nearest bin. Profiles are interpolated, with straight lines
    where a bin holds more than four samples everywhere, and exactly to their own
    bin where the axis lists their own m/z.
    """
    if not profile or axis.law == "source":
        return "nearest"
    return "linear" if bins_per_step(axis, spacing) < FINE_SAMPLING else "pchip"


def most_nonzeros(axis: MassAxis, options: ResampleOptions, n_points: int) -> int:
    """Return a bound on the non-zeros of a spectrum of `n_points` points."""
    if options.method == "nearest":
        return min(axis.n_bins, n_points)
    reach = options.gap * bins_per_step(axis, options.spacing)
    each = 2 + int(np.ceil(min(reach, axis.n_bins)))
    return min(axis.n_bins, n_points * each)
