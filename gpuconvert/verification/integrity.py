"""Checksums of a store: of its metadata, of files that are no chunks; and that no chunk is lost.

The checksums of the chunks themselves are compared by Zarr when the chunks are read.
"""

from __future__ import annotations

import json
from pathlib import Path

import google_crc32c

from gpuconvert.errors import StoreError
from gpuconvert.verification.store import Json, Store, shown

PIECE = 1 << 22
"""Bytes of a file that are looked at together."""


def check_integrity(store: Store) -> tuple[str, None]:
    """Check the seal of a store, and that every chunk file is there."""
    attributes = store.attributes("")
    said = attributes.get("integrity")
    if not isinstance(said, dict) or said.get("algorithm") != "crc32c":
        raise StoreError(
            f"attributes of the root have no seal (integrity is {said!r}); was it changed, or "
            "written by an older version? convert again"
        )
    _check_root(store, said)
    files = said.get("files")
    for name, entry in (files if isinstance(files, dict) else {}).items():
        _check_file(store.path, name, entry)
    arrays = [key for key in store.nodes() if store.is_array(key)]
    missing = [name for key in arrays for name in store.missing_chunks(key)]
    if missing:
        raise StoreError(f"chunk file {shown(missing)} is missing or empty")
    return f"metadata, {len(files or [])} files and all chunks of {len(arrays)} arrays", None


def _check_root(store: Store, said: Json) -> None:
    rest = {
        name: value if name != "attributes" else
        {key: entry for key, entry in value.items() if key != "integrity"}
        for name, value in store.metadata.items()
    }  # fmt: skip
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    found = google_crc32c.value(text.encode("ascii"))
    if found != said.get("metadata"):
        raise StoreError(
            f"zarr.json of the root has checksum {found:08x}, but says {said.get('metadata')!r}; "
            "it was changed after the store was finished"
        )


def _check_file(folder: Path, name: str, entry: Json) -> None:
    found, size = 0, 0
    try:
        with (folder / name).open("rb") as stream:
            while piece := stream.read(PIECE):
                found, size = google_crc32c.extend(found, piece), size + len(piece)
    except OSError as error:
        raise StoreError(f"{name} cannot be read: {error.strerror}") from error
    if size != entry.get("bytes"):
        raise StoreError(f"{name} has {size} bytes, expected {entry.get('bytes')}")
    if found != entry.get("crc32c"):
        raise StoreError(f"{name} has other bytes than were written there: its checksum differs")
