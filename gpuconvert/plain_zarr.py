"""Zarr v3 groups and arrays written as the plain files they are.

zarr-python takes some 3 ms for a small array, and a store has sixty of them; importing it
takes as long as reading 100 MB. These are the nodes that need nothing special: numbers and
strings in chunks, compressed and followed by a checksum (`gpuconvert.zarr_shards` writes
those in shards). zarr-python reads them back in the tests, value by value.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numcodecs.vlen import VLenUTF8
from numcodecs.zstd import Zstd
from numpy.typing import DTypeLike, NDArray

from gpuconvert.checksums import CODEC, with_checksum
from gpuconvert.compressors import Compressor

ZSTD = Zstd(level=0)
"""What zarr-python compresses with by default; level 0 is the library's own default."""

FIRST_OF_SEVERAL_BYTES = 128
"""From this character on, UTF-8 takes more than one byte."""

NODE_FILE = "zarr.json"

NOTHING: Mapping[str, Any] = MappingProxyType({})

_CODEC = {"name": "zstd", "configuration": {"level": 0, "checksum": False}}


def number_codec(dtype: DTypeLike) -> dict[str, Any]:
    """Return the codec that stores numbers as their bytes, little-endian."""
    one_byte = np.dtype(dtype).itemsize == 1
    return {"name": "bytes"} | ({} if one_byte else {"configuration": {"endian": "little"}})


def array_metadata(
    shape: Sequence[int], dtype: DTypeLike, chunk: Sequence[int], codecs: list[dict[str, Any]], *,
    attributes: Mapping[str, Any] = NOTHING, separator: str = "/",
    dimension_names: Sequence[str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the ``zarr.json`` of an array.

    separator : between the numbers of a chunk in its key; "/" makes them folders
    """
    kind = np.dtype(dtype).kind
    text = kind == "T"
    fill = "" if text else {"f": 0.0, "b": False}.get(kind, 0)
    described = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "string" if text else np.dtype(dtype).name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": dict(attributes),
        "storage_transformers": [],
    }
    if dimension_names is not None:
        described["dimension_names"] = list(dimension_names)
    return described


def begin_array(folder: Path, metadata: dict[str, Any]) -> None:
    """Make the folder of an array that has no chunks yet, replacing what is there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / NODE_FILE).write_text(json.dumps(metadata))


def write_group(folder: Path, attributes: Mapping[str, Any] = NOTHING) -> None:
    """Make or describe the group at `folder`; what lies in it stays."""
    folder.mkdir(parents=True, exist_ok=True)
    metadata = {"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}
    (folder / NODE_FILE).write_text(json.dumps(metadata))


def read_node(folder: Path) -> dict[str, Any] | None:
    """Return the ``zarr.json`` of a node, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / NODE_FILE).read_bytes())
    except FileNotFoundError:
        return None
    return found


def filled_up(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Return a chunk at its full size: it is stored whole, whatever of it lies in the array."""
    if values.shape == tuple(shape):
        return values
    missing = [(0, size - there) for size, there in zip(shape, values.shape, strict=True)]
    return np.pad(values, missing)


def _chunks(values: NDArray[Any], chunk: Sequence[int]) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the keys and the values of the chunks; those at the end may be short."""
    starts = [range(0, size, step) for size, step in zip(values.shape, chunk, strict=True)]
    for begin in itertools.product(*starts):
        place = tuple(slice(first, first + step) for first, step in zip(begin, chunk, strict=True))
        number = [first // step for first, step in zip(begin, chunk, strict=True)]
        yield "/".join(["c", *map(str, number)]), values[place]


def write_numbers(
    folder: Path, values: NDArray[Any], *, chunk: Sequence[int] | None = None,
    attributes: Mapping[str, Any] = NOTHING, dimension_names: Sequence[str] | None = None,
    compressor: Compressor | None = None,
) -> None:  # fmt: skip
    """Write an array of numbers at `folder`, replacing what is there.

    Parameters
    ----------
    folder
        Of the array; its name is the array's.
    values
        Integers, floats or booleans of any number of dimensions.
    chunk
        Shape of a chunk, by default that of the array.
    attributes
        Of the array, plain JSON values.
    dimension_names
        One for each dimension.
    compressor
        Of the chunks, by default zstd.
    """
    shape = tuple(max(1, size) for size in values.shape) if chunk is None else chunk
    little = values.astype(values.dtype.newbyteorder("<"), copy=False)
    compression = _CODEC if compressor is None else compressor.described(values.dtype)
    begin_array(folder, array_metadata(
        values.shape, values.dtype, shape, [number_codec(values.dtype), compression, CODEC],
        attributes=attributes, dimension_names=dimension_names,
    ))  # fmt: skip
    for key, part in _chunks(little, shape):
        whole = np.ascontiguousarray(filled_up(part, shape))
        raw = ZSTD.encode(whole) if compressor is None else compressor.compress(whole)
        _write_chunk(folder / key, raw)


@dataclass(frozen=True, slots=True)
class Numbered:
    """Strings that are a prefix and a number, without being made.

    prefix : ASCII
    numbers : (n,) integers, none negative
    """

    prefix: str
    numbers: NDArray[np.integer[Any]]


def write_texts(
    folder: Path, values: NDArray[Any] | Numbered, *, rows: int = 1,
    attributes: Mapping[str, Any] = NOTHING,
) -> None:  # fmt: skip
    """Write an array of strings at `folder`, replacing what is there.

    values : StringDType of no or one dimension, or strings that are numbered
    rows : strings of a chunk
    """
    codecs: list[dict[str, Any]] = [{"name": "vlen-utf8", "configuration": {}}, _CODEC, CODEC]
    items = values.numbers if isinstance(values, Numbered) else values
    chunk = (rows,) * items.ndim
    begin_array(folder, array_metadata(items.shape, "T", chunk, codecs, attributes=attributes))
    for key, part in _chunks(items, chunk):
        if isinstance(values, Numbered):
            texts = encode_numbered(values.prefix, part, rows)
        else:
            texts = encode_texts(np.atleast_1d(part), rows)
        _write_chunk(folder / key, ZSTD.encode(texts))


def encode_numbered(prefix: str, numbers: NDArray[np.integer[Any]], n_items: int) -> bytes:
    """Return ``prefix + str(number)`` of each number as `encode_texts` would."""
    head = prefix.encode("ascii")
    powers = 10 ** np.arange(1, 19)
    digits = 1 + np.searchsorted(powers, numbers, "right")
    width = int(digits.max(initial=1))
    # Length, prefix and digits of every string, the last digit in the last column.
    table = np.zeros((len(numbers), 4 + len(head) + width), np.uint8)
    table[:, :4] = (len(head) + digits).astype("<u4").view(np.uint8).reshape(-1, 4)
    table[:, 4 : 4 + len(head)] = np.frombuffer(head, np.uint8)
    left = numbers.astype(np.uint64)
    for column in range(1, width + 1):
        left, digit = np.divmod(left, np.uint64(10))
        table[:, -column] = digit + np.uint64(ord("0"))
    if int(digits.min(initial=width)) == width:
        kept = table.tobytes()
    else:
        place = np.arange(table.shape[1]) - (4 + len(head))
        kept = table[(place < 0) | (place >= width - digits[:, None])].tobytes()
    missing = 4 * (n_items - len(numbers))
    return np.array([n_items], "<u4").tobytes() + kept + bytes(missing)


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
    path.write_bytes(with_checksum(raw))


def _nodes_below(folder: Path, prefix: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield path and metadata of every node below a group, in order of their names."""
    for child in sorted(item for item in folder.iterdir() if item.is_dir()):
        node = read_node(child)
        if node is not None:
            yield prefix + child.name, node
            if node["node_type"] == "group":
                yield from _nodes_below(child, f"{prefix}{child.name}/")


def consolidate(folder: Path) -> None:
    """Put the metadata of all nodes below a group into its own, as zarr-python does."""
    root = read_node(folder)
    if root is None:
        raise FileNotFoundError(f"{folder} is no Zarr group")
    nodes = dict(_nodes_below(folder, ""))
    for node in nodes.values():
        if node["node_type"] == "group":
            node["consolidated_metadata"] = _consolidated({})
    root["consolidated_metadata"] = _consolidated(nodes)
    (folder / NODE_FILE).write_text(json.dumps(root))


def _consolidated(nodes: dict[str, Any]) -> dict[str, Any]:
    return {"kind": "inline", "must_understand": False, "metadata": nodes}
