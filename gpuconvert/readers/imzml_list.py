"""From a file to the table of its spectra: the fast way where it is certain, else the slow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO
from xml.parsers import expat

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers.imzml_scan import (
    CUT,
    DONE,
    FULL,
    MORE,
    N_COLUMNS,
    SLACK,
    Groups,
    scan,
)
from gpuconvert.readers.imzml_slow import SpectrumTable, parse_list
from gpuconvert.readers.imzml_terms import LOOKUP, group_table
from gpuconvert.readers.imzml_xml import LATIN, PIECE, damaged, new_parser
from gpuconvert.readers.source_files import reading

if TYPE_CHECKING:
    from gpuconvert.readers.imzml_header import ImzmlHeader

BLOCK = 4 << 20
"""Bytes scanned at a time: stays in the cache of one core."""

LONGEST = 64 << 20
"""Bytes without the end of a spectrum after which the file is left to the slow path."""

_END = b"</spectrum>"


class _Blocks:
    """A stream in pieces that end between two spectra, with room for the tokenizer."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.buffer = bytearray(BLOCK + SLACK)
        self.filled = 0
        self.at_end = False

    def fill(self) -> int:
        """Read on; return how many bytes can be scanned, or -1 where no spectrum ever ends."""
        while not self.at_end:
            if self.filled + SLACK >= len(self.buffer):
                if self.filled >= LONGEST:
                    return -1
                self.buffer = self.buffer + bytes(len(self.buffer))
            with memoryview(self.buffer) as view:
                got = self.stream.readinto(view[self.filled : len(view) - SLACK])  # type: ignore[attr-defined]
            self.at_end = not got
            self.filled += got
            cut = self.buffer.rfind(_END, 0, self.filled)
            if cut >= 0 and self.filled + SLACK >= len(self.buffer):
                return cut + len(_END)
        return self.filled

    def drop(self, used: int) -> None:
        """Forget the first `used` bytes."""
        left = self.filled - used
        self.buffer[:left] = self.buffer[used : self.filled]
        self.filled = left


def scan_list(stream: BinaryIO, groups: Groups) -> tuple[NDArray[np.int64] | None, bytes, bool]:
    """Scan a spectrum list, whose first byte comes next from `stream`.

    Parameters
    ----------
    stream
        Bytes in an encoding that writes ASCII as ASCII.
    groups
        What `group_table` returned.

    Returns
    -------
    table, rest, complete
        The (N_COLUMNS, n_spectra) int64 table, or None where the slow path must decide;
        the bytes already read that follow the list; and whether the list ended.
    """
    blocks = _Blocks(stream)
    table = np.empty((N_COLUMNS, 65536), np.int64)
    n = 0
    while (usable := blocks.fill()) >= 0:
        at, status = 0, FULL
        while status == FULL:
            raw: NDArray[Any] = np.frombuffer(blocks.buffer, np.uint8)
            status, n, at = scan(raw, at, usable, LOOKUP, groups, table, n)
            if status == FULL:
                table = np.concatenate([table, np.empty_like(table)], axis=1)
        if status == DONE:
            return table[:, :n], bytes(blocks.buffer[at : blocks.filled]), True
        if blocks.at_end and status in (MORE, CUT):
            return table[:, :n], b"", False
        if status != MORE:
            break
        blocks.drop(usable)
    return None, b"", False


def read_list(header: ImzmlHeader) -> SpectrumTable:
    """Return the table of the spectra of a file.

    Raises
    ------
    SourceError
        Where the list is cut short, is not well-formed, or holds a number that is none.
    """
    source = header.source
    if header.body_at >= 0:
        with reading(source.path), source.open(header.body_at) as stream:
            table, rest, complete = scan_list(stream, group_table(header.groups))
            if table is not None and not complete:
                raise SourceError(
                    f"{source.path} ends after {table.shape[1]} spectra, before </spectrumList>: "
                    "the file is truncated; copy or export it again"
                )
            if table is not None:
                _check_end(header, rest, stream)
                return SpectrumTable(table)
    return parse_list(source, header.encoding, header.groups)


def _check_end(header: ImzmlHeader, rest: bytes, stream: BinaryIO) -> None:
    """Refuse a file whose XML is not well-formed after the spectrum list."""
    parser = new_parser(header.source.path, LATIN)
    opening = "".join(f"<{tag}>" for tag in header.open_tags[:-1])
    try:
        parser.Parse(opening.encode("ascii", "replace"), False)
        while rest:
            parser.Parse(rest, False)
            rest = stream.read(PIECE)
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        raise damaged(header.source.path, error, "after its spectrum list") from error
