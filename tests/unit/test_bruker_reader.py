"""Reading Bruker folders, on ones written by hand and on published ones."""

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from gpuconvert.errors import SettingsError, SourceError, SourceMissingError
from gpuconvert.readers import cut_batches, open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.bruker_reference import mz_of_index, scan_peaks, words_of
from tests.bruker_writer import MODEL_1, MODEL_2, PITCH, Frame, write_tdf, write_tsf

N_SAMPLES = 60_000


def raster(nx=4, ny=3, x0=1158, y0=525, seed=0, **same):
    """Frames of a raster, every third one empty; line peaks lie between samples."""
    rng = np.random.default_rng(seed)
    frames = []
    for y in range(ny):
        for x in range(nx):
            n = 0 if len(frames) % 3 == 1 else int(rng.integers(1, 40))
            index = np.sort(rng.choice(N_SAMPLES, n, replace=False))
            counts = rng.integers(1, 5000, n)
            second = rng.integers(1, 5000, n)
            frames.append(
                Frame(
                    x0 + x,
                    y0 + y,
                    line=(index + 0.25, counts),
                    profile=dict(zip(index.tolist(), second.tolist())),
                    scans=[(index, counts), (index[::2], second[::2]), ([], [])],
                    **same,
                )
            )
    return frames


def read_all(reader, slot_bytes=1 << 20):
    """Return m/z and intensities of every row, read in batches."""
    spectra = []
    n = reader.acquisition.n_spectra
    for first, last in cut_batches(reader, 0, n, slot_bytes):
        into = np.full(reader.batch_bytes(first, last), 255, np.uint8)
        batch = reader.read(first, last, into)
        np.testing.assert_array_equal(batch.rows, np.arange(first, last))
        found = decode(batch)
        spectra += [
            (found.mz[a:b], found.intensity[a:b])
            for a, b in zip(found.indptr[:-1], found.indptr[1:])
        ]
    assert len(spectra) == n
    return spectra


def slow_peaks(reader, row):
    """Return (scan, index, intensity) of every peak of a TDF frame, as read word by word."""
    batch = reader.read(row, row + 1, np.empty(reader.batch_bytes(row, row + 1), np.uint8))
    packed = batch.packed
    if not len(packed.begin):
        return []
    n_scans, n_peaks = int(packed.scan_at[1]), int(packed.n_peaks[0])
    words = words_of(batch.raw[: 4 * (n_scans + 2 * n_peaks)].tolist())
    return scan_peaks(words, n_scans, n_peaks)


@pytest.fixture
def open_folder():
    """Open a folder; closed after the test."""
    readers = []

    def opened(path, **options):
        readers.append(open_reader(path, Settings(**options)))
        return readers[-1]

    yield opened
    for reader in readers:
        reader.close()


EXACT = 1e-12
"""Relative error of m/z: a few roundings of float64."""


def expect(spectra, frames, wanted):
    """Hold spectra against (indices, intensities) of each frame, whose m/z are by MODEL_1."""
    assert len(spectra) == len(frames)
    for (mz, intensity), frame in zip(spectra, frames, strict=True):
        index, counts = wanted(frame)
        expected = [mz_of_index(at, MODEL_1, frame.t1, frame.t2) for at in index]
        np.testing.assert_allclose(mz, expected, rtol=EXACT)
        np.testing.assert_allclose(intensity, counts, rtol=6e-8)  # float32


def line(frame):
    return frame.line


def profile(frame):
    return list(frame.profile), list(frame.profile.values())


def summed(frame):
    """Counts of all scans by index, at 100 ms."""
    sums = np.zeros(N_SAMPLES)
    for index, counts in frame.scans:
        np.add.at(sums, np.array(index, int), np.array(counts, float))
    used = np.unique(np.concatenate([np.array(index, int) for index, _ in frame.scans]))
    return used, sums[used] * 100 / frame.accumulation


@pytest.mark.parametrize("slot_bytes", [1, 5000, 1 << 20])
def test_line_spectra_come_back(tmp_path, open_folder, slot_bytes):
    frames = raster()
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES))
    expect(read_all(reader, slot_bytes), frames, line)
    assert reader.acquisition.representation == "centroid"
    assert reader.acquisition.n_points.tolist() == [len(frame.line[0]) for frame in frames]
    assert "the line spectra are converted, give --spectrum profile" in str(
        reader.acquisition.warnings
    )


@pytest.mark.parametrize("slot_bytes", [1, 5000, 1 << 20])
def test_profiles_come_back_without_their_zeros(tmp_path, open_folder, slot_bytes):
    frames = raster()
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES), spectrum="profile")
    expect(read_all(reader, slot_bytes), frames, profile)
    assert reader.acquisition.representation == "profile"
    assert reader.acquisition.n_points.tolist() == [len(frame.profile) for frame in frames]
    assert reader.acquisition.warnings == ()


def test_what_the_file_declares_is_the_default(tmp_path, open_folder):
    frames = raster()
    only = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, line=False, name="profile.d")
    reader = open_folder(only)
    assert reader.acquisition.representation == "profile"
    assert reader.acquisition.warnings == ()
    expect(read_all(reader), frames, profile)
    with pytest.raises(SourceError, match=r"declares no line spectra; give --spectrum profile"):
        open_folder(only, spectrum="line")
    only = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, profile=False, name="line.d")
    expect(read_all(open_folder(only)), frames, line)
    with pytest.raises(SourceError, match=r"declares no profile spectra; give --spectrum line"):
        open_folder(only, spectrum="profile")


def test_peak_widths_are_left_out(tmp_path, open_folder):
    frames = raster()
    expect(read_all(open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES, width=True))),
           frames, line)  # fmt: skip


@pytest.mark.parametrize("compression", [1, 2])
@pytest.mark.parametrize("accumulation", [100.0, 10.126, 250.0])
def test_scans_are_summed_and_scaled_to_100_ms(tmp_path, open_folder, compression, accumulation):
    frames = raster(accumulation=accumulation)
    path = write_tdf(tmp_path, frames, n_samples=N_SAMPLES, compression=compression)
    reader = open_folder(path)
    expect(read_all(reader), frames, summed)
    assert reader.acquisition.representation == "centroid"
    expected = [sum(len(index) for index, _ in frame.scans) for frame in frames]
    assert reader.acquisition.n_points.tolist() == expected
    for row, frame in enumerate(frames):
        pairs = zip(frame.scans, range(len(frame.scans)))
        wanted = [(s, a, b) for (at, counts), s in pairs for a, b in zip(at, counts)]
        assert slow_peaks(reader, row) == wanted


def test_both_calibrations_and_polarities_are_read_frame_by_frame(tmp_path, open_folder):
    frames = raster()
    for number, frame in enumerate(frames):
        frame.calibration = 1 + number % 2
        frame.polarity = "+-?"[number % 3]
        frame.t1 = 25 + 0.1 * number
    rows = [MODEL_1, MODEL_2 | {"Id": 2}]
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES, calibrations=rows))
    for number, (mz, _) in enumerate(read_all(reader)):
        frame = frames[number]
        expected = [mz_of_index(at, rows[number % 2], frame.t1, frame.t2) for at in frame.line[0]]
        np.testing.assert_allclose(mz, expected, rtol=EXACT)
    assert reader.acquisition.polarity.tolist() == [1, -1, 0] * 4
    assert [row["Id"] for row in reader.acquisition.metadata["mz_calibrations"]] == [1, 2]


def test_rows_are_pixels_whatever_the_order_of_the_frames(tmp_path, open_folder):
    frames = raster()
    shuffled = [frames[k] for k in np.random.default_rng(3).permutation(len(frames))]
    reader = open_folder(write_tsf(tmp_path, shuffled, n_samples=N_SAMPLES))
    expect(read_all(reader), frames, line)
    acquisition = reader.acquisition
    assert acquisition.origin == (1158, 525, 0)
    assert acquisition.shape == (1, 3, 4)
    assert acquisition.x.tolist() == [0, 1, 2, 3] * 3
    assert acquisition.y.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert [shuffled[k] for k in acquisition.order] == frames


def test_the_pixel_size_is_that_of_the_stage(tmp_path, open_folder):
    frames = raster()
    rng = np.random.default_rng(0)
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    for frame in frames:
        at = turn @ [10.0 * frame.x, -30.0 * frame.y] + rng.normal(0, 0.01, 2)
        frame.motor = tuple(at.tolist())
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES, spot_size=10.0))
    np.testing.assert_allclose(reader.acquisition.pixel_size, (10, 30), rtol=2e-3)
    assert reader.acquisition.pixel_size_source.startswith("stage positions (least squares over 12")
    assert 0.005 < reader.acquisition.metadata["stage_residual_um"] < 0.03
    assert "but the nominal spot size is 10 um; the stage counts" in str(
        reader.acquisition.warnings
    )
    assert open_folder(reader.path, pixel_size=(7.0, 8.0)).acquisition.pixel_size == (7.0, 8.0)


def test_regions_have_offsets_of_their_own_and_one_pitch(tmp_path, open_folder):
    frames = raster(2, 3) + raster(3, 2, x0=1170, y0=560, seed=1, region=3)
    for frame in frames:
        shift = 500.0 if frame.region else 0.0
        frame.motor = (PITCH * frame.x + shift, -PITCH * frame.y - shift)
    path = write_tsf(tmp_path, frames, n_samples=N_SAMPLES)
    reader = open_folder(path)
    np.testing.assert_allclose(reader.acquisition.pixel_size, PITCH, rtol=1e-9)
    assert reader.acquisition.region.tolist() == [0] * 6 + [3] * 6
    assert reader.acquisition.shape == (1, 37, 15)
    regions = reader.acquisition.metadata["regions"]
    assert regions[1] == {"region": 3, "frames": 6, "x": [1170, 1172], "y": [560, 561]}
    one = open_folder(path, region=(3,))
    expect(read_all(one), frames[6:], line)
    assert one.acquisition.origin == (1170, 560, 0)
    assert one.acquisition.order.tolist() == list(range(6, 12))
    with pytest.raises(SourceError, match=r"has no region 1, only 0, 3; give one of them"):
        open_folder(path, region=(0, 1))


@pytest.mark.parametrize(("nx", "ny"), [(1, 4), (5, 1)])
def test_a_single_line_is_as_wide_as_it_is_long(tmp_path, open_folder, nx, ny):
    reader = open_folder(write_tsf(tmp_path, raster(nx, ny), n_samples=N_SAMPLES))
    np.testing.assert_allclose(reader.acquisition.pixel_size, PITCH, rtol=1e-9)


def test_a_single_pixel_has_its_nominal_size(tmp_path, open_folder):
    one = raster(1, 1)
    reader = open_folder(write_tsf(tmp_path, one, n_samples=N_SAMPLES, spot_size=35.0))
    assert reader.acquisition.pixel_size == (35.0, 35.0)
    assert "the nominal spot size 35 um is taken" in str(reader.acquisition.warnings)
    path = write_tsf(tmp_path, one, n_samples=N_SAMPLES, spot_size=None, name="b.d")
    assert open_folder(path).acquisition.pixel_size_source == "assumed"


def test_frames_without_a_pixel_are_left_out_and_said(tmp_path, open_folder):
    frames = raster()
    frames[4:4] = [Frame(line=([5.0], [7.0])), Frame(line=([6.0], [8.0]))]
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES))
    expect(read_all(reader), [frame for frame in frames if frame.x is not None], line)
    assert "2 frames have no pixel (MaldiFrameInfo) and are left out" in reader.acquisition.warnings


def test_fragments_are_refused_by_name_or_selected(tmp_path, open_folder):
    frames = raster()
    for frame in frames[1::2]:
        frame.ms_type, frame.x, frame.y = 8, frame.x - 1, frame.y
    path = write_tdf(tmp_path, frames, n_samples=N_SAMPLES)
    words = r"6 frames are MS/MS, the first is frame 2 \(MsMsType 8\).*give --ms-level 1 or 2"
    with pytest.raises(SourceError, match=words):
        open_folder(path)
    for level in (1, 2):
        expect(read_all(open_folder(path, ms_level=level)), frames[level - 1 :: 2], summed)
    with pytest.raises(SourceError, match="has no frames of MS level 2; leave out --ms-level"):
        open_folder(write_tdf(tmp_path, raster(), n_samples=N_SAMPLES, name="one.d"), ms_level=2)


def test_several_frames_of_a_pixel_are_duplicates(tmp_path, open_folder):
    frames = raster()
    frames[5].x = frames[4].x
    path = write_tsf(tmp_path, frames, n_samples=N_SAMPLES)
    with pytest.raises(SourceError, match="lie on a pixel that has one already"):
        open_folder(path)
    reader = open_folder(path, duplicates="first")
    expect(read_all(reader), frames[:5] + frames[6:], line)


def test_a_setting_of_another_format_is_refused(tmp_path):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    with pytest.raises(SettingsError, match=r"--ibd has no meaning for \.d sources, only for"):
        open_reader(path, Settings(ibd="a.ibd"))
    (tmp_path / "a.imzML").touch()
    for options in ({"spectrum": "line"}, {"region": (1,)}, {"ms_level": 1}, {"mobility_bins": 9}):
        with pytest.raises(SettingsError, match=r"has no meaning for \.imzml sources, only for .d"):
            open_reader(tmp_path / "a.imzML", Settings(**options))


def test_an_acquisition_that_is_no_image_is_read_as_a_row_of_frames(tmp_path, open_folder):
    frames = raster()
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES, spots=False))
    expect(read_all(reader), frames, line)
    assert reader.acquisition.shape == (1, 1, 12)
    assert not reader.acquisition.imaging
    path = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, name="spots.d",
                     metadata={"MaldiApplicationType": "SingleSpectra"})  # fmt: skip
    reader = open_folder(path)
    assert not reader.acquisition.imaging
    assert "its MaldiApplicationType is 'SingleSpectra': its spots are no pixels" in str(
        reader.acquisition.warnings
    )


def test_an_acquisition_that_was_not_closed_is_read_from_a_copy(tmp_path, open_folder):
    frames = raster()
    path = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, unclosed=True)
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    assert len(before["analysis.tsf-wal"]) > 10_000
    reader = open_folder(path)
    expect(read_all(reader), frames, line)
    said = str(reader.acquisition.warnings)
    assert "the acquisition left analysis.tsf-wal: its database was recovered on a copy" in said
    assert "was not closed properly (ClosedProperly is 0)" in said
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    roles = [role for role, _, _ in reader.acquisition.identity.files]
    assert roles == ["tsf", "tsf_bin", "tsf-wal"]
    with pytest.raises(SourceError, match="was not closed properly .*; leave out --strict"):
        open_folder(path, strict=True)


def test_a_database_in_log_mode_is_read_where_nothing_can_be_written(tmp_path, open_folder):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    with sqlite3.connect(path / "analysis.tsf") as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    connection.close()
    path.chmod(0o555)
    try:
        expect(read_all(open_folder(path)), raster(), line)
        assert sorted(file.name for file in path.iterdir()) == ["analysis.tsf", "analysis.tsf_bin"]
    finally:
        path.chmod(0o755)


def test_nothing_is_written_beside_the_source(tmp_path, open_folder):
    path = write_tdf(tmp_path, raster(), n_samples=N_SAMPLES)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    read_all(open_folder(path))
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before


def test_later_calibrations_are_listed_and_named(tmp_path, open_folder):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    with sqlite3.connect(path / "calibration.sqlite") as connection:
        connection.execute("CREATE TABLE CalibrationState (Id, Key, DateTime, Source)")
        connection.execute("INSERT INTO CalibrationState VALUES (1, 'k', '2024-05-06', 'user')")
    connection.close()
    acquisition = open_folder(path).acquisition
    assert acquisition.metadata["recalibrations"] == [
        {"Id": 1, "Key": "k", "DateTime": "2024-05-06", "Source": "user"}
    ]
    assert "calibration.sqlite holds 1 calibration states (the last of 2024-05-06)" in str(
        acquisition.warnings
    )


def test_a_file_that_changes_is_noticed(tmp_path, open_folder):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    reader = open_folder(path)
    reader.check_unchanged()
    with (path / "analysis.tsf_bin").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(SourceError, match="analysis.tsf_bin changed since it was opened"):
        reader.check_unchanged()


def test_no_spectrum_lies_beyond_the_extent(tmp_path, open_folder):
    frames = raster()
    frames[0].line = ([0.0, N_SAMPLES - 1.0], [1.0, 1.0])
    frames[0].t1 = 20.0
    reader = open_folder(write_tsf(tmp_path, frames, n_samples=N_SAMPLES))
    spectra = read_all(reader)
    low, high = reader.mz_extent()
    # The coldest frame has the longest flight path, so its last sample is the heaviest of all.
    assert high == spectra[0][0][-1]
    assert low <= spectra[0][0][0]
    assert low == pytest.approx(spectra[0][0][0], rel=2e-4)


# What is done to a good folder, and the words of the refusal.
def _drop(name):
    return lambda path: (path / name).unlink()


def _cut(path):
    with (path / "analysis.tsf_bin").open("r+b") as stream:
        stream.truncate(stream.seek(0, 2) - 10)


def _halve(path):
    with (path / "analysis.tsf_bin").open("r+b") as stream:
        stream.truncate(stream.seek(0, 2) // 2)


def _say(key, value):
    def change(path):
        with sqlite3.connect(path / "analysis.tsf") as connection:
            connection.execute("DELETE FROM GlobalMetadata WHERE Key = ?", (key,))
            if value is not None:
                connection.execute("INSERT INTO GlobalMetadata VALUES (?, ?)", (key, value))
        connection.close()

    return change


def _run(statement):
    def change(path):
        with sqlite3.connect(path / "analysis.tsf") as connection:
            connection.execute(statement)
        connection.close()

    return change


def _rename(old, new):
    return lambda path: (path / old).rename(path / new)


def _garbage(path):
    (path / "analysis.tsf").write_bytes(b"not a database at all" * 100)


def _both(path):
    shutil.copy(path / "analysis.tsf", path / "analysis.tdf")


REFUSED = [
    (_drop("analysis.tsf_bin"), "needs its binary file analysis.tsf_bin beside it, which is not"),
    (_drop("analysis.tsf"), "has neither; expected analysis.tsf or analysis.tdf in it"),
    (_rename("analysis.tsf", "analysis.baf"), "holds BAF data, which is not supported"),
    (_both, "holds analysis.tsf and analysis.tdf, expected one of them"),
    (_garbage, "cannot be read as an SQLite database"),
    (_cut, r"frame 12 ends at byte \d+, but the file has \d+ bytes; is it truncated"),
    (_halve, r"frame \d+ (begins|ends) at byte \d+, but the file has \d+ bytes; is it truncated"),
    (_say("SchemaType", "TDF"), "has schema 'TDF', expected 'TSF'"),
    (_say("SchemaVersionMajor", "4"), "has schema version 4, expected at most 3"),
    (_say("TimsCompressionType", "7"), "has TimsCompressionType 7, expected 3"),
    (_say("TimsCompressionType", None), "has TimsCompressionType unstated, expected 3"),
    (_say("PeakListIndexScaleFactor", "4"), "has PeakListIndexScaleFactor 4, expected 1"),
    (_say("DigitizerNumSamples", "many"), "states many DigitizerNumSamples, expected a number"),
    (_say("HasLineSpectra", "0"), "declares no line spectra"),
    (_run("DROP TABLE Frames"), "has no column Id in a table Frames: its schema is not known"),
    (_run("DELETE FROM Frames"), "has no frames, expected at least one"),
    (_run(f"UPDATE Frames SET TimsId = {2**63 - 1} WHERE Id = 3"), "frame 3 begins at byte 9223"),
    (_run("UPDATE Frames SET NumPeaks = -1 WHERE Id = 4"), "frame 4 states -1 NumPeaks, expected"),
    (_run("UPDATE Frames SET NumPeaks = NULL WHERE Id = 4"), "frame 4 states no NumPeaks"),
    (_run("UPDATE Frames SET NumPeaks = 'few' WHERE Id = 4"), "frame 4 states 'few' NumPeaks"),
    (_run("UPDATE Frames SET Id = NULL WHERE Id = 4"), "frame None states no Id, expected a whole"),
    (_run("UPDATE MzCalibration SET C0 = NULL"), "calibration 1 of frame 1 states no C0, expected"),
    (_run(f"UPDATE Frames SET NumPeaks = {2**40} WHERE Id = 1"), "states 1099511627776 NumPeaks"),
    (_run("UPDATE MaldiFrameInfo SET RegionNumber = -7"), "region runs from -7 to -7, expected"),
    (_run("UPDATE Frames SET TimsId = -5 WHERE Id = 3"), "frame 3 begins at byte -5"),
    (_run("UPDATE MzCalibration SET ModelType = 4"), "has ModelType 4, expected ModelType 1 or 2"),
    (_run("UPDATE MaldiFrameInfo SET XIndexPos = 5000000000 WHERE Frame = 2"),
     "x runs from 1158 to 5000000000, expected fewer than 2"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "words"), REFUSED)
def test_a_damaged_folder_is_refused_in_words(tmp_path, damage, words):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    damage(path)
    with pytest.raises(SourceError, match=words):
        open_reader(path, Settings(spectrum="line"))


def test_where_an_empty_frame_is_said_to_lie_does_not_matter(tmp_path, open_folder):
    frames = raster()
    plain = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, name="plain.d")
    moved = write_tsf(
        tmp_path, frames, n_samples=N_SAMPLES, name="moved.d",
        change=lambda connection: connection.execute(
            f"UPDATE Frames SET TimsId = {2**63 - 1} WHERE NumPeaks = 0"
        ),
    )  # fmt: skip
    for (mz, counts), (same_mz, same) in zip(
        *(read_all(open_folder(path)) for path in (plain, moved))
    ):
        np.testing.assert_array_equal(mz, same_mz)
        np.testing.assert_array_equal(counts, same)


def test_a_missing_binary_is_a_missing_file(tmp_path):
    path = write_tsf(tmp_path, raster(), n_samples=N_SAMPLES)
    (path / "analysis.tsf_bin").unlink()
    with pytest.raises(SourceMissingError, match="copy the whole folder"):
        open_reader(path, Settings())


def test_a_file_named_like_a_folder_is_refused(tmp_path):
    (tmp_path / "a.d").write_text("x")
    with pytest.raises(SourceError, match=r"a\.d is a file, expected a \.d folder"):
        open_reader(tmp_path / "a.d", Settings())


def test_profiles_of_tdf_are_refused(tmp_path):
    path = write_tdf(tmp_path, raster(), n_samples=N_SAMPLES)
    with pytest.raises(SourceError, match="is TDF, which holds peaks and no profile"):
        open_reader(path, Settings(spectrum="profile"))


def test_an_unknown_accumulation_time_is_refused(tmp_path):
    path = write_tdf(tmp_path, raster(accumulation=None), n_samples=N_SAMPLES)
    with pytest.raises(SourceError, match="frame 1 states no accumulation time above 0 ms"):
        open_reader(path, Settings())


def _overwrite(path, frame, at, values, kind):
    """Write bytes into the blob of a frame, counted from its beginning."""
    database = path / f"analysis.{kind}"
    connection = sqlite3.connect(database)
    place = connection.execute("SELECT TimsId FROM Frames WHERE Id = ?", (frame,)).fetchone()[0]
    connection.close()
    with (path / f"analysis.{kind}_bin").open("r+b") as stream:
        stream.seek(place + at)
        stream.write(bytes(values))


BLOBS = [
    ("tsf", 0, [1, 0, 0, 0], "line", "its header says 1 bytes, but"),
    ("tsf", 0, [0, 0, 0, 9], "line", r"its header says 150994944 bytes, but \d+ are there"),
    ("tsf", 4, [0, 0, 0, 9], "line", r"its line spectrum ends at byte 150994952, after the frame"),
    ("tsf", 8, [0, 0, 0, 0], "line", r"its line spectrum inflates to no zstd bytes, expected \d+"),
    ("tsf", 15, [255, 255], "line", "it cannot be inflated"),
    ("tsf", 4, [0, 0, 0, 0], "profile", r"its profile inflates to \d+ bytes, expected 240000"),
    ("tdf", 4, [0, 1, 0, 0], "auto", "its header says 256 scans, expected 1 to 3"),
    ("tdf", 15, [255, 255], "auto", "it cannot be inflated"),
]


@pytest.mark.parametrize(("kind", "at", "values", "spectrum", "words"), BLOBS)
def test_a_damaged_frame_is_refused_by_its_number(tmp_path, kind, at, values, spectrum, words):
    frames = raster()
    frames[2] = raster(1, 1, seed=5)[0]
    frames[2].x, frames[2].y = 1160, 525
    write = write_tsf if kind == "tsf" else write_tdf
    path = write(tmp_path, frames, n_samples=N_SAMPLES)
    _overwrite(path, 3, at, values, kind)
    with pytest.raises(SourceError, match=rf"frame 3 is damaged: {words}"):
        read_all(open_reader(path, Settings(spectrum=spectrum)))


def test_damage_within_a_frame_of_scans_is_told(tmp_path, open_folder):
    frames = raster(2, 1)
    path = write_tdf(tmp_path, frames, n_samples=100)
    with pytest.raises(SourceError, match="a peak lies outside the digitizer's range"):
        read_all(open_folder(path))
    path = write_tdf(tmp_path, frames, n_samples=N_SAMPLES, compression=1, name="lzf.d")
    _overwrite(path, 1, 8, [255, 255, 0, 0], "tdf")
    with pytest.raises(SourceError, match="frame 1 is damaged: a scan cannot be inflated"):
        read_all(open_folder(path))

    def claim(connection):
        connection.execute("UPDATE Frames SET NumPeaks = NumPeaks + 1")

    path = write_tdf(
        tmp_path, frames, n_samples=N_SAMPLES, compression=1, name="more.d", change=claim
    )
    with pytest.raises(SourceError, match="its scans hold another number of peaks"):
        read_all(open_folder(path))


REAL = {
    "vandeplaslab__imzy/example_tsf.d": 400,
    "MannLabs__timsrust/test.d": 4,
    "MannLabs__timsrust/dia_test.d": 6,
    "michalsta__opentims/test.d": 2,
    "mobiusklein__mzdata/diaPASEF.d": 5,
}


def stated(path: Path):
    """What the tables say of each frame: peaks, sum, maximum, and the factor of its intensities."""
    database = next(file for file in path.glob("analysis.t?f") if file.stat().st_size)
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    factor = "100.0 / AccumulationTime" if database.suffix == ".tdf" else "1.0"
    rows = connection.execute(
        f"SELECT NumPeaks, SummedIntensities, MaxIntensity, {factor} FROM Frames ORDER BY Id"
    ).fetchall()
    connection.close()
    return np.array(rows)


@pytest.mark.real_data
@pytest.mark.parametrize("name", REAL)
def test_every_published_frame_is_what_its_tables_say(shared_data, open_folder, name):
    reader = open_folder(shared_data / "bruker" / name, calibration="chord")
    table = stated(reader.path)
    assert len(table) == reader.acquisition.n_spectra == REAL[name]
    spectra = read_all(reader)
    for row, frame in enumerate(reader.acquisition.order):
        peaks, total, largest, factor = table[frame]
        mz, intensity = spectra[row]
        assert (np.diff(mz) > 0).all()
        if reader.acquisition.format == "Bruker TSF":
            assert len(mz) == peaks
            assert intensity.max(initial=0) == largest
        else:
            counts = np.array([count for _, _, count in slow_peaks(reader, row)])
            assert len(counts) == peaks
            # The tables hold whole numbers, rounded half up.
            assert np.floor(counts.sum(dtype="f8") * factor + 0.5) == total
            assert np.floor(counts.max(initial=0) * factor + 0.5) == largest
        assert intensity.sum() == pytest.approx(total, rel=1e-7, abs=0.5)


@pytest.mark.real_data
def test_the_published_image_is_where_its_tables_say(shared_data, open_folder):
    acquisition = open_folder(shared_data / "bruker/vandeplaslab__imzy/example_tsf.d").acquisition
    assert acquisition.shape == (1, 20, 20)
    assert acquisition.origin == (1158, 525, 0)
    assert (acquisition.n_points == 0).sum() == 103
    np.testing.assert_allclose(acquisition.pixel_size, (19.9994, 20.0002), atol=1e-4)
    assert (acquisition.polarity == -1).all()
    assert acquisition.instrument.name == "timsTOF fleX"
    assert acquisition.mz_range == (300.0, 1500.0)


@pytest.mark.real_data
def test_the_extent_is_the_acquisition_range(shared_data, open_folder):
    for name in ("vandeplaslab__imzy/example_tsf.d", "michalsta__opentims/test.d"):
        reader = open_folder(shared_data / "bruker" / name)
        # The digitizer was set to begin and end at the range, to one sample.
        np.testing.assert_allclose(reader.mz_extent(), reader.acquisition.mz_range, rtol=2e-5)


@pytest.mark.real_data
def test_a_published_folder_without_its_binary_is_refused(shared_data):
    with pytest.raises(SourceMissingError, match=r"analysis\.tdf_bin beside it, which is not"):
        open_reader(shared_data / "bruker/vandeplaslab__imzy/example_tdf.d", Settings())


@pytest.mark.parametrize("compression", [1, 2])
def test_more_peaks_than_bytes_can_hold_take_no_memory(tmp_path, open_folder, compression):
    frames = [Frame(1, 1, scans=[([3, 5], [1, 2]), ([4], [7])])]
    path = write_tdf(
        tmp_path, frames, n_samples=N_SAMPLES, compression=compression,
        change=lambda connection: connection.execute("UPDATE Frames SET NumPeaks = 2000000000"),
    )  # fmt: skip
    words = r"frame 1 states 2000000000 NumPeaks, more than its \d+ bytes can hold; copy the whole"
    with pytest.raises(SourceError, match=words):
        open_folder(path)
