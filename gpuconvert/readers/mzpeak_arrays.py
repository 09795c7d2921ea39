"""How a signal member stores m/z and intensities, from the array index in its footer.

Columns are found by the type of their array (m/z array, intensity array), never by
the accession of their transform: writers before mid 2026 had those of zero trimming
and of interpolation the wrong way round, and both say the same of a null here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gpuconvert.errors import SourceError

MZ_ARRAY, INTENSITY_ARRAY = "MS:1000514", "MS:1000515"
NUMPRESS_LINEAR, NUMPRESS_PIC, NUMPRESS_SLOF = "MS:1002312", "MS:1002313", "MS:1002314"
GRID = "MS:1003826"
ZERO_TRANSFORMS = {"MS:1003901", "MS:1003902"}
"""Zero trimming and its interpolation: what a null means follows from the array instead."""

ARRAY_INDEX = "spectrum_array_index"


@dataclass(frozen=True, slots=True)
class SignalLayout:
    """Where a signal member has what; names are of children of its one struct column.

    root : "point" or "chunk"
    index : the column that says which spectrum a row belongs to
    mz : the m/z (point), or the m/z after the first of a chunk (chunk)
    mz_start, mz_end, encoding : of a chunk; "" in the point layout
    mz_bytes, mz_grid : Numpress bytes, grid positions; "" where there are none
    intensity : plain intensities; "" where they are packed
    intensity_bytes, packing : packed intensities, and the accession of how
    mz_dtype, intensity_dtype : of the decoded values
    """

    root: str
    index: str
    mz: str
    intensity: str
    mz_dtype: np.dtype[Any]
    intensity_dtype: np.dtype[Any]
    mz_start: str = ""
    mz_end: str = ""
    encoding: str = ""
    mz_bytes: str = ""
    mz_grid: str = ""
    intensity_bytes: str = ""
    packing: str = ""

    @property
    def chunked(self) -> bool:
        """Whether a row is a list of points."""
        return self.root == "chunk"

    def paths(self, *names: str) -> tuple[str, ...]:
        """Return the paths of columns in the file, those that are "" left out."""
        return tuple(f"{self.root}.{name}" for name in names if name)

    @property
    def signal_columns(self) -> tuple[str, ...]:
        """Paths of all that decoding needs."""
        names = (self.mz, self.mz_start, self.encoding, self.mz_bytes, self.mz_grid,
                 self.intensity, self.intensity_bytes)  # fmt: skip
        return self.paths(*names)

    @property
    def counting_columns(self) -> tuple[str, ...]:
        """Paths of what says which spectrum has how many points between which m/z."""
        lists = (self.mz_start, self.mz_end, self.intensity or self.intensity_bytes)
        return self.paths(self.index, *(lists if self.chunked else ()))


def read_layout(path: Path, name: str, schema: pa.Schema, footer: dict[str, str]) -> SignalLayout:
    """Return the layout of a signal member.

    Raises
    ------
    SourceError
        Where it is not one of the layouts, or an array is stored in a way that is not
        known.
    """
    where = f"{path}: {name}"
    entries = _entries(where, footer)
    root = schema.names[0] if schema.names else ""
    if root not in ("point", "chunk") or not pa.types.is_struct(schema.field(0).type):
        raise SourceError(
            f"{where} has the columns {', '.join(schema.names) or 'none'}, expected one of the "
            "layouts point or chunk; export it with one of them"
        )
    fields = {field.name: field.type for field in schema.field(0).type}
    columns = {kind: _columns(where, entries, fields, kind) for kind in (MZ_ARRAY, INTENSITY_ARRAY)}
    if root == "point":
        return _point(where, fields, columns)
    return _chunk(where, fields, columns)


def _entries(where: str, footer: dict[str, str]) -> list[dict[str, Any]]:
    try:
        value = json.loads(footer[ARRAY_INDEX])
        entries: list[dict[str, Any]] = [dict(entry) for entry in value["entries"]]
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(
            f"{where} has no usable {ARRAY_INDEX} in its footer ({error!r}); export it again"
        ) from error
    return entries


def _columns(
    where: str, entries: list[dict[str, Any]], fields: dict[str, pa.DataType], kind: str
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return column name and entry of an array by buffer format; primary arrays first."""
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    own = [entry for entry in entries if entry.get("array_type") == kind]
    for entry in sorted(own, key=lambda entry: entry.get("buffer_priority") == "secondary"):
        path = entry.get("path")
        # A list of names in older files.
        column = str(path[-1] if isinstance(path, list) and path else path).rpartition(".")[2]
        if column in fields:
            _check_transform(where, column, entry)
            found.setdefault(str(entry.get("buffer_format")), (column, entry))
    return found


def _check_transform(where: str, column: str, entry: dict[str, Any]) -> None:
    """Refuse a transform that is not known; on plain numbers a Numpress one means nothing."""
    transform = entry.get("transform")
    known = ZERO_TRANSFORMS | {NUMPRESS_LINEAR, NUMPRESS_PIC, NUMPRESS_SLOF, GRID}
    if transform is not None and str(transform) not in known:
        raise SourceError(
            f"{where}: column {column} has the transform {transform}, which is not known; "
            "export it without"
        )


def _require(
    where: str, columns: dict[str, tuple[str, dict[str, Any]]], wanted: tuple[str, ...], what: str
) -> list[str]:
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise SourceError(
            f"{where} has no column for the {what} with buffer format {' or '.join(missing)}; "
            "export it again"
        )
    return [columns[name][0] for name in wanted]


def _dtype(where: str, column: str, kind: pa.DataType) -> np.dtype[Any]:
    """Return the little-endian dtype of a column of numbers, or of lists of them."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    if not number or kind.bit_width < 8 or pa.types.is_unsigned_integer(kind):
        raise SourceError(
            f"{where}: column {column} has type {kind}, expected numbers; export it again"
        )
    dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype()).newbyteorder("<")
    return dtype


def _index_column(where: str, fields: dict[str, pa.DataType]) -> str:
    name, kind = next(iter(fields.items()))
    if not pa.types.is_integer(kind):
        raise SourceError(
            f"{where}: the first column is {name} of type {kind}, expected that of the spectrum"
        )
    return name


def _point(
    where: str, fields: dict[str, pa.DataType],
    columns: dict[str, dict[str, tuple[str, dict[str, Any]]]],
) -> SignalLayout:  # fmt: skip
    (mz,) = _require(where, columns[MZ_ARRAY], ("point",), "m/z")
    (intensity,) = _require(where, columns[INTENSITY_ARRAY], ("point",), "intensities")
    return SignalLayout(
        "point", _index_column(where, fields), mz, intensity, _dtype(where, mz, fields[mz]),
        _dtype(where, intensity, fields[intensity]),
    )  # fmt: skip


def _chunk(
    where: str, fields: dict[str, pa.DataType],
    columns: dict[str, dict[str, tuple[str, dict[str, Any]]]],
) -> SignalLayout:  # fmt: skip
    axis, counts = columns[MZ_ARRAY], columns[INTENSITY_ARRAY]
    wanted = ("chunk_start", "chunk_end", "chunk_values", "chunk_encoding")
    start, end, values, encoding = _require(where, axis, wanted, "m/z")
    packed, transform = "", ""
    if "chunk_secondary" in counts:
        plain = counts["chunk_secondary"][0]
        intensity_dtype = _dtype(where, plain, fields[plain])
    else:
        plain = ""
        (packed,) = _require(where, counts, ("chunk_transform",), "intensities")
        transform = str(counts["chunk_transform"][1].get("transform"))
        intensity_dtype = np.dtype("<f8")
        if transform not in (NUMPRESS_SLOF, NUMPRESS_PIC):
            raise SourceError(
                f"{where}: column {packed} holds intensities transformed by {transform}, which "
                "is not known; export it without"
            )
    # The transformed forms of the m/z are told apart by what they are made of.
    other = axis.get("chunk_transform", ("", {}))[0]
    grids = [name for name, kind in fields.items() if _is_grid(kind)]
    return SignalLayout(
        "chunk", _index_column(where, fields), values, plain, _dtype(where, values, fields[values]),
        intensity_dtype, start, end, encoding,
        mz_bytes="" if other in grids else other, mz_grid=grids[0] if grids else "",
        intensity_bytes=packed, packing=transform,
    )  # fmt: skip


def _is_grid(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"grid_type", "parameters", "indices"} <= {
        field.name for field in kind
    }
