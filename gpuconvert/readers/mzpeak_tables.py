"""The metadata of an mzPeak as columns, the same for all its dialects.

Older writers pack spectra and scans side by side into one table, as structs padded
with nulls; newer ones give each a table. Columns are found by their term: in the
index's column mapping, in a name such as ``MS_1000511_ms_level``, or under a plain name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.mzpeak_archive import Archive, Member, understood
from gpuconvert.readers.mzpeak_decode import lists, numbers

Ints = NDArray[np.int64]

PROFILE, CENTROID = "MS:1000128", "MS:1000127"
NOWHERE = np.iinfo(np.int64).min
"""A position that is not given."""

FILE_KEYS = (
    "file_description", "instrument_configuration_list", "data_processing_method_list",
    "software_list", "sample_list", "scan_settings_list", "run",
)  # fmt: skip
"""What is said of the file as a whole, in the index and in the footer alike."""

_INFLECTED = re.compile(r"^(?:opt_)?([A-Z]+)_(\d+)_")
_POSITIVE_WORDS = {"MS:1000130": 1, "MS:1000129": -1}


@dataclass(frozen=True, slots=True)
class Spectra:
    """What the metadata say of every spectrum, in ascending order of their index.

    index : (n_spectra,) int64, the identifiers that signals and scans refer to
    ms_level : (n_spectra,) int64, 0 where not given
    polarity : (n_spectra,) int8; +1, -1, or 0
    representation : (n_spectra,) int8; 1 profile, 2 centroid, 0 where not given
    models : (n_spectra, 3) float64, b0, b1, b2 of the sampling step; NaN where none
    position : (n_spectra, 3) int64, x, y, z as in the file; `NOWHERE` where not given
    torn : (n_spectra,) bool, whether its scans lie on different pixels
    imaging : whether any scan has a position
    packed : whether spectra and scans share one table
    footer : key-value metadata of the table
    """

    index: Ints
    ms_level: Ints
    polarity: NDArray[np.int8]
    representation: NDArray[np.int8]
    models: NDArray[np.float64]
    position: Ints
    torn: NDArray[np.bool_]
    imaging: bool
    packed: bool
    footer: dict[str, str]


@dataclass(frozen=True, slots=True)
class Term:
    """What a column means: its accession, "" where it has none, and its plain name."""

    accession: str
    name: str


INDEX = Term("", "index")
SOURCE = Term("", "source_index")
MS_LEVEL = Term("MS:1000511", "ms_level")
POLARITY = Term("MS:1000465", "scan_polarity")
REPRESENTATION = Term("MS:1000525", "spectrum_representation")
MODEL = Term("", "mz_delta_model")
POSITIONS = (
    Term("IMS:1000050", "position_x"), Term("IMS:1000051", "position_y"),
    Term("IMS:1000052", "position_z"),
)  # fmt: skip


class Table:
    """Columns of one kind of thing (spectra, scans), whatever the dialect.

    root : the struct that packs them, or "" where they have a table of their own
    """

    def __init__(self, member: Member, root: str, mapping: Sequence[Any]) -> None:
        self.where = f"{member.file.path}: {member.name}"
        self._member = member
        with understood(member.file.path, member.name):
            self._file = pq.ParquetFile(member.open())
            schema = self._file.schema_arrow
        self.root = root if root in schema.names else ""
        self.names: list[str]
        if self.root:
            kind = schema.field(self.root).type
            self.names = [field.name for field in kind] if pa.types.is_struct(kind) else []
        else:
            self.names = list(schema.names)
        self._mapped = dict(_mapped_columns(mapping))

    @property
    def footer(self) -> dict[str, str]:
        """Key-value metadata of the table."""
        pairs = (self._file.metadata.metadata or {}).items()
        return {key.decode("utf-8", "replace"): value.decode("utf-8", "replace")
                for key, value in pairs}  # fmt: skip

    def find(self, term: Term) -> str | None:
        """Return the name of the column of a term, or None."""
        mapped = self._mapped.get(term.accession)
        if mapped is not None and mapped in self.names:
            return mapped
        for name in self.names:
            match = _INFLECTED.match(name)
            if match and f"{match[1]}:{match[2]}" == term.accession:
                return name
        return next((name for name in (term.name, f"opt_{term.name}") if name in self.names), None)

    def read(self, *terms: Term) -> dict[Term, pa.Array]:
        """Return the columns that there are, rows of other things left out."""
        found = {term: name for term in terms if (name := self.find(term)) is not None}
        if not found:
            return {}
        prefix = f"{self.root}." if self.root else ""
        with understood(self._member.file.path, self._member.name):
            table = self._file.read(columns=[prefix + name for name in found.values()],
                                    use_threads=False)  # fmt: skip
        if not self.root:
            return {term: _whole(table.column(name)) for term, name in found.items()}
        rows = _whole(table.column(self.root))
        rows = rows.filter(rows.is_valid())
        return {term: pc.struct_field(rows, name) for term, name in found.items()}


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole


def _mapped_columns(mapping: Sequence[Any]) -> list[tuple[str, str]]:
    """Return (accession, column) of the entries of a column mapping that are not nested."""
    found = []
    for entry in mapping:
        path = entry.get("path") if isinstance(entry, dict) else None
        parts = path.split(".") if isinstance(path, str) else path
        if not isinstance(parts, list):
            continue
        if len(parts) == 1 and entry.get("accession"):
            found.append((str(entry["accession"]), str(parts[0])))
    return found


def _whole_numbers(where: str, name: str, column: pa.Array, missing: int) -> Ints:
    """Return a column of integers, `missing` where null; (n,) int64."""
    kind = column.type
    if pa.types.is_floating(kind) and not (kind.bit_width and _integral(column)):
        raise SourceError(f"{where}: column {name} has type {kind}, expected whole numbers")
    if pa.types.is_null(kind):
        return np.full(len(column), missing, np.int64)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise SourceError(f"{where}: column {name} has type {kind}, expected whole numbers")
    values = numbers(column).astype(np.int64)
    if column.null_count:
        values = np.where(column.is_null().to_numpy(zero_copy_only=False), missing, values)
    return values


def _integral(column: pa.Array) -> bool:
    values = numbers(column)
    return bool((np.isfinite(values) & (values == np.floor(values))).all())


def _coded(column: pa.Array, codes: dict[str, int]) -> NDArray[np.int8]:
    """Return a column of CURIEs or of signs as small numbers, 0 for all others."""
    if pa.types.is_integer(column.type):
        return np.sign(numbers(column).astype(np.int64)).astype(np.int8)
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return np.zeros(len(column), np.int8)
    words = pc.dictionary_encode(column)
    table = np.array([codes.get(word, 0) for word in words.dictionary.to_pylist()] + [0], np.int8)
    # A null has no place in the dictionary: it takes the last.
    place: Ints = numbers(pc.fill_null(words.indices, len(table) - 1)).astype(np.int64)
    return table[place]


def _models(where: str, column: pa.Array | None, n_spectra: int) -> NDArray[np.float64]:
    """Return the delta models, ascending powers; shorter lists are of lower degree."""
    models = np.full((n_spectra, 3), np.nan)
    if column is None or pa.types.is_null(column.type):
        return models
    found = lists(column)
    if found.counts.max(initial=0) > 3:
        spectrum = int(np.argmax(found.counts > 3))
        raise SourceError(
            f"{where}: the delta model of spectrum {spectrum} has {int(found.counts[spectrum])} "
            "terms, expected at most 3; export it without null marking"
        )
    for degree in range(3):
        has = found.counts > degree
        models[has, degree] = found.values[found.offsets[:-1][has] + degree]
        models[(found.counts > 0) & ~has, degree] = 0.0
    return models


def read_spectra(archive: Archive) -> Spectra:
    """Return what the metadata say of the spectra.

    Raises
    ------
    SourceError
        Where there are no metadata, or they contradict themselves.
    """
    member = archive.member("spectrum", "metadata")
    if member is None:
        raise SourceError(f"{archive.path} has no metadata of spectra; is it a spectral archive?")
    table = Table(member, "spectrum", _mapping(archive, "metadata"))
    columns = table.read(INDEX, MS_LEVEL, POLARITY, REPRESENTATION, MODEL)
    if INDEX not in columns:
        raise SourceError(f"{table.where} has no column index; export it again")
    index = _whole_numbers(table.where, "index", columns[INDEX], -1)
    n_spectra = len(index)
    if n_spectra and ((np.diff(index) <= 0).any() or index[0] < 0):
        raise SourceError(
            f"{table.where}: the index of its spectra does not ascend from 0 on; export it again"
        )
    level = columns.get(MS_LEVEL)
    signs, kinds = columns.get(POLARITY), columns.get(REPRESENTATION)
    scans = _scan_table(archive, table, member)
    position, torn = _positions(scans, index)
    nothing = np.zeros(n_spectra, np.int8)
    return Spectra(
        index=index,
        ms_level=np.zeros(n_spectra, np.int64) if level is None
        else _whole_numbers(table.where, "ms_level", level, 0),
        polarity=nothing if signs is None else _coded(signs, _POSITIVE_WORDS),
        representation=nothing if kinds is None else _coded(kinds, {PROFILE: 1, CENTROID: 2}),
        models=_models(table.where, columns.get(MODEL), n_spectra),
        position=position,
        torn=torn,
        imaging=bool((position[:, :2] != NOWHERE).any() or torn.any()),
        packed=bool(table.root),
        footer=table.footer,
    )  # fmt: skip


def _mapping(archive: Archive, kind: str) -> list[Any]:
    """Return the column mapping of a member, under either of its names."""
    entry = archive.entry("spectrum", kind) or {}
    stated = entry.get("column_mapping") or entry.get("metadata_mapping")
    return stated if isinstance(stated, list) else []


def _scan_table(archive: Archive, spectra: Table, member: Member) -> Table | None:
    """Return the table of scans, or None where there is none."""
    if spectra.root:
        packed = Table(member, "scan", ())
        return packed if packed.root else None
    own = archive.member("spectrum", "scans")
    return None if own is None else Table(own, "scan", _mapping(archive, "scans"))


def _positions(scans: Table | None, index: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the position of every spectrum, and whether its scans disagree about it."""
    position, torn = np.full((len(index), 3), NOWHERE), np.zeros(len(index), bool)
    columns = {} if scans is None else scans.read(SOURCE, *POSITIONS)
    if scans is None or POSITIONS[0] not in columns or POSITIONS[1] not in columns:
        return position, torn
    if SOURCE not in columns:
        raise SourceError(f"{scans.where} has no column source_index; export it again")
    source = _whole_numbers(scans.where, "source_index", columns[SOURCE], -1)
    places = np.stack(
        [
            _whole_numbers(scans.where, term.name, columns[term], NOWHERE)
            if term in columns else np.full(len(source), NOWHERE)
            for term in POSITIONS
        ],
        axis=1,
    )  # fmt: skip
    half = (places[:, 0] == NOWHERE) != (places[:, 1] == NOWHERE)
    if half.any():
        raise SourceError(
            f"{scans.where}: a scan of spectrum {int(source[half][0])} has one of x and y only; "
            "export it again"
        )
    given = places[:, 0] != NOWHERE
    source, places = source[given], places[given]
    row = np.searchsorted(index, source)
    known = row < len(index)
    known[known] = index[row[known]] == source[known]
    if not known.all():
        raise SourceError(
            f"{scans.where} places spectrum {int(source[~known][0])}, which the metadata do not "
            "list; export it again"
        )
    # The last scan of a spectrum counts; the others must agree with it.
    position[row] = places
    np.logical_or.at(torn, row, (position[row] != places).any(axis=1))
    position[torn] = NOWHERE
    return position, torn


def file_metadata(archive: Archive, footer: dict[str, str]) -> dict[str, Any]:
    """Return what the archive says of itself; the footer of the metadata wins over the index."""
    stated = archive.index.get("metadata")
    merged: dict[str, Any] = dict(stated) if isinstance(stated, dict) else {}
    for key in FILE_KEYS:
        try:
            value = json.loads(footer.get(key, "null"), parse_constant=lambda _: None)
        except ValueError:
            continue
        if value:
            merged[key] = value
    return merged
