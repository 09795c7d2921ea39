import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.calibration import calibrated
from gpuconvert.errors import SourceError
from gpuconvert.readers.bruker_calibration import (
    build_calibration,
    mz_ends,
    one_over_k0,
)
from gpuconvert.readers.bruker_sql import Frames
from tests.bruker_reference import mz_of_index, mz_of_time
from tests.bruker_writer import MOBILITY, MODEL_1, MODEL_2

# The vendor's own numbers: coefficients, times of flight (ns) and the m/z that its software
# made of them, from the tables of imzy's example_tsf.d and example_tdf.d (BSD) and opentims'
# test.d (MIT). The last bits were lost when the times were stored.
VENDOR = [
    (
        {"ModelType": 1, "C0": 324.9504470420361, "C1": 152985.42549230673,
         "C2": 0.0012209816063016182, "C3": 0.0, "C4": -0.01852153340455522},
        [44754.03758573034, 63053.325911949905, 82537.00890474586, 93704.63244744975],
        [301.9981389768527, 601.9789771012182, 1033.9881098236551, 1333.968947098273],
    ),
    (
        {"ModelType": 1, "C0": 319.6425873567583, "C1": 156694.05124957245,
         "C2": -0.0008032439672888658, "C3": 0.0, "C4": 0.0},
        [62300.99985111208, 81551.59789617786, 92585.62700844966, 102434.1977149299],
        [601.9791502835252, 1033.9872990366514, 1333.969302749352, 1633.9507882883881],
    ),
    (
        {"ModelType": 2, "C0": 319.7503329247901, "C1": 154829.60678941052,
         "C2": -0.001040750146883009, "C3": 319.7503329247901, "C4": -0.001040750146883009,
         "C5": 225.951491, "C6": 1519.712539, "C7": 7, "C8": -0.0043683204947120545,
         "C9": 0.00012177064496731006, "C10": -7.730837368063309e-07,
         "C11": 1.9667556408381262e-09, "C12": -2.3445026756938558e-12,
         "C13": 1.3101290806617338e-15, "C14": -2.770441001766999e-19},
        [38605.54659793814, 53074.7786097552, 73924.76689939701, 87573.1165159928,
         99358.19966333809],
        [226.9514077649847, 430.91374525809863, 838.8385535379706, 1178.7759418771582,
         1518.7124620085676],
    ),
]  # fmt: skip
VENDOR_MOBILITY = [
    (
        {"C0": 1, "C1": 917, "C2": 219.68855633492714, "C3": 73.23690980203908,
         "C4": 33.027522935779814, "C6": 0.04573424425506575, "C7": 127.25805761386512},
        [131.18231749795487, 160.29478009291958, 187.56856083977559],
        [0.9844266702214474, 1.190994497097377, 1.3808420317680627],
    ),
    (
        {"C0": 1, "C1": 410, "C2": -251.6428847136098, "C3": -77.89604512233812,
         "C4": 29.508196721311474, "C6": 0.03543518908430665, "C7": 107.04744980011635},
        [-158.55816308630858, -199.46773116814734],
        [1.4073294478034262, 1.7479440560693635],
    ),
]  # fmt: skip

EXACT = 1e-12
"""Relative error of m/z: a few roundings of float64; the vendor's numbers show 3e-16."""

CLOCK = {"Id": 1, "DigitizerTimebase": 0.2, "DigitizerDelay": 18290.0, "T1": 25.0, "T2": 26.0,
         "dC1": 0.0, "dC2": 0.0}  # fmt: skip


def frames(n=1, calibration=1, t1=25.0, t2=26.0):
    columns = {name: np.zeros(n, np.int64) for name in Frames.__slots__}
    columns |= {
        "number": np.arange(1, n + 1),
        "calibration": np.full(n, calibration),
        "t1": np.broadcast_to(np.array(t1, float), n),
        "t2": np.broadcast_to(np.array(t2, float), n),
    }
    return Frames(**columns)


def build(rows, table=None, *, metadata=None, chord=False):
    table = frames() if table is None else table
    return build_calibration(
        "a.d", table, np.arange(len(table.number)), rows, metadata or {}, n_samples=400_000,
        chord=chord,
    )  # fmt: skip


def convert(found, index, row=0):
    model = found.models[found.model[row]]
    return calibrated(np.array(index, np.float64), model, found.factor[row])


@pytest.mark.parametrize(("row", "times", "masses"), VENDOR)
def test_the_vendors_own_masses_come_out(row, times, masses):
    row = CLOCK | row
    index = (np.array(times) - row["DigitizerDelay"]) / row["DigitizerTimebase"]
    np.testing.assert_allclose(convert(build([row]), index), masses, rtol=EXACT)
    assert [mz_of_time(time, row) for time in times] == pytest.approx(masses, rel=EXACT)


@pytest.mark.parametrize(("row", "voltages", "mobilities"), VENDOR_MOBILITY)
def test_the_vendors_own_mobilities_come_out_in_both_polarities(row, voltages, mobilities):
    slope = (row["C3"] - row["C2"]) / row["C1"]
    scan = (np.array(voltages) - row["C2"]) / slope + row["C0"] + row["C4"]
    np.testing.assert_allclose(one_over_k0(scan, row), mobilities, rtol=EXACT)


def test_mobility_falls_with_the_scan():
    assert (np.diff(one_over_k0(np.arange(410.0), MOBILITY)) < 0).all()


@given(
    model=st.sampled_from([MODEL_1, MODEL_2]), c2=st.floats(-0.01, 0.01), c3=st.floats(-1e-4, 1e-4),
    c4=st.floats(-0.1, 0.1), t1=st.floats(15, 35), t2=st.floats(15, 35), gain=st.floats(0, 60),
    index=st.floats(0, 399_999),
)  # fmt: skip
def test_any_coefficients_solve_the_equation_of_flight(model, c2, c3, c4, t1, t2, gain, index):
    row = model | {"C2": c2, "dC1": gain, "dC2": gain / 7}
    row |= {"C3": c3, "C4": c4} if model is MODEL_1 else {}
    found = build([row], frames(t1=t1, t2=t2))
    expected = mz_of_index(index, row, t1, t2)
    assert convert(found, [index])[0] == pytest.approx(expected, rel=EXACT)


def test_each_frame_has_its_own_calibration_and_temperature():
    table = frames(4, [1, 2, 1, 2], t1=[25.0, 25.0, 24.5, 26.0])
    rows = [MODEL_1, MODEL_2 | {"Id": 2}]
    found = build(rows, table)
    for frame in range(4):
        row = rows[table.calibration[frame] - 1]
        expected = [mz_of_index(k, row, table.t1[frame], 26.0) for k in (10, 5e4, 3e5)]
        np.testing.assert_allclose(convert(found, [10, 5e4, 3e5], frame), expected, rtol=EXACT)
    low, high = mz_ends(found, 400_000)
    ends = [convert(found, [0, 399_999], frame) for frame in range(4)]
    assert (low, high) == (np.min(ends), np.max(ends))


def test_coefficients_may_be_text_or_missing():
    row = {name: str(value) for name, value in MODEL_1.items()} | {"C3": None}
    np.testing.assert_array_equal(convert(build([row]), [7e4]), convert(build([MODEL_1]), [7e4]))


def test_a_frame_without_temperatures_is_said():
    found = build([MODEL_1], frames(2, t1=[np.inf, 25.0]))
    assert found.notes == (
        "1 frames do not state the temperature T1: their m/z are not corrected for it",
    )
    np.testing.assert_array_equal(found.factor, 1)


RANGE = {"MzAcqRangeLower": "100.0", "MzAcqRangeUpper": "1700.0"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ([], "the m/z calibration 1 of frame 1 is not in the table MzCalibration"),
        ([MODEL_1 | {"ModelType": 3}], "of frame 1 has ModelType 3, expected ModelType 1 or 2"),
        ([MODEL_1 | {"C1": 0}], "of frame 1 has C1 = 0 and a time base of 0.2 ns"),
        ([MODEL_1 | {"C1": "many"}], "holds something that is no number"),
        ([MODEL_2 | {"C7": 9}], "has a polynomial of 9 terms, expected at most 7"),
    ],
)
def test_an_unknown_calibration_is_refused_or_approximated_when_asked(row, words):
    with pytest.raises(SourceError, match=words):
        build(row, metadata=RANGE)
    with pytest.raises(SourceError, match="give --calibration chord to approximate it"):
        build(row, metadata=RANGE)
    with pytest.raises(SourceError, match="no acquisition range to approximate it from"):
        build(row, chord=True)
    found = build(row, metadata=RANGE, chord=True)
    assert found.approximate
    assert "m/z of 1 frames are approximate" in found.notes[0]
    ends = np.sqrt([100, 1700])
    expected = (ends[0] + (ends[1] - ends[0]) / 400_000 * np.array([0, 2e5, 4e5])) ** 2
    np.testing.assert_allclose(convert(found, [0, 2e5, 4e5]), expected, rtol=EXACT)


def test_older_software_digitises_more_than_it_says():
    metadata = RANGE | {"AcquisitionSoftware": "Bruker otofControl"}
    found = build([], metadata=metadata, chord=True)
    np.testing.assert_allclose(convert(found, [0, 400_000]), [95, 1705], rtol=EXACT)


def test_an_exact_calibration_stays_exact_where_the_chord_is_allowed():
    found = build([MODEL_1], metadata=RANGE, chord=True)
    assert not found.approximate
    np.testing.assert_array_equal(convert(found, [7e4]), convert(build([MODEL_1]), [7e4]))
