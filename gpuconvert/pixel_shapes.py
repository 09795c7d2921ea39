"""Pixels as squares in a GeoParquet file, written with pyarrow alone.

A square is centred at ``(column * width, row * height)`` in micrometres, and
neighbours share their corners exactly. Geometry is encoded block by block, so
memory does not grow with the number of pixels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

BLOCK = 2**16
"""Squares per row group; 6 MB of geometry."""

SQUARE = np.dtype(
    [("order", "u1"), ("kind", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("xy", "<f8", (5, 2))]
)
"""Well-known binary of a polygon with one closed ring of five points, 93 bytes."""

CORNERS = np.array([(0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.5, -0.5)])
"""The ring as (x, y) in pixels from the centre, counter-clockwise, first point repeated."""


def encode_squares(
    x: NDArray[np.int32], y: NDArray[np.int32], pixel_size: tuple[float, float]
) -> NDArray[Any]:
    """Return the squares of pixels as well-known binary.

    Parameters
    ----------
    x, y
        (n_pixels,) int32, columns and rows of the grid, from 0.
    pixel_size
        Width and height in micrometres.

    Returns
    -------
    (n_pixels,) SQUARE
        In the order of the pixels.
    """
    squares = np.empty(len(x), SQUARE)
    squares["order"] = 1  # little endian
    squares["kind"] = 3  # polygon
    squares["rings"] = 1
    squares["points"] = len(CORNERS)
    squares["xy"][:, :, 0] = (x[:, None] + CORNERS[:, 0]) * pixel_size[0]
    squares["xy"][:, :, 1] = (y[:, None] + CORNERS[:, 1]) * pixel_size[1]
    return squares


def _binary(squares: NDArray[Any]) -> pa.Array:
    """Return fixed-size records as an Arrow column of bytes, without copying one by one."""
    offsets = np.arange(len(squares) + 1, dtype=np.int32) * SQUARE.itemsize
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(squares.view(np.uint8))]
    return pa.BinaryArray.from_buffers(pa.binary(), len(squares), buffers)


def _integers(values: NDArray[np.int64]) -> pa.Array:
    """Return numbers as an Arrow column; pyarrow.array would import pandas for it."""
    whole = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(whole), [None, pa.py_buffer(whole)])


def _geo(box: list[float]) -> dict[str, Any]:
    """Return the GeoParquet metadata; `box` is (x min, y min, x max, y max) in micrometres."""
    column = {
        "encoding": "WKB", "geometry_types": ["Polygon"], "crs": None,
        "orientation": "counterclockwise", "edges": "planar", "bbox": box,
    }  # fmt: skip
    return {"version": "1.0.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _pandas(index_name: str) -> dict[str, Any]:
    """Return the metadata by which pandas finds the index."""
    kinds = [("geometry", "bytes", "object"), (index_name, "int64", "int64")]
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": stored,
         "metadata": None}
        for name, kind, stored in kinds
    ]  # fmt: skip
    return {"index_columns": [index_name], "column_indexes": [], "columns": columns}


def write_squares(
    path: Path, x: NDArray[np.int32], y: NDArray[np.int32], *,
    pixel_size: tuple[float, float], index: NDArray[np.int64], index_name: str,
) -> None:  # fmt: skip
    """Write one square per pixel; what is at `path` is replaced.

    Parameters
    ----------
    path
        The Parquet file.
    x, y
        (n_pixels,) int32, columns and rows of the grid, from 0; at least one pixel.
    pixel_size
        Width and height in micrometres.
    index
        (n_pixels,) int64, all different.
    index_name
        What a reader will call the index.
    """
    width, height = pixel_size
    box = [
        (float(x.min()) - 0.5) * width, (float(y.min()) - 0.5) * height,
        (float(x.max()) + 0.5) * width, (float(y.max()) + 0.5) * height,
    ]  # fmt: skip
    schema = pa.schema(
        [("geometry", pa.binary()), (index_name, pa.int64())],
        {"geo": json.dumps(_geo(box)), "pandas": json.dumps(_pandas(index_name))},
    )
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, len(x), BLOCK):
            block = slice(first, first + BLOCK)
            geometry = _binary(encode_squares(x[block], y[block], pixel_size))
            writer.write_table(pa.table([geometry, _integers(index[block])], schema=schema))
