"""Disks that are full, read-only, gone or failing, and sources that change under the reader."""

import errno
import json
import os
import shutil
import subprocess

import numpy as np
import pytest

import gpuconvert
from gpuconvert import conversion, exporting, plan
from gpuconvert.errors import OutputError, SourceError, SourceReadError
from gpuconvert.settings import Settings
from gpuconvert.stages import Monitor
from tests.bruker_writer import Frame, write_tsf
from tests.e2e.data import pixels, store_bytes, write_centroid, write_profile
from tests.e2e.test_command_line import call, command, start


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    monkeypatch.setattr(plan, "MOST_PARTS", 10**9)
    monkeypatch.setattr("gpuconvert.planning.SLOT_BYTES", 2000)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, as `resize` makes it."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(size, *options):
        known = place.is_mount()
        words = ",".join([*(["remount"] if known else []), f"size={size}", *options])
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", words, "none", place], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        return place

    yield resize
    if place.is_mount():
        subprocess.run(["umount", "-l", place], check=True)


def test_a_disk_that_fills_up_is_told_in_a_line_and_more_room_is_enough(
    tmp_path, small_disk, capsys
):
    source = write_centroid(tmp_path, places=pixels(40, 30))
    disk = small_disk("300k")
    words = ("run", source, disk / "o.zarr", "--ignore-space")
    code, _, err = call(capsys, *words)
    assert code == 1
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert "run the same command again" in err
    assert not (disk / "o.zarr").exists()
    small_disk("100m")
    code, _, err = call(capsys, *words)
    assert code == 0, err
    call(capsys, "run", source, tmp_path / "whole.zarr")
    assert store_bytes(disk / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


def write_folder(folder, places):
    """Write a TSF folder of 40 peaks a frame."""
    rng = np.random.default_rng(1)
    made = []
    for x, y in places:
        index = np.sort(rng.choice(4000, 40, replace=False))
        made.append(Frame(x, y, line=(index + 0.5, rng.integers(1, 900, 40))))
    return write_tsf(folder, made, n_samples=4000, profile=False)


def write_archive(folder, places):
    """Write an mzPeak of profiles."""
    archive = folder / "source.mzpeak"
    exporting.run(write_profile(folder, places=places), archive, Settings())
    return archive


@pytest.mark.parametrize("write", [write_folder, write_archive])
def test_a_full_disk_stops_other_sources_alike(tmp_path, small_disk, capsys, write):
    source = write(tmp_path, pixels(40, 30))
    disk = small_disk("300k")
    words = ("run", source, disk / "o.zarr", "--ignore-space")
    code, _, err = call(capsys, *words)
    assert code == 1
    assert "No space left on device" in err
    assert not (disk / "o.zarr").exists()
    small_disk("100m")
    assert call(capsys, *words)[0] == 0
    assert call(capsys, "verify", disk / "o.zarr", source)[0] == 0


@pytest.mark.parametrize("layout", ["point", "chunk"])
def test_an_export_onto_a_disk_that_fills_up_leaves_nothing(tmp_path, small_disk, capsys, layout):
    source = write_profile(tmp_path, places=pixels(40, 30))
    disk = small_disk("300k")
    words = ("run", source, disk / "o.mzpeak", "--mzpeak-layout", layout)
    code, _, err = call(capsys, *words)
    assert code == 1
    assert "MB free, but the run may need" in err
    code, _, err = call(capsys, *words, "--ignore-space")
    assert code == 1
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert "run the same command again" in err
    assert not list(disk.iterdir())
    small_disk("100m")
    code, _, err = call(capsys, *words)
    assert code == 0, err
    call(capsys, "run", source, tmp_path / "whole.mzpeak", "--mzpeak-layout", layout)
    assert (disk / "o.mzpeak").read_bytes() == (tmp_path / "whole.mzpeak").read_bytes()


def test_a_disk_that_is_too_small_is_refused_before_anything_is_done(tmp_path, small_disk, capsys):
    source = write_centroid(tmp_path, places=pixels(40, 30))
    disk = small_disk("300k")
    code, _, err = call(capsys, "run", source, disk / "o.zarr")
    assert code == 1
    assert "MB free, but the run may need" in err
    assert "give --ignore-space" in err
    assert not list(disk.iterdir())
    scratch = tmp_path / "scratch"
    small_disk("64m")
    code, _, err = call(capsys, "run", source, disk / "o.zarr", "--temp-dir", scratch)
    assert code == 0, err


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from gpuconvert import cli
cli.main()
"""


def test_a_file_larger_than_allowed_is_told_in_a_line(tmp_path):
    source = write_centroid(tmp_path, places=pixels(40, 30))
    process = start("run", source, tmp_path / "o.zarr", code=LIMITED)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert err.count("\n") == 1
    assert "File too large" in err
    assert "run the same command again" in err
    assert not (tmp_path / "o.zarr").exists()
    assert command("run", source, tmp_path / "o.zarr").returncode == 0


def test_a_read_only_target_is_told_in_a_line(tmp_path, small_disk, capsys):
    disk = small_disk("1m", "ro")
    code, _, err = call(capsys, "run", write_centroid(tmp_path), disk / "o.zarr")
    assert code == 1
    assert err == (
        f"error: {disk}/o.zarr.partial cannot be written: Read-only file system; mend that or name "
        "another folder, and run the same command again\n"
    )


class _At(Monitor):
    """A monitor that does something once, after so many batches."""

    def __init__(self, batches, act):
        super().__init__()
        self._left, self._act = batches, act

    def advance(self, n_bytes, n_spectra=0):
        super().advance(n_bytes, n_spectra)
        if n_spectra:
            self._left -= 1
            if self._left == 0:
                self._act()


@pytest.mark.parametrize("what", ["parts", "."])
def test_a_work_folder_that_vanishes_is_told_and_the_same_command_begins_anew(
    tmp_path, small_parts, what
):
    source = write_profile(tmp_path)
    work = tmp_path / "o.zarr.partial"
    monitor = _At(4, lambda: shutil.rmtree(work / what))
    with pytest.raises((OutputError, ValueError), match="run the same command again|convert'"):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=monitor)
    assert not (tmp_path / "o.zarr").exists()
    conversion.run(source, tmp_path / "o.zarr", Settings(workers=1))
    gpuconvert.convert(source, tmp_path / "whole.zarr", workers=1)
    assert store_bytes(tmp_path / "o.zarr") == store_bytes(tmp_path / "whole.zarr")


def _shrink(path):
    os.truncate(path, path.stat().st_size // 2)


def _touch(path):
    os.utime(path, ns=(1, 1))


def _grow(path):
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [_shrink, _touch, _grow])
@pytest.mark.parametrize("suffix", [".ibd", ".imzML"])
def test_a_source_that_changes_during_the_run_is_refused(tmp_path, small_parts, change, suffix):
    source = write_profile(tmp_path)
    monitor = _At(4, lambda: change(source.with_suffix(suffix)))
    with pytest.raises(SourceError, match="changed .*start again"):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=monitor)
    assert not list(tmp_path.glob("o.zarr*"))


@pytest.mark.parametrize("change", [_shrink, _touch, _grow])
@pytest.mark.parametrize("name", ["test.d/analysis.tsf", "test.d/analysis.tsf_bin"])
def test_a_folder_that_changes_during_the_run_is_refused(tmp_path, small_parts, change, name):
    source = write_folder(tmp_path, pixels())
    monitor = _At(4, lambda: change(tmp_path / name))
    with pytest.raises(SourceError, match="changed .*start again|is it truncated|ended at byte"):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=monitor)
    assert not list(tmp_path.glob("o.zarr"))


@pytest.mark.parametrize("change", [_shrink, _touch, _grow])
def test_an_archive_that_changes_during_the_run_is_refused(tmp_path, small_parts, change):
    source = write_archive(tmp_path, pixels())
    monitor = _At(4, lambda: change(source))
    with pytest.raises(SourceError, match=r"changed .*start again"):
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1), monitor=monitor)
    assert not list(tmp_path.glob("o.zarr"))


@pytest.mark.parametrize("change", [_shrink, _touch, _grow])
def test_a_source_that_changes_during_an_export_is_refused(tmp_path, monkeypatch, change):
    monkeypatch.setattr(exporting, "SLOT_BYTES", 2000)
    source = write_profile(tmp_path)
    monitor = _At(1, lambda: change(source.with_suffix(".ibd")))
    with pytest.raises(SourceError, match="changed .*start again|ended at byte"):
        exporting.run(source, tmp_path / "o.mzpeak", Settings(), monitor=monitor)
    assert not list(tmp_path.glob("o.mzpeak*"))


def _failing(monkeypatch, reads, suffix=".ibd"):
    """Let the disk of the source fail at this read and all later ones."""
    read, left = os.preadv, [reads]

    def fail(handle, buffers, place):
        if os.readlink(f"/proc/self/fd/{handle}").endswith(suffix):  # noqa: PTH115
            left[0] -= 1
            if left[0] < 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(handle, buffers, place)

    monkeypatch.setattr(os, "preadv", fail)


def test_a_source_whose_disk_fails_keeps_what_is_finished(tmp_path, small_parts, monkeypatch):
    source = write_profile(tmp_path)
    # The sample takes one read a spectrum.
    _failing(monkeypatch, len(pixels()) + 6)
    words = (
        "test.ibd cannot be read: Input/output error; check its disk or network and run the same"
    )
    with pytest.raises(SourceReadError, match=words) as found:
        conversion.run(source, tmp_path / "o.zarr", Settings(workers=1))
    assert found.value.exit_code == 1
    done = len(list((tmp_path / "o.zarr.partial/parts").iterdir()))
    assert done > 0
    monkeypatch.undo()
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    assert conversion.run(source, tmp_path / "o.zarr", Settings(workers=1)).parts_reused == done


def test_a_folder_whose_disk_fails_keeps_what_is_finished(tmp_path, small_parts, monkeypatch):
    source = write_folder(tmp_path, pixels())
    settings = Settings(workers=1, axis="constant", bins=2000)
    # The sample takes one read a frame, and opening one to see where the last frame ends.
    _failing(monkeypatch, 1 + len(pixels()) + 3, ".tsf_bin")
    words = "analysis.tsf_bin cannot be read: Input/output error; check its disk or network and run"
    with pytest.raises(SourceReadError, match=words):
        conversion.run(source, tmp_path / "o.zarr", settings)
    done = len(list((tmp_path / "o.zarr.partial/parts").iterdir()))
    assert done > 0
    monkeypatch.undo()
    monkeypatch.setattr(plan, "PART_NONZEROS", 100)
    assert conversion.run(source, tmp_path / "o.zarr", settings).parts_reused == done


def test_one_partition_tells_of_its_source_and_its_target_in_a_line(
    tmp_path, small_parts, monkeypatch, capsys
):
    path, _ = conversion.make(write_profile(tmp_path), tmp_path / "o.zarr", Settings())
    with monkeypatch.context() as patch:
        _failing(patch, 0)
        code, _, err = call(capsys, "convert", path, 1)
        assert (code, err.count("\n")) == (1, 1)
        assert "test.ibd cannot be read: Input/output error" in err
    shutil.rmtree(path.parent / "parts")
    (path.parent / "parts").write_text("in the way")
    code, _, err = call(capsys, "convert", path, 1)
    assert (code, err.count("\n")) == (1, 1)
    assert "part 1 cannot be written" in err
    (path.parent / "parts").unlink()
    code, out, _ = call(capsys, "convert", path, 1)
    assert code == 0
    assert json.loads(out)["index"] == 1
