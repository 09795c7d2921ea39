"""Blosc, as chunks of numbers are compressed with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numcodecs import blosc
from numpy.typing import DTypeLike, NDArray

# Its own threads would compete with ours, and may not be used from several at once.
blosc.use_threads = False

SHUFFLES = {"shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


@dataclass(frozen=True, slots=True)
class Compressor:
    """How blosc compresses a chunk.

    name : "lz4", "zstd" or another compressor that blosc knows
    level : 1 to 9
    shuffle : "shuffle" of the bytes of the numbers, or "bitshuffle"
    """

    name: str
    level: int
    shuffle: str

    def described(self, dtype: DTypeLike) -> dict[str, Any]:
        """Return the codec as the metadata of an array say it."""
        configuration = {
            "typesize": np.dtype(dtype).itemsize, "cname": self.name, "clevel": self.level,
            "shuffle": self.shuffle, "blocksize": 0,
        }  # fmt: skip
        return {"name": "blosc", "configuration": configuration}

    def compress(self, values: NDArray[Any]) -> bytes:
        """Return contiguous numbers, compressed."""
        raw: bytes = blosc.compress(
            values, self.name.encode(), self.level, SHUFFLES[self.shuffle], blosc.AUTOBLOCKS
        )
        return raw
