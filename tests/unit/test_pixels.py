import numpy as np

from gpuconvert.pixels import first_of_pixel, merge_rows, one_row_per_pixel
from gpuconvert.spectra import Acquisition, CsrBlock, Encoding, SourceIdentity


def _acquisition(x, y, z):
    n = len(x)
    return Acquisition(
        path="a.imzML", format="imzML", identity=SourceIdentity(()),
        x=np.array(x, "i4"), y=np.array(y, "i4"), z=np.array(z, "i4"),
        order=np.arange(n), n_points=np.arange(1, n + 1), raw_bytes=np.arange(n) * 10,
        encoding=np.zeros(n, "u1"), encodings=(Encoding("<f8", "<f4"),), shared_mz_points=0,
        polarity=np.ones(n, "i1"), region=np.arange(n, dtype="i4"), origin=(1, 1, 1),
        pixel_size=(1.0, 1.0), pixel_size_source="given",
    )  # fmt: skip


def test_the_first_spectrum_of_each_pixel_is_found():
    found = first_of_pixel(_acquisition([0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]))
    assert found.tolist() == [True, False, True, False, True]


def test_pixels_in_different_planes_are_different():
    assert first_of_pixel(_acquisition([0, 0], [0, 0], [0, 1])).all()


def test_points_of_a_pixel_add_up_and_the_first_spectrum_stands_for_it():
    merged = one_row_per_pixel(_acquisition([0, 0, 1], [0, 0, 0], [0, 0, 0]))
    assert merged.n_points.tolist() == [3, 3]
    assert merged.order.tolist() == [0, 2]
    assert merged.region.tolist() == [0, 2]
    assert merged.n_spectra == 2


def test_without_duplicates_nothing_is_copied():
    acquisition = _acquisition([0, 1], [0, 0], [0, 0])
    assert one_row_per_pixel(acquisition) is acquisition


def _dense(block, n_rows, n_bins):
    out = np.zeros((n_rows, n_bins))
    for r, row in enumerate(block.rows):
        span = slice(block.indptr[r], block.indptr[r + 1])
        out[row, block.indices[span]] += block.data[span]
    return out


def test_merged_rows_hold_the_sum_of_their_spectra():
    rng = np.random.default_rng(0)
    rows = np.array([0, 1, 1, 1, 3, 4, 4])
    counts = np.array([2, 3, 0, 4, 0, 1, 5])
    indptr = np.r_[0, np.cumsum(counts)]
    indices = np.concatenate([np.sort(rng.choice(8, n, replace=False)) for n in counts])
    data = rng.integers(1, 9, indptr[-1]).astype("f4")
    tic = rng.integers(1, 9, 7).astype("f8")
    block = CsrBlock(rows, indptr, indices.astype("i4"), data, tic, tic / 2, np.zeros(7, "u1"))
    merged = merge_rows(block)
    assert merged.rows.tolist() == [0, 1, 3, 4]
    np.testing.assert_array_equal(_dense(merged, 5, 8), _dense(block, 5, 8))
    np.testing.assert_array_equal(merged.tic, [tic[0], tic[1:4].sum(), tic[4], tic[5:].sum()])
    for r in range(4):
        assert (np.diff(merged.indices[merged.indptr[r] : merged.indptr[r + 1]]) > 0).all()


def test_an_empty_block_stays_empty():
    empty = CsrBlock(
        np.zeros(0, "i8"), np.zeros(1, "i8"), np.zeros(0, "i4"), np.zeros(0, "f4"),
        np.zeros(0), np.zeros(0), np.zeros(0, "u1"),
    )  # fmt: skip
    assert len(merge_rows(empty).rows) == 0
