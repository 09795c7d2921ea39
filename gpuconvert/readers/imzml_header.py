"""Everything an imzML says before its first spectrum.

The header is taken at its accessions, not at its names; what is not needed may be
missing, misspelt or wrong without harm. What it says of the spectra is held against
them in `gpuconvert.readers.imzml_index`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from gpuconvert.errors import SourceError
from gpuconvert.readers.imzml_bytes import MISSING
from gpuconvert.readers.imzml_facts import (
    ScanSettings,
    Term,
    all_bits,
    find_terms,
    find_value,
    read_instrument,
    read_metadata,
    read_mz_range,
    read_scan_settings,
)
from gpuconvert.readers.imzml_scan import (
    lookup_place,
)
from gpuconvert.readers.imzml_terms import LOOKUP, accession_code, parse_integer
from gpuconvert.readers.imzml_xml import (
    LATIN,
    PIECE,
    XmlSource,
    damaged,
    find_xml,
    is_encoding_error,
    new_parser,
)
from gpuconvert.readers.source_files import reading
from gpuconvert.spectra import Instrument

LONGEST_HEADER = 64 << 20
"""A header longer than this is not one, in bytes."""

DEEPEST = 100

_MODES = {"IMS:1000030": "continuous", "IMS:1000031": "processed"}
_CHECKSUMS = {"IMS:1000090": "MD5", "IMS:1000091": "SHA-1", "IMS:1000092": "SHA-256"}


@dataclass(frozen=True)
class ImzmlHeader:
    """What stands before the spectra.

    source : where the XML is
    encoding : overrides what the XML declares, unless it is ""
    body_at : byte after ``<spectrumList ...>``, after decompression; -1 where only the slow
        path can read the list
    open_tags : elements that are open there, as written
    count : declared number of spectra, or None
    mode : "continuous", "processed", "both" or "none"
    uuid : as written
    checksum : (algorithm, lower-case hex), or ("", "")
    groups : by id, term bits and numbers of every referenceable group, nested groups included
    file_bits, group_bits : term bits of the file content, and of all groups together
    """

    source: XmlSource
    encoding: str
    body_at: int
    open_tags: tuple[str, ...]
    count: int | None
    mode: str
    uuid: str
    checksum: tuple[str, str]
    groups: dict[str, tuple[int, tuple[int, ...]]]
    file_bits: int
    group_bits: int
    scan_settings: tuple[ScanSettings, ...]
    instrument: Instrument
    mz_range: tuple[float, float] | None
    metadata: dict[str, Any] = field(default_factory=dict)


class _ListReached(Exception):  # noqa: N818 - ends the parse, is no failure
    """The opening tag of the spectrum list was seen."""


class _HeaderHandler:
    """Builds the element tree of the header, without namespaces."""

    def __init__(self, path: Path, encoding: str) -> None:
        self.path = path
        self.parser = new_parser(path, encoding)
        self.parser.StartElementHandler = self.start
        self.parser.EndElementHandler = self.end
        self.tree = TreeBuilder()
        self.open: list[str] = []
        self.list_at = -1
        self.list_attributes: dict[str, str] = {}

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        if not self.open and name not in ("mzML", "indexedmzML"):
            raise SourceError(
                f"{self.path} has the root element <{tag}>, expected <mzML>; is it an imzML file?"
            )
        self.open.append(tag)
        if len(self.open) > DEEPEST:
            raise SourceError(f"{self.path} nests more than {DEEPEST} elements; it is not imzML")
        self.tree.start(name, attributes)
        if name == "spectrumList":
            self.list_at = self.parser.CurrentByteIndex
            self.list_attributes = attributes
            raise _ListReached

    def end(self, tag: str) -> None:
        self.tree.end(tag.rpartition(":")[2])
        self.open.pop()

    def root(self) -> Element:
        for tag in reversed(self.open):
            self.tree.end(tag.rpartition(":")[2])
        return self.tree.close()


def _parse(source: XmlSource, encoding: str) -> _HeaderHandler:
    """Return the handler after it has seen the opening tag of the spectrum list."""
    handler = _HeaderHandler(source.path, encoding)
    taken = 0
    with reading(source.path):
        try:
            for piece in source.pieces():
                handler.parser.Parse(piece, False)
                taken += len(piece)
                if taken > LONGEST_HEADER:
                    raise SourceError(
                        f"{source.path} has no <spectrumList> in its first {LONGEST_HEADER} bytes; "
                        "is it an imzML file?"
                    )
            handler.parser.Parse(b"", True)
        except _ListReached:
            return handler
    raise SourceError(f"{source.path} has no <spectrumList>, expected imzML; export it again")


def _parse_tolerantly(source: XmlSource) -> tuple[_HeaderHandler, str]:
    """Return what `_parse` gives, and the encoding that had to be used in place of the declared."""
    try:
        return _parse(source, ""), ""
    except (expat.ExpatError, LookupError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        if source.codec or not is_encoding_error(error):
            raise damaged(source.path, error) from error
        first = error
    try:
        return _parse(source, LATIN), LATIN
    except expat.ExpatError:
        raise damaged(source.path, first) from first


_TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")


def _find_body(source: XmlSource, handler: _HeaderHandler, names: dict[str, Any]) -> int:
    """Return the byte after the opening tag of the list, or -1 for the slow path."""
    prefixed = ":" in handler.open[-1]
    if source.codec or prefixed or not all(name.isascii() for name in names):
        return -1
    at = source.start + handler.list_at
    with reading(source.path), source.open(at) as stream:
        tag = _TAG.match(stream.read(PIECE))
    if not tag or tag[0].endswith(b"/>"):
        return -1
    return at + tag.end()


def read_header(path: Path) -> ImzmlHeader:
    """Return the header of an imzML file.

    Raises
    ------
    SourceMissingError
        Where there is no such file.
    SourceError
        Where it is not imzML, is damaged, or has a document type.
    """
    source = find_xml(path)
    handler, encoding = _parse_tolerantly(source)
    root = handler.root()
    elements = {item.get("id", ""): item for item in root.iter("referenceableParamGroup")}
    groups = {name: _group(item, elements) for name, item in elements.items()}
    content = find_terms(root.find(".//fileContent"), elements)
    settings = tuple(read_scan_settings(item, elements) for item in root.iter("scanSettings"))
    group_bits = 0
    for bits, _ in groups.values():
        group_bits |= bits
    return ImzmlHeader(
        source=source, encoding=encoding, body_at=_find_body(source, handler, groups),
        open_tags=tuple(handler.open),
        count=parse_integer(handler.list_attributes.get("count", "")),
        mode=_mode(content), uuid=find_value(content, "IMS:1000080"), checksum=_checksum(content),
        groups=groups, file_bits=all_bits(content), group_bits=group_bits, scan_settings=settings,
        instrument=read_instrument(root, elements), mz_range=read_mz_range(elements),
        metadata=read_metadata(root, elements, content, settings),
    )  # fmt: skip


def _group(element: Element, groups: dict[str, Element]) -> tuple[int, tuple[int, ...]]:
    """Return the term bits of a referenceable group, and its six numbers."""
    terms = find_terms(element, groups)
    numbers = [MISSING] * 6
    for term in terms:
        code = int(LOOKUP[lookup_place(accession_code(term.accession))])
        value = parse_integer(term.value)
        if code < 0 and value is not None:
            numbers[-code - 1] = value
    return all_bits(terms), tuple(numbers)


def _mode(content: tuple[Term, ...]) -> str:
    said = {_MODES[term.accession] for term in content if term.accession in _MODES}
    return "both" if len(said) == 2 else said.pop() if said else "none"


def _checksum(content: tuple[Term, ...]) -> tuple[str, str]:
    for term in content:
        if term.accession in _CHECKSUMS and term.value.strip():
            return _CHECKSUMS[term.accession], term.value.strip().lower()
    return "", ""
