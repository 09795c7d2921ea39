"""The SpatialData store around X: tables, pixel squares, TIC images, coordinate systems.

Assembly leaves ``tables/{id}_z{z}/X`` in a staging folder; `finish_store` adds all
else with zarr-python and pyarrow alone and consolidates the metadata last. All
elements meet in the coordinate systems ``{id}`` and ``global``, in micrometres, in
which the pixel of column x and row y is centred at ``(x * width, y * height)``.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning
from zarr.storage import LocalStore

from gpuconvert.checksums import CODEC
from gpuconvert.coordinate_systems import shape_transformations, tic_metadata
from gpuconvert.descriptions import (
    AXIS_ATTRS,
    SPATIALDATA_ATTRS,
    essential_metadata,
    root_attributes,
)
from gpuconvert.errors import MissingExtraError, StoreError
from gpuconvert.integrity import seal
from gpuconvert.mass_axis import MassAxis
from gpuconvert.pixel_shapes import write_squares
from gpuconvert.pixels import first_of_pixel
from gpuconvert.provenance import JSON
from gpuconvert.spectra import Acquisition
from gpuconvert.zarr_tables import (
    DICT,
    STRING,
    Category,
    Column,
    encoding,
    write_array,
    write_frame,
    write_group,
    write_tree,
)

if TYPE_CHECKING:
    from spatialdata import SpatialData

REGION_KEY = "region"
INSTANCE_KEY = "instance_key"
INDEX_NAME = "instance_id"
"""Columns of `obs` that link a row to its square, and the name of both indexes."""

IMAGE_TILE = 1024
"""Edge of an image chunk, in pixels."""

PARTIAL = ".partial"
"""Suffix of the folder of a conversion that has not finished."""

KINDS = ("images", "shapes", "tables")


@dataclass(frozen=True)
class PlaneFacts:
    """What assembly knows of one z plane beyond its X.

    z : plane, from 0
    rows : slice of the acquisition's columns that are the rows of X, in order
    tic : (n_rows,) float64, sum of the stored values
    source_tic : (n_rows,) float64, sum of the source's intensities
    outside : (n_rows,) float64, the part of `source_tic` beyond the ends of the axis
    average : (n_bins,) float64, mean of the rows
    """

    z: int
    rows: slice
    tic: NDArray[np.float64]
    source_tic: NDArray[np.float64]
    outside: NDArray[np.float64]
    average: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ElementNames:
    """What the elements of one plane are called."""

    table: str
    shapes: str
    image: str


def element_names(dataset_id: str, z: int) -> ElementNames:
    """Return the names of the table, the shapes and the image of plane `z`."""
    stem = f"{dataset_id}_z{z}"
    return ElementNames(stem, f"{stem}_pixels", f"{stem}_tic")


def finish_store(
    folder: Path, acquisition: Acquisition, axis: MassAxis, planes: Sequence[PlaneFacts], *,
    dataset_id: str, provenance: dict[str, JSON],
) -> None:  # fmt: skip
    """Add to a staging folder all that makes its X a SpatialData store.

    Can be repeated: everything but X is written anew.

    Parameters
    ----------
    folder
        A Zarr group that holds ``tables/{id}_z{z}/X`` of every plane.
    acquisition
        What was acquired; its rows are the rows of the planes, one after the other.
    axis
        The bins of X; law and SHA-256 become root attributes.
    planes
        All planes, at least one row each.
    dataset_id
        Prefix of the element names, and a coordinate system.
    provenance
        Becomes ``uns["gpuconvert"]`` of every table; see `write_tree`.

    Raises
    ------
    StoreError
        Where an X is missing or has another shape than its plane.
    """
    # Assembly writes X only: the groups above it may not be described yet.
    root = zarr.open_group(folder, mode="a", zarr_format=3, use_consolidated=False)
    for plane in planes:
        _check_matrix(root, element_names(dataset_id, plane.z).table, plane, axis)
    identity = _instance_ids(acquisition)
    for plane in planes:
        names = element_names(dataset_id, plane.z)
        _write_table(root, names, acquisition, plane, axis, identity[plane.rows], provenance)
        _write_shapes(root, folder, names, acquisition, plane, identity[plane.rows], dataset_id)
        _write_image(root, names, acquisition, plane, dataset_id)
    root.attrs.put(root_attributes(acquisition, axis, dataset_id))
    _consolidate(folder)
    seal(folder)


def _check_matrix(root: zarr.Group, table: str, plane: PlaneFacts, axis: MassAxis) -> None:
    path = f"tables/{table}/X"
    expected = [len(plane.tic), axis.n_bins]
    if path not in root:
        raise StoreError(f"{root.store_path} has no {path}; assemble again")
    shape = root[path].attrs.get("shape")
    if shape != expected:
        raise StoreError(
            f"{path} in {root.store_path} has shape {shape}, expected {expected}; assemble again"
        )


def _instance_ids(acquisition: Acquisition) -> NDArray[np.int64]:
    """Return a number for every row that no other row of its plane has; (n_spectra,).

    It is the place of the pixel in the grid, ``y * nx + x``; a further spectrum of the
    same pixel counts on by ``ny * nx``. Numbers, because spatialdata 0.8 matches strings
    in a time that grows with the square of the number of pixels.
    """
    _, ny, nx = acquisition.shape
    place = acquisition.y.astype(np.int64) * nx + acquisition.x
    rows = np.arange(acquisition.n_spectra)
    first = np.maximum.accumulate(np.where(first_of_pixel(acquisition), rows, 0))
    return place + (rows - first) * (ny * nx)


def _write_table(
    root: zarr.Group, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    axis: MassAxis, identity: NDArray[np.int64], provenance: Mapping[str, JSON],
) -> None:  # fmt: skip
    table = root.require_group("tables").require_group(names.table)
    link = {"region": names.shapes, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    table.attrs.put(
        {
            **encoding("anndata", "0.1.0"),
            "spatialdata-encoding-type": "ngff:regions_table",
            **link,
            "version": "0.2",
        }
    )
    columns = _obs_columns(acquisition, plane, identity, names.shapes)
    write_frame(table, "obs", identity.astype(STRING), columns, index_name=INDEX_NAME)
    _write_var(table, axis)
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        write_group(table, name, DICT)
    places = np.stack([columns["spatial_x"], columns["spatial_y"]], axis=1)  # type: ignore[list-item]
    write_array(table["obsm"], "spatial", places)  # type: ignore[arg-type]
    uns = {
        SPATIALDATA_ATTRS: link,
        "average_spectrum": plane.average,
        "gpuconvert": provenance,
        "essential_metadata": essential_metadata(acquisition, axis),
    }
    write_tree(table, "uns", uns)


def _obs_columns(
    acquisition: Acquisition, plane: PlaneFacts, identity: NDArray[np.int64], region: str
) -> dict[str, Column]:
    """Return the columns of `obs` in order; each (n_rows,)."""
    rows = plane.rows
    x, y = acquisition.x[rows], acquisition.y[rows]
    width, height = acquisition.pixel_size
    regions = acquisition.region
    columns: dict[str, Column] = {
        "y": y,
        "x": x,
        REGION_KEY: Category(region, len(x)),
        "spatial_x": x * float(width),
        "spatial_y": y * float(height),
        "region_number": np.zeros(len(x), np.int32) if regions is None else regions[rows],
        "acquisition_order": acquisition.order[rows],
        "polarity": acquisition.polarity[rows],
        "tic": plane.tic,
        "source_tic": plane.source_tic,
        "outside_tic": plane.outside,
        "n_points": acquisition.n_points[rows],
        INSTANCE_KEY: identity,
    }
    return columns | ({"z": acquisition.z[rows]} if acquisition.shape[0] > 1 else {})


def _write_var(table: zarr.Group, axis: MassAxis) -> None:
    names = np.strings.add("mz_", np.arange(axis.n_bins).astype(STRING))
    ends = {"mz_low": axis.edges[:-1], "mz_high": axis.edges[1:]}
    write_frame(table, "var", names, {"mz": axis.centres, **ends})


def _write_shapes(
    root: zarr.Group, folder: Path, names: ElementNames, acquisition: Acquisition,
    plane: PlaneFacts, identity: NDArray[np.int64], dataset_id: str,
) -> None:  # fmt: skip
    attributes = {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": shape_transformations(dataset_id),
        SPATIALDATA_ATTRS: {"version": "0.3"},
    }
    write_group(root.require_group("shapes"), names.shapes, attributes)
    write_squares(
        folder / "shapes" / names.shapes / "shapes.parquet",
        acquisition.x[plane.rows], acquisition.y[plane.rows],
        pixel_size=acquisition.pixel_size, index=identity, index_name=INDEX_NAME,
    )  # fmt: skip


def _write_image(
    root: zarr.Group, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    dataset_id: str,
) -> None:  # fmt: skip
    _, ny, nx = acquisition.shape
    place = acquisition.y[plane.rows].astype(np.int64) * nx + acquisition.x[plane.rows]
    image = np.bincount(place, weights=plane.tic, minlength=ny * nx).astype(np.float32)
    attributes = {
        "ome": tic_metadata(names.image, acquisition.pixel_size, dataset_id),
        SPATIALDATA_ATTRS: {"version": "0.3"},
    }
    group = write_group(root.require_group("images"), names.image, attributes)
    stored = group.create_array(
        "s0", shape=(1, ny, nx), chunks=(1, min(ny, IMAGE_TILE), min(nx, IMAGE_TILE)),
        dtype=np.float32, dimension_names=("c", "y", "x"),
        compressors=(ZstdCodec(level=0), Crc32cCodec()), config={"write_empty_chunks": True},
    )  # fmt: skip
    stored[...] = image.reshape(1, ny, nx)


def _consolidate(folder: Path) -> None:
    with warnings.catch_warnings():
        # Zarr 3 warns that consolidation is no part of its specification, and that
        # shapes.parquet is no Zarr node. SpatialData uses both on purpose.
        warnings.filterwarnings("ignore", category=ZarrUserWarning)
        # A path as text is read as a URL, in which a newline, say, is nothing.
        zarr.consolidate_metadata(LocalStore(folder), zarr_format=3)


def _open_finished(path: Path) -> zarr.Group:
    """Return the root of a finished store; StoreError where `path` is none."""
    if path.suffix == PARTIAL or path.parent.suffix == PARTIAL:
        raise StoreError(
            f"{path} is a conversion that has not finished; run the same command again to finish it"
        )
    if not path.is_dir():
        begun = path.with_name(path.name + PARTIAL).exists()
        remedy = "its conversion has not finished, run it again" if begun else "check the path"
        raise StoreError(f"{path} is no store: there is no such folder; {remedy}")
    try:
        root = zarr.open_group(path, mode="r", zarr_format=3)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{path} is no store: it has no readable zarr.json ({error}); check the path"
        ) from error
    if SPATIALDATA_ATTRS not in root.attrs or root.metadata.consolidated_metadata is None:
        raise StoreError(
            f"{path} is not a finished SpatialData store: its zarr.json lacks what is written "
            "last; convert again"
        )
    return root


def open_store(path: str | Path) -> SpatialData:
    """Return a finished store as SpatialData; X is read into memory.

    Raises
    ------
    StoreError
        Where `path` is not a finished store.
    MissingExtraError
        Where spatialdata is not installed.
    """
    _open_finished(Path(path))
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

    n_pixels, n_bins, n_nonzero : of all planes together; every plane has all bins
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
    root: Any = _open_finished(path)
    axis = root.attrs.get(AXIS_ATTRS)
    if not isinstance(axis, dict):
        raise StoreError(f"{path} was not written by gpuconvert: its zarr.json has no {AXIS_ATTRS}")
    elements = sorted(f"{kind}/{name}" for kind in KINDS if kind in root for name in root[kind])
    tables = [name for name in elements if f"{name}/X/data" in root]
    if not tables:
        raise StoreError(f"{path} has no table with a sparse X; convert again")
    matrices = [root[f"{name}/X"] for name in tables]
    data = [root[f"{name}/X/data"] for name in tables]
    codec, level = _codec(data[0])
    return StoreSummary(
        n_pixels=sum(matrix.attrs["shape"][0] for matrix in matrices),
        n_bins=int(axis["n_bins"]),
        n_nonzero=sum(stored.shape[0] for stored in data),
        layout=matrices[0].attrs["encoding-type"].removesuffix("_matrix"),
        codec=codec, codec_level=level,
        chunk_elements=data[0].chunks[0],
        shard_elements=data[0].shards[0] if data[0].shards else None,
        bytes_on_disk=sum(item.stat().st_size for item in path.rglob("*") if item.is_file()),
        elements=tuple(elements),
        axis_law=axis["law"], axis_sha256=axis["sha256"],
    )  # fmt: skip


def _codec(stored: Any) -> tuple[str, int | None]:  # noqa: ANN401 - a Zarr array
    """Return name and level of what compresses an array; a checksum does not."""
    codecs = [codec.to_dict() for codec in stored.compressors]
    described = next((codec for codec in codecs if codec["name"] != CODEC["name"]), None)
    if described is None:
        return "none", None
    settings = described.get("configuration", {})
    name = settings.get("cname", described["name"])
    level = settings.get("clevel", settings.get("level"))
    return name, level
