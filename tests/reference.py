"""Resampling of one spectrum in scalar Python, straight from `gpuconvert.resampling`.

Slow and obvious: no array arithmetic, no compaction, no cleverness. It is held
against SciPy in `unit/test_reference.py`; every backend is held against it. Only
positions, slopes and native steps are taken from the modules that own them.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

SNAP = 1e-6
NARROWEST = 1e-60


@dataclass
class Point:
    """A point of a spectrum, with everything the rules ask of it."""

    mz: float
    count: float
    position: float
    slope: float
    step: float


@dataclass
class Cell:
    """The stretch of positions that a point owns."""

    point: Point
    left: float
    right: float
    follows: bool
    """Whether the cell before is that of a neighbour."""

    @property
    def width(self):
        return self.right - self.left

    @property
    def secant(self):
        return self.point.count * inverse(self.width)


def resample_spectrum(mz, intensity, axis, options, mz_dtype):
    """Return (bins, float32 values as floats, tic, outside) of one sound spectrum."""
    tic = 0.0
    for value in intensity:
        tic += float(value)
    if options.method == "nearest":
        sums = nearest(mz, intensity, axis)
    elif options.quantity == "height":
        sums = height(merged(mz, intensity, axis, options), axis, options)
    else:
        points = merged(mz, intensity, axis, options)
        sums = counts(points, axis, options, epsilon(mz_dtype))
    outside = sums.pop(-1, 0.0) + sums.pop(axis.n_bins, 0.0)
    kept = [(index, float(np.float32(sums[index]))) for index in sorted(sums)]
    kept = [(index, value) for index, value in kept if value > options.threshold]
    return [index for index, _ in kept], [value for _, value in kept], tic, outside


def epsilon(mz_dtype):
    """Return the distance from 1 to the next number of a dtype; float64's for integers."""
    return {"f2": 2.0**-10, "f4": 2.0**-23}.get(np.dtype(mz_dtype).str[1:], 2.0**-52)


def nearest(mz, intensity, axis):
    """Return the counts by bin of the nearest centre; bins -1 and n_bins are outside."""
    centres = axis.centres.tolist()
    sums = {}
    for m, count in zip(mz, intensity, strict=True):
        m, count = float(m), float(count)
        best = -1 if m < axis.low else axis.n_bins
        if axis.low <= m <= axis.high:
            best = 0
            for index, centre in enumerate(centres):
                if abs(centre - m) <= abs(centres[best] - m):
                    best = index
        sums[best] = sums.get(best, 0.0) + count
    return sums


def merged(mz, intensity, axis, options):
    """Return the points, those at no new position added to the one before."""
    mz = np.asarray(mz, np.float64)
    columns = (mz, intensity, axis.position(mz), axis.slope(mz), options.spacing.step(mz))
    points = []
    for entry in zip(*(np.asarray(column).tolist() for column in columns), strict=True):
        point = Point(*(float(value) for value in entry))
        if points and point.position <= points[-1].position:
            points[-1].count += point.count
        else:
            points.append(point)
    return points


def are_neighbours(first, second, options):
    return not second.mz - first.mz > options.gap * second.step


def bin_edges_around(position, axis):
    """Return the bin edges at or below and above a position; None beyond listed ones."""
    if not axis.is_listed:
        return math.floor(position), math.floor(position) + 1
    below = [edge for edge in axis.edges.tolist() if edge <= position]
    above = [edge for edge in axis.edges.tolist() if edge > position]
    return (below[-1] if below else None), (above[0] if above else None)


def bin_width(position, axis):
    """Return the width of the bin that holds a position, of the end bins beyond them."""
    if not axis.is_listed:
        return 1.0
    edges = axis.edges.tolist()
    for low, high in pairwise(edges):
        if position < high:
            return high - low
    return edges[-1] - edges[-2]


def snapped(edge, point, axis, eps):
    """Return the nearest bin edge where `edge` cannot be told from it, else `edge`."""
    below, above = bin_edges_around(edge, axis)
    if below is None or (above is not None and edge - below > above - edge):
        bin_edge = float(above)
    else:
        bin_edge = float(below)
    noise = 4 * eps * point.mz * point.slope
    snap = max(SNAP * bin_width(point.position, axis), noise)
    snap = min(snap, 0.5 * abs(edge - point.position))
    return bin_edge if abs(edge - bin_edge) <= snap else edge


def half_step(point, options, axis):
    step, width = max(point.step, 0.0), bin_width(point.position, axis)
    step *= float(axis.slope(np.array([max(point.mz, step)]))[0])
    if abs(step - width) <= options.spacing.tolerance * width:
        step = width
    return 0.5 * step


def make_cells(points, axis, options, eps):
    """Return one cell per point."""
    cells = []
    for i, point in enumerate(points):
        before = points[i - 1] if i else None
        after = points[i + 1] if i + 1 < len(points) else None
        follows = before is not None and are_neighbours(before, point, options)
        if follows:
            left = cells[-1].right
        else:
            left = point.position - half_step(point, options, axis)
            if before is not None:
                left = max(left, 0.5 * (before.position + point.position))
            left = snapped(left, point, axis, eps)
        right = math.inf
        if after is None or not are_neighbours(point, after, options):
            right = point.position + half_step(point, options, axis)
        if after is not None:
            right = min(right, 0.5 * (point.position + after.position))
        cells.append(Cell(point, left, snapped(right, point, axis, eps), follows))
    return cells


def slope_between(first, second):
    """Return the slope of F at the edge between two neighbours' cells."""
    d0, d1 = first.secant, second.secant
    if not (d0 > 0 and d1 > 0):
        return 0.0
    w1 = 2 * second.width + first.width
    w2 = second.width + 2 * first.width
    return (w1 + w2) / (w1 / d0 + w2 / d1)


def inverse(width):
    """Return 1 / width, 0 where there is no width."""
    return 1 / width if width > NARROWEST else 0.0


def cubic(t, h, d, s_l, s_r):
    """Return G(t): what the cubic gains from the left end of its stretch to t beyond it."""
    a = (3 * d - 2 * s_l - s_r) * h
    b = (s_l + s_r - 2 * d) * h * h
    return t * (s_l + t * (a + t * b))


def counts(points, axis, options, eps):
    """Return the counts by bin of the cumulative; bins -1 and n_bins are outside."""
    sums = {}
    for index, part in count_parts(make_cells(points, axis, options, eps), axis, options):
        sums[index] = sums.get(index, 0.0) + part
    return sums


def count_parts(cells, axis, options):
    """Yield (bin, part) of every non-empty cell, ascending; bins -1 and n_bins are outside."""
    edges = axis.edges.tolist() if axis.is_listed else range(axis.n_bins + 1)
    for i, cell in enumerate(cells):
        if not cell.point.count > 0:
            continue
        if not cell.width > NARROWEST:
            yield bin_of_point(cell.point.position, edges), cell.point.count
            continue
        s_l = slope_between(cells[i - 1], cell) if cell.follows else 0.0
        followed = i + 1 < len(cells) and cells[i + 1].follows
        s_r = slope_between(cell, cells[i + 1]) if followed else 0.0
        cuts = [index for index, edge in enumerate(edges) if cell.left < edge < cell.right]
        if not cuts:
            yield sum(edge <= cell.left for edge in edges) - 1, cell.point.count
            continue
        gained = 0.0
        for cut in cuts:
            t = edges[cut] - cell.left
            if options.method == "linear":
                total = t * cell.secant
            else:
                total = cubic(t, inverse(cell.width), cell.secant, s_l, s_r)
            yield cut - 1, max(total - gained, 0.0)
            gained = total
        yield cuts[-1], max(cell.point.count - gained, 0.0)


def bin_of_point(position, edges):
    """Return the bin of a position; the upper end of the axis belongs to the last bin."""
    if position == edges[-1]:
        return len(edges) - 2
    return sum(edge <= position for edge in edges) - 1


def height(points, axis, options):
    """Return the heights by bin."""
    runs = []
    for point in points:
        if runs and are_neighbours(runs[-1][-1], point, options):
            runs[-1].append(point)
        else:
            runs.append([point])
    values = {}
    for run in runs:
        for index, centre in enumerate(axis.centres.tolist()):
            if run[0].mz <= centre <= run[-1].mz:
                values[index] = height_at(centre, run, options.method)
    return values


def height_at(m, run, method):
    """Return the interpolant of one run at an m/z inside it."""
    i = max(k for k, point in enumerate(run) if point.mz <= m)
    if i == len(run) - 1:
        return run[i].count
    secant = height_secant(run, i)
    t = m - run[i].mz
    if method == "linear":
        return run[i].count + t * secant
    slopes = height_slope(run, i), height_slope(run, i + 1)
    return run[i].count + cubic(t, inverse(run[i + 1].mz - run[i].mz), secant, *slopes)


def height_secant(run, i):
    return (run[i + 1].count - run[i].count) * inverse(run[i + 1].mz - run[i].mz)


def height_slope(run, i):
    """Return the derivative of SciPy's PchipInterpolator at point i of a run."""
    if len(run) == 2:
        return height_secant(run, 0)
    if i == 0:
        return end_slope(run, (0, 1, 2), (0, 1))
    if i == len(run) - 1:
        return end_slope(run, (i, i - 1, i - 2), (i - 1, i - 2))
    d0, d1 = height_secant(run, i - 1), height_secant(run, i)
    if not ((d0 > 0 and d1 > 0) or (d0 < 0 and d1 < 0)):
        return 0.0
    h0, h1 = run[i].mz - run[i - 1].mz, run[i + 1].mz - run[i].mz
    w1, w2 = 2 * h1 + h0, h1 + 2 * h0
    return (w1 + w2) / (w1 / d0 + w2 / d1)


def end_slope(run, places, secants):
    """Return the three-point derivative at an end, bent back where it would overshoot."""
    h0 = abs(run[places[1]].mz - run[places[0]].mz)
    h1 = abs(run[places[2]].mz - run[places[1]].mz)
    d0, d1 = height_secant(run, secants[0]), height_secant(run, secants[1])
    slope = ((2 * h0 + h1) * d0 - h0 * d1) / (h0 + h1)
    if np.sign(slope) != np.sign(d0):
        return 0.0
    if np.sign(d0) != np.sign(d1) and abs(slope) > 3 * abs(d0):
        return 3 * d0
    return slope
