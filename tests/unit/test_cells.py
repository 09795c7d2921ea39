import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.cells import gather_cells
from gpuconvert.mobility_axis import MobilityAxis
from gpuconvert.spectra import CsrBlock

N_MOBILITY = 3

# A row of a block: its spectrum, its mobility bin, and the m/z bins that it fills.
parted_row = st.tuples(
    st.integers(0, 5), st.integers(0, N_MOBILITY - 1), st.sets(st.integers(0, 8), max_size=5)
)


def block_of(rows):
    counts = [len(bins) for _, _, bins in rows]
    n = sum(counts)
    zero = np.zeros(len(rows))
    return CsrBlock(
        np.array([spectrum * N_MOBILITY + own for spectrum, own, _ in rows], np.int64),
        np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64),
        np.array([b for _, _, bins in rows for b in sorted(bins)], np.int32),
        (np.arange(n) + 0.5).astype(np.float32), zero, zero, zero.astype(np.uint8),
    )  # fmt: skip


@given(
    st.lists(st.lists(parted_row, max_size=6, unique_by=lambda row: row[:2]), max_size=3),
    st.booleans(),
)
def test_every_value_is_in_its_cell(blocks, merge):
    blocks = [sorted(rows, key=lambda row: row[:2]) for rows in blocks]
    output = np.arange(6) // 2 if merge else np.arange(6)
    expected = {}
    for rows in blocks:
        value = 0.5
        for spectrum, own, bins in rows:
            for b in sorted(bins):
                key = (b * N_MOBILITY + own, int(output[spectrum]))
                expected[key] = expected.get(key, 0.0) + value
                value += 1
    found = gather_cells([block_of(rows) for rows in blocks], N_MOBILITY, output)
    cell = np.repeat(found.bins, found.counts)
    got = list(zip(cell.tolist(), found.rows.tolist()))
    assert got == sorted(expected)
    np.testing.assert_array_equal(found.data, [expected[key] for key in got])
    assert (np.diff(found.bins) > 0).all()


def test_mobility_bins_have_equal_widths_and_hold_both_ends():
    axis = MobilityAxis(0.6, 1.6, 4)
    np.testing.assert_allclose(axis.edges, [0.6, 0.85, 1.1, 1.35, 1.6], rtol=1e-15)
    np.testing.assert_allclose(axis.centres, [0.725, 0.975, 1.225, 1.475], rtol=1e-15)
    values = np.array([0.6, 0.849, 0.851, 1.599, 1.6])
    assert axis.bin_of(values).tolist() == [0, 0, 1, 3, 3]
    assert axis.bin_of(np.array([0.1, 9.0])).tolist() == [0, 3]
