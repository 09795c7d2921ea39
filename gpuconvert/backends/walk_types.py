"""What the kernels of the CPU backend work on: axis, rules, source and scratch as plain fields.

Numba compiles a kernel for the types it is called with; these tuples fix them, so
that each kernel is compiled once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import inner
from gpuconvert.mass_axis import LAWS, LISTED_CODE, MZ_FLOOR
from gpuconvert.resampling import NARROWEST

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bins = NDArray[np.int32]
Flags = NDArray[np.bool_]

PCHIP, LINEAR, NEAREST = 0, 1, 2
"""How the kernels call the methods."""

# A law added to LAWS fails here until `write_positions` and `slope_of` know it.
CONSTANT, LINEAR_TOF, REFLECTOR_TOF, TOF, ORBITRAP, FTICR = (law.code for law in LAWS.values())


class Axis(NamedTuple):
    """A mass axis; fields as in `MassAxis`, `code` that of the law.

    Its arrays travel beside it: a tuple with arrays in it costs a reference count
    at every call.
    """

    code: int
    n_bins: int
    u0: float
    du: float
    a: float
    b: float
    low: float
    high: float


class Rules(NamedTuple):
    """The options of resampling; fields as in `ResampleOptions` and `SpacingModel`.

    method : one of the codes above
    height : whether the quantity is height
    threshold : float32, the largest one not above that of the options
    eps : relative precision of the m/z
    """

    method: int
    height: bool
    threshold: np.float32
    eps: float
    gap: float
    b0: float
    b1: float
    b2: float
    low: float
    high: float
    tolerance: float


class Source(NamedTuple):
    """A batch; fields as in `RawBatch`, dtypes by the code that `walk` gives them."""

    raw: NDArray[np.uint8]
    mz_at: Ints
    intensity_at: Ints
    n_points: Ints
    mz_code: int
    intensity_code: int
    shared: bool


class Points(NamedTuple):
    """Points of one spectrum; each (most,) float64."""

    mz: Floats
    counts: Floats
    position: Floats


class Cells(NamedTuple):
    """The cells of the points of one spectrum, or the intervals after them; each (most + 1,).

    left, right : float64, where a cell begins and ends, as positions
    snap : float64, how near a bin edge an end of the cell has to be to lie on it
    secant : float64, the mean of the cubic's slope
    slope, a, b : float64, of the cubic ``t * (slope + t * (a + t * b))``
    joined : bool, whether the next point is a neighbour
    first, last : int32, bins a cell lies in (whose centres lie in an interval)
    """

    left: Floats
    right: Floats
    snap: Floats
    secant: Floats
    slope: Floats
    a: Floats
    b: Floats
    joined: Flags
    first: Bins
    last: Bins


class Columns(NamedTuple):
    """What is filled per spectrum; fields as in `CsrBlock`."""

    indptr: Ints
    tic: Floats
    outside: Floats
    faults: NDArray[np.uint8]


@inner
def write_positions(mz: Floats, n: int, axis: Axis, position: Floats) -> None:
    """Write `MassAxis.position` of `n` m/z, one plain loop an operation, which vectorises."""
    code = axis.code
    if code == LISTED_CODE:
        for k in range(n):
            position[k] = mz[k]
        return
    for k in range(n):
        position[k] = max(mz[k], MZ_FLOOR)
    if code == TOF:
        for k in range(n):
            position[k] = axis.b * position[k] / axis.a
    if code in (LINEAR_TOF, TOF, ORBITRAP):
        for k in range(n):
            position[k] = math.sqrt(position[k])
    if code == TOF:
        for k in range(n):
            position[k] = (2 / math.sqrt(axis.b)) * math.asinh(position[k])
    if code == REFLECTOR_TOF:
        for k in range(n):
            position[k] = math.log(position[k])
    if code in (ORBITRAP, FTICR):
        for k in range(n):
            position[k] = -1 / position[k]
    for k in range(n):
        position[k] = (position[k] - axis.u0) / axis.du


@inner
def slope_of(mz: float, axis: Axis) -> float:
    """Return `MassAxis.slope` at one m/z."""
    if axis.code == LISTED_CODE:
        return 1.0
    m = max(mz, MZ_FLOOR)
    if axis.code == CONSTANT:
        slope = 1.0
    elif axis.code == LINEAR_TOF:
        slope = 0.5 / math.sqrt(m)
    elif axis.code == REFLECTOR_TOF:
        slope = 1 / m
    elif axis.code == TOF:
        slope = 1 / math.sqrt(m * (axis.a + axis.b * m))
    elif axis.code == ORBITRAP:
        slope = 0.5 / (m * math.sqrt(m))
    else:
        slope = 1 / (m * m)
    return slope / axis.du


@inner
def step_of(mz: float, rules: Rules) -> float:
    """Return `SpacingModel.step` at one m/z."""
    m = min(max(mz, rules.low), rules.high)
    return rules.b0 + m * (rules.b1 + m * rules.b2)


@inner
def are_neighbours(first: float, second: float, rules: Rules) -> bool:
    """Return whether two consecutive points, by their m/z, are neighbours."""
    return not second - first > rules.gap * step_of(second, rules)


@inner
def inverse_of(width: float) -> float:
    """Return 1 / width, 0 where there is no width."""
    return 1 / width if width > NARROWEST else 0.0


@inner
def harmonic(h0: float, h1: float, d0: float, d1: float) -> float:
    """Return the weighted harmonic mean of the secants d0, d1 over widths h0, h1."""
    w1 = 2 * h1 + h0
    w2 = h1 + 2 * h0
    return (w1 + w2) / (w1 / d0 + w2 / d1)


@inner
def last_at_or_below(values: Floats, x: float, start: int) -> int:
    """Return the last place in ascending `values` not above `x`, or -1.

    start : a guess; the search gallops from it, so that near guesses cost little
    """
    n = len(values)
    low, high = -1, n
    step = 1
    k = min(max(start, 0), n - 1)
    if values[k] <= x:
        low = k
        while low + step < n and values[low + step] <= x:
            low += step
            step *= 2
        high = min(low + step, n)
    else:
        high = k
        while high - step >= 0 and values[high - step] > x:
            high -= step
            step *= 2
        low = max(high - step, -1)
    while high - low > 1:
        middle = (low + high) // 2
        if values[middle] <= x:
            low = middle
        else:
            high = middle
    return low
