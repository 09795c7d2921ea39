"""Faulty points are dropped and sorted, and what was done is said."""

import numpy as np

from gpuconvert.mass_axis import of_law
from gpuconvert.repairs import repair
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import RawBatch, decode, describe_fault, find_faults, from_ragged
from tests.frames import pack_frames
from tests.unit.test_spectra import INF, NAN, ragged


def test_repair_drops_and_sorts_what_is_faulty_and_says_so():
    spectra = ragged(
        ([1.0, 2.0], [10.0, 20.0]),
        ([3.0, 1.0, 2.0, 1.0], [30.0, 11.0, 20.0, 12.0]),
        ([1.0, NAN, 5.0, 4.0], [-1.0, 2.0, 50.0, INF]),
    )
    repaired, done = repair(from_ragged(spectra, np.array([2, 3, 5]), "profile"))
    decoded = decode(repaired)
    assert decoded.indptr.tolist() == [0, 2, 6, 7]
    assert decoded.mz.tolist() == [1.0, 2.0, 1.0, 1.0, 2.0, 3.0, 5.0]
    # Equal m/z keep their old order.
    assert decoded.intensity.tolist() == [10.0, 20.0, 11.0, 12.0, 20.0, 30.0, 50.0]
    assert (done.dropped, done.sorted) == (3, 1)
    assert repaired.rows.tolist() == [2, 3, 5]
    assert repaired.representation == "profile"
    assert not find_faults(decoded).any()


def test_repair_leaves_sound_spectra_alone():
    spectra = ragged(([1.0, 2.0], [0.0, 3.0]), ([], []))
    repaired, done = repair(from_ragged(spectra, np.arange(2), None))
    assert decode(repaired).mz.tolist() == [1.0, 2.0]
    assert (done.dropped, done.sorted) == (0, 0)


def test_packed_spectra_are_repaired_and_described_as_well():
    frame = [([1, 5], [2, 3]), ([5], [4])]
    batch = pack_frames("scans", [frame, frame], model=[1, 1], factor=[1.0, NAN])
    assert describe_fault(batch, 1).startswith("m/z is not a number between 0 and 1e+06 at point 0")
    repaired, done = repair(batch)
    assert (done.dropped, done.sorted) == (2, 0)
    assert np.diff(decode(repaired).indptr).tolist() == [2, 0]
    assert decode(repaired).intensity.tolist() == [2.0, 7.0]


def test_repair_of_one_spectrum_changes_no_number_of_another(backend):
    """float32 m/z on the grid of the axis stay on it, whatever else is in their batch."""
    axis = of_law("linear-tof", 100.0, 1000.0, du=1e-3)
    grid = (axis.u0 + (np.arange(axis.n_bins) + 0.5) * axis.du) ** 2
    slope, first = np.polyfit(grid[1:], np.diff(grid), 1)
    mz = grid.astype("<f4")
    counts = np.where(np.arange(len(mz)) // 7 % 3 == 0, 5, 0).astype("<f4")
    faulty = np.where(np.arange(len(mz)) == 9, -1, counts).astype("<f4")
    raw = np.concatenate([values.view(np.uint8) for values in (mz, counts, mz, faulty)])
    at = np.arange(2) * 2 * mz.nbytes
    batch = RawBatch(
        raw, at, at + mz.nbytes, np.full(2, len(mz)), mz.dtype, counts.dtype, np.arange(2),
        "profile",
    )  # fmt: skip
    options = ResampleOptions("pchip", spacing=SpacingModel(float(first), float(slope)))
    alone = backend.resample(batch, axis, options)
    assert alone.faults.tolist() == [0, 8]
    repaired = backend.resample(repair(batch)[0], axis, options)
    own = slice(0, alone.indptr[1])
    assert own.stop == np.count_nonzero(counts)
    assert repaired.indptr[1] == own.stop
    np.testing.assert_array_equal(repaired.indices[own], alone.indices[own])
    np.testing.assert_array_equal(repaired.data[own], alone.data[own])
