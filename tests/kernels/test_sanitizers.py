"""The emulated kernels under the address and undefined-behaviour sanitizers."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels.emulator import SANITIZE

HERE = Path(__file__).parent
TESTS = ("test_emulation.py", "test_frames.py", "test_other_kernels.py")


def run_sanitized(*arguments):
    """Run Python with the sanitizers' runtime loaded first, as their libraries need it."""
    runtime = subprocess.run(
        ["g++", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Python itself leaves memory behind at its end, and Numba's code knows no red zones.
    environment = os.environ | {
        "LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0", SANITIZE: "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, *arguments], cwd=HERE.parents[1], env=environment, capture_output=True,
        text=True,
    )  # fmt: skip


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_nothing_is_read_or_written_out_of_place():
    files = [str(HERE / name) for name in TESTS]
    done = run_sanitized("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ here")
def test_the_sanitizers_find_what_they_are_asked_for():
    # One value less than the kernel was told of: its last read is out of place.
    code = (
        "import numpy as np\n"
        "from tests.kernels.emulator import EmulatedQueue\n"
        "bins = np.zeros(1000, np.int32)[:999].copy()\n"
        "key = np.zeros(1000, np.uint64)\n"
        "EmulatedQueue().launch('bin_keys', 1, bins, np.int64(1000), np.int32(9), key)\n"
    )
    done = run_sanitized("-c", code)
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert "bin_keys.cu" in done.stderr
