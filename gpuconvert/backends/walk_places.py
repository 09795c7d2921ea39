"""The bin whose centre is nearest to each point of a spectrum, ties to the right.

The axis is so nearly even from one bin to the next that the bin which holds a point
is the nearest one, unless the point lies close to a bin edge: only there are
centres compared. An estimate of the position is therefore as good as the position.
"""

from __future__ import annotations

import math

import numpy as np

from gpuconvert.backends.walk_types import (
    REFLECTOR_TOF,
    Axis,
    Bins,
    Floats,
    Points,
    last_at_or_below,
    write_positions,
)
from gpuconvert.compiled import inner
from gpuconvert.mass_axis import LISTED_CODE
from gpuconvert.resampling import NARROWEST

DOUBTFUL = -2
"""Instead of a bin: compare centres."""

ROUNDING = 1e-6
"""How far rounding moves a position, in bins, at most: far less."""

LN2 = math.log(2.0)
LOG_ERROR = 1e-9
"""Of `_write_logs`; the first term that it leaves out is below 7e-10."""


@inner
def _write_logs(mz: Floats, n: int, into: Floats) -> None:
    """Write ln m to within `LOG_ERROR`, in operations that vectorise.

    With m = 2^e f, f between 0.7 and 1.42, and t = (f - 1) / (f + 1),
    ln m = e ln 2 + 2 (t + t^3 / 3 + t^5 / 5 + ...).
    """
    bits = mz[:n].view(np.int64)
    one = np.int64(0x3FF0000000000000)
    # Half of a logarithm added: the exponent goes up where the fraction is above sqrt(2).
    half = np.int64(0x00095F619980C433)
    scaled = into[:n].view(np.int64)
    for k in range(n):
        scaled[k] = bits[k] - ((bits[k] + half - one) >> 52 << 52)
    for k in range(n):
        exponent = float((bits[k] + half - one) >> 52)
        t = (into[k] - 1) / (into[k] + 1)
        s = t * t
        into[k] = exponent * LN2 + 2 * t * (1 + s * (1 / 3 + s * (1 / 5 + s * (1 / 7 + s / 9))))


@inner
def _nearest_to(mz: float, near: int, centres: Floats) -> int:
    """Return the bin whose centre is nearest to an m/z, starting from one beside it."""
    while near + 1 < len(centres) and abs(centres[near + 1] - mz) <= abs(centres[near] - mz):
        near += 1
    while near > 0 and abs(centres[near - 1] - mz) < abs(centres[near] - mz):
        near -= 1
    return near


@inner
def _unevenness(centres: Floats) -> float:
    """Return a bound on how far the boundary between two centres is from the bin edge, in bins.

    It is a quarter of the change of width from bin to bin, which for every law is
    largest at an end of the axis.
    """
    last = len(centres) - 1
    if last < 2:
        return 1.0
    first = (centres[2] - centres[1]) / (centres[1] - centres[0])
    final = (centres[last] - centres[last - 1]) / (centres[last - 1] - centres[last - 2])
    most = max(abs(first - 1), abs(1 / first - 1), abs(final - 1), abs(1 / final - 1))
    return 0.5 * float(most)


@inner
def _find_on_law(spectrum: Points, n: int, axis: Axis, centres: Floats, places: Bins) -> None:
    mz, position = spectrum.mz, spectrum.position
    margin = ROUNDING + _unevenness(centres)
    if axis.code == REFLECTOR_TOF:
        _write_logs(mz, n, position)
        for i in range(n):
            position[i] = (position[i] - axis.u0) / axis.du
        margin += LOG_ERROR / axis.du
    else:
        write_positions(mz, n, axis, position)
    doubts = 0
    for i in range(n):
        below = np.floor(position[i])
        beyond = position[i] - below
        sure = (
            (beyond > margin) & (beyond < 1 - margin) & (mz[i] >= axis.low) & (mz[i] <= axis.high)
        )
        places[i] = np.int32(below if sure else DOUBTFUL)
        doubts += not sure
    if doubts == 0:
        return
    for i in range(n):
        if places[i] != DOUBTFUL:
            continue
        if mz[i] < axis.low or mz[i] > axis.high:
            places[i] = -1 if mz[i] < axis.low else axis.n_bins
        else:
            near = int(min(max(np.floor(position[i]), 0.0), axis.n_bins - 1.0))
            places[i] = _nearest_to(mz[i], near, centres)


@inner
def _find_on_list(mz: Floats, n: int, axis: Axis, centres: Floats, places: Bins) -> None:
    near = int(np.int64(0))
    for i in range(n):
        m = mz[i]
        if m < axis.low or m > axis.high:
            places[i] = -1 if m < axis.low else axis.n_bins
            continue
        # Guess by the spacing here, which changes little from bin to bin.
        beside = min(near + 1, axis.n_bins - 1)
        ahead = (m - centres[near]) / max(centres[beside] - centres[near], NARROWEST)
        guess = min(near + max(ahead, 0.0), axis.n_bins - 1.0)
        near = _nearest_to(m, max(last_at_or_below(centres, m, int(guess)), 0), centres)
        places[i] = near


@inner
def find_places(spectrum: Points, n: int, axis: Axis, centres: Floats, places: Bins) -> None:
    """Write the bin whose centre is nearest to each of `n` points; -1 or n_bins outside.

    Positions are overwritten.
    """
    if axis.code == LISTED_CODE:
        _find_on_list(spectrum.mz, n, axis, centres, places)
    else:
        _find_on_law(spectrum, n, axis, centres, places)
