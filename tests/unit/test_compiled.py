import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpuconvert

PROGRAM = """
import numpy as np
from gpuconvert.caller import twice
from gpuconvert.compiled import nothing_compiled_yet
print(nothing_compiled_yet(), twice(np.ones(1))[0])
"""

CALLER = """
from gpuconvert.callee import product
from gpuconvert.compiled import compiled

@compiled
def twice(x):
    return product(x)
"""

CALLEE = """
from gpuconvert.compiled import compiled
from gpuconvert.constants import FACTOR

@compiled
def product(x):
    return x * FACTOR + {}
"""


def _run(folder):
    """Return whether nothing was compiled before, and the result."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, result = done.stdout.split()
    return first == "True", float(result)


def test_a_change_behind_a_kernel_is_noticed(tmp_path):
    # A package of its own, so that its stamp and its cache are not those under test.
    package = tmp_path / "gpuconvert"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(gpuconvert.__file__).parent / "compiled.py", package)
    (package / "caller.py").write_text(CALLER)
    (package / "callee.py").write_text(CALLEE.format("0.0"))
    (package / "constants.py").write_text("FACTOR = 2.0")
    assert _run(tmp_path) == (True, 2.0)
    assert _run(tmp_path) == (False, 2.0)
    (package / "callee.py").write_text(CALLEE.format("1.25"))
    assert _run(tmp_path) == (True, 3.25)
    (package / "constants.py").write_text("FACTOR = 30.0")
    assert _run(tmp_path) == (True, 31.25)
