"""Opening a finished store, refusing all else, and saying what a store holds."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import zarr
from zarr.codecs import BloscCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from gpuconvert.errors import MissingExtraError, StoreError
from gpuconvert.finished_store import open_store, read_summary
from tests.store.stores import AXIS, PLANES, make_matrices, make_store

with warnings.catch_warnings():
    # ome-zarr 0.18 calls its own deprecated class when it is imported.
    warnings.filterwarnings("ignore", "Call to deprecated class Scaler", DeprecationWarning)
    import spatialdata

# So does ome-zarr 0.15, when spatialdata 0.7.3 imports it on first use.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")

OPENERS = pytest.mark.parametrize("opener", [open_store, read_summary])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "run.zarr")


def n_nonzero():
    return sum(matrix.nnz for matrix in make_matrices())


@pytest.mark.parametrize("kind", [Path, str])
def test_a_finished_store_opens_as_spatialdata(path, kind):
    opened = open_store(kind(path))
    assert isinstance(opened, spatialdata.SpatialData)
    assert {name: table.shape for name, table in opened.tables.items()} == {
        f"run.1_z{z}": (len(pixels), AXIS.n_bins) for z, pixels in enumerate(PLANES)
    }


def test_without_spatialdata_the_extra_is_named(path, monkeypatch):
    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(
        MissingExtraError,
        match=r"run\.zarr needs spatialdata, which cannot be imported \(No module named "
        r"'spatialdata'\); pip install 'gpuconvert\[spatialdata\]'$",
    ):
        open_store(path)


def test_a_summary_needs_neither_spatialdata_nor_anndata(path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['spatialdata', 'anndata', 'pandas']));"
        "from pathlib import Path; from gpuconvert.finished_store import read_summary;"
        f"print(read_summary(Path({str(path)!r})).n_nonzero)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == n_nonzero()


@OPENERS
def test_a_missing_folder_is_refused(tmp_path, opener):
    with pytest.raises(StoreError, match=r"gone\.zarr is no store: there is no such folder; check"):
        opener(tmp_path / "gone.zarr")


@OPENERS
def test_a_store_still_being_made_is_refused_by_its_final_name(tmp_path, opener):
    (tmp_path / "run.zarr.partial").mkdir()
    with pytest.raises(StoreError, match=r"run\.zarr is no store: .* has not finished, run it"):
        opener(tmp_path / "run.zarr")


@OPENERS
@pytest.mark.parametrize("inside", ["run.zarr.partial", "run.zarr.partial/store"])
def test_an_unfinished_conversion_is_refused_even_when_it_is_readable(
    path, tmp_path, opener, inside
):
    shutil.copytree(path, tmp_path / inside)
    with pytest.raises(StoreError, match=r"has not finished; run the same command again"):
        opener(tmp_path / inside)


@OPENERS
def test_a_folder_that_is_no_zarr_group_is_refused(tmp_path, opener):
    with pytest.raises(StoreError, match=r"it has no readable zarr\.json \(.+\); check the path"):
        opener(tmp_path)


@OPENERS
@pytest.mark.parametrize("text", ["{half", "[]", '{"node_type": "array"}'])
def test_a_damaged_root_is_refused(path, tmp_path, opener, text):
    shutil.copytree(path, tmp_path / "run.zarr")
    (tmp_path / "run.zarr" / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match=r"it has no readable zarr\.json \(.+\); check the path"):
        opener(tmp_path / "run.zarr")


@OPENERS
@pytest.mark.parametrize("lost", ["consolidated_metadata", "spatialdata_attrs"])
def test_a_store_without_what_is_written_last_is_refused(path, tmp_path, opener, lost):
    copied = tmp_path / "run.zarr"
    shutil.copytree(path, copied)
    described = json.loads((copied / "zarr.json").read_text())
    (described if lost in described else described["attributes"]).pop(lost)
    (copied / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match=r"not a finished SpatialData store: .* convert again"):
        opener(copied)


def test_a_store_of_another_program_has_no_summary(path, tmp_path):
    copied = tmp_path / "run.zarr"
    shutil.copytree(path, copied)
    described = json.loads((copied / "zarr.json").read_text())
    del described["attributes"]["mass_axis"]
    (copied / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match=r"not written by gpuconvert: .* has no mass_axis"):
        read_summary(copied)


def test_a_summary_counts_what_all_planes_hold(path):
    summary = read_summary(path)
    assert summary.n_pixels == sum(len(pixels) for pixels in PLANES)
    assert summary.n_bins == AXIS.n_bins
    assert summary.n_nonzero == n_nonzero()
    assert summary.elements == (
        "images/run.1_z0_tic", "images/run.1_z1_tic", "shapes/run.1_z0_pixels",
        "shapes/run.1_z1_pixels", "tables/run.1_z0", "tables/run.1_z1",
    )  # fmt: skip
    assert (summary.axis_law, summary.axis_sha256) == ("orbitrap", AXIS.sha256)


def test_a_summary_counts_the_bytes_of_every_file(path):
    done = subprocess.run(["du", "-sb", "--apparent-size", path], capture_output=True, check=True)
    folders = [path, *(item for item in path.rglob("*") if item.is_dir())]
    expected = int(done.stdout.split()[0]) - sum(folder.stat().st_size for folder in folders)
    assert read_summary(path).bytes_on_disk == expected


@pytest.mark.parametrize(
    ("codec", "name", "level"),
    [
        (BloscCodec(cname="lz4", clevel=5), "lz4", 5),
        (BloscCodec(cname="zstd", clevel=3), "zstd", 3),
        (ZstdCodec(level=7), "zstd", 7),
        (None, "none", None),
    ],
)
@pytest.mark.parametrize("shard", [None, 32])
def test_a_summary_states_the_codec_and_the_chunks_in_use(tmp_path, codec, name, level, shard):
    options = {"compressors": codec, "shards": (shard,) if shard else None, "chunk": 8}
    summary = read_summary(make_store(tmp_path / "s", planes=PLANES[:1], **options))
    assert (summary.codec, summary.codec_level) == (name, level)
    assert (summary.chunk_elements, summary.shard_elements) == (8, shard)


@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_a_summary_states_the_layout(tmp_path, layout):
    path = make_store(tmp_path / "s", planes=PLANES[:1], layout=layout)
    assert read_summary(path).layout == layout


def test_a_table_that_a_user_added_is_listed_and_not_counted(path, tmp_path):
    copied = tmp_path / "run.zarr"
    shutil.copytree(path, copied)
    clusters = zarr.open_group(copied / "tables" / "clusters", mode="w", zarr_format=3)
    clusters.create_array("X", shape=(2, 2), dtype="f4")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ZarrUserWarning)
        zarr.consolidate_metadata(copied)
    summary = read_summary(copied)
    assert "tables/clusters" in summary.elements
    assert summary.n_pixels == read_summary(path).n_pixels


def test_a_store_without_its_tables_has_no_summary(path, tmp_path):
    copied = tmp_path / "run.zarr"
    shutil.copytree(path, copied)
    shutil.rmtree(copied / "tables")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ZarrUserWarning)
        zarr.consolidate_metadata(copied)
    with pytest.raises(StoreError, match=r"has no table with a sparse X; convert again"):
        read_summary(copied)


def test_a_summary_is_plain_json(path):
    summary = read_summary(path)
    written = json.loads(json.dumps(summary.to_json()))
    assert written | {"elements": tuple(written["elements"])} == dataclasses.asdict(summary)


def test_opening_does_not_change_the_store(path):
    before = {item: item.stat().st_mtime_ns for item in path.rglob("*")}
    open_store(path)
    read_summary(path)
    assert {item: item.stat().st_mtime_ns for item in path.rglob("*")} == before
    assert zarr.open_group(path, mode="r").attrs["msi_dataset_info"]["dataset_id"] == "run.1"
