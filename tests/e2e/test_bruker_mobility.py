"""The table by m/z and ion mobility: the same counts as the main table, parted by 1/K0."""

import os
import re
import shutil
import signal
import sqlite3

import numpy as np
import pytest
import zarr

import gpuconvert
from gpuconvert import plan
from gpuconvert.errors import BudgetError, SettingsError, SourceError
from tests.bruker_reference import mz_of_index
from tests.bruker_writer import MOBILITY, MODEL_1, Frame, write_tdf, write_tsf
from tests.e2e.data import matrix_bytes, read_table, store_bytes
from tests.e2e.test_command_line import start, wait_for_parts

N_SAMPLES, N_SCANS, N_BINS = 60_000, 60, 7

# 1/K0 in V s / cm2 of scans 0 to 59, over a range like that of an instrument.
STEEP = MOBILITY | {"C1": N_SCANS, "C2": 210.0, "C3": 70.0, "C4": 0.0}
NEGATIVE = STEEP | {"Id": 2, "C2": -220.0, "C3": -75.0}


def image(nx=5, ny=3, seed=0, accumulation=40.0):
    """Frames whose ions recur in several scans; some frames and scans are empty."""
    rng = np.random.default_rng(seed)
    ions = np.sort(rng.choice(np.arange(500, N_SAMPLES - 500, 40), 30, replace=False))
    frames = []
    for y in range(ny):
        for x in range(nx):
            scans = []
            for scan in range(N_SCANS):
                n = 0 if scan % 5 == 2 or len(frames) % 4 == 3 else int(rng.integers(1, 6))
                index = np.sort(rng.choice(ions, n, replace=False))
                scans.append((index, rng.integers(1, 500, n)))
            frames.append(Frame(9 + x, 4 + y, scans=scans, accumulation=accumulation))
    return frames


def k0(scan, row):
    voltage = row["C2"] + (row["C3"] - row["C2"]) / row["C1"] * (scan - row["C0"] - row["C4"])
    return 1 / (row["C6"] + row["C7"] / abs(voltage))


def write(folder, frames, **options):
    return write_tdf(folder, frames, n_samples=N_SAMPLES, mobility=(STEEP,), **options)


def expected_cells(frames, rows, mz, n_bins):
    """Counts by (row, m/z bin, mobility bin), by the definition."""
    every = [k0(scan, row) for row in rows for scan in range(N_SCANS)]
    edges = np.linspace(min(every), max(every), n_bins + 1)
    cells = {}
    for number, frame in enumerate(frames):
        for scan, (index, counts) in enumerate(frame.scans):
            own = min(np.searchsorted(edges, k0(scan, rows[0]), "right") - 1, n_bins - 1)
            for at, count in zip(index, counts):
                nearest = int(np.abs(mz - mz_of_index(at, MODEL_1)).argmin())
                key = (number, nearest, int(own))
                cells[key] = cells.get(key, 0.0) + count * 100 / frame.accumulation
    return cells


def read_cells(store):
    group = zarr.open_group(store, mode="r")["tables/msi_z0_mobility"]
    table = read_table(store, "msi_z0_mobility")
    return table, {name: group[f"var/{name}"][:] for name in ("mz_index", "mobility_index")}


@pytest.mark.parametrize("compression", [1, 2])
@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_every_peak_is_in_the_cell_of_its_mz_and_mobility(tmp_path, compression, layout):
    frames = image()
    source = write(tmp_path, frames, compression=compression)
    summary = gpuconvert.convert(
        source, tmp_path / "o.zarr", mobility_bins=N_BINS, layout=layout, bins=3000
    )
    main = read_table(tmp_path / "o.zarr")
    table, var = read_cells(tmp_path / "o.zarr")
    wanted = expected_cells(frames, [STEEP], main.mz, N_BINS)
    found = table.x.tocoo()
    got = {
        (int(row), int(var["mz_index"][column]), int(var["mobility_index"][column])): value
        for row, column, value in zip(found.row, found.col, found.data)
    }
    assert got.keys() == wanted.keys()
    np.testing.assert_allclose([got[key] for key in wanted], list(wanted.values()), rtol=1e-6)
    np.testing.assert_allclose(table.obs["tic"], main.obs["tic"], rtol=1e-6)
    assert len({key[2] for key in got}) == N_BINS
    np.testing.assert_array_equal(table.mz, main.mz[var["mz_index"]])
    assert summary.n_pixels == len(frames)
    assert summary.n_nonzeros == main.x.nnz
    checked = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert checked.ok, checked.lines()
    assert "source of msi_z0_mobility" in [check.name for check in checked.checks]


def test_frames_of_both_polarities_share_one_axis_of_mobility(tmp_path):
    frames = image()

    def turn(connection):
        connection.execute("UPDATE Frames SET TimsCalibration = 2, Polarity = '-' WHERE Id > 7")

    source = write_tdf(
        tmp_path, frames, n_samples=N_SAMPLES, mobility=(STEEP, NEGATIVE), change=turn
    )
    gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=N_BINS, bins=3000)
    group = zarr.open_group(tmp_path / "o.zarr", mode="r")["tables/msi_z0_mobility"]
    every = [k0(scan, row) for row in (STEEP, NEGATIVE) for scan in range(N_SCANS)]
    ends = [group[f"uns/mobility_axis/{end}"][()] for end in ("low", "high")]
    np.testing.assert_allclose(ends, [min(every), max(every)], rtol=1e-12)
    checked = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert checked.ok, checked.lines()


def test_scans_beyond_those_stated_count_as_the_last(tmp_path):
    frames = image()

    def shorten(connection):
        connection.execute("UPDATE Frames SET NumScans = 40")

    source = write(tmp_path, frames, compression=1, change=shorten)
    gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=N_BINS, bins=3000)
    main, (table, var) = read_table(tmp_path / "o.zarr"), read_cells(tmp_path / "o.zarr")
    np.testing.assert_allclose(table.obs["tic"], main.obs["tic"], rtol=1e-6)
    beyond = sum(counts.sum() for frame in frames for _, counts in frame.scans[40:])
    in_first = table.x.tocsc()[:, var["mobility_index"] == 0].sum() * 40 / 100
    assert in_first >= beyond
    checked = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert checked.ok, checked.lines()


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")
def test_the_table_is_opened_with_the_others(tmp_path):
    # ome-zarr calls its own deprecated class when spatialdata imports it.
    pytest.importorskip("spatialdata")
    source = write(tmp_path, image())
    gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=N_BINS, bins=3000)
    opened = gpuconvert.open(tmp_path / "o.zarr")
    main, parted = opened["msi_z0"], opened["msi_z0_mobility"]
    assert parted.obs_names.tolist() == main.obs_names.tolist()
    pairs = parted.var[["mz", "mobility"]].to_numpy()
    assert (np.lexsort((pairs[:, 1], pairs[:, 0])) == np.arange(len(pairs))).all()
    assert 0.6 < pairs[:, 1].min() < pairs[:, 1].max() < 2
    assert parted.uns["mobility_axis"]["unit"] == "V s / cm2"


def test_parts_and_duplicates_do_not_matter(tmp_path, monkeypatch):
    frames = image()
    frames[6].x = frames[5].x
    source = write(tmp_path, frames)
    options = {"mobility_bins": N_BINS, "duplicates": "sum", "bins": 3000}
    gpuconvert.convert(source, tmp_path / "one.zarr", **options)
    monkeypatch.setattr(plan, "PART_NONZEROS", 700)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 20_000)
    monkeypatch.setattr(plan, "SHARD_CHUNKS", 1)
    summary = gpuconvert.convert(source, tmp_path / "many.zarr", **options)
    assert summary.parts > 3
    assert matrix_bytes(tmp_path / "one.zarr") == matrix_bytes(tmp_path / "many.zarr")
    assert gpuconvert.verify(tmp_path / "many.zarr", source).ok
    main, (table, _) = read_table(tmp_path / "many.zarr"), read_cells(tmp_path / "many.zarr")
    np.testing.assert_allclose(table.obs["tic"], main.obs["tic"], rtol=1e-6)
    assert len(main.obs["tic"]) == len(frames) - 1


def test_a_killed_run_started_again_gives_the_same_bytes(tmp_path):
    source = write(tmp_path, image(30, 20))
    words = ("--mobility-bins", "5", "--bins", "3000")
    whole = start("run", source, tmp_path / "whole.zarr", *words)
    _, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    process = start("run", source, tmp_path / "o.zarr", *words)
    wait_for_parts(tmp_path / "o.zarr.partial", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "o.zarr").exists()
    again = start("run", source, tmp_path / "o.zarr", *words)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "from an earlier run" in out
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


@pytest.mark.real_data
def test_real_scans_keep_their_counts_in_both_tables(shared_data, tmp_path):
    # Real frames of a run that is no image, laid out as one.
    source = tmp_path / "pasef.d"
    source.mkdir()
    for name in ("analysis.tdf", "analysis.tdf_bin"):
        shutil.copyfile(shared_data / "bruker/mobiusklein__mzdata/diaPASEF.d" / name, source / name)
    connection = sqlite3.connect(source / "analysis.tdf")
    connection.execute("CREATE TABLE MaldiFrameInfo (Frame, XIndexPos, YIndexPos, RegionNumber)")
    connection.executemany(
        "INSERT INTO MaldiFrameInfo VALUES (?, ?, ?, 0)",
        [(2, 0, 0), (3, 1, 0), (4, 0, 1), (5, 2, 1)],
    )
    connection.commit()
    stated = connection.execute("SELECT SummedIntensities FROM Frames WHERE Id > 1 ORDER BY Id")
    totals = [row[0] for row in stated]
    connection.close()
    with pytest.raises(SourceError, match=r"4 frames are MS/MS, the first is frame 2 \(MsMsType 9"):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    gpuconvert.convert(
        source, tmp_path / "o.zarr", ms_level=2, mobility_bins=20, bin_ppm=20, pixel_size=10
    )
    main, (table, var) = read_table(tmp_path / "o.zarr"), read_cells(tmp_path / "o.zarr")
    np.testing.assert_allclose(main.obs["tic"], totals, atol=0.5)
    np.testing.assert_allclose(table.obs["tic"], main.obs["tic"], rtol=1e-6)
    assert len(np.unique(var["mobility_index"])) == 20
    checked = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert checked.ok, checked.lines()


def _change(store, array, place, value):
    found = zarr.open_group(store, mode="r+")[f"tables/msi_z0_mobility/{array}"]
    values = found[:]
    values[place] = value
    found[:] = values


@pytest.mark.parametrize(
    ("array", "place", "value", "words"),
    [
        ("X/data", 3, 1e6, "counts in m/z bin"),
        ("var/mobility", 5, 1.23, r"var/mobility is 1\.23 in cell 5, expected"),
        ("var/mz_index", 4, 2999, "does not follow the one before it"),
        ("var/mobility_index", 0, 99, "names bins that the axis does not have"),
        ("obs/tic", 0, 5.0, r"obs/tic is 5 in row 0, but that of its main table"),
    ],
)
def test_the_verifier_notices_a_changed_cell(tmp_path, array, place, value, words):
    source = write(tmp_path, image())
    gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=N_BINS, bins=3000)
    _change(tmp_path / "o.zarr", array, place, value)
    failed = [check for check in gpuconvert.verify(tmp_path / "o.zarr").checks if not check.ok]
    assert any(re.search(words, check.detail) for check in failed), failed


def test_the_verifier_notices_other_mobilities_in_the_source(tmp_path):
    frames = image()
    gpuconvert.convert(
        write(tmp_path, frames, name="a.d"), tmp_path / "o.zarr", mobility_bins=N_BINS, bins=3000
    )
    for frame in frames:
        frame.scans.reverse()
    other = write(tmp_path, frames, name="b.d")
    failed = [c for c in gpuconvert.verify(tmp_path / "o.zarr", other).checks if not c.ok]
    assert [check.name for check in failed] == ["source of msi_z0_mobility"]
    assert "counts, but the source has" in failed[0].detail


def test_counts_in_another_cell_of_the_same_mz_are_noticed(tmp_path):
    """The sums by m/z stay, and so do the checksums of what is written anew."""
    source = write(tmp_path, image())
    gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=N_BINS)
    group = zarr.open_group(tmp_path / "o.zarr", use_consolidated=False)["tables/msi_z0_mobility"]
    data, row, pointers = (group[f"X/{name}"][:] for name in ("data", "indices", "indptr"))
    column = np.repeat(group["var/mz_index"][:], np.diff(pointers))
    of_row = np.lexsort((column, row))
    one, two = of_row[:-1], of_row[1:]
    alike = (row[one] == row[two]) & (column[one] == column[two]) & (data[one] != data[two])
    pair = of_row[int(np.argmax(alike)) :][:2]
    data[pair] = data[pair[::-1]]
    group["X/data"][:] = data
    failed = [c for c in gpuconvert.verify(tmp_path / "o.zarr", source).checks if not c.ok]
    words = r"cell \d+ of row \d+ of tables/msi_z0_mobility holds .* but the source has .* of that"
    assert any(re.search(words, check.detail) for check in failed), failed


def test_what_has_no_mobility_or_would_not_fit_is_refused(tmp_path):
    source = write(tmp_path, image())
    for options in ({"method": "pchip"}, {"spectrum_type": "profile"}):
        with pytest.raises(SettingsError, match="--mobility-bins puts every peak into its nearest"):
            gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=5, **options)
    with pytest.raises(SettingsError, match="--threshold 2 would then leave out one by one"):
        gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=5, threshold=2.0)
    with pytest.raises(BudgetError, match="raise --memory"):
        gpuconvert.convert(source, tmp_path / "o.zarr", mobility_bins=5, memory=2**28)
    flat = write_tsf(tmp_path, [Frame(1, 1)], n_samples=100, name="flat.d")
    with pytest.raises(SourceError, match="is TSF, which holds no ion mobility; leave out"):
        gpuconvert.convert(flat, tmp_path / "o.zarr", mobility_bins=5)
    for rows, words in (
        ((), "calibration 1 of frame 1 is not in the table TimsCalibration"),
        ((STEEP | {"ModelType": 5},), "calibration 1 of frame 1 has ModelType 5, expected"),
        ((STEEP | {"C6": -1e9},), "gives no 1/K0 above 0"),
    ):
        bad = write_tdf(
            tmp_path, image(), n_samples=N_SAMPLES, mobility=rows, name=f"{len(words)}.d"
        )
        with pytest.raises(SourceError, match=words):
            gpuconvert.convert(bad, tmp_path / "o.zarr", mobility_bins=5)
    assert not list(tmp_path.glob("o.zarr*"))
