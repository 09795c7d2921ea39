"""AnnData's encodings, judged by anndata's own reader."""

import json
import math

import anndata
import numpy as np
import pandas as pd
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gpuconvert.zarr_tables import (
    CHUNK_BYTES,
    CHUNK_STRINGS,
    STRING,
    Category,
    new_group,
    write_array,
    write_frame,
    write_strings,
    write_tree,
)

TEXT = st.text(max_size=6)
NUMBERS = st.integers(-(2**66), 2**66) | st.floats()
LEAVES = st.none() | st.booleans() | NUMBERS | TEXT
KEYS = st.sampled_from(["a", "b c", "µm", "d.e", "x/y", "", "__z", "zarr.json", "..", "k" * 120])
TREES = st.dictionaries(
    KEYS,
    st.recursive(
        LEAVES | st.lists(NUMBERS, max_size=4) | st.lists(TEXT, max_size=4),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)
UNUSABLE = {"x/y", "", "__z", "zarr.json", "..", "k" * 120}


@pytest.fixture
def group(tmp_path):
    return new_group(tmp_path / "g", {})


def opened(group):
    return zarr.open_group(group, mode="r", zarr_format=3)


def read(group, name):
    return anndata.io.read_elem(opened(group)[name])


def null_for_nan(value):
    """Return `value` as JSON would say it, written out rule by rule."""
    if isinstance(value, dict):
        return {key: null_for_nan(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [null_for_nan(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def agrees(read_back, value):
    """Return whether what anndata read stands for `value`."""
    if isinstance(read_back, np.ndarray):
        return len(read_back) == len(value) and all(
            a == b or (a != a and b != b) for a, b in zip(read_back.tolist(), value, strict=True)
        )
    if isinstance(value, dict) and isinstance(read_back, dict):
        kept = {key: entry for key, entry in value.items() if entry is not None}
        return kept.keys() == read_back.keys() and all(
            agrees(read_back[key], kept[key]) for key in kept
        )
    if isinstance(value, str | bool | float) or (
        isinstance(value, int) and -(2**63) <= value < 2**63
    ):
        return type(read_back) is type(value) and (
            read_back == value or (value != value and read_back != read_back)
        )
    # Irregular: a string of JSON.
    irregular = not isinstance(value, dict) or bool(UNUSABLE & value.keys())
    return irregular and json.loads(read_back) == null_for_nan(value)


@given(value=TREES)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nested_values_are_read_back_by_anndata(group, value):
    write_tree(group, "uns", value)
    assert agrees(read(group, "uns"), value)


def test_lists_of_one_kind_become_arrays_of_that_kind(group):
    lists = {"i": [1, 2**62], "f": [1, 0.5], "b": [True, False], "s": ["a", "", "é"]}
    write_tree(group, "uns", lists)
    found = read(group, "uns")
    assert {name: found[name].dtype.kind for name in "ifb"} == {"i": "i", "f": "f", "b": "b"}
    assert {name: list(found[name]) for name in found} == lists


def test_irregular_values_become_strings_of_json(group):
    irregular = {
        "records": [{"law": "tof", "spread": float("inf")}, {"law": "fticr", "spread": 0.5}],
        "mixed": [1, "a"], "empty": [], "flags": [True, 2], "huge": 2**70,
    }  # fmt: skip
    write_tree(group, "uns", irregular)
    assert read(group, "uns") == {
        "records": '[{"law":"tof","spread":null},{"law":"fticr","spread":0.5}]',
        "mixed": '[1,"a"]', "empty": "[]", "flags": "[true,2]", "huge": str(2**70),
    }  # fmt: skip


def test_nothing_is_written_for_none(group):
    write_tree(group, "uns", {"gone": None, "here": 1})
    assert read(group, "uns") == {"here": 1}


def test_numpy_values_are_written_as_what_they_hold(group):
    write_tree(group, "uns", {"a": np.float32(0.5), "b": np.array(3), "c": np.arange(3.0)})
    found = read(group, "uns")
    assert (found["a"], found["b"], found["c"].tolist()) == (0.5, 3, [0.0, 1.0, 2.0])


def test_a_file_name_that_is_no_utf8_is_escaped(group):
    write_tree(group, "uns", {"name": b"tissue\xff.imzML".decode("utf-8", "surrogateescape")})
    assert read(group, "uns") == {"name": "tissue\\udcff.imzML"}


def test_a_frame_is_read_back_by_anndata(group):
    columns = {
        "second": np.array([1.5, -2.0, 0.0]),
        "first": np.array([3, 1, 2], np.int8),
        "where": Category("here", 3),
        "word": np.array(["x", "", "é"], STRING),
    }
    write_frame(group, "obs", np.array(["7", "8", "10"], STRING), columns, index_name="id")
    frame = read(group, "obs")
    assert list(frame.columns) == ["second", "first", "where", "word"]
    assert (frame.index.name, list(frame.index)) == ("id", ["7", "8", "10"])
    assert (frame["second"].dtype, frame["first"].dtype) == (np.float64, np.int8)
    assert isinstance(frame["where"].dtype, pd.CategoricalDtype)
    assert frame.drop(columns="where").to_dict("list") == {
        "second": [1.5, -2.0, 0.0], "first": [3, 1, 2], "word": ["x", "", "é"],
    }  # fmt: skip
    assert list(frame["where"]) == ["here"] * 3


def test_a_frame_replaces_the_one_before(group):
    index = np.array(["0", "1"], STRING)
    write_frame(group, "obs", index, {"old": np.zeros(2)})
    write_frame(group, "obs", index, {"new": np.ones(2)})
    assert list(read(group, "obs").columns) == ["new"]
    assert set(opened(group)["obs"].keys()) == {"_index", "new"}


@pytest.mark.parametrize("shape", [(300_000,), (200_000, 2), (3, 0), (0,), (0, 2)])
def test_arrays_of_any_size_are_read_back(group, shape):
    values = np.random.default_rng(1).random(shape)
    write_array(group, "a", values)
    np.testing.assert_array_equal(read(group, "a"), values)


def test_chunks_of_columns_are_near_one_mebibyte(group):
    write_array(group, "a", np.zeros((200_000, 2)))
    write_strings(group, "s", np.arange(100_000).astype(STRING))
    found = opened(group)
    rows = found["a"].chunks[0]
    assert found["a"].chunks == (rows, 2)
    assert rows * 16 == CHUNK_BYTES == 2**20
    assert found["s"].chunks == (CHUNK_STRINGS,)
