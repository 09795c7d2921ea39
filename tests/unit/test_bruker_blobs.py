import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import compress, decompress

from gpuconvert.readers import bruker_blobs as blobs
from tests import bruker_writer
from tests.bruker_writer import Frame, lzf_blob, lzf_compress, tdf_blob

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


def words_of(frame):
    """The uncompressed words of a frame as byte planes."""
    blob = tdf_blob(frame)
    return np.frombuffer(decompress(blob[8:]), np.uint8)


def packed_scans(frame, n_peaks):
    """Return what the LZF of a frame becomes, and its words."""
    n_scans = len(frame.scans)
    words = np.full(4 * (n_scans + 2 * n_peaks), 255, np.uint8)
    buffer = np.empty(8 * n_peaks + 8, np.uint8)
    blob = np.frombuffer(lzf_blob(frame), np.uint8)
    return blobs.pack_lzf_scans(blob, n_scans, n_peaks, buffer, words), words


@given(scans)
def test_lzf_becomes_the_words_of_the_other_compression(indices):
    frame = frame_of(indices)
    n_peaks = sum(map(len, indices))
    if not n_peaks:
        return
    found, words = packed_scans(frame, n_peaks)
    assert found == n_peaks
    np.testing.assert_array_equal(words, words_of(frame))


@pytest.mark.parametrize("n_peaks", [3, 5])
def test_another_number_of_peaks_in_lzf_is_told(n_peaks):
    found, _ = packed_scans(frame_of([[1, 2, 3], [4]]), n_peaks)
    assert found == blobs.BAD_PEAKS


def test_gaps_in_lzf_that_no_word_holds_are_told():
    gaps = np.array([-(2**31), -(2**31), 7], "<i4").tobytes()
    scan = lzf_compress(gaps)
    blob = np.array([0, 1, 16, 16 + len(scan)], "<u4").tobytes() + scan
    buffer, words = np.empty(64, np.uint8), np.zeros(12, np.uint8)
    found = blobs.pack_lzf_scans(np.frombuffer(blob, np.uint8), 1, 1, buffer, words)
    assert found == blobs.BAD_LZF


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
    n_peaks = sum(len(counts) for _, counts in frame.scans)
    found, words = packed_scans(frame, n_peaks)
    assert found == n_peaks
    np.testing.assert_array_equal(words, words_of(frame))


@given(st.binary(max_size=60))
def test_damaged_lzf_never_leaves_its_target(packed):
    target = np.zeros(50, np.uint8)
    guarded = target[:40]
    size = blobs.inflate_lzf(np.frombuffer(packed, np.uint8), guarded)
    assert size == blobs.BAD_LZF or 0 <= size <= 40
    assert not target[40:].any()


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
