"""The files of a source of any format: errors of reading them, and what tells them apart."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpuconvert.errors import SourceError, SourceReadError

_ENDS = 64 << 10
_BLOCK, _BLOCKS = 4 << 10, 64


@dataclass(frozen=True, slots=True)
class Declared:
    """A checksum that a source declares of bytes [offset, offset + size) of a file.

    name : of the file, or of what these bytes of it are
    algorithm, digest : "MD5", "SHA-1", "SHA-256" or "SHA-512", and lower-case hex
    """

    name: str
    path: Path
    offset: int
    size: int
    algorithm: str
    digest: str


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what reading and decoding `path` may raise into SourceError or SourceReadError."""
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise SourceError(
            f"{path} cannot be decompressed ({error}); is it complete? copy it again"
        ) from error
    except UnicodeDecodeError as error:
        raise SourceError(
            f"{path} is not valid {error.encoding} at byte {error.start}; export it again"
        ) from error
    except OSError as error:
        if isinstance(error, SourceError):
            raise
        if isinstance(error, PermissionError | FileNotFoundError | NotADirectoryError):
            raise SourceError(f"{path} cannot be read: {error}; check its permissions") from error
        raise SourceReadError(
            f"{path} cannot be read: {error.strerror or error}; check its disk or network and run "
            "the same command again"
        ) from error


def require_file(path: Path, expected: str) -> None:
    """Raise SourceError where `path` is a device, a pipe or a socket, which may never end."""
    if not path.is_file():
        raise SourceError(f"{path} is not a regular file, expected {expected}; copy it to a disk")


def refuse_pointer(path: Path, head: bytes) -> None:
    """Raise SourceError where `head` is that of a git-lfs pointer."""
    if head.startswith(b"version https://git-lfs"):
        raise SourceError(
            f"{path} is a git-lfs pointer, not the file itself; fetch it with 'git lfs pull'"
        )


def digest(path: Path) -> str:
    """Return a SHA-256 over head, tail and evenly spread blocks of a file; all of a small one."""
    sha = hashlib.sha256()
    with reading(path), path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size <= 2 * _ENDS + _BLOCKS * _BLOCK:
            sha.update(stream.read())
            return sha.hexdigest()
        spread = [(index * (size - _BLOCK) // (_BLOCKS - 1), _BLOCK) for index in range(_BLOCKS)]
        for place, length in [(0, _ENDS), (size - _ENDS, _ENDS), *spread]:
            stream.seek(place)
            sha.update(stream.read(length))
    return sha.hexdigest()


def _stamp(file: Path) -> tuple[int, int] | None:
    """Return size and time of modification of a file; None where it is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


class Stamps:
    """Size and time of modification of files, as they were when they came in."""

    def __init__(self, files: Iterable[Path]) -> None:
        self._seen = {file: _stamp(file) for file in files}

    def add(self, file: Path) -> None:
        """Remember a further file, as it is now."""
        self._seen[file] = _stamp(file)

    def check(self) -> None:
        """Raise SourceError if one of the files changed, or is gone."""
        for file, stamp in self._seen.items():
            if _stamp(file) != stamp:
                raise SourceError(
                    f"{file} changed since it was opened, in size or time of modification; "
                    "start again when nothing writes to it"
                )
