"""The tables of an mzPeak as we write them: Arrow schemas, array indexes, column mappings.

Two dialects: ``split``, the newest, a table for spectra and one for scans with plain
column names; ``packed``, for older readers, both in one table as structs whose fields
carry their terms in their names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Dialect = Literal["split", "packed"]

MZ_UNIT, COUNT_UNIT, MINUTE = "MS:1000040", "MS:1000131", "UO:0000031"
NO_COMPRESSION, DELTA = "MS:1000576", "MS:1003089"
ZERO_TRIMMING, INTERPOLATE = "MS:1003901", "MS:1003902"
PROFILE, CENTROID, MS1 = "MS:1000128", "MS:1000127", "MS:1000579"

OWN_BLOCK, COMMON_MZ = "gpuconvert", "common_mz_points"
"""Where our index says that all spectra have the same m/z, which the format itself cannot."""

_DATA_TYPES = {"f4": "MS:1000521", "f8": "MS:1000523", "i4": "MS:1000519", "i8": "MS:1000522"}
_MZ: dict[str, Any] = {
    "array_type": "MS:1000514", "array_name": "m/z array", "unit": MZ_UNIT, "sorting_rank": 0,
}  # fmt: skip
_INTENSITY: dict[str, Any] = {
    "array_type": "MS:1000515", "array_name": "intensity array", "unit": COUNT_UNIT,
    "sorting_rank": None,
}  # fmt: skip

_VALUE = pa.struct(
    {"integer": pa.int64(), "float": pa.float64(), "string": pa.large_string(),
     "boolean": pa.bool_()}
)  # fmt: skip
PARAMETER = pa.struct(
    {"value": _VALUE, "accession": pa.string(), "name": pa.large_string(), "unit": pa.string()}
)
PARAMETERS = pa.large_list(PARAMETER)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its plain name, its type, and the term it stands for."""

    name: str
    type: pa.DataType
    accession: str = ""
    term: str = ""
    unit: str = ""
    packed_name: str = ""

    def spelt(self, dialect: Dialect) -> str:
        """Return the name of the column in a dialect."""
        if dialect == "split" or not self.accession:
            return (self.packed_name if dialect == "packed" else "") or self.name
        unit = f"_unit_{self.unit.replace(':', '_')}" if self.unit else ""
        return f"{self.accession.replace(':', '_')}_{self.name}{unit}"


def _auxiliary(processing: str) -> pa.DataType:
    return pa.large_list(
        pa.struct(
            [
                pa.field("data", pa.large_list(pa.field("element", pa.uint8(), nullable=False))),
                pa.field("name", PARAMETER), pa.field("data_type", pa.string()),
                pa.field("compression", pa.string()), pa.field("unit", pa.string()),
                pa.field("parameters", PARAMETERS), pa.field(processing, pa.large_string()),
            ]
        )
    )  # fmt: skip


SPECTRUM_COLUMNS = (
    Column("index", pa.uint64()),
    Column("id", pa.large_string()),
    Column("ms_level", pa.uint8(), "MS:1000511", "ms level"),
    Column("time", pa.float64()),
    Column("scan_polarity", pa.int8(), "MS:1000465", "scan polarity"),
    Column("spectrum_representation", pa.string(), "MS:1000525", "spectrum representation"),
    Column("spectrum_type", pa.string(), "MS:1000559", "spectrum type"),
    Column("lowest_observed_mz", pa.float64(), "MS:1000528", "lowest observed m/z", MZ_UNIT),
    Column("highest_observed_mz", pa.float64(), "MS:1000527", "highest observed m/z", MZ_UNIT),
    Column("number_of_data_points", pa.uint64(), "MS:1003060", "number of data points"),
    Column("number_of_peaks", pa.uint64(), "MS:1003059", "number of peaks"),
    Column("base_peak_mz", pa.float64(), "MS:1000504", "base peak m/z", MZ_UNIT),
    Column("base_peak_intensity", pa.float32(), "MS:1000505", "base peak intensity", COUNT_UNIT),
    Column("total_ion_current", pa.float64(), "MS:1000285", "total ion current", COUNT_UNIT),
    Column("data_processing_id", pa.large_string(), packed_name="data_processing_ref"),
    Column("parameters", PARAMETERS),
    Column("auxiliary_arrays", _auxiliary("data_processing_id")),
    Column("number_of_auxiliary_arrays", pa.uint32()),
    Column("mz_delta_model", pa.large_list(pa.float64())),
)

SCAN_COLUMNS = (
    Column("source_index", pa.uint64()),
    Column("scan_index", pa.uint64()),
    Column("scan_start_time", pa.float32(), "MS:1000016", "scan start time", MINUTE),
    Column("instrument_configuration_id", pa.uint32(), packed_name="instrument_configuration_ref"),
    Column("position_x", pa.int32(), "IMS:1000050", "position x"),
    Column("position_y", pa.int32(), "IMS:1000051", "position y"),
    Column("position_z", pa.int32(), "IMS:1000052", "position z"),
    Column("parameters", PARAMETERS),
)

PACKED_SCAN_COLUMNS = tuple(column for column in SCAN_COLUMNS if column.name != "scan_index")
"""Scans of the packed dialect have no numbers of their own."""

_LISTED = pa.struct({"parameters": PARAMETERS})
_ION_COLUMNS = {
    "precursor": (
        Column("source_index", pa.uint64()), Column("precursor_index", pa.uint64()),
        Column("precursor_id", pa.large_string()),
        Column("isolation_window", pa.struct({
            "MS_1000827_isolation_window_target_mz": pa.float32(),
            "MS_1000828_isolation_window_lower_offset": pa.float32(),
            "MS_1000829_isolation_window_upper_offset": pa.float32(),
            "parameters": PARAMETERS,
        })),
        Column("activation", _LISTED),
    ),
    "selected_ion": (
        Column("source_index", pa.uint64()), Column("precursor_index", pa.uint64()),
        Column("selected_ion_mz", pa.float64(), "MS:1000744", unit=MZ_UNIT),
        Column("charge_state", pa.int32(), "MS:1000041"),
        Column("intensity", pa.float32(), "MS:1000042", unit=COUNT_UNIT),
        Column("ion_mobility_value", pa.float64()), Column("ion_mobility_type", pa.string()),
        Column("parameters", PARAMETERS),
    ),
}  # fmt: skip
"""Always empty here; readers of the packed dialect look for them."""


def column_mapping(columns: tuple[Column, ...]) -> list[dict[str, Any]]:
    """Return what the index says of the columns that stand for terms."""
    return [
        {"name": column.term, "path": column.name, "accession": column.accession,
         "unit": column.unit or None}
        for column in columns
        if column.accession
    ]  # fmt: skip


def struct_type(columns: tuple[Column, ...], dialect: Dialect) -> pa.DataType:
    """Return the columns as fields of one struct."""
    return pa.struct([pa.field(column.spelt(dialect), column.type) for column in columns])


def table_schema(columns: tuple[Column, ...]) -> pa.Schema:
    """Return the schema of a table of the split dialect."""
    return pa.schema([pa.field(column.name, column.type) for column in columns])


def packed_schema() -> pa.Schema:
    """Return the schema of the one table of the packed dialect."""
    kinds = {"spectrum": SPECTRUM_COLUMNS, "scan": PACKED_SCAN_COLUMNS} | _ION_COLUMNS
    return pa.schema([pa.field(name, struct_type(kind, "packed")) for name, kind in kinds.items()])


def records(
    columns: tuple[Column, ...], values: dict[str, pa.Array | NDArray[Any]], n_rows: int
) -> list[pa.Array]:
    """Return the arrays of columns; a column without values is null, lists are empty."""
    return [_as_array(column, values.get(column.name), n_rows) for column in columns]


def _as_array(column: Column, value: pa.Array | NDArray[Any] | None, n_rows: int) -> pa.Array:
    if value is None and pa.types.is_large_list(column.type):
        offsets = pa.array(np.zeros(n_rows + 1, np.int64))
        return pa.LargeListArray.from_arrays(
            offsets, pa.array([], column.type.value_type), type=column.type
        )
    if value is None:
        return pa.nulls(n_rows, column.type)
    array = value if isinstance(value, pa.Array) else pa.array(value)
    return array.cast(column.type)


@dataclass(frozen=True, slots=True)
class SignalFormat:
    """How a signal member is written.

    layout : "point" or "chunk"
    mz_dtype, intensity_dtype : of f4, f8, and for intensities i4, i8
    marks : whether m/z may be null, and what its and the intensities' transforms are
    dialect : older readers look for the transforms the other way round
    shared_mz : whether spectra have the same m/z, so that a dictionary is small
    """

    layout: Literal["point", "chunk"]
    mz_dtype: np.dtype[Any]
    intensity_dtype: np.dtype[Any]
    marks: bool
    dialect: Dialect
    shared_mz: bool = False

    @property
    def schema(self) -> pa.Schema:
        """The one struct column of the member."""
        mz, intensity = (pa.from_numpy_dtype(t) for t in (self.mz_dtype, self.intensity_dtype))
        index = ("spectrum_index", pa.uint64())
        fields = [index, ("mz", mz), ("intensity", intensity)]
        if self.layout == "chunk":
            fields = [
                index, ("mz_chunk_start", mz), ("mz_chunk_end", mz),
                ("mz_chunk_values", pa.large_list(mz)), ("chunk_encoding", pa.string()),
                ("intensity", pa.large_list(intensity)),
            ]  # fmt: skip
        return pa.schema([pa.field(self.layout, pa.struct(fields))])

    def array_index(self) -> dict[str, Any]:
        """Return what the footer says of the arrays."""
        transforms = (INTERPOLATE, ZERO_TRIMMING) if self.marks else (None, None)
        if self.dialect == "packed":
            transforms = transforms[::-1]
        mz = {"data_type": _DATA_TYPES[self.mz_dtype.str[1:]], "transform": transforms[0]} | _MZ
        counts = {"data_type": _DATA_TYPES[self.intensity_dtype.str[1:]],
                  "transform": transforms[1]} | _INTENSITY  # fmt: skip
        if self.layout == "point":
            rows = [("mz", "point", mz), ("intensity", "point", counts)]
        else:
            parts = ("start", "end", "values")
            rows = [(f"mz_chunk_{part}", f"chunk_{part}", mz) for part in parts]
            rows += [("chunk_encoding", "chunk_encoding", mz),
                     ("intensity", "chunk_secondary", counts)]  # fmt: skip
        shared = {"context": "spectrum", "data_processing_id": None, "buffer_priority": "primary"}
        entries = [
            shared | said | {"path": f"{self.layout}.{name}", "buffer_format": form}
            for name, form, said in rows
        ]
        return {"prefix": self.layout, "entries": entries}

    def parquet_options(self) -> dict[str, Any]:
        """Return how pyarrow encodes the columns.

        Bytes of floats are split into streams, where neighbours are alike. A dictionary is
        smaller where spectra repeat the same m/z.
        """
        root = self.layout
        encodings = {f"{root}.spectrum_index": "DELTA_BINARY_PACKED"}
        values = ["point.mz"] if root == "point" else [
            "chunk.mz_chunk_start", "chunk.mz_chunk_end", "chunk.mz_chunk_values.list.element"
        ]  # fmt: skip
        dictionaries = ["chunk.chunk_encoding"] if root == "chunk" else []
        if self.shared_mz and root == "point":
            dictionaries += values
        else:
            encodings |= dict.fromkeys(values, "BYTE_STREAM_SPLIT")
        counts = f"{root}.intensity" + (".list.element" if root == "chunk" else "")
        encodings[counts] = "BYTE_STREAM_SPLIT"
        return {"column_encoding": encodings, "use_dictionary": dictionaries,
                "dictionary_pagesize_limit": 1 << 24}  # fmt: skip
