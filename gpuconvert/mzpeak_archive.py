"""A new mzPeak archive: members streamed into a ZIP, stored as they are, hashed on the way.

Members are written one after the other, each from beginning to end: what is written is
never touched again. The index comes last, so an archive that was cut short has none.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

INDEX = "mzpeak_index.json"

PARQUET: dict[str, Any] = {
    "version": "2.6", "data_page_version": "2.0", "compression": "zstd", "compression_level": 3,
    "write_page_index": True, "store_schema": True,
}  # fmt: skip
"""How every member is written. Level 3 is the codec's own default."""


class _Hashed:
    """A stream that is only written, and its SHA-512."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.sha512 = hashlib.sha512()
        self.size = 0
        self.closed = False

    def write(self, data: bytes) -> int:
        """Write and hash."""
        view = memoryview(data)
        self.sha512.update(view)
        self.size += view.nbytes
        self._stream.write(view)
        return view.nbytes

    def tell(self) -> int:
        """Return how much was written."""
        return self.size

    def flush(self) -> None:
        """Do nothing: the archive is flushed when it is closed."""

    def close(self) -> None:
        """Do nothing: the archive closes the stream."""
        self.closed = True


class NewArchive:
    """An archive that is being written; a context manager that closes it.

    entries : what the index will say of the members, in the order written
    """

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True)
        self.entries: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._zip.close()

    @contextmanager
    def table(
        self,
        entry: dict[str, Any],
        schema: pa.Schema,
        **options: Any,  # noqa: ANN401 - of pyarrow
    ) -> Iterator[pq.ParquetWriter]:
        """Open a Parquet member; its entry is kept when it is closed.

        Parameters
        ----------
        entry
            Name, entity type and data kind; a checksum is added.
        schema
            Of the table.
        options
            Of pyarrow, beside `PARQUET`.
        """
        with self._zip.open(_info(str(entry["name"])), "w", force_zip64=True) as stream:
            hashed = _Hashed(stream)
            with pq.ParquetWriter(
                pa.PythonFile(hashed, mode="w"), schema,
                sorting_columns=[pq.SortingColumn(0)], **(PARQUET | options),
            ) as writer:  # fmt: skip
                yield writer
        self.entries.append(entry | {"checksum": hashed.sha512.hexdigest()})

    def finish(self, metadata: dict[str, Any], *, described: bool) -> None:
        """Write the index; `described` says whether entries carry more than what they are."""
        entries = self.entries
        if not described:
            entries = [
                {key: entry[key] for key in ("name", "entity_type", "data_kind")}
                for entry in entries
            ]
        text = json.dumps({"files": entries, "metadata": metadata}, indent=1, allow_nan=False)
        self._zip.writestr(_info(INDEX), text)


def _info(name: str) -> zipfile.ZipInfo:
    # No time of day, so that the same source gives the same bytes.
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.external_attr = 0o644 << 16
    return info
