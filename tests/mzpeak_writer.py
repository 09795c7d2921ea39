"""Writes small mzPeak archives from Python lists: every dialect, layout and encoding, by the page.

`Archive.of` makes the index and the tables; a test changes them before `Archive.write`.
Nothing here is vectorised or shared with the package.
"""

from __future__ import annotations

import json
import math
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MZ, COUNTS = (
    ("MS:1000514", "m/z array", "MS:1000040"),
    ("MS:1000515", "intensity array", "MS:1000131"),
)
DATA_TYPES = {"f4": "MS:1000521", "f8": "MS:1000523", "i4": "MS:1000519", "i8": "MS:1000522"}
ARROW = {"f4": pa.float32(), "f8": pa.float64(), "i4": pa.int32(), "i8": pa.int64()}
ENCODINGS = {"none": "MS:1000576", "delta": "MS:1003089", "numpress": "MS:1002312",
             "linear": "MS:1003826", "sqrt": "MS:1003826"}  # fmt: skip
GRIDS = {"linear": "MS:1003824", "sqrt": "MS:1003825"}


@dataclass
class Spectrum:
    """One spectrum; None in `mz` marks a zero.

    scans : positions (x, y) or (x, y, z) of its scans; None for a scan without
    """

    mz: list
    intensity: list
    scans: list
    level: int = 1
    kind: str = "MS:1000128"
    polarity: int | None = 1
    model: list | None = None


def half_bytes(number):
    """A signed 32-bit number as Numpress writes it."""
    digits = [(number & 0xFFFFFFFF) >> 4 * k & 15 for k in range(8)]
    for filler, base in ((0, 0), (15, 8)):
        count = 0
        while count < (8 if filler == 0 else 7) and digits[7 - count] == filler:
            count += 1
        if count:
            return [base + count, *digits[: 8 - count]]
    return [0, *digits]


def to_bytes(halves):
    halves = halves + [0] * (len(halves) % 2)
    return [high << 4 | low for high, low in zip(halves[::2], halves[1::2], strict=True)]


def numpress_linear(values, scale=1e5):
    """Values as the residuals of a line through the two before."""
    whole = [int(value * scale + 0.5) for value in values]
    data = list(struct.pack(">d", scale)) if whole else []
    for number in whole[:2]:
        data += struct.pack("<I", number)
    halves = []
    for before, now, after in zip(whole, whole[1:], whole[2:], strict=False):
        halves += half_bytes(after - (2 * now - before))
    return [*data, *to_bytes(halves)]


def slof(values, scale=3000.0):
    """Values as logarithms in two bytes."""
    if not values:
        return []
    words = [int(math.log(value + 1) * scale + 0.5) for value in values]
    return [*struct.pack(">d", scale), *struct.pack(f"<{len(words)}H", *words)]


def pic(values):
    """Counts as half-bytes."""
    return to_bytes([half for value in values for half in half_bytes(round(value))])


def chunks_of(mz, width=50.0):
    """Bounds of chunks; a null stays with the point before it."""
    bounds, start = [0], None
    for place, value in enumerate(mz):
        if value is None:
            continue
        if start is not None and value >= start + width:
            bounds.append(place)
            start = None
        start = value if start is None else start
    return list(zip(bounds, [*bounds[1:], len(mz)], strict=True)) if mz else []


def delta(values):
    """Differences; absolute after a null."""
    return [
        value if value is None or k == 0 or values[k - 1] is None else value - values[k - 1]
        for k, value in enumerate(values)
    ]


def chunk_row(index, mz, intensity, encoding, packing):
    """One row of the chunk layout."""
    real = [value for value in mz if value is not None]
    row = {"spectrum_index": index, "mz_chunk_start": real[0] if real else 0.0,
           "mz_chunk_end": real[-1] if real else 0.0, "mz_chunk_values": [],
           "chunk_encoding": ENCODINGS[encoding]}  # fmt: skip
    if encoding in ("none", "delta"):
        values = delta(mz) if encoding == "delta" else list(mz)
        row["mz_chunk_values"] = values if mz[0] is None else values[1:]
    elif encoding == "numpress":
        row["mz_numpress_linear_bytes"] = numpress_linear(mz)
    else:
        row["mz_grid"] = grid(mz, encoding)
    if packing == "slof":
        row["intensity_numpress_slof_bytes"] = slof(intensity)
    elif packing == "pic":
        row["intensity_numpress_pic_bytes"] = pic(intensity)
    else:
        row["intensity"] = intensity
    return row


GRID_TERMS = {"linear": (100.0, 0.25, 1.0), "sqrt": (10.0, 0.001, 1.0)}


def grid(mz, kind):
    """Positions on a grid, as differences."""
    a, b, s = GRID_TERMS[kind]
    places = [round(((math.sqrt(v * s) if kind == "sqrt" else v * s) - a) / b) for v in mz]
    steps = [now - before for before, now in zip([0, *places], places, strict=False)]
    parameters = [a, b] if s == 1.0 else [a, b, s]
    return {"grid_type": GRIDS[kind], "parameters": parameters, "indices": steps}


def signal_table(spectra, layout, encoding, packing, types):
    """The table of a signal member, and its array index."""
    mz_type, count_type = (ARROW[name] for name in types)
    entries = []

    def enter(array, path, form, transform=None):
        accession, name, unit = array
        entries.append({
            "context": "spectrum", "path": f"{layout}.{path}",
            "data_type": DATA_TYPES[types[array is COUNTS]], "array_type": accession,
            "array_name": name, "unit": unit, "buffer_format": form, "transform": transform,
            "data_processing_id": None, "buffer_priority": "primary",
            "sorting_rank": 0 if array is MZ else None,
        })  # fmt: skip

    fields = [("spectrum_index", pa.uint64())]
    if layout == "point":
        fields += [("mz", mz_type), ("intensity", count_type)]
        enter(MZ, "mz", "point", "MS:1003902")
        enter(COUNTS, "intensity", "point", "MS:1003901")
        rows = [
            {"spectrum_index": k, "mz": m, "intensity": None if m is None else i}
            for k, one in enumerate(spectra)
            for m, i in zip(one.mz, one.intensity, strict=True)
        ]
    else:
        fields += [("mz_chunk_start", mz_type), ("mz_chunk_end", mz_type)]
        fields += [("mz_chunk_values", pa.large_list(mz_type)), ("chunk_encoding", pa.string())]
        for part in ("start", "end", "values"):
            enter(MZ, f"mz_chunk_{part}", f"chunk_{part}")
        enter(MZ, "chunk_encoding", "chunk_encoding")
        if encoding == "numpress":
            fields.append(("mz_numpress_linear_bytes", pa.large_list(pa.uint8())))
            enter(MZ, "mz_numpress_linear_bytes", "chunk_transform", "MS:1002312")
        if encoding in GRIDS:
            kind = [("grid_type", pa.string()), ("parameters", pa.large_list(pa.float64())),
                    ("indices", pa.large_list(pa.uint32()))]  # fmt: skip
            fields.append(("mz_grid", pa.struct(kind)))
            enter(MZ, "mz_grid", "chunk_transform", "MS:1003826")
        if packing == "plain":
            fields.append(("intensity", pa.large_list(count_type)))
            enter(COUNTS, "intensity", "chunk_secondary")
        else:
            name = f"intensity_numpress_{packing}_bytes"
            fields.append((name, pa.large_list(pa.uint8())))
            transform = {"slof": "MS:1002314", "pic": "MS:1002313"}[packing]
            enter(COUNTS, name, "chunk_transform", transform)
        rows = [
            chunk_row(k, one.mz[a:b], one.intensity[a:b], encoding, packing)
            for k, one in enumerate(spectra)
            for a, b in chunks_of(one.mz)
        ]
    column = pa.array(rows, pa.struct(fields))
    return pa.Table.from_arrays([column], [layout]), {"prefix": layout, "entries": entries}


TERMS = {"ms_level": "MS:1000511", "scan_polarity": "MS:1000465",
         "spectrum_representation": "MS:1000525", "position_x": "IMS:1000050",
         "position_y": "IMS:1000051", "position_z": "IMS:1000052"}  # fmt: skip


def inflected(name):
    return f"{TERMS[name].replace(':', '_')}_{name}" if name in TERMS else name


@dataclass
class Archive:
    """An archive before it is written: what a test may change."""

    tables: dict
    footers: dict
    index: dict
    options: dict = field(default_factory=dict)

    @classmethod
    def of(
        cls, spectra, *, dialect="D4", layout="point", encoding="delta", packing="plain",
        types=("f8", "f4"), peaks=None, pixel_size=10.0,
    ):  # fmt: skip
        """The archive of spectra; those of `peaks` (by place) are in the peaks member."""
        rows, scans = [], []
        for k, one in enumerate(spectra):
            rows.append({
                "index": k, "id": f"scan={k}", "ms_level": one.level, "time": 0.0,
                "scan_polarity": one.polarity, "spectrum_representation": one.kind,
                "mz_delta_model": one.model,
            })  # fmt: skip
            for scan in one.scans:
                x, y, *z = scan or (None, None)
                scans.append({"source_index": k, "position_x": x, "position_y": y,
                              "position_z": z[0] if z else None})  # fmt: skip
        wide = pa.int64() if dialect in ("D1", "D2") else pa.int32()
        row_type = pa.struct([
            ("index", pa.uint64()), ("id", pa.large_string()), ("ms_level", pa.uint8()),
            ("time", pa.float64()), ("scan_polarity", pa.int8()),
            ("spectrum_representation", pa.string()),
            ("mz_delta_model", pa.large_list(pa.float64())),
        ])  # fmt: skip
        scan_type = pa.struct([("source_index", pa.uint64()), ("position_x", wide),
                               ("position_y", wide), ("position_z", wide)])  # fmt: skip
        tables, files, footers = {}, [], {}
        for name, kind, chosen in (("spectra_data", "data_arrays", spectra),
                                   ("spectra_peaks", "peaks", peaks)):  # fmt: skip
            if chosen is not None:
                table, arrays = signal_table(chosen, layout, encoding, packing, types)
                tables[f"{name}.parquet"] = table
                footers[f"{name}.parquet"] = {"spectrum_array_index": json.dumps(arrays)}
                files.append(describe(f"{name}.parquet", kind))
        columns = pa.array(rows, row_type), pa.array(scans, scan_type)
        described = {"scan_settings_list": settings(pixel_size)}
        if dialect == "D1":
            tables["spectra_metadata.parquet"] = packed(*columns)
            files.append(describe("spectra_metadata.parquet", "metadata"))
            for entry in files:
                entry["data_kind"] = entry["data_kind"].replace("_", " ")
                entry.pop("column_mapping")
        else:
            kinds = ("metadata", "scans")
            for kind, column in zip(kinds, columns, strict=True):
                name = "spectra_metadata" + ("_scans" if kind == "scans" else "")
                table, mapping = split(column, dialect)
                tables[f"{name}.parquet"] = table
                files.append(describe(f"{name}.parquet", kind, mapping))
        footers["spectra_metadata.parquet"] = {
            key: json.dumps(value) for key, value in described.items()
        }
        index = {"files": files, "metadata": {"version": "0.9.0"} | described}
        return cls(tables, footers, index)

    def member(self, name):
        """A Parquet member as bytes."""
        table = self.tables[name]
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, table.schema, write_page_index=True) as writer:
            if len(table):
                writer.write_table(table, row_group_size=self.options.get("group", 1 << 20))
            writer.add_key_value_metadata(self.footers.get(name, {}))
        return sink.getvalue().to_pybytes()

    def write(self, folder, name="test", *, unpacked=False, compression=zipfile.ZIP_STORED):
        """Write the archive; return its path."""
        path = Path(folder) / f"{name}.mzpeak"
        contents = {key: self.member(key) for key in self.tables}
        contents["mzpeak_index.json"] = json.dumps(self.index).encode()
        if unpacked:
            path.mkdir()
            for key, data in contents.items():
                (path / key).write_bytes(data)
            return path
        with zipfile.ZipFile(path, "w", compression) as archive:
            for key, data in contents.items():
                archive.writestr(key, data)
        return path


def describe(name, kind, mapping=()):
    """An entry of the index."""
    return {"name": name, "entity_type": "spectrum", "data_kind": kind,
            "column_mapping": list(mapping)}  # fmt: skip


def settings(pixel_size):
    """Scan settings with a pixel size, or none."""
    if pixel_size is None:
        return []
    parameters = [
        {"name": name, "accession": accession, "value": pixel_size, "unit": "UO:0000017"}
        for name, accession in (("pixel size (x)", "IMS:1000046"), ("pixel size y", "IMS:1000047"))
    ]
    return [{"id": "s", "parameters": parameters}]


def packed(rows, scans):
    """Both as structs side by side, the shorter padded with nulls."""
    n_rows = max(len(rows), len(scans))
    structs = [
        pa.concat_arrays([spelt(column), pa.nulls(n_rows - len(column), spelt(column).type)])
        for column in (rows, scans)
    ]
    return pa.Table.from_arrays(structs, ["spectrum", "scan"])


def spelt(column):
    """A struct with its terms in the names of its fields."""
    fields = [pa.field(inflected(item.name), item.type) for item in column.type]
    return pa.StructArray.from_arrays(column.flatten(), fields=fields)


def split(column, dialect):
    """A table of its own, and its column mapping."""
    names = [item.name for item in column.type]
    shown = {"D2": [inflected(name) for name in names],
             "D3": [f"opt_{inflected(name)}" if name.startswith("position") else name
                    for name in names], "D4": names}[dialect]  # fmt: skip
    mapping = [
        {"name": name, "path": [spelling] if dialect == "D2" else spelling,
         "accession": TERMS[name], "unit": None}
        for name, spelling in zip(names, shown, strict=True)
        if name in TERMS
    ]  # fmt: skip
    return pa.Table.from_arrays(column.flatten(), shown), mapping
