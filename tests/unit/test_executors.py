import threading

import pytest

from gpuconvert.executors import SerialExecutor, default_workers, make_executor


def test_one_worker_runs_in_the_calling_thread():
    with make_executor(1) as executor:
        assert executor.submit(threading.get_ident).result() == threading.get_ident()


def test_several_workers_run_elsewhere():
    with make_executor(2) as executor:
        assert executor.submit(threading.get_ident).result() != threading.get_ident()


def test_what_a_call_raises_comes_out_of_its_future():
    future = SerialExecutor().submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        future.result()


def test_there_is_at_least_one_core():
    assert default_workers() >= 1
