import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert import checksums
from gpuconvert.checksums import BLOCK, block_checksums, checksum, first_damaged, with_checksum


def by_bits(raw: bytes) -> int:
    """CRC-32C straight from its definition: polynomial 0x1EDC6F41, bits reflected."""
    value = 0xFFFFFFFF
    for byte in raw:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
    return value ^ 0xFFFFFFFF


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        # RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ],
)
def test_the_published_vectors_hold(raw, expected):
    assert by_bits(raw) == expected
    assert checksum(raw) == expected
    assert checksum(np.frombuffer(raw, np.uint8)) == expected
    assert with_checksum(raw) == raw + expected.to_bytes(4, "little")


@given(st.binary(max_size=200))
def test_any_bytes_have_the_checksum_of_the_definition(raw):
    assert checksum(raw) == by_bits(raw)


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_every_block_has_its_own(size):
    raw = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    found = block_checksums(raw)
    blocks = [raw[at : at + BLOCK].tobytes() for at in range(0, size, BLOCK)]
    assert found.tolist() == [checksum(block) for block in blocks]
    assert first_damaged(raw, found) is None


@given(st.integers(0, 8 * (2 * BLOCK + 100) - 1))
def test_the_block_of_a_flipped_bit_is_named(bit):
    raw = np.random.default_rng(1).integers(0, 256, 2 * BLOCK + 100).astype(np.uint8)
    expected = block_checksums(raw)
    raw[bit // 8] ^= 1 << bit % 8
    assert first_damaged(raw, expected) == bit // 8 // BLOCK


def test_the_codec_is_the_one_of_zarr():
    from zarr.codecs import Crc32cCodec

    assert Crc32cCodec().to_dict() == checksums.CODEC
