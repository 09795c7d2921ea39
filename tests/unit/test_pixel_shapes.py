"""Pixel squares, judged by shapely and geopandas."""

import json

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.pixel_shapes import BLOCK, encode_squares, write_squares

SIZES = st.floats(0.01, 500, allow_subnormal=False)
PLACES = st.lists(st.tuples(st.integers(0, 30_000), st.integers(0, 30_000)), min_size=1, max_size=9)


def decoded(x, y, size):
    return shapely.from_wkb([bytes(square) for square in encode_squares(x, y, size)])


@given(places=PLACES, width=SIZES, height=SIZES)
@settings(max_examples=80, deadline=None)
def test_every_pixel_is_the_box_around_its_centre(places, width, height):
    x, y = np.array(places, np.int32).T
    squares = decoded(x, y, (width, height))
    boxes = [
        shapely.box((a - 0.5) * width, (b - 0.5) * height, (a + 0.5) * width, (b + 0.5) * height)
        for a, b in places
    ]
    assert list(squares) == boxes
    assert shapely.is_valid(squares).all()
    assert shapely.is_ccw(shapely.get_exterior_ring(squares)).all()


def test_neighbours_share_their_edges_exactly():
    y, x = (axis.ravel().astype(np.int32) for axis in np.mgrid[:7, :11])
    # 0.1 and 0.3 have no exact binary form: corners computed two ways would differ.
    union = shapely.unary_union(decoded(x, y, (0.1, 0.3)))
    assert union.geom_type == "Polygon"
    assert not union.interiors
    assert union.bounds == pytest.approx((-0.05, -0.15, 1.05, 1.95), abs=1e-12)


def test_geopandas_reads_the_file_with_its_index(tmp_path):
    x, y = np.array([0, 4, 2], np.int32), np.array([0, 0, 9], np.int32)
    index = np.array([0, 4, 47], np.int64)
    path = tmp_path / "shapes.parquet"
    write_squares(path, x, y, pixel_size=(10.0, 25.0), index=index, index_name="instance_id")
    frame = geopandas.read_parquet(path)
    assert (frame.index.name, frame.index.dtype, list(frame.index)) == (
        "instance_id", np.int64, [0, 4, 47],
    )  # fmt: skip
    assert frame.crs is None
    assert list(frame.columns) == ["geometry"]
    np.testing.assert_allclose(frame.geometry.area, 250.0)
    np.testing.assert_array_equal(frame.geometry.centroid.x, [0, 40, 20])
    np.testing.assert_array_equal(frame.geometry.centroid.y, [0, 0, 225])
    said = json.loads(pq.read_schema(path).metadata[b"geo"])["columns"]["geometry"]["bbox"]
    assert said == list(frame.total_bounds)


def test_pixels_beyond_one_block_keep_their_order(tmp_path):
    n = BLOCK + 1000
    index = np.arange(n, dtype=np.int64) * 3
    x, y = (index % 601).astype(np.int32), (index // 601).astype(np.int32)
    path = tmp_path / "shapes.parquet"
    write_squares(path, x, y, pixel_size=(2.0, 3.0), index=index, index_name="instance_id")
    assert pq.ParquetFile(path).num_row_groups == 2
    frame = geopandas.read_parquet(path)
    np.testing.assert_array_equal(frame.index, index)
    bounds = frame.geometry.bounds
    np.testing.assert_array_equal(bounds["minx"], x * 2.0 - 1.0)
    np.testing.assert_array_equal(bounds["maxy"], y * 3.0 + 1.5)
