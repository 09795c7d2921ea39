"""Zarr v3 arrays written as the plain files they are.

zarr-python takes some 3 ms for a small array, and a store has sixty of them. These are
the arrays that need nothing special: cut along their first dimension, one codec and a
checksum, no shards. zarr-python reads them back in the tests, value by value.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from gpuconvert.checksums import CODEC, with_checksum

ZSTD = Zstd(level=0)
"""What zarr-python compresses with by default; level 0 is the library's own default."""

FIRST_OF_SEVERAL_BYTES = 128
"""From this character on, UTF-8 takes more than one byte."""

NOTHING: Mapping[str, Any] = MappingProxyType({})

_CODEC = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}


def number_codec(values: NDArray[Any]) -> dict[str, Any]:
    """Return the codec that stores numbers as their bytes, little-endian."""
    one_byte = values.itemsize == 1
    return {"name": "bytes"} | ({} if one_byte else {"configuration": {"endian": "little"}})


def array_metadata(
    values: NDArray[Any], rows: int, codecs: list[dict[str, Any]], *,
    attributes: Mapping[str, Any] = NOTHING, separator: str = "/",
) -> dict[str, Any]:  # fmt: skip
    """Return the ``zarr.json`` of an array in chunks of `rows` rows.

    separator : between the numbers of a chunk in its key; "/" makes them folders
    """
    text = values.dtype.kind == "T"
    fill = "" if text else {"f": 0.0, "b": False}.get(values.dtype.kind, 0)
    chunk = [rows, *values.shape[1:]] if values.ndim else []
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(values.shape),
        "data_type": "string" if text else values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": dict(attributes),
        "storage_transformers": [],
    }


def _chunks(values: NDArray[Any], rows: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the keys and the values of the chunks; the last may be short."""
    if not values.ndim:
        yield "c", values
        return
    zeros = "".join("/0" for _ in values.shape[1:])
    for number, first in enumerate(range(0, len(values), rows)):
        yield f"c/{number}{zeros}", values[first : first + rows]


def _begin(folder: Path, metadata: dict[str, Any]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text(json.dumps(metadata))


def write_numbers(
    folder: Path, values: NDArray[Any], *, rows: int = 1, attributes: Mapping[str, Any] = NOTHING
) -> None:  # fmt: skip
    """Write an array of numbers at `folder`, replacing what is there.

    Parameters
    ----------
    folder
        Of the array; its name is the array's.
    values
        Integers, floats or booleans of any number of dimensions.
    rows
        Length of a chunk along the first dimension.
    attributes
        Of the array, plain JSON values.
    """
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    codecs = [number_codec(values), _CODEC, CODEC]
    _begin(folder, array_metadata(values, rows, codecs, attributes=attributes))
    for key, chunk in _chunks(little, rows):
        if chunk.ndim and len(chunk) < rows:
            # A chunk is stored whole, whatever of it lies inside the array.
            missing = [(0, rows - len(chunk)), *((0, 0) for _ in chunk.shape[1:])]
            chunk = np.pad(chunk, missing)
        _write_chunk(folder / key, np.ascontiguousarray(chunk).tobytes())


def write_texts(
    folder: Path, values: NDArray[Any], *, rows: int = 1, attributes: Mapping[str, Any] = NOTHING
) -> None:  # fmt: skip
    """Write an array of strings at `folder`, of no or one dimension; else as `write_numbers`."""
    codecs: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}, _CODEC, CODEC]
    _begin(folder, array_metadata(values, rows, codecs, attributes=attributes))
    for key, chunk in _chunks(values, rows):
        _write_chunk(folder / key, encode_texts(np.atleast_1d(chunk), max(rows, 1)))


def encode_texts(values: NDArray[Any], n_items: int) -> bytes:
    """Return strings as the codec vlen-utf8 does, filled up to `n_items` with empty ones.

    The number of items, then each as its length in bytes and its bytes; all numbers are
    32 bits, little-endian.
    """
    sizes = np.zeros(n_items, "<u4")
    sizes[: len(values)] = np.strings.str_len(values)
    width = int(sizes.max(initial=1))
    letters = np.zeros((n_items, width), np.uint32)
    letters[: len(values)] = values.astype(f"<U{width}").view(np.uint32).reshape(-1, width)
    if int(letters.max(initial=0)) >= FIRST_OF_SEVERAL_BYTES:
        filled = np.full(n_items, "", object)
        filled[: len(values)] = values.astype(object)
        return bytes(VLenUTF8().encode(filled))
    table = np.concatenate([sizes.view(np.uint8).reshape(-1, 4), letters], axis=1, dtype=np.uint8,
                           casting="unsafe")  # fmt: skip
    kept = np.arange(4 + width) < 4 + sizes[:, None]
    return np.array([n_items], "<u4").tobytes() + table[kept].tobytes()


def _write_chunk(path: Path, raw: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(with_checksum(ZSTD.encode(raw)))
