import json
import math
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyimzml.ImzMLParser import ImzMLParser

from gpuconvert.decision import AxisDecision, decide
from gpuconvert.decision_evidence import candidate_laws, instrument_prior, select_points
from gpuconvert.errors import PlanError, SettingsError
from gpuconvert.mass_axis import LAWS, TIMS_TOF_TERMS, MassAxis, of_centres, of_law
from gpuconvert.settings import Settings
from gpuconvert.spectra import Instrument, RaggedSpectra

# Sampling of real instruments: step in u, first and last m/z, coordinate and its inverse.
GRIDS = {
    "constant": (1 / 12, 100.0, 900.0, lambda m: m, lambda u: u),
    "linear-tof": (1.1e-3, 150.0, 2000.0, np.sqrt, np.square),
    "reflector-tof": (2e-4, 100.0, 1500.0, np.log, np.exp),
    "orbitrap": (6.1e-6, 150.0, 1500.0, lambda m: -(m**-0.5), lambda u: u**-2.0),
    "fticr": (7.3e-7, 150.0, 1200.0, lambda m: -1 / m, lambda u: -1 / u),
}
EVERY_LAW = pytest.mark.parametrize("law", list(GRIDS))
ORBITRAP = Instrument(analyser="orbitrap")
REFLECTRON = Instrument(terms=("MS:1000084 time-of-flight", "MS:1000106 reflectron on"))


def ragged(spectra):
    counts = [len(mz) for mz in spectra]
    indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    mz = np.concatenate([*spectra, np.zeros(0)]).astype(np.float64)
    return RaggedSpectra(indptr, mz, np.ones(len(mz)))


def on_grid(law, *, n=6, phases=None, keep=1.0, single=False, seed=0):
    """Spectra sampled uniformly in u, in runs of which `keep` remain."""
    step, low, high, forward, inverse = GRIDS[law]
    rng = np.random.default_rng(seed)
    count = int((forward(high) - forward(low)) / step)
    spectra = []
    for index in range(n):
        u = forward(low) + step * (np.arange(count) + (0 if phases is None else phases[index]))
        if keep < 1:
            # Zero-stripping leaves runs: about nine samples long here.
            edges = rng.random(count) < 1 / 9
            u = u[(rng.random(count) < keep)[np.cumsum(edges)]]
        mz = inverse(u)
        spectra.append(mz.astype(np.float32).astype(np.float64) if single else mz)
    return ragged(spectra)


def peaks(ppm=3.0, *, n=40, ions=300, seed=1, noise=0):
    """Centroids of the same ions in every spectrum, with a normal scatter."""
    rng = np.random.default_rng(seed)
    true = np.sort(rng.uniform(150.0, 1200.0, ions))
    spectra = []
    for _ in range(n):
        seen = true[rng.random(ions) < 0.7] if ions > 20 else true
        mz = seen * (1 + rng.normal(0.0, ppm * 1e-6, len(seen)))
        spectra.append(np.sort(np.concatenate([mz, rng.uniform(150.0, 1200.0, noise)])))
    return ragged(spectra)


def never():
    raise AssertionError("the union was read")


def made(sample, *, said=None, instrument=None, shared=None, union=never, extent=None, **words):
    if extent is None:
        extent = (float(sample.mz.min()), float(sample.mz.max()))
    return decide(
        sample, extent=extent, representation=said, instrument=instrument or Instrument(),
        shared_mz=shared, union=union, settings=Settings(**words),
    )  # fmt: skip


def off_centre(axis, mz):
    """Distance of each m/z from the nearest bin centre, in bins."""
    _, _, _, forward, _ = GRIDS[axis.law]
    place = (forward(mz) - axis.u0) / axis.du - 0.5
    return np.abs(place - np.rint(place))


# Profiles: law, step and phase


@EVERY_LAW
@pytest.mark.parametrize("keep", [1.0, 0.3])
@pytest.mark.parametrize("single", [False, True])
def test_a_shared_grid_is_found_from_its_points(law, keep, single):
    sample = on_grid(law, keep=keep, single=single)
    found = made(sample)
    step = GRIDS[law][0]
    assert (found.representation, found.axis.law) == ("profile", law)
    assert found.axis.du == pytest.approx(step, rel=1e-6)
    # A float32 m/z is known to half a unit in its last place; a double to nothing worth saying.
    rounding = 2.0**-24 * sample.mz * LAWS[law].slope(sample.mz, 1, 1) / step if single else 0.0
    assert (off_centre(found.axis, sample.mz) <= 1e-3 + rounding).all()
    assert found.axis.low <= sample.mz.min()
    assert found.axis.high >= sample.mz.max()
    assert found.phase_source.startswith("on the sampling grid of 6 spectra")
    assert found.warnings == ()


@EVERY_LAW
def test_every_bin_of_a_shared_grid_holds_one_sample(law):
    sample = on_grid(law, n=3)
    axis = made(sample).axis
    bins = np.floor(axis.position(sample.mz)).astype(int)
    assert np.bincount(bins, minlength=axis.n_bins).tolist() == [3] * axis.n_bins


@EVERY_LAW
@pytest.mark.parametrize("keep", [1.0, 0.3])
def test_spectra_with_phases_of_their_own_share_the_step_only(law, keep):
    phases = [0.0, 0.31, 0.77, 0.5, 0.12, 0.9]
    found = made(on_grid(law, phases=phases, keep=keep))
    assert found.axis.law == law
    assert found.axis.du == pytest.approx(GRIDS[law][0], rel=1e-6)
    assert found.phase_source == "the first bin starts at the lowest m/z"
    assert found.evidence["grid"]["anchor_u"] is None


def test_phases_within_two_percent_of_a_bin_are_one():
    close = made(on_grid("constant", phases=[0, 0.01, -0.01, 0.005, 0, 0]))
    apart = made(on_grid("constant", phases=[0, 0.05, -0.05, 0.03, 0, 0]))
    assert close.evidence["grid"]["anchor_u"] is not None
    assert apart.evidence["grid"]["anchor_u"] is None


def test_phases_on_either_side_of_a_whole_turn_are_one():
    found = made(on_grid("constant", phases=[0.0, 0.995, 0.005, 0.998, 0.002, 0.0]))
    assert found.evidence["grid"]["anchor_u"] is not None


@EVERY_LAW
@given(seed=st.integers(0, 10**6), keep=st.floats(0.05, 1))
@settings(max_examples=12, deadline=None)
def test_stripped_profiles_keep_their_law_and_step(law, seed, keep):
    found = made(on_grid(law, keep=keep, seed=seed))
    assert found.axis.law == law
    assert found.axis.du == pytest.approx(GRIDS[law][0], rel=1e-6)


def test_a_grid_is_found_through_a_gap_of_thousands_of_steps():
    step = 1 / 12
    k = np.concatenate([np.arange(40), np.arange(9000, 9040)])
    found = made(ragged([100 + k * step] * 2), said="profile", axis="constant")
    assert found.axis.du == pytest.approx(step, rel=1e-9)
    assert off_centre(found.axis, 100 + k * step).max() < 1e-6


def test_a_stray_point_does_not_spoil_the_grid():
    clean = on_grid("constant", n=4)
    spectra = np.split(clean.mz, clean.indptr[1:-1])
    spectra[1] = np.sort(np.append(spectra[1], 333.361))
    found = made(ragged(spectra))
    assert found.axis.du == pytest.approx(1 / 12, rel=1e-6)
    assert off_centre(found.axis, clean.mz).max() < 1e-3


def test_the_two_term_law_is_found_for_a_timstof():
    a, b = TIMS_TOF_TERMS
    u = np.arange(30.0, 230.0, 0.01)
    mz = (a / b) * np.sinh(u * math.sqrt(b) / 2) ** 2
    sample = ragged([mz[mz > 100]] * 3)
    found = made(sample, instrument=Instrument(name="timsTOF fleX"))
    assert found.axis.law == "tof"
    assert (found.axis.a, found.axis.b) == TIMS_TOF_TERMS
    assert found.axis.du == pytest.approx(0.01, rel=1e-6)
    assert "tof" not in made(sample).evidence["law_scores"]


@EVERY_LAW
def test_the_native_step_follows_the_sampling(law):
    step, low, high, _, _ = GRIDS[law]
    found = made(on_grid(law, keep=0.4))
    mz = np.geomspace(low, high, 60)
    native = step / LAWS[law].slope(mz, 1, 1)
    error = np.abs(found.spacing.step(mz) / native - 1)
    # Half-integer powers of m/z are no polynomials; the model states how far it is off.
    assert error.max() <= found.spacing.tolerance + 0.01
    assert found.spacing.tolerance < 0.1


# What decides: data, header, user


def test_the_header_says_what_spectra_are_before_the_data_do():
    found = made(peaks(), said="profile")
    assert found.representation == "profile"
    assert found.representation_source.startswith("header; spacing deviation")
    assert "the header says profile, but the points are not evenly spaced" in found.warnings[0]


def test_a_profile_that_the_header_calls_centroid_is_reported():
    found = made(on_grid("orbitrap", phases=[0, 0.3, 0.7, 0.1, 0.5, 0.2]), said="centroid")
    assert (found.representation, found.method, found.axis.law) == (
        "centroid", "nearest", "orbitrap",
    )  # fmt: skip
    assert "says centroid, but the points are evenly spaced like a profile" in found.warnings[0]


def test_the_user_says_what_spectra_are_before_the_header_does():
    found = made(on_grid("orbitrap"), said="centroid", spectrum_type="profile")
    assert found.representation == "profile"
    assert found.representation_source.startswith("asked for with --spectrum-type")
    assert found.warnings == ()


def test_a_contradicting_law_in_the_header_is_reported_and_the_data_win():
    found = made(on_grid("constant"), said="profile", instrument=Instrument(name="LTQ FT Ultra"))
    assert found.axis.law == "constant"
    [warning] = found.warnings
    assert "the header says 'LTQ FT Ultra' (fticr" in warning
    assert "spaced as constant" in warning


def test_flight_time_sampling_does_not_contradict_a_reflectron():
    found = made(on_grid("linear-tof"), said="profile", instrument=REFLECTRON)
    assert (found.axis.law, found.warnings) == ("linear-tof", ())


def test_the_header_decides_where_the_data_cannot_tell():
    # 0.4 Th in 30 points: all laws are straight lines here.
    sample = ragged([400 + np.arange(30) / 75] * 4)
    found = made(sample, said="profile", instrument=ORBITRAP)
    assert found.axis.law == "orbitrap"
    assert found.law_source.startswith("header: orbitrap")


def test_too_few_points_make_a_constant_profile_with_a_warning():
    found = made(ragged([np.array([200.0, 200.1, 200.2])]), said="profile")
    assert (found.axis.law, found.axis.n_bins) == ("constant", 3)
    assert found.axis.centres == pytest.approx([200.0, 200.1, 200.2], rel=1e-12)
    assert "too few points to tell the law of the axis" in found.warnings[0]


@pytest.mark.parametrize(
    ("instrument", "law"),
    [
        (Instrument(name="Q Exactive HF"), "orbitrap"),
        (Instrument(terms=("MS:1000081 quadrupole", "MS:1000484 orbitrap")), "orbitrap"),
        (Instrument(name="LTQ Orbitrap XL"), "orbitrap"),
        (Instrument(name="LTQ FT Ultra"), "fticr"),
        (Instrument(name="solariX XR"), "fticr"),
        (Instrument(analyser="fourier transform ion cyclotron resonance"), "fticr"),
        (Instrument(name="scimaX MRMS"), "fticr"),
        (Instrument(name=" timsTOF MALDI"), "reflector-tof"),
        (Instrument(terms=("MS:1001534 Bruker Daltonics flex series",)), "reflector-tof"),
        (Instrument(analyser="time-of-flight"), "reflector-tof"),
        (Instrument(name="QSTAR XL", terms=("MS:1000081 quadrupole",)), "reflector-tof"),
        (REFLECTRON, "reflector-tof"),
        (Instrument(terms=("MS:1000105 reflectron off", "MS:1000084 tof")), "linear-tof"),
        (Instrument(analyser="quadrupole ion trap"), "constant"),
    ],
)  # fmt: skip
def test_the_law_of_centroids_is_that_of_the_instrument(instrument, law):
    found = made(peaks(), said="centroid", instrument=instrument)
    assert found.axis.law == law
    assert found.law_source.startswith("header: ")


def test_words_that_name_no_analyser_say_nothing():
    terms = ("MS:1000031 instrument model", "MS:1000073 electrospray ionization")
    assert instrument_prior(Instrument(name="instrument model", terms=terms)) is None
    assert "tof" not in candidate_laws(Instrument(), "auto")
    assert "tof" in candidate_laws(Instrument(), "tof")


def test_centroids_of_an_unknown_instrument_get_constant_ppm():
    found = made(peaks(), said="centroid")
    assert found.axis.law == "reflector-tof"
    assert found.law_source.startswith("default")


@pytest.mark.parametrize("law", list(LAWS))
def test_any_law_can_be_asked_for(law):
    found = made(on_grid("linear-tof"), axis=law)
    assert (found.axis.law, found.law_source) == (law, "asked for with --axis")
    assert found.axis.low <= 150.0 * (1 + 1e-9)
    assert (np.diff(found.axis.edges) > 0).all()


def test_another_law_gets_the_median_native_step():
    found = made(on_grid("linear-tof"), axis="constant")
    # Uniform in flight time: dm = 2 sqrt(m) du; the median sample lies half way in sqrt(m).
    middle = (math.sqrt(150) + math.sqrt(2000)) / 2
    assert found.axis.du == pytest.approx(2 * middle * 1.1e-3, rel=0.01)
    assert found.width_source == "median of the sampling step over the range"
    assert found.phase_source == "the first bin starts at the lowest m/z"


def test_the_grid_does_not_depend_on_whether_mz_is_shared():
    sample = on_grid("constant", single=True)
    own = made(sample, said="profile", axis="constant")
    shared = made(sample, said="profile", axis="constant", shared=sample.mz[: sample.indptr[1]])
    assert own.axis.to_json() == shared.axis.to_json()


# Centroids: scatter, lists and defaults


@pytest.mark.parametrize("noise", [0, 200])
def test_a_planted_scatter_is_found(noise):
    found = made(peaks(3.0, noise=noise))
    assert found.representation == "centroid"
    assert 3.0 <= found.evidence["scatter"]["ppm"] <= 4.0
    middle = found.axis.width_at(500.0) / 500.0 * 1e6
    assert middle == pytest.approx(found.evidence["scatter"]["ppm"], rel=0.01)
    assert found.warnings == ()


@given(ppm=st.floats(0.3, 20), seed=st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_scatter_is_the_half_width_of_an_ion(ppm, seed):
    found = made(peaks(ppm, seed=seed, ions=100), said="centroid")
    # Half width at half height of a normal distribution: sqrt(2 ln 2) standard deviations.
    half_width = math.sqrt(2 * math.log(2)) * ppm
    assert found.evidence["scatter"]["ppm"] == pytest.approx(half_width, rel=0.15)


def test_the_bin_of_an_orbitrap_is_the_scatter_at_the_median_mz():
    sample = peaks(3.0)
    found = made(sample, said="centroid", instrument=ORBITRAP)
    middle = float(np.median(sample.mz))
    ppm = found.evidence["scatter"]["ppm"]
    assert found.axis.width_at(middle) == pytest.approx(ppm * 1e-6 * middle, rel=0.01)


def test_unrelated_centroids_get_the_documented_width_with_a_warning():
    rng = np.random.default_rng(3)
    found = made(ragged([np.sort(rng.uniform(100, 1000, 2000)) for _ in range(20)]))
    assert found.evidence["scatter"]["ppm"] is None
    assert found.axis.width_at(1000.0) == pytest.approx(0.005, rel=1e-4)
    assert found.axis.width_at(200.0) == pytest.approx(0.001, rel=1e-4)
    assert "the data do not tell how wide a bin should be" in found.warnings[0]


def test_a_feature_list_keeps_its_mz():
    rng = np.random.default_rng(4)
    ions = np.sort(rng.uniform(100, 1000, 79))
    sample = ragged([ions[rng.random(79) < 0.6] for _ in range(30)])
    every = np.unique(np.append(ions, 1234.5))
    found = made(sample, said="centroid", union=lambda: every, extent=(100.0, 1234.5))
    assert (found.axis.law, found.method) == ("source", "nearest")
    assert found.axis.centres.tolist() == every.tolist()
    assert found.law_source == "feature list: 100% of near pairs are equal"


def test_merely_rounded_mz_is_no_feature_list():
    sample = peaks(3.0, n=30)
    rounded = ragged(np.split(np.round(sample.mz, 3), sample.indptr[1:-1]))
    found = made(rounded, said="centroid")
    assert 0.05 < found.evidence["scatter"]["equal_share"] < 0.5
    assert found.axis.law == "reflector-tof"


def test_a_feature_list_too_long_for_bins_gets_a_law():
    ions = np.linspace(100, 1000, 50) ** 1.01

    def refuse():
        raise SettingsError("a.imzML holds more than 20 distinct m/z")

    found = made(ragged([ions] * 5), said="centroid", union=refuse)
    assert found.axis.law == "reflector-tof"
    assert "are not taken as bins: a.imzML holds more than 20 distinct m/z" in found.warnings[0]


def test_one_spectrum_of_centroids_tells_no_scatter():
    found = made(peaks(n=1), said="centroid")
    assert found.width_source == "default: 5 mDa at m/z 1000"
    assert len(found.warnings) == 1


def test_forced_pchip_on_centroids_has_a_spacing_of_one_bin():
    found = made(peaks(), said="centroid", method="pchip")
    assert found.method == "pchip"
    for mz in (200.0, 600.0, 1100.0):
        step = found.spacing.step(np.array([mz]))[0]
        assert step == pytest.approx(found.axis.width_at(mz), rel=0.01)


def test_the_spacing_of_centroids_on_a_saved_two_term_axis_is_its_bin(tmp_path):
    axis = of_law("tof", 100.0, 1500.0, du=0.02, a=0.0185, b=9.1e-6)
    path = tmp_path / "axis.json"
    path.write_text(json.dumps(axis.to_json()))
    found = made(peaks(), said="centroid", axis=str(path))
    for mz in (300.0, 1000.0):
        step = found.spacing.step(np.array([mz]))[0]
        assert step == pytest.approx(axis.width_at(mz), rel=0.05)


# Axes that are given


def test_a_continuous_file_keeps_its_axis():
    sample = on_grid("orbitrap", n=4)
    shared = sample.mz[: sample.indptr[1]]
    found = made(sample, said="profile", shared=shared)
    assert (found.axis.law, found.method) == ("source", "nearest")
    assert found.axis.centres.tolist() == shared.tolist()
    # The native step is still that of the sampling.
    assert found.spacing.step(np.array([400.0]))[0] == pytest.approx(
        6.1e-6 * 2 * 400**1.5, rel=0.05
    )


def test_shared_mz_that_does_not_ascend_is_sorted_with_a_warning():
    shared = np.array([100.0, 300.0, 200.0, 200.0])
    found = made(ragged([shared]), said="centroid", shared=shared)
    assert found.axis.centres.tolist() == [100.0, 200.0, 300.0]
    assert "the 4 m/z of the source do not all ascend: 3 distinct are bins" in found.warnings


def test_mz_one_rounding_apart_is_one_bin():
    shared = np.array([100.0, np.nextafter(100.0, 101.0), 200.0])
    found = made(ragged([shared]), said="centroid", shared=shared)
    assert found.axis.centres.tolist() == [100.0, 200.0]
    assert "the 3 m/z of the source do not all ascend: 2 distinct are bins" in found.warnings


def test_source_of_a_processed_file_is_its_union():
    union = np.array([100.0, 200.0, 250.0, 900.0])
    found = made(peaks(), said="centroid", axis="source", union=lambda: union)
    assert found.axis == of_centres(union, "source")


def test_a_source_with_more_mz_than_bins_is_refused():
    words = "the source has 50 distinct m/z, more than --max-bins 49; name a law with --axis"
    with pytest.raises(SettingsError, match=words):
        made(peaks(), axis="source", max_bins=49, union=lambda: np.arange(100.0, 150.0))


def test_a_union_that_is_refused_is_refused():
    def refuse():
        raise SettingsError("too many for --axis source")

    with pytest.raises(SettingsError, match="too many for --axis source"):
        made(peaks(), axis="source", union=refuse)


def test_a_continuous_file_with_more_mz_than_bins_gets_a_law():
    sample = on_grid("reflector-tof", n=2)
    shared = sample.mz[: sample.indptr[1]]
    found = made(sample, said="profile", shared=shared, max_bins=5000)
    assert found.axis.law == "reflector-tof"
    assert found.axis.n_bins <= 5000
    assert "are not taken as bins: the source has 13540 distinct m/z" in found.warnings[0]
    assert "bins are 3 times as wide" in found.warnings[1]


def test_a_width_makes_a_continuous_file_follow_a_law():
    sample = on_grid("constant", n=2)
    shared = sample.mz[: sample.indptr[1]]
    found = made(sample, said="profile", shared=shared, bin_width=(0.5, 400.0))
    assert (found.axis.law, found.axis.du) == ("constant", 0.5)


def test_an_axis_file_is_used_as_it_is(tmp_path):
    axis = of_law("orbitrap", 100.0, 1000.0, du=1e-5)
    path = tmp_path / "axis.json"
    path.write_text(json.dumps(axis.to_json()))
    found = made(on_grid("constant"), axis=str(path))
    assert found.axis == axis
    assert found.law_source == f"file {path}"


def test_an_axis_file_with_more_bins_than_allowed_is_refused(tmp_path):
    path = tmp_path / "axis.txt"
    path.write_text("100\n200\n300\n")
    with pytest.raises(SettingsError, match="has 3 bins, more than --max-bins 2; raise --max-bins"):
        made(peaks(), axis=str(path), max_bins=2)


def test_an_axis_file_takes_no_width(tmp_path):
    path = tmp_path / "axis.txt"
    path.write_text("100\n200\n")
    with pytest.raises(SettingsError, match=r"--bins has no meaning with --axis .*axis.txt, whose"):
        made(peaks(), axis=str(path), bins=3)


@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_range_keeps_the_centres_inside(tmp_path, kind):
    centres = np.arange(100.5, 200.0)
    axis = of_law("constant", 100.0, 200.0, du=1.0)
    path = tmp_path / f"axis.{kind}"
    lines = "\n".join(str(mz) for mz in centres)
    path.write_text(lines if kind == "txt" else json.dumps(axis.to_json()))
    found = made(peaks(), axis=str(path), mz_range=(120.5, 130.4))
    assert found.axis.centres.tolist() == np.arange(120.5, 130.0).tolist()


def test_a_range_without_bins_is_refused():
    shared = np.array([100.0, 200.0])
    words = "--mz-range 120:180 holds none of the bins, whose centres go from 100 to 200 Th"
    with pytest.raises(SettingsError, match=words):
        made(ragged([shared]), axis="source", shared=shared, mz_range=(120.0, 180.0))


# Widths and ranges that are asked for


@pytest.mark.parametrize("law", list(LAWS))
def test_bins_divide_the_range_exactly(law):
    found = made(on_grid("constant"), axis=law, bins=1234, mz_range=(200.0, 800.0))
    assert found.axis.n_bins == 1234
    assert found.axis.low == pytest.approx(200.0, rel=1e-11)
    assert found.axis.high == pytest.approx(800.0, rel=1e-11)
    assert found.axis.low <= 200.0 < 800.0 <= found.axis.high
    assert found.width_source == "asked for with --bins"


def test_bins_without_a_range_divide_that_of_the_source():
    found = made(peaks(), said="centroid", bins=10, extent=(120.0, 1300.0))
    assert found.axis.n_bins == 10
    assert (found.axis.low, found.axis.high) == pytest.approx((120.0, 1300.0), rel=1e-11)


@pytest.mark.parametrize("law", list(LAWS))
def test_a_width_holds_at_its_mz(law):
    found = made(on_grid("constant"), axis=law, bin_width=(0.01, 400.0))
    assert found.axis.width_at(400.0) == pytest.approx(0.01, rel=1e-3)


def test_a_width_in_ppm_holds_everywhere():
    found = made(on_grid("orbitrap"), bin_ppm=20.0)
    assert found.axis.law == "reflector-tof"
    relative = np.diff(found.axis.edges) / found.axis.centres
    assert relative == pytest.approx(np.full(found.axis.n_bins, 20e-6), rel=1e-6)


def test_a_width_in_ppm_holds_at_the_middle_of_another_law():
    found = made(on_grid("constant"), axis="constant", bin_ppm=50.0, mz_range=(100.0, 900.0))
    assert found.axis.du == pytest.approx(300.0 * 50e-6, rel=1e-9)


def test_a_range_is_kept_whatever_the_source_holds():
    found = made(peaks(), said="centroid", mz_range=(50.0, 3000.0))
    assert found.axis.low == pytest.approx(50.0, rel=1e-11)
    assert found.axis.high == pytest.approx(3000.0, rel=1e-5)


def test_a_range_keeps_the_sampling_grid():
    sample = on_grid("constant")
    found = made(sample, mz_range=(200.0, 300.0))
    inside = sample.mz[(sample.mz > 200.0) & (sample.mz < 300.0)]
    assert off_centre(found.axis, inside).max() < 1e-3
    assert found.axis.low <= 200.0
    assert found.axis.high >= 300.0


@pytest.mark.parametrize("law", list(LAWS))
def test_the_ends_of_the_source_lie_inside_the_axis(law):
    found = made(peaks(), said="centroid", axis=law)
    sample = peaks()
    assert found.axis.low < sample.mz.min()
    assert found.axis.high > sample.mz.max()


def test_more_bins_than_allowed_are_coarsened_by_a_whole_factor():
    fine = made(peaks(), said="centroid")
    coarse = made(peaks(), said="centroid", max_bins=fine.axis.n_bins // 4)
    factor = coarse.evidence["coarsening_factor"]
    assert factor == math.ceil(fine.axis.n_bins / (fine.axis.n_bins // 4))
    assert coarse.axis.du == fine.axis.du * factor
    assert coarse.axis.n_bins <= fine.axis.n_bins // 4
    assert f"bins are {factor} times as wide" in coarse.warnings[-1]


@pytest.mark.parametrize(
    ("words", "said", "method"),
    [({}, "profile", "pchip"), ({}, "centroid", "nearest"),
     ({"bin_width": (2.0, 400.0)}, "profile", "linear"),
     ({"method": "nearest"}, "profile", "nearest"), ({"method": "linear"}, "profile", "linear")],
)  # fmt: skip
def test_adaptive_is_shown_as_what_it_chose(words, said, method):
    assert made(on_grid("constant"), said=said, axis="constant", **words).method == method


# Degenerate sources


@pytest.mark.parametrize("extent", [(0.0, 0.0), (math.inf, -math.inf), (math.nan, math.nan)])
@pytest.mark.parametrize("n", [0, 3])
def test_a_source_without_points_has_a_nominal_axis(n, extent):
    found = made(ragged([np.zeros(0)] * n), extent=extent)
    assert found.representation == "centroid"
    assert found.axis.low == pytest.approx(100.0, rel=1e-5)
    assert found.axis.high == pytest.approx(1000.0, rel=1e-5)
    assert any("the source has no m/z above 0" in warning for warning in found.warnings)


SMALL = {
    "one point": [[500.0]],
    "one point each": [[500.0], [501.0], [502.5]],
    "one m/z": [[500.0]] * 20,
    "m/z zero": [[0.0]] * 20,
    "m/z zero and more": [[0.0, 100.0, 200.0]] * 20,
    "below any ion": [[0.2, 0.4, 0.5]],
    "empty spectra between": [[], [400.0, 401.0], [], [400.5], []],
    "three points": [[300.0, 300.1, 300.2]],
    "far apart": [[100.0, 200.0, 300.0, 400.0, 505.0]] * 3,
    "repeated m/z": [[300.0, 300.0, 300.0, 300.1]] * 3,
    "unsorted": [[300.0, 200.0, 250.0]] * 3,
    "damaged": [[math.nan, 300.0, math.inf, -5.0, 300.1, 300.2]] * 3,
    "neighbouring doubles": [[300.0, np.nextafter(300.0, 301), np.nextafter(300.0, 299)]] * 4,
    "huge": [[1e6, 1e6, 9.9e5]],
}


@pytest.mark.parametrize("said", [None, "profile", "centroid"])
@pytest.mark.parametrize("law", ["auto", "linear-tof", "tof", "fticr"])
@pytest.mark.parametrize("name", list(SMALL))
def test_a_degenerate_source_still_has_an_axis(name, law, said):
    sample = ragged([np.array(mz, float) for mz in SMALL[name]])
    usable = sample.mz[np.isfinite(sample.mz) & (sample.mz >= 0)]
    extent = (float(usable.min()), float(usable.max()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = made(sample, said=said, axis=law, extent=extent, union=lambda: np.unique(usable))
    assert 1 <= found.axis.n_bins <= 1_000_000
    assert np.isfinite(found.axis.edges).all()
    assert (np.diff(found.axis.edges) > 0).all()
    assert (found.spacing.step(np.geomspace(1e-3, 1e6, 99)) > 0).all()
    if extent[1] >= 1:
        assert found.axis.high >= extent[1]
        assert found.axis.low <= max(extent[0], 1.0)
    assert AxisDecision.from_json(json.loads(json.dumps(found.to_json()))) == found


@given(
    spectra=st.lists(st.lists(st.floats(0, 2000), max_size=30), max_size=6),
    said=st.sampled_from([None, "profile", "centroid"]),
    law=st.sampled_from(["auto", "source", *LAWS]),
)
@settings(max_examples=100, deadline=None)
def test_any_spectra_have_an_axis_that_survives_json(spectra, said, law):
    sample = ragged([np.sort(np.array(mz, float)) for mz in spectra])
    if law == "source" and not len(sample.mz):
        return
    extent = (float(sample.mz.min()), float(sample.mz.max())) if len(sample.mz) else (0.0, 0.0)
    found = made(sample, said=said, axis=law, extent=extent, union=lambda: np.unique(sample.mz))
    assert found.axis.n_bins >= 1
    assert (np.diff(found.axis.edges) > 0).all()
    text = json.dumps(found.to_json(), allow_nan=False)
    assert AxisDecision.from_json(json.loads(text)) == found


def test_source_of_nothing_is_refused():
    with pytest.raises(SettingsError, match="the source has no m/z to take as bins; name a law"):
        made(ragged([]), axis="source", extent=(0.0, 0.0), union=lambda: np.zeros(0))


def test_light_points_that_are_no_ions_are_reported():
    found = made(ragged([[0.0, 100.0], [150.0, 200.0]]), said="centroid")
    assert found.axis.low == pytest.approx(1.0, rel=1e-5)
    assert "m/z from 0 to 1 Th are no ions and lie outside the axis" in found.warnings


# The value


def test_the_decision_is_the_same_every_time():
    sample = peaks(n=200, ions=400)
    first, again = made(sample), made(sample)
    assert first == again
    assert first.axis.sha256 == again.axis.sha256


def test_json_that_is_no_decision_is_refused():
    value = made(peaks()).to_json()
    del value["law_source"]
    with pytest.raises(PlanError, match="axis decision has no usable entry 'law_source'; plan ag"):
        AxisDecision.from_json(value)


def test_the_lines_say_what_was_chosen_and_why():
    lines = made(on_grid("linear-tof"), said="profile").lines()
    assert lines[0] == "representation  profile (header; spacing deviation 0.00)"
    assert lines[1].startswith("law  linear-tof (data: spread 0.000; next ")
    # sqrt(150 * 2000) = 547.7, where the step is 2 * sqrt(547.7) * 1.1e-3.
    assert lines[2].startswith("width  0.05149 Th at m/z 547.")
    assert lines[3].startswith("phase  on the sampling grid of 6 spectra")
    assert lines[4].startswith("bins  29521 from m/z 149.98")
    assert lines[5:] == ["method  pchip"]


def test_evidence_is_taken_from_a_bounded_part_of_the_sample():
    points = select_points(on_grid("linear-tof", n=60))
    assert 300_000 <= len(points.mz) <= 450_000
    # Evenly spread: the first and the last spectrum are among them.
    assert (points.spectrum[0], points.spectrum[-1]) == (0, 59)


def test_a_large_sample_is_decided_in_about_a_second():
    mz = np.square(10 + 2e-3 * np.arange(20_000))
    sample = RaggedSpectra(
        np.arange(513, dtype=np.int64) * 20_000, np.tile(mz, 512), np.ones(512 * 20_000)
    )
    begin = time.process_time()
    found = made(sample)
    # 0.4 to 0.6 s of one core; the bound leaves room for a slow one.
    assert time.process_time() - begin < 3
    assert found.axis.n_bins == 20_000


# Published files


DATA = Path(__file__).parents[3] / "shared" / "data" / "imzml"


def read(name, most=64):
    """Return the first spectra of a published file through pyimzML."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the checkout")
    with warnings.catch_warnings():
        # pyimzML warns about the headers it repairs, and leaves files to the collector.
        warnings.simplefilter("ignore")
        with ImzMLParser(str(path)) as parser:
            n = min(most, len(parser.coordinates))
            spectra = [np.array(parser.getspectrum(i)[0], np.float64) for i in range(n)]
    return ragged(spectra)


EXAMPLE = "alexandrovteam__pyimzML/Example_Processed.imzML"
FT_ULTRA = Instrument(name="LTQ FT Ultra", terms=("MS:1000557 LTQ FT Ultra",))


@pytest.mark.real_data
def test_the_example_file_is_resampled_onto_itself():
    sample = read(EXAMPLE)
    found = made(sample, said="profile", instrument=FT_ULTRA)
    axis = found.axis
    # 8,399 points from 100.0833 to 799.9167 Th, a twelfth apart.
    assert (axis.law, axis.n_bins, found.method) == ("constant", 8399, "pchip")
    eps = np.finfo(np.float32).eps
    snap = np.maximum(1e-6, 4 * eps * sample.mz / axis.du)
    assert (off_centre(axis, sample.mz) <= snap).all()
    bins = np.floor(axis.position(sample.mz)).astype(int)
    assert np.bincount(bins).tolist() == [9] * 8399
    assert "the header says 'LTQ FT Ultra' (fticr" in found.warnings[0]


@pytest.mark.real_data
def test_both_modes_of_the_example_have_one_axis():
    continuous = read("alexandrovteam__pyimzML/Example_Continuous.imzML")
    shared = continuous.mz[: continuous.indptr[1]]
    one = made(continuous, said="profile", axis="constant", shared=shared, instrument=FT_ULTRA)
    other = made(read(EXAMPLE), said="profile", axis="constant", instrument=FT_ULTRA)
    assert one.axis.to_json() == other.axis.to_json()


@pytest.mark.real_data
def test_an_orbitrap_fusion_profile_is_sampled_in_frequency():
    sample = read("djdt__pewlib/test_orbi.imzml")
    instrument = Instrument(terms=("MS:1000081 quadrupole", "MS:1000484 orbitrap"))
    found = made(sample, instrument=instrument)
    assert (found.representation, found.axis.law) == ("profile", "orbitrap")
    assert found.warnings == ()
    # Its transient sets the step; the two spectra share it to a twentieth of a bin.
    assert found.evidence["grid"]["rms_steps"] < 0.05
    assert found.evidence["grid"]["anchor_u"] is not None


# Expected by hand: instrument software exports TOF and Orbitrap in its own law; the
# ms-imaging example and what was cut from it are a twelfth apart; Cardinal's `bin`
# and i2nca's rebinning in ppm make steps of constant ppm.
PROFILES = [
    ("galaxyp__cardinal/112_auto_combined.imzml", "constant", 1 / 12),
    ("galaxyp__cardinal/123_combined.imzml", "constant", 1 / 12),
    ("galaxyp__cardinal/Example_Continuous.imzML", "constant", 1 / 12),
    ("galaxyp__cardinal/out3.imzml", "constant", 1 / 12),
    ("galaxyp__cardinal/out4.imzml", "constant", 1 / 12),
    ("galaxyp__cardinal/out7.imzml", "constant", 1 / 12),
    ("galaxyp__cardinal/preprocessing_results4.imzml", "constant", 0.1),
    ("galaxyp__cardinal/ComBat_results_Example_processed_file.imzml", "reflector-tof", 200e-6),
    ("galaxyp__cardinal/preprocessing_results5.imzml", "reflector-tof", 200e-6),
    ("galaxyp__cardinal/out8.imzml", "reflector-tof", 200e-6),
    ("galaxyp__maldiquant/outfile1.imzml", "constant", 1 / 12),
    ("galaxyp__maldiquant/outfile2.imzml", "constant", 1 / 12),
    ("galaxyp__maldiquant/outfile3.imzml", "constant", 1 / 12),
    ("galaxyp__i2nca/pp_test2.imzml", "constant", 1 / 6),
    ("galaxyp__i2nca/pc_test5.imzml", "reflector-tof", 100e-6),
    ("metaspace2020__metaspace/Example_Continuous.imzML", "constant", 1 / 12),
]


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "law", "step"), PROFILES)
def test_published_profiles_tell_their_law_and_step(name, law, step):
    sample = read(name)
    found = made(sample)
    assert (found.representation, found.axis.law) == ("profile", law)
    assert found.axis.du == pytest.approx(step, rel=1e-4)


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["cKNUSPeR__i2nca/pc.imzML", "djdt__pewlib/test.imzML", "galaxyp__i2nca/cp_test1.imzml",
     "galaxyp__i2nca/cp_test3.imzml", "galaxyp__i2nca/cp_test5.imzml",
     "galaxyp__i2nca/cp_test6.imzml"],
)  # fmt: skip
def test_published_centroids_are_centroids(name):
    found = made(read(name))
    assert (found.representation, found.axis.law) == ("centroid", "reflector-tof")
    assert found.evidence["scatter"]["equal_share"] < 0.5
    ppm = found.evidence["scatter"]["ppm"]
    assert ppm is None or 3 < ppm < 40


@pytest.mark.real_data
@pytest.mark.parametrize(
    "name",
    ["bladder_PXD001283/pyimzml_continuous.imzML", "galaxyp__maldiquant/peak_detection3.imzml",
     "galaxyp__maldiquant/peak_detection5.imzml",
     "M4i-Imaging-Mass-Spectrometry__thyra/test_processed.imzML"],
)  # fmt: skip
def test_published_feature_lists_keep_their_mz(name):
    sample = read(name, most=400)
    union = np.unique(sample.mz)
    found = made(sample, said="centroid", union=lambda: union)
    assert found.axis.centres.tolist() == union.tolist()


def test_a_decision_holds_a_mass_axis():
    assert isinstance(made(peaks()).axis, MassAxis)
