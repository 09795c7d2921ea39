"""The command line as a user meets it: words, streams, exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gpuconvert import cli
from gpuconvert.errors import BackendError
from tests.e2e.data import pixels, store_bytes, write_centroid, write_profile
from tests.imzml_writer import write_imzml

# The checkout under test, also where a test works in another folder.
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


def command(*words, **options):
    """Run the program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "gpuconvert", *map(str, words)],
        capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT, **options,
    )  # fmt: skip


def call(capsys, *words):
    """Run the program in this process; return exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        cli.call([str(word) for word in words])
    out, err = capsys.readouterr()
    return ended.value.code or 0, out, err


def test_a_conversion_prints_what_was_detected_and_stored(tmp_path, capsys):
    source = write_profile(tmp_path)
    code, out, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 0
    assert err == ""
    for word in ("representation", "profile", "linear-tof", "matrix", "peaks", "lz4-5", "store"):
        assert word in out, word
    assert (tmp_path / "o.zarr/zarr.json").is_file()


def test_machines_get_json(tmp_path, capsys):
    source = write_profile(tmp_path)
    code, out, _ = call(capsys, "run", source, tmp_path / "o.zarr", "--json")
    value = json.loads(out)
    assert code == 0
    assert value["n_pixels"] == len(pixels())
    assert value["quality"]["tic_ratio_max_error"] < 1e-6
    code, out, _ = call(capsys, "inspect", source, "--json")
    assert json.loads(out)["source"]["spectra"] == len(pixels())


def test_an_inspection_says_everything_and_writes_nothing(tmp_path, capsys):
    source = write_centroid(tmp_path)
    before = sorted(tmp_path.iterdir())
    code, out, err = call(capsys, "inspect", source)
    assert code == 0, err
    for word in ("spectra", "grid of 5 x 3", "pixel size     10 x 10", "centroid", "memory"):
        assert word in out, word
    assert sorted(tmp_path.iterdir()) == before


def test_the_three_verbs_work_one_by_one(tmp_path, capsys):
    source = write_centroid(tmp_path)
    code, out, _ = call(capsys, "plan", source, tmp_path / "o.zarr")
    assert code == 0
    assert "partitions     0 to 0" in out
    plan = tmp_path / "o.zarr.partial/plan.json"
    code, out, _ = call(capsys, "convert", plan, 0)
    assert code == 0
    assert json.loads(out)["n_spectra"] == len(pixels())
    report = tmp_path / "quality.md"
    code, out, _ = call(capsys, "assemble", plan, "--quality-report", report)
    assert code == 0
    assert "peaks" in report.read_text()
    code, out, _ = call(capsys, "verify", tmp_path / "o.zarr", source)
    assert code == 0, out


def test_a_quality_report_is_written_as_its_name_says(tmp_path, capsys):
    source = write_centroid(tmp_path)
    report = tmp_path / "quality.json"
    code, _, _ = call(capsys, "run", source, tmp_path / "o.zarr", "--quality-report", report)
    assert code == 0
    json.loads(report.read_text())
    words = ("run", source, tmp_path / "p.zarr", "--quality-report", tmp_path / "q.html")
    code, _, err = call(capsys, *words)
    assert code == 2
    assert "available: .json, .md, .txt" in err
    assert not (tmp_path / "p.zarr").exists()


def test_a_wrong_word_is_a_usage_error(tmp_path, capsys):
    source = write_centroid(tmp_path)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr", "--method", "cubic")
    assert code == 2
    assert err.startswith("error: unknown --method 'cubic'; available: adaptive")
    code, _, err = call(capsys, "run", source)
    assert code == 2
    code, _, _ = call(capsys, "walk")
    assert code == 2


def test_a_missing_input_is_refused(tmp_path, capsys):
    code, _, err = call(capsys, "run", tmp_path / "no.imzML", tmp_path / "o.zarr")
    assert code == 3
    assert err == f"error: {tmp_path / 'no.imzML'} does not exist; check the path\n"
    (tmp_path / "notes.txt").write_text("x")
    code, _, err = call(capsys, "run", tmp_path / "notes.txt", tmp_path / "o.zarr")
    assert code == 3
    assert "is not a known kind of input: expected a name ending in .imzml" in err


def test_an_existing_output_is_an_error(tmp_path, capsys):
    source = write_centroid(tmp_path)
    assert call(capsys, "run", source, tmp_path / "o.zarr")[0] == 0
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 1
    assert "exists; give --overwrite to replace it" in err
    assert call(capsys, "run", source, tmp_path / "o.zarr", "--overwrite")[0] == 0


def test_a_backend_that_is_not_there_does_not_fall_back(tmp_path, capsys, monkeypatch):
    def missing():
        raise BackendError("no NVIDIA driver is loaded")

    monkeypatch.setattr("gpuconvert.backends.device._library", missing)
    source = write_centroid(tmp_path)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr", "--backend", "cuda")
    assert code == 1
    assert "backend cuda cannot be used here: no NVIDIA driver is loaded" in err
    assert not list(tmp_path.glob("o.zarr*"))


def test_devices_and_version_are_shown(capsys):
    code, out, _ = call(capsys, "devices")
    assert code == 0
    assert "numpy" in out
    assert "cuda" in out
    code, out, _ = call(capsys, "devices", "--json")
    assert {item["backend"] for item in json.loads(out)["backends"]} == {"numpy", "cpu", "cuda"}
    code, out, _ = call(capsys, "--version")
    assert out.startswith("gpuconvert ")


def test_a_trace_shows_the_stages_of_a_run(tmp_path, capsys):
    source = write_centroid(tmp_path)
    trace = tmp_path / "trace.json"
    code, _, _ = call(capsys, "run", source, tmp_path / "o.zarr", "--trace", trace)
    assert code == 0
    entries = json.loads(trace.read_text())["traceEvents"]
    names = {entry["name"] for entry in entries if entry["ph"] == "X"}
    assert {"read", "resample", "by_bin", "write part", "assemble"} <= names
    code, _, err = call(capsys, "run", source, tmp_path / "p.zarr", "--trace", tmp_path)
    assert code == 1
    assert f"trace {tmp_path} cannot be written: Is a directory" in err
    assert not list(tmp_path.glob("p.zarr*"))


def test_warnings_go_to_stderr(tmp_path, capsys):
    source = write_centroid(tmp_path, pixel_size=None)
    code, out, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 0
    assert "warning: " in err
    assert "--pixel-size" in err
    assert "warning: " not in out


def test_the_demo_converts_and_says_how_to_open_it(tmp_path):
    done = command("demo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "gpuconvert.open('gpuconvert-demo/demo.zarr')" in done.stdout
    checked = command("verify", "gpuconvert-demo/demo.zarr", "gpuconvert-demo/demo.imzML",
                      cwd=tmp_path)  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_damaged_store_does_not_pass(tmp_path, capsys):
    source = write_centroid(tmp_path)
    call(capsys, "run", source, tmp_path / "o.zarr")
    chunk = next(file for file in (tmp_path / "o.zarr/tables/msi_z0/X/data").rglob("c/*"))
    chunk.unlink()
    code, _, err = call(capsys, "verify", tmp_path / "o.zarr")
    assert code == 1
    assert "did not pass" in err


def test_tracebacks_are_shown_only_when_asked_for(tmp_path):
    words = ("run", tmp_path / "no.imzML", tmp_path / "o.zarr")
    assert "Traceback" not in command(*words).stderr
    shown = command("--debug", *words)
    assert "Traceback" in shown.stderr
    assert shown.returncode == 3


@pytest.fixture(scope="module")
def slow_source(tmp_path_factory):
    """A source whose conversion takes long enough to be interrupted."""
    places = pixels(120, 80, missing=((0, 0),))
    folder = tmp_path_factory.mktemp("slow")
    return write_centroid(folder, places=places)


# The smallest parts: the program's own preference would make one part of so little data.
MANY_PARTS = """
import sys
from gpuconvert import plan, cli
plan.PART_NONZEROS, plan.MOST_PARTS = 4000, 10**9
cli.main()
"""


def start(*words, code=MANY_PARTS):
    """Start the program, with small parts unless `code` says otherwise."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env=ENVIRONMENT,
    )  # fmt: skip


def wait_for_parts(folder, count, process):
    """Return once so many parts are finished, or the process ended."""
    for _ in range(6000):
        if len(list(folder.glob("parts/?????"))) >= count or process.poll() is not None:
            return
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_state_from_which_the_same_command_continues(
    tmp_path, slow_source, number
):
    words = ("run", slow_source, tmp_path / "o.zarr")
    process = start(*words)
    wait_for_parts(tmp_path / "o.zarr.partial", 3, process)
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err == "stopped: run the same command again to continue\n"
    assert not (tmp_path / "o.zarr").exists()
    again = start(*words)
    out, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert "from an earlier run" in out


def test_memory_stays_below_what_was_projected_and_that_below_the_budget(tmp_path, slow_source):
    words = ("run", slow_source, tmp_path / "o.zarr", "--memory", "700MiB", "--json")
    value = json.loads(command(*words).stdout)
    assert 0 < value["peak_memory"] <= value["projected_memory"] <= 700 * 2**20


def test_a_killed_run_started_again_gives_the_same_bytes(tmp_path, slow_source):
    whole = start("run", slow_source, tmp_path / "whole.zarr")
    whole.communicate(timeout=120)
    kills = 0
    for parts in (1, 6, 30, 10**6):
        words = ("run", slow_source, tmp_path / "o.zarr")
        process = start(*words)
        if parts == 10**6:
            # The last kill comes during assembly or the writing of the store.
            while process.poll() is None and not (tmp_path / "o.zarr.partial/store").exists():
                time.sleep(0.002)
        else:
            wait_for_parts(tmp_path / "o.zarr.partial", parts, process)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
    assert kills >= 3
    assert not (tmp_path / "o.zarr").exists()
    last = start(*words)
    out, err = last.communicate(timeout=120)
    assert last.returncode == 0, err
    assert "from an earlier run" in out
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")
    assert not list(tmp_path.glob("*.partial"))


def test_the_import_is_light():
    code = (
        "import sys, time; t = time.perf_counter(); import gpuconvert; "
        "spent = time.perf_counter() - t; "
        "print([m for m in ('numba', 'cupy', 'spatialdata', 'dask', 'zarr', 'numpy') "
        "if m in sys.modules], spent < 0.3)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT
    )
    assert done.stdout.strip() == "[] True"


def test_a_run_imports_neither_spatialdata_nor_dask(tmp_path):
    source = write_centroid(tmp_path)
    code = (
        "import sys, gpuconvert; gpuconvert.convert(*sys.argv[1:]); "
        "print([m for m in ('spatialdata', 'anndata', 'dask', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "o.zarr")],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.stdout.strip() == "[]", done.stderr


def test_a_name_with_spaces_and_a_newline_is_only_a_name(tmp_path, capsys):
    folder = tmp_path / "a b\nc"
    folder.mkdir()
    mz = [100.0, 200.0]
    source = write_imzml(
        folder, [(1, 1, mz, [1.0, 2.0])], representation="centroid", pixel_size=1.0
    )
    code, _, err = call(capsys, "run", source, folder / "o.zarr")
    assert code == 0, err
    code, out, err = call(capsys, "verify", folder / "o.zarr", source)
    assert code == 0, out + err
