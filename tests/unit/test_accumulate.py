"""Sums over columns in any pieces, and the placing of parts, against plain loops."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.accumulate import add_by_range, place

COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(COUNTS, st.data())
def test_sums_do_not_depend_on_the_pieces(counts, data):
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    values = np.random.default_rng(0).random(indptr[-1]).astype(np.float32)
    cut = data.draw(st.integers(0, len(values)))
    found = np.ones(len(counts))
    add_by_range(indptr, 0, values[:cut], found)
    add_by_range(indptr, cut, values[cut:], found)
    for column, (first, last) in enumerate(zip(indptr[:-1], indptr[1:], strict=True)):
        expected = 1.0
        for value in values[first:last]:
            expected += float(value)
        assert found[column] == expected


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=30), st.data())
def test_parts_are_placed_in_whatever_unit_their_entries_belong_to(entries, data):
    # Two parts, rows 0-4 and 5-9: one matrix by bin, cut into two units anywhere.
    table = sorted(set(entries))
    counts = np.bincount([bin_ for bin_, _ in table], minlength=7)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    cut = data.draw(st.integers(0, len(table)))
    found = []
    for start, stop in ((0, cut), (cut, len(table))):
        cursor = indptr[:-1] - start
        rows, values = np.full(stop - start, -1, np.int32), np.zeros(stop - start, np.float32)
        for first_row in (0, 5):
            mine = [(bin_, row) for bin_, row in table if first_row <= row < first_row + 5]
            bins, per_bin = np.unique([bin_ for bin_, _ in mine], return_counts=True)
            place(
                bins.astype(np.int32), per_bin.astype(np.int32),
                np.array([row - first_row for _, row in mine], np.uint16),
                np.array([100 * bin_ + row for bin_, row in mine], np.float32),
                first_row, cursor, 0, rows, values,
            )  # fmt: skip
        found += list(zip(rows.tolist(), values.tolist(), strict=True))
    assert found == [(row, 100.0 * bin_ + row) for bin_, row in table]
