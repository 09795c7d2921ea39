"""Packed spectra: their points, parts of them, and what is said of damage."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.errors import SourceError
from gpuconvert.spectra import decode, select, unpack
from tests.bruker_reference import mz_of_index, packed_points
from tests.bruker_writer import planes
from tests.frames import (
    ALL_MODELS,
    CONTENTS,
    N_SAMPLES,
    ROWS,
    pack_frames,
    packed_batches,
)

EXACT = 1e-12
"""Relative error of m/z: a few roundings of float64, and those of the bisection."""


def spectra_of(batch):
    """Return (m/z, intensities) of every spectrum, as lists."""
    found = decode(batch)
    return [
        (found.mz[a:b].tolist(), found.intensity[a:b].tolist())
        for a, b in zip(found.indptr[:-1], found.indptr[1:])
    ]


def slow_mz(index, packed, frame):
    row = ROWS[packed.model[frame]]
    if row is None:
        root = 9.9 + 1.6 / N_SAMPLES * index
        return root * root
    shift = (packed.factor[frame] - 1) / (1e-6 * row["dC1"])
    return mz_of_index(index, row, row["T1"] - shift, row["T2"])


@given(data=st.data())
@pytest.mark.parametrize("content", ["indices", "samples", "scans"])
def test_the_points_are_those_of_the_slow_version(content, data):
    batch = data.draw(packed_batches(content, ALL_MODELS))
    wanted = packed_points(batch)
    found = spectra_of(batch)
    assert len(found) == len(wanted)
    for (mz, intensity), (frame, points) in zip(found, wanted, strict=True):
        expected = [slow_mz(index, batch.packed, frame) for index in points]
        np.testing.assert_allclose(mz, expected, rtol=EXACT)
        assert intensity == np.array(list(points.values()), np.float32).tolist()


def test_the_chord_has_the_bits_of_its_formula():
    index = [0, 1, 63, 64, N_SAMPLES - 1]
    ((mz, _),) = spectra_of(pack_frames("samples", [dict.fromkeys(index, 3)]))
    assert mz == [(9.9 + 1.6 / N_SAMPLES * at) ** 2 for at in index]


@given(data=st.data(), content=CONTENTS)
def test_any_spectra_can_be_taken_alone(data, content):
    batch = data.draw(packed_batches(content))
    n = len(batch.rows)
    keep = data.draw(st.lists(st.integers(0, max(n - 1, 0)), unique=True, max_size=n).map(sorted))
    part = select(batch, np.array(keep, np.int64))
    packed, raw = part.packed.trimmed(part.raw)
    assert len(raw) <= len(batch.raw)
    trimmed = replace(part, packed=packed, raw=raw)
    whole = spectra_of(batch)
    assert spectra_of(part) == spectra_of(trimmed) == [whole[k] for k in keep]
    assert part.rows.tolist() == batch.rows[keep].tolist()
    # No frame is carried along of which nothing is wanted.
    assert set(packed.owner[packed.owner >= 0]) <= set(range(len(keep)))
    assert len(packed.begin) <= len(keep)
    assert part.most_points == packed.n_peaks.sum() <= batch.most_points


def test_points_are_no_more_than_was_said():
    frame = [([1, 5], [2, 3]), ([], []), ([5, 9], [4, 1])]
    batch = pack_frames("scans", [frame])
    assert batch.n_points.tolist() == [4]
    points = unpack(batch)
    assert points.n_points.tolist() == [3]
    assert points.packed is None
    assert unpack(points) is points


def test_sums_leave_32_bits_and_are_rounded_once():
    most = 2**32 - 1
    batch = pack_frames("scans", [[([7], [most])] * 5], scale=[0.1])
    ((_, intensity),) = spectra_of(batch)
    assert intensity == [float(np.float32(5 * most * 0.1))]


def test_the_scans_of_a_frame_may_belong_to_several_spectra():
    frame = [([1, 2], [10, 20]), ([1], [1]), ([], []), ([2], [5])]
    batch = pack_frames("scans", [frame], [[1, 0, 0, 1]], 3)
    found = spectra_of(batch)
    assert [intensity for _, intensity in found] == [[1.0], [10.0, 25.0], []]
    assert found[0][0] == found[1][0][:1]


GOOD = [([3], [1]), ([4, 6], [2, 3])]
DAMAGE = [
    ("scans", 1, 8, "is damaged: its scans claim more peaks than the frame has; copy it again"),
    ("scans", 2, 0, "is damaged: a peak lies outside the digitizer's range; copy it again"),
    ("scans", 6, N_SAMPLES, "is damaged: a peak lies outside the digitizer's range; copy"),
    ("scans", 6, 2**32 - 1, "is damaged: a peak lies outside the digitizer's range; copy"),
    ("samples", 9, 1, "has other samples than when it was opened; it changed while it was read: "),
    ("samples", 3, 0, "has other samples than when it was opened; it changed while it was read: "),
]
"""Content, word to change in every frame but the first, its value, and what is said."""


BAD_INDICES = [-0.25, N_SAMPLES, float("nan")]


def beyond(index):
    """Return three frames of indices, the last two with a peak where there is no sample."""
    good, bad = ([1.5, 9.0], [1, 2]), ([1.5, index, 9.0], [1, 2, 3])
    return pack_frames("indices", [good, bad, bad])


@pytest.mark.parametrize("index", BAD_INDICES)
def test_a_peak_beyond_the_digitizer_is_damage_in_line_spectra_too(index):
    words = "frame 12 is damaged: a peak lies outside the digitizer's range; copy it again"
    with pytest.raises(SourceError, match=words):
        unpack(beyond(index))


def damaged(content, word, value):
    """Return three frames, a word changed in the last two."""
    frames = [GOOD] * 3 if content == "scans" else [{3: 1, 4: 2}] * 3
    batch = pack_frames(content, frames, gap=0)
    raw = batch.raw.copy()
    n = len(GOOD) + 6 if content == "scans" else N_SAMPLES
    for begin in batch.packed.begin[1:]:
        raw[begin + word : begin + 4 * n : n] = np.frombuffer(planes([value]), np.uint8)
    return replace(batch, raw=raw)


@pytest.mark.parametrize(("content", "word", "value", "words"), DAMAGE)
def test_damage_is_told_of_the_first_frame_that_has_it(content, word, value, words):
    with pytest.raises(SourceError, match=rf"^a.d/analysis.bin: frame 12 {words}"):
        unpack(damaged(content, word, value))
