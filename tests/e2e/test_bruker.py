"""Whole runs on Bruker folders: what comes out, and what the verifier makes of it."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import zarr

import gpuconvert
from gpuconvert import cli, conversion
from gpuconvert.errors import SourceError
from gpuconvert.settings import Settings
from tests.bruker_reference import mz_of_index
from tests.bruker_writer import MODEL_1, MODEL_2, Frame, write_tdf, write_tsf
from tests.e2e.data import read_table, store_bytes
from tests.e2e.test_command_line import command, start, wait_for_parts

N_SAMPLES = 60_000


def image(nx=6, ny=4, seed=0, **same):
    """Frames of an image: ions at shared indices that scatter, some frames empty."""
    rng = np.random.default_rng(seed)
    ions = np.sort(rng.choice(np.arange(500, N_SAMPLES - 500, 40), 60, replace=False))
    frames = []
    for y in range(ny):
        for x in range(nx):
            chosen = np.sort(rng.choice(ions, 40 if (x + y) % 4 else 0, replace=False))
            line = np.sort(chosen + rng.normal(0, 0.3, len(chosen)))
            counts = rng.integers(1, 900, len(chosen))
            shape = np.array([1, 4, 9, 12, 8, 4, 1])
            samples = (chosen[:, None] + np.arange(-3, 4)).ravel()
            profile = dict(zip(samples.tolist(), (counts[:, None] * shape).ravel().tolist()))
            half = len(chosen) // 2
            frames.append(
                Frame(
                    100 + x, 50 + y, line=(line, counts), profile=profile,
                    scans=[(chosen, counts), (chosen[:half], counts[:half]), ([], [])],
                    t1=25.0 + 0.01 * x, **same,
                )
            )  # fmt: skip
    return frames


def write_kind(kind, folder, frames, **options):
    if kind in ("line", "profile"):
        return write_tsf(folder, frames, n_samples=N_SAMPLES, **options)
    compression = 1 if kind == "lzf" else 2
    return write_tdf(folder, frames, n_samples=N_SAMPLES, compression=compression, **options)


def totals(kind, frames):
    """Counts of every frame, by the definition of its kind."""
    if kind == "line":
        return [sum(frame.line[1]) for frame in frames]
    if kind == "profile":
        return [sum(frame.profile.values()) for frame in frames]
    return [
        sum(sum(counts) for _, counts in frame.scans) * 100 / frame.accumulation for frame in frames
    ]


KINDS = ["line", "profile", "scans", "lzf"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", [1, 2])
def test_every_kind_is_converted_and_verified(tmp_path, kind, model):
    frames = image(accumulation=40.0, polarity="-" if model == 2 else "+")
    rows = [MODEL_1 if model == 1 else MODEL_2]
    source = write_kind(kind, tmp_path, frames, calibrations=rows)
    options = {"spectrum": kind} if kind in ("line", "profile") else {}
    summary = gpuconvert.convert(source, tmp_path / "o.zarr", **options)
    table = read_table(tmp_path / "o.zarr")
    np.testing.assert_allclose(table.obs["tic"], totals(kind, frames), rtol=1e-6)
    np.testing.assert_array_equal(table.obs["x"], np.tile(np.arange(6), 4))
    assert summary.n_pixels == len(frames)
    assert summary.quality.peaks_kept > 0.99
    found = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert found.ok, found.lines()
    # An ion of the first full frame is in the bin that its m/z falls in.
    row = next(k for k, frame in enumerate(frames) if len(frame.line[0]))
    frame = frames[row]
    index = frame.line[0][0] if kind == "line" else float(frame.scans[0][0][0])
    mz = mz_of_index(index, rows[0], frame.t1, frame.t2)
    nearest = np.abs(table.mz - mz).argmin()
    assert table.x[row, nearest] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_verifier_notices_another_source(tmp_path, kind):
    source = write_kind(kind, tmp_path, image(), name="a.d")
    options = {"spectrum": kind} if kind in ("line", "profile") else {}
    gpuconvert.convert(source, tmp_path / "o.zarr", **options)
    other = image()
    other[1].line[1][0] += 50
    other[1].profile[next(iter(other[1].profile))] += 50
    other[1].scans[0][1][0] += 50
    found = gpuconvert.verify(tmp_path / "o.zarr", write_kind(kind, tmp_path, other, name="b.d"))
    assert "source tic" in [check.name for check in found.checks if not check.ok]
    hotter = [MODEL_1 | {"T1": 26.5}]
    warm = write_kind(kind, tmp_path, image(), name="c.d", calibrations=hotter)
    found = gpuconvert.verify(tmp_path / "o.zarr", warm)
    assert {"mean m/z", "bin contents"} & {check.name for check in found.checks if not check.ok}


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE MaldiFrameInfo SET RegionNumber = 2 WHERE Frame = 9",
         "obs/region_number is 0 at x=2, y=1, z=0, but the source says 2 (1 pixels differ)"),
        ("UPDATE Frames SET Polarity = '-' WHERE Id > 6",
         "obs/polarity is 1 at x=0, y=1, z=0, but the source says -1 (18 pixels differ)"),
    ],
)  # fmt: skip
def test_the_verifier_notices_another_region_and_polarity(tmp_path, statement, words):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES)
    gpuconvert.convert(source, tmp_path / "o.zarr")
    other = write_tsf(
        tmp_path, image(), n_samples=N_SAMPLES, name="other.d",
        change=lambda connection: connection.execute(statement),
    )  # fmt: skip
    found = gpuconvert.verify(tmp_path / "o.zarr", other)
    failed = [check.detail for check in found.checks if not check.ok]
    assert failed == [words]


def test_a_spectrum_that_the_source_does_not_have_fails_in_words(tmp_path, capsys):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES)
    gpuconvert.convert(source, tmp_path / "o.zarr")
    frames = image()
    frames[0], frames[1] = frames[1], frames[0]
    frames[0].x, frames[1].x = 100, 101
    other = write_tsf(tmp_path, frames, n_samples=N_SAMPLES, name="other.d")
    code, out, err = call(capsys, "verify", tmp_path / "o.zarr", other)
    assert code == 1
    assert "in bins where the source has none of them" in out
    assert err.count("\n") == 1


def test_a_selection_is_verified_as_it_was_made(tmp_path):
    frames = image(4, 3) + image(3, 3, seed=1, region=2)
    for frame in frames[12:]:
        frame.x += 40
    frames[3].ms_type = frames[14].ms_type = 2
    source = write_tdf(tmp_path, frames, n_samples=N_SAMPLES)
    gpuconvert.convert(source, tmp_path / "o.zarr", region=[2], ms_level=1)
    table = zarr.open_group(tmp_path / "o.zarr", mode="r")["tables/msi_z0"]
    assert set(table["obs/region_number"][:].tolist()) == {2}
    assert table["obs/acquisition_order"][:].tolist() == [12, 13, *range(15, 21)]
    parameters = json.loads(table["uns/gpuconvert/parameters"][()])
    assert (parameters["region"], parameters["ms_level"]) == ([2], 1)
    found = gpuconvert.verify(tmp_path / "o.zarr", source)
    assert found.ok, found.lines()


def test_a_chord_is_marked_in_the_store(tmp_path):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES, calibrations=())
    with pytest.raises(SourceError, match="give --calibration chord to approximate it"):
        gpuconvert.convert(source, tmp_path / "o.zarr")
    summary = gpuconvert.convert(source, tmp_path / "o.zarr", calibration="chord")
    assert any("m/z of 24 frames are approximate" in text for text in summary.warnings)
    uns = zarr.open_group(tmp_path / "o.zarr", mode="r")["tables/msi_z0/uns/gpuconvert"]
    assert json.loads(uns["header"][()])["mz_calibration"] == "chord"
    assert gpuconvert.verify(tmp_path / "o.zarr", source).ok


def test_a_folder_gives_the_same_bytes_wherever_it_lies(tmp_path):
    frames = image()
    source = write_tsf(tmp_path, frames, n_samples=N_SAMPLES)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copytree(source, moved / source.name)
    for store, folder in (("a.zarr", source), ("b.zarr", moved / source.name)):
        gpuconvert.convert(folder, tmp_path / store)
    assert store_bytes(tmp_path / "a.zarr") == store_bytes(tmp_path / "b.zarr")


@pytest.mark.parametrize("kind", ["profile", "scans"])
def test_a_killed_run_started_again_gives_the_same_bytes(tmp_path, kind):
    source = write_kind(kind, tmp_path, image(60, 40))
    options = ("--spectrum", "profile") if kind == "profile" else ()
    whole = start("run", source, tmp_path / "whole.zarr", *options)
    out, err = whole.communicate(timeout=300)
    assert whole.returncode == 0, err
    words = ("run", source, tmp_path / "o.zarr", *options)
    process = start(*words)
    wait_for_parts(tmp_path / "o.zarr.partial", 2, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "o.zarr").exists()
    again = start(*words)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert "from an earlier run" in out
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("profile", ("--spectrum", "profile")),
        ("scans", ("--mobility-bins", "20", "--bins", "4000")),
    ],
)
def test_memory_stays_below_what_was_projected(tmp_path, kind, options):
    source = write_kind(kind, tmp_path, image(60, 40))
    done = command("run", source, tmp_path / "o.zarr", "--json", *options)
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert 0 < value["peak_memory"] <= value["projected_memory"]


def call(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        cli.call([str(word) for word in words])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_the_command_line_says_what_is_converted(tmp_path, capsys):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES)
    code, out, err = call(capsys, "inspect", source)
    assert code == 0
    for words in ("Bruker TSF", "grid of 6 x 4", "20 x 20 µm (stage positions", "timsTOF fleX"):
        assert words in out, words
    assert "the line spectra are converted, give --spectrum profile for the others" in err
    code, out, err = call(capsys, "run", source, tmp_path / "o.zarr", "--region", "0,7")
    assert code == 3
    assert "has no region 7, only 0" in err
    assert not list(tmp_path.glob("o.zarr*"))
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr", "--region", "x")
    assert code == 2
    assert "--region 'x' is not clear; write it like 2 or 0,2" in err


@pytest.mark.parametrize("kind", ["line", "scans"])
def test_inspect_shows_the_axis_of_run(tmp_path, capsys, kind):
    write = write_tdf if kind == "scans" else write_tsf
    source = write(tmp_path, image(), n_samples=N_SAMPLES)
    options = ("--axis", "tof", "--bin-ppm", "50", "--json")
    shown = json.loads(call(capsys, "inspect", source, *options)[1])["axis"]
    made = json.loads(call(capsys, "run", source, tmp_path / "o.zarr", *options)[1])
    assert shown["n_bins"] == made["n_bins"]


def test_a_folder_may_be_named_from_within_or_by_a_link(tmp_path, capsys, monkeypatch):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES, name="two words.D")
    (tmp_path / "link.d").symlink_to(source)
    monkeypatch.chdir(source)
    for number, name in enumerate((".", "../two words.D/", "../link.d")):
        assert call(capsys, "run", name, f"../{number}.zarr")[0] == 0
        assert call(capsys, "verify", f"../{number}.zarr", name)[0] == 0
    code, _, err = call(capsys, "run", "analysis.tsf", "../o.zarr")
    assert code == 3
    assert (
        "expected a name ending in .imzml, .imzml.gz, .d, .mzpeak; name the .d folder, not" in err
    )


def test_a_recipe_of_three_verbs_works(tmp_path, capsys):
    source = write_tdf(tmp_path, image(), n_samples=N_SAMPLES)
    assert call(capsys, "plan", source, tmp_path / "o.zarr")[0] == 0
    plan = tmp_path / "o.zarr.partial/plan.json"
    assert call(capsys, "convert", plan, 0)[0] == 0
    assert call(capsys, "assemble", plan)[0] == 0
    assert call(capsys, "verify", tmp_path / "o.zarr", source)[0] == 0
    code, _, err = call(capsys, "verify", tmp_path / "o.zarr", source, "--ibd", "a.ibd")
    assert code == 2
    assert "--ibd has no meaning for a .d folder" in err


def test_what_is_no_image_is_shown_and_not_converted(tmp_path, capsys):
    source = write_tsf(tmp_path, image(), n_samples=N_SAMPLES, spots=False)
    code, out, _ = call(capsys, "inspect", source)
    assert code == 0
    assert "spectra        24, no imaging data" in out
    assert "pixel size" not in out
    assert (
        json.loads(call(capsys, "inspect", source, "--json")[1])["source"]["pixel_size_um"] is None
    )
    for verb in ("run", "plan"):
        code, _, err = call(capsys, verb, source, tmp_path / "o.zarr")
        assert code == 3
        assert "is no imaging data: none of its 24 spectra has a position" in err
        assert not list(tmp_path.glob("o.zarr*"))


REAL = "bruker/vandeplaslab__imzy/example_tsf.d"


@pytest.mark.real_data
def test_the_published_image_is_converted_both_ways(shared_data, tmp_path):
    source = shared_data / REAL
    tics, laws = {}, {}
    for kind in ("line", "profile"):
        store = tmp_path / f"{kind}.zarr"
        summary = gpuconvert.convert(source, store, spectrum=kind)
        assert (summary.n_spectra, summary.n_pixels) == (400, 400)
        table = read_table(store)
        assert len(table.obs["tic"]) == 400
        np.testing.assert_allclose(table.obs["tic"], table.obs["source_tic"], rtol=1e-6)
        tics[kind] = table.obs["tic"]
        law = next(line.split()[1] for line in summary.decision if line.startswith("law"))
        laws[kind] = law
        found = gpuconvert.verify(store, source)
        assert found.ok, found.lines()
    # Constant ppm for picked peaks, as the header says; equal steps of time for samples.
    assert laws == {"line": "reflector-tof", "profile": "linear-tof"}
    line, profile = tics["line"], tics["profile"]
    assert (line == 0).sum() == 103
    # Picking peaks leaves counts out, and never adds any.
    assert (line <= profile * (1 + 1e-6)).all()
    assert np.corrcoef(line, profile)[0, 1] > 0.999
    assert 0.85 < line.sum() / profile.sum() < 1
    bright = profile > 1e5
    assert (line[bright] > 0.85 * profile[bright]).all()


def test_a_line_peak_beyond_the_digitizer_is_refused(tmp_path):
    frames = [Frame(1 + k, 1, line=([5.5, 150.0], [3, 40])) for k in range(6)]
    source = write_tsf(tmp_path, frames, n_samples=100, profile=False)
    words = "frame 1 is damaged: a peak lies outside the digitizer's range; copy it again"
    with pytest.raises(SourceError, match=words):
        gpuconvert.convert(source, tmp_path / "o.zarr", axis="constant", bins=50)
    assert not list(tmp_path.glob("o.zarr*"))


def test_every_worker_has_memory_planned_to_add_up_scans(tmp_path):
    """The compiled loop holds 8 bytes and a bit for each sample of the digitizer."""
    frames = [Frame(k + 1, 1, scans=[([3, 5], [1, 2])]) for k in range(40)]
    memory = {}
    for n_samples in (10**3, 10**7):
        source = write_tdf(tmp_path, frames, n_samples=n_samples, name=f"{n_samples}.d")
        for workers in (1, 3):
            settings = Settings(axis="constant", bins=50, mz_range=(100, 900), workers=workers)
            _, plan = conversion.make(source, tmp_path / f"{n_samples} {workers}.zarr", settings)
            assert plan.layout.workers == workers
            memory[n_samples, workers] = plan.projection.memory
    for workers in (1, 3):
        more = memory[10**7, workers] - memory[10**3, workers]
        assert more >= workers * (8 + 1 / 8) * (10**7 - 10**3)
