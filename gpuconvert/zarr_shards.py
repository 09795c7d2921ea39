"""One long Zarr array in shards: files of several chunks each, found by an index at the end.

A shard is its compressed chunks one after the other, each followed by a checksum, then
place and size of every chunk (uint64, all ones where there is none), and a checksum of
that: the codec ``sharding_indexed`` of the Zarr v3 specification. Shards are made and
written by whoever has their values, in any order and by several threads at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpuconvert.checksums import CODEC, with_checksum
from gpuconvert.compressors import Compressor
from gpuconvert.plain_zarr import array_metadata, begin_array, filled_up, number_codec

NO_CHUNK = 2**64 - 1


class LongArray:
    """A one-dimensional array that is being written, shard by shard."""

    def __init__(
        self, folder: Path, length: int, dtype: DTypeLike, *, chunk: int, chunks_per_shard: int,
        compressor: Compressor | None,
    ) -> None:  # fmt: skip
        """Make an array without values, replacing what is at `folder`.

        chunk : values of a chunk, the unit of reading
        chunks_per_shard : the unit of writing; an array of one chunk has no shards
        compressor : of each chunk; None stores the numbers as they are
        """
        self.folder = folder
        self.length = length
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.chunk = max(1, min(chunk, length))
        self.sharded = length > chunk
        self.shard = self.chunk * (chunks_per_shard if self.sharded else 1)
        self._compressor = compressor
        codecs = [number_codec(dtype), CODEC]
        if compressor is not None:
            codecs.insert(1, compressor.described(dtype))
        if self.sharded:
            codecs = [{
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [self.chunk], "codecs": codecs,
                    "index_codecs": [number_codec("u8"), CODEC], "index_location": "end",
                },
            }]  # fmt: skip
        begin_array(folder, array_metadata((length,), dtype, (self.shard,), codecs))
        (folder / "c").mkdir()

    def write(self, start: int, values: NDArray[Any]) -> None:
        """Store `values` from position `start` on, which begins a shard.

        They end where a shard ends, or the array; ValueError where not, as values of a
        shard that is written twice would be lost.
        """
        stop = start + len(values)
        if start % self.shard or (stop % self.shard and stop != self.length):
            raise ValueError(f"values {start} to {stop} are no whole shards of {self.shard}")
        for first in range(0, len(values), self.shard):
            number = (start + first) // self.shard
            pieces = self._encode(values[first : first + self.shard])
            with (self.folder / "c" / str(number)).open("wb") as file:
                file.writelines(pieces)

    def _encode(self, values: NDArray[Any]) -> list[bytes]:
        """Return the pieces of one file."""
        starts = range(0, len(values), self.chunk)
        pieces = [self._encode_chunk(values[first : first + self.chunk]) for first in starts]
        if self.sharded:
            index = np.full((self.shard // self.chunk, 2), NO_CHUNK, "<u8")
            sizes = [len(piece) for piece in pieces]
            index[: len(sizes), 0] = np.cumsum([0, *sizes[:-1]])
            index[: len(sizes), 1] = sizes
            pieces.append(with_checksum(index.tobytes()))
        return pieces

    def _encode_chunk(self, values: NDArray[Any]) -> bytes:
        whole = np.ascontiguousarray(filled_up(values, (self.chunk,)), self.dtype)
        raw = whole.tobytes() if self._compressor is None else self._compressor.compress(whole)
        return with_checksum(raw)
