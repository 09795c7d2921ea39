"""Zero runs, images and sorting: the kernels that no backend test reaches."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpuconvert.backends.launches import by_bin, halve_image, strip_zero_runs
from gpuconvert.spectra import CsrBlock
from gpuconvert.zero_runs import DROPPED, MARKED
from gpuconvert.zero_walk import zero_roles
from tests.kernels.emulator import EmulatedQueue
from tests.kernels.slow import half, null_mask, strip

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")

# Minus zero is zero; what is no number, the smallest number and negative ones are not.
INTENSITIES = st.sampled_from([0.0, 0.0, 0.0, 0.0, -0.0, 1.0, 7.5, 5e-324, -1.0, float("nan")])


def stripped(spectra):
    """Return (kept places, null mask) per spectrum, by the kernels."""
    offset = np.cumsum([0, *map(len, spectra)]).astype(np.int64)
    flat = np.array([value for spectrum in spectra for value in spectrum], np.float64)
    places, null, indptr = strip_zero_runs(EmulatedQueue(), flat, offset)
    assert null.dtype == bool
    return [
        ((places[begin:end] - offset[s]).tolist(), null[begin:end].tolist())
        for s, (begin, end) in enumerate(zip(indptr[:-1], indptr[1:], strict=True))
    ]


@given(spectra=st.lists(st.lists(INTENSITIES, max_size=14), max_size=6))
def test_zero_runs_are_stripped_and_marked_as_in_two_steps(spectra):
    wanted = []
    for spectrum in spectra:
        kept = strip(spectrum)
        wanted.append((kept, null_mask([spectrum[i] for i in kept])))
    assert stripped(spectra) == wanted


@given(spectra=st.lists(st.lists(INTENSITIES, max_size=14), max_size=6))
def test_kernels_and_the_walk_of_the_processor_agree(spectra):
    indptr = np.cumsum([0, *map(len, spectra)]).astype(np.int64)
    flat = np.array([value for spectrum in spectra for value in spectrum], np.float64)
    roles = zero_roles(indptr, flat)
    for s, (kept, null) in enumerate(stripped(spectra)):
        own = roles[indptr[s] : indptr[s + 1]]
        assert np.flatnonzero(own != DROPPED).tolist() == kept
        assert (own[own != DROPPED] == MARKED).tolist() == null


@given(spectrum=st.lists(INTENSITIES, max_size=40))
def test_nulls_come_in_pairs_inside_a_spectrum(spectrum):
    ((_, null),) = stripped([spectrum])
    runs = "".join("x" if bit else "." for bit in null).split(".")
    assert {len(run) for run in runs} <= {0, 2}
    assert not null or not (null[0] or null[-1])


@pytest.mark.real_data
def test_zero_runs_of_the_published_cases(shared_data):
    cases = json.loads((shared_data / "mzpeak" / "vectors.json").read_text())["strip_and_mask"]
    intensities = [
        [float("nan") if value is None else float(value) for value in case["intensity"]]
        for case in cases
    ]
    for case, (kept, null) in zip(cases, stripped(intensities), strict=True):
        assert kept == case["kept_indices"], case["name"]
        assert null == case["pair_mask_after_strip"], case["name"]


SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7))


@given(
    image=st.one_of(
        arrays.arrays(np.uint8, SHAPES),
        arrays.arrays(np.uint16, SHAPES),
        arrays.arrays(np.float32, SHAPES, elements=st.integers(-(2**20), 2**20).map(float)),
    )
)
def test_an_image_is_halved_by_exact_means(image):
    found = halve_image(EmulatedQueue(), image)
    assert found.dtype == image.dtype
    wanted = [half(channel.tolist()) for channel in image]
    assert found.tolist() == np.array(wanted, image.dtype).tolist()


def test_an_image_of_nothing_stays_nothing():
    assert halve_image(EmulatedQueue(), np.zeros((2, 0, 5), np.uint8)).shape == (2, 0, 3)


def test_places_beyond_32_bits_keep_their_order():
    # The keys of 2^33 values: bins above, places below, nothing lost at either end.
    bits = np.int32(34)
    queue = EmulatedQueue()
    bins = np.array([0, 2, 999_999], np.int32)
    key = np.zeros(3, np.uint64)
    queue.launch("bin_keys", 3, bins, np.int64(3), bits, key)
    assert key.tolist() == [0, (2 << 34) + 1, (999_999 << 34) + 2]
    late = np.array([5, (7 << 34) + 2**33, (7 << 34) + 2**33 + 1], np.uint64)
    offset = np.zeros(9, np.int64)
    queue.launch("bin_offsets", 9, late, np.int64(3), bits, np.int64(8), offset)
    assert offset.tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 3]


def test_a_block_of_no_values_has_no_bins():
    none = np.zeros(2)
    block = CsrBlock(
        np.arange(2), np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), none,
        none, none.astype(np.uint8),
    )  # fmt: skip
    found = by_bin(EmulatedQueue(), block, 4)
    assert [len(found.bins), found.indptr.tolist(), len(found.data)] == [0, [0], 0]
