import os
import subprocess
import sys

import pytest

from gpuconvert.errors import OutputError
from gpuconvert.workspace import check_target, commit, discard, locked, workspace_for


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
            pytest.raises(OutputError, match=f"process {child.pid} is already working on"),
            locked(space),
        ):
            pass
    finally:
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()
    with locked(space):
        assert (space.work / "lock").read_text() == str(os.getpid())


def test_discarding_removes_everything(tmp_path):
    space = workspace_for(tmp_path / "out.zarr", str(tmp_path / "t"))
    _store(space.store)
    space.parts.mkdir(parents=True)
    discard(space)
    assert not space.staging.exists()
    assert not space.work.exists()
