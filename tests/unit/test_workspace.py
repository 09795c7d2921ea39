import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from gpuconvert.errors import OutputError
from gpuconvert.workspace import (
    check_room,
    check_target,
    commit,
    discard,
    is_held,
    locked,
    workspace_for,
)


def _store(path, text="new"):
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(text)


def test_unfinished_work_lies_beside_the_output(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    assert space.staging == space.work == tmp_path / "out.zarr.partial"
    assert space.plan == tmp_path / "out.zarr.partial/plan.json"


def test_two_outputs_of_one_name_do_not_share_a_temporary_folder(tmp_path):
    one = workspace_for(tmp_path / "a/out.zarr", str(tmp_path / "t"))
    two = workspace_for(tmp_path / "b/out.zarr", str(tmp_path / "t"))
    assert one.work.parent == two.work.parent == tmp_path / "t"
    assert one.work != two.work
    assert one.staging == tmp_path / "a/out.zarr.partial"


def test_an_existing_output_is_replaced_only_when_asked(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    check_target(space, overwrite=False)
    _store(space.output)
    with pytest.raises(OutputError, match=r"out.zarr exists; give --overwrite to replace it"):
        check_target(space, overwrite=False)
    check_target(space, overwrite=True)


def test_something_that_is_no_store_is_never_replaced(tmp_path):
    space = workspace_for(tmp_path / "thesis")
    space.output.mkdir()
    (space.output / "chapter1.tex").write_text("years of work")
    with pytest.raises(OutputError, match="thesis is not a Zarr store and is not replaced"):
        check_target(space, overwrite=True)


def test_an_output_without_a_folder_is_refused(tmp_path):
    with pytest.raises(OutputError, match="folder .*missing of the output does not exist"):
        check_target(workspace_for(tmp_path / "missing/out.zarr"), overwrite=False)


def test_a_commit_is_a_rename_and_leaves_nothing_behind(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    _store(space.store)
    (space.parts / "00000").mkdir(parents=True)
    commit(space)
    assert (space.output / "zarr.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_commit_replaces_an_older_store(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    _store(space.output, "old")
    _store(space.store, "new")
    commit(space)
    assert (space.output / "zarr.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["out.zarr"]


def test_a_failed_commit_puts_the_older_store_back(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    _store(space.output, "old")
    space.staging.mkdir()
    with pytest.raises(OutputError, match="cannot be renamed to .*; run the same command again"):
        commit(space)
    assert (space.output / "zarr.json").read_text() == "old"


def test_a_second_process_is_told_who_works_on_the_output(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    code = (
        "import sys; from pathlib import Path; from gpuconvert.workspace import *\n"
        "with locked(workspace_for(Path(sys.argv[1]))): print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(space.output)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout.readline() == "held\n"
        with (
            pytest.raises(OutputError, match=f"process {child.pid} on .* is already working on"),
            locked(space),
        ):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    with locked(space):
        assert (space.work / "lock").read_text().startswith(f"{os.getpid()} on ")


def test_discarding_removes_everything(tmp_path):
    space = workspace_for(tmp_path / "out.zarr", str(tmp_path / "t"))
    _store(space.store)
    space.parts.mkdir(parents=True)
    discard(space)
    assert not space.staging.exists()
    assert not space.work.exists()


def test_the_lock_of_a_process_that_was_killed_holds_nothing(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    code = (
        "import os, sys, signal; from pathlib import Path;"
        "from gpuconvert.workspace import locked, workspace_for;"
        "held = locked(workspace_for(Path(sys.argv[1]))); held.__enter__();"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(space.output)], check=False)
    assert ended.returncode == -9
    assert space.lock.read_text().partition(" ")[0].isdigit()
    assert not is_held(space)
    with locked(space):
        assert space.lock.read_text().split()[0] == str(os.getpid())


def test_whether_it_is_held_is_seen_without_taking_it(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    assert not is_held(space)
    with locked(space):
        assert is_held(space)
    assert not is_held(space)


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    space = workspace_for(tmp_path / "out.zarr")
    take, removed = fcntl.flock, []

    def remove_first(handle, how):
        if not removed:
            removed.append(handle)
            discard(space)
        return take(handle, how)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with locked(space):
        assert space.lock.exists()
        with pytest.raises(OutputError, match="is already working on"), locked(space):
            pass


def test_an_older_store_that_a_killed_commit_had_moved_aside_is_moved_back(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    _store(space.replaced, "old")
    with locked(space):
        assert (space.output / "zarr.json").read_text() == "old"
    assert not space.replaced.exists()


def test_a_disk_with_too_little_room_is_refused(tmp_path):
    space = workspace_for(tmp_path / "out.zarr")
    space.parts.mkdir(parents=True)
    check_room(space, temporary=1000, store=1000)
    needed = "2,000,000,000,000.0 MB there"
    words = rf"out.zarr.partial has .* MB free, but the run may need {needed}; make room, name"
    with pytest.raises(OutputError, match=words):
        check_room(space, temporary=10**18, store=10**18)


def test_what_finished_parts_hold_is_room_already_taken(tmp_path, monkeypatch):
    space = workspace_for(tmp_path / "out.zarr")
    space.parts.mkdir(parents=True)
    (space.parts / "data").write_bytes(bytes(600_000))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=500_000))
    check_room(space, temporary=700_000, store=400_000)
    with pytest.raises(OutputError, match="may need 1.2 MB"):
        check_room(space, temporary=800_000, store=400_000)


def test_a_durable_commit_writes_through_before_and_after_the_rename(tmp_path, monkeypatch):
    space = workspace_for(tmp_path / "out.zarr")
    _store(space.store)
    (space.store / "tables").mkdir()
    (space.store / "tables/c").write_text("chunk")
    seen = []
    sync = os.fsync

    def watched(handle):
        seen.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        sync(handle)

    monkeypatch.setattr(os, "fsync", watched)
    commit(space, durable=True)
    staged = str(space.store)
    assert set(seen[:-1]) == {staged, *(f"{staged}/{n}" for n in ("zarr.json", "tables",
                                                                  "tables/c"))}  # fmt: skip
    # What holds a name is written through after what it names; the last is the new name itself.
    assert seen.index(f"{staged}/tables/c") < seen.index(f"{staged}/tables") < seen.index(staged)
    assert seen[-1] == str(tmp_path)
