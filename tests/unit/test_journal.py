import json
import os
import threading
import time

import pytest

from gpuconvert.errors import OutputError
from gpuconvert.journal import Journal
from gpuconvert.stages import Monitor


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_stage_that_ended_well_is_a_line(tmp_path):
    journal = Journal(tmp_path / "log")
    monitor = Monitor(log=journal)
    with monitor.logged("index"):
        time.sleep(0.02)
    with pytest.raises(ValueError, match="broken"), monitor.logged("plan"):
        raise ValueError("broken")
    monitor.note("convert", 1.5, 4096, 7)
    journal.close()
    index, convert = _lines(tmp_path / "log")
    assert index["stage"] == "index"
    assert index["seconds"] >= 0.02
    assert (convert["partition"], convert["seconds"], convert["bytes"]) == (7, 1.5, 4096)
    for line in (index, convert):
        assert line["process"] == os.getpid()
        assert 2**20 < line["rss"] <= line["peak_rss"] + 2**20
        assert abs(line["time"] - time.time()) < 60
    assert "plan" in monitor.seconds()


def test_lines_of_threads_and_earlier_runs_stay_whole(tmp_path):
    def write():
        journal = Journal(tmp_path / "log")
        for index in range(200):
            journal.record("convert", 0.1, index, index)
        journal.close()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["bytes"] for line in _lines(tmp_path / "log")) == sorted([*range(200)] * 4)


def test_a_log_that_cannot_be_written_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(OutputError, match="--log-file .*nowhere/log cannot be written: No such"):
        Journal(tmp_path / "nowhere/log")


def test_a_full_disk_ends_the_log_and_not_the_run():
    journal = Journal("/dev/full")
    journal.record("convert", 0.1, 1, 1)
    journal.close()
