"""The verifier passes correct stores and finds every planted corruption."""

import gzip
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import PchipInterpolator

from gpuconvert.errors import SourceError, SourceMissingError, StoreError
from gpuconvert.mass_axis import of_law
from gpuconvert.verification import entries, verify
from gpuconvert.verification.bounds import Bins, misplaced, moments
from gpuconvert.verification.bounds import Spectrum as Points
from gpuconvert.verification.oracle import Oracle
from tests.store.small_store import (
    CENTROID_AXIS,
    PLANES,
    PROFILE_AXIS,
    Spectrum,
    centroids,
    profiles,
    write_source,
    write_store,
)

T0 = "tables/msi_z0"


def sticks():
    return centroids()[: len(PLANES[0])]


def curves():
    return profiles()[: len(PLANES[0])]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Correct stores by kind and layout, and their sources; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    for kind, spectra, axis in (
        ("centroid", sticks(), CENTROID_AXIS),
        ("profile", curves(), PROFILE_AXIS),
    ):
        write_source(folder / f"{kind}.imzML", spectra)
        for layout in ("csc", "csr"):
            write_store(folder / f"{kind}_{layout}", spectra, axis, layout=layout)
    write_store(folder / "sharded_csc", sticks(), CENTROID_AXIS, shards=(256,))
    write_source(folder / "sharded.imzML", sticks())
    write_store(folder / "planes_csc", centroids(), CENTROID_AXIS)
    write_source(folder / "planes.imzML", centroids())
    return folder


@pytest.fixture
def copied(made, tmp_path):
    """Return a function that copies one of the correct stores to change it."""

    def copy(name="centroid_csc"):
        return shutil.copytree(made / name, tmp_path / name)

    return copy


@pytest.fixture(params=["csc", "csr"])
def layout(request):
    return request.param


def source_of(made, kind="centroid"):
    return made / f"{kind}.imzML"


def failures(found):
    """Return {name: sentence} of the checks that failed."""
    assert found.ok == (not any(not check.ok for check in found.checks))
    return {check.name: check.detail for check in found.checks if not check.ok}


def change(store, key, function):
    """Replace an array of the store by what `function` makes of it, in place."""
    array = zarr.open_array(store / key, mode="r+", zarr_format=3)
    values = np.array(array[...])
    array[...] = function(values)


def put(place, value):
    def function(values):
        values[place] = value
        return values

    return function


def entries_of_row(store, table, row):
    """Return which entries of X belong to a row."""
    group = zarr.open_group(store / table / "X", mode="r")
    indptr, indices = group["indptr"][...], group["indices"][...]
    if group.attrs["encoding-type"] == "csr_matrix":
        return np.arange(indptr[row], indptr[row + 1])
    return np.flatnonzero(indices == row)


@pytest.mark.parametrize("kind", ["centroid", "profile"])
def test_a_correct_store_passes_every_check(made, kind, layout):
    found = verify(made / f"{kind}_{layout}", source_of(made, kind))
    assert failures(found) == {}
    names = [check.name for check in found.checks]
    assert len(names) == len(set(names)) == 23
    assert found.quality.tic_ratio_max_error < 1e-6
    assert found.quality.peaks_kept > 0.99


def test_every_plane_is_checked(made):
    found = verify(made / "planes_csc", source_of(made, "planes"))
    assert failures(found) == {}
    tables = {check.name.split()[0] for check in found.checks if check.name.startswith("tables/")}
    assert tables == {"tables/msi_z0", "tables/msi_z1"}
    assert "11 pixels" in next(c.detail for c in found.checks if c.name == "source pixels")


def test_without_a_source_only_the_store_is_checked(made):
    found = verify(made / "centroid_csc")
    assert failures(found) == {}
    assert found.quality is None
    assert not any(check.name.startswith("source") for check in found.checks)


def test_quality_is_measured_from_store_and_source(made):
    quality = verify(made / "centroid_csr", source_of(made)).quality
    spectra = sticks()
    inside = [s.intensity.sum(dtype=float) - s.outside for s in spectra]
    stored = [s.stored.astype(np.float32).sum(dtype=float) for s in spectra]
    assert quality.tic_ratio_max_error == pytest.approx(
        np.abs(np.array(stored) / inside - 1).max(), rel=1e-6, abs=1e-15
    )
    total = sum(s.intensity.sum(dtype=float) for s in spectra)
    assert quality.outside_fraction == pytest.approx(sum(s.outside for s in spectra) / total)
    peaks = sum(
        ((s.intensity > 0.01 * s.intensity.max()) & (s.mz >= 200) & (s.mz <= 300)).sum()
        for s in spectra
    )
    assert quality.n_peaks == peaks
    sizes = [file.stat().st_size for file in (made / "centroid_csr").rglob("*") if file.is_file()]
    source = source_of(made).stat().st_size + source_of(made).with_suffix(".ibd").stat().st_size
    assert quality.size_ratio == pytest.approx(sum(sizes) / source)


def test_a_result_reads_as_lines_and_as_json(made, copied):
    good = verify(made / "centroid_csc", source_of(made))
    assert good.to_json()["ok"] is True
    assert good.to_json()["quality"] == good.quality.to_json()
    assert json.loads(json.dumps(good.to_json())) == good.to_json()
    assert all(line.startswith("ok ") for line in good.lines()[:-3])
    assert good.lines()[-3:] == good.quality.lines()
    store = copied()
    change(store, f"{T0}/X/data", put(5, -1))
    bad = verify(store)
    assert bad.to_json()["ok"] is False
    assert [line.split() for line in bad.lines() if not line.startswith("ok ")] == [
        f"FAILED {T0} entries {T0}/X/data is -1 at entry 5, expected above 0".split()
    ]


@pytest.mark.parametrize("name", ["centroid_csr", "profile_csc", "sharded_csc"])
def test_small_blocks_find_the_same(made, monkeypatch, name):
    monkeypatch.setattr(entries, "BLOCK", 1)
    assert failures(verify(made / name, source_of(made, name[:-4]))) == {}


def test_order_is_checked_across_blocks(copied, monkeypatch):
    monkeypatch.setattr(entries, "BLOCK", 1)
    store = copied("centroid_csr")
    # Blocks are chunks of 64 here: this entry is the first of one, inside a row.
    indptr = zarr.open_array(store / T0 / "X/indptr", mode="r")[...]
    place = next(at for at in range(64, 512, 64) if at not in indptr)
    change(store, f"{T0}/X/indices", lambda values: put(place, values[place - 1])(values))
    assert (
        f"at entry {place}, expected to ascend within a row"
        in (failures(verify(store))[f"{T0} entries"])
    )


def test_x_is_never_read_whole(made, monkeypatch):
    monkeypatch.setattr(entries, "BLOCK", 128)
    read = []
    block = entries.Store.block

    def spy(self, array, key, first, last):
        read.append(last - first)
        return block(self, array, key, first, last)

    monkeypatch.setattr(entries.Store, "block", spy)
    values = entries.Store.values

    def no_x(self, key):
        assert not key.endswith(("X/data", "X/indices"))
        return values(self, key)

    monkeypatch.setattr(entries.Store, "values", no_x)
    assert verify(made / "centroid_csc", source_of(made)).ok
    assert max(read) == 128


def test_a_flipped_value_is_found(copied, layout):
    store = copied(f"centroid_{layout}")
    change(store, f"{T0}/X/data", lambda values: put(100, values[100] * 2)(values))
    found = failures(verify(store))
    assert set(found) == {f"{T0} tic", f"{T0} average spectrum"}
    assert "X adds up to" in found[f"{T0} tic"]


@pytest.mark.parametrize("value", [0.0, -3.0, np.nan, np.inf])
def test_values_that_are_no_counts_are_found(copied, value):
    store = copied()
    change(store, f"{T0}/X/data", put(70, value))
    text = failures(verify(store))[f"{T0} entries"]
    assert text == f"{T0}/X/data is {value:g} at entry 70, expected above 0"


@pytest.mark.parametrize("value", [-1, 8, 2**31 - 1])
def test_indices_out_of_range_are_found(copied, value):
    store = copied()
    change(store, f"{T0}/X/indices", put(70, value))
    text = failures(verify(store))[f"{T0} entries"]
    assert text == f"{T0}/X/indices is {value} at entry 70, expected 0 to 7"


def test_indices_out_of_order_are_found(copied):
    store = copied("centroid_csr")
    change(store, f"{T0}/X/indices", lambda v: put([10, 11], [v[11], v[10]])(v))
    assert (
        "at entry 11, expected to ascend within a row" in (failures(verify(store))[f"{T0} entries"])
    )


@pytest.mark.parametrize("kind", ["centroid", "sharded"])
@pytest.mark.parametrize("name", ["data", "indices"])
def test_a_dropped_chunk_file_is_named(copied, kind, name):
    store = copied(f"{kind}_csc")
    (store / T0 / f"X/{name}/c/1").unlink()
    found = failures(verify(store))
    assert any(
        f"chunk file {T0}/X/{name}/c/1 is missing or empty" in text for text in found.values()
    )


@pytest.mark.parametrize(
    ("key", "check"),
    [
        (f"{T0}/X/indptr/c/3", f"{T0} pointers"),
        (f"{T0}/var/mz/c/0", f"{T0} mass axis"),
        (f"{T0}/obs/tic/c/0", f"{T0} tic"),
        (f"{T0}/uns/average_spectrum/c/0", f"{T0} average spectrum"),
        ("images/msi_z0_tic/s0/c/0/0/0", f"{T0} image"),
    ],
)
def test_a_dropped_chunk_of_another_array_is_named(copied, key, check):
    store = copied()
    (store / key).unlink()
    assert f"chunk file {key} is missing or empty" in failures(verify(store))[check]


@pytest.mark.parametrize("kind", ["centroid", "sharded"])
@pytest.mark.parametrize("name", ["data", "indices"])
@pytest.mark.parametrize("kept", ["none", "one byte", "half", "all but one"])
def test_a_truncated_chunk_is_named(copied, kind, name, kept):
    store = copied(f"{kind}_csc")
    file = store / T0 / f"X/{name}/c/1"
    whole = file.read_bytes()
    length = {"none": 0, "one byte": 1, "half": len(whole) // 2, "all but one": len(whole) - 1}
    file.write_bytes(whole[: length[kept]])
    text = failures(verify(store))[f"{T0} entries"]
    if kept == "none":
        # Zarr reads an empty file as fill value where chunks are in shards.
        assert f"{T0}/X/{name}/c/1" in text
    else:
        assert text.startswith(f"{T0}/X/{name}/c/1 cannot be read")


def test_a_truncated_column_is_named(copied):
    store = copied()
    file = store / T0 / "obs/source_tic/c/0"
    file.write_bytes(file.read_bytes()[:7])
    found = failures(verify(store))
    assert f"{T0}/obs/source_tic/c/0 cannot be read" in found[f"{T0} columns"]


def test_a_truncated_image_is_found(copied):
    store = copied()
    file = store / "images/msi_z0_tic/s0/c/0/0/0"
    file.write_bytes(file.read_bytes()[:7])
    words = "images/msi_z0_tic/s0/c/0/0/0 cannot be read"
    assert words in failures(verify(store))[f"{T0} image"]


def test_a_pointer_off_by_one_is_found(copied, layout):
    store = copied(f"centroid_{layout}")
    indptr = zarr.open_array(store / T0 / "X/indptr", mode="r")[...]
    place = int(np.flatnonzero(np.diff(indptr) > 0)[3])
    change(store, f"{T0}/X/indptr", put(place, indptr[place] + 1))
    found = failures(verify(store))
    assert found
    assert set(found) <= {f"{T0} {name}" for name in ("entries", "tic", "average spectrum")}


@pytest.mark.parametrize(
    ("place", "step", "words"),
    [
        (0, 1, "indptr starts at 1, expected 0"),
        (-1, 1, "indptr ends at 514, but data has 513 and indices 513 entries"),
        (1000, -500, r"indptr falls to"),
    ],
)
def test_pointers_that_cannot_be_are_found(copied, place, step, words):
    store = copied()
    change(store, f"{T0}/X/indptr", lambda values: put(place, values[place] + step)(values))
    assert words in failures(verify(store))[f"{T0} pointers"]


def test_metadata_that_changed_after_consolidation_are_named(copied):
    store = copied()
    path = store / T0 / "var/mz/zarr.json"
    value = json.loads(path.read_text())
    value["attributes"]["unit"] = "Th"
    path.write_text(json.dumps(value))
    text = failures(verify(store))["consolidated metadata"]
    assert text == f"consolidated metadata of {T0}/var/mz differ from the tree"


def test_an_entry_missing_from_the_consolidated_metadata_is_named(copied):
    store = copied()
    shutil.copytree(store / "images/msi_z0_tic", store / "images/later")
    text = failures(verify(store))["consolidated metadata"]
    assert text == "consolidated metadata do not list images/later, images/later/s0"


def test_a_stale_entry_of_the_consolidated_metadata_is_named(copied):
    store = copied()
    shutil.rmtree(store / "images/msi_z0_tic/s0")
    found = failures(verify(store))
    assert "images/msi_z0_tic/s0, which the store does not hold" in found["consolidated metadata"]
    assert found[f"{T0} image"] == "images/msi_z0_tic/s0 is missing"


def test_a_store_without_consolidated_metadata_is_found(copied):
    store = copied()
    value = json.loads((store / "zarr.json").read_text())
    del value["consolidated_metadata"]
    (store / "zarr.json").write_text(json.dumps(value))
    assert "has no consolidated metadata" in failures(verify(store))["consolidated metadata"]


def test_damaged_metadata_of_an_array_are_named(copied):
    store = copied()
    (store / T0 / "X/data/zarr.json").write_text("{")
    found = failures(verify(store))
    assert "X/data/zarr.json cannot be read as JSON" in found["consolidated metadata"]
    assert f"{T0}/X/data cannot be opened" in found[f"{T0} pointers"]


def test_a_column_of_another_length_is_found(copied):
    store = copied()
    array = zarr.open_array(store / T0 / "obs/n_points", mode="r+")
    array.resize((7,))
    assert failures(verify(store))[f"{T0} frames"] == f"{T0}/obs/n_points has 7 rows, expected 8"


@pytest.mark.parametrize(
    ("key", "value", "check", "words"),
    [
        ("obsm/spatial", 7.0, "places", "obsm places row 0 at"),
        ("obs/spatial_y", 7.0, "places", "obs places row 0 at"),
        ("obs/region/codes", 1, "link", "obs/region does not say 'msi_z0_pixels' in every row"),
        ("obs/tic", -1.0, "columns", "obs/tic is -1 in row 0, expected at least 0"),
        ("obs/source_tic", np.nan, "columns", "obs/source_tic is nan in row 0"),
    ],
)
def test_columns_that_contradict_each_other_are_found(copied, key, value, check, words):
    store = copied()
    change(store, f"{T0}/{key}", put(0, value))
    assert words in failures(verify(store))[f"{T0} {check}"]


def test_a_plane_of_another_z_is_found(copied):
    store = copied("planes_csc")
    change(store, "tables/msi_z1/obs/z", put(0, 0))
    text = failures(verify(store))["tables/msi_z1 places"]
    assert text == "tables/msi_z1/obs/z is not 1 everywhere"


@pytest.mark.parametrize("name", ["region", "region_key", "instance_key"])
def test_a_link_that_says_two_things_is_found(copied, name):
    store = copied()
    (store / T0 / f"uns/spatialdata_attrs/{name}/c").unlink()
    assert f"has {name} '" in failures(verify(store))[f"{T0} link"]


def test_an_array_of_no_further_use_must_still_be_readable(copied):
    store = copied()
    file = store / T0 / "uns/essential_metadata/mass_range/c/0"
    file.write_bytes(file.read_bytes()[:-3])
    found = failures(verify(store))
    assert set(found) == {f"{T0} other arrays"}
    assert "mass_range/c/0 cannot be read" in found[f"{T0} other arrays"]


def test_two_rows_of_one_name_are_found(copied):
    store = copied()
    change(store, f"{T0}/obs/instance_id", lambda values: put(3, values[2])(values))
    assert "obs/instance_id names two rows alike" in failures(verify(store))[f"{T0} frames"]


def test_a_missing_column_is_named(copied):
    store = copied()
    shutil.rmtree(store / T0 / "obs/outside_tic")
    assert f"{T0}/obs/outside_tic is missing" in failures(verify(store))[f"{T0} frames"]


def test_bins_that_left_their_axis_are_found(copied):
    store = copied()
    for column in ("mz", "mz_low", "mz_high"):
        change(store, f"{T0}/var/{column}", lambda values: values + 3 * CENTROID_AXIS.du)
    found = failures(verify(store))
    assert set(found) == {f"{T0} mass axis"}
    assert "but the stored axis says 200.025" in found[f"{T0} mass axis"]


@pytest.mark.parametrize("column", ["mz", "mz_low", "mz_high"])
def test_bins_with_holes_or_out_of_order_are_found(copied, column):
    store = copied()
    change(store, f"{T0}/var/{column}", lambda values: put(41, values[41] + 0.06)(values))
    text = failures(verify(store))[f"{T0} mass axis"]
    assert "expected mz_low < mz < mz_high, ascending and without holes" in text
    assert "bin 41 is" in text or "bin 42 is" in text


def set_text(store, key, value):
    array = zarr.open_array(store / key, mode="r+")
    array[...] = value


def test_an_axis_with_another_digest_is_found(copied):
    store = copied()
    set_text(store, f"{T0}/uns/gpuconvert/axis_sha256", "0" * 64)
    text = failures(verify(store))[f"{T0} mass axis"]
    assert f"has sha256 {CENTROID_AXIS.sha256}, but axis_sha256 says 000" in text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1, "law": "tof"}', '{"format": 9}'])
def test_an_axis_that_is_none_is_found(copied, text):
    store = copied()
    set_text(store, f"{T0}/uns/gpuconvert/axis", text)
    assert "uns/gpuconvert/axis is not an axis" in failures(verify(store))[f"{T0} mass axis"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"quantity": "counts", "threshold": "low"}'])
def test_parameters_that_say_nothing_are_found(copied, text):
    store = copied()
    set_text(store, f"{T0}/uns/gpuconvert/parameters", text)
    assert "does not say how the store was made" in failures(verify(store))[f"{T0} parameters"]


@pytest.mark.parametrize("place", [(0, 0, 3), (0, 2, 6)])
def test_an_image_that_is_not_the_tic_is_found(copied, place):
    # At the first place is a pixel, at the second there is none.
    store = copied()
    change(store, "images/msi_z0_tic/s0", lambda values: put(place, values[place] + 1)(values))
    text = failures(verify(store))[f"{T0} image"]
    assert f"at x={place[2]}, y={place[1]}, but obs/tic says" in text


def test_a_lost_shape_is_found(copied):
    store = copied()
    path = store / "shapes/msi_z0_pixels/shapes.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert f"has 7 rows, but {T0}/obs has 8" in failures(verify(store))[f"{T0} shapes"]


def test_a_shape_of_another_pixel_is_found(copied):
    store = copied()
    path = store / "shapes/msi_z0_pixels/shapes.parquet"
    table = pq.read_table(path)
    names = table["instance_id"].to_pylist()
    names[0] = type(names[0])(99)
    place = table.column_names.index("instance_id")
    pq.write_table(table.set_column(place, "instance_id", pa.array(names)), path)
    text = failures(verify(store))[f"{T0} shapes"]
    assert f"has '12' where {T0} has instance '0', in ascending order" in text


def test_a_damaged_shapes_file_is_found(copied):
    store = copied()
    path = store / "shapes/msi_z0_pixels/shapes.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    assert "shapes.parquet cannot be read" in failures(verify(store))[f"{T0} shapes"]


PLACE = ("x", "y", "spatial_x", "spatial_y", "instance_key", "instance_id")


def swap(store, first, second, columns):
    """Swap two rows of these columns of obs, and of obsm if they say where a pixel lies."""
    keys = [f"{T0}/obs/{column}" for column in columns]
    for key in keys + ([f"{T0}/obsm/spatial"] if "spatial_x" in columns else []):
        change(store, key, lambda v: put([first, second], v[[second, first]])(v))


def repaint(store):
    """Make the TIC image agree with obs again."""
    x, y, tic = (zarr.open_array(store / T0 / f"obs/{name}")[...] for name in ("x", "y", "tic"))
    image = np.zeros((1, 3, 7), np.float32)
    image[0, y, x] = tic
    change(store, "images/msi_z0_tic/s0", lambda values: image)


def test_two_swapped_pixels_are_found_by_the_store_alone(copied):
    store = copied()
    swap(store, 1, 4, ("x", "y"))
    found = failures(verify(store))
    assert set(found) == {f"{T0} places", f"{T0} image"}
    assert "x and y say (25, 40)" in found[f"{T0} places"]
    swap(store, 1, 4, ("spatial_x", "spatial_y"))
    repaint(store)
    found = failures(verify(store))
    assert set(found) == {f"{T0} shapes"}
    assert "but obs says (25, 40)" in found[f"{T0} shapes"] or "(37.5, 0)" in found[f"{T0} shapes"]


def test_pixels_swapped_everywhere_are_found_by_the_source(made, copied, layout):
    store = copied(f"centroid_{layout}")
    swap(store, 1, 4, PLACE)
    repaint(store)
    assert failures(verify(store)) == {}
    found = failures(verify(store, source_of(made)))
    counts = {"source tic", "stored tic", "mean m/z", "bin contents"}
    assert set(found) == {"source columns", *counts}
    assert "pixel x=2, y=1, z=0 has" in found["source tic"]
    assert "(2 pixels differ)" in found["source tic"]
    swap(store, 1, 4, ("acquisition_order",))
    assert set(failures(verify(store, source_of(made)))) == counts


def test_two_swapped_pixels_of_equal_tic_are_found_by_their_mz(tmp_path):
    spectra = [
        Spectrum(s.place, s.mz, np.ones_like(s.intensity), np.rint(s.stored), s.outside)
        for s in ones()
    ]
    source = write_source(tmp_path / "a.imzML", spectra)
    store = write_store(tmp_path / "a.zarr", spectra, CENTROID_AXIS)
    assert failures(verify(store, source)) == {}
    swap(store, 1, 4, (*PLACE, "acquisition_order"))
    assert failures(verify(store)) == {}
    found = failures(verify(store, source))
    assert set(found) == {"mean m/z", "bin contents"}
    assert "mean m/z of pixel x=2, y=1, z=0 is" in found["mean m/z"]


def ones():
    """Return spectra of one count at each of 30 m/z inside the axis."""
    rng = np.random.default_rng(8)
    made = []
    for s in sticks():
        mz = np.sort(rng.uniform(201, 299, 30))
        stored = np.zeros(CENTROID_AXIS.n_bins)
        np.add.at(stored, [np.abs(CENTROID_AXIS.centres - m).argmin() for m in mz], 1.0)
        made.append(Spectrum(s.place, mz, np.ones(30, np.float32), stored, 0.0))
    return made


def rescale(store, row, factor):
    """Scale one spectrum and everything in the store that would give it away."""
    own = entries_of_row(store, T0, row)
    change(store, f"{T0}/X/data", lambda values: put(own, values[own] * factor)(values))
    group = zarr.open_group(store / T0, mode="r")
    data, indices, indptr = (group[f"X/{name}"][...] for name in ("data", "indices", "indptr"))
    major = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))
    rows, bins = (indices, major) if "csc" in str(store) else (major, indices)
    change(store, f"{T0}/obs/tic", lambda values: np.bincount(rows, data.astype(float), 8))
    average = np.bincount(bins, data.astype(float), len(group["var/mz"][...])) / 8
    change(store, f"{T0}/uns/average_spectrum", lambda values: average)
    repaint(store)


@pytest.mark.parametrize("kind", ["centroid", "profile"])
def test_a_scaled_spectrum_is_found_by_the_source(made, copied, kind, layout):
    store = copied(f"{kind}_{layout}")
    rescale(store, 2, 1.01)
    assert failures(verify(store)) == {}
    found = failures(verify(store, source_of(made, kind)))
    assert set(found) == {"stored tic", "bin contents"}
    assert "pixel x=6, y=0, z=0 holds" in found["stored tic"]
    assert "(1 pixels differ)" in found["stored tic"]


@pytest.mark.parametrize("kind", ["centroid", "profile"])
@pytest.mark.parametrize("bins", [3, -3])
def test_a_shifted_axis_that_agrees_with_itself_is_found_by_the_source(made, tmp_path, kind, bins):
    spectra, axis = (sticks(), CENTROID_AXIS) if kind == "centroid" else (curves(), PROFILE_AXIS)
    moved = of_law("constant", axis.low + bins * axis.du, axis.high + bins * axis.du, du=axis.du)
    assert moved.n_bins == axis.n_bins
    store = write_store(tmp_path / "moved.zarr", spectra, moved)
    assert failures(verify(store)) == {}
    assert {"mean m/z", "bin contents"} <= set(failures(verify(store, source_of(made, kind))))


def test_counts_moved_between_bins_are_found_by_the_source(made, tmp_path):
    # Mean m/z and TIC stay: two equal counts move apart by the same distance.
    spectra = ones()
    source = write_source(tmp_path / "a.imzML", spectra)
    stored = spectra[0].stored
    first, second = np.flatnonzero(stored)[[10, 20]]
    stored[[first, second]] -= 1
    stored[[first - 5, second + 5]] += 1
    store = write_store(tmp_path / "a.zarr", spectra, CENTROID_AXIS)
    found = failures(verify(store, source))
    assert set(found) == {"bin contents"}
    assert "pixel x=0, y=0, z=0: 3.333% of the counts" in found["bin contents"]


def test_another_count_of_points_is_found(made, copied):
    store = copied()
    change(store, f"{T0}/obs/n_points", put(2, 79))
    text = failures(verify(store, source_of(made)))["source columns"]
    assert text == "obs/n_points is 79 at x=6, y=0, z=0, but the source says 80"


def test_pixels_of_only_one_side_are_named(made, tmp_path):
    store = write_store(tmp_path / "less.zarr", centroids()[:9], CENTROID_AXIS)
    text = failures(verify(store, source_of(made, "planes")))["source pixels"]
    assert text == "pixel x=6, y=1, z=1 of the source is not in the store (2 such pixels)"
    fewer = write_source(tmp_path / "fewer.imzML", sticks()[:7])
    text = failures(verify(made / "centroid_csc", fewer))["source pixels"]
    assert text == "pixel x=4, y=2, z=0 of the store is not in the source (1 such pixels)"


def test_a_damaged_store_is_not_compared(made, copied):
    store = copied()
    change(store, f"{T0}/X/data", put(5, -1))
    found = failures(verify(store, source_of(made)))
    assert found["source"].startswith("not compared: tables of the store are damaged")


def test_a_threshold_may_leave_out_bins(made, tmp_path):
    spectra = [
        Spectrum(s.place, s.mz, s.intensity, np.where(s.stored > 5, s.stored, 0), s.outside)
        for s in sticks()
    ]
    source = source_of(made)
    said = write_store(
        tmp_path / "said.zarr", spectra, CENTROID_AXIS, parameters={"threshold": 5.0}
    )
    assert failures(verify(said, source)) == {}
    unsaid = write_store(tmp_path / "unsaid.zarr", spectra, CENTROID_AXIS)
    assert {"stored tic", "bin contents"} <= set(failures(verify(unsaid, source)))


def test_counts_above_those_of_the_source_are_found_despite_a_threshold(made, tmp_path):
    spectra = sticks()
    spectra[2].stored[np.flatnonzero(spectra[2].stored)[0]] += 50
    store = write_store(tmp_path / "a.zarr", spectra, CENTROID_AXIS, parameters={"threshold": 5.0})
    assert "stored tic" in failures(verify(store, source_of(made)))


@pytest.mark.parametrize("factor", [1.0, 1.05])
def test_heights_lie_between_those_of_the_points_around(made, tmp_path, factor):
    spectra = []
    for s in curves():
        height = np.interp(PROFILE_AXIS.centres, s.mz, s.intensity, left=0, right=0) * factor
        spectra.append(Spectrum(s.place, s.mz, s.intensity, height, 0.0))
    store = write_store(
        tmp_path / "a.zarr", spectra, PROFILE_AXIS,
        parameters={"quantity": "height", "options": {"profile": {"method": "linear"}}},
    )  # fmt: skip
    found = failures(verify(store, source_of(made, "profile")))
    assert set(found) == (set() if factor == 1.0 else {"bin contents"})


def test_of_both_methods_the_looser_bounds_hold_where_the_header_is_silent(made, tmp_path):
    store = write_store(tmp_path / "a.zarr", ones(), CENTROID_AXIS)
    set_text(store, f"{T0}/uns/essential_metadata/spectrum_type", "unknown")
    source = write_source(tmp_path / "a.imzML", ones())
    found = verify(store, source)
    assert failures(found) == {}
    assert "nearest or pchip, quantity counts, threshold 0" in [c.detail for c in found.checks]


def test_heights_and_nearest_bins_are_not_compared_where_they_may_be_mixed(made, tmp_path):
    store = write_store(
        tmp_path / "a.zarr", sticks(), CENTROID_AXIS, parameters={"quantity": "height"}
    )
    found = verify(store, source_of(made))
    assert failures(found) == {}
    assert next(c.detail for c in found.checks if c.name == "stored tic").startswith("stored and")
    set_text(store, f"{T0}/uns/essential_metadata/spectrum_type", "unknown")
    details = {check.name: check.detail for check in verify(store, source_of(made)).checks}
    assert details["bin contents"] == "not compared: heights and nearest bins may be mixed"
    assert "mean m/z" not in details


def with_duplicate(mode):
    """Return spectra for the source, and for the store what `mode` makes of them."""
    spectra = sticks()
    twin = Spectrum(
        spectra[3].place,
        spectra[4].mz,
        spectra[4].intensity * 2,
        spectra[4].stored * 2,
        spectra[4].outside * 2,
    )
    # The source is written in reversed order: the twin comes first in the file.
    source = [*spectra[:4], twin, *spectra[4:]]
    if mode == "keep":
        return source, [*spectra[:3], twin, spectra[3], *spectra[4:]]
    if mode == "sum":
        both = Spectrum(
            twin.place, np.append(twin.mz, spectra[3].mz),
            np.append(twin.intensity, spectra[3].intensity),
            twin.stored + spectra[3].stored, twin.outside + spectra[3].outside,
        )  # fmt: skip
        return source, [*spectra[:3], both, *spectra[4:]]
    return source, [*spectra[:3], twin if mode == "first" else spectra[3], *spectra[4:]]


@pytest.mark.parametrize("mode", ["first", "last", "sum", "keep"])
def test_duplicate_pixels_are_compared_as_the_run_took_them(tmp_path, mode):
    acquired, kept = with_duplicate(mode)
    source = write_source(tmp_path / "a.imzML", acquired)
    store = write_store(
        tmp_path / "a.zarr", kept, CENTROID_AXIS, parameters={"duplicates": mode}, acquired=acquired
    )
    assert failures(verify(store, source)) == {}
    other = "last" if mode == "first" else "first"
    said_otherwise = write_store(
        tmp_path / "b.zarr",
        kept,
        CENTROID_AXIS,
        parameters={"duplicates": other},
        acquired=acquired,
    )
    assert not verify(said_otherwise, source).ok


@pytest.mark.parametrize("kind", ["centroid", "profile"])
def test_compressed_sources_are_read(made, tmp_path, kind):
    spectra = sticks() if kind == "centroid" else curves()
    source = write_source(tmp_path / "packed.imzML", spectra, compressed=True)
    assert "MS:1000574" in source.read_text()
    assert failures(verify(made / f"{kind}_csc", source)) == {}


def test_a_damaged_compressed_array_is_found(made, tmp_path):
    source = write_source(tmp_path / "packed.imzML", sticks(), compressed=True)
    ibd = source.with_suffix(".ibd")
    raw = bytearray(ibd.read_bytes())
    raw[5000:5040] = bytes(40)
    ibd.write_bytes(raw)
    text = failures(verify(made / "centroid_csc", source))["source spectra"]
    assert "cannot be inflated" in text


def test_number_formats_are_told_by_their_size(made, tmp_path):
    # Old writers name 64-bit m/z "32-bit float"; pyimzML would read twice the points.
    source = write_source(tmp_path / "a.imzML", sticks())
    text = source.read_text()
    assert 'name="64-bit float"' in text
    source.write_text(
        text.replace('"MS:1000523" name="64-bit float"', '"MS:1000521" name="32-bit float"')
    )
    assert source.read_text() != text
    assert failures(verify(made / "centroid_csc", source)) == {}


def test_a_gzipped_source_is_read(made, tmp_path):
    source = write_source(tmp_path / "a.imzML", sticks())
    packed = tmp_path / "a.imzML.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    source.unlink()
    assert failures(verify(made / "centroid_csc", packed)) == {}


def test_a_truncated_binary_file_is_found(made, tmp_path):
    source = write_source(tmp_path / "a.imzML", sticks())
    ibd = source.with_suffix(".ibd")
    ibd.write_bytes(ibd.read_bytes()[:-100])
    text = failures(verify(made / "centroid_csc", source))["source spectra"]
    assert "is the .ibd file truncated?" in text


def test_the_binary_file_is_found_by_case_or_by_name(made, tmp_path):
    source = write_source(tmp_path / "a.imzML", sticks())
    ibd = source.with_suffix(".ibd").rename(tmp_path / "A.IBD")
    assert verify(made / "centroid_csc", source).ok
    ibd.rename(tmp_path / "other.ibd")
    with pytest.raises(SourceMissingError, match=r"a\.ibd does not exist; name the .ibd"):
        verify(made / "centroid_csc", source)
    assert verify(made / "centroid_csc", source, tmp_path / "other.ibd").ok
    with pytest.raises(SourceMissingError, match=r"none\.ibd does not exist; name the .ibd"):
        verify(made / "centroid_csc", source, tmp_path / "none.ibd")


def test_sources_that_cannot_be_read_are_refused(made, tmp_path):
    with pytest.raises(SourceMissingError, match=r"gone\.imzML does not exist; check the path"):
        verify(made / "centroid_csc", tmp_path / "gone.imzML")
    with pytest.raises(SourceError, match=r"a\.mzML is neither imzML, a Bruker \.d folder nor"):
        verify(made / "centroid_csc", tmp_path / "a.mzML")
    broken = tmp_path / "broken.imzML"
    broken.write_text("<mzML>")
    broken.with_suffix(".ibd").write_bytes(b"")
    with pytest.raises(SourceError, match=r"broken\.imzML cannot be read by pyimzML"):
        verify(made / "centroid_csc", broken)


def test_paths_that_are_no_store_are_errors(tmp_path):
    with pytest.raises(StoreError, match=r"gone\.zarr does not exist; check the path"):
        verify(tmp_path / "gone.zarr")
    with pytest.raises(StoreError, match=r"is not a finished store: it has no zarr\.json"):
        verify(tmp_path)
    file = tmp_path / "a.txt"
    file.write_text("no store")
    with pytest.raises(StoreError, match=r"a\.txt is not a finished store"):
        verify(file)
    (tmp_path / "zarr.json").write_text("no json")
    with pytest.raises(StoreError, match=r"zarr\.json cannot be read as JSON"):
        verify(tmp_path)
    (tmp_path / "zarr.json").write_text("[]")
    with pytest.raises(StoreError, match=r"zarr\.json holds list, expected a JSON object"):
        verify(tmp_path)


def test_a_zarr_group_without_tables_is_an_error(tmp_path):
    zarr.create_group(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="is not a SpatialData store with tables"):
        verify(tmp_path / "a.zarr")
    (tmp_path / "a.zarr" / "tables").mkdir()
    with pytest.raises(StoreError, match="has no tables"):
        verify(tmp_path / "a.zarr")


@given(
    seed=st.integers(0, 2**32 - 1), step=st.floats(0.005, 0.5), n_points=st.integers(8, 60),
    shift=st.integers(2, 6),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_any_pchip_of_the_counts_is_within_bounds_and_a_moved_one_is_not(
    seed, step, n_points, shift
):
    rng = np.random.default_rng(seed)
    mz = 500 + np.cumsum(rng.uniform(0.9, 1.1, n_points)) * 0.1
    counts = rng.integers(1, 1000, n_points).astype(float)
    edges = np.concatenate([[mz[0] - 0.05], 0.5 * (mz[1:] + mz[:-1]), [mz[-1] + 0.05]])
    axis = np.arange(500.0, mz[-1] + 1, step)
    cumulative = PchipInterpolator(edges, np.append(0, np.cumsum(counts)))
    stored = np.diff(cumulative(np.clip(axis, edges[0], edges[-1])))
    places = np.flatnonzero(stored > 1e-9).astype(np.int32)
    spectrum, bins = Points(mz, counts), Bins(0.5 * (axis[1:] + axis[:-1]), axis)
    values = stored[places].astype(np.float32).astype(float)
    assert misplaced(spectrum, bins, places, values, exact=False) < 1e-6
    total, moment, allowed = moments(spectrum, bins, exact=False)
    assert total == pytest.approx(counts.sum())
    mean = (values @ bins.centres[places]) / values.sum()
    # A bin's centre stands for all it holds: on coarse bins half a bin is all there is.
    assert abs(mean - moment / total) <= allowed / total
    moved = Bins(bins.centres + shift * max(step, 0.11), axis + shift * max(step, 0.11))
    assert misplaced(spectrum, moved, places, values, exact=False) > 1e-6


@given(seed=st.integers(0, 2**32 - 1), n_points=st.integers(1, 40), shift=st.integers(1, 5))
@settings(max_examples=80, deadline=None)
def test_points_in_the_nearest_bin_are_within_bounds_and_one_bin_off_is_not(seed, n_points, shift):
    rng = np.random.default_rng(seed)
    bins = Bins(CENTROID_AXIS.centres, CENTROID_AXIS.edges)
    mz = np.sort(rng.uniform(201, 299, n_points))
    counts = rng.integers(1, 100, n_points).astype(float)
    stored = np.zeros(len(bins.centres))
    np.add.at(stored, [np.abs(bins.centres - m).argmin() for m in mz], counts)
    places = np.flatnonzero(stored).astype(np.int32)
    spectrum = Points(mz, counts)
    assert misplaced(spectrum, bins, places, stored[places], exact=True) < 1e-12
    off = (places + shift).astype(np.int32)
    assert misplaced(spectrum, bins, off, stored[places], exact=True) > 1e-3
    total, moment, allowed = moments(spectrum, bins, exact=True)
    mean = (stored @ bins.centres) / stored.sum()
    assert abs(mean - moment / total) <= allowed / total
    assert allowed / total == pytest.approx(0.025, rel=1e-3)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "n_spectra", "total"),
    [
        # Sums of intensities as the converter of the data stated them.
        ("bladder_PXD001283/processed_zlib_f8_f4", 9_100, 234_486_753.30),
        ("bladder_PXD001283/pyimzml_continuous", 1_500, 41_904_410.01),
    ],
)
def test_sums_of_real_data_are_those_stated_for_them(name, n_spectra, total):
    folder = Path(__file__).parents[2].parent / "shared/data/imzml"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder.name}")
    path, *_ = sorted((folder / name).parent.rglob(f"*{Path(name).name}*.imzML"))
    with Oracle(path) as oracle:
        assert len(oracle.n_points) == n_spectra
        sums = [oracle.spectrum(index)[1].sum() for index in range(n_spectra)]
    assert sum(sums) == pytest.approx(total, rel=1e-9)


DAMAGE = ("delete", "empty", "cut", "flip")


@pytest.mark.parametrize("seed", range(24))
def test_any_damaged_file_is_an_answer_unless_it_is_the_root(made, copied, seed):
    rng = np.random.default_rng(seed)
    store = copied(("centroid_csc", "centroid_csr", "sharded_csc", "profile_csc")[seed % 4])
    files = sorted(file for file in store.rglob("*") if file.is_file())
    file = files[rng.integers(len(files))]
    raw = bytearray(file.read_bytes())
    how = DAMAGE[seed // 4 % 4]
    if how == "delete":
        file.unlink()
    else:
        for place in rng.integers(0, len(raw), 8):
            raw[place] ^= 1 << int(rng.integers(8))
        file.write_bytes({"empty": b"", "cut": raw[: len(raw) // 2], "flip": raw}[how])
    expected = pytest.raises(StoreError, match=re.escape(str(store)))
    with expected if file == store / "zarr.json" and how != "flip" else nullcontext():
        assert verify(store, source_of(made)).to_json()["checks"]
