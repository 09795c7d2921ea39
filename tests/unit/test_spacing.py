import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import PlanError
from gpuconvert.spacing import SpacingModel, fit_spacing


def test_the_step_is_the_polynomial_between_its_bounds():
    model = SpacingModel(0.5, 0.01, 1e-4, low=100.0, high=200.0)
    # 0.5 + 0.01 * 150 + 1e-4 * 150^2
    assert model.step(np.array([150.0])) == pytest.approx([4.25], rel=1e-14)


def test_the_step_is_held_constant_outside_its_bounds():
    model = SpacingModel(0.0, 0.001, 0.0, low=100.0, high=200.0)
    assert model.step(np.array([1.0, 100.0, 200.0, 9e5])) == pytest.approx([0.1, 0.1, 0.2, 0.2])


@pytest.mark.parametrize("high", [1500.0, float("inf")])
def test_a_model_survives_json_exactly(high):
    model = SpacingModel(0.1 + 0.2, -1e-7, 3e-11, 0.04, 50.0, high)
    assert SpacingModel.from_json(json.loads(json.dumps(model.to_json()))) == model


def test_an_infinite_bound_is_null_in_json():
    assert SpacingModel(0.1).to_json()["high"] is None


@pytest.mark.parametrize("name", ["b0", "b1", "b2", "tolerance", "low", "high"])
def test_a_missing_entry_is_named(name):
    value = SpacingModel(0.1).to_json()
    del value[name]
    with pytest.raises(PlanError, match=rf"spacing model has no entry '{name}'; plan again"):
        SpacingModel.from_json(value)


def test_an_entry_that_is_no_number_is_refused():
    with pytest.raises(PlanError, match="spacing model cannot be used: could not convert"):
        SpacingModel.from_json(SpacingModel(0.1).to_json() | {"b1": "much"})


@given(
    b0=st.floats(0.001, 1), b1=st.floats(0, 1e-3), b2=st.floats(0, 1e-6),
    low=st.floats(10, 400), span=st.floats(100, 5000),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_steps_of_the_model_itself_are_found_again(b0, b1, b2, low, span):
    mz = np.linspace(low, low + span, 30)
    step = b0 + b1 * mz + b2 * mz**2
    model = fit_spacing(mz, step)
    assert model.step(mz) == pytest.approx(step, rel=1e-7)
    assert model.tolerance == 0.01
    assert (model.low, model.high) == (mz[0], mz[-1])


def test_one_step_makes_a_constant_model():
    model = fit_spacing(np.array([400.0]), np.array([0.02]))
    assert (model.b1, model.b2) == (0.0, 0.0)
    assert model.step(np.array([10.0, 400.0, 5000.0])) == pytest.approx([0.02] * 3, rel=1e-12)


def test_steps_at_one_mz_make_a_constant_model():
    # The best constant in relative terms: sum(1/s) / sum(1/s^2).
    step = np.array([0.02, 0.04])
    best = (1 / step).sum() / (1 / step**2).sum()
    assert fit_spacing(np.array([400.0, 400.0]), step).b0 == pytest.approx(best, rel=1e-12)


def test_the_tolerance_is_the_largest_relative_error():
    mz = np.geomspace(100, 1000, 48)
    step = 1e-5 * mz**1.5
    # Computed apart by numpy.polynomial over the same points, weighted by 1 / step.
    powers = np.polynomial.polynomial.polyfit(mz, step, 2, w=1 / step)
    error = np.abs(np.polynomial.polynomial.polyval(mz, powers) / step - 1).max()
    assert 0.02 < error < 0.05
    assert fit_spacing(mz, step).tolerance == pytest.approx(error, rel=1e-6)


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(1e-6, 100)), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_a_fitted_step_is_positive_everywhere(pairs):
    mz, step = (np.array(column) for column in zip(*pairs, strict=True))
    model = fit_spacing(mz, step)
    assert (model.step(np.linspace(0.0, 2e5, 5000)) > 0).all()
    assert (model.step(np.linspace(mz.min(), mz.max(), 5000)) > 0).all()
    assert 0.01 <= model.tolerance <= 0.3


def test_m_z_zero_can_be_fitted():
    assert fit_spacing(np.array([0.0]), np.array([0.5])).step(np.array([3.0])) == pytest.approx(
        [0.5]
    )


def test_a_narrow_dip_between_the_ends_is_seen():
    # The fitted parabola falls below 0 over less than a 257th of the range.
    mz = np.array([1627.91625, 4.92566159, 77.5566363, 1.61987394, 64.8868896, 15.7284576])
    step = np.array(
        [11.9049127, 0.0693999289, 1.36784146, 0.0742794332, 2.81178690e-5, 0.0110167539]
    )
    model = fit_spacing(mz, step)
    assert (model.step(np.linspace(mz.min(), mz.max(), 5000)) > 0).all()
