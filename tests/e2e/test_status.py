"""What another terminal, a log and a person see of a long run."""

import json
import os
import signal
import time

import pytest

from gpuconvert import conversion, plan
from gpuconvert.errors import Stopped
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor
from gpuconvert.status import read_status
from tests.e2e.data import pixels, profile_spectra, write_centroid, write_profile
from tests.e2e.test_command_line import call, start


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)


class _Looks(Monitor):
    """A monitor that asks for the status of the output once half of the spectra are done."""

    def __init__(self, output, temp_dir=None, *, stops=False):
        super().__init__()
        self.output, self.temp_dir, self.stops = output, temp_dir, stops
        self.found, self._spectra = None, 0

    def advance(self, n_bytes, n_spectra=0):
        super().advance(n_bytes, n_spectra)
        self._spectra += n_spectra
        if self.found is None and self._spectra >= len(pixels()) // 2:
            self.found = read_status(self.output, self.temp_dir)
            if self.stops:
                self.stop()


@pytest.mark.parametrize("temp_dir", [None, "scratch"])
def test_a_run_is_seen_from_its_beginning_to_its_end(tmp_path, small_parts, temp_dir, capsys):
    output = tmp_path / "o.zarr"
    scratch = None if temp_dir is None else str(tmp_path / temp_dir)
    looks = _Looks(output, stops=True)
    settings = Settings(workers=1, temp_dir=scratch)
    source = write_profile(tmp_path)
    with pytest.raises(Stopped):
        conversion.run(source, output, settings, monitor=looks)
    assert looks.found.state == "running"
    assert looks.found.beat["process"] == os.getpid()
    assert looks.found.partitions > looks.found.finished > 0
    stopped = read_status(output)
    assert stopped.state == "interrupted"
    assert 0 < stopped.percent < 100
    assert stopped.rate > 0
    assert stopped.seconds_left > 0
    code, out, _ = call(capsys, "status", output)
    assert code == 0
    assert out.startswith(f"interrupted    {output}\n")
    assert "the same command continues" in out
    assert f"partitions     {stopped.finished} of {stopped.partitions} finished" in out
    assert "stage          convert, " in out
    assert "peak" in out
    code, out, _ = call(capsys, "status", output, "--json")
    assert json.loads(out)["percent"] == stopped.percent
    conversion.run(source, output, settings)
    code, out, _ = call(capsys, "status", output)
    assert out.startswith(f"finished       {output}\nmatrix         {len(pixels())} pixels x ")


def test_a_plan_is_followed_without_a_process_that_runs_it_all(tmp_path, small_parts):
    path, made = conversion.make(write_profile(tmp_path), tmp_path / "o.zarr", Settings())
    conversion.convert_part(path, 1)
    conversion.convert_part(path, 0)
    found = read_status(tmp_path / "o.zarr")
    assert (found.state, found.finished) == ("interrupted", 2)
    assert found.partitions == len(made.partitions)
    assert found.percent is None


def test_an_output_of_which_nothing_is_known_is_an_error(tmp_path, capsys):
    code, _, err = call(capsys, "status", tmp_path / "o.zarr")
    assert code == 1
    assert err.startswith(f"error: nothing is known of {tmp_path / 'o.zarr'}: there is neither a")


def test_a_log_has_a_line_for_every_stage_and_partition(tmp_path, small_parts, capsys):
    source = write_profile(tmp_path)
    log = tmp_path / "log.jsonl"
    code, out, _ = call(capsys, "run", source, tmp_path / "o.zarr", "--log-file", log)
    assert code == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    stages = [line["stage"] for line in lines]
    assert stages[:2] == ["index", "plan"]
    assert [stage for stage in stages if stage != "convert"][2:] == ["assemble", "quality", "store"]
    parts = [line for line in lines if line["stage"] == "convert"]
    assert sorted(line["partition"] for line in parts) == list(range(len(parts)))
    assert sum(line["bytes"] for line in parts) == sum(
        len(mz) * 12 for _, _, mz, _ in profile_spectra(pixels())
    )
    assert all(line["seconds"] > 0 and line["rss"] > 0 for line in lines)
    assert f"{len(parts)} parts" in out


STUCK = """
import sys, time
from gpuconvert import plan, cli, conversion
def never_looks(*args): time.sleep(60)
conversion.judge = never_looks
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_does_not_look_ends_within_five_seconds_all_the_same(tmp_path, number):
    source = write_centroid(tmp_path)
    process = start("run", source, tmp_path / "o.zarr", code=STUCK)
    while not (tmp_path / "o.zarr.partial/store/tables").exists():
        assert process.poll() is None
        time.sleep(0.05)
    begun = time.monotonic()
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert process.returncode == 75
    assert err == "stopped: run the same command again to continue\n"
    assert not (tmp_path / "o.zarr").exists()
    assert read_status(tmp_path / "o.zarr").state == "interrupted"


SIGNALLED = """
import os, sys
from gpuconvert import cli, pipeline
number = int(sys.argv.pop())
resample = pipeline.resample
def signalled(*args, **options):
    os.kill(os.getpid(), number)
    return resample(*args, **options)
pipeline.resample = signalled
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_partition_that_is_stopped_is_dropped_and_can_be_done_again(
    tmp_path, monkeypatch, number
):
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 2000)
    path, _ = conversion.make(write_centroid(tmp_path), tmp_path / "o.zarr", Settings())
    process = start("convert", path, 0, int(number), code=SIGNALLED)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert err == "stopped: run the same command again to continue\n"
    assert list((path.parent / "parts").iterdir()) == []
    assert conversion.convert_part(path, 0).n_spectra == len(pixels())


EARLY = """
import os, sys
from gpuconvert import cli
number = int(sys.argv.pop())
cli.app = lambda *words, **options: os.kill(os.getpid(), number)
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_before_anything_has_begun_ends_alike(tmp_path, number):
    process = start("run", "a.imzML", tmp_path / "o.zarr", int(number), code=EARLY)
    _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (75, "stopped: run the same command again to continue\n")


def test_a_second_signal_ends_at_once(tmp_path):
    process = start("run", write_centroid(tmp_path), tmp_path / "o.zarr", code=STUCK)
    while not (tmp_path / "o.zarr.partial/store/tables").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.3)
    begun = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 2
    assert (process.returncode, err) == (75, "stopped: run the same command again to continue\n")
