"""The suite itself: that it measures what it says, and keeps what it measured."""

from __future__ import annotations

import sys
import threading
import time

import numpy as np
import pytest

from benchmarks.naive import counts_pchip
from benchmarks.process import CommandError, run_once, summarise
from benchmarks.results import load, save
from benchmarks.stage_clock import CpuClock
from benchmarks.tables import fill, targets
from benchmarks.wholes import OURS, THYRA

MB = 10**6


def burn(seconds):
    """Use the processor for some CPU seconds of this thread."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_memory_of_a_command_is_its_own_and_not_that_of_its_parent():
    ballast = np.ones(400 * MB, np.uint8)
    usage = run_once([sys.executable, "-c", "a = bytearray(100_000_000); print(len(a))"])
    assert usage.stdout == "100000000\n"
    assert 100 * MB < usage.rss < 150 * MB < ballast.nbytes


def test_cpu_of_a_command_counts_its_children():
    burning = "import time\nwhile time.process_time() < 0.3: pass"
    usage = run_once([sys.executable, "-c", f"import subprocess, sys\n"
                      f"subprocess.run([sys.executable, '-c', {burning!r}])"])  # fmt: skip
    assert 0.3 <= usage.cpu < 2


def test_a_failing_command_has_no_figures():
    with pytest.raises(CommandError, match=r"ended with 3: .*ruined"):
        run_once(
            [sys.executable, "-c", "import sys; print('ruined', file=sys.stderr); sys.exit(3)"]
        )


def test_figures_are_least_and_median_seconds_and_most_memory():
    usage = run_once([sys.executable, "-c", "pass"])
    usages = [
        type(usage)(wall, cpu, rss, "") for wall, cpu, rss in ((3, 2, 7), (1, 5, 9), (2, 4, 8))
    ]
    figures = summarise(usages)
    found = [figures[name] for name in ("cpu", "cpu_median", "wall", "wall_median", "rss")]
    assert found == [2, 4, 1, 2, 9]


def test_cpu_time_is_credited_to_the_stage_that_used_it():
    clock = CpuClock()

    def work():
        with clock.inside("worker"):
            burn(0.1)
            with clock.inside("inner"):
                burn(0.2)

    helper = threading.Thread(target=burn, args=(0.15,))
    worker = threading.Thread(target=work)
    before = time.process_time()
    worker.start()
    worker.join()
    with clock.inside("with a helper"):
        helper.start()
        helper.join()
    seconds = clock.seconds()
    assert seconds["worker"] == pytest.approx(0.1, abs=0.02)
    assert seconds["inner"] == pytest.approx(0.2, abs=0.02)
    assert seconds["with a helper"] == pytest.approx(0.15, abs=0.03)
    assert sum(seconds.values()) == pytest.approx(time.process_time(), abs=0.02)
    assert sum(seconds.values()) - seconds["start"] >= time.process_time() - before - 0.02


def test_the_naive_converter_conserves_counts_and_smears_no_gap():
    mz = np.array([10.0, 10.1, 10.2, 10.3, 20.0, 20.1, 20.2]) ** 2
    counts = np.array([1.0, 4, 2, 1, 3, 5, 2])
    edges = np.array([9.0, 10.05, 10.36, 19.9, 21.0]) ** 2
    found = counts_pchip(mz, counts, edges)
    # The first edge lies between two cells; no count lies between 10.35 and 19.95.
    np.testing.assert_allclose(found, [1, 7, 0, 10], atol=1e-9)


def test_a_section_measured_again_keeps_what_was_not(tmp_path):
    path = tmp_path / "results.json"
    save(path, "processes", {"c64": {OURS: {"cpu": 3.0, "rss": 1}, THYRA: {"cpu": 9.0}}})
    save(path, "start", {"gpuconvert --help": {"cpu_median": 0.2}})
    save(path, "processes", {"c64": {OURS: {"cpu": 2.0}}, "p64": {OURS: {"cpu": 4.0}}})
    assert load(path)["processes"] == {
        "c64": {OURS: {"cpu": 2.0}, THYRA: {"cpu": 9.0}}, "p64": {OURS: {"cpu": 4.0}},
    }  # fmt: skip
    assert load(path)["start"] == {"gpuconvert --help": {"cpu_median": 0.2}}


def test_tables_are_replaced_between_their_markers_alone():
    text = "a\n<!-- table: start -->\nold\n<!-- end -->\nb\n"
    filled = fill(text, {"start": {"x": {"cpu_median": 0.25, "rss": 3 * MB}}})
    assert filled.startswith("a\n<!-- table: start -->\n| command |")
    assert filled.endswith("| `x` | 0.250 | 3 |\n<!-- end -->\nb\n")
    assert fill(filled, {}) == text.replace("old", "Not measured yet.")


def test_targets_say_what_is_reached_missed_and_not_measured():
    figures = {OURS: {"cpu": 2.0, "rss": 460 * MB, "projected": 500 * MB, "store": 1},
               THYRA: {"cpu": 30.0, "rss": 0, "store": 2}}  # fmt: skip
    table = targets({"processes": {"c256": figures}})
    assert "| `c256`, whole process, CPU: Thyra / ours | 15.0 times | >= 10 times | yes |" in table
    assert "| `c256`, peak RSS | 460 MB | <= 450 MB | **no** |" in table
    assert "| `p64`, peak RSS | not measured | <= 600 MB | ? |" in table
