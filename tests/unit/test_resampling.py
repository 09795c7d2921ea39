"""Options of resampling: their JSON, what adaptive stands for, the bound on non-zeros."""

import json

import numpy as np
import pytest

from gpuconvert.errors import PlanError
from gpuconvert.mass_axis import of_centres
from gpuconvert.resampling import (
    ResampleOptions,
    adaptive_method,
    bins_per_step,
    most_nonzeros,
)
from gpuconvert.spacing import SpacingModel
from tests.reference import resample_spectrum
from tests.strategies import make_axis


def test_options_come_back_from_their_json():
    options = ResampleOptions(
        "linear", "height", 0.1, 2.5, SpacingModel(0.1, 1e-4, 1e-7, 0.02, 150.0, 900.0)
    )
    assert ResampleOptions.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_an_unbounded_spacing_is_plain_json():
    text = json.dumps(ResampleOptions("pchip").to_json(), allow_nan=False)
    assert ResampleOptions.from_json(json.loads(text)) == ResampleOptions("pchip")


def test_a_spacing_without_a_coefficient_is_refused():
    value = ResampleOptions("pchip").to_json()
    del value["spacing"]["b1"]
    with pytest.raises(PlanError, match="spacing model has no .*'b1'"):
        ResampleOptions.from_json(value)


@pytest.mark.parametrize(
    ("profile", "step", "expected"),
    [(False, 0.1, "nearest"), (True, 0.1, "pchip"), (True, 0.024, "linear"), (True, 1.0, "pchip")],
)
def test_adaptive_goes_by_representation_and_sampling(profile, step, expected):
    axis = make_axis("constant", 300)  # bins of 0.1 Th
    assert adaptive_method(profile, axis, SpacingModel(step)) == expected


def test_profiles_on_their_own_mz_go_to_their_bins():
    axis = of_centres(np.arange(100.0, 110.0), "source")
    assert adaptive_method(True, axis, SpacingModel(1.0)) == "nearest"


def test_bins_per_step_is_the_largest_anywhere():
    # Bins of 1 Th and, around the one centre at 105.01, of 0.5 Th and less.
    axis = of_centres(np.array([103.0, 104.0, 105.0, 105.01, 106.0, 107.0]))
    assert bins_per_step(axis, SpacingModel(2.0)) == pytest.approx(2.0 / 0.5)


@pytest.mark.parametrize("law", ["constant", "fticr", "reflector-tof"])
@pytest.mark.parametrize("step", [0.001, 0.09, 0.5, 4.0])
def test_single_peaks_stay_within_the_bound(law, step):
    axis = make_axis(law, 300)
    options = ResampleOptions("linear", spacing=SpacingModel(step))
    for mz in np.linspace(101.0, 129.0, 57):
        points = [mz - 1.4 * step, mz, mz + 1.4 * step]
        bins = resample_spectrum(points, [1.0, 1.0, 1.0], axis, options, "<f8")[0]
        assert len(bins) <= most_nonzeros(axis, options, 3)


def test_the_bound_is_near_for_data_on_its_own_grid():
    axis = make_axis("constant", 300)
    options = ResampleOptions("pchip", spacing=SpacingModel(0.1))
    assert most_nonzeros(axis, options, 10) <= 40
    assert most_nonzeros(axis, options, 10**6) == 300


def test_nearest_fills_no_more_bins_than_there_are_points():
    assert most_nonzeros(make_axis("constant", 300), ResampleOptions("nearest"), 10) == 10


def test_without_gaps_a_point_may_reach_every_bin():
    options = ResampleOptions("pchip", gap=float("inf"))
    assert most_nonzeros(make_axis("constant", 300), options, 2) == 300
