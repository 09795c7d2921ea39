"""Batches of spectra: decoding, faults and their words, selection."""

from dataclasses import replace

import numpy as np
import pytest

from gpuconvert.spectra import (
    FAULT_INTENSITY,
    FAULT_MZ,
    FAULT_NEGATIVE,
    FAULT_ORDER,
    Acquisition,
    Encoding,
    RaggedSpectra,
    RawBatch,
    SourceIdentity,
    concatenate,
    decode,
    describe_fault,
    find_faults,
    from_ragged,
    select,
)
from tests.strategies import INTENSITY_DTYPES, MZ_DTYPES, pack

NAN, INF = float("nan"), float("inf")


def ragged(*pairs):
    lengths = [len(mz) for mz, _ in pairs]
    return RaggedSpectra(
        np.cumsum([0, *lengths]),
        np.concatenate([np.array(mz, np.float64) for mz, _ in pairs]),
        np.concatenate([np.array(counts, np.float64) for _, counts in pairs]),
    )


@pytest.mark.parametrize("gap", range(9))
@pytest.mark.parametrize("dtype", MZ_DTYPES)
def test_values_are_decoded_at_any_alignment(dtype, gap):
    values = [1, 2, 100]
    pairs = [(np.array([3.0]), np.array([7.0])), (np.array(values), np.array([0.0, 5.0, 6.0]))]
    spectra = decode(pack(pairs, dtype, "<f4", gaps=[gap, 1, gap]))
    assert spectra.indptr.tolist() == [0, 1, 4]
    assert spectra.mz.tolist() == [3.0, 1.0, 2.0, 100.0]
    assert spectra.intensity.tolist() == [7.0, 0.0, 5.0, 6.0]
    assert spectra.mz.dtype == spectra.intensity.dtype == np.float64


@pytest.mark.parametrize("dtype", INTENSITY_DTYPES)
def test_intensities_of_any_dtype_are_decoded(dtype):
    spectra = decode(pack([(np.array([1.0, 2.0]), np.array([9.0, 63.0]))], "<f8", dtype))
    assert spectra.intensity.tolist() == [9.0, 63.0]


def test_integers_keep_their_sign():
    raw = np.concatenate([np.array([100.0]).view(np.uint8), np.array([-3], "<i2").view(np.uint8)])
    one = np.array([1])
    batch = RawBatch(raw, one * 0, one * 8, one, np.dtype("<f8"), np.dtype("<i2"), one)
    assert decode(batch).intensity.tolist() == [-3.0]


def test_one_mz_array_is_decoded_for_every_spectrum():
    pairs = [(np.array([1.0, 2.0]), np.array([k, k + 1.0])) for k in range(3)]
    batch = pack(pairs, shared=True)
    assert batch.shared_mz
    assert decode(batch).mz.tolist() == [1.0, 2.0] * 3
    assert decode(batch).intensity.tolist() == [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]


def test_one_spectrum_alone_shares_no_mz():
    assert not pack([(np.array([1.0]), np.array([1.0]))]).shared_mz


@pytest.mark.parametrize("pairs", [[], [(np.zeros(0), np.zeros(0))] * 2])
def test_nothing_is_decoded_to_nothing(pairs):
    spectra = decode(pack(pairs))
    assert spectra.indptr.tolist() == [0] * (len(pairs) + 1)
    assert len(spectra.mz) == len(spectra.intensity) == 0
    assert find_faults(spectra).tolist() == [0] * len(pairs)


@pytest.mark.parametrize(
    ("mz", "counts", "expected"),
    [
        ([1.0, 2.0, 2.0], [0.0, 1.0, 2.0], 0),
        ([2.0, 1.0], [1.0, 1.0], FAULT_ORDER),
        ([1.0, NAN], [1.0, 1.0], FAULT_MZ),
        ([-1.0], [1.0], FAULT_MZ),
        ([1e7], [1.0], FAULT_MZ),
        ([INF], [1.0], FAULT_MZ),
        ([1.0], [NAN], FAULT_INTENSITY),
        ([1.0], [INF], FAULT_INTENSITY),
        ([1.0], [-INF], FAULT_INTENSITY | FAULT_NEGATIVE),
        ([1.0, 2.0], [1.0, -2.0], FAULT_NEGATIVE),
        ([1.0], [-0.0], 0),
        ([3.0, 2.0], [-1.0, NAN], FAULT_ORDER | FAULT_NEGATIVE | FAULT_INTENSITY),
    ],
)
def test_every_fault_of_a_spectrum_is_found(mz, counts, expected):
    good = ([5.0, 6.0], [1.0, 1.0])
    empty = ([], [])
    faults = find_faults(ragged(good, empty, (mz, counts), empty, good))
    assert faults.tolist() == [0, 0, expected, 0, 0]


@pytest.mark.parametrize(
    ("mz", "counts", "words"),
    [
        ([1.5, 3.0, 2.0], [0, 0, 0], "m/z decreases at point 2 (2.000000 after 3.000000)"),
        ([NAN, 3.0], [0, 0], "m/z is not a number between 0 and 1e+06 at point 0 (nan)"),
        ([1.0, 2e6], [0, 0], "m/z is not a number between 0 and 1e+06 at point 1 (2e+06)"),
        ([1.0], [INF], "intensity is not a number below 1e+30 at point 0 (inf)"),
        ([1.0, 2.0], [0, -2.5], "intensity is negative at point 1 (-2.5)"),
        ([1.0, 2.0, 1.0], [0, -1, 0], "intensity is negative at point 1 (-1)"),
    ],
)
def test_the_first_fault_is_described(mz, counts, words):
    good = ([9.0], [1.0])
    spectra = ragged(good, (mz, counts), good)
    batch = from_ragged(spectra, np.arange(3), None)
    assert describe_fault(batch, 1) == words


def test_decoded_spectra_survive_the_way_back_to_bytes():
    spectra = ragged(([1.0, 2.5], [3.0, 4.0]), ([], []), ([7.0], [0.5]))
    batch = from_ragged(spectra, np.array([4, 5, 9]), "centroid")
    again = decode(batch)
    assert again.indptr.tolist() == [0, 2, 2, 3]
    assert again.mz.tolist() == [1.0, 2.5, 7.0]
    assert again.intensity.tolist() == [3.0, 4.0, 0.5]
    assert batch.rows.tolist() == [4, 5, 9]
    assert batch.representation == "centroid"


def test_selected_spectra_keep_their_rows_and_points():
    spectra = ragged(([1.0], [10.0]), ([2.0, 3.0], [20.0, 30.0]), ([4.0], [40.0]))
    batch = select(from_ragged(spectra, np.array([7, 8, 11]), "profile"), np.array([1, 2]))
    assert batch.rows.tolist() == [8, 11]
    assert batch.representation == "profile"
    assert decode(batch).mz.tolist() == [2.0, 3.0, 4.0]
    assert decode(batch).intensity.tolist() == [20.0, 30.0, 40.0]


def test_spectra_are_concatenated_in_order():
    first, second = ragged(([1.0, 2.0], [3.0, 4.0])), ragged(([], []), ([5.0], [6.0]))
    whole = concatenate([first, second])
    assert whole.indptr.tolist() == [0, 2, 2, 3]
    assert whole.mz.tolist() == [1.0, 2.0, 5.0]
    assert concatenate([]).indptr.tolist() == [0]


def acquisition(representations, codes, coordinates):
    n = len(codes)
    x, y, z = (np.array(column, np.int32) for column in coordinates)
    return Acquisition(
        path="a.imzML", format="imzML", identity=SourceIdentity((("imzML", 3, "ab"),)),
        x=x, y=y, z=z, order=np.arange(n), n_points=np.ones(n, np.int64),
        raw_bytes=np.ones(n, np.int64), encoding=np.array(codes, np.uint8),
        encodings=tuple(
            Encoding("<f8", "<f4", representation=value) for value in representations
        ),
        shared_mz_points=0, polarity=np.zeros(n, np.int8), region=None, origin=(1, 1, 1),
        pixel_size=(1.0, 1.0), pixel_size_source="assumed",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("representations", "codes", "expected"),
    [
        (["profile", "centroid"], [0, 0], "profile"),
        (["profile", "centroid"], [0, 1], None),
        ([None], [0, 0], None),
    ],
)
def test_a_representation_is_said_only_when_all_agree(representations, codes, expected):
    value = acquisition(representations, codes, ([0, 1], [0, 0], [0, 0]))
    assert value.representation == expected


def test_the_shape_of_an_acquisition_is_the_extent_of_its_pixels():
    value = acquisition([None], [0, 0, 0], ([0, 4, 2], [1, 0, 2], [0, 0, 1]))
    assert value.shape == (2, 3, 5)
    assert value.n_spectra == 3
    assert acquisition([None], [], ([], [], [])).shape == (0, 0, 0)


def test_a_source_identity_is_plain_json():
    identity = SourceIdentity((("ibd", 12, "ff"),), "0a", ("sha1", "0b"))
    assert identity.to_json() == {
        "files": [["ibd", 12, "ff"]], "uuid": "0a", "checksum": ["sha1", "0b"]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("<f8", 2.0**-52), ("<f4", 2.0**-23), ("<f2", 2.0**-10), ("<i4", 2.0**-52)],
)
def test_the_precision_is_that_of_the_dtype_or_what_was_rounded_to(dtype, expected):
    none, kind = np.zeros(0, np.int64), np.dtype(dtype)
    batch = RawBatch(np.zeros(0, np.uint8), none, none, none, kind, np.dtype("<f4"), none)
    assert batch.precision == expected
    assert replace(batch, mz_eps=2.0**-12).precision == max(expected, 2.0**-12)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2"])
def test_decoded_spectra_remember_the_precision_of_their_mz(dtype):
    mz, one = np.array([100.0, 101.0], dtype), np.ones(1, np.int64)
    raw = np.concatenate([mz.view(np.uint8), np.ones(2, "<f4").view(np.uint8)])
    batch = RawBatch(raw, one * 0, one * mz.nbytes, one * 2, mz.dtype, np.dtype("<f4"), one)
    spectra = decode(batch)
    wide = RaggedSpectra(np.array([0, 1]), np.array([5.0]), np.array([1.0]))
    for again in (spectra, concatenate([wide, spectra])):
        assert from_ragged(again, np.arange(len(again.indptr) - 1), None).precision == (
            batch.precision
        )
