import os
import shutil
import subprocess
import sys
from pathlib import Path

import gpuconvert

PROGRAM = """
import numpy as np
from pkg.caller import twice
print(twice(np.ones(1))[0])
"""

CALLER = """
from gpuconvert.compiled import compiled
from pkg.callee import factor

@compiled
def twice(x):
    return x * factor()
"""

CALLEE = """
from gpuconvert.compiled import compiled

@compiled
def factor():
    return {}
"""


def _run(folder):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(done.stdout)


def test_a_change_in_a_function_that_a_kernel_calls_is_noticed(tmp_path):
    # A package of its own, so that its stamp and its cache are not those under test.
    package = tmp_path / "gpuconvert"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copy(Path(gpuconvert.__file__).parent / "compiled.py", package)
    kernels = tmp_path / "pkg"
    kernels.mkdir()
    (kernels / "__init__.py").touch()
    (kernels / "caller.py").write_text(CALLER)
    (kernels / "callee.py").write_text(CALLEE.format("2.0"))
    (package / "rest.py").write_text("version = 1")
    assert _run(tmp_path) == 2.0
    (kernels / "callee.py").write_text(CALLEE.format("30.0"))
    (package / "rest.py").write_text("version = 22")
    assert _run(tmp_path) == 30.0
