"""Faulty points are dropped and sorted, and what was done is said."""

import numpy as np

from gpuconvert.repairs import repair
from gpuconvert.spectra import decode, describe_fault, find_faults, from_ragged
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
