import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from gpuconvert.checksums import BLOCK
from gpuconvert.errors import DamagedPartError, OutputError, PlanError
from gpuconvert.parts import Part, PartSummary, read_summary, sweep, write_part


def _summary(index=3, n_nonzeros=4):
    return PartSummary(index, 0, 2, n_nonzeros, 2, 10, 0, 0)


def _arrays():
    return {"data": np.arange(4, dtype="f4"), "rows": np.arange(4, dtype="i4")}


def test_a_part_comes_back_as_it_was_written(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    part = Part(tmp_path, 3, "mark")
    assert part.summary == _summary()
    assert part.read("data").shape == (4,)
    np.testing.assert_array_equal(part.read("data"), _arrays()["data"])
    np.testing.assert_array_equal(part.read("rows", 1, 3), [1, 2])
    assert part.read("data").dtype == np.float32


def test_only_a_finished_part_has_its_name(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    assert [path.name for path in tmp_path.iterdir()] == ["00003"]


def test_a_part_of_another_run_does_not_count(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    assert read_summary(tmp_path, 3, "mark") == _summary()
    assert read_summary(tmp_path, 3, "other") is None
    assert read_summary(tmp_path, 4, "mark") is None
    with pytest.raises(PlanError, match="part 3 is missing in .* or belongs to another run"):
        Part(tmp_path, 3, "other")


def test_a_part_of_another_run_is_replaced_and_one_of_this_run_is_kept(tmp_path):
    write_part(tmp_path, "old", _summary(), _arrays())
    write_part(tmp_path, "mark", _summary(n_nonzeros=5), _arrays())
    assert read_summary(tmp_path, 3, "mark") == _summary(n_nonzeros=5)
    write_part(tmp_path, "mark", _summary(n_nonzeros=6), _arrays())
    assert read_summary(tmp_path, 3, "mark") == _summary(n_nonzeros=5)
    assert [path.name for path in tmp_path.iterdir()] == ["00003"]


def test_empty_arrays_are_stored(tmp_path):
    write_part(tmp_path, "mark", _summary(n_nonzeros=0), {"data": np.zeros(0, "f4")})
    assert Part(tmp_path, 3, "mark").read("data").shape == (0,)


def test_a_part_without_an_array_is_refused(tmp_path):
    write_part(tmp_path, "mark", _summary(), {"data": np.zeros(1, "f4")})
    with pytest.raises(PlanError, match="part 3 has no array 'bins'; the part is removed, run"):
        Part(tmp_path, 3, "mark").read("bins")


def test_a_part_is_a_zarr_array(tmp_path):
    arrays = _arrays() | {"tic": np.array([0.5, 2.0]), "indptr": np.arange(3), "no": np.zeros(0)}
    write_part(tmp_path, "mark", _summary(), arrays)
    stored = zarr.open_array(tmp_path / "00003", mode="r")
    assert stored.attrs["fingerprint"] == "mark"
    assert sorted(stored.attrs["arrays"]) == sorted(arrays)
    for name, values in arrays.items():
        said = stored.attrs["arrays"][name]
        raw = stored[said["place"] : said["place"] + values.nbytes]
        np.testing.assert_array_equal(raw.view(said["dtype"]), values)
        assert np.dtype(said["dtype"]) == values.dtype


def test_a_part_that_was_cut_short_is_refused(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    file = tmp_path / "00003/c.0"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(
        DamagedPartError, match="00003/c.0 ends at byte 29, expected 32; the part is removed"
    ):
        Part(tmp_path, 3, "mark").read("rows")
    file.unlink()
    with pytest.raises(
        DamagedPartError, match="00003/c.0 is gone; the part is removed, run the same"
    ) as found:
        Part(tmp_path, 3, "mark").read("data")
    assert found.value.folder == tmp_path / "00003"


def _long():
    return np.random.default_rng(2).integers(0, 2**31, 3 * BLOCK // 4 + 5).astype("i4")


@given(st.tuples(st.integers(0, len(_long())), st.integers(0, len(_long()))))
def test_any_slice_of_a_long_array_is_read_exactly(tmp_path_factory, ends):
    folder = tmp_path_factory.getbasetemp() / "long"
    if not folder.exists():
        write_part(folder, "mark", _summary(), {"rows": _long(), "small": _long().astype("u2")})
    start, stop = sorted(ends)
    part = Part(folder, 3, "mark")
    np.testing.assert_array_equal(part.read("rows", start, stop), _long()[start:stop])
    small = part.read("small", start, stop)
    np.testing.assert_array_equal(small, _long().astype("u2")[start:stop])
    assert small.dtype == np.uint16


@pytest.mark.parametrize("seed", range(8))
def test_a_flipped_bit_is_found_by_whoever_reads_its_block(tmp_path, seed):
    write_part(tmp_path, "mark", _summary(), {"rows": _long()})
    file = tmp_path / "00003/c.0"
    raw = bytearray(file.read_bytes())
    bit = int(np.random.default_rng(seed).integers(8 * len(raw)))
    raw[bit // 8] ^= 1 << bit % 8
    file.write_bytes(raw)
    block, entry = bit // 8 // BLOCK, bit // 8 // 4
    words = f"c.0 has other bytes from {block * BLOCK} on than were written there; .* with index 3"
    with pytest.raises(DamagedPartError, match=words):
        Part(tmp_path, 3, "mark").read("rows", entry, entry + 1)


def test_a_changed_description_counts_as_no_part(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    file = tmp_path / "00003/zarr.json"
    said = file.read_text()
    for old, new in (('"first": 0', '"first": 1'), ("<f4", "<i4"), ('"length": 4', '"length": 3')):
        assert old in said
        file.write_text(said.replace(old, new, 1))
        assert read_summary(tmp_path, 3, "mark") is None


def test_what_an_interrupted_writer_left_is_swept(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    (tmp_path / "00004.abc.tmp/data").mkdir(parents=True)
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["00003"]


def test_a_damaged_part_counts_as_missing(tmp_path):
    write_part(tmp_path, "mark", _summary(), _arrays())
    (tmp_path / "00003/zarr.json").write_text("{")
    assert read_summary(tmp_path, 3, "mark") is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "parts"
    blocked.write_text("a file")
    with pytest.raises(OutputError, match="part 3 cannot be written to .*parts"):
        write_part(blocked, "mark", _summary(), _arrays())


def test_a_durable_part_is_written_through_before_it_has_its_name(tmp_path, monkeypatch):
    seen = []
    sync = os.fsync

    def watched(handle):
        seen.append((Path(f"/proc/self/fd/{handle}").readlink(), (tmp_path / "00003").exists()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    write_part(tmp_path, "mark", _summary(), _arrays(), durable=True)
    before = [path.name for path, named in seen if not named]
    assert {"zarr.json", "c.0"} < set(before)
    assert before[-1].endswith(".tmp")
    assert [path for path, named in seen if named] == [tmp_path]
    seen.clear()
    write_part(tmp_path, "other", _summary(), _arrays())
    assert seen == []
