"""The programs that are measured beside this one, each in an environment of its own.

``python -m benchmarks.peers --make FOLDER`` makes the environments. A peer that is not
there is left out of the report, with a line that says so.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

THYRA = "thyra==4.6.0"
PIXEL_UM = "25"


def default_folder() -> Path:
    """Return where environments are made unless a folder is named."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "gpuconvert-benchmarks"


def _pythons() -> Iterator[Path]:
    """Yield what may be a Python 3.12, likeliest first."""
    on_path = shutil.which("python3.12")
    if on_path:
        yield Path(on_path)
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from sorted(root.glob("versions/3.12*/bin/python"), reverse=True)


def find_python() -> Path | None:
    """Return a Python 3.12 that runs, or None."""
    for candidate in _pythons():
        answer = subprocess.run(
            [candidate, "-c", "import sys; print(sys.version_info[:2] == (3, 12))"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if answer.stdout.strip() == "True":
            return candidate
    return None


def make_thyra(folder: Path) -> str:
    """Make Thyra's environment unless it is there; return a line that says what was done."""
    if thyra_python(folder) is not None:
        return f"{THYRA} is there already"
    python = find_python()
    if python is None:
        return f"{THYRA} is left out: it needs Python 3.12, and no python3.12 was found"
    place = folder / "thyra"
    inside = place / "bin" / "python"
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    subprocess.run([python, "-m", "venv", place], check=True)
    install = [uv, "pip", "install", "--python", inside] if uv else [inside, "-m", "pip", "install"]
    subprocess.run([*install, THYRA], check=True)
    return f"{THYRA} installed"


def thyra_python(folder: Path) -> Path | None:
    """Return the Python of Thyra's environment, or None where there is none."""
    python = folder / "thyra" / "bin" / "python"
    installed = list(folder.glob("thyra/lib/python3*/site-packages/thyra-4.6.0.dist-info"))
    return python if python.exists() and installed else None


def thyra_command(python: Path, source: Path, target: Path) -> list[str]:
    """Return the command that converts `source` with Thyra's own defaults."""
    return [str(python), "-m", "thyra", str(source), str(target), "--pixel-size", PIXEL_UM]


def main() -> None:
    """Make the environments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--make", type=Path, metavar="FOLDER", default=default_folder())
    print(make_thyra(parser.parse_args().make))


if __name__ == "__main__":
    main()
