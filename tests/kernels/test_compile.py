"""Every kernel compiles for every architecture, within its registers, without stack or spills."""

import shutil
import subprocess
import tomllib

import pytest

from gpuconvert.backends.kernel_source import (
    OPTIONS,
    kernel_folder,
    kernel_names,
    load_nvrtc,
    read_resources,
)
from gpuconvert.errors import BackendError
from tests.conftest import CHECKOUT

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
SOURCES = sorted(kernel_folder().glob("*.cu"))


def with_nvrtc(arch):
    """Return what each kernel takes, and the cubins."""
    compiler = load_nvrtc()
    found, cubins = {}, []
    for source in SOURCES:
        cubin, log = compiler.compile(source.stem, kernel_folder(), arch)
        found |= read_resources(log)
        cubins.append(cubin)
    return found, cubins


def with_nvcc(arch, folder):
    """Return the same by the compiler of the CUDA toolkit, all files at once."""
    text = "".join(f'#include "{source.name}"\n' for source in SOURCES)
    (folder / "all.cu").write_text(text)
    options = [*OPTIONS[:-1], "-Xptxas", "-v", "-cubin", f"-arch=sm_{arch}"]
    command = ["nvcc", *options, f"-I{kernel_folder()}", "all.cu", "-o", "all.cubin"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return read_resources(done.stderr), [(folder / "all.cubin").read_bytes()]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_kernel_keeps_its_budget(arch, tmp_path):
    try:
        found, cubins = with_nvrtc(arch)
    except BackendError as error:
        if "does not compile" in str(error):
            raise
        if shutil.which("nvcc") is None:
            pytest.skip(f"neither NVRTC nor nvcc is here: {error}")
        found, cubins = with_nvcc(arch, tmp_path)
    assert all(cubin.startswith(b"\x7fELF") for cubin in cubins)
    budgets = tomllib.loads((CHECKOUT / "kernels" / "budgets.toml").read_text())
    assert found.keys() == budgets.keys()
    over = {name: took for name, took in found.items() if took.registers > budgets[name]}
    assert not over
    assert {(took.stack, took.spills) for took in found.values()} == {(0, 0)}


def test_one_kernel_a_file_named_after_it():
    for source in SOURCES:
        for name in kernel_names(source.read_text()):
            assert name == source.stem or name.startswith(f"{source.stem}_")


PAGE = ("Layout", "Units", "Launch", "Writes", "Oracle")


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_kernel_opens_with_its_page(source):
    page = source.read_text().partition("#include")[0]
    assert page.startswith(f"// {source.stem}: ")
    places = [page.index(f"// {word} ") for word in PAGE]
    assert places == sorted(places)
