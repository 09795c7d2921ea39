"""A finished store, opened as SpatialData or described in a few figures.

What is unfinished, foreign or damaged is refused, with what to do. A description needs
the metadata of the root alone, which hold those of all nodes.
"""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuconvert.checksums import CODEC
from gpuconvert.descriptions import AXIS_ATTRS, KINDS, MOBILITY_SUFFIX, SPATIALDATA_ATTRS
from gpuconvert.errors import MissingExtraError, StoreError
from gpuconvert.provenance import JSON
from gpuconvert.workspace import PARTIAL

if TYPE_CHECKING:
    from spatialdata import SpatialData


def _read_root(path: Path) -> dict[str, Any]:
    """Return the metadata of the root of a finished store; StoreError where `path` is none."""
    if path.suffix == PARTIAL or path.parent.suffix == PARTIAL:
        raise StoreError(
            f"{path} is a conversion that has not finished; run the same command again to finish it"
        )
    if not path.is_dir():
        begun = path.with_name(path.name + PARTIAL).exists()
        remedy = "its conversion has not finished, run it again" if begun else "check the path"
        raise StoreError(f"{path} is no store: there is no such folder; {remedy}")
    try:
        root = json.loads((path / "zarr.json").read_bytes())
        finished = SPATIALDATA_ATTRS in root["attributes"] and "consolidated_metadata" in root
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} is no store: it has no readable zarr.json ({error}); check the path"
        ) from error
    if not finished:
        raise StoreError(
            f"{path} is not a finished SpatialData store: its zarr.json lacks what is written "
            "last; convert again"
        )
    return dict(root)


def open_store(path: str | Path) -> SpatialData:
    """Return a finished store as SpatialData; X is read into memory.

    Raises
    ------
    StoreError
        Where `path` is not a finished store.
    MissingExtraError
        Where spatialdata is not installed.
    """
    _read_root(Path(path))
    try:
        spatialdata = importlib.import_module("spatialdata")
    except ImportError as error:
        raise MissingExtraError(
            f"opening {path} needs spatialdata, which cannot be imported ({error}); "
            "pip install 'gpuconvert[spatialdata]'"
        ) from error
    opened: SpatialData = spatialdata.read_zarr(Path(path))
    return opened


@dataclass(frozen=True, slots=True)
class StoreSummary:
    """What a finished store holds and how, as read back from it.

    n_pixels, n_bins, n_nonzero : of all planes together; every plane has all bins; tables by
        ion mobility hold the same counts and are left out
    layout : "csc" or "csr"
    codec : "none", or what compresses X, such as "lz4" or "zstd"
    codec_level : None where the codec has none
    chunk_elements, shard_elements : of X's data; None where chunks are not in shards
    bytes_on_disk : of all files
    elements : ``kind/name`` of every element, sorted
    axis_law, axis_sha256 : of the mass axis
    """

    n_pixels: int
    n_bins: int
    n_nonzero: int
    layout: str
    codec: str
    codec_level: int | None
    chunk_elements: int
    shard_elements: int | None
    bytes_on_disk: int
    elements: tuple[str, ...]
    axis_law: str
    axis_sha256: str

    def to_json(self) -> dict[str, JSON]:
        """Return the summary as plain JSON values."""
        return asdict(self) | {"elements": list(self.elements)}


def read_summary(path: Path) -> StoreSummary:
    """Return what the finished store at `path` holds; no value of X is read.

    Raises
    ------
    StoreError
        Where `path` is not a finished store, or not one of gpuconvert.
    """
    root = _read_root(path)
    axis = root["attributes"].get(AXIS_ATTRS)
    if not isinstance(axis, dict):
        raise StoreError(f"{path} was not written by gpuconvert: its zarr.json has no {AXIS_ATTRS}")
    nodes: dict[str, Any] = root["consolidated_metadata"]["metadata"]
    elements = sorted(
        name for name in nodes if name.count("/") == 1 and name.split("/")[0] in KINDS
    )
    tables = [
        name
        for name in elements
        if f"{name}/X/data" in nodes and not name.endswith(MOBILITY_SUFFIX)
    ]
    if not tables:
        raise StoreError(f"{path} has no table with a sparse X; convert again")
    matrices = [nodes[f"{name}/X"]["attributes"] for name in tables]
    data = [nodes[f"{name}/X/data"] for name in tables]
    shard, chunk, codecs = _storage(data[0])
    codec, level = _codec(codecs)
    return StoreSummary(
        n_pixels=sum(matrix["shape"][0] for matrix in matrices),
        n_bins=int(axis["n_bins"]),
        n_nonzero=sum(stored["shape"][0] for stored in data),
        layout=matrices[0]["encoding-type"].removesuffix("_matrix"),
        codec=codec, codec_level=level,
        chunk_elements=chunk, shard_elements=shard,
        bytes_on_disk=sum(item.stat().st_size for item in path.rglob("*") if item.is_file()),
        elements=tuple(elements),
        axis_law=axis["law"], axis_sha256=axis["sha256"],
    )  # fmt: skip


def _storage(array: dict[str, Any]) -> tuple[int | None, int, list[dict[str, Any]]]:
    """Return values of a shard (None without shards), values of a chunk, and its codecs."""
    size = array["chunk_grid"]["configuration"]["chunk_shape"][0]
    first = array["codecs"][0]
    if first["name"] != "sharding_indexed":
        return None, size, array["codecs"]
    shard = first["configuration"]
    return size, shard["chunk_shape"][0], shard["codecs"]


def _codec(codecs: list[dict[str, Any]]) -> tuple[str, int | None]:
    """Return name and level of what compresses; neither bytes nor a checksum does."""
    for codec in codecs:
        if codec["name"] not in ("bytes", CODEC["name"]):
            settings = codec.get("configuration", {})
            name = settings.get("cname", codec["name"])
            return name, settings.get("clevel", settings.get("level"))
    return "none", None
