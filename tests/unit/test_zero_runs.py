"""Zero runs and null marks: the published vectors, a slow walk, and both implementations."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert import zero_runs, zero_walk
from gpuconvert.spacing import SpacingModel
from gpuconvert.zero_runs import DROPPED, KEPT, MARKED, WHOLE

WAYS = pytest.mark.parametrize("way", [zero_runs, zero_walk], ids=["numpy", "numba"])

PREDICTION = 1e-9
"""Two float64 solutions of centred normal equations: their condition is some 1e3, so their
predictions agree within 1e3 eps of the step; a hundred times that is allowed."""


def one(values):
    """Values of one spectrum, and its bounds."""
    return np.array([0, len(values)]), np.array(values, np.float64)


def slow_roles(values):
    """Strip, then mark what is left, one point at a time."""
    zero = [value == 0 for value in values]
    n = len(values)
    kept = [
        i
        for i in range(n)
        if not (zero[i] and (i == 0 or zero[i - 1]) and (i == n - 1 or zero[i + 1]))
    ]
    roles = [DROPPED] * n
    for place, i in enumerate(kept):
        beside = [kept[k] for k in (place - 1, place + 1) if 0 <= k < len(kept)]
        roles[i] = MARKED if zero[i] and any(zero[k] for k in beside) else KEPT
    return roles


COUNTS = st.sampled_from([0.0, 0.0, 0.0, -0.0, 1.0, 5.0, -1.0, 1e-45, math.nan, math.inf])


@WAYS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(spectra=st.lists(st.lists(COUNTS, max_size=12), max_size=5))
def test_roles_are_those_of_stripping_and_then_marking(way, dtype, spectra):
    indptr = np.cumsum([0, *(len(spectrum) for spectrum in spectra)])
    values = np.array([value for spectrum in spectra for value in spectrum], dtype)
    expected = [role for spectrum in spectra for role in slow_roles(np.array(spectrum, dtype))]
    assert way.zero_roles(indptr, values).tolist() == expected


@given(values=st.lists(COUNTS, max_size=30))
def test_marks_stand_in_pairs_and_never_at_an_end(values):
    roles = zero_walk.zero_roles(*one(values))
    marked = roles[roles != DROPPED] == MARKED
    runs = "".join("m" if mark else "." for mark in marked)
    assert all(len(run) == 2 for run in runs.split(".") if run)
    assert not runs.startswith("m")
    assert not runs.endswith("m")


@WAYS
def test_integer_counts_have_roles_too(way):
    values = np.array([0, 0, 3, 0, 0, 0, 4], np.int32)
    assert way.zero_roles(np.array([0, 7]), values).tolist() == [0, 1, 1, 2, 0, 2, 1]


@pytest.fixture(scope="module")
def vectors(shared_data):
    return json.loads((shared_data / "mzpeak" / "vectors.json").read_text())


@pytest.mark.real_data
@WAYS
def test_published_vectors_of_stripping_and_marking(way, vectors):
    for case in vectors["strip_and_mask"]:
        values = [math.nan if value == "nan" else value for value in case["intensity"]]
        # 1e-45 is a float32 subnormal; as such it must stay what it is.
        indptr, _ = one(values)
        roles = way.zero_roles(indptr, np.array(values, np.float32))
        kept = np.flatnonzero(roles != DROPPED)
        assert kept.tolist() == case["kept_indices"], case["name"]
        assert (roles[kept] == MARKED).tolist() == case["pair_mask_after_strip"], case["name"]


@pytest.mark.real_data
@WAYS
def test_published_vectors_of_pairing(way, vectors):
    """A mask whose pairs are no pairs is refused, also where the vectors give nonsense."""
    senseless = {"lead pair+trail pair", "run of 4 mid", "all null 2"}
    for case in vectors["find_pairs"]:
        marked = np.array(case["null_mask"], bool)
        mz = np.where(marked, np.nan, 100.0 + np.arange(len(marked)))
        models = np.array([[0.01, 0.0, 0.0]])
        _, wrong = way.fill_marks(np.array([0, len(marked)]), mz, marked, models)
        good = not isinstance(case["pairs"], str) and case["name"] not in senseless
        assert (wrong[0] == WHOLE) == good, case["name"]


@pytest.mark.real_data
@WAYS
def test_published_vectors_of_filling(way, vectors):
    refused = {"unpaired mid", "run of 3 nulls", "run of 4 nulls", "leading pair", "all null"}
    for case in vectors["fill_nulls"]:
        mz = np.array([math.nan if value is None else value for value in case["mz"]])
        model = np.resize(np.zeros(3), 3)
        given_model = case["mz_delta_model_ascending"]
        model[: len(given_model)] = given_model
        filled, wrong = way.fill_marks(np.array([0, len(mz)]), mz, np.isnan(mz), model[None])
        if case["name"] in refused:
            assert wrong[0] != WHOLE, case["name"]
            continue
        # The decoder of the vectors fails on a lone point without marks, which is a spectrum.
        expected = case["mz"] if isinstance(case["filled"], str) else case["filled"]
        assert wrong[0] == WHOLE, case["name"]
        np.testing.assert_allclose(filled, expected, rtol=1e-14, err_msg=case["name"])


@pytest.mark.real_data
@WAYS
def test_published_pipeline(way, vectors):
    """Fit on the whole profile, strip, mark and fill; the vectors' error is not exceeded."""
    (case,) = vectors["pipeline"]
    mz, intensity = np.array(case["mz"]), np.array(case["intensity"])
    indptr = np.array([0, len(mz)])
    models = way.fit_models(indptr, mz, intensity)
    used = mz[1:][(intensity[1:] > 0)]
    predicted = SpacingModel(*models[0]).step(used)
    expected = SpacingModel(*case["beta_ascending"]).step(used)
    np.testing.assert_allclose(predicted, expected, rtol=PREDICTION)
    roles = way.zero_roles(indptr, intensity)
    kept = roles != DROPPED
    assert np.flatnonzero(kept).tolist() == case["kept"]
    marked = roles[kept] == MARKED
    assert marked.tolist() == case["null_mask"]
    blank = np.where(marked, np.nan, mz[kept])
    filled, wrong = way.fill_marks(np.array([0, len(blank)]), blank, marked, models)
    assert wrong.tolist() == [WHOLE]
    np.testing.assert_allclose(filled, case["filled_mz"], rtol=1e-12)


def quadratic_profile(seed, n=400, low=200.0, first=0.004, slope=2e-5):
    """A profile whose step is a quadratic of m/z, and random counts."""
    rng = np.random.default_rng(seed)
    mz = np.empty(n)
    mz[:1] = low
    for i in range(1, n):
        mz[i] = mz[i - 1] + first + slope * (mz[i - 1] - low)
    return mz, rng.poisson(3, n).astype(np.float64)


def least_squares(mz, intensity):
    """What NumPy's singular values say of the same problem; predictions at the points used."""
    x, y = mz[1:], np.diff(mz)
    root = np.sqrt(np.log1p(intensity[1:]))
    centred = (x - x.mean()) / np.abs(x - x.mean()).max()
    powers = centred[:, None] ** np.arange(3)
    terms = np.linalg.lstsq(powers * root[:, None], y * root, rcond=None)[0]
    return powers @ terms


@WAYS
@pytest.mark.parametrize("low", [50.0, 900.0, 5000.0])
def test_models_predict_what_least_squares_does(way, low):
    mz, intensity = quadratic_profile(1, low=low)
    jitter = np.random.default_rng(2).uniform(-1e-4, 1e-4, len(mz))
    mz = mz + jitter
    models = way.fit_models(np.array([0, len(mz)]), mz, intensity)
    predicted = SpacingModel(*models[0]).step(mz[1:])
    np.testing.assert_allclose(predicted, least_squares(mz, intensity), rtol=1e-7)


def test_both_ways_predict_the_same():
    sizes = [(300, 100.0), (5, 400.0), (2, 400.0), (1, 10.0), (0, 1.0), (40, 2000.0)]
    pieces = [quadratic_profile(seed, n, low) for seed, (n, low) in enumerate(sizes)]
    indptr = np.cumsum([0, *(len(mz) for mz, _ in pieces)])
    mz, intensity = (np.concatenate([piece[k] for piece in pieces]) for k in (0, 1))
    first, second = (way.fit_models(indptr, mz, intensity) for way in (zero_runs, zero_walk))
    for spectrum in range(len(pieces)):
        own = mz[indptr[spectrum] : indptr[spectrum + 1]]
        steps = [SpacingModel(*models[spectrum]).step(own) for models in (first, second)]
        np.testing.assert_allclose(*steps, rtol=PREDICTION)


@WAYS
@pytest.mark.parametrize(
    ("mz", "intensity", "expected"),
    [
        ([], [], np.nan),
        ([100.0], [1.0], np.nan),
        ([100.0, 102.5], [1.0, 1.0], np.nan),
        ([100.0, 100.25], [1.0, 1.0], 0.25),
        ([100.0, 100.25, 100.5, 100.75], [0.0, 0.0, 0.0, 0.0], 0.25),
        ([100.0, 100.25, 100.5, 101.5], [1.0, 1.0, 1.0, np.nan], 0.25),
        # As good a line as any passes below 0 at the first point: a constant is better.
        ([100.0, 100.001, 100.002, 100.5, 101.4], [0.0, 1.0, 1e300, 1.0, 1e9], 0.001),
    ],
)
def test_without_a_quadratic_the_step_is_constant(way, mz, intensity, expected):
    (model,) = way.fit_models(np.array([0, len(mz)]), np.array(mz), np.array(intensity))
    if np.isnan(expected):
        assert np.isnan(model).all()
    else:
        np.testing.assert_allclose(model, [expected, 0, 0], rtol=1e-9)


@given(
    runs=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    ends=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 99),
)
def test_both_ways_fill_alike_and_leave_points_alone(runs, ends, seed):
    rng = np.random.default_rng(seed)
    mask = [True] * ends[0]
    for number, length in enumerate(runs):
        mask += [True, True] * (number > 0) + [False] * length
    marked = np.array(mask + [True] * ends[1])
    mz = np.where(marked, np.nan, 100 + np.cumsum(rng.uniform(0.01, 0.2, len(marked))))
    indptr, models = np.array([0, 0, len(mz)]), np.full((2, 3), [0.01, 1e-5, 0])
    (first, good), (second, fine) = (
        way.fill_marks(indptr, mz, marked, models) for way in (zero_runs, zero_walk)
    )
    assert good.tolist() == fine.tolist() == [WHOLE, WHOLE]
    assert first.tobytes() == second.tobytes()
    assert (first[~marked] == mz[~marked]).all()
    assert np.isfinite(first).all()


@WAYS
def test_a_lone_point_without_a_model_cannot_be_filled(way):
    mz = np.array([100.0, 100.1, np.nan, np.nan, 103.0])
    none = np.full((1, 3), np.nan)
    filled, wrong = way.fill_marks(np.array([0, 5]), mz, np.isnan(mz), none)
    assert wrong.tolist() == [3]
    assert np.isnan(filled[2:4]).all()
