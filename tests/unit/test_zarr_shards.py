"""Arrays in shards, judged by zarr-python: their metadata, their values, what damage does."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from gpuconvert.compressors import Compressor
from gpuconvert.zarr_shards import LongArray

CHUNK, PER_SHARD = 16, 4
SHARD = CHUNK * PER_SHARD
COMPRESSORS = [None, Compressor("lz4", 5, "bitshuffle"), Compressor("zstd", 1, "shuffle")]


def values_of(length, dtype):
    return (np.random.default_rng(length).gamma(0.5, 50, length) + 1).astype(dtype)


def write(folder, values, compressor=COMPRESSORS[1], chunk=CHUNK):
    array = LongArray(
        folder, len(values), values.dtype, chunk=chunk, chunks_per_shard=PER_SHARD,
        compressor=compressor,
    )  # fmt: skip
    for start in range(0, len(values), array.shard):
        array.write(start, values[start : start + array.shard])
    return array


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("dtype", ["f4", "i4", "i8"])
@pytest.mark.parametrize(
    "length", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, SHARD - 1, SHARD, SHARD + 1, 3 * SHARD + 20]
)
def test_zarr_reads_back_the_values(tmp_path, length, dtype, compressor):
    values = values_of(length, dtype)
    write(tmp_path / "a", values, compressor)
    stored = zarr.open_array(tmp_path / "a", mode="r")
    assert stored.dtype == values.dtype
    assert stored.chunks == (max(1, min(CHUNK, length)),)
    assert stored.shards == ((SHARD,) if length > CHUNK else None)
    np.testing.assert_array_equal(stored[:], values)
    np.testing.assert_array_equal(
        stored[length // 3 : length // 2], values[length // 3 : length // 2]
    )


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("length", [CHUNK, 3 * CHUNK])
def test_the_metadata_are_those_of_the_library(tmp_path, length, compressor):
    write(tmp_path / "a", values_of(length, "f4"), compressor)
    codecs = [Crc32cCodec()]
    if compressor is not None:
        codec = BloscCodec(
            cname=compressor.name, clevel=compressor.level, shuffle=compressor.shuffle, typesize=4
        )
        codecs = [codec, *codecs]
    theirs = zarr.create_array(
        tmp_path / "b", shape=(length,), dtype="f4", chunks=(CHUNK,), compressors=codecs,
        shards=(SHARD,) if length > CHUNK else None, fill_value=0,
    )  # fmt: skip
    ours = zarr.open_array(tmp_path / "a", mode="r")
    assert ours.metadata.to_dict() == theirs.metadata.to_dict()


def test_shards_may_be_written_in_any_order_and_at_once(tmp_path):
    values = values_of(40 * SHARD + 5, "i4")
    array = LongArray(
        tmp_path / "a", len(values), "i4", chunk=CHUNK, chunks_per_shard=PER_SHARD,
        compressor=COMPRESSORS[2],
    )  # fmt: skip
    starts = list(range(0, len(values), 2 * SHARD))[::-1]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda start: array.write(start, values[start : start + 2 * SHARD]), starts))
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)


@pytest.mark.parametrize(("start", "length"), [(CHUNK, SHARD), (0, SHARD - 1), (SHARD, CHUNK)])
def test_parts_of_shards_are_refused(tmp_path, start, length):
    array = LongArray(
        tmp_path / "a", 4 * SHARD, "i4", chunk=CHUNK, chunks_per_shard=PER_SHARD, compressor=None
    )
    with pytest.raises(ValueError, match=f"are no whole shards of {SHARD}"):
        array.write(start, np.zeros(length, np.int32))


def test_a_chunk_of_zeros_is_stored_like_any_other(tmp_path):
    write(tmp_path / "a", np.zeros(2 * SHARD, "f4"))
    assert sorted(item.name for item in (tmp_path / "a/c").iterdir()) == ["0", "1"]
    assert not zarr.open_array(tmp_path / "a", mode="r")[:].any()


def test_every_flipped_bit_is_found_when_it_is_read(tmp_path):
    write(tmp_path / "a", values_of(SHARD, "f4"))
    file = tmp_path / "a" / "c" / "0"
    sound = file.read_bytes()
    for place in range(0, len(sound), 7):
        damaged = bytearray(sound)
        damaged[place] ^= 0x10
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match="checksum"):
            zarr.open_array(tmp_path / "a", mode="r")[:]


def test_what_was_there_is_replaced(tmp_path):
    write(tmp_path / "a", values_of(5 * SHARD, "f4"))
    values = values_of(3, "i4")
    write(tmp_path / "a", values)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "a", mode="r")[:], values)
    assert [item.name for item in (tmp_path / "a/c").iterdir()] == ["0"]
