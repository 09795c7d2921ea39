"""The kernels' source, built for the CPU, held against the definition and the NumPy backend.

What every backend is tested for is tested here by the same tests; exact laws bit for bit.
"""

import shutil
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.backends.host import HostBackend
from gpuconvert.mass_axis import LAWS
from tests.kernels.emulator import EmulatedBackend
from tests.property.test_resample import (  # noqa: F401 - run here on the emulated backend
    test_a_spectrum_does_not_depend_on_those_beside_it,
    test_backend_agrees_with_the_reference,
    test_bins_ascend_and_values_pass_the_threshold,
    test_counts_are_conserved,
    test_data_on_its_own_grid_is_unchanged,
    test_heights_agree_where_points_lie_on_centres,
    test_the_smallest_masses_and_the_ends_of_the_axis_agree,
    test_zeros_between_peaks_may_be_left_out,
)
from tests.strategies import axes, batches, options
from tests.unit.test_backends import (  # noqa: F401 - run here on the emulated backend
    as_they_are,
    test_a_batch_of_nothing_gives_nothing,
    test_a_cell_edge_snaps_by_the_bin_of_the_point_to_its_left,
    test_a_spectrum_with_a_fault_is_left_empty,
    test_bytes_that_cannot_be_written_are_read,
    test_cell_edges_move_to_the_lower_bin_edge_but_not_half_way,
    test_long_spectra_are_those_of_the_numpy_backend,
    test_neighbours_are_judged_by_the_native_step_at_the_second,
    test_non_zeros_are_sorted_by_bin_and_then_row,
    test_one_mz_array_for_all_gives_what_a_copy_for_each_does,
    test_packed_spectra_give_what_their_points_do,
    test_points_at_one_position_count_as_the_first,
    test_rows_are_those_of_the_batch,
    test_rows_of_one_pixel_keep_their_order,
    test_shared_mz_with_a_fault_is_a_fault_of_every_spectrum,
    test_the_batch_is_left_as_it_was,
    test_the_dtype_of_whole_numbers_does_not_matter,
)

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")


@pytest.fixture(scope="module")
def backend():
    """The emulated backend, for the tests of all backends."""
    return EmulatedBackend()


EXACT = [*(name for name, law in LAWS.items() if law.exact), "listed"]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_column_has_the_bits_of_the_numpy_backend(data):
    axis = data.draw(axes(data.draw(st.sampled_from(EXACT))))
    batch = data.draw(batches(axis))
    chosen = data.draw(options())
    found = EmulatedBackend().resample(batch, axis, chosen)
    wanted = HostBackend().resample(batch, axis, chosen)
    for item in fields(wanted):
        values, expected = getattr(found, item.name), getattr(wanted, item.name)
        assert values.dtype == expected.dtype
        assert values.tobytes() == expected.tobytes(), item.name


BROKEN = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, -0.0, 1e7, 1e31, 5e-324])
ANY_MZ, ANY_COUNT = st.one_of(st.floats(98, 132), BROKEN), st.one_of(st.floats(0, 9), BROKEN)


@settings(max_examples=100, deadline=None)
@given(
    spectra=st.lists(st.lists(st.tuples(ANY_MZ, ANY_COUNT), max_size=5), min_size=1, max_size=5),
    axis=st.sampled_from(EXACT).flatmap(axes),
    chosen=options(),
)
def test_faults_are_those_of_the_numpy_backend(spectra, axis, chosen):
    pairs = [
        (np.array([mz for mz, _ in points]), np.array([count for _, count in points]))
        for points in spectra
    ]
    batch = as_they_are(pairs)
    found = EmulatedBackend().resample(batch, axis, chosen)
    wanted = HostBackend().resample(batch, axis, chosen)
    for name in ("faults", "indptr", "indices", "data", "tic", "outside"):
        assert getattr(found, name).tolist() == getattr(wanted, name).tolist(), name
