"""What belongs to a table: the places of its pixels, the TIC image, the shapes and the links."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gpuconvert.errors import StoreError
from gpuconvert.verification.checks import TOLERANCE
from gpuconvert.verification.store import Store

PLACE_TOLERANCE = 1e-9
"""Relative error of a place in micrometres."""

POLYGON = np.dtype(
    [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""Well-known binary of a polygon with one closed ring of five points."""

STRING: Any = np.dtypes.StringDType()

Floats = NDArray[np.float64]


def check_places(store: Store, key: str, obs: dict[str, Floats], z: int) -> tuple[str, None]:
    """Check that places in micrometres are those of the grid, in obs and in obsm."""
    root = store.attributes("")
    try:
        width, height = (float(root[f"pixel_size_{axis}_um"]) for axis in "xy")
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"attributes of the root have no usable pixel size: {error}") from error
    spatial = store.numbers(f"{key}/obsm/spatial")
    if spatial.shape != (len(obs["x"]), 2):
        raise StoreError(
            f"{key}/obsm/spatial has shape {spatial.shape}, expected {len(obs['x'])}, 2"
        )
    expected = np.stack([obs["x"] * width, obs["y"] * height], axis=1)
    found = {"obs": np.stack([obs["spatial_x"], obs["spatial_y"]], axis=1), "obsm": spatial}
    for name, places in found.items():
        off = ~np.isclose(places, expected, rtol=PLACE_TOLERANCE, atol=0).all(axis=1)
        if off.any():
            row = int(np.flatnonzero(off)[0])
            raise StoreError(
                f"{key}/{name} places row {row} at {_point(places[row])} micrometres, but x and y "
                f"say {_point(expected[row])}"
            )
    if store.holds(f"{key}/obs/z") and (store.numbers(f"{key}/obs/z") != z).any():
        raise StoreError(f"{key}/obs/z is not {z} everywhere")
    return f"pixels of {width:g} x {height:g} micrometres", None


def _point(place: Floats) -> str:
    return f"({place[0]:.9g}, {place[1]:.9g})"


def check_image(store: Store, name: str, obs: dict[str, Floats]) -> tuple[str, None]:
    """Check that the TIC image shows obs/tic, and nothing where there is no pixel."""
    key = f"images/{name}_tic/s0"
    image = store.numbers(key)
    if image.ndim != 3:
        raise StoreError(f"{key} has shape {image.shape}, expected (1, ny, nx)")
    plane = image[0]
    x, y = obs["x"].astype(np.int64), obs["y"].astype(np.int64)
    if len(x) and (x.max() >= plane.shape[1] or y.max() >= plane.shape[0]):
        raise StoreError(f"tables/{name}/obs has pixels outside {key} of shape {image.shape}")
    expected = np.zeros(plane.shape)
    np.add.at(expected, (y, x), obs["tic"])
    off = ~(np.abs(plane - expected) <= TOLERANCE * expected)
    if off.any():
        row, column = (int(place[0]) for place in np.nonzero(off))
        raise StoreError(
            f"{key} is {plane[row, column]:.9g} at x={column}, y={row}, but obs/tic says "
            f"{expected[row, column]:.9g} ({int(off.sum())} pixels differ){store.missing_hint(key)}"
        )
    return f"{plane.shape[1]} x {plane.shape[0]} pixels, equals obs/tic", None


def check_link(store: Store, key: str) -> tuple[str, None]:
    """Check that all places that name the annotated shapes agree."""
    attributes = store.attributes(key)
    for name in ("region", "region_key", "instance_key"):
        said = store.text(f"{key}/uns/spatialdata_attrs/{name}")
        if attributes.get(name) != said:
            raise StoreError(
                f"{key} has {name} {attributes.get(name)!r}, but uns/spatialdata_attrs says "
                f"{said!r}"
            )
    column = f"{key}/obs/{attributes['region_key']}"
    categories = store.values(f"{column}/categories")
    codes = store.values(f"{column}/codes")
    if categories.tolist() != [attributes["region"]] or codes.any():
        raise StoreError(f"{column} does not say {attributes['region']!r} in every row")
    return f"annotates shapes/{attributes['region']}", None


def check_shapes(store: Store, key: str, obs: dict[str, Floats]) -> tuple[str, None]:
    """Check that every row has its square, in any order, centred where obs says."""
    attributes = store.attributes(key)
    region, instance_key = str(attributes.get("region", "")), attributes.get("instance_key")
    where = f"shapes/{region}"
    if not region or not store.holds(where):
        raise StoreError(f"{key} annotates {region!r}, which is not under shapes")
    index, centres = _read_squares(store, where)
    n_obs = len(obs["x"])
    if len(index) != n_obs:
        raise StoreError(f"{where} has {len(index)} rows, but {key}/obs has {n_obs}")
    instances = store.values(f"{key}/obs/{instance_key}").astype(STRING)
    rows, shapes = np.argsort(instances), np.argsort(index)
    lost = np.flatnonzero(instances[rows] != index[shapes])
    if len(lost):
        raise StoreError(
            f"{where} has {index[shapes[lost[0]]]!r} where {key} has instance "
            f"{instances[rows[lost[0]]]!r}, in ascending order"
        )
    places = np.stack([obs["spatial_x"], obs["spatial_y"]], axis=1)
    scale = np.abs(places).max(initial=0.0) + 1
    off = ~(np.abs(centres[shapes] - places[rows]) <= PLACE_TOLERANCE * scale).all(axis=1)
    if off.any():
        at = int(np.flatnonzero(off)[0])
        raise StoreError(
            f"{where} has the square of instance {index[shapes[at]]} at "
            f"{_point(centres[shapes[at]])}, but obs says {_point(places[rows[at]])}"
        )
    return f"{n_obs:,} squares, linked by {instance_key}, where obs says", None


def _read_squares(store: Store, where: str) -> tuple[NDArray[Any], Floats]:
    """Return the index of a shapes element as strings, and the centres of its squares."""
    file = store.path / where / "shapes.parquet"
    try:
        table = pq.read_table(file, use_threads=False)
        names = [name for name in table.column_names if name != "geometry"]
        index = np.asarray(table.column(names[0]).to_numpy()).astype(STRING)
        geometry = table.column("geometry").combine_chunks().to_numpy(zero_copy_only=False)
        squares = np.frombuffer(b"".join(geometry), POLYGON)
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError) as error:
        raise StoreError(f"{where}/shapes.parquet cannot be read: {error}") from error
    if len(squares) != len(index):
        raise StoreError(f"{where}/shapes.parquet does not hold one square per row")
    return index, squares["xy"][:, :4].mean(axis=1)


def check_readable(store: Store, key: str) -> tuple[str, None]:
    """Check that every array of a table but X can be read."""
    folders = sorted(file.parent for file in (store.path / key).rglob("zarr.json"))
    keys = [folder.relative_to(store.path).as_posix() for folder in folders]
    names = [name for name in keys if not name.startswith(f"{key}/X") and store.is_array(name)]
    for name in names:
        store.values(name)
    return f"{len(names)} can be read", None
