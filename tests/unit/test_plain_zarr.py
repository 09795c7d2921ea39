import warnings

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.vlen import VLenUTF8
from zarr.errors import ZarrUserWarning

from gpuconvert.plain_zarr import (
    Numbered,
    consolidate,
    encode_numbered,
    encode_texts,
    write_group,
    write_numbers,
    write_texts,
)


def _read(folder):
    return zarr.open_array(folder, mode="r")


@pytest.mark.parametrize("dtype", ["i1", "u2", "i4", "i8", "f4", "f8", "?"])
@pytest.mark.parametrize("shape", [(), (1,), (7,), (6,), (5, 2), (1, 3, 4)])
def test_zarr_reads_back_the_numbers(tmp_path, dtype, shape):
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    write_numbers(
        tmp_path / "a", values, chunk=[min(n, 3) for n in shape], attributes={"said": [1, "x"]}
    )
    stored = _read(tmp_path / "a")
    assert stored.dtype == values.dtype
    assert stored.shape == values.shape
    assert dict(stored.attrs) == {"said": [1, "x"]}
    np.testing.assert_array_equal(stored[...], values)


def test_an_array_without_rows_has_no_chunks(tmp_path):
    write_numbers(tmp_path / "a", np.zeros((0, 2)), chunk=(4, 2))
    assert _read(tmp_path / "a")[:].shape == (0, 2)
    write_texts(tmp_path / "b", np.zeros(0, "T"), rows=4)
    assert _read(tmp_path / "b")[:].shape == (0,)


@pytest.mark.parametrize("chunk", [(1, 4, 3), (2, 7, 5), (1, 1, 9)])
def test_an_image_is_cut_into_tiles(tmp_path, chunk):
    image = np.random.default_rng(3).random((2, 7, 5)).astype(np.float32)
    write_numbers(tmp_path / "a", image, chunk=chunk, dimension_names=("c", "y", "x"))
    stored = _read(tmp_path / "a")
    assert stored.chunks == chunk
    assert stored.metadata.dimension_names == ("c", "y", "x")
    np.testing.assert_array_equal(stored[:], image)


def test_groups_and_their_consolidated_metadata_are_those_of_the_library(tmp_path):
    for library in (True, False):
        root = tmp_path / str(library)
        write_group(root, {"top": 1})
        write_group(root / "b")
        write_group(root / "b/inner", {"x": [1, None, "é"]})
        write_numbers(root / "b/inner/values", np.arange(4.0), dimension_names=["n"])
        write_texts(root / "a", np.array(["x"], "T"))
        (root / "b" / "no node").mkdir()
        if library:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ZarrUserWarning)
                zarr.consolidate_metadata(root, zarr_format=3)
        else:
            consolidate(root)
    ours, theirs = (
        zarr.open_group(tmp_path / name, mode="r", use_consolidated=True).metadata
        for name in ("False", "True")
    )
    assert ours.to_dict() == theirs.to_dict()
    assert ours.attributes == {"top": 1}
    assert len(ours.consolidated_metadata.flattened_metadata) == 4


def test_a_group_described_again_keeps_what_lies_in_it(tmp_path):
    write_group(tmp_path / "g", {"first": 1})
    write_numbers(tmp_path / "g/a", np.arange(3))
    write_group(tmp_path / "g", {"second": 2})
    group = zarr.open_group(tmp_path / "g", mode="r")
    assert dict(group.attrs) == {"second": 2}
    assert list(group) == ["a"]


def test_what_was_there_is_replaced(tmp_path):
    write_numbers(tmp_path / "a", np.arange(50), chunk=(5,))
    write_numbers(tmp_path / "a", np.arange(3.0), chunk=(5,))
    np.testing.assert_array_equal(_read(tmp_path / "a")[:], [0, 1, 2])
    assert len(list((tmp_path / "a/c").iterdir())) == 1


@given(st.lists(st.text(max_size=12).filter(lambda t: "\0" not in t), max_size=9))
def test_texts_are_encoded_as_the_library_does(texts):
    ours = encode_texts(np.array(texts, np.dtypes.StringDType()), len(texts))
    assert ours == bytes(VLenUTF8().encode(np.array(texts, object)))


@given(
    st.sampled_from(["mz_", "", "a b"]),
    st.lists(st.integers(0, 120) | st.integers(0, 2**63 - 1), max_size=9),
    st.integers(0, 3),
)
def test_numbered_texts_are_encoded_like_others(prefix, numbers, spare):
    n_items = len(numbers) + spare
    texts = np.array([f"{prefix}{number}" for number in numbers], np.dtypes.StringDType())
    ours = encode_numbered(prefix, np.array(numbers, np.int64), n_items)
    assert ours == encode_texts(texts, n_items)


def test_zarr_reads_back_numbered_texts(tmp_path):
    write_texts(tmp_path / "a", Numbered("n", np.arange(95, 105)), rows=4)
    assert list(_read(tmp_path / "a")[:]) == [f"n{k}" for k in range(95, 105)]


@pytest.mark.parametrize("texts", [["mz_0"], ["a", "", "größer", "x" * 300, "日本"], ["", ""]])
def test_zarr_reads_back_the_texts(tmp_path, texts):
    write_texts(tmp_path / "a", np.array(texts, "T"), rows=2, attributes={"kind": "words"})
    stored = _read(tmp_path / "a")
    assert list(stored[:]) == texts
    assert dict(stored.attrs) == {"kind": "words"}


def test_a_single_text_has_no_dimension(tmp_path):
    write_texts(tmp_path / "a", np.array("a word", "T"))
    stored = _read(tmp_path / "a")
    assert stored.shape == ()
    assert stored[()] == "a word"
