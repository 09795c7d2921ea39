"""CRC-32C of bytes: what every chunk and every part carries, so that damage is found.

The polynomial is that of Zarr's codec ``crc32c`` (Castagnoli), which processors compute
themselves: 13 GB/s on one core, where SHA-256 takes 1.8 GB/s. It finds every error of up
to 32 neighbouring bits, and any other but for one in four thousand million.
"""

from __future__ import annotations

import google_crc32c
import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 15
"""Bytes under one checksum in a part: slices of it can be checked without all of it.

32 KiB: 94 % of the speed of the whole in one call, and little more to read at the ends.
"""

CODEC = {"name": "crc32c"}
"""The codec in the metadata of a Zarr array; the last of its chain."""


def checksum(raw: NDArray[np.uint8] | bytes) -> int:
    """Return the CRC-32C of bytes."""
    return int(google_crc32c.value(raw))


def with_checksum(raw: bytes) -> bytes:
    """Return bytes as Zarr's codec stores them: followed by their checksum, little-endian."""
    return raw + checksum(raw).to_bytes(4, "little")


def block_checksums(raw: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the checksum of every BLOCK of `raw`, the last of which may be short."""
    starts = range(0, len(raw), BLOCK)
    sums = (checksum(raw[start : start + BLOCK]) for start in starts)
    return np.fromiter(sums, np.uint32, len(starts))


def first_damaged(raw: NDArray[np.uint8], expected: NDArray[np.uint32]) -> int | None:
    """Return which block of `raw` is the first without its checksum, or None."""
    wrong = np.flatnonzero(block_checksums(raw) != expected)
    return int(wrong[0]) if len(wrong) else None
