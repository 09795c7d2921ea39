"""The container of an mzPeak: a ZIP whose members are stored as they are, or a folder.

Nothing is unpacked. A member is a slice of the mapped file, handed to the Parquet
reader without a copy, and given back to the system when it has been read.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.source_files import Declared, reading, refuse_pointer, require_file

INDEX = "mzpeak_index.json"
_LOCAL_HEADER = struct.Struct("<4s22xHH")


@contextmanager
def understood(path: Path, what: str) -> Iterator[None]:
    """Turn what pyarrow raises on damaged bytes into SourceError."""
    try:
        yield
    except SourceError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise SourceError(
            f"{path}: {what} cannot be read ({_first_line(error)}); is the file complete? "
            "copy or export it again"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


class MappedFile:
    """A file mapped into memory, whose length is watched: pages beyond its end cannot be read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with reading(path):
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._descriptor).st_size
        self._map = mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ) if self.size else None

    def check(self) -> None:
        """Raise SourceError where the file became shorter: touching the map would be fatal."""
        now = os.fstat(self._descriptor).st_size
        if now < self.size:
            raise SourceError(
                f"{self.path} has {now} bytes, but {self.size} when it was opened; it changed "
                "while it was read: start again"
            )

    def slice(self, offset: int, size: int) -> pa.Buffer:
        """Return bytes [offset, offset + size) without copying them."""
        self.check()
        if self._map is None:
            return pa.py_buffer(b"")
        return pa.py_buffer(memoryview(self._map)[offset : offset + size])

    def release(self, offset: int, size: int) -> None:
        """Let the system have the memory of whole pages back; they can be read again."""
        if self._map is None or not hasattr(self._map, "madvise"):
            return
        page = mmap.PAGESIZE
        begin = offset // page * page
        end = min(-(-(offset + size) // page) * page, self.size)
        if end > begin:
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)

    def close(self) -> None:
        """Close the file; its map lives as long as slices of it do."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._map = None


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the archive: bytes [offset, offset + size) of a mapped file."""

    name: str
    file: MappedFile
    offset: int
    size: int

    def open(self) -> pa.BufferReader:
        """Return the member as a file for Arrow; it copies nothing."""
        return pa.BufferReader(self.file.slice(self.offset, self.size))

    def text(self) -> str:
        """Return the whole member as text."""
        with understood(self.file.path, self.name):
            return bytes(self.file.slice(self.offset, self.size)).decode("utf-8-sig")

    def release(self, offset: int, size: int) -> None:
        """Give the memory of a part of the member back."""
        self.file.release(self.offset + offset, size)


def fold(word: object) -> str:
    """Return a word of the index's vocabulary in its one spelling."""
    return str(word or "").strip().lower().replace(" ", "_")


class Archive:
    """The members of an mzPeak, and what its index says of them.

    path : as the user named it
    files : what holds the members: the archive itself, or the files of the folder
    index : the parsed ``mzpeak_index.json``
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mapped: list[MappedFile] = []
        try:
            self._members = self._folder() if path.is_dir() else self._zip()
            self.index = self._read_index()
        except BaseException:
            self.close()
            raise

    @property
    def files(self) -> list[Path]:
        """Every file on disk that belongs to the archive and is used."""
        if not self.path.is_dir():
            return [self.path]
        used = {INDEX, *(str(entry.get("name")) for entry in self.entries())}
        return [self.path / name for name in sorted(used) if name in self._members]

    def close(self) -> None:
        """Close all files."""
        for file in self._mapped:
            file.close()

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries of the index that describe members."""
        listed = self.index.get("files")
        return [entry for entry in listed if isinstance(entry, dict)] if listed else []

    def entry(self, entity: str, kind: str) -> dict[str, Any] | None:
        """Return the entry of the index for an entity type and a data kind, or None."""
        for entry in self.entries():
            if (fold(entry.get("entity_type")), fold(entry.get("data_kind"))) == (entity, kind):
                return entry
        return None

    def member(self, entity: str, kind: str) -> Member | None:
        """Return a member by what it holds, or None where the archive has no such thing."""
        entry = self.entry(entity, kind)
        if entry is None:
            return None
        name = str(entry.get("name"))
        if name not in self._members:
            raise SourceError(
                f"{self.path}: {INDEX} lists {name} ({kind} of {entity}), which is not there; "
                "copy or export it again"
            )
        return self._members[name]

    def checksums(self) -> tuple[Declared, ...]:
        """Return the checksums that the index states of its members."""
        found = []
        for entry in self.entries():
            name, stated = str(entry.get("name")), entry.get("checksum")
            if stated and name in self._members:
                own = self._members[name]
                found.append(
                    Declared(
                        name, own.file.path, own.offset, own.size, "SHA-512", str(stated).lower()
                    )
                )
        return tuple(found)

    def _map(self, path: Path) -> MappedFile:
        mapped = MappedFile(path)
        self._mapped.append(mapped)
        return mapped

    def _folder(self) -> dict[str, Member]:
        with reading(self.path):
            found = [item for item in sorted(self.path.iterdir()) if item.is_file()]
        if INDEX not in {item.name for item in found}:
            raise SourceError(
                f"{self.path} is a folder without {INDEX}, expected an unpacked mzPeak archive"
            )
        files = {item.name: self._map(item) for item in found}
        return {name: Member(name, file, 0, file.size) for name, file in files.items()}

    def _zip(self) -> dict[str, Member]:
        if not self.path.exists():
            raise SourceMissingError(f"{self.path} does not exist; check the path")
        require_file(self.path, "an mzPeak archive, or the folder of one")
        with reading(self.path), self.path.open("rb") as stream:
            refuse_pointer(self.path, stream.read(64))
            try:
                listed = zipfile.ZipFile(stream).infolist()
            except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
                raise SourceError(
                    f"{self.path} is no ZIP archive ({error}), expected an mzPeak; "
                    "is it complete? copy or export it again"
                ) from error
        mapped = self._map(self.path)
        # Of several members of one name the last counts.
        return {item.filename: self._find_member(mapped, item) for item in listed}

    def _find_member(self, mapped: MappedFile, item: zipfile.ZipInfo) -> Member:
        if item.compress_type != zipfile.ZIP_STORED or item.flag_bits & 1:
            state = "encrypted" if item.flag_bits & 1 else "compressed"
            raise SourceError(
                f"{self.path}: member {item.filename} is {state}, but members of an mzPeak are "
                "stored as they are; pack it again with zip -0"
            )
        header = mapped.slice(item.header_offset, _LOCAL_HEADER.size).to_pybytes()
        magic, n_name, n_extra = (
            _LOCAL_HEADER.unpack(header) if len(header) == _LOCAL_HEADER.size else (b"", 0, 0)
        )
        offset = item.header_offset + _LOCAL_HEADER.size + n_name + n_extra
        if magic != b"PK\x03\x04" or offset + item.file_size > mapped.size:
            raise SourceError(
                f"{self.path}: member {item.filename} of {item.file_size} bytes at {offset} is "
                f"not inside the {mapped.size} bytes of the file; is it complete? copy it again"
            )
        return Member(item.filename, mapped, offset, item.file_size)

    def _read_index(self) -> dict[str, Any]:
        if INDEX not in self._members:
            raise SourceError(
                f"{self.path} has no {INDEX}, expected an mzPeak; is it another kind of ZIP?"
            )
        try:
            text = self._members[INDEX].text()
            index = json.loads(text, parse_constant=lambda _: None)
        except ValueError as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{self.path}: {INDEX} is not JSON ({error}); export it again"
            ) from error
        if not isinstance(index, dict) or not isinstance(index.get("files"), list):
            raise SourceError(f"{self.path}: {INDEX} lists no files; export it again")
        return index
