"""A store on disk as the verifier sees it: Zarr arrays, and the chunk files they are made of.

Consolidated metadata are never used here, so that what is read is the tree itself.
Whatever cannot be read becomes a StoreError that names the file.
"""

from __future__ import annotations

import itertools
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from gpuconvert.errors import StoreError

READ_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError, EOFError, zlib.error)
"""What Zarr and its codecs raise on damaged files."""

MOST_MISSING = 1000

Json = dict[str, Any]


def read_json(path: Path) -> Json:
    """Return the object in a JSON file."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} holds {type(value).__name__}, expected a JSON object")
    return value


class Store:
    """The tree of one store; keys are paths below `path` with forward slashes."""

    def __init__(self, path: Path) -> None:
        """Open the store at `path`; StoreError where there is none."""
        self.path = path
        if not path.exists():
            raise StoreError(f"{path} does not exist; check the path")
        if not (path / "zarr.json").is_file():
            raise StoreError(
                f"{path} is not a finished store: it has no zarr.json; was the run completed?"
            )
        metadata = read_json(path / "zarr.json")
        if metadata.get("node_type") != "group" or not (path / "tables").is_dir():
            raise StoreError(f"{path} is not a SpatialData store with tables")
        self.metadata = metadata
        self._root = zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False)

    @property
    def n_bytes(self) -> int:
        """Size of all files."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def children(self, key: str) -> list[str]:
        """Return the names of the groups and arrays directly below `key`, sorted."""
        folder = self.path / key
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in folder.iterdir() if (entry / "zarr.json").is_file())

    def holds(self, key: str) -> bool:
        """Whether there is a group or an array at `key`."""
        return (self.path / key / "zarr.json").is_file()

    def nodes(self) -> list[str]:
        """Return all groups and arrays below the root, sorted."""
        folders = (file.parent for file in self.path.rglob("zarr.json"))
        keys = (folder.relative_to(self.path).as_posix() for folder in folders)
        return sorted(key for key in keys if key != ".")

    def is_array(self, key: str) -> bool:
        """Whether what is at `key` calls itself an array."""
        return read_json(self.path / key / "zarr.json").get("node_type") == "array"

    def attributes(self, key: str) -> Json:
        """Return the attributes of the group or array at `key`."""
        if not self.holds(key):
            raise StoreError(f"{key} is missing")
        value = read_json(self.path / key / "zarr.json").get("attributes", {})
        if not isinstance(value, dict):
            raise StoreError(f"attributes of {key} are {value!r}, expected an object")
        return value

    def array(self, key: str) -> zarr.Array[Any]:
        """Return the array at `key`."""
        if not self.holds(key):
            raise StoreError(f"{key} is missing")
        try:
            node = self._root[key]
        except READ_ERRORS as error:
            raise StoreError(f"{key} cannot be opened: {error}") from error
        if not isinstance(node, zarr.Array):
            raise StoreError(f"{key} is a group, expected an array")
        return node

    def length(self, key: str) -> int:
        """Return the number of rows of the array at `key`."""
        shape = self.array(key).shape
        if not shape:
            raise StoreError(f"{key} is a scalar, expected a column")
        return int(shape[0])

    def values(self, key: str) -> NDArray[Any]:
        """Return the whole array at `key`."""
        array = self.array(key)
        try:
            return np.asarray(array[...])
        except READ_ERRORS as error:
            raise self._damaged(key, array, 0, array.shape[0] if array.shape else 0) from error

    def numbers(self, key: str) -> NDArray[np.float64]:
        """Return the whole array at `key` as float64."""
        values = self.values(key)
        try:
            return values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{key} does not hold numbers: {error}") from error

    def block(self, array: zarr.Array[Any], key: str, first: int, last: int) -> NDArray[Any]:
        """Return elements [first, last) of the one-dimensional array at `key`."""
        try:
            return np.asarray(array[first:last])
        except READ_ERRORS as error:
            raise self._damaged(key, array, first, last) from error

    def text(self, key: str) -> str:
        """Return the string stored at `key`."""
        return str(self.values(key).item())

    def missing_chunks(self, key: str) -> list[str]:
        """Return the chunk files of the array at `key` that are not there, or are empty.

        Zarr reads such a chunk as fill value. Not more than MOST_MISSING are looked for:
        a damaged shape may ask for any number.
        """
        array = self.array(key)
        names = (_chunk_key(array, place) for place in itertools.product(*_grid(array)))
        missing = (f"{key}/{name}" for name in names if not _has_bytes(self.path / key / name))
        return list(itertools.islice(missing, MOST_MISSING))

    def missing_hint(self, *keys: str) -> str:
        """Return a clause that names the missing chunk files of these arrays, or ""."""
        missing = [name for key in keys if self.holds(key) for name in self.missing_chunks(key)]
        return f"; chunk file {shown(missing)} is missing or empty" if missing else ""

    def _damaged(self, key: str, array: zarr.Array[Any], first: int, last: int) -> StoreError:
        """Return the error for an array that cannot be read in rows [first, last)."""
        units = _unit(array)
        grid = _grid(array)
        if units:
            grid[0] = range(first // units[0], -(-last // units[0]))
        for place in itertools.product(*grid):
            region = tuple(
                slice(at * unit, (at + 1) * unit) for at, unit in zip(place, units, strict=True)
            )
            try:
                array[region]
            except READ_ERRORS as error:
                return StoreError(f"{key}/{_chunk_key(array, place)} cannot be read: {error}")
        return StoreError(f"{key} cannot be read")


def _grid(array: zarr.Array[Any]) -> list[range]:
    """Return the numbers of the chunk files along every dimension."""
    return [range(-(-size // unit)) for size, unit in zip(array.shape, _unit(array), strict=True)]


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _unit(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return the shape that one file of the array holds."""
    return array.shards or array.chunks


def _chunk_key(array: zarr.Array[Any], place: tuple[int, ...]) -> str:
    return str(array.metadata.encode_chunk_key(place))


def shown(names: list[str], most: int = 3) -> str:
    """Return the first few of `names` as a list in words."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
