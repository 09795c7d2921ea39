"""How AnnData lies in Zarr: arrays, strings, data frames and nested dicts, with their attributes.

Every writer replaces what has its name, so that a step which was cut short can
simply be run again.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compressors import Compressor
from gpuconvert.plain_zarr import Numbered, write_group, write_numbers, write_texts
from gpuconvert.provenance import JSON, canonical_json

Strings: TypeAlias = "NDArray[Any]"
Column: TypeAlias = "NDArray[Any] | Category"

STRING: Any = np.dtypes.StringDType()

CHUNK_BYTES = 2**20
CHUNK_STRINGS = 2**16
"""Chunks of columns are near 1 MiB: in bytes, and in strings of some 16 bytes."""

FRAME_COMPRESSOR = Compressor("lz4", 5, "shuffle")
"""Of the columns of data frames: m/z and coordinates, which grow from row to row, take 38 %
less than with zstd and half of its time."""

INT64 = range(-(2**63), 2**63)
GROUP_NAME = re.compile(r"(?!__|zarr\.json$)\w[\w .+-]{0,99}")
"""Keys that can name a group on every file system and object store."""


@dataclass(frozen=True, slots=True)
class Category:
    """A column that says the same word in each of `n_rows` rows."""

    word: str
    n_rows: int


def encoding(kind: str, version: str) -> dict[str, Any]:
    """Return the attributes by which AnnData knows what a group or an array is."""
    return {"encoding-type": kind, "encoding-version": version}


DICT = encoding("dict", "0.1.0")


def new_group(folder: Path, attributes: Mapping[str, Any]) -> Path:
    """Make an empty group with these attributes, replacing what is there; return `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    write_group(folder, attributes)
    return folder


def write_array(
    parent: Path, name: str, values: NDArray[Any], compressor: Compressor | None = None
) -> None:
    """Write numbers of one or more dimensions, in chunks near 1 MiB of whole rows."""
    row_bytes = max(1, values.itemsize * math.prod(values.shape[1:]))
    rows = max(1, min(len(values), CHUNK_BYTES // row_bytes))
    chunk = (rows, *(max(1, size) for size in values.shape[1:]))
    attributes = encoding("array", "0.2.0")
    write_numbers(parent / name, values, chunk=chunk, attributes=attributes, compressor=compressor)


def write_strings(parent: Path, name: str, values: Strings | Numbered) -> None:
    """Write a list of strings; (n_rows,)."""
    length = len(values.numbers if isinstance(values, Numbered) else values)
    rows = max(1, min(length, CHUNK_STRINGS))
    attributes = encoding("string-array", "0.2.0")
    write_texts(parent / name, values, rows=rows, attributes=attributes)


def _write_text(parent: Path, name: str, text: str) -> None:
    attributes = encoding("string", "0.2.0")
    write_texts(parent / name, np.array(_storable(text), STRING), attributes=attributes)


def _write_number(parent: Path, name: str, value: float) -> None:
    attributes = encoding("numeric-scalar", "0.2.0")
    write_numbers(parent / name, np.asarray(value), attributes=attributes)


def _write_category(parent: Path, name: str, column: Category) -> None:
    group = new_group(parent / name, {"ordered": False, **encoding("categorical", "0.2.0")})
    write_array(group, "codes", np.zeros(column.n_rows, np.int8))
    write_strings(group, "categories", np.array([column.word], STRING))


def write_frame(
    parent: Path, name: str, index: Strings | Numbered, columns: Mapping[str, Column], *,
    index_name: str = "_index",
) -> None:  # fmt: skip
    """Write a data frame: `obs` or `var`.

    Parameters
    ----------
    parent, name
        Where; what is there is replaced.
    index
        (n_rows,) strings, all different.
    columns
        Each (n_rows,), in the order in which they are to appear.
    index_name
        What a reader will call the index; "_index" stands for no name.
    """
    attributes = {"column-order": list(columns), "_index": index_name}
    group = new_group(parent / name, {**attributes, **encoding("dataframe", "0.2.0")})
    write_strings(group, index_name, index)
    for key, column in columns.items():
        if isinstance(column, Category):
            _write_category(group, key, column)
        elif column.dtype == STRING:
            write_strings(group, key, column)
        else:
            write_array(group, key, column, FRAME_COMPRESSOR)


def write_tree(parent: Path, name: str, value: object) -> None:
    """Write a value of `uns` so that AnnData reads it back, dicts as nested groups.

    Strings, numbers and arrays stay what they are; lists of one kind become arrays;
    None is left out. All else, such as a list of dicts, becomes a string of JSON, in
    which a number that is not finite is null.
    """
    value = _plain(value)
    if isinstance(value, Mapping) and all(_names_a_group(key) for key in value):
        group = new_group(parent / name, DICT)
        for key, entry in value.items():
            write_tree(group, key, entry)
    elif isinstance(value, np.ndarray):
        write_strings(parent, name, value) if value.dtype == STRING else write_array(
            parent, name, value
        )
    elif isinstance(value, str):
        _write_text(parent, name, value)
    elif isinstance(value, float) or _fits_int64(value):
        _write_number(parent, name, value)
    elif value is not None:
        _write_text(parent, name, canonical_json(_finite(value)))


def _plain(value: object) -> object:
    """Return `value` with NumPy scalars as Python's, and lists of one kind as arrays."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    if not isinstance(value, list | tuple) or not value:
        return value
    if all(isinstance(entry, str) for entry in value):
        return np.array([_storable(entry) for entry in value], STRING)
    if all(isinstance(entry, bool) for entry in value):
        return np.array(value, np.bool_)
    if any(isinstance(entry, bool) for entry in value):
        return value
    if all(_fits_int64(entry) for entry in value):
        return np.array(value, np.int64)
    if all(isinstance(entry, float) or _fits_int64(entry) for entry in value):
        return np.array(value, np.float64)
    return value


def _storable(text: str) -> str:
    """Return `text` with what UTF-8 cannot hold escaped: file names may contain any byte."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fits_int64(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value in INT64


def _names_a_group(key: object) -> bool:
    return isinstance(key, str) and GROUP_NAME.fullmatch(key) is not None


def _finite(value: Any) -> JSON:  # noqa: ANN401 - any JSON value
    """Return `value` with null for every number that JSON cannot say."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return _finite(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value  # type: ignore[no-any-return]
