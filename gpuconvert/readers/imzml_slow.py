"""The spectrum list of an imzML by a conforming XML parser: slow, and the definition of right.

It takes what the tokenizer declines: entities and comments, UTF-16, prefixed tags, and
numbers such as ``1.156e+09``, which count only where they are exact integers.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers import imzml_scan as scan
from gpuconvert.readers.imzml_bytes import MISSING
from gpuconvert.readers.imzml_terms import (
    LOOKUP,
    NUMBER_NAMES,
    accession_code,
    is_plain,
    parse_integer,
)
from gpuconvert.readers.imzml_xml import LATIN, XmlSource, damaged, is_encoding_error, new_parser
from gpuconvert.readers.source_files import reading

LONGEST_TOKEN = 16 << 20
"""Expat keeps a tag whole; one longer than this is damage, in bytes."""

Group = tuple[int, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class SpectrumTable:
    """What a spectrum list says.

    columns : (N_COLUMNS, n_spectra) int64, as `imzml_scan` describes them
    rounded : whether a number was written with an exponent or a point, so that digits
        may have been lost before the file was written
    """

    columns: NDArray[np.int64]
    rounded: bool = False


class _Numbers:
    """Numbers and terms of a spectrum or of an array while it is open."""

    def __init__(self) -> None:
        self.numbers = [MISSING] * 6
        self.bits = 0
        self.unreadable: dict[int, str] = {}
        self.conflict = False

    def note(self, field: int, value: int) -> None:
        """Keep a number; that it was said before, and differs, is kept too."""
        self.conflict |= self.numbers[field] not in (MISSING, value)
        self.numbers[field] = value


class _ListHandler:
    """Fills columns from the events of expat."""

    def __init__(self, path: Path, groups: dict[str, Group]) -> None:
        self.path = path
        self.groups = groups
        self.columns = [array("q") for _ in range(scan.N_COLUMNS)]
        self.rounded = False
        self.place = "before"
        self.spectrum = _Numbers()
        self.array = _Numbers()
        self.arrays: dict[int, _Numbers] = {}
        self.flags = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if name == "spectrumList" and self.place == "before":
            self.place = "list"
        elif name == "spectrum" and self.place != "before" and self.place != "after":
            self._require(name, "list")
            self.place = "spectrum"
            self.spectrum, self.arrays, self.flags = _Numbers(), {}, 0
        elif name == "binaryDataArray" and self.place not in ("before", "after"):
            self._require(name, "spectrum")
            self.place = "array"
            self.array = _Numbers()
        elif name == "cvParam" and self.place in ("spectrum", "array"):
            self._term(attributes)
        elif name == "referenceableParamGroupRef" and self.place in ("spectrum", "array"):
            self._group(attributes.get("ref", ""))

    def end(self, tag: str) -> None:
        name = tag.rpartition(":")[2]
        if name == "binaryDataArray" and self.place == "array":
            self._end_array()
            self.place = "spectrum"
        elif name == "spectrum" and self.place in ("spectrum", "array"):
            self._require("/spectrum", "spectrum")
            self._end_spectrum()
            self.place = "list"
        elif name == "spectrumList" and self.place != "after":
            self._require("/spectrumList", "list")
            self.place = "after"

    def _require(self, name: str, place: str) -> None:
        if self.place != place:
            raise SourceError(
                f"{self.path}: <{name}> stands inside {self.place} at spectrum "
                f"{len(self.columns[0])}, expected it inside {place}; export the file again"
            )

    def _term(self, attributes: dict[str, str]) -> None:
        code = accession_code(attributes.get("accession", ""))
        bits = int(LOOKUP[scan.lookup_place(code)])
        if bits < 0:
            self._number(-bits - 1, attributes.get("value", ""))
            return
        name = attributes.get("name", "")
        if len(name) >= 2:
            bits = scan.rename_bits(bits, ord(name[0]), ord(name[1]))
        (self.array if self.place == "array" else self.spectrum).bits |= bits

    def _number(self, field: int, text: str) -> None:
        holder = self.spectrum if field < 3 else self.array
        if field >= 3 and self.place != "array":
            return
        value = parse_integer(text)
        if value is None:
            holder.unreadable[field] = text
            return
        holder.unreadable.pop(field, None)
        holder.note(field, value)
        self.rounded |= not is_plain(text.strip())

    def _group(self, ref: str) -> None:
        bits, numbers = self.groups.get(ref, (0, ()))
        in_array = self.place == "array"
        (self.array if in_array else self.spectrum).bits |= bits
        for field, value in enumerate(numbers):
            if value != MISSING and (field < 3 or in_array):
                holder = self.spectrum if field < 3 else self.array
                holder.note(field, value)

    def _end_array(self) -> None:
        kind = self.array.bits & (scan.IS_MZ | scan.IS_INTENSITY)
        if kind == 0:
            self.flags |= scan.FLAG_OTHER_ARRAY
        elif kind == scan.IS_MZ | scan.IS_INTENSITY:
            self.flags |= scan.FLAG_BOTH
        else:
            self._refuse_unreadable(self.array)
            if self.array.conflict:
                self.flags |= scan.FLAG_CONFLICT
            if kind in self.arrays:
                self.flags |= scan.FLAG_TWICE
            self.arrays[kind] = self.array

    def _end_spectrum(self) -> None:
        self._refuse_unreadable(self.spectrum)
        if self.spectrum.conflict:
            self.flags |= scan.FLAG_CONFLICT
        mz = self.arrays.get(scan.IS_MZ, _Numbers())
        intensity = self.arrays.get(scan.IS_INTENSITY, _Numbers())
        terms = mz.bits | intensity.bits << 16 | self.spectrum.bits << 32 | self.flags << 48
        row = [*self.spectrum.numbers[:3], *mz.numbers[3:], *intensity.numbers[3:], terms]
        for column, value in zip(self.columns, row, strict=True):
            column.append(value)

    def _refuse_unreadable(self, holder: _Numbers) -> None:
        for field, text in holder.unreadable.items():
            x, y = ("?" if v == MISSING else v for v in self.spectrum.numbers[:2])
            raise SourceError(
                f"{self.path}: spectrum {len(self.columns[0])} (x={x}, y={y}): "
                f"{NUMBER_NAMES[field]} is {text[:40]!r}, expected a whole number below 2^63; "
                "the exporter lost digits, export the file again"
            )


def parse_list(source: XmlSource, encoding: str, groups: dict[str, Group]) -> SpectrumTable:
    """Return the spectrum list of a whole file.

    Parameters
    ----------
    source
        The file.
    encoding
        Overrides what the file declares, unless it is "".
    groups
        Term bits and numbers of every referenceable group, by id.
    """
    try:
        return _parse(source, encoding, groups)
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        if encoding or source.codec or not is_encoding_error(error):
            raise damaged(source.path, error) from error
        first = error
    try:
        return _parse(source, LATIN, groups)
    except expat.ExpatError:
        raise damaged(source.path, first) from first


def _parse(source: XmlSource, encoding: str, groups: dict[str, Group]) -> SpectrumTable:
    handler = _ListHandler(source.path, groups)
    parser = new_parser(source.path, encoding)
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    fed = 0
    with reading(source.path):
        for piece in source.pieces():
            parser.Parse(piece, False)
            fed += len(piece)
            if fed - parser.CurrentByteIndex > LONGEST_TOKEN:
                raise SourceError(
                    f"{source.path} has a tag or a text of more than {LONGEST_TOKEN} bytes in its "
                    f"spectrum list, after spectrum {len(handler.columns[0])}; export it again"
                )
    parser.Parse(b"", True)
    columns = np.empty((scan.N_COLUMNS, len(handler.columns[0])), np.int64)
    for index, column in enumerate(handler.columns):
        columns[index] = np.frombuffer(column, np.int64) if column else 0
    return SpectrumTable(columns, handler.rounded)
