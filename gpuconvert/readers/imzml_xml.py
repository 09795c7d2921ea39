"""The XML half of an imzML as bytes: where it begins, how it is encoded, how it is parsed safely.

Document types and entities are refused everywhere, so nothing can be expanded or fetched.
"""

from __future__ import annotations

import codecs
import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast
from xml.parsers import expat

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.source_files import reading, refuse_pointer, require_file

PIECE = 1 << 16
"""Bytes fed to the XML parser at a time."""

LATIN = "iso-8859-1"
"""The second try: every byte is a character in it."""

_WIDE_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (b"<\0\0\0", "utf-32-le"), (b"\0\0\0<", "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
    (b"<\0", "utf-16-le"), (b"\0<", "utf-16-be"),
)  # fmt: skip
"""First bytes of encodings that do not write ASCII as ASCII, longest first."""

_ENCODING_ERRORS = {4, 6, 18, 19}
"""Expat: invalid token, partial character, unknown encoding, incorrect encoding."""


@dataclass(frozen=True, slots=True)
class XmlSource:
    """Where the XML of a file is.

    path : the file as the user named it
    zipped : whether it is gzip-compressed
    start : bytes before the XML begins, after decompression
    junk : whether more than blanks and a byte order mark had to be skipped
    codec : Python codec of UTF-16 and UTF-32, "" where ASCII is written as ASCII
    """

    path: Path
    zipped: bool
    start: int
    junk: bool
    codec: str

    @contextmanager
    def open(self, at: int) -> Iterator[BinaryIO]:
        """Open the decompressed stream, positioned `at` bytes from its beginning."""
        with cast(
            "BinaryIO", gzip.open(self.path) if self.zipped else self.path.open("rb")
        ) as stream:
            stream.seek(at)
            yield stream

    def pieces(self) -> Iterator[bytes | str]:
        """Yield the XML in pieces that expat takes."""
        with self.open(self.start) as stream:
            if not self.codec:
                while piece := stream.read(PIECE):
                    yield piece
                return
            decoder = codecs.getincrementaldecoder(self.codec)()
            yield decoder.decode(stream.read(PIECE)).lstrip("\ufeff \t\r\n")
            while piece := stream.read(PIECE):
                yield decoder.decode(piece)
            yield decoder.decode(b"", final=True)


def find_xml(path: Path) -> XmlSource:
    """Return where the XML of `path` is, from its first bytes.

    Raises
    ------
    SourceMissingError
        Where there is no such file.
    SourceError
        Where it is a folder, is empty, or is not XML.
    """
    if path.is_dir():
        raise SourceError(f"{path} is a folder, expected an imzML file; name the file inside it")
    if not path.exists():
        raise SourceMissingError(f"{path} does not exist; check the path")
    require_file(path, "an imzML file")
    with reading(path):
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
        with cast("BinaryIO", gzip.open(path) if zipped else path.open("rb")) as stream:
            head = stream.read(4096)
    refuse_pointer(path, head)
    if not head:
        raise SourceError(f"{path} is empty, expected an imzML file; export or copy it again")
    for mark, codec in _WIDE_MARKS:
        if head.startswith(mark):
            return XmlSource(path, zipped, 0, False, codec)
    start, junk = _find_start(path, head)
    return XmlSource(path, zipped, start, junk, "")


def _find_start(path: Path, head: bytes) -> tuple[int, bool]:
    """Return where XML begins in `head`, and whether anything but blanks comes before it."""
    blanks = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if blanks.startswith(b"<"):
        return len(head) - len(blanks), False
    for opening in (b"<?xml", b"<indexedmzML", b"<mzML"):
        if opening in head:
            return head.index(opening), True
    raise SourceError(
        f"{path} begins with {head[:16]!r}, expected XML; is it the .imzML file of the pair?"
    )


def new_parser(path: Path, encoding: str = "") -> expat.XMLParserType:
    """Return an expat parser that refuses document types and entities.

    `encoding` overrides what the XML declares, unless it is "".
    """
    parser = expat.ParserCreate(encoding or None)

    def refuse(*_: object) -> None:
        raise SourceError(
            f"{path} has a document type declaration at line {parser.CurrentLineNumber}, "
            "which imzML never needs and which is not safe to read; remove it"
        )

    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    return parser


def is_encoding_error(error: Exception) -> bool:
    """Return whether expat failed because of the encoding, so that a second try is worthwhile."""
    return not isinstance(error, expat.ExpatError) or error.code in _ENCODING_ERRORS


def damaged(path: Path, error: Exception, place: str = "") -> SourceError:
    """Return the error for XML that is not well-formed."""
    if isinstance(error, expat.ExpatError):
        where = place or f"at line {error.lineno}, column {error.offset + 1}"
        reason = expat.ErrorString(error.code)
    else:
        where, reason = place or "in its XML declaration", str(error)
    return SourceError(
        f"{path} is not well-formed XML {where} ({reason}); is it complete? export or copy it again"
    )
