import json
import threading
import time

import pytest

from gpuconvert import stages
from gpuconvert.errors import OutputError, Stopped
from gpuconvert.stages import Monitor, Step, span, tracing


class Seen:
    def __init__(self):
        self.steps = []

    def step(self, step):
        self.steps.append(step)


def test_a_listener_sees_every_step():
    seen = Seen()
    monitor = Monitor(seen)
    monitor.begin("convert", 100, 4)
    monitor.advance(25, 1)
    assert seen.steps == [Step("convert", 0, 100, 0, 4), Step("convert", 25, 100, 1, 4)]


def test_a_new_stage_starts_from_nothing():
    seen = Seen()
    monitor = Monitor(seen)
    monitor.begin("convert", 100)
    monitor.advance(60)
    monitor.begin("assemble", 10)
    assert seen.steps[-1] == Step("assemble", 0, 10, 0, 0)


def test_times_of_threads_add_up():
    monitor = Monitor()

    def work():
        with monitor.timed("read"):
            time.sleep(0.02)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.seconds()["read"] >= 0.06


def test_a_stage_that_fails_is_timed_all_the_same():
    monitor = Monitor()
    with pytest.raises(ValueError, match="broken"), monitor.timed("read"):
        raise ValueError("broken")
    assert "read" in monitor.seconds()


def test_nothing_happens_until_a_stop_is_asked_for():
    monitor = Monitor()
    monitor.check()
    monitor.stop()
    with pytest.raises(Stopped, match="run the same command again"):
        monitor.check()


def test_a_trace_holds_every_span_with_its_thread_and_times(tmp_path):
    monitor = Monitor()
    path = tmp_path / "trace.json"

    def work():
        with monitor.timed("read"):
            time.sleep(0.01)

    with tracing(path):
        with span("h2d"):
            thread = threading.Thread(target=work, name="reader")
            thread.start()
            thread.join()
        with pytest.raises(ValueError, match="broken"), span("write"):
            raise ValueError("broken")
    entries = json.loads(path.read_text())["traceEvents"]
    names = {entry["tid"]: entry["args"]["name"] for entry in entries if entry["ph"] == "M"}
    spans = {entry["name"]: entry for entry in entries if entry["ph"] == "X"}
    assert spans.keys() == {"h2d", "read", "write"}
    assert names[spans["read"]["tid"]] == "reader"
    assert names[spans["h2d"]["tid"]] == names[spans["write"]["tid"]] == "MainThread"
    # Microseconds; the reader's span lies inside the one that waited for it.
    assert spans["read"]["dur"] >= 10_000
    assert spans["h2d"]["ts"] <= spans["read"]["ts"]
    ends = {name: entry["ts"] + entry["dur"] for name, entry in spans.items()}
    assert ends["read"] <= ends["h2d"] <= spans["write"]["ts"]


def test_a_trace_is_written_where_its_block_fails(tmp_path):
    path = tmp_path / "trace.json"
    with pytest.raises(Stopped), tracing(path), span("read"):
        raise Stopped("stopped on request")
    assert [entry["name"] for entry in json.loads(path.read_text())["traceEvents"][1:]] == ["read"]


def test_nothing_is_recorded_without_a_trace(tmp_path):
    with tracing(None), span("read"):
        assert not stages._recorders
    with tracing(tmp_path / "a.json"):
        pass
    assert not stages._recorders


def test_a_trace_that_cannot_be_written_is_refused_before_the_work(tmp_path):
    path = tmp_path / "none" / "trace.json"
    words = "trace.json cannot be written: No such file"
    with pytest.raises(OutputError, match=words), tracing(path):
        pytest.fail("the work began")
    assert not stages._recorders
