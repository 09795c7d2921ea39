"""Packed spectra: the kernels that find their points, held against those of the processor."""

import re
import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.backends import frame_launches, launches
from gpuconvert.backends.host import HostBackend
from gpuconvert.errors import SourceError
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import decode, select, unpack
from tests.frames import ALL_MODELS, CONTENTS, N_SAMPLES, pack_frames, packed_batches
from tests.kernels.emulator import EmulatedQueue, KeptQueue
from tests.strategies import batches, make_axis
from tests.unit.test_packed import BAD_INDICES, DAMAGE, beyond, damaged

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")

AXIS = make_axis("linear-tof", 300)


def by_kernels(batch):
    """Return the points of a packed batch as the kernels leave them, and what they read."""
    points, said = frame_launches.unpack(EmulatedQueue(), batch, batch.packed)
    raw = np.zeros(0, np.uint8) if points is None else points
    assert len(raw) == 12 * said.n_points.sum()
    return decode(replace(said, raw=raw))


def assert_equal(found, wanted):
    for name in ("indptr", "mz", "intensity"):
        assert getattr(found, name).tobytes() == getattr(wanted, name).tobytes(), name


@pytest.mark.parametrize("content", ["indices", "samples", "scans"])
@given(data=st.data())
def test_points_have_the_bits_of_the_processor(content, data):
    batch = data.draw(packed_batches(content))
    assert_equal(by_kernels(batch), decode(batch))


# The exponential of model 2 is not rounded alike by all libraries: 1 in the last place of a
# correction far smaller than m/z.
MODEL_2 = 3e-16


@given(batch=packed_batches("samples", ALL_MODELS))
def test_the_second_model_is_that_of_the_processor_to_its_last_bit(batch):
    found, wanted = by_kernels(batch), decode(batch)
    assert found.intensity.tobytes() == wanted.intensity.tobytes()
    np.testing.assert_allclose(found.mz, wanted.mz, rtol=MODEL_2)


@given(data=st.data(), content=CONTENTS)
def test_points_of_a_part_are_those_of_the_whole(data, content):
    batch = data.draw(packed_batches(content))
    n = len(batch.rows)
    keep = data.draw(st.lists(st.integers(0, max(n - 1, 0)), unique=True, max_size=n).map(sorted))
    part = select(batch, np.array(keep, np.int64))
    packed, raw = part.packed.trimmed(part.raw)
    assert_equal(by_kernels(replace(part, packed=packed, raw=raw)), decode(part))


@pytest.mark.parametrize("content", ["indices", "samples", "scans", None])
@given(data=st.data())
def test_memory_of_one_name_is_not_needed_twice_at_a_time(content, data):
    queue, options = KeptQueue(), ResampleOptions("pchip")
    for _ in range(2):
        batch = data.draw(packed_batches(content) if content else batches(AXIS))
        found = launches.resample(queue, batch, AXIS, options)
        wanted = HostBackend().resample(batch, AXIS, options)
        for item in fields(wanted):
            assert getattr(found, item.name).tobytes() == getattr(wanted, item.name).tobytes()


EVERY = np.arange(N_SAMPLES)
EMPTY = ([], [])


@pytest.mark.parametrize(
    ("content", "frames"),
    [
        ("samples", [{}, {0: 1}, {N_SAMPLES - 1: 2**32 - 1}, {}]),
        ("samples", [dict.fromkeys(range(N_SAMPLES), 7)]),
        ("scans", [[EMPTY] * 20 + [([0, N_SAMPLES - 1], [0, 2**32 - 1])] + [EMPTY] * 300]),
        ("scans", [[(EVERY, EVERY)] * 40, [(EVERY[:1], [1])]]),
        ("indices", [(EVERY, EVERY)] * 3),
    ],
)
def test_full_and_empty_frames(content, frames):
    batch = pack_frames(content, frames)
    assert_equal(by_kernels(batch), decode(batch))


def test_a_batch_without_frames_has_no_points():
    batch = pack_frames("scans", [], n_spectra=3)
    assert by_kernels(batch).indptr.tolist() == [0] * 4


@pytest.mark.parametrize(("content", "word", "value", "words"), DAMAGE)
def test_damage_is_told_in_the_same_sentence(content, word, value, words):
    batch = damaged(content, word, value)
    with pytest.raises(SourceError) as told:
        unpack(batch)
    with pytest.raises(SourceError, match=f"^{re.escape(str(told.value))}$"):
        by_kernels(batch)


@pytest.mark.parametrize("index", BAD_INDICES)
def test_a_peak_beyond_the_digitizer_is_told_in_the_same_sentence(index):
    with pytest.raises(SourceError) as told:
        unpack(beyond(index))
    with pytest.raises(SourceError, match=f"^{re.escape(str(told.value))}$"):
        by_kernels(beyond(index))


@given(
    batch=packed_batches("scans").filter(lambda batch: len(batch.packed.begin)),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_any_byte_of_scans_may_be_wrong(batch, changes):
    raw = batch.raw.copy()
    for at, value in changes:
        raw[at % len(raw)] = value
    batch = replace(batch, raw=raw)
    try:
        wanted = decode(batch)
    except SourceError as error:
        with pytest.raises(SourceError, match=f"^{re.escape(str(error))}$"):
            by_kernels(batch)
    else:
        assert_equal(by_kernels(batch), wanted)
