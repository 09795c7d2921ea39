"""The scalar reference, held against SciPy, NumPy and figures worked out by hand."""

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from gpuconvert.mass_axis import LAWS, of_centres
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from tests.reference import resample_spectrum
from tests.strategies import make_axis

STEP = 0.05
ROUNDED = 1e-6
"""Relative; the reference rounds to float32, SciPy does not."""


def runs_of_points(seed, n=120, step=STEP):
    """Return runs of an unevenly sampled spectrum, far apart, as a list of (m/z, counts)."""
    random = np.random.default_rng(seed)
    runs, start = [], 101.0
    while start < 128.0:
        length = int(random.integers(1, n // 6))
        mz = start + np.cumsum(random.uniform(0.6, 1.3, length)) * step
        runs.append((mz, np.floor(random.uniform(0, 40, length)) * (random.random(length) < 0.8)))
        start = mz[-1] + random.uniform(4, 40) * step
    return runs


def joined(runs):
    return np.concatenate([mz for mz, _ in runs]), np.concatenate([count for _, count in runs])


def dense(result, n_bins):
    """Return (bins, values, ...) of the reference as one value per bin."""
    values = np.zeros(n_bins)
    values[result[0]] = result[1]
    return values


def cumulative_knots(runs, axis):
    """Return cell edges and the cumulative count there, flat between and beyond the runs."""
    at, total, so_far = [-1e6], [0.0], 0.0
    for mz, counts in runs:
        p = axis.position(mz)
        half = 0.5 * STEP * axis.slope(mz)
        edges = [p[0] - half[0], *(0.5 * (p[1:] + p[:-1])), p[-1] + half[-1]]
        at += edges
        total += (so_far + np.concatenate([[0.0], np.cumsum(counts)])).tolist()
        so_far += counts.sum()
    return np.array([*at, 1e6]), np.array([*total, so_far])


@pytest.mark.parametrize("law", [*LAWS, "listed"])
@pytest.mark.parametrize("n_bins", [13, 900])
def test_pchip_counts_are_differences_of_scipys_cumulative(law, n_bins):
    axis = make_axis("constant" if law == "listed" else law, n_bins)
    if law == "listed":
        axis = of_centres(axis.centres + 0.01 * np.sin(np.arange(axis.n_bins)) * 30 / n_bins)
    edges = axis.edges if law == "listed" else np.arange(axis.n_bins + 1.0)
    options = ResampleOptions("pchip", spacing=SpacingModel(STEP, tolerance=0.0))
    for seed in range(5):
        runs = runs_of_points(seed)
        expected = np.diff(PchipInterpolator(*cumulative_knots(runs, axis))(edges))
        found = resample_spectrum(*joined(runs), axis, options, "<f8")
        np.testing.assert_allclose(dense(found, axis.n_bins), expected, rtol=ROUNDED, atol=1e-8)


@pytest.mark.parametrize("law", list(LAWS))
def test_linear_counts_are_differences_of_numpys_cumulative(law):
    axis = make_axis(law, 300)
    options = ResampleOptions("linear", spacing=SpacingModel(STEP, tolerance=0.0))
    for seed in range(5):
        runs = runs_of_points(seed)
        expected = np.diff(np.interp(np.arange(axis.n_bins + 1.0), *cumulative_knots(runs, axis)))
        found = resample_spectrum(*joined(runs), axis, options, "<f8")
        np.testing.assert_allclose(dense(found, axis.n_bins), expected, rtol=ROUNDED, atol=1e-8)


def scipy_heights(runs, centres, method):
    values = np.zeros(len(centres))
    for mz, heights in runs:
        inside = (centres >= mz[0]) & (centres <= mz[-1])
        if len(mz) == 1 or method == "linear":
            values[inside] = np.interp(centres[inside], mz, heights)
        else:
            values[inside] = PchipInterpolator(mz, heights)(centres[inside])
    return values


@pytest.mark.parametrize("method", ["pchip", "linear"])
@pytest.mark.parametrize("law", ["constant", "orbitrap"])
def test_heights_are_those_of_scipy_and_numpy(law, method):
    axis = make_axis(law, 1500)
    options = ResampleOptions(method, "height", spacing=SpacingModel(STEP))
    for seed in range(5):
        runs = runs_of_points(seed)
        found = resample_spectrum(*joined(runs), axis, options, "<f8")
        expected = scipy_heights(runs, axis.centres, method)
        np.testing.assert_allclose(dense(found, axis.n_bins), expected, rtol=ROUNDED, atol=1e-9)
        assert found[3] == 0


def test_a_lone_point_is_its_height_at_its_own_mz_only():
    axis = of_centres(np.array([100.0, 100.5, 101.0]))
    options = ResampleOptions("pchip", "height", spacing=SpacingModel(0.1))
    assert resample_spectrum([100.5], [7.0], axis, options, "<f8") == ([1], [7.0], 7.0, 0.0)
    assert resample_spectrum([100.6], [7.0], axis, options, "<f8") == ([], [], 7.0, 0.0)


@pytest.mark.parametrize("law", list(LAWS))
def test_nearest_is_the_smallest_distance_to_a_centre(law):
    axis = make_axis(law, 50)
    random = np.random.default_rng(3)
    mz = np.sort(random.uniform(99.0, 131.0, 400))
    counts = random.integers(1, 9, 400).astype(np.float64)
    inside = (mz >= axis.low) & (mz <= axis.high)
    place = np.abs(axis.centres[None] - mz[inside, None]).argmin(axis=1)
    expected = np.bincount(place, counts[inside], axis.n_bins)
    found = resample_spectrum(mz, counts, axis, ResampleOptions("nearest"), "<f8")
    assert dense(found, axis.n_bins).tolist() == expected.tolist()
    assert found[2:] == (counts.sum(), counts[~inside].sum())


def test_a_tie_goes_to_the_right_bin():
    axis = of_centres(np.array([100.0, 101.0, 102.0]))
    found = resample_spectrum([100.5, 101.5], [1.0, 2.0], axis, ResampleOptions("nearest"), "<f8")
    assert found == ([1, 2], [1.0, 2.0], 3.0, 0.0)


UNIT = make_axis("constant", 10, 100.0, 110.0)
"""Ten bins one Th wide, from m/z 100."""


def by_hand(mz, counts, *, step=0.5, method="linear", dtype="<f8", tolerance=0.0, gap=1.5):
    options = ResampleOptions(method, gap=gap, spacing=SpacingModel(step, tolerance=tolerance))
    return resample_spectrum(mz, counts, UNIT, options, dtype)


def test_a_cell_ends_half_a_step_from_the_end_of_a_run():
    # The cell of the one point is 102.75 to 103.25.
    assert by_hand([103.0], [8.0])[:2] == ([2, 3], [4.0, 4.0])


def test_a_cell_ends_half_way_to_the_point_across_a_gap():
    # Half a step is 0.5, the midpoint between the points lies 0.4 from either.
    found = by_hand([103.1, 103.9], [8.0, 0.0], step=1.0, gap=0.1)
    # From 102.6 to 103.5: 0.4 of 0.9 below 103.
    np.testing.assert_allclose(found[1], [8 * 0.4 / 0.9, 8 * 0.5 / 0.9], rtol=ROUNDED)


def test_a_step_that_cannot_be_told_from_a_bin_is_one():
    assert by_hand([103.5], [8.0], step=1.04, tolerance=0.05)[:2] == ([3], [8.0])
    assert by_hand([103.5], [8.0], step=1.04, tolerance=0.03)[0] == [2, 3, 4]


def test_an_edge_within_the_precision_of_its_mz_snaps():
    points = [102.5 + 3e-5, 103.5 + 3e-5]
    # 3e-5 is less than the 4.9e-5 that float32 leaves open, and more than 1e-6 bins.
    assert by_hand(points, [0.0, 8.0], step=1.0, dtype="<f4")[0] == [3]
    assert by_hand(points, [0.0, 8.0], step=1.0)[0] == [3, 4]


def test_points_at_one_mz_add_up():
    assert by_hand([103.0, 103.0], [3.0, 5.0]) == by_hand([103.0], [8.0])


def test_what_lies_beyond_the_axis_is_outside():
    # 99.75 to 100.25 and 109.75 to 110.25: half of each is outside.
    assert by_hand([100.0, 110.0], [8.0, 4.0]) == ([0, 9], [4.0, 2.0], 12.0, 6.0)


def test_a_point_of_no_width_at_the_upper_end_belongs_to_the_last_bin():
    assert by_hand([110.0], [8.0], step=0.0) == ([9], [8.0], 8.0, 0.0)


def test_values_at_the_threshold_are_dropped():
    options = ResampleOptions("nearest", threshold=2.0)
    found = resample_spectrum([101.5, 103.5], [2.0, 2.5], UNIT, options, "<f8")
    assert found == ([3], [2.5], 4.5, 0.0)
