"""The seal of a store: checksums of what Zarr's own do not cover.

Every chunk carries a checksum as its last codec. What is left are files that are no
chunks and the metadata; the root's ``zarr.json``, which holds those of all nodes, gets
the attribute ``integrity`` for them when all else is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gpuconvert.checksums import checksum
from gpuconvert.provenance import canonical_json

INTEGRITY = "integrity"
"""The root attribute; ``files`` by path below the root, each with its size and checksum."""

ALGORITHM = "crc32c"


def _file_entry(file: Path) -> dict[str, int]:
    raw = np.fromfile(file, np.uint8)
    return {"bytes": len(raw), ALGORITHM: checksum(raw)}


def seal(folder: Path) -> None:
    """Write the attribute ``integrity`` of a store that is complete but for it.

    ``metadata`` is the checksum of the canonical JSON of the root's ``zarr.json`` without
    this attribute, and so of the consolidated metadata of every node.
    """
    path = folder / "zarr.json"
    root: dict[str, Any] = json.loads(path.read_bytes())
    root["attributes"].pop(INTEGRITY, None)
    files = sorted(folder.glob("shapes/*/*.parquet"))
    root["attributes"][INTEGRITY] = {
        "algorithm": ALGORITHM,
        "metadata": checksum(canonical_json(root).encode("ascii")),
        "files": {file.relative_to(folder).as_posix(): _file_entry(file) for file in files},
    }
    path.write_text(json.dumps(root, indent=2))
