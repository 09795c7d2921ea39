"""Quality figures against counts and distances worked out by hand, and by slow loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import StoreError
from gpuconvert.quality import PeakFigures, Quality, measure, peak_figures, tic_figures
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import RaggedSpectra

EDGES = np.arange(100.0, 111.0)
CENTRES = EDGES[:-1] + 0.5
"""Ten bins of 1 Th."""


def ragged(*spectra):
    """Return spectra given as (m/z, intensities)."""
    indptr = np.cumsum([0, *(len(mz) for mz, _ in spectra)])
    mz = np.concatenate([np.asarray(mz, float) for mz, _ in spectra])
    return RaggedSpectra(
        indptr, mz, np.concatenate([np.asarray(values, float) for _, values in spectra])
    )


def result(*rows):
    """Return rows given as {bin: value} as pointers, bins and values."""
    indptr = np.cumsum([0, *(len(row) for row in rows)])
    indices = np.array([place for row in rows for place in row], np.int32)
    return indptr, indices, np.array([value for row in rows for value in row.values()], np.float32)


def figures(source, rows, *, profile, centres=CENTRES, edges=EDGES, **gaps):
    return peak_figures(source, *rows, centres=centres, edges=edges, profile=profile, **gaps)


def test_tic_figures_are_those_worked_out_by_hand():
    # Inside are 80, 100 and 50 counts; stored are 10 % too many, all, and 20 % too few.
    largest, median, outside = tic_figures(
        np.array([88.0, 100.0, 40.0]), np.array([100.0, 100.0, 50.0]), np.array([20.0, 0.0, 0.0])
    )
    assert largest == pytest.approx(0.2)
    assert median == pytest.approx(0.1)
    assert outside == pytest.approx(20 / 250)


def test_pixels_without_counts_inside_are_left_out():
    # The last one's inside is what rounding left of it.
    source = np.array([0.0, 7.0, 10.0, 1e9])
    outside = np.array([0.0, 7.0, 0.0, 1e9 * (1 - 2e-16)])
    stored = np.array([0.0, 0.0, 9.0, 0.0])
    largest, median, _ = tic_figures(stored, source, outside)
    assert (largest, median) == (pytest.approx(0.1), pytest.approx(0.1))


def test_no_counts_at_all_give_no_error():
    nothing = np.zeros(3)
    assert tic_figures(nothing, nothing, nothing) == (0.0, 0.0, 0.0)
    assert tic_figures(np.zeros(0), np.zeros(0), np.zeros(0)) == (0.0, 0.0, 0.0)


def test_profile_peaks_are_points_above_both_neighbours():
    # Maxima at 101.4 and 104.5; 0.5 is a maximum too, but below 1 % of 100.
    source = ragged(
        ([101.2, 101.4, 101.6, 104.3, 104.5, 104.7, 107.3, 107.5, 107.7],
         [10, 100, 10, 5, 50, 5, 0, 0.5, 0])
    )  # fmt: skip
    found = figures(source, result({1: 120.0, 4: 60.0}), profile=True)
    assert found.n_peaks == 2
    assert found.kept == 1.0
    # Bin centres are 101.5 and 104.5: apices moved by 0.1 Th and not at all.
    shifts = sorted([0.1 / 101.4 * 1e6, 0.0])
    assert found.shift_ppm_median == pytest.approx(np.median(shifts))
    assert found.shift_ppm_p95 == pytest.approx(np.percentile(shifts, 95))


def test_a_plateau_counts_once_and_lies_at_its_middle():
    source = ragged(([102.0, 102.2, 102.4, 102.6], [1, 9, 9, 1]))
    found = figures(source, result({2: 20.0}), profile=True)
    assert found.n_peaks == 1
    assert found.shift_ppm_median == pytest.approx((102.5 - 102.3) / 102.3 * 1e6)


def test_a_step_is_no_peak():
    source = ragged(([102.0, 102.2, 102.4, 102.6, 102.8], [1, 5, 5, 9, 1]))
    assert figures(source, result({2: 21.0}), profile=True).n_peaks == 1


def test_ends_of_a_profile_may_be_peaks():
    source = ragged(([102.5, 103.5, 104.5], [9, 1, 8]))
    assert figures(source, result({2: 9.0, 3: 1.0, 4: 8.0}), profile=True).n_peaks == 2


def test_what_lies_in_a_gap_is_zero():
    # Zeros between 103.5 and 107.5 were not stored: two peaks of equal height, no plateau.
    source = ragged(([102.5, 103.5, 107.5, 108.5], [1, 8, 8, 1]))
    rows = result({2: 1.0, 3: 8.0, 7: 8.0, 8: 1.0})
    found = figures(source, rows, profile=True, spacing=SpacingModel(1.0), gap=1.5)
    assert found == PeakFigures(2, 1.0, 0.0, 0.0)
    # Four of the steps are no gap if neighbours may be so far apart.
    joined = figures(source, rows, profile=True, spacing=SpacingModel(1.0), gap=4.0)
    assert (joined.n_peaks, joined.kept) == (1, 0.0)


def test_profile_neighbours_are_of_the_same_spectrum():
    # 5 ends one spectrum and 6 begins the next: both are maxima of their own.
    source = ragged(([103.5, 104.5], [1, 5]), ([102.5, 103.5], [6, 1]))
    rows = result({3: 1.0, 4: 5.0}, {2: 6.0, 3: 1.0})
    assert figures(source, rows, profile=True) == PeakFigures(2, 1.0, 0.0, 0.0)


def test_every_centroid_is_a_peak_above_one_per_cent():
    source = ragged(([101.5, 102.5, 105.5, 108.5], [100, 50, 1.01, 1.0]))
    found = figures(source, result({1: 100.0, 2: 50.0, 5: 1.01, 8: 1.0}), profile=False)
    assert found == PeakFigures(3, 1.0, 0.0, 0.0)


def test_a_peak_two_bins_away_is_lost():
    source = ragged(([101.5, 106.5], [10, 10]))
    found = figures(source, result({1: 10.0, 8: 10.0}), profile=False)
    assert found.n_peaks == 2
    assert found.kept == 0.5
    assert found.shift_ppm_p95 == 0.0


def test_a_peak_of_another_spectrum_does_not_count():
    source = ragged(([101.5], [10]), ([106.5], [10]))
    assert figures(source, result({6: 10.0}, {1: 10.0}), profile=False).kept == 0.0


def test_five_ppm_are_near_on_narrow_bins():
    edges = 1000 + np.arange(0, 0.1, 0.0005)
    centres = 0.5 * (edges[1:] + edges[:-1])
    source = ragged(([centres[50]], [10]))
    near = figures(source, result({59: 10.0}), profile=False, centres=centres, edges=edges)
    far = figures(source, result({61: 10.0}), profile=False, centres=centres, edges=edges)
    assert (near.kept, far.kept) == (1.0, 0.0)
    assert near.shift_ppm_median == pytest.approx(4.5, rel=1e-3)


def test_absent_bins_are_zero():
    # Beside an absent bin 104.5 is a maximum; on the flank of 103.5 it is none.
    source = ragged(([101.5, 102.5, 103.5, 104.5, 105.5], [0, 10, 0, 8, 0]))
    assert figures(source, result({2: 10.0, 4: 8.0}), profile=True).kept == 1.0
    assert figures(source, result({2: 10.0, 3: 9.0, 4: 8.0}), profile=True).kept == 0.5


def test_equal_bins_are_one_peak_at_their_middle():
    source = ragged(([102.8, 103.0, 103.2], [1, 10, 1]))
    assert figures(source, result({2: 5.0, 3: 5.0}), profile=True).shift_ppm_p95 == 0.0


def test_features_that_follow_each_other_in_a_list_are_all_kept():
    # As on an axis of the source's own: bins 0 to 3 are tens of Th apart, yet neighbours.
    centres = np.array([100.0, 130.0, 170.0, 172.0])
    edges = np.array([85.0, 115.0, 150.0, 171.0, 173.0])
    source = ragged((centres, [5, 9, 7, 8]))
    rows = result({0: 5.0, 1: 9.0, 2: 7.0, 3: 8.0})
    found = figures(source, rows, profile=False, centres=centres, edges=edges)
    assert found == PeakFigures(4, 1.0, 0.0, 0.0)


def test_peaks_outside_the_axis_are_left_out():
    source = ragged(([99.0, 101.5, 110.5], [10, 10, 10]))
    assert figures(source, result({1: 10.0}), profile=False) == PeakFigures(1, 1.0, 0.0, 0.0)


def test_a_point_at_mz_zero_has_no_shift_in_ppm():
    edges = np.array([-0.5, 0.5, 1.5])
    source = ragged(([0.0, 1.0], [10, 10]))
    found = figures(
        source, result({0: 10.0, 1: 9.0}), profile=False, centres=np.array([0.0, 1.0]), edges=edges
    )
    assert found.n_peaks == 1


@pytest.mark.parametrize("profile", [True, False])
def test_no_spectra_and_empty_spectra_have_no_peaks(profile):
    none = PeakFigures(0, 1.0, 0.0, 0.0)
    empty = RaggedSpectra(np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    assert figures(empty, result(), profile=profile) == none
    assert figures(ragged(([], []), ([], [])), result({}, {}), profile=profile) == none
    zeros = ragged(([101.5, 102.5], [0, 0]))
    assert figures(zeros, result({}), profile=profile) == none


@pytest.mark.parametrize("profile", [True, False])
def test_peaks_of_an_empty_result_are_all_lost(profile):
    source = ragged(([101.5], [3]), ([], []), ([104.5], [3]))
    found = figures(source, result({}, {}, {}), profile=profile)
    assert found == PeakFigures(2, 0.0, 0.0, 0.0)


ROWS = st.lists(
    st.dictionaries(st.integers(0, 9), st.integers(1, 6), max_size=10), min_size=1, max_size=5
)


@given(rows=ROWS)
@settings(max_examples=80, deadline=None)
def test_the_identity_keeps_all_profile_peaks_in_place(rows):
    full = [np.array([row.get(place, 0) for place in range(10)]) for row in rows]
    source = ragged(*((CENTRES, values) for values in full))
    found = figures(source, result(*(dict(sorted(row.items())) for row in rows)), profile=True)
    assert (found.kept, found.shift_ppm_median, found.shift_ppm_p95) == (1.0, 0.0, 0.0)
    assert found.n_peaks == sum(_count_maxima(values) for values in full)


def _count_maxima(values):
    """Walk uphill and down again: a maximum is where a rise is followed by a fall."""
    count, rising = 0, False
    for before, after in zip([0, *values], [*values, 0], strict=True):
        if after > before:
            rising = True
        elif after < before:
            count += rising
            rising = False
    return count


@given(
    rows=ROWS, seed=st.integers(0, 2**32 - 1), profile=st.booleans(),
    gap=st.sampled_from([0.5, 2.0, 50.0]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_kept_peaks_are_those_a_loop_finds(rows, seed, profile, gap):
    rng = np.random.default_rng(seed)
    spectra = [
        (np.sort(rng.uniform(99, 111, n)), rng.permutation(np.arange(1, 200))[:n])
        for n in rng.integers(0, 6, len(rows))
    ]
    ordered = [dict(sorted(row.items())) for row in rows]
    gaps = {"spacing": SpacingModel(1.0), "gap": gap}
    found = figures(ragged(*spectra), result(*ordered), profile=profile, **gaps)
    n_peaks, shifts = 0, []
    for (mz, values), row in zip(spectra, ordered, strict=True):
        tops = _tops(row) if profile else [CENTRES[place] for place in row]
        for at, (m, value) in enumerate(zip(mz, values, strict=True)):
            beside = [place for place in (at - 1, at + 1) if 0 <= place < len(values)]
            around = [values[place] for place in beside if abs(mz[place] - m) <= gap]
            top = not profile or all(value > other for other in around)
            if top and value > 0.01 * max(values) and 100 <= m <= 110:
                n_peaks += 1
                distance = min((abs(top - m) for top in tops), default=np.inf)
                shifts += [distance / m * 1e6] if distance <= 1 else []
    assert found.n_peaks == n_peaks
    if n_peaks:
        assert found.kept == pytest.approx(len(shifts) / n_peaks)
        assert found.shift_ppm_median == pytest.approx(np.median(shifts) if shifts else 0)


def _tops(row):
    """Return the m/z of the local maxima of {bin: value}, plateaus at their middle."""
    tops = []
    for first in row:
        last = first
        while row.get(last + 1) == row[first]:
            last += 1
        if row.get(first - 1, 0) < row[first] > row.get(last + 1, 0):
            tops.append((CENTRES[first] + CENTRES[last]) / 2)
    return tops


def test_measure_joins_tic_and_peaks():
    quality = measure(
        np.array([99.0]), np.array([120.0]), np.array([20.0]), PeakFigures(8, 0.75, 1.5, 3.0), 0.5
    )
    assert quality == Quality(
        pytest.approx(0.01), pytest.approx(0.01), pytest.approx(1 / 6), 8, 0.75, 1.5, 3.0, 0.5
    )


@pytest.mark.parametrize("ratio", [None, 0.62])
def test_quality_survives_json(ratio):
    quality = Quality(1e-8, 2e-9, 0.001, 1234, 0.99, 0.3, 1.2, ratio)
    assert Quality.from_json(quality.to_json()) == quality


def test_quality_without_an_entry_is_refused():
    value = Quality(0, 0, 0, 0, 1, 0, 0).to_json()
    del value["n_peaks"]
    with pytest.raises(StoreError, match="quality figures have no usable entry 'n_peaks'"):
        Quality.from_json(value)


def test_quality_says_its_figures_in_words():
    lines = Quality(2.1e-8, 3e-9, 0.00021, 12345, 0.998, 0.31, 1.204, 0.62).lines()
    assert lines == [
        "TIC    ratio off by 2.1e-08 at most, median 3.0e-09; 0.021% of the counts lie outside the "
        "axis",
        "peaks  99.80% of 12,345 kept, apex shift median 0.31 ppm, 95 % below 1.20 ppm",
        "size   0.62 bytes written per byte of input",
    ]
    assert len(Quality(0, 0, 0, 0, 1, 0, 0).lines()) == 2
