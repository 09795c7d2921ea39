"""Several processes on one output: one works, the others are told, and nothing is done twice."""

import os
import signal
import time

import pytest

from gpuconvert import conversion, pipeline, plan
from gpuconvert.settings import Settings
from tests.e2e.data import pixels, store_bytes, write_centroid, write_profile
from tests.e2e.test_command_line import command, start


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_centroid(tmp_path_factory.mktemp("source"), places=pixels(120, 80, missing=()))


def _begin(source, output):
    process = start("run", source, output)
    while not (output.with_name(f"{output.name}.partial") / "plan.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def test_the_second_is_told_who_holds_the_output_and_the_first_goes_on(tmp_path, source):
    output = tmp_path / "o.zarr"
    first = _begin(source, output)
    os.kill(first.pid, signal.SIGSTOP)
    second = command("run", source, output)
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: process {first.pid} on ")
    assert second.stderr.endswith(f" is already working on {output}; wait for it or stop it\n")
    _, err = first.communicate(timeout=120)
    assert first.returncode == 0, err
    assert command("verify", output, source).returncode == 0


def test_what_a_killed_process_held_is_free_at_once(tmp_path, source):
    output = tmp_path / "o.zarr"
    first = _begin(source, output)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert (tmp_path / "o.zarr.partial/lock").read_text().startswith(f"{first.pid} on ")
    second = command("run", source, output)
    assert second.returncode == 0, second.stderr


def test_several_workers_on_one_partition_leave_one_part(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)
    path, made = conversion.make(write_profile(tmp_path), tmp_path / "o.zarr", Settings())
    workers = [start("convert", path, 1) for _ in range(3)]
    for worker in workers:
        _, err = worker.communicate(timeout=60)
        assert worker.returncode == 0, err
    assert [part.name for part in (path.parent / "parts").iterdir()] == ["00001"]
    _meeting(path, monkeypatch)
    for index in range(len(made.partitions)):
        conversion.convert_part(path, index)
    conversion.assemble(path)
    conversion.run(tmp_path / "test.imzML", tmp_path / "whole.zarr", Settings())
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


def _meeting(path, monkeypatch):
    """Convert a partition that another worker finishes while this one is about to."""
    write = pipeline.write_part

    def late(*arguments, **options):
        monkeypatch.setattr(pipeline, "write_part", write)
        conversion.convert_part(path, 0)
        write(*arguments, **options)

    monkeypatch.setattr(pipeline, "write_part", late)
    assert conversion.convert_part(path, 0).index == 0
    names = sorted(part.name for part in (path.parent / "parts").iterdir())
    assert names == ["00000", "00001"]
