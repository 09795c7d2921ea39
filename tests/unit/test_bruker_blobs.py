import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress, decompress

from gpuconvert.readers import bruker_blobs as blobs
from tests import bruker_writer
from tests.bruker_writer import Frame, lzf_blob, lzf_compress, planes, tdf_blob

N_SAMPLES = 3000

# Gaps of no, one and many indices; intensities beyond 16 and 31 bits; empty scans.
scan = st.lists(st.integers(0, N_SAMPLES - 1), unique=True, max_size=30).map(sorted)
scans = st.lists(scan, min_size=1, max_size=8)
VALUES = np.array([1, 2, 255, 256, 70_000, 2**31 - 1])


def frame_of(indices):
    """A frame whose intensities follow from index and scan."""
    return Frame(
        scans=[
            (index, [int(VALUES[(at + s) % len(VALUES)]) for at in index])
            for s, index in enumerate(indices)
        ]
    )


def expected(frame):
    scan = np.repeat(np.arange(len(frame.scans)), [len(index) for index, _ in frame.scans])
    index, intensity = (
        np.concatenate([np.array(pair[k], np.int64) for pair in frame.scans]) for k in (0, 1)
    )
    return scan, index, intensity


def room(n):
    return np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n, np.uint32)


def words_of(frame):
    """The uncompressed words of a frame as byte planes."""
    blob = tdf_blob(frame)
    return np.frombuffer(decompress(blob[8:]), np.uint8)


@given(scans)
def test_scans_come_back_as_they_were(indices):
    frame = frame_of(indices)
    scan, index, intensity = expected(frame)
    if not len(scan):
        return
    found = room(len(scan))
    assert blobs.split_scans(words_of(frame), len(indices), len(scan), *found) == len(scan)
    for got, want in zip(found, (scan, index, intensity)):
        np.testing.assert_array_equal(got, want)


@given(scans)
def test_lzf_scans_come_back_as_they_were(indices):
    frame = frame_of(indices)
    scan, index, intensity = expected(frame)
    found = room(len(scan))
    blob = np.frombuffer(lzf_blob(frame), np.uint8)
    buffer = np.empty(8 * len(scan) + 8, np.uint8)
    count = blobs.split_lzf_scans(blob, len(indices), len(scan), buffer, *found)
    assert count == len(scan)
    for got, want in zip(found, (scan, index, intensity)):
        np.testing.assert_array_equal(got, want)


@given(scans)
def test_scans_add_up_by_index(indices):
    frame = frame_of(indices)
    _, tof, intensity = expected(frame)
    sums, seen = np.zeros(N_SAMPLES, np.int64), np.zeros(N_SAMPLES // 64 + 1, np.uint64)
    index, total = np.zeros(len(tof)), np.zeros(len(tof), np.float32)
    count = blobs.add_scans(tof.astype("i4"), intensity.astype("u4"), 0.4, sums, seen, index, total)
    want = np.bincount(tof, intensity.astype(float), N_SAMPLES)
    np.testing.assert_array_equal(index[:count], np.unique(tof))
    np.testing.assert_array_equal(total[:count], (0.4 * want[np.unique(tof)]).astype("f4"))
    assert not sums.any()
    assert not seen.any()


def test_an_index_beyond_the_digitizer_leaves_the_sums_zero():
    sums, seen = np.zeros(100, np.int64), np.zeros(2, np.uint64)
    tof = np.array([5, 99, 100], np.int32)
    index, total = np.zeros(3), np.zeros(3, np.float32)
    count = blobs.add_scans(tof, np.ones(3, np.uint32), 1.0, sums, seen, index, total)
    assert count == blobs.BAD_INDEX
    assert not sums.any()
    assert not seen.any()


@pytest.mark.parametrize(
    ("packed", "plain"),
    [
        (b"", b""),
        (b"\x02abc", b"abc"),
        # A copy that reaches into itself: "a", then three more from one byte back.
        (b"\x00a\x20\x00", b"aaaa"),
        (b"\x03abcd\x40\x03", b"abcdabcd"),
        # Length 7 in the upper bits: the next byte adds to it, 9 + 5 bytes in all.
        (b"\x01xy\xe0\x05\x01", b"xy" + b"xy" * 7),
    ],
)
def test_lzf_by_hand(packed, plain):
    target = np.zeros(64, np.uint8)
    size = blobs.inflate_lzf(np.frombuffer(packed, np.uint8), target)
    assert target[:size].tobytes() == plain


@given(st.lists(st.integers(0, 3), max_size=600))
def test_lzf_inflates_what_was_compressed(values):
    plain = bytes(values)
    target = np.zeros(len(plain), np.uint8)
    assert blobs.inflate_lzf(np.frombuffer(lzf_compress(plain), np.uint8), target) == len(plain)
    assert target.tobytes() == plain


def liblzf(data):
    """Return `data` as liblzf packs it, which HDF5's filter of that name is."""
    with h5py.File("none", "w", driver="core", backing_store=False) as file:
        stored = file.create_dataset(
            "x", data=np.frombuffer(data, np.uint8), chunks=(len(data),), compression="lzf"
        )
        left_out, packed = stored.id.read_direct_chunk((0,))
    assert not left_out, "the library found nothing to compress"
    return packed


def test_lzf_of_the_library_itself_is_read():
    rng = np.random.default_rng(6)
    kinds = set()
    for size in (40, 300, 5000, 60_000):
        # Tokens as scans have them: gaps and counts, many of which recur near and far.
        steps = np.where(
            rng.random(size) < 0.5, -rng.integers(1, 40, size), rng.integers(1, 30, size)
        )
        steps[size // 3 : size // 2] = 7
        plain = steps.astype("<i4").tobytes()
        packed = liblzf(plain)
        target = np.zeros(len(plain), np.uint8)
        assert blobs.inflate_lzf(np.frombuffer(packed, np.uint8), target) == len(plain)
        assert target.tobytes() == plain
        kinds |= {"literal" if packed[0] < 32 else "copy", "long" if 0xE0 in packed else ""}
    assert {"literal", "long"} <= kinds


def test_a_frame_packed_by_the_library_is_read(monkeypatch):
    monkeypatch.setattr(bruker_writer, "lzf_compress", liblzf)
    index = np.arange(0, 3000, 3)
    frame = Frame(scans=[(index[k:], np.full(len(index) - k, 1 + k)) for k in range(4)])
    scan, place, intensity = expected(frame)
    blob = np.frombuffer(lzf_blob(frame), np.uint8)
    buffer, found = np.zeros(8 * (len(scan) + 1), np.uint8), room(len(scan))
    assert blobs.split_lzf_scans(blob, 4, len(scan), buffer, *found) == len(scan)
    for got, want in zip(found, (scan, place, intensity)):
        np.testing.assert_array_equal(got, want)


@given(st.binary(max_size=60))
def test_damaged_lzf_never_leaves_its_target(packed):
    target = np.zeros(50, np.uint8)
    guarded = target[:40]
    size = blobs.inflate_lzf(np.frombuffer(packed, np.uint8), guarded)
    assert size == blobs.BAD_LZF or 0 <= size <= 40
    assert not target[40:].any()


def test_counts_that_exceed_the_frame_are_told():
    frame = frame_of([[1, 2, 3], [4]])
    words = words_of(frame).copy()
    n = 2 + 2 * 4
    words[1] = 20
    assert blobs.split_scans(words, 2, 4, *room(4)) == blobs.BAD_COUNTS
    assert len(words) == 4 * n


@pytest.mark.parametrize("n", [1, 63, 64, 65, 1000])
@given(data=st.data())
def test_samples_that_are_not_zero_are_found(n, data):
    samples = np.zeros(n, np.uint32)
    for at in data.draw(st.lists(st.integers(0, n - 1), max_size=20)):
        samples[at] = VALUES[at % len(VALUES)]
    raw = np.frombuffer(planes(samples), np.uint8)
    filled = np.flatnonzero(samples)
    index, intensity = np.zeros(len(filled)), np.zeros(len(filled), np.float32)
    assert blobs.count_samples(raw, n) == len(filled)
    assert blobs.compact_samples(raw, n, index, intensity) == len(filled)
    np.testing.assert_array_equal(index, filled)
    np.testing.assert_array_equal(intensity, samples[filled].astype("f4"))


def test_more_samples_than_room_are_told_and_not_written():
    raw = np.frombuffer(planes(np.ones(70, np.uint32)), np.uint8)
    index, intensity = np.zeros(5), np.zeros(6, np.float32)
    assert blobs.compact_samples(raw, 70, index, intensity[:5]) == 6
    assert intensity[5] == 0


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_791, 65_792, 300_000])
def test_the_inflated_size_is_read_from_the_header(size):
    packed = compress(bytes(size), 1)
    blob = np.frombuffer(bytes(8) + packed, np.uint8).copy()
    blob[:4] = np.array([len(blob)], "<u4").view(np.uint8)
    at, stored = np.array([0]), np.array([len(blob)])
    assert blobs.read_heads(blob, at, stored, 0)[0, blobs.FIRST_CONTENT] == size
    blob[4:8] = np.array([len(packed)], "<u4").view(np.uint8)
    head = blobs.read_heads(blob, at, stored, 1)[0]
    assert head.tolist() == [len(blob), len(packed), size, blobs.NOT_ZSTD]


def test_a_frame_without_a_header_has_no_size():
    assert blobs.read_heads(np.zeros(4, np.uint8), np.array([0]), np.array([4]), 0)[0].tolist() == [
        0,
        0,
        blobs.NOT_ZSTD,
        blobs.NOT_ZSTD,
    ]
