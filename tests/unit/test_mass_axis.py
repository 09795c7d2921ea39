import base64
import hashlib
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import PlanError, SettingsError
from gpuconvert.mass_axis import (
    LAWS,
    MZ_FLOOR,
    TIMS_TOF_TERMS,
    MassAxis,
    coarsen,
    of_centres,
    of_law,
    read_axis,
)

A, B = TIMS_TOF_TERMS
CLOSED_FORMS = {
    "constant": lambda m: m,
    "linear-tof": lambda m: math.sqrt(m),
    "reflector-tof": lambda m: math.log(m),
    "tof": lambda m: 2 / math.sqrt(B) * math.asinh(math.sqrt(B * m / A)),
    "orbitrap": lambda m: -(m**-0.5),
    "fticr": lambda m: -1 / m,
}
WIDTHS = {
    "constant": lambda m: 1.0,
    "linear-tof": lambda m: m**0.5,
    "reflector-tof": lambda m: m,
    "tof": lambda m: math.sqrt(A * m + B * m * m),
    "orbitrap": lambda m: m**1.5,
    "fticr": lambda m: m**2,
}
EVERY_LAW = pytest.mark.parametrize("law", list(LAWS))
MZ = st.floats(1.0, 1e5)


def terms(law):
    return TIMS_TOF_TERMS if law == "tof" else (1.0, 1.0)


def covering(law, low, high, n_bins):
    u = CLOSED_FORMS[law]
    a, b = terms(law)
    return of_law(law, low, high, du=(u(high) - u(low)) / n_bins, a=a, b=b)


# The laws


def test_every_law_has_a_closed_form_here():
    assert list(LAWS) == list(CLOSED_FORMS)


def test_codes_of_laws_never_change():
    # Kernels and saved files know them by number.
    assert {name: law.code for name, law in LAWS.items()} == {
        "constant": 1, "linear-tof": 2, "reflector-tof": 3, "tof": 4, "orbitrap": 5, "fticr": 6,
    }  # fmt: skip


@EVERY_LAW
@given(mz=MZ)
@settings(max_examples=60, deadline=None)
def test_the_coordinate_is_the_closed_form(law, mz):
    found = LAWS[law].forward(np.array([mz]), *terms(law))[0]
    assert found == pytest.approx(CLOSED_FORMS[law](mz), rel=1e-12)


@EVERY_LAW
@given(mz=MZ)
@settings(max_examples=60, deadline=None)
def test_the_inverse_undoes_the_coordinate(law, mz):
    u = LAWS[law].forward(np.array([mz]), *terms(law))
    assert LAWS[law].inverse(u, *terms(law))[0] == pytest.approx(mz, rel=1e-12)


@EVERY_LAW
@given(mz=MZ)
@settings(max_examples=60, deadline=None)
def test_the_slope_is_the_difference_quotient(law, mz):
    h = 1e-4 * mz
    quotient = (CLOSED_FORMS[law](mz + h) - CLOSED_FORMS[law](mz - h)) / (2 * h)
    # Central differences over 1e-4 of m/z: error of third order, below 1e-7 here.
    assert LAWS[law].slope(np.array([mz]), *terms(law))[0] == pytest.approx(quotient, rel=1e-6)


@EVERY_LAW
def test_bins_grow_with_mz_as_the_law_says(law):
    axis = covering(law, 100.0, 1000.0, 200_000)
    ratio = axis.width_at(800.0) / axis.width_at(200.0)
    assert ratio == pytest.approx(WIDTHS[law](800.0) / WIDTHS[law](200.0), rel=1e-4)


def test_only_laws_of_correctly_rounded_operations_are_exact():
    assert [law for law in LAWS if LAWS[law].exact] == [
        "constant", "linear-tof", "orbitrap", "fticr",
    ]  # fmt: skip


# Axes of a law


@EVERY_LAW
@given(low=st.floats(10, 500), factor=st.floats(1.1, 20), n_bins=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_bins_that_divide_the_range_cover_it_exactly(law, low, factor, n_bins):
    high = low * factor
    axis = covering(law, low, high, n_bins)
    assert axis.n_bins == n_bins
    assert axis.low == pytest.approx(low, rel=1e-9)
    assert axis.high == pytest.approx(high, rel=1e-9)
    assert (np.diff(axis.edges) > 0).all()
    assert len(axis.edges) == n_bins + 1


@EVERY_LAW
@given(low=st.floats(10, 500), factor=st.floats(1, 20), du=st.floats(1e-6, 10))
@settings(max_examples=80, deadline=None)
def test_any_width_covers_the_range_with_ascending_edges(law, low, factor, du):
    high = low * factor
    u, (a, b) = CLOSED_FORMS[law], terms(law)
    if (u(high) - u(low)) / du > 1e5:
        return
    axis = of_law(law, low, high, du=du, a=a, b=b)
    assert (np.diff(axis.edges) > 0).all()
    assert axis.low <= low * (1 + 1e-9)
    assert axis.high >= high * (1 - 1e-9)


def test_a_wide_last_bin_does_not_pass_the_end_of_frequency():
    # u goes from -0.01 to -0.001; the second bin of 0.008 would end at +0.006, which is no m/z.
    # It ends half way between -0.001 and 0 instead.
    axis = of_law("fticr", 100.0, 1000.0, du=0.008)
    assert axis.n_bins == 2
    assert axis.edges[[0, -1]] == pytest.approx([100.0, 2000.0], rel=1e-9)


def test_one_mz_makes_one_bin():
    for law in LAWS:
        a, b = terms(law)
        axis = of_law(law, 500.0, 500.0, du=1e-3, a=a, b=b)
        assert axis.n_bins == 1
        assert axis.low <= 500.0 * (1 + 1e-12) < axis.high


@EVERY_LAW
@given(
    low=st.floats(50, 500), n_bins=st.integers(20, 5000), shift=st.floats(-3, 3),
    factor=st.floats(1.5, 10),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_an_anchor_lies_on_a_bin_centre(law, low, n_bins, shift, factor):
    u, (a, b) = CLOSED_FORMS[law], terms(law)
    high = low * factor
    du = (u(high) - u(low)) / n_bins
    anchor = u(low) + (5 + shift) * du
    axis = of_law(law, low, high, du=du, anchor=anchor, a=a, b=b)
    place = (anchor - axis.u0) / axis.du - 0.5
    # Positions are differences of numbers some 1e4 bins in size.
    assert place == pytest.approx(round(place), abs=1e-6)
    assert axis.low <= low * (1 + 1e-9)
    assert axis.high >= high * (1 - 1e-9)
    assert (np.diff(axis.edges) > 0).all()


def test_points_on_a_grid_get_a_bin_each():
    mz = 100.0 + np.arange(50) / 12
    axis = of_law("constant", mz[0], mz[-1], du=1 / 12, anchor=100.0)
    assert axis.n_bins == 50
    assert axis.centres == pytest.approx(mz, rel=1e-13)


def test_an_anchor_that_leaves_the_law_is_dropped():
    # Bins of 0.5 with a centre at sqrt(0.01) would start at a negative flight time.
    axis = of_law("linear-tof", 0.01, 4.0, du=0.5, anchor=0.1)
    assert axis.u0 == pytest.approx(0.1)
    assert axis.high >= 4.0


def test_centres_of_a_law_are_midpoints_of_edges():
    axis = of_law("orbitrap", 100.0, 1000.0, du=1e-4)
    assert axis.centres == pytest.approx((axis.edges[:-1] + axis.edges[1:]) / 2, rel=1e-15)


@EVERY_LAW
@given(mz=st.floats(100, 1000))
@settings(max_examples=60, deadline=None)
def test_the_position_names_the_bin(law, mz):
    axis = covering(law, 99.0, 1001.0, 777)
    index = math.floor(axis.position(np.array([mz]))[0])
    assert axis.edges[index] <= mz * (1 + 1e-12)
    assert mz <= axis.edges[index + 1] * (1 + 1e-12)
    assert axis.width_at(mz) == pytest.approx(axis.edges[index + 1] - axis.edges[index], rel=0.1)


@EVERY_LAW
def test_the_slope_is_that_of_the_position(law):
    axis = covering(law, 100.0, 1000.0, 5000)
    mz = np.array([150.0, 400.0, 950.0])
    step = 1e-4 * mz
    quotient = (axis.position(mz + step) - axis.position(mz - step)) / (2 * step)
    assert axis.slope(mz) == pytest.approx(quotient, rel=1e-6)


@EVERY_LAW
def test_mz_zero_has_a_position_before_the_axis(law):
    axis = covering(law, 100.0, 1000.0, 50)
    position = axis.position(np.array([0.0, MZ_FLOOR, 100.0]))
    assert np.isfinite(position).all()
    assert position[0] == position[1] < position[2]
    assert np.isfinite(axis.slope(np.array([0.0]))).all()


@pytest.mark.parametrize(
    ("low", "high", "du", "words"),
    [
        (0.0, 100.0, 1.0, "m/z range must satisfy 0 < low <= high, got 0 to 100 Th"),
        (200.0, 100.0, 1.0, "got 200 to 100 Th"),
        (1.0, math.inf, 1.0, "got 1 to inf Th"),
        (math.nan, 100.0, 1.0, "got nan to 100 Th"),
        (1.0, 100.0, 0.0, "bin width must be above 0, got 0 in u of constant"),
        (1.0, 100.0, -2.0, "bin width must be above 0, got -2 in u of constant"),
        (1.0, 100.0, math.nan, "bin width must be above 0, got nan in u of constant"),
        (1.0, 100.0, math.inf, "bin width must be above 0, got inf in u of constant"),
    ],
)
def test_ranges_and_widths_that_make_no_axis_are_refused(low, high, du, words):
    with pytest.raises(SettingsError, match=words):
        of_law("constant", low, high, du=du)


def test_an_unknown_law_is_refused_with_the_known_ones():
    with pytest.raises(
        SettingsError, match="unknown axis law 'magnetic'; available: constant, lin"
    ):
        of_law("magnetic", 1.0, 2.0, du=0.1)


def test_an_axis_without_bins_is_refused():
    with pytest.raises(SettingsError, match="an axis needs at least 1 bin, got 0"):
        MassAxis("constant", 0, 1.0, 1.0)


def test_an_axis_without_width_is_refused():
    with pytest.raises(SettingsError, match="bin width must be above 0, got 0 in u"):
        MassAxis("constant", 5, 1.0, 0.0)


@pytest.mark.parametrize(
    ("law", "u0", "du"),
    [("fticr", -0.01, 0.004), ("orbitrap", -0.1, 0.05), ("linear-tof", -1.0, 1.0),
     ("constant", math.nan, 1.0), ("reflector-tof", 0.0, math.inf)],
)  # fmt: skip
def test_an_axis_that_leaves_its_law_is_refused(law, u0, du):
    with pytest.raises(SettingsError, match=rf"in u of {law} reach where no m/z is"):
        MassAxis(law, 3, u0, du)


def test_bins_narrower_than_rounding_are_refused():
    with pytest.raises(SettingsError, match="in u of constant are narrower than double precision"):
        of_law("constant", 500.0, 500.1, du=1e-13)


# Listed axes


def test_edges_of_listed_centres_lie_half_way():
    axis = of_centres(np.array([100.0, 102.0, 110.0]))
    assert axis.edges.tolist() == [99.0, 101.0, 106.0, 114.0]
    assert axis.centres.tolist() == [100.0, 102.0, 110.0]
    assert (axis.low, axis.high) == (99.0, 114.0)
    assert axis.width_at(103.0) == 5.0
    assert (axis.is_listed, axis.exact, axis.code) == (True, True, 0)


def test_a_single_centre_has_100_ppm_to_either_side():
    assert of_centres(np.array([500.0])).edges == pytest.approx([499.95, 500.05], abs=1e-8)


def test_a_single_centre_at_zero_has_a_bin():
    axis = of_centres(np.array([0.0]))
    assert axis.low < 0.0 < axis.high


def test_positions_on_listed_centres_are_mz():
    axis = of_centres(np.array([100.0, 102.0]))
    mz = np.array([0.0, 101.5])
    assert axis.position(mz).tolist() == [0.0, 101.5]
    assert axis.slope(mz).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("centres", "words"),
    [
        ([], r"bin centres must be a non-empty list, got shape \(0,\)"),
        ([[1.0, 2.0]], r"bin centres must be a non-empty list, got shape \(1, 2\)"),
        ([100.0, math.nan], "bin centre 1 is nan, expected m/z of at least 0"),
        ([-1.0, 100.0], "bin centre 0 is -1, expected m/z of at least 0"),
        ([1.0, math.inf], "bin centre 1 is inf, expected m/z of at least 0"),
        ([100.0, 100.0], "must ascend by more than rounding, but centre 1 is 100.0 after 100.0"),
        ([300.0, np.nextafter(300.0, 301.0)], "must ascend by more than rounding, but centre 1"),
        ([1.0, 3.0, 2.0], "must ascend by more than rounding, but centre 2 is 2.0 after 3.0"),
    ],
)
def test_centres_that_make_no_axis_are_refused(centres, words):
    with pytest.raises(SettingsError, match=words):
        of_centres(np.array(centres))


# JSON and identity

AXES = [
    of_law("constant", 100.0, 900.0, du=1 / 12, anchor=450.00001239560874),
    of_law("reflector-tof", 100.0, 1000.0, du=5e-6 / 3),
    of_law("tof", 100.0, 1000.0, du=0.01, a=A, b=B),
    of_law("fticr", 100.0, 1000.0, du=1.1e-7),
    of_centres(np.array([100.0, 100.1 + 0.2, 1e5 / 3]), "source"),
    of_centres(np.array([0.0, 7.0])),
]


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.law)
def test_an_axis_survives_json_exactly(axis):
    again = MassAxis.from_json(json.loads(json.dumps(axis.to_json())))
    assert again == axis
    assert again.law == axis.law
    assert again.edges.tobytes() == axis.edges.tobytes()
    assert again.centres.tobytes() == axis.centres.tobytes()


@pytest.mark.parametrize("axis", AXES, ids=lambda axis: axis.law)
def test_the_digest_is_that_of_the_canonical_json(axis):
    text = json.dumps(axis.to_json(), sort_keys=True, separators=(",", ":"))
    assert axis.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_listed_centres_are_little_endian_doubles_in_json():
    value = of_centres(np.array([1.0, 2.5])).to_json()
    assert base64.b64decode(value["centres_f8_base64"]).hex() == "000000000000f03f0000000000000440"


def test_axes_that_differ_in_one_bit_differ():
    axis = of_law("constant", 100.0, 200.0, du=0.1)
    other = MassAxis("constant", axis.n_bins, np.nextafter(axis.u0, 0), axis.du)
    assert axis != other
    assert len({axis, other, MassAxis.from_json(axis.to_json())}) == 2
    assert axis != "constant"


def test_the_order_of_json_keys_does_not_matter():
    value = AXES[0].to_json()
    assert MassAxis.from_json(dict(reversed(value.items()))) == AXES[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 2}, "axis has format 2, this gpuconvert reads 1"),
        ({"n_bins": "many"}, "axis cannot be used: invalid literal"),
        ({"du": 0.0}, "axis cannot be used: bin width must be above 0"),
        ({"u0": None}, "axis cannot be used: float"),
        ({"law": "file"}, "axis has no entry 'centres_f8_base64'"),
        ({"law": "file", "centres_f8_base64": "AAAA"}, "axis cannot be used: buffer size"),
        ({"law": "file", "centres_f8_base64": "%"}, "axis cannot be used"),
    ],
)
def test_json_that_is_no_axis_is_refused(change, words):
    with pytest.raises(PlanError, match=words):
        MassAxis.from_json(AXES[0].to_json() | change)


@pytest.mark.parametrize("name", ["law", "n_bins", "u0", "du"])
def test_json_without_an_entry_is_refused(name):
    value = AXES[0].to_json()
    del value[name]
    with pytest.raises(PlanError, match=f"axis has no entry '{name}', expected one as saved"):
        MassAxis.from_json(value)


# Coarsening


@EVERY_LAW
@given(n_bins=st.integers(1, 5000), most=st.integers(1, 700))
@settings(max_examples=60, deadline=None)
def test_coarse_bins_cover_the_axis_by_the_smallest_whole_factor(law, n_bins, most):
    axis = covering(law, 100.0, 1000.0, n_bins)
    coarse, factor = coarsen(axis, most)
    assert factor == math.ceil(axis.n_bins / most)
    assert coarse.n_bins == math.ceil(axis.n_bins / factor) <= most
    assert coarse.low == axis.low
    assert coarse.high >= axis.high * (1 - 1e-9)
    assert (np.diff(coarse.edges) > 0).all()


def test_coarse_edges_are_old_edges():
    axis = of_law("orbitrap", 100.0, 1000.0, du=1e-5)
    coarse, factor = coarsen(axis, 2000)
    shared = axis.edges[::factor]
    assert coarse.edges[: len(shared)] == pytest.approx(shared, rel=1e-9)


def test_an_axis_that_fits_is_kept():
    axis = of_law("constant", 100.0, 200.0, du=0.1)
    assert coarsen(axis, axis.n_bins) == (axis, 1)


def test_listed_centres_cannot_be_coarsened():
    with pytest.raises(
        SettingsError, match="the axis has 3 bins, more than --max-bins 2; name a l"
    ):
        coarsen(of_centres(np.array([1.0, 2.0, 3.0])), 2)


# Files


def test_a_saved_axis_is_read_back(tmp_path):
    path = tmp_path / "axis.json"
    path.write_text(json.dumps(AXES[2].to_json()))
    assert read_axis(path) == AXES[2]


def test_an_axis_inside_a_larger_json_is_read(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"axis": AXES[4].to_json(), "n": 3}))
    assert read_axis(path) == AXES[4]


def test_centres_in_npy_are_read(tmp_path):
    path = tmp_path / "centres.npy"
    np.save(path, np.array([100.5, 200.25], np.float32))
    axis = read_axis(path)
    assert (axis.law, axis.listed.tolist()) == ("file", [100.5, 200.25])
    assert axis.listed.dtype == np.float64


@pytest.mark.parametrize(
    "text",
    ["100.5\n200.25\n", "m/z\n100.5\n200.25", "# mine\n\n100.5 # first\n200.25\n",
     "mz,name\n100.5,a\n200.25,b\n", "mz;name\n100.5;a\n200.25;b\n", " 1.005e2\r\n+200.25\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_centres_in_text_are_the_first_column(tmp_path, text, suffix):
    path = tmp_path / f"centres.{suffix}"
    path.write_bytes(text.encode())
    assert read_axis(path).listed.tolist() == [100.5, 200.25]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "cannot be used: Expecting"),
        ("a.json", b"[1, 2]", "cannot be used: 'list' object"),
        (
            "a.json",
            b'{"format": 1, "law": "constant"}',
            "cannot be used: axis has no entry 'n_bins'",
        ),
        ("a.json", b'{"format": 9}', "cannot be used: axis has format 9"),
        ("a.json", b"\xff\xfe", "cannot be used"),
        ("a.npy", b"", "cannot be used: No data left in file"),
        ("a.npy", b"100\n200", "cannot be used"),
        ("a.txt", b"", "cannot be used: bin centres must be a non-empty list"),
        ("a.txt", b"m/z\n", "cannot be used: bin centres must be a non-empty list"),
        ("a.txt", b"100\nabc\n", "cannot be used: could not convert string to float: 'abc'"),
        ("a.txt", b"nan\n100\n", "cannot be used: bin centre 0 is nan"),
        (
            "a.csv",
            b"200,1\n100,2\n",
            "cannot be used: bin centres must ascend by more than rounding",
        ),
        ("a.mzs", b"100\n", "ends in '.mzs', expected .json, .npy, .txt or .csv"),
    ],
)
def test_files_that_hold_no_axis_are_refused(tmp_path, name, content, words):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=words) as caught:
        read_axis(path)
    assert str(path) in str(caught.value)


def test_a_table_in_npy_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 3)))
    with pytest.raises(SettingsError, match=r"must be a non-empty list, got shape \(2, 3\)"):
        read_axis(path)


def test_a_missing_file_is_refused_with_the_words_that_are_no_file(tmp_path):
    words = "is neither a file nor one of auto, source, constant, linear-tof"
    with pytest.raises(SettingsError, match=words):
        read_axis(tmp_path / "orbitrapp")


def test_more_bins_than_an_integer_holds_are_refused_in_words():
    # A damaged m/z of 1e-268 stretches the axis of a damaged file.
    words = "narrower than double precision; give wider ones, or --mz-range"
    with pytest.raises(SettingsError, match=words):
        of_law("reflector-tof", 1.2e-268, 900.0, du=9.6e-59)
