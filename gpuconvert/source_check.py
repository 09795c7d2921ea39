"""Whether a source is what it says it is: its own identifier and checksums, compared on request.

An imzML declares one of its .ibd, an mzPeak one of every member, a Bruker folder none. They
cover the whole of a file that may be a terabyte, so a thread computes it
while the conversion reads the same bytes; the result is asked for before the store is
put in its place.
"""

from __future__ import annotations

import hashlib
import threading
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from gpuconvert.errors import SourceError, SourceReadError
from gpuconvert.readers.source_files import Declared

PIECE = 1 << 22
"""Bytes that are hashed at a time."""

NAMES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-512": "sha512"}
"""Names of hashlib, by the names of the vocabulary."""


@runtime_checkable
class Declares(Protocol):
    """A reader whose source can declare checksums."""

    def declared(self) -> tuple[Declared, ...]:
        """Return what is declared, which may be nothing.

        Raises
        ------
        SourceError
            Where the identifiers of the files of the source differ.
        """
        ...


class SourceCheck:
    """A thread that computes what a source declares, from entering to leaving the context."""

    def __init__(self, reader: object) -> None:
        """Compare the identifiers at once; SourceError where they differ."""
        self._declared = reader.declared() if isinstance(reader, Declares) else ()
        self._found: list[str] = []
        self._error: OSError | None = None
        self._dropped = threading.Event()
        self._thread = threading.Thread(target=self._compute, name="check-source", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._dropped.set()
        self._thread.join()

    def _compute(self) -> None:
        try:
            for item in self._declared:
                self._found.append(self._digest(item))
        except OSError as error:
            self._error = error

    def _digest(self, item: Declared) -> str:
        digest = hashlib.new(NAMES[item.algorithm], usedforsecurity=False)
        with item.path.open("rb") as stream:
            stream.seek(item.offset)
            left = item.size
            while not self._dropped.is_set() and (piece := stream.read(min(PIECE, left))):
                digest.update(piece)
                left -= len(piece)
        return digest.hexdigest()

    def result(self) -> str:
        """Return in words what was compared, once that is known.

        Raises
        ------
        SourceError
            Where a checksum is another than the declared one.
        """
        self._thread.join()
        if not self._declared:
            return "the source declares no checksum"
        if self._error is not None:
            path = self._declared[len(self._found)].path
            raise SourceReadError(
                f"{path} cannot be read: {self._error.strerror}; check its disk or network and run "
                "the same command again"
            ) from self._error
        for item, found in zip(self._declared, self._found, strict=True):
            if found != item.digest:
                inside = "" if item.name == item.path.name else f" of {item.path}"
                raise SourceError(
                    f"{item.name if inside else item.path}{inside} has {item.algorithm} {found}, "
                    f"but the source declares {item.digest}; is it damaged, or of another "
                    "acquisition? copy it again, or leave out --check-source"
                )
        first = self._declared[0]
        if len(self._declared) == 1:
            return f"{first.algorithm} of {first.name} is {first.digest}, as declared"
        names = ", ".join(item.name for item in self._declared)
        return f"{first.algorithm} of {names} are as declared"
