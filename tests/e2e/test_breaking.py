"""A conversion that breaks off anywhere leaves nothing or all, and goes on where it was.

In the ordinary run of the tests a sample of the places is tried; with ``-m slow`` all of
them are, some 370 each.
"""

import json
import subprocess
import sys

import pytest

from tests.e2e.test_command_line import ENVIRONMENT


def _break(folder, layout, verbs, how, which):
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.breaking", str(folder), layout, verbs, how, which],
        capture_output=True, text=True, timeout=3000, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["changes"] > 200
    return found


SAMPLED = [
    ("csc", "run", "kill"), ("csr", "verbs", "kill"), ("csc", "verbs", "torn"),
    ("csr", "run", "torn"), ("csc", "run", "full"), ("csr", "verbs", "full"),
    ("csc", "verbs", "fault"), ("csr", "run", "fault"), ("csc", "run", "time"),
    ("csr", "verbs", "time"),
]  # fmt: skip


@pytest.mark.parametrize(("layout", "verbs", "how"), SAMPLED)
def test_whatever_place_it_breaks_off_at_the_same_command_completes_it(
    tmp_path, layout, verbs, how
):
    found = _break(tmp_path, layout, verbs, how, "12")
    assert found["tried"] == 12
    assert found["problems"] == []


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "torn", "full", "fault"])
@pytest.mark.parametrize("verbs", ["run", "verbs"])
@pytest.mark.parametrize("layout", ["csc", "csr"])
def test_every_place(tmp_path, layout, verbs, how):
    found = _break(tmp_path, layout, verbs, how, "all")
    assert found["tried"] == found["changes"]
    assert found["problems"] == []
