"""Zero runs, images and sorting: the kernels that resampling does not reach."""

import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gpuconvert.backends.launches import by_bin, halve_image
from gpuconvert.spectra import CsrBlock
from tests.kernels.emulator import EmulatedBackend, EmulatedQueue
from tests.kernels.slow import half
from tests.property.test_strip_zeros import (  # noqa: F401 - run here on the emulated backend
    test_marks_come_in_pairs_inside_a_spectrum,
    test_spectra_of_nothing_but_zeros_leave_nothing,
    test_zero_runs_are_stripped_and_marked_as_in_two_steps,
    test_zero_runs_of_the_published_cases,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")


@pytest.fixture(scope="module")
def backend():
    """The emulated backend, for the tests of all backends."""
    return EmulatedBackend()


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
