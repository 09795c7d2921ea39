"""The whole store, judged by spatialdata, anndata, geopandas and scipy."""

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import anndata
import dask.array
import numpy as np
import pytest
import scipy.sparse as sp
import zarr

from gpuconvert.errors import StoreError
from gpuconvert.mass_axis import of_centres, of_law
from gpuconvert.spatial import finish_store
from tests.store.stores import (
    AXIS,
    ORIGIN,
    PIXEL_SIZE,
    PLANES,
    make_acquisition,
    make_facts,
    make_matrices,
    make_store,
    write_matrix,
)

with warnings.catch_warnings():
    # ome-zarr 0.18 calls its own deprecated class when it is imported.
    warnings.filterwarnings("ignore", "Call to deprecated class Scaler", DeprecationWarning)
    import spatialdata
    from spatialdata.transformations import get_transformation

pytestmark = [
    # So does ome-zarr 0.15, when spatialdata 0.7.3 imports it on first use.
    pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning"),
    # anndata 0.13 sets and reads options that pandas 3 has deprecated.
    pytest.mark.filterwarnings("ignore:The 'mode.chained_assignment' option is deprecated"),
    pytest.mark.filterwarnings("ignore:The 'future.infer_string' option is deprecated"),
]

NX, NY = 7, 3
WIDTH, HEIGHT = PIXEL_SIZE
PROVENANCE = {
    "software": {"gpuconvert": "1.2.3"},
    "decision": [{"law": "orbitrap", "spread": 0.25}, {"law": "tof", "spread": None}],
    "seconds": 1.5,
    "warnings": ["one", "two"],
    "nothing": None,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store") / "run.zarr", provenance=PROVENANCE)


@pytest.fixture(scope="module")
def store(path):
    return spatialdata.read_zarr(path)


@pytest.fixture(params=range(len(PLANES)))
def z(request):
    return request.param


def files(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file."""
    return {
        str(item.relative_to(folder)): hashlib.sha256(item.read_bytes()).hexdigest()
        for item in sorted(folder.rglob("*"))
        if item.is_file()
    }


def all_rows(z):
    """Return where the rows of plane `z` are in the columns of the acquisition."""
    first = sum(len(pixels) for pixels in PLANES[:z])
    return slice(first, first + len(PLANES[z]))


def test_spatialdata_finds_every_element(store):
    assert set(store.tables) == {"run.1_z0", "run.1_z1"}
    assert set(store.shapes) == {"run.1_z0_pixels", "run.1_z1_pixels"}
    assert set(store.images) == {"run.1_z0_tic", "run.1_z1_tic"}
    assert set(store.coordinate_systems) == {"run.1", "global"}


def test_x_is_the_matrix_that_was_assembled(store, z):
    matrix = make_matrices()[z]
    table = store.tables[f"run.1_z{z}"]
    assert isinstance(table.X, sp.csc_matrix | sp.csc_array)
    assert table.X.dtype == np.float32
    assert (matrix != table.X).nnz == 0


def test_a_csr_store_holds_the_same_matrix(tmp_path):
    stored = spatialdata.read_zarr(make_store(tmp_path / "s", layout="csr")).tables["run.1_z0"]
    assert isinstance(stored.X, sp.csr_matrix | sp.csr_array)
    assert (make_matrices()[0] != stored.X).nnz == 0


def test_obs_states_the_pixel_of_every_row(store, z):
    obs = store.tables[f"run.1_z{z}"].obs
    x, y = np.array(PLANES[z]).T
    expected = {
        "y": y, "x": x, "z": np.full(len(x), z),
        "spatial_x": x * 12.5, "spatial_y": y * 40.0, "instance_key": y * NX + x,
    }  # fmt: skip
    for name, values in expected.items():
        np.testing.assert_array_equal(obs[name], values, err_msg=name)
    assert list(obs.index) == [str(y * NX + x) for x, y in PLANES[z]]
    assert obs.index.name == "instance_id"


def test_obs_states_what_was_acquired_and_stored(store, z):
    obs = store.tables[f"run.1_z{z}"].obs
    source = make_acquisition()
    rows = all_rows(z)
    tic = make_matrices()[z].toarray().sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(obs["tic"], tic, rtol=1e-12)
    np.testing.assert_allclose(obs["source_tic"], tic * 2 + 1, rtol=1e-12)
    np.testing.assert_allclose(obs["outside_tic"], tic + 1, rtol=1e-12)
    np.testing.assert_array_equal(obs["acquisition_order"], source.order[rows])
    np.testing.assert_array_equal(obs["n_points"], source.n_points[rows])
    np.testing.assert_array_equal(obs["polarity"], source.polarity[rows])
    np.testing.assert_array_equal(obs["region_number"], source.region[rows])
    assert set(obs["region"]) == {f"run.1_z{z}_pixels"}


def test_obs_has_the_columns_and_types_that_are_promised(store):
    dtypes = store.tables["run.1_z0"].obs.dtypes
    assert {name: str(dtype) for name, dtype in dtypes.items()} == {
        "y": "int32", "x": "int32", "region": "category", "spatial_x": "float64",
        "spatial_y": "float64", "region_number": "int32", "acquisition_order": "int64",
        "polarity": "int8", "tic": "float64", "source_tic": "float64", "outside_tic": "float64",
        "n_points": "int64", "instance_key": "int64", "z": "int32",
    }  # fmt: skip


def test_a_store_of_one_plane_has_no_z(tmp_path):
    path = make_store(tmp_path / "s", planes=PLANES[:1], region=False)
    obs = anndata.io.read_zarr(path / "tables" / "run.1_z0").obs
    assert "z" not in obs
    assert set(obs["region_number"]) == {0}


def test_obsm_holds_the_centres_in_micrometres(store, z):
    spatial = store.tables[f"run.1_z{z}"].obsm["spatial"]
    assert spatial.dtype == np.float64
    np.testing.assert_array_equal(spatial, [(x * 12.5, y * 40.0) for x, y in PLANES[z]])


def test_var_states_the_bins(store):
    var = store.tables["run.1_z1"].var
    assert list(var.index) == [f"mz_{i}" for i in range(AXIS.n_bins)]
    # The edges of the law by hand: 1 / u^2, uniform in u = -1 / sqrt(m) from m/z 150 on.
    edges = 1 / (-1 / np.sqrt(150.0) + np.arange(AXIS.n_bins + 1) * 1.2e-3) ** 2
    np.testing.assert_allclose(var["mz_low"], edges[:-1], rtol=1e-12)
    np.testing.assert_allclose(var["mz_high"], edges[1:], rtol=1e-12)
    np.testing.assert_allclose(var["mz"], (edges[1:] + edges[:-1]) / 2, rtol=1e-12)


def test_a_listed_axis_keeps_its_centres_exactly(tmp_path):
    centres = np.array([100.1, 200.2, 200.3, 999.999])
    path = make_store(tmp_path / "s", axis=of_centres(centres, "source"))
    var = anndata.io.read_zarr(path / "tables" / "run.1_z0").var
    np.testing.assert_array_equal(var["mz"], centres)


def test_uns_holds_average_provenance_and_summary(store, z):
    uns = store.tables[f"run.1_z{z}"].uns
    average = make_matrices()[z].toarray().astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(uns["average_spectrum"], average, rtol=1e-12)
    kept = dict(uns["gpuconvert"])
    assert list(kept.pop("warnings")) == ["one", "two"]
    assert json.loads(kept.pop("decision")) == PROVENANCE["decision"]
    assert kept == {"software": {"gpuconvert": "1.2.3"}, "seconds": 1.5}
    summary = uns["essential_metadata"]
    assert summary["dimensions"].tolist() == [NX, NY, 2]
    assert summary["mass_range"].tolist() == [140.0, 950.0]
    assert (summary["source_path"], summary["spectrum_type"]) == ("tissue.imzML", "centroid")


def test_the_names_of_the_source_folder_are_not_stored(path):
    found = [item for item in path.rglob("*.json") if "somewhere" in item.read_text()]
    assert not found
    texts = anndata.io.read_zarr(path / "tables" / "run.1_z0").uns["essential_metadata"]
    assert "somewhere" not in str(texts)


def test_every_row_has_its_square(store, z):
    name, shapes = f"run.1_z{z}", f"run.1_z{z}_pixels"
    elements, table = spatialdata.match_element_to_table(store, shapes, name)
    assert list(table.obs_names) == list(store.tables[name].obs_names)
    centroids = elements[shapes].geometry.centroid
    np.testing.assert_allclose(centroids.x, table.obs["spatial_x"], atol=1e-9)
    np.testing.assert_allclose(centroids.y, table.obs["spatial_y"], atol=1e-9)
    np.testing.assert_allclose(elements[shapes].geometry.area, WIDTH * HEIGHT)


def test_an_inner_join_keeps_every_square_in_order(store, z):
    elements, table = spatialdata.join_spatialelement_table(
        sdata=store, spatial_element_names=f"run.1_z{z}_pixels", table_name=f"run.1_z{z}",
        how="inner", match_rows="left",
    )  # fmt: skip
    squares = elements[f"run.1_z{z}_pixels"]
    assert list(squares.index) == [y * NX + x for x, y in PLANES[z]]
    assert list(table.obs["instance_key"]) == list(squares.index)


def test_the_image_is_the_stored_tic_and_zero_elsewhere(store, z):
    image = store.images[f"run.1_z{z}_tic"]
    expected = np.zeros((1, NY, NX))
    for (x, y), spectrum in zip(PLANES[z], make_matrices()[z].toarray(), strict=True):
        expected[0, y, x] = spectrum.sum(dtype=np.float64)
    np.testing.assert_array_equal(image.to_numpy(), expected.astype(np.float32))
    assert image.dims == ("c", "y", "x")
    assert list(image.coords["c"].to_numpy()) == ["tic"]


@pytest.mark.parametrize("system", ["global", "run.1"])
def test_image_pixels_and_squares_meet_in_micrometres(store, z, system):
    image, squares = store.images[f"run.1_z{z}_tic"], store.shapes[f"run.1_z{z}_pixels"]
    matrix = get_transformation(image, system).to_affine_matrix(("x", "y"), ("x", "y"))
    # spatialdata puts the centre of pixel i at i + 0.5.
    inside = np.array([(x + 0.5, y + 0.5, 1.0) for x, y in PLANES[z]])
    moved = spatialdata.transform(squares, to_coordinate_system=system).geometry.centroid
    np.testing.assert_allclose((inside @ matrix.T)[:, 0], moved.x, atol=1e-9)
    np.testing.assert_allclose((inside @ matrix.T)[:, 1], moved.y, atol=1e-9)
    np.testing.assert_allclose(moved.x, [x * WIDTH for x, _ in PLANES[z]], atol=1e-9)
    np.testing.assert_allclose(moved.y, [y * HEIGHT for _, y in PLANES[z]], atol=1e-9)


def test_the_image_covers_whole_pixels(store):
    extent = spatialdata.get_extent(store.images["run.1_z0_tic"], coordinate_system="global")
    assert extent["x"] == pytest.approx((-WIDTH / 2, (NX - 0.5) * WIDTH))
    assert extent["y"] == pytest.approx((-HEIGHT / 2, (NY - 0.5) * HEIGHT))


def test_root_attributes_state_grid_and_pixel_size(store):
    attrs = store.attrs
    assert (attrs["pixel_size_x_um"], attrs["pixel_size_y_um"]) == (WIDTH, HEIGHT)
    assert attrs["pixel_size_units"] == "micrometers"
    assert attrs["msi_dataset_info"] == {
        "dataset_id": "run.1", "total_grid_pixels": 42, "non_empty_pixels": 11,
        "dimensions_xyz": [NX, NY, 2],
    }  # fmt: skip
    assert attrs["mass_axis"] == {"law": "orbitrap", "n_bins": AXIS.n_bins, "sha256": AXIS.sha256}
    system = attrs["coordinate_systems"]["global"]
    assert system["coordinate_offsets_px"] == list(ORIGIN)
    assert system["stage_offset_um"] == [4 * 12.5, 9 * 40.0]
    affine = get_transformation(store.images["run.1_z0_tic"], "global")
    np.testing.assert_allclose(
        system["raster_to_global_affine"], affine.to_affine_matrix(("x", "y"), ("x", "y"))
    )


def test_consolidated_metadata_lists_every_node(path):
    listed = set(zarr.open_group(path, mode="r").metadata.consolidated_metadata.flattened_metadata)
    on_disk = {
        str(item.parent.relative_to(path)) for item in path.rglob("zarr.json")
    } - {"."}  # fmt: skip
    assert listed == on_disk


def test_anndata_reads_the_table_lazily(path):
    table = anndata.experimental.read_lazy(zarr.open_group(path, mode="r")["tables/run.1_z0"])
    assert isinstance(table.X, dask.array.Array)
    found = table[[5, 1]].to_memory()
    np.testing.assert_array_equal(found.X.toarray(), make_matrices()[0].toarray()[[5, 1]])
    assert list(found.obs_names) == ["12", "3"]


def test_a_table_can_be_cut_and_written_again(path, tmp_path):
    table = anndata.io.read_zarr(path / "tables" / "run.1_z0")
    cut = table[table.obs["x"] > 2, table.var["mz"] < 400].copy()
    cut.write_h5ad(tmp_path / "cut.h5ad")
    again = anndata.io.read_h5ad(tmp_path / "cut.h5ad")
    assert list(again.obs_names) == ["3", "6", "12", "18"]
    assert (again.X != cut.X).nnz == 0


def test_spectra_of_one_pixel_are_told_apart(tmp_path):
    planes = (((0, 0), (2, 0), (2, 0), (2, 0), (1, 3)),)
    path = make_store(tmp_path / "s", planes=planes)
    store = spatialdata.read_zarr(path)
    table = store.tables["run.1_z0"]
    assert list(table.obs_names) == ["0", "2", str(2 + 12), str(2 + 24), "10"]
    assert [int(i) % (3 * 4) for i in table.obs_names] == [0, 2, 2, 2, 10]
    assert spatialdata.match_element_to_table(store, "run.1_z0_pixels", "run.1_z0")[1].n_obs == 5
    tic = make_matrices(planes)[0].toarray().sum(axis=1, dtype=np.float64)
    image = store.images["run.1_z0_tic"].to_numpy()[0]
    assert image.shape == (4, 3)
    assert image[0, 2] == np.float32(tic[1:4].sum())
    assert store.attrs["msi_dataset_info"]["non_empty_pixels"] == 3


def test_an_empty_matrix_makes_a_store(tmp_path):
    axis = of_law("constant", 100.0, 101.0, du=0.5)
    acquisition = make_acquisition(PLANES[:1])
    nothing = [sp.csr_matrix((len(PLANES[0]), axis.n_bins), dtype=np.float32)]
    write_matrix(tmp_path / "tables" / "run.1_z0" / "X", nothing[0], "csc")
    facts = make_facts(acquisition, nothing)
    finish_store(tmp_path, acquisition, axis, facts, dataset_id="run.1", provenance={})
    store = spatialdata.read_zarr(tmp_path)
    assert store.tables["run.1_z0"].X.nnz == 0
    assert not store.images["run.1_z0_tic"].to_numpy().any()


def test_an_identifier_called_global_is_one_system(tmp_path):
    store = spatialdata.read_zarr(make_store(tmp_path / "s", dataset_id="global"))
    assert store.coordinate_systems == ["global"]


def test_finishing_again_gives_the_same_bytes(path, tmp_path):
    again = make_store(tmp_path / "run.zarr", provenance=PROVENANCE)
    before = files(path)
    assert files(again) == before
    make_store(again, provenance=PROVENANCE)
    assert files(again) == before


def test_what_a_killed_run_left_is_replaced(path, tmp_path):
    again = tmp_path / "run.zarr"
    shutil.copytree(path, again)
    shutil.rmtree(again / "images" / "run.1_z1_tic")
    (again / "shapes" / "run.1_z0_pixels" / "shapes.parquet").write_bytes(b"half")
    obs = zarr.open_group(again / "tables" / "run.1_z0" / "obs", mode="r+")
    obs.create_array("stale", shape=(8,), dtype="f4")
    (again / "tables" / "run.1_z1" / "uns" / "zarr.json").unlink()
    acquisition, matrices = make_acquisition(), make_matrices()
    facts = make_facts(acquisition, matrices)
    finish_store(again, acquisition, AXIS, facts, dataset_id="run.1", provenance=PROVENANCE)
    assert files(again) == files(path)


def test_a_missing_matrix_is_refused(tmp_path):
    acquisition, matrices = make_acquisition(), make_matrices()
    write_matrix(tmp_path / "tables" / "run.1_z0" / "X", matrices[0], "csc")
    with pytest.raises(StoreError, match=r"has no tables/run\.1_z1/X; assemble again"):
        finish_store(
            tmp_path, acquisition, AXIS, make_facts(acquisition, matrices),
            dataset_id="run.1", provenance={},
        )  # fmt: skip


def test_a_matrix_of_another_shape_is_refused(tmp_path):
    acquisition, matrices = make_acquisition(), make_matrices()
    for z in range(2):
        write_matrix(tmp_path / "tables" / f"run.1_z{z}" / "X", matrices[z][:, :-1], "csc")
    with pytest.raises(StoreError, match=r"has shape \[8, 40\], expected \[8, 41\]; assemble"):
        finish_store(
            tmp_path, acquisition, AXIS, make_facts(acquisition, matrices),
            dataset_id="run.1", provenance={},
        )  # fmt: skip


def test_writing_imports_neither_spatialdata_nor_pandas(tmp_path):
    code = (
        "import sys; from pathlib import Path; from tests.store.stores import make_store;"
        f"make_store(Path({str(tmp_path / 's')!r}));"
        "print(sorted({'spatialdata', 'anndata', 'geopandas', 'pandas'} & set(sys.modules)))"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
