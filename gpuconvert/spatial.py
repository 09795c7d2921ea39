"""The SpatialData store around X: tables, pixel squares, TIC images, coordinate systems.

Assembly leaves ``tables/{id}_z{z}/X`` in a staging folder, and where it was asked for
``tables/{id}_z{z}_mobility/X``, by m/z and ion mobility; `finish_store` adds all
else with pyarrow and plain files, and consolidates the metadata last. All
elements meet in the coordinate systems ``{id}`` and ``global``, in micrometres, in
which the pixel of column x and row y is centred at ``(x * width, y * height)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.cell_tables import CellResult
from gpuconvert.coordinate_systems import shape_transformations, tic_metadata
from gpuconvert.descriptions import (
    KINDS,
    MOBILITY_SUFFIX,
    SPATIALDATA_ATTRS,
    essential_metadata,
    root_attributes,
)
from gpuconvert.errors import StoreError
from gpuconvert.integrity import seal
from gpuconvert.mass_axis import MassAxis
from gpuconvert.pixel_shapes import write_squares
from gpuconvert.pixels import first_of_pixel
from gpuconvert.plain_zarr import Numbered, consolidate, read_node, write_group, write_numbers
from gpuconvert.provenance import JSON
from gpuconvert.spectra import Acquisition
from gpuconvert.zarr_tables import (
    DICT,
    Category,
    Column,
    encoding,
    new_group,
    write_array,
    write_frame,
    write_tree,
)

REGION_KEY = "region"
INSTANCE_KEY = "instance_key"
INDEX_NAME = "instance_id"
"""Columns of `obs` that link a row to its square, and the name of both indexes."""

IMAGE_TILE = 1024
"""Edge of an image chunk, in pixels."""


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
    """What the elements of one plane are called; `mobility` is there where it was asked for."""

    table: str
    shapes: str
    image: str
    mobility: str


def element_names(dataset_id: str, z: int) -> ElementNames:
    """Return the names of the table, the shapes and the image of plane `z`."""
    stem = f"{dataset_id}_z{z}"
    return ElementNames(stem, f"{stem}_pixels", f"{stem}_tic", f"{stem}{MOBILITY_SUFFIX}")


def finish_store(
    folder: Path, acquisition: Acquisition, axis: MassAxis, planes: Sequence[PlaneFacts], *,
    dataset_id: str, provenance: dict[str, JSON], cells: Sequence[CellResult] = (),
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
    cells
        The tables by m/z and ion mobility whose X is there too, of the same planes in the
        same order; none where they were not asked for.

    Raises
    ------
    StoreError
        Where an X is missing or has another shape than its plane.
    """
    for plane in planes:
        _check_matrix(folder, element_names(dataset_id, plane.z).table, plane, axis.n_bins)
    for plane, facts in zip(planes, cells, strict=False):
        name = element_names(dataset_id, plane.z).mobility
        _check_matrix(folder, name, plane, len(facts.cells))
    for name in ("", *KINDS):
        write_group(folder / name)
    identity = _instance_ids(acquisition)
    for plane in planes:
        names = element_names(dataset_id, plane.z)
        _write_table(folder, names, acquisition, plane, axis, identity[plane.rows], provenance)
        _write_shapes(folder, names, acquisition, plane, identity[plane.rows], dataset_id)
        _write_image(folder, names, acquisition, plane, dataset_id)
    for plane, facts in zip(planes, cells, strict=False):
        names = element_names(dataset_id, plane.z)
        _write_cells(folder, names, acquisition, plane, facts, axis, identity[plane.rows])
    write_group(folder, root_attributes(acquisition, axis, dataset_id))
    consolidate(folder)
    seal(folder)


def _check_matrix(folder: Path, table: str, plane: PlaneFacts, n_columns: int) -> None:
    path = f"tables/{table}/X"
    expected = [len(plane.tic), n_columns]
    matrix = read_node(folder / path)
    if matrix is None:
        raise StoreError(f"{folder} has no {path}; assemble again")
    shape = matrix["attributes"].get("shape")
    if shape != expected:
        raise StoreError(
            f"{path} in {folder} has shape {shape}, expected {expected}; assemble again"
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
    folder: Path, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    axis: MassAxis, identity: NDArray[np.int64], provenance: Mapping[str, JSON],
) -> None:  # fmt: skip
    table = folder / "tables" / names.table
    uns = _write_rows(table, names.shapes, acquisition, plane, identity)
    _write_var(table, axis)
    uns |= {
        "average_spectrum": plane.average,
        "gpuconvert": provenance,
        "essential_metadata": essential_metadata(acquisition, axis),
    }
    write_tree(table, "uns", uns)


def _write_cells(
    folder: Path, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    facts: CellResult, axis: MassAxis, identity: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write what belongs to X by m/z and ion mobility: the same rows, a column for each cell."""
    table = folder / "tables" / names.mobility
    rows = replace(plane, tic=facts.tic)
    uns: dict[str, object] = _write_rows(table, names.shapes, acquisition, rows, identity)
    mz_bin, own = np.divmod(facts.cells, facts.mobility.n_bins)
    edges = facts.mobility.edges
    columns: dict[str, Column] = {
        "mz": axis.centres[mz_bin], "mobility": facts.mobility.centres[own],
        "mz_low": axis.edges[mz_bin], "mz_high": axis.edges[mz_bin + 1],
        "mobility_low": edges[own], "mobility_high": edges[own + 1],
        "mz_index": mz_bin.astype(np.int32), "mobility_index": own.astype(np.int32),
    }  # fmt: skip
    write_frame(table, "var", Numbered("cell_", facts.cells), columns)
    uns |= {"average_spectrum": facts.average, "mobility_axis": facts.mobility.to_json()}
    write_tree(table, "uns", uns)


def _write_rows(
    table: Path, shapes: str, acquisition: Acquisition, plane: PlaneFacts,
    identity: NDArray[np.int64],
) -> dict[str, object]:  # fmt: skip
    """Write a table but for its X, `var` and `uns`; return what `uns` begins with."""
    link = {"region": shapes, "region_key": REGION_KEY, "instance_key": INSTANCE_KEY}
    write_group(
        table,
        {
            **encoding("anndata", "0.1.0"),
            "spatialdata-encoding-type": "ngff:regions_table",
            **link,
            "version": "0.2",
        },
    )
    columns = _obs_columns(acquisition, plane, identity, shapes)
    write_frame(table, "obs", Numbered("", identity), columns, index_name=INDEX_NAME)
    for name in ("obsm", "varm", "obsp", "varp", "layers", "uns"):
        new_group(table / name, DICT)
    places = np.stack([columns["spatial_x"], columns["spatial_y"]], axis=1)  # type: ignore[list-item]
    write_array(table / "obsm", "spatial", places)
    return {SPATIALDATA_ATTRS: link}


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


def _write_var(table: Path, axis: MassAxis) -> None:
    names = Numbered("mz_", np.arange(axis.n_bins))
    ends = {"mz_low": axis.edges[:-1], "mz_high": axis.edges[1:]}
    write_frame(table, "var", names, {"mz": axis.centres, **ends})


def _write_shapes(
    folder: Path, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    identity: NDArray[np.int64], dataset_id: str,
) -> None:  # fmt: skip
    attributes = {
        "encoding-type": "ngff:shapes",
        "axes": ["x", "y"],
        "coordinateTransformations": shape_transformations(dataset_id),
        SPATIALDATA_ATTRS: {"version": "0.3"},
    }
    shapes = new_group(folder / "shapes" / names.shapes, attributes)
    write_squares(
        shapes / "shapes.parquet",
        acquisition.x[plane.rows], acquisition.y[plane.rows],
        pixel_size=acquisition.pixel_size, index=identity, index_name=INDEX_NAME,
    )  # fmt: skip


def _write_image(
    folder: Path, names: ElementNames, acquisition: Acquisition, plane: PlaneFacts,
    dataset_id: str,
) -> None:  # fmt: skip
    _, ny, nx = acquisition.shape
    place = acquisition.y[plane.rows].astype(np.int64) * nx + acquisition.x[plane.rows]
    image = np.bincount(place, weights=plane.tic, minlength=ny * nx).astype(np.float32)
    attributes = {
        "ome": tic_metadata(names.image, acquisition.pixel_size, dataset_id),
        SPATIALDATA_ATTRS: {"version": "0.3"},
    }
    group = new_group(folder / "images" / names.image, attributes)
    write_numbers(
        group / "s0", image.reshape(1, ny, nx),
        chunk=(1, min(ny, IMAGE_TILE), min(nx, IMAGE_TILE)), dimension_names=("c", "y", "x"),
    )  # fmt: skip
