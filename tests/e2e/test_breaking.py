"""What breaks off anywhere leaves nothing or all, and the same command completes it.

A conversion goes on where it was, an export starts anew. In the ordinary run of the tests
a sample of the places is tried; with ``-m slow`` all of them are, some 370 each.
"""

import json
import subprocess
import sys

import pytest

from tests.e2e.test_command_line import ENVIRONMENT


def _break(folder, *words):
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.breaking", str(folder), *words],
        capture_output=True, text=True, timeout=3000, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changes"] > 200
    return found


SAMPLED = [
    ("imzml", "csc", "run", "kill", "12"), ("imzml", "csr", "verbs", "kill", "12"),
    ("imzml", "csc", "verbs", "torn", "12"), ("imzml", "csr", "run", "torn", "12"),
    ("imzml", "csc", "run", "full", "12"), ("imzml", "csr", "verbs", "full", "12"),
    ("imzml", "csc", "verbs", "fault", "12"), ("imzml", "csr", "run", "fault", "12"),
    ("imzml", "csc", "run", "time", "12"), ("imzml", "csr", "verbs", "time", "12"),
    ("tsf", "csc", "run", "kill", "6"), ("tsf", "csr", "verbs", "full", "6"),
    ("tdf", "csr", "run", "torn", "6"), ("tdf", "csc", "verbs", "kill", "6"),
    ("mzpeak", "csc", "verbs", "fault", "6"), ("mzpeak", "csr", "run", "kill", "6"),
    ("imzml", "point", "export", "kill", "20"), ("imzml", "chunk", "export", "time", "6"),
    ("tdf", "chunk", "export", "full", "20"), ("tsf", "point", "export", "torn", "20"),
    ("mzpeak", "point", "export", "fault", "20"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "layout", "verbs", "how", "which"), SAMPLED)
def test_whatever_place_it_breaks_off_at_the_same_command_completes_it(
    tmp_path, kind, layout, verbs, how, which
):
    found = _break(tmp_path, kind, layout, verbs, how, which)
    assert found["tried"] == int(which)
    assert found["problems"] == []


COMBINATIONS = [
    *(("imzml", layout, verbs) for layout in ("csc", "csr") for verbs in ("run", "verbs")),
    ("tsf", "csc", "run"), ("tdf", "csr", "verbs"), ("mzpeak", "csc", "verbs"),
    ("imzml", "point", "export"), ("tdf", "chunk", "export"), ("mzpeak", "point", "export"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "torn", "full", "fault"])
@pytest.mark.parametrize(("kind", "layout", "verbs"), COMBINATIONS)
def test_every_place(tmp_path, kind, layout, verbs, how):
    found = _break(tmp_path, kind, layout, verbs, how, "all")
    assert found["tried"] == found["changes"]
    assert found["problems"] == []
