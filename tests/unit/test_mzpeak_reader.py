"""The mzPeak reader on archives written by hand: dialects, encodings, hazards, refusals."""

import json
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers import cut_batches, mzpeak_signal, open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.mzpeak_writer import Archive, Spectrum

CENTROID = "MS:1000127"

DIALECTS = pytest.mark.parametrize("dialect", ["D1", "D2", "D3", "D4"])


@pytest.mark.parametrize("mapping", [True, 7, "ms_level", [{"path": True, "accession": "x"}], [3]])
def test_a_column_mapping_that_is_none_is_passed_over(tmp_path, mapping):
    """Plain names are enough to find the columns. Found by damaged indices."""
    spectra, expected = example()
    archive = Archive.of(spectra)
    for entry in archive.index["files"]:
        entry["column_mapping"] = mapping
    check(read(archive.write(tmp_path))[0], expected)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("path", "has no column for the m/z"),
        ("transform", r"has the transform \[1\], which is not"),
    ],
)
def test_an_array_index_of_other_types_is_refused(tmp_path, key, words):
    archive = Archive.of(example()[0])
    footer = archive.footers["spectra_data.parquet"]
    arrays = json.loads(footer["spectrum_array_index"])
    for entry in arrays["entries"]:
        entry[key] = [1]
    footer["spectrum_array_index"] = json.dumps(arrays)
    with pytest.raises(SourceError, match=words):
        read(archive.write(tmp_path))


@pytest.mark.parametrize("layout", ["point", "chunk"])
@pytest.mark.parametrize("encoding", ["delta", "none"])
def test_values_of_float32_in_wider_columns_count_as_float32(tmp_path, layout, encoding):
    """Old writers put the float32 m/z of their sources into float64 columns."""
    rng = np.random.default_rng(4)
    narrow = [np.sort(rng.uniform(50, 900, 30)).astype(np.float32).astype(float) for _ in range(3)]
    for last, single in ((narrow[2], True), (narrow[2] + 1e-9, False)):
        mz = [*narrow[:2], last]
        spectra = [Spectrum(m.tolist(), [1] * 30, [(k + 1, 1)]) for k, m in enumerate(mz)]
        archive = Archive.of(spectra, layout=layout, encoding=encoding)
        found, acquisition, _ = read(archive.write(tmp_path, f"{single}"))
        (stored,) = acquisition.encodings
        assert (stored.mz_dtype, stored.mz_eps) == ("<f8", 2.0**-23 if single else 0)
        for k, m in enumerate(mz):
            np.testing.assert_allclose(found[k + 1, 1][0][0], m, rtol=1e-15)


def marked_profile(seed, n=6):
    """A profile with marked pairs, and the truth: its m/z and its counts."""
    rng = np.random.default_rng(seed)
    mz, counts, truth = [], [], []
    at = 100.0
    for stretch in range(n):
        length = int(rng.integers(1, 6))
        real = [round(at + 0.25 * k, 2) for k in range(length)]
        mz += [None] * (2 * (stretch > 0)) + real
        counts += [0] * (2 * (stretch > 0)) + [int(v) for v in rng.integers(1, 100, length)]
        if stretch:
            truth += [truth[-1] + 0.25, real[0] - 0.25]
        truth += real
        at = real[-1] + float(rng.choice([2, 17, 60]))
    return mz, counts, truth


def example(n=6):
    """Spectra on a sparse 3 x 3 grid, not in the order of their pixels, and what is expected."""
    places = [(3, 1), (1, 2), (2, 2), (1, 1), (3, 3), (2, 3)][:n]
    spectra, expected = [], {}
    for k, place in enumerate(places):
        mz, counts, truth = marked_profile(k) if k != 2 else ([], [], [])
        model = [0.25, 0.0, 0.0]
        spectra.append(Spectrum(mz, counts, [place], model=model, polarity=1 - 2 * (k % 2)))
        expected[place] = (truth, counts)
    return spectra, expected


def read(path, slot=1 << 16, **options):
    """Spectra by position, and the acquisition."""
    reader = open_reader(path, Settings(**options))
    try:
        acquisition = reader.acquisition
        found = {}
        for first, last in cut_batches(reader, 0, acquisition.n_spectra, slot):
            buffer = np.full(reader.batch_bytes(first, last), 255, np.uint8)
            batch = reader.read(first, last, buffer)
            spectra = decode(batch)
            assert batch.rows.tolist() == list(range(first, last))
            for k, row in enumerate(batch.rows):
                own = slice(*spectra.indptr[k : k + 2])
                x, y = (int(c[row]) + o for c, o in zip((acquisition.x, acquisition.y),
                                                        acquisition.origin))  # fmt: skip
                found.setdefault((x, y), []).append((spectra.mz[own], spectra.intensity[own]))
        return found, acquisition, reader.mz_extent()
    finally:
        reader.close()


def check(found, expected, tolerance=1e-12):
    assert set(found) == set(expected)
    for place, (mz, counts) in expected.items():
        ((got_mz, got_counts),) = found[place]
        np.testing.assert_allclose(got_mz, mz, rtol=tolerance, err_msg=str(place))
        np.testing.assert_allclose(got_counts, counts, rtol=1e-6)


@DIALECTS
@pytest.mark.parametrize("layout", ["point", "chunk"])
@pytest.mark.parametrize("unpacked", [False, True])
def test_every_dialect_says_the_same(tmp_path, dialect, layout, unpacked):
    spectra, expected = example()
    path = Archive.of(spectra, dialect=dialect, layout=layout).write(tmp_path, unpacked=unpacked)
    found, acquisition, extent = read(path)
    check(found, expected)
    assert acquisition.order.tolist() == [3, 0, 1, 2, 5, 4]
    assert acquisition.polarity.tolist() == [-1, 1, -1, 1, -1, 1]
    assert acquisition.pixel_size == (10.0, 10.0)
    assert acquisition.representation == "profile"
    assert acquisition.origin == (1, 1, 1)
    assert acquisition.metadata["dialect"] == ("packed" if dialect == "D1" else "split")
    real = [value for spectrum in spectra for value in spectrum.mz if value is not None]
    assert extent == (min(real), max(real))


@pytest.mark.parametrize(
    "types", [("f8", "f4"), ("f4", "f8"), ("f4", "f4"), ("f8", "i4"), ("f4", "i8")]
)
@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_number_formats_are_kept(tmp_path, types, layout):
    spectra, expected = example()
    found, acquisition, _ = read(Archive.of(spectra, types=types, layout=layout).write(tmp_path))
    (encoding,) = acquisition.encodings
    assert (encoding.mz_dtype, encoding.intensity_dtype) == (f"<{types[0]}", f"<{types[1]}")
    check(found, expected, 1e-6 if types[0] == "f4" else 1e-12)


def without_nulls(spectra):
    for one in spectra:
        kept = [k for k, value in enumerate(one.mz) if value is not None]
        one.mz, one.intensity = ([values[k] for k in kept] for values in (one.mz, one.intensity))
    return {one.scans[0]: (one.mz, one.intensity) for one in spectra}


@pytest.mark.parametrize("packing", ["plain", "slof", "pic"])
@pytest.mark.parametrize("encoding", ["none", "delta", "numpress", "linear", "sqrt"])
def test_every_encoding_is_decoded(tmp_path, encoding, packing):
    spectra, _ = example()
    expected = without_nulls(spectra)
    path = Archive.of(spectra, layout="chunk", encoding=encoding, packing=packing).write(tmp_path)
    found, _, _ = read(path)
    # Numpress of 1e5, and a grid of (10 + i / 1000)^2, round to some 1e-5 Th and 0.02 Th.
    rounding = {"numpress": 1e-7, "sqrt": 1e-3}.get(encoding, 1e-14)
    for place, (mz, counts) in expected.items():
        ((got_mz, got_counts),) = found[place]
        np.testing.assert_allclose(got_mz, mz, rtol=rounding)
        np.testing.assert_allclose(got_counts, counts, rtol=5e-4 if packing == "slof" else 0)


def test_numpress_of_old_writers_means_a_null_by_zero(tmp_path):
    mz = [100.0, 100.25, 0.0, 0.0, 130.0, 130.25]
    archive = Archive.of([Spectrum(mz, [1, 2, 0, 0, 3, 4], [(1, 1)])], layout="chunk",
                         encoding="numpress")  # fmt: skip
    found, _, _ = read(archive.write(tmp_path))
    ((got, _),) = found[1, 1]
    np.testing.assert_allclose(got, [100, 100.25, 100.5, 129.75, 130, 130.25], atol=1e-5)


@pytest.mark.parametrize("slot", [1, 200, 1 << 16])
@pytest.mark.parametrize("group", [1, 7, 1000])
@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_batches_and_row_groups_may_be_cut_anywhere(tmp_path, monkeypatch, layout, group, slot):
    monkeypatch.setattr(mzpeak_signal, "POINTS_TOGETHER", 5)
    monkeypatch.setattr(mzpeak_signal, "CHUNKS_TOGETHER", 2)
    spectra, expected = example()
    archive = Archive.of(spectra, layout=layout)
    archive.options["group"] = group
    found, _, _ = read(archive.write(tmp_path), slot=slot)
    check(found, expected)


def test_rows_can_be_read_in_any_order_and_again(tmp_path):
    spectra, expected = example()
    archive = Archive.of(spectra)
    archive.options["group"] = 3
    reader = open_reader(archive.write(tmp_path), Settings())
    acquisition = reader.acquisition
    for row in (5, 0, 4, 4, 1, 3, 2, 5):
        batch = reader.read(row, row + 1, np.empty(reader.batch_bytes(row, row + 1), np.uint8))
        place = int(acquisition.x[row]) + 1, int(acquisition.y[row]) + 1
        np.testing.assert_allclose(decode(batch).mz, expected[place][0])
    reader.close()


def test_profiles_and_centroids_are_never_added_up(tmp_path):
    profile = Spectrum([100.0, 100.25, 100.5], [1, 5, 1], [(1, 1)])
    picked = Spectrum([100.25], [6], [(1, 1)])
    alone = Spectrum([200.0, 300.0], [7, 8], [(2, 1)], kind=CENTROID)
    none = Spectrum([], [], [(2, 1)], kind=CENTROID)
    path = Archive.of([profile, none], peaks=[picked, alone]).write(tmp_path)
    found, acquisition, extent = read(path)
    assert found[1, 1][0][1].tolist() == [1, 5, 1]
    assert found[2, 1][0][1].tolist() == [7, 8]
    assert [acquisition.encodings[k].representation for k in acquisition.encoding] == [
        "profile", "centroid",
    ]  # fmt: skip
    assert extent == (100.0, 300.0)
    assert "1 spectra are there as profiles and as centroids" in acquisition.warnings[0]
    found, acquisition, _ = read(path, spectrum_type="centroid")
    assert found[1, 1][0][1].tolist() == [6]
    assert acquisition.representation == "centroid"


def test_an_empty_member_is_no_hazard(tmp_path):
    empty = Spectrum([], [], [(1, 1)])
    full = Spectrum([100.0], [3], [(1, 1)], kind=CENTROID)
    found, _, extent = read(Archive.of([empty], peaks=[full]).write(tmp_path))
    assert found[1, 1][0][1].tolist() == [3]
    assert extent == (100.0, 100.0)


def test_scans_of_one_pixel_count_once_and_others_are_left_out(tmp_path):
    def at(*scans, level=1):
        return Spectrum([100.0, 101.0], [1, 2], list(scans), level=level)

    spectra = [at((1, 1), (1, 1)), at((2, 1), (3, 1)), at(None), at((4, 1), level=2),
               at(None, (5, 2))]  # fmt: skip
    found, acquisition, _ = read(Archive.of(spectra).write(tmp_path))
    assert set(found) == {(1, 1), (5, 2)}
    assert acquisition.warnings == (
        "1 spectra have scans on different pixels and are left out",
        "1 spectra have no position and are left out",
        "1 spectra of a level above MS 1 are left out",
    )


def test_two_spectra_of_a_pixel_are_refused_or_chosen(tmp_path):
    spectra = [Spectrum([100.0], [k], [(1, 1)]) for k in (1, 2)]
    path = Archive.of(spectra).write(tmp_path)
    with pytest.raises(SourceError, match="2 spectra lie on a pixel|1 spectra lie on a pixel"):
        read(path)
    assert read(path, duplicates="last")[0][1, 1][0][1].tolist() == [2]
    assert len(read(path, duplicates="keep")[0][1, 1]) == 2


@pytest.mark.parametrize("level", [0, 2])
def test_writers_that_give_all_spectra_one_level_are_believed(tmp_path, level):
    spectra = [Spectrum([100.0], [1], [(k, 1)], level=level) for k in (1, 2)]
    if level == 2:
        with_ms1 = [*spectra, Spectrum([100.0], [1], [(3, 1)])]
        assert set(read(Archive.of(with_ms1).write(tmp_path, "both"))[0]) == {(3, 1)}
    assert set(read(Archive.of(spectra).write(tmp_path))[0]) == {(1, 1), (2, 1)}


def test_planes_and_origins_are_kept(tmp_path):
    spectra = [Spectrum([100.0], [1], [(10, 20, z)]) for z in (3, 4)]
    _, acquisition, _ = read(Archive.of(spectra).write(tmp_path))
    assert (acquisition.shape, acquisition.origin) == ((2, 1, 1), (10, 20, 3))


def test_positions_too_far_apart_are_refused(tmp_path):
    spectra = [Spectrum([100.0], [1], [(x, 1)]) for x in (1, 2**33)]
    path = Archive.of(spectra, dialect="D1").write(tmp_path)
    with pytest.raises(SourceError, match="position x runs from 1 to 8589934592"):
        read(path)


def test_a_missing_pixel_size_is_said(tmp_path):
    spectra, _ = example()
    _, acquisition, _ = read(Archive.of(spectra, pixel_size=None).write(tmp_path))
    assert acquisition.pixel_size_source == "assumed"
    assert "no pixel size" in acquisition.warnings[0]


def test_what_is_not_known_is_passed_over(tmp_path):
    spectra, expected = example()
    archive = Archive.of(spectra)
    archive.index["files"].append({"name": "picture.tiff", "entity_type": "image",
                                   "data_kind": "other"})  # fmt: skip
    archive.index["novelty"] = True
    table = archive.tables["spectra_metadata.parquet"]
    archive.tables["spectra_metadata.parquet"] = table.append_column(
        "opt_mood", pa.array(["fine"] * len(table))
    )
    check(read(archive.write(tmp_path))[0], expected)


def altered(tmp_path, change, **options):
    """An archive of the example, changed."""
    spectra, _ = example()
    archive = Archive.of(spectra, **options)
    change(archive)
    return archive.write(tmp_path)


def set_signal(archive, **values):
    """Change fields of rows of the signal member; a value is a function of the rows."""
    (name,) = [name for name in archive.tables if name == "spectra_data.parquet"]
    table = archive.tables[name]
    rows = table.column(0).to_pylist()
    for key, function in values.items():
        function(rows) if key == "rows" else [row.update({key: function(row)}) for row in rows]
    column = pa.array(rows, table.column(0).type)
    archive.tables[name] = pa.Table.from_arrays([column], table.column_names)


def edit_index(archive, **values):
    footer = archive.footers["spectra_data.parquet"]
    arrays = json.loads(footer["spectrum_array_index"])
    for entry in arrays["entries"]:
        entry.update(values)
    footer["spectrum_array_index"] = json.dumps(arrays)


def wrong_length(rows):
    rows[0]["intensity"] = [*rows[0]["intensity"], 1.0]


def loud_null(rows):
    next(row for row in rows if row["mz"] is None)["intensity"] = 5.0


def lone_null(rows):
    rows.remove(next(row for row in rows if row["mz"] is None))


def dangling(rows):
    rows[-1]["spectrum_index"] = 77


def shuffled(rows):
    rows[0], rows[-1] = rows[-1], rows[0]


def no_model(archive):
    spectra = [Spectrum([100.0, None, None, 103.0], [1, 0, 0, 1], [(1, 1)], model=None)]
    other = Archive.of(spectra)
    archive.tables, archive.footers = other.tables, other.footers


def drop_member(archive):
    del archive.tables["spectra_data.parquet"]


def rename(archive, old, new):
    table = archive.tables[old[0]]
    names = [new if name == old[1] else name for name in table.column_names]
    archive.tables[old[0]] = table.rename_columns(names)


REFUSALS = [
    ({"layout": "chunk"}, lambda a: set_signal(a, chunk_encoding=lambda row: "MS:1"),
     "a chunk has the encoding MS:1, which is not known"),
    ({"layout": "chunk"}, lambda a: set_signal(a, rows=wrong_length), "but .* intensities"),
    ({}, lambda a: edit_index(a, transform="MS:9"), "column mz has the transform MS:9"),
    ({"layout": "chunk", "encoding": "numpress", "packing": "slof"},
     lambda a: edit_index(a, transform="MS:1002312"), "transformed by MS:1002312"),
    ({}, lambda a: edit_index(a, array_type="MS:1000516"), "no column for the m/z"),
    ({}, lambda a: a.footers.pop("spectra_data.parquet"), "no usable spectrum_array_index"),
    ({}, lambda a: set_signal(a, rows=loud_null), "has no m/z but an intensity of 5"),
    ({}, lambda a: set_signal(a, rows=lone_null), "nulls stand only in pairs"),
    ({}, no_model, "beside a single point only with a delta model"),
    ({}, lambda a: set_signal(a, rows=dangling), "points of spectrum 77, which the metadata"),
    ({}, lambda a: set_signal(a, rows=shuffled), "expected ascending spectra"),
    ({}, drop_member, "lists spectra_data.parquet .* which is not there"),
    ({}, lambda a: a.index.pop("files"), "lists no files"),
    ({}, lambda a: a.index["files"].pop(0), "holds no signals of spectra"),
    ({}, lambda a: rename(a, ("spectra_data.parquet", "point"), "points"),
     "has the columns points, expected one of the layouts point or chunk"),
    ({}, lambda a: rename(a, ("spectra_metadata.parquet", "index"), "number"), "no column index"),
    ({}, lambda a: rename(a, ("spectra_metadata_scans.parquet", "source_index"), "s"),
     "no column source_index"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "change", "words"), REFUSALS)
def test_damage_is_refused_by_name(tmp_path, options, change, words):
    if options.get("encoding") == "numpress":
        spectra, _ = example()
        without_nulls(spectra)
        archive = Archive.of(spectra, **options)
        change(archive)
        path = archive.write(tmp_path)
    else:
        path = altered(tmp_path, change, **options)
    with pytest.raises(SourceError, match=words):
        read(path)


@pytest.mark.parametrize("kind", ["MS:9999001", "MS:9999002", "MS:0"])
def test_grids_that_are_not_known_are_refused(tmp_path, kind):
    spectra, _ = example()
    without_nulls(spectra)
    archive = Archive.of(spectra, layout="chunk", encoding="linear")

    def rename_grid(row):
        return row["mz_grid"] | {"grid_type": kind}

    set_signal(archive, mz_grid=rename_grid)
    with pytest.raises(SourceError, match=f"grid of type {kind}, which is not known"):
        read(archive.write(tmp_path))


def test_compressed_members_are_refused(tmp_path):
    spectra, _ = example()
    path = Archive.of(spectra).write(tmp_path, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SourceError, match="is compressed, .* pack it again with zip -0"):
        read(path)


def test_of_two_members_of_one_name_the_last_counts(tmp_path):
    spectra, expected = example()
    archive = Archive.of(spectra)
    whole = archive.member("spectra_data.parquet")
    set_signal(archive, intensity=lambda row: 0.0)
    path = archive.write(tmp_path)
    with (
        zipfile.ZipFile(path, "a") as opened,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        opened.writestr("spectra_data.parquet", whole)
    check(read(path)[0], expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "no ZIP archive"), (b"PK\x03\x04 rest", "no ZIP archive"),
     (b"version https://git-lfs", "git-lfs pointer")],
)  # fmt: skip
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "other.mzpeak"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=words):
        read(path)


def test_zips_and_folders_without_an_index_are_refused(tmp_path):
    path = tmp_path / "zip.mzpeak"
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("hello", "world")
    with pytest.raises(SourceError, match=r"has no mzpeak_index.json"):
        read(path)
    folder = tmp_path / "folder.mzpeak"
    folder.mkdir()
    with pytest.raises(SourceError, match=r"is a folder without mzpeak_index.json"):
        read(folder)
    with pytest.raises(SourceMissingError, match="does not exist"):
        read(tmp_path / "nothing.mzpeak")


def test_a_file_that_shrinks_or_changes_is_noticed(tmp_path):
    spectra, _ = example()
    path = Archive.of(spectra).write(tmp_path)
    reader = open_reader(path, Settings())
    reader.check_unchanged()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="changed since it was opened"):
        reader.check_unchanged()
    with pytest.raises(SourceError, match="changed while it was read"):
        reader.read(0, 6, np.empty(reader.batch_bytes(0, 6), np.uint8))
    reader.close()


@pytest.mark.parametrize("layout", ["point", "chunk"])
@pytest.mark.parametrize("dialect", ["D1", "D4"])
def test_damaged_bytes_are_refused_and_never_crash(tmp_path, dialect, layout):
    """Every 97th byte overwritten, one at a time: read as before, other values, or refused."""
    spectra, _ = example()
    path = Archive.of(spectra, dialect=dialect, layout=layout).write(tmp_path)
    data = path.read_bytes()
    outcomes = set()
    for place in range(11, len(data), 97):
        for byte in (0, 255):
            path.write_bytes(data[:place] + bytes([byte]) + data[place + 1 :])
            outcomes.add(outcome(path))
    assert outcomes == {"read", "refused"}


def outcome(path):
    """Whether an archive was read or refused; any other end fails the test."""
    try:
        with np.errstate(invalid="ignore"):
            read(path)
    except SourceError:
        return "refused"
    return "read"


def test_truncated_archives_are_refused(tmp_path):
    spectra, _ = example()
    path = Archive.of(spectra).write(tmp_path)
    data = path.read_bytes()
    for size in range(0, len(data), 211):
        path.write_bytes(data[:size])
        with pytest.raises(SourceError):
            read(path)
