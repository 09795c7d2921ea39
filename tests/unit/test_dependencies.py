"""The bounds of pyproject.toml are those that are tested, and nothing unsafe is called."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "gpuconvert").rglob("*.py"))


def _version(text):
    """A version without its zeros at the end: 2.0 and 2.0.0 are one."""
    return re.sub(r"(\.0)+$", "", text)


def test_every_dependency_has_a_lower_bound_and_that_is_what_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    bounds = {}
    for entry in project["dependencies"]:
        found = re.match(r"([\w-]+)>=([\d.]+)", entry)
        assert found, f"{entry} has no lower bound"
        bounds[found[1]] = _version(found[2])
    lines = (ROOT / ".ci/lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: _version(pin) for name, pin in pins.items()} == bounds


def _names(tree):
    """Every name that is called or imported, with its module where that stands there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)
            for keyword in node.keywords:
                if keyword.arg == "shell":
                    yield f"shell={ast.unparse(keyword.value)}"
                if keyword.arg == "allow_pickle":
                    yield f"allow_pickle={ast.unparse(keyword.value)}"


UNSAFE = {
    "pickle", "cPickle", "dill", "marshal", "shelve", "eval", "exec", "os.system", "os.popen",
    "shell=True", "allow_pickle=True", "yaml.load", "yaml", "subprocess", "ctypes.pythonapi",
}  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_unpickled_evaluated_or_given_to_a_shell(path):
    found = set(_names(ast.parse(path.read_text()))) & UNSAFE
    assert not found
