"""Which points of a profile stay: every backend, every dtype, against two slow steps."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.exporting import BATCH_BYTES
from gpuconvert.mzpeak_spectra import Tally, source_points
from gpuconvert.mzpeak_tables import SignalFormat
from tests.kernels.slow import null_mask, strip
from tests.strategies import pack

FLOATS = (0.0, 0.0, 0.0, 0.0, -0.0, 1.0, 7.5, -1.0, np.nan, np.inf)
WHOLE = (0, 0, 0, 0, 1, -1)
VALUES = {
    # The smallest number of a type is not zero: a device that flushes it would say so.
    "f4": (*FLOATS, 1e-45, -1e-45),
    "f8": (*FLOATS, 5e-324, -5e-324),
    # Bits that a float would take for minus zero; words that are zero in one half only.
    "i4": (*WHOLE, -(2**31), 2**31 - 1),
    "i8": (*WHOLE, -(2**63), 2**63 - 1, 2**53 + 1, 2**31, 2**32),
}


def columns(spectra, dtype):
    """Spectra one after the other: bounds, values, and numbers of the rows."""
    indptr = np.cumsum([0, *map(len, spectra)])
    values = [np.array(spectrum, dtype) for spectrum in spectra]
    return indptr, np.concatenate([np.zeros(0, dtype), *values]), np.arange(len(spectra))


def stripped(backend, spectra, dtype):
    """Return (places, marks) of each spectrum."""
    indptr, values, rows = columns(spectra, dtype)
    found = backend.strip_zeros(indptr, values, rows)
    assert [array.dtype for array in found] == [np.int64, bool, np.int64]
    assert len(found.places) == len(found.marked) == found.indptr[-1]
    return [
        ((found.places[begin:end] - first).tolist(), found.marked[begin:end].tolist())
        for first, begin, end in zip(indptr, found.indptr, found.indptr[1:])
    ]


@pytest.mark.parametrize("dtype", VALUES)
@given(data=st.data())
def test_zero_runs_are_stripped_and_marked_as_in_two_steps(backend, dtype, data):
    values = st.lists(st.sampled_from(VALUES[dtype]), max_size=14)
    spectra = data.draw(st.lists(values, min_size=1, max_size=6))
    wanted = []
    for spectrum in spectra:
        kept = strip(spectrum)
        wanted.append((kept, null_mask([spectrum[i] for i in kept])))
    assert stripped(backend, spectra, dtype) == wanted


@pytest.mark.parametrize("dtype", VALUES)
def test_spectra_of_nothing_but_zeros_leave_nothing(backend, dtype):
    assert stripped(backend, [[], [0], [0] * 9, []], dtype) == [([], [])] * 4


@given(spectrum=st.lists(st.sampled_from(VALUES["f4"]), max_size=40))
def test_marks_come_in_pairs_inside_a_spectrum(backend, spectrum):
    ((_, marked),) = stripped(backend, [spectrum], "f4")
    runs = "".join("x" if mark else "." for mark in marked).split(".")
    assert {len(run) for run in runs} <= {0, 2}
    assert not marked or not (marked[0] or marked[-1])


@pytest.mark.real_data
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_zero_runs_of_the_published_cases(backend, shared_data, dtype):
    vectors = json.loads((shared_data / "mzpeak" / "vectors.json").read_text())
    cases = vectors["strip_and_mask"]
    spectra = [
        [np.nan if value in (None, "nan") else value for value in case["intensity"]]
        for case in cases
    ]
    for case, (kept, marked) in zip(cases, stripped(backend, spectra, dtype), strict=True):
        assert kept == case["kept_indices"], case["name"]
        assert marked == case["pair_mask_after_strip"], case["name"]


@pytest.mark.parametrize("mend", [False, True])
@pytest.mark.parametrize(("mz_dtype", "dtype"), [("<f4", "<f4"), ("<f8", "<f4"), ("<f8", "<i8")])
@pytest.mark.parametrize("filled", [0.1, 1.0])
def test_a_batch_takes_no_more_memory_than_is_planned_for(backend, mz_dtype, dtype, filled, mend):
    n_spectra, n_points = 20, 5000
    rng = np.random.default_rng(1)
    mz = np.sqrt(np.linspace(1e4, 1e6, n_points))
    pairs = [(mz, rng.random(n_points) < filled) for _ in range(n_spectra)]
    batch = pack(pairs, mz_dtype, dtype)
    if mend:
        raw = batch.raw.copy()
        raw[:8] = 255
        batch = replace(batch, raw=raw)
    form = SignalFormat("point", np.dtype(mz_dtype), np.dtype(dtype), True, "split", False)
    given = (batch, None, form, Tally.of(n_spectra))
    chosen = {"backend": backend, "strip": True, "mend": mend}
    source_points(*given, **chosen)
    tracemalloc.start()
    points = source_points(*given, **chosen)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert points.mz.nbytes < peak < BATCH_BYTES * batch.n_points.sum()
