"""Counting the samples of a profile."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.unpacking import count_samples
from tests.bruker_writer import planes


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@given(data=st.data())
def test_samples_that_are_not_zero_are_counted(n, data):
    samples = np.zeros(n, np.uint32)
    for at in data.draw(st.lists(st.integers(0, n - 1), max_size=20)):
        # Each of the four bytes may be the one that is not zero.
        samples[at] = 1 << 8 * (at % 4)
    raw = np.frombuffer(planes(samples), np.uint8)
    assert count_samples(raw, n) == np.count_nonzero(samples)
