"""imzML to mzPeak and back, by the functions of the package and by plain pyarrow."""

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import gpuconvert
from gpuconvert import exporting, mzpeak_members
from gpuconvert.errors import BudgetError, OutputError, SettingsError, SourceError
from gpuconvert.readers import open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.e2e.data import (
    matrix_bytes,
    pixels,
    profile_spectra,
    read_table,
    write_centroid,
    write_profile,
)
from tests.imzml_writer import write_imzml

LAYOUTS = pytest.mark.parametrize("layout", ["point", "chunk"])
DIALECTS = pytest.mark.parametrize("dialect", ["split", "packed"])


def full_profiles(places, seed=0, n=3000):
    """Profiles with all their zeros, some spectra empty, all zero, or of one point."""
    rng = np.random.default_rng(seed)
    u = np.linspace(np.sqrt(40.0), np.sqrt(300.0), n)
    spectra = []
    for number, (x, y) in enumerate(places):
        counts = np.zeros(n)
        for centre in rng.choice(np.arange(10, n - 10), 9, replace=False):
            counts[centre - 4 : centre + 5] += rng.poisson(40, 9)
        counts[rng.choice(n, 5)] = 1
        mz = u**2 + rng.uniform(-1e-4, 1e-4, n)
        keep = {3: slice(0, 0), 5: slice(7, 8)}.get(number, slice(None))
        spectra.append((x, y, mz[keep], (counts * (number != 4))[keep]))
    return spectra


def members(path):
    """Every member of an archive by name."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def read_all(path):
    """Every spectrum of an archive, by our reader."""
    reader = open_reader(path, Settings())
    try:
        rows = reader.acquisition.n_spectra
        return decode(reader.read(0, rows, np.empty(reader.batch_bytes(0, rows), np.uint8)))
    finally:
        reader.close()


def points_of(path, name="spectra_data.parquet"):
    """Spectrum index, m/z (NaN where null) and intensity (0 where null), by pyarrow alone."""
    table = pq.read_table(io.BytesIO(members(path)[name]))
    rows = pa.concat_arrays(table["point"].chunks)
    mz, intensity = (rows.field(word) for word in ("mz", "intensity"))
    assert mz.is_null().equals(intensity.is_null())
    return (
        rows.field("spectrum_index").to_numpy().astype(int), mz.to_numpy(zero_copy_only=False),
        intensity.fill_null(0).to_numpy(),
    )  # fmt: skip


@DIALECTS
@LAYOUTS
@pytest.mark.parametrize(
    "types", [("f8", "f4"), ("f4", "f4"), ("f8", "f8"), ("f4", "i4"), ("f8", "i2")]
)
def test_a_lossless_archive_gives_the_same_matrix(tmp_path, types, layout, dialect):
    source = write_imzml(
        tmp_path, full_profiles(pixels()), representation="profile", mz_dtype=types[0],
        intensity_dtype=types[1],
    )  # fmt: skip
    archive = tmp_path / "lossless.mzpeak"
    done = gpuconvert.export(source, archive, lossless=True, mzpeak_layout=layout, dialect=dialect)
    assert done.points_stored == done.points_read
    options = {"backend": "cpu", "workers": 1}
    gpuconvert.convert(source, tmp_path / "direct.zarr", **options)
    gpuconvert.convert(archive, tmp_path / "around.zarr", **options)
    assert matrix_bytes(tmp_path / "around.zarr") == matrix_bytes(tmp_path / "direct.zarr")
    direct, around = (read_table(tmp_path / f"{name}.zarr") for name in ("direct", "around"))
    assert (around.mz == direct.mz).all()
    for name, column in direct.obs.items():
        assert (around.obs[name] == column).all(), name


def continuous(folder, **options):
    """A continuous imzML of profiles with zeros."""
    spectra = [(x, y, np.linspace(100, 200, 500), counts[:500])
               for x, y, _, counts in full_profiles(pixels()) if len(counts) >= 500]  # fmt: skip
    return write_imzml(folder, spectra, representation="profile", mode="continuous", **options)


@DIALECTS
@LAYOUTS
@pytest.mark.parametrize("types", [("f4", "f4"), ("f8", "f4"), ("f4", "f8")])
def test_a_lossless_archive_of_a_common_axis_keeps_it(tmp_path, types, layout, dialect):
    source = continuous(tmp_path, mz_dtype=types[0], intensity_dtype=types[1])
    archive = tmp_path / "shared.mzpeak"
    gpuconvert.export(source, archive, lossless=True, mzpeak_layout=layout, dialect=dialect)
    gpuconvert.convert(source, tmp_path / "direct.zarr", workers=1)
    gpuconvert.convert(archive, tmp_path / "around.zarr", workers=1)
    assert matrix_bytes(tmp_path / "around.zarr") == matrix_bytes(tmp_path / "direct.zarr")
    direct, around = (read_table(tmp_path / f"{name}.zarr") for name in ("direct", "around"))
    assert (around.mz == direct.mz).all()
    assert gpuconvert.verify(tmp_path / "around.zarr", archive).ok


def test_centroids_on_a_common_axis_keep_it(tmp_path):
    rng = np.random.default_rng(3)
    mz = np.sort(rng.uniform(100, 900, 50))
    spectra = [(x, y, mz, rng.gamma(2, 100, 50)) for x, y in pixels()]
    source = write_imzml(tmp_path, spectra, mode="continuous")
    gpuconvert.export(source, tmp_path / "peaks.mzpeak")
    for name, path in (("direct", source), ("around", tmp_path / "peaks.mzpeak")):
        gpuconvert.convert(path, tmp_path / f"{name}.zarr", workers=1)
    assert matrix_bytes(tmp_path / "around.zarr") == matrix_bytes(tmp_path / "direct.zarr")
    assert (read_table(tmp_path / "around.zarr").mz == mz).all()


def test_a_stripped_archive_of_a_common_axis_finds_it_again(tmp_path):
    source = continuous(tmp_path)
    archive = tmp_path / "stripped.mzpeak"
    done = gpuconvert.export(source, archive)
    assert done.points_marked == 0
    assert done.points_stored < done.points_read
    gpuconvert.convert(source, tmp_path / "direct.zarr")
    gpuconvert.convert(archive, tmp_path / "around.zarr", axis="source")
    direct, around = (read_table(tmp_path / f"{name}.zarr") for name in ("direct", "around"))
    known = np.isin(direct.mz, around.mz)
    assert (direct.mz[known] == around.mz).all()
    assert abs(direct.x[:, known] - around.x).max() == 0
    assert direct.x[:, ~known].nnz == 0


def test_a_common_axis_that_is_none_is_refused(tmp_path):
    source = continuous(tmp_path)
    archive = tmp_path / "shared.mzpeak"
    gpuconvert.export(source, archive, lossless=True)
    other = write_imzml(
        tmp_path, [(1, 1, np.linspace(100, 200, 500), np.ones(500)),
                   (2, 1, np.linspace(101, 200, 500), np.ones(500))],
        representation="profile", name="other",
    )  # fmt: skip
    wrong = tmp_path / "wrong.mzpeak"
    gpuconvert.export(other, wrong, lossless=True)
    files = members(wrong)
    index = json.loads(files["mzpeak_index.json"])
    assert "gpuconvert" not in index["metadata"]
    said = json.loads(members(archive)["mzpeak_index.json"])["metadata"]["gpuconvert"]
    index["metadata"]["gpuconvert"] = said
    files["mzpeak_index.json"] = json.dumps(index).encode()
    with zipfile.ZipFile(wrong, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    with pytest.raises(SourceError, match="said to have one m/z axis, but 1 of a batch of"):
        gpuconvert.convert(wrong, tmp_path / "out.zarr")


@DIALECTS
@LAYOUTS
@pytest.mark.parametrize("mz_dtype", ["f4", "f8"])
def test_points_that_count_come_back_unchanged(tmp_path, mz_dtype, layout, dialect):
    spectra = [(x, y, mz.astype(mz_dtype).astype("f8"), counts)
               for x, y, mz, counts in full_profiles(pixels())]  # fmt: skip
    source = write_imzml(tmp_path, spectra, representation="profile", mz_dtype=mz_dtype)
    archive = tmp_path / "small.mzpeak"
    done = gpuconvert.export(source, archive, mzpeak_layout=layout, dialect=dialect)
    assert done.points_marked > 100
    assert done.points_stored < done.points_read / 5
    assert 0 < done.mz_error < 0.01
    found = read_all(archive)
    for k, (_, _, mz, counts) in enumerate(spectra):
        own = slice(*found.indptr[k : k + 2])
        filled = counts > 0
        loud = found.intensity[own] > 0
        assert found.mz[own][loud].tobytes() == mz[filled].tobytes()
        assert (found.intensity[own][loud] == counts[filled]).all()
        # Every zero that came back lies where a zero of the source was, as near as stated.
        quiet = found.mz[own][~loud]
        zeros = mz[~filled]
        if len(quiet):
            at = np.clip(np.searchsorted(zeros, quiet), 1, len(zeros) - 1)
            off = np.minimum(abs(quiet - zeros[at]), abs(quiet - zeros[at - 1]))
            assert off.max() <= done.mz_error * (1 + 1e-12)


def test_a_stripped_archive_gives_the_counts_of_its_source(tmp_path):
    """On one axis: the same TIC, and every count moved by less than the stated error allows."""
    source = write_imzml(tmp_path, full_profiles(pixels()), representation="profile")
    archive = tmp_path / "small.mzpeak"
    done = gpuconvert.export(source, archive)
    options = {"axis": "linear-tof", "bins": 2000, "mz_range": (40, 300)}
    for name, path in (("direct", source), ("around", archive)):
        gpuconvert.convert(path, tmp_path / f"{name}.zarr", **options)
    direct, around = (read_table(tmp_path / f"{name}.zarr") for name in ("direct", "around"))
    np.testing.assert_allclose(around.obs["tic"], direct.obs["tic"], rtol=1e-6)
    assert (around.obs["source_tic"] == direct.obs["source_tic"]).all()
    # A cell edge between a peak and its zero lies half-way, so moves by half of the error at
    # most; a count moves by the share of a cell that this is.
    cell = np.diff(np.linspace(np.sqrt(40), np.sqrt(300), 3000) ** 2).min()
    moved = abs(around.x - direct.x).sum() / direct.x.sum()
    assert moved < done.mz_error / cell


@pytest.mark.parametrize("mode", ["processed", "continuous"])
def test_an_archive_is_what_the_format_asks_for(tmp_path, mode):
    spectra = profile_spectra(pixels())
    if mode == "continuous":
        spectra = [(x, y, np.linspace(100, 200, 300), counts[:300]) for x, y, _, counts in
                   full_profiles(pixels()) if len(counts) >= 300]  # fmt: skip
    source = write_imzml(tmp_path, spectra, representation="profile", mode=mode, polarity=-1)
    archive = tmp_path / "whole.mzpeak"
    gpuconvert.export(source, archive)
    with zipfile.ZipFile(archive) as opened:
        assert all(item.compress_type == zipfile.ZIP_STORED for item in opened.infolist())
        assert opened.testzip() is None
    files = members(archive)
    index = json.loads(files["mzpeak_index.json"])
    assert {entry["name"] for entry in index["files"]} | {"mzpeak_index.json"} == set(files)
    for entry in index["files"]:
        assert entry["checksum"] == hashlib.sha512(files[entry["name"]]).hexdigest()
    data = pq.ParquetFile(io.BytesIO(files["spectra_data.parquet"]))
    group = data.metadata.row_group(0)
    columns = {group.column(k).path_in_schema: group.column(k) for k in range(group.num_columns)}
    assert all(column.has_column_index and column.has_offset_index for column in columns.values())
    assert all(column.compression == "ZSTD" for column in columns.values())
    assert "DELTA_BINARY_PACKED" in columns["point.spectrum_index"].encodings
    assert "BYTE_STREAM_SPLIT" in columns["point.intensity"].encodings
    expected = "BYTE_STREAM_SPLIT" if mode == "processed" else "RLE_DICTIONARY"
    assert expected in columns["point.mz"].encodings
    scans = pq.read_table(io.BytesIO(files["spectra_metadata_scans.parquet"])).to_pylist()
    assert sorted((row["position_x"], row["position_y"]) for row in scans) == sorted(
        (x, y) for x, y, *_ in spectra
    )
    rows = pq.read_table(io.BytesIO(files["spectra_metadata.parquet"])).to_pylist()
    assert [row["index"] for row in rows] == list(range(len(spectra)))
    assert {row["scan_polarity"] for row in rows} == {-1}
    block = index["metadata"]["imaging"]
    assert block["is_imaging"] is True
    assert block["pixel_count"] == {"x": 5, "y": 3}


def test_spectra_stay_whole_within_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(mzpeak_members, "GROUP_POINTS", 500)
    monkeypatch.setattr(exporting, "SLOT_BYTES", 4096)
    source = write_profile(tmp_path, places=pixels(9, 7))
    archive = tmp_path / "groups.mzpeak"
    done = gpuconvert.export(source, archive)
    data = pq.ParquetFile(io.BytesIO(members(archive)["spectra_data.parquet"]))
    assert data.metadata.num_row_groups > 5
    seen = set()
    for k in range(data.metadata.num_row_groups):
        rows = pa.concat_arrays(data.read_row_group(k)["point"].chunks)
        own = set(rows.field("spectrum_index").to_pylist())
        assert not own & seen
        seen |= own
    assert data.metadata.num_rows == done.points_stored
    for name, path in (("direct", source), ("around", archive)):
        gpuconvert.convert(path, tmp_path / f"{name}.zarr", axis="linear-tof", bins=999,
                           mz_range=(100, 400))  # fmt: skip
    direct, around = (read_table(tmp_path / f"{name}.zarr") for name in ("direct", "around"))
    np.testing.assert_allclose(around.obs["tic"], direct.obs["tic"], rtol=1e-6)


def test_centroids_go_to_the_peaks_as_they_are(tmp_path):
    source = write_centroid(tmp_path)
    archive = tmp_path / "peaks.mzpeak"
    done = gpuconvert.export(source, archive)
    assert (done.n_profile, done.n_centroid, done.points_marked) == (0, 13, 0)
    assert done.points_stored == done.points_read
    index, mz, intensity = points_of(archive, "spectra_peaks.parquet")
    assert len(points_of(archive)[0]) == 0
    gpuconvert.convert(source, tmp_path / "direct.zarr", workers=1)
    gpuconvert.convert(archive, tmp_path / "around.zarr", workers=1)
    assert matrix_bytes(tmp_path / "around.zarr") == matrix_bytes(tmp_path / "direct.zarr")
    assert np.isfinite(mz).all()
    assert (intensity > 0).all()
    assert len(np.unique(index)) == 13


@LAYOUTS
def test_resampled_spectra_are_those_of_the_store(tmp_path, layout):
    source = write_profile(tmp_path)
    archive = tmp_path / "resampled.mzpeak"
    done = gpuconvert.export(source, archive, resampled=True, mzpeak_layout=layout)
    gpuconvert.convert(source, tmp_path / "direct.zarr")
    table = read_table(tmp_path / "direct.zarr")
    assert done.points_stored == table.x.nnz
    gpuconvert.convert(archive, tmp_path / "around.zarr", axis="source", method="nearest")
    around = read_table(tmp_path / "around.zarr")
    columns = np.flatnonzero(table.x.getnnz(axis=0))
    assert (around.mz == table.mz[columns]).all()
    assert abs(around.x - table.x[:, columns]).max() == 0


@pytest.mark.parametrize("origin", [(1, 1), (4, 7), (0, 0), (-3, 2)])
def test_positions_are_those_of_the_source_where_they_can_be(tmp_path, origin):
    places = [(x + origin[0] - 1, y + origin[1] - 1) for x, y in pixels()]
    source = write_profile(tmp_path, places=places)
    archive = tmp_path / "places.mzpeak"
    gpuconvert.export(source, archive)
    files = members(archive)
    scans = pq.read_table(io.BytesIO(files["spectra_metadata_scans.parquet"])).to_pylist()
    shift = [max(0, 1 - min(column)) for column in zip(*places)]
    assert sorted((row["position_x"], row["position_y"]) for row in scans) == sorted(
        (x + shift[0], y + shift[1]) for x, y in places
    )


def test_the_same_source_gives_the_same_bytes(tmp_path):
    source = write_profile(tmp_path)
    for name in ("first", "second"):
        gpuconvert.export(source, tmp_path / f"{name}.mzpeak")
    assert (tmp_path / "first.mzpeak").read_bytes() == (tmp_path / "second.mzpeak").read_bytes()


def test_an_archive_is_replaced_only_when_asked_to(tmp_path):
    source = write_profile(tmp_path)
    archive = tmp_path / "again.mzpeak"
    gpuconvert.export(source, archive)
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        gpuconvert.export(source, archive)
    gpuconvert.export(source, archive, overwrite=True, lossless=True)
    archive.write_text("mine")
    with pytest.raises(OutputError, match="is not an mzPeak archive and is not replaced"):
        gpuconvert.export(source, archive, overwrite=True)
    assert archive.read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"duplicates": "sum"}, SettingsError, "--duplicates sum adds up resampled spectra"),
        ({"lossless": True, "resampled": True}, SettingsError, "give one"),
        ({"axis": "tof"}, SettingsError, "--axis has no meaning for the spectra of the source"),
        ({"mz_range": (1, 2)}, SettingsError, "--mz-range has no meaning .* add --resampled"),
        ({"memory": "200MB"}, BudgetError, "is too little: 13 spectra, the largest of"),
        ({"mzpeak_layout": "list"}, SettingsError, "unknown --mzpeak-layout 'list'"),
        ({"dialect": "D4"}, SettingsError, "unknown --dialect 'D4'; available: split, packed"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_and_leaves_nothing(tmp_path, options, error, words):
    source = write_profile(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=words):
        gpuconvert.export(source, tmp_path / "out.mzpeak", **options)
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_is_not_written_under_the_name_of_an_mzpeak(tmp_path):
    source = write_profile(tmp_path)
    with pytest.raises(SettingsError, match="say --to spatialdata"):
        gpuconvert.convert(source, tmp_path / "out.mzpeak")
    with pytest.raises(SettingsError, match="--lossless has no meaning for a store"):
        gpuconvert.convert(source, tmp_path / "out.zarr", lossless=True)
    gpuconvert.convert(source, tmp_path / "out.mzpeak", to="spatialdata")
    assert (tmp_path / "out.mzpeak" / "zarr.json").is_file()


def test_disordered_spectra_are_refused_or_mended(tmp_path):
    spectra = profile_spectra(pixels())
    x, y, mz, counts = spectra[4]
    mz = mz.copy()
    mz[[10, 11]] = mz[[11, 10]]
    spectra[4] = (x, y, mz, counts)
    source = write_imzml(tmp_path, spectra, representation="profile")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SourceError, match=r"spectrum 4 \(x=1, y=2\): m/z decreases"):
        gpuconvert.export(source, tmp_path / "out.mzpeak")
    assert sorted(tmp_path.iterdir()) == before
    done = gpuconvert.export(source, tmp_path / "out.mzpeak", repair=True)
    assert (done.dropped, done.sorted) == (0, 1)
    index, stored, _ = points_of(tmp_path / "out.mzpeak")
    assert (np.diff(stored[index == 4][~np.isnan(stored[index == 4])]) > 0).all()


def test_negative_counts_are_values_like_others(tmp_path):
    mz, counts = np.linspace(100, 101, 40), np.zeros(40)
    counts[[5, 6, 20]] = [-2.5, 3, 4]
    source = write_imzml(tmp_path, [(1, 1, mz, counts)], representation="profile")
    gpuconvert.export(source, tmp_path / "out.mzpeak")
    _, _, intensity = points_of(tmp_path / "out.mzpeak")
    assert intensity[intensity != 0].tolist() == [-2.5, 3, 4]


def schema_registry(folder):
    """The format's JSON schemas under the addresses by which they name each other."""
    from referencing import Registry, Resource

    base = "https://raw.githubusercontent.com/HUPO-PSI/mzPeak-specification/refs/heads/main/schema/"
    registry = Registry()
    for file in folder.glob("*.json"):
        contents = json.loads(file.read_text())
        if str(contents.get("$schema", "")).startswith("http://json-schema.org"):
            resource = Resource.from_contents(contents)
            registry = registry.with_resource(base + file.name, resource)
    return registry


@pytest.mark.real_data
@DIALECTS
@LAYOUTS
@pytest.mark.parametrize("write", [write_profile, write_centroid])
def test_archives_pass_the_schemas_of_the_format(tmp_path, shared_data, write, dialect, layout):
    jsonschema = pytest.importorskip("jsonschema")
    folder = shared_data / "mzpeak" / "json_schema"
    registry = schema_registry(folder)
    archive = tmp_path / "valid.mzpeak"
    source = write(tmp_path, instrument_terms=[("MS:1000484", "orbitrap", "")])
    gpuconvert.export(source, archive, mzpeak_layout=layout, dialect=dialect)

    def check(value, name):
        schema = json.loads((folder / name).read_text())
        # A named group in the ECMA spelling, which Python does not know.
        text = json.dumps(schema).replace("(?<", "(?P<")
        jsonschema.Draft7Validator(json.loads(text), registry=registry).validate(value)

    files = members(archive)
    index = json.loads(files["mzpeak_index.json"])
    check(index, "mzpeak_index.json")
    footers = {
        "file_description": "file_description.json", "run": "ms_run.json",
        "instrument_configuration_list": "instrument_configuration.json",
        "data_processing_method_list": "data_processing.json",
        "software_list": "software.json", "sample_list": "sample.json",
        "scan_settings_list": "scan_settings_list.json",
    }  # fmt: skip
    footer = pq.ParquetFile(io.BytesIO(files["spectra_metadata.parquet"])).metadata.metadata
    for key, name in footers.items():
        check(json.loads(footer[key.encode()]), name)
        check(index["metadata"][key], name)
    check(index["metadata"]["cv_list"], "cv_list.json")
    signal = "spectra_peaks.parquet" if write is write_centroid else "spectra_data.parquet"
    footer = pq.ParquetFile(io.BytesIO(files[signal])).metadata.metadata
    check(json.loads(footer[b"spectrum_array_index"]), "array_index.json")
    with pytest.raises(jsonschema.ValidationError):
        check({"files": []}, "mzpeak_index.json")


@pytest.mark.real_data
def test_another_writer_makes_the_same_store_of_the_same_example(tmp_path, shared_data):
    """The example of ms-imaging.org by another converter: our store but for stripped zeros."""
    folder = shared_data / "imzml" / "alexandrovteam__pyimzML"
    sources = {
        "theirs": shared_data / "mzpeak" / "imaging" / "imaging.mzpeak",
        "shared": folder / "Example_Continuous.imzML",
        "own": folder / "Example_Processed.imzML",
    }
    for name, path in sources.items():
        gpuconvert.convert(path, tmp_path / f"{name}.zarr", axis="source", pixel_size=100)
    tables = {name: read_table(tmp_path / f"{name}.zarr") for name in sources}
    for name in ("shared", "own"):
        expected, found = tables[name], tables["theirs"]
        known = np.isin(expected.mz, found.mz)
        assert known.sum() == len(found.mz)
        assert expected.x[:, ~known].nnz == 0
        assert abs(expected.x[:, known] - found.x).max() == 0
        for column in ("x", "y", "tic", "outside_tic"):
            assert (expected.obs[column] == found.obs[column]).all(), column


@pytest.mark.real_data
def test_the_same_example_has_the_same_counts_on_an_axis_that_follows_a_law(tmp_path, shared_data):
    theirs = shared_data / "mzpeak" / "imaging" / "imaging.mzpeak"
    ours = shared_data / "imzml" / "alexandrovteam__pyimzML" / "Example_Processed.imzML"
    tables = []
    for number, path in enumerate((theirs, ours)):
        gpuconvert.convert(path, tmp_path / f"{number}.zarr", pixel_size=100)
        tables.append(read_table(tmp_path / f"{number}.zarr"))
    found, expected = tables
    # Stripped zeros lie outside of its axis: it begins and ends elsewhere, by whole bins.
    shift = int(np.argmin(np.abs(expected.mz - found.mz[0])))
    np.testing.assert_allclose(found.mz, expected.mz[shift:][: len(found.mz)], rtol=1e-7)
    np.testing.assert_array_equal(found.x.indices + shift, expected.x.indices)
    np.testing.assert_array_equal(found.x.data, expected.x.data)


@pytest.mark.real_data
def test_the_reference_writer_marks_as_many_zeros(tmp_path, shared_data):
    """Of the same example, a newer sample of the format's own writer has 13,286 nulls."""
    source = shared_data / "imzml" / "alexandrovteam__pyimzML" / "Example_Processed.imzML"
    done = gpuconvert.export(source, tmp_path / "example.mzpeak")
    assert (done.points_stored, done.points_marked) == (36856, 13286)


LAUNCHER = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"
"""A small process in between: one inherits the peak memory of the one that starts it."""


def command(*words):
    """Run the command line; return exit code, stdout and stderr."""
    between = [sys.executable, "-I", "-S", "-c", LAUNCHER]
    ended = subprocess.run(
        [*between, sys.executable, "-m", "gpuconvert", *map(str, words)], capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_line_goes_by_the_suffix_or_is_told(tmp_path):
    source = write_imzml(tmp_path, full_profiles(pixels()), representation="profile")
    code, out, _ = command("run", source, tmp_path / "one.mzpeak")
    assert code == 0
    assert "zeros without their m/z, put back within" in out
    assert "point layout, split dialect" in out
    code, out, _ = command("run", source, tmp_path / "two.bin", "--to", "mzpeak", "--json")
    assert code == 0
    assert json.loads(out)["layout"] == "point"
    assert (tmp_path / "one.mzpeak").read_bytes() == (tmp_path / "two.bin").read_bytes()
    code, out, _ = command("run", tmp_path / "one.mzpeak", tmp_path / "three.mzpeak",
                           "--mzpeak-layout", "chunk", "--lossless")  # fmt: skip
    assert code == 0
    assert "chunk layout, split dialect, lossless" in out
    code, out, _ = command("inspect", tmp_path / "three.mzpeak")
    assert code == 0
    assert "mzPeak" in out


def test_the_command_line_refuses_with_the_codes_of_the_others(tmp_path):
    source = write_profile(tmp_path)
    archive = tmp_path / "out.mzpeak"
    code, _, error = command("plan", source, archive)
    assert code == 2
    assert "is to be an mzPeak, which is written in one go" in error
    code, _, error = command("run", source, archive, "--quality-report", tmp_path / "q.md")
    assert code == 2
    assert "an mzPeak has none" in error
    (tmp_path / "no.mzpeak").write_bytes(b"no")
    code, _, error = command("run", tmp_path / "no.mzpeak", tmp_path / "out.zarr")
    assert code == 3
    assert "is no ZIP archive" in error
    assert not archive.exists()


def test_one_archive_becomes_another_without_loss(tmp_path):
    """From D1 chunks to D4 points and back: every m/z that is stored, and every count."""
    source = write_imzml(tmp_path, full_profiles(pixels()), representation="profile")
    first, second = tmp_path / "first.mzpeak", tmp_path / "second.mzpeak"
    gpuconvert.export(source, first, lossless=True, mzpeak_layout="chunk", dialect="packed")
    gpuconvert.export(first, second, lossless=True)
    one, two = read_all(first), read_all(second)
    assert one.mz.tobytes() == two.mz.tobytes()
    assert one.intensity.tobytes() == two.intensity.tobytes()
    assert one.indptr.tolist() == two.indptr.tolist()


WRITE_LARGE = """
from pathlib import Path
from tests.e2e.data import pixels
from tests.e2e.test_mzpeak import full_profiles
from tests.imzml_writer import write_imzml
spectra = full_profiles(pixels(30, 20, ()), n=10_000)
write_imzml(Path({folder!r}), spectra, representation="profile")
"""
"""Run apart: what other tests start would inherit the memory that this takes."""


@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_archives_are_written_and_read_within_the_memory_that_is_projected(tmp_path, layout):
    root = Path(__file__).parents[2]
    script = WRITE_LARGE.format(folder=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root)
    words = ("--mzpeak-layout", layout, "--memory", "500MB", "--json")
    code, out, error = command("run", tmp_path / "test.imzML", tmp_path / "out.mzpeak", *words)
    assert code == 0, error
    done = json.loads(out)
    assert done["points_read"] > 5_000_000
    assert done["peak_memory"] <= done["projected_memory"] <= 500e6
    code, out, error = command(
        "run", tmp_path / "out.mzpeak", tmp_path / "out.zarr", "--memory", "900MB", "--json",
    )  # fmt: skip
    assert code == 0, error
    done = json.loads(out)
    assert done["peak_memory"] <= done["projected_memory"] <= 900e6


@pytest.mark.real_data
@LAYOUTS
@pytest.mark.parametrize(
    "name",
    ["alexandrovteam__pyimzML/Example_Continuous.imzML", "djdt__pewlib/test.imzML",
     "djdt__pewlib/test_orbi.imzml", "galaxyp__cardinal/123_combined.imzml",
     "galaxyp__maldiquant/outfile3.imzml", "cKNUSPeR__i2nca/pc.imzML"],
)  # fmt: skip
def test_real_files_go_around_without_loss(tmp_path, shared_data, name, layout):
    source, archive = shared_data / "imzml" / name, tmp_path / "around.mzpeak"
    gpuconvert.export(source, archive, lossless=True, mzpeak_layout=layout)
    for path, store in ((source, "direct.zarr"), (archive, "around.zarr")):
        gpuconvert.convert(path, tmp_path / store, workers=1)
    assert matrix_bytes(tmp_path / "around.zarr") == matrix_bytes(tmp_path / "direct.zarr")
