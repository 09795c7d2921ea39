r"""What resampling means here: the definition that every backend implements.

All arithmetic is float64, each formula in the order it is written in. Equal
operands then give equal bits on every backend.

**Positions.** All geometry is done in ``p = axis.position(m/z)``: bins for the axis
of a law (edge j is exactly j), Th for listed centres (edge j is ``axis.edges[j]``).
`W` is the width of the bin that holds a position (1 for a law; that of the first or
last bin beyond the ends of a listed axis).

**Points.** Points of a spectrum whose position is not above every position before
are one point with the last that was: intensities add, the first m/z counts. Sums
run left to right in float64. (`nearest` takes the points as they are.)

**Neighbours.** Points i and i + 1 are neighbours unless
``m[i+1] - m[i] > gap * spacing.step(m[i+1])``. A run is a longest chain of neighbours.

**Cells** (quantity ``counts``). Point i owns the cell [l_i, r_i] of positions.
Between neighbours the edge is the midpoint ``0.5 * (p[i] + p[i+1])``; at either end
of a run it lies half a native step from the point (``p - 0.5 * s``, ``p + 0.5 * s``),
but never beyond the midpoint to the point across the gap. The native step is
``s = step * axis.slope(max(m, step))`` with ``step = max(spacing.step(m), 0)``, and is
W itself where ``abs(s - W) <= spacing.tolerance * W``: the model cannot tell them apart.

**Snap** (identity rule). A cell edge within ``snap`` of the nearest bin edge (the
lower of two) lies on it: ``snap = max(SNAP * W, 4 * eps * m * axis.slope(m))`` at the
point to its left (to its right for the left end of a run), eps being that of the m/z
dtype in the file, or of float64 where that holds integers; but never more than half
of the distance from that point to the edge. The bin edges of a law go on beyond the
ends of the axis as the whole numbers; those of listed centres end there.

**counts.** Let F be the cumulative count at the cell edges, flat across gaps and
beyond the ends. ``pchip`` puts the monotone cubic of Fritsch and Carlson through F
(slope 0 wherever a side is flat or a cell is empty; otherwise the weighted harmonic
mean ``(w1 + w2) / (w1 / d0 + w2 / d1)``, ``w1 = 2 h1 + h0``, ``w2 = h1 + 2 h0``, of
the secants d0, d1 over widths h0, h1, as scipy.interpolate.PchipInterpolator);
``linear`` a straight line per cell. The value of bin j is ``F(edge j+1) - F(edge j)``:
the sum, in ascending order of cells, of the parts of non-empty cells inside the bin.
The part of a cell that lies wholly inside is its count, with no arithmetic.
Otherwise it is ``G(t1) - G(t0)``, at least 0, with ``t = p - l`` and

    pchip:   G(t) = t * (s_l + t * (a + t * b))
             a = (3 * d - 2 * s_l - s_r) * h,  b = (s_l + s_r - 2 * d) * h * h
    linear:  G(t) = t * d

where ``h = 1 / (r - l)`` and ``d = c * h``, with G(0) = 0 and G(r - l) = c exactly. A cell
of no width (r - l not above `NARROWEST`) lies wholly in the bin of its point; h is 0 then.

**height.** The interpolant through (m/z, intensity) of each run by itself, in m/z,
evaluated at the bin centres ``axis.centres``: ``pchip`` equals
scipy.interpolate.PchipInterpolator, ``linear`` equals numpy.interp; 0 outside the
runs. A run of one point is its intensity at exactly its own m/z. Between two points
the value is ``y + G(t)`` with G as above, ``t = m - m_i``, ``h = 1 / (m[i+1] - m[i])`` (0 for
a width not above `NARROWEST`) and ``d = (y[i+1] - y[i]) * h``.

**nearest.** Every point inside [axis.low, axis.high] adds its count to the bin whose
centre is nearest in m/z, ties to the right. Either quantity.

**Outside.** What lies below edge 0 or above edge n_bins is dropped. The sum below and
the sum above, each in ascending order, make `CsrBlock.outside` of the spectrum (0 for
height with pchip or linear).

**Output.** A value is rounded to float32 and kept if it is above `threshold`. A
spectrum with a fault has no non-zeros, and its `tic` and `outside` are 0.
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

NARROWEST = 1e-60
"""Widths not above this are none, in bins or Th: a count over their cube would overflow."""

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
    return float(np.max(spacing.step(axis.centres) / np.diff(axis.edges)))


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
    # Half a cell reaches at most half-way to a neighbour, hence a cell over as many
    # bins as lie between two neighbours that are as far apart as neighbours can be.
    farthest = max(options.gap, 1.0) * np.maximum(options.spacing.step(axis.edges), 1e-300)
    number = np.arange(axis.n_bins + 1)
    reach = np.max(number - np.interp(axis.edges - farthest, axis.edges, number))
    # A cell shares a bin with each neighbour; one more as `reach` is taken at bin edges only.
    return min(axis.n_bins, n_points * (2 + int(np.ceil(reach))))
