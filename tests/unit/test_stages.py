import threading
import time

import pytest

from gpuconvert.errors import Stopped
from gpuconvert.stages import Monitor, Step


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
