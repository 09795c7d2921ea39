import subprocess
import sys

import numpy as np

from gpuconvert.memory import (
    DEFAULT_CEILING,
    GIB,
    available,
    current_rss,
    default_budget,
    peak_rss,
)


def _machine(root, free_kib, *, limit=None, used=None, group="/job"):
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {free_kib} kB\n")
    (root / "proc/self/cgroup").write_text(f"0::{group}\n")
    if limit is not None:
        folder = root / "sys/fs/cgroup" / group.lstrip("/")
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text(f"{used}\n")
    return root


def test_a_machine_without_limits_has_what_is_free(tmp_path):
    assert available(_machine(tmp_path, 8 * 2**20)) == 8 * GIB


def test_a_control_group_leaves_its_limit_less_what_it_uses(tmp_path):
    assert available(_machine(tmp_path, 8 * 2**20, limit=3 * GIB, used=GIB)) == 2 * GIB


def test_a_group_without_a_limit_does_not_count(tmp_path):
    assert available(_machine(tmp_path, 2**20, limit="max", used=0)) == GIB


def test_an_older_kind_of_control_group_is_read(tmp_path):
    root = _machine(tmp_path, 8 * 2**20)
    folder = root / "sys/fs/cgroup/memory"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(str(GIB))
    (folder / "memory.usage_in_bytes").write_text(str(GIB // 4))
    assert available(root) == GIB - GIB // 4


def test_a_group_of_its_own_of_the_older_kind_is_read(tmp_path):
    root = _machine(tmp_path, 8 * 2**20)
    (root / "proc/self/cgroup").write_text("5:devices:/\n4:memory:/batch/job7\n0::/\n")
    for group, limit, used in (("", 9 * GIB, 0), ("batch", 3 * GIB, GIB), ("batch/job7", GIB, 0)):
        folder = root / "sys/fs/cgroup/memory" / group
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        (folder / "memory.usage_in_bytes").write_text(str(used))
    assert available(root) == GIB
    (root / "sys/fs/cgroup/memory/batch/memory.usage_in_bytes").write_text(str(3 * GIB - 1000))
    assert available(root) == 1000


def test_an_unknown_system_is_taken_for_a_small_one(tmp_path):
    assert available(tmp_path) == 2 * GIB


def test_the_default_is_a_quarter_of_what_is_free_and_never_above_its_ceiling():
    assert default_budget() <= DEFAULT_CEILING
    assert default_budget() <= available()


def test_the_peak_counts_what_was_touched():
    # In a process of its own: the peak of this one is that of whatever ran before.
    code = (
        "from gpuconvert.memory import peak_rss; before = peak_rss(); "
        "block = bytearray(b'x') * (before + 2**26); print(peak_rss() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) >= 2**25


def test_a_process_does_not_count_the_memory_of_the_one_that_started_it():
    held = np.ones(2**26)
    assert peak_rss() > held.nbytes
    code = "from gpuconvert.memory import peak_rss; print(peak_rss())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < held.nbytes / 2


def test_the_peak_is_at_least_what_is_held_now():
    held = bytearray(100 << 20)
    held[::4096] = b"x" * len(held[::4096])
    assert 100 << 20 < current_rss() <= peak_rss() + (1 << 20)
