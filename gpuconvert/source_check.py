"""Whether a source is what it says it is: its own identifier and checksum, compared on request.

The checksum covers the whole of a file that may be a terabyte, so a thread computes it
while the conversion reads the same bytes; the result is asked for before the store is
put in its place.
"""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

from gpuconvert.errors import SourceError, SourceReadError

PIECE = 1 << 22
"""Bytes that are hashed at a time."""

NAMES = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256"}
"""Names of hashlib, by the names of the vocabulary."""


@runtime_checkable
class Declares(Protocol):
    """A reader whose source declares a checksum."""

    def declared(self) -> tuple[Path, str, str] | None:
        """Return the file, the algorithm and the lower-case hex; None where none is declared.

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
        self._declared = reader.declared() if isinstance(reader, Declares) else None
        self._found = ""
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
        if self._declared is None:
            return
        path, algorithm, _ = self._declared
        digest = hashlib.new(NAMES[algorithm], usedforsecurity=False)
        try:
            with path.open("rb") as stream:
                while not self._dropped.is_set() and (piece := stream.read(PIECE)):
                    digest.update(piece)
        except OSError as error:
            self._error = error
        self._found = digest.hexdigest()

    def result(self) -> str:
        """Return in words what was compared, once that is known.

        Raises
        ------
        SourceError
            Where the checksum is another than the declared one.
        """
        self._thread.join()
        if self._declared is None:
            return "the source declares no checksum"
        path, algorithm, expected = self._declared
        if self._error is not None:
            raise SourceReadError(
                f"{path} cannot be read: {self._error.strerror}; check its disk or network and run "
                "the same command again"
            ) from self._error
        if self._found != expected:
            raise SourceError(
                f"{path} has {algorithm} {self._found}, but the source declares {expected}; is it "
                "damaged, or of another acquisition? copy it again, or leave out --check-source"
            )
        return f"{algorithm} of {path.name} is {expected}, as declared"
