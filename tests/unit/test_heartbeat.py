import json
import os
import shutil

from gpuconvert import heartbeat
from gpuconvert.heartbeat import Heartbeat
from gpuconvert.stages import Monitor


def test_the_file_says_what_was_last_done(tmp_path):
    path = tmp_path / "status.json"
    monitor = Monitor()
    with Heartbeat(path, {"output": "o.zarr"}) as beat, monitor.heard_by(beat):
        assert json.loads(path.read_text())["stage"] == "begin"
        monitor.begin("convert", 100, 4)
        monitor.advance(25, 1)
    monitor.advance(50, 2)
    value = json.loads(path.read_text())
    assert (value["stage"], value["done_bytes"], value["total_bytes"]) == ("convert", 25, 100)
    assert (value["done_spectra"], value["total_spectra"]) == (1, 4)
    assert (value["output"], value["process"]) == ("o.zarr", os.getpid())
    assert value["begun"] <= value["seen"]
    assert value["rss"] > 2**20
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_it_is_written_again_and_again(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.01)
    path = tmp_path / "status.json"
    with Heartbeat(path, {}):
        for _ in range(2):
            path.unlink()
            for _ in range(1000):
                if path.exists():
                    break
                heartbeat.time.sleep(0.005)
            assert path.exists()


def test_a_folder_that_is_gone_does_no_harm_and_is_not_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(heartbeat, "SECONDS", 0.01)
    folder = tmp_path / "o.zarr.partial"
    folder.mkdir()
    with Heartbeat(folder / "status.json", {}):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        heartbeat.time.sleep(0.05)
    assert not folder.exists()
