"""Where kernels are found, how they are compiled and kept, and what is said where they cannot."""

import tomllib
import zipfile

import pytest

from gpuconvert.backends import kernel_source
from gpuconvert.backends.kernel_source import (
    Resources,
    cubin_path,
    file_of_kernel,
    kernel_folder,
    load_nvrtc,
    read_resources,
)
from gpuconvert.errors import BackendError, KernelSourceError
from tests.conftest import CHECKOUT

KERNEL = """#include "word.cuh"
extern "C" __global__ void fill(float* out) {
    out[threadIdx.x] = WORD;
}
"""


class Compiler:
    """Stands for NVRTC: returns the sources, and counts."""

    version = (13, 5)

    def __init__(self):
        self.compiled = []

    def compile(self, name, folder, arch):
        """Return the text of all sources as the code."""
        self.compiled.append((name, arch))
        files = sorted(folder.glob("*.cu*"))
        return b"".join(file.read_bytes() for file in files), "log"


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder of one kernel and one header, and an empty cache."""
    monkeypatch.setenv("GPUCONVERT_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "fill.cu").write_text(KERNEL)
    (folder / "word.cuh").write_text("const float WORD = 1;\n")
    return folder


@pytest.fixture
def nvrtc():
    """The real compiler."""
    try:
        return load_nvrtc()
    except BackendError as error:
        pytest.skip(str(error))


def test_a_kernel_is_compiled_once(sources):
    compiler = Compiler()
    first = cubin_path("fill", 90, lambda: compiler, sources)
    assert cubin_path("fill", 90, lambda: compiler, sources) == first
    assert compiler.compiled == [("fill", 90)]
    assert first.name.startswith("fill-sm_90-")
    assert [file.name for file in first.parent.iterdir()] == [first.name]


def test_what_a_kernel_depends_on_makes_another_file(sources, monkeypatch):
    compiler = Compiler()
    found = [cubin_path("fill", 90, lambda: compiler, sources)]
    found.append(cubin_path("fill", 80, lambda: compiler, sources))
    (sources / "word.cuh").write_text("const float WORD = 2;\n")
    found.append(cubin_path("fill", 90, lambda: compiler, sources))
    monkeypatch.setattr(kernel_source, "OPTIONS", ("--fmad=true",))
    found.append(cubin_path("fill", 90, lambda: compiler, sources))
    compiler.version = (13, 6)
    found.append(cubin_path("fill", 90, lambda: compiler, sources))
    assert len(set(found)) == len(compiler.compiled) == 5
    assert b"WORD = 2" in found[-1].read_bytes()


def test_the_compiler_makes_an_elf_file_and_a_report(sources, nvrtc):
    code, log = nvrtc.compile("fill", sources, 90)
    assert code.startswith(b"\x7fELF")
    assert read_resources(log)["fill"].registers > 0
    assert cubin_path("fill", 90, lambda: nvrtc, sources).read_bytes() == code


def test_an_error_names_file_and_line(sources, nvrtc):
    (sources / "word.cuh").write_text("\nconst float WORD = bogus;\n")
    match = r'fill.cu does not compile for sm_90: word.cuh\(2\): error: identifier "bogus"'
    with pytest.raises(KernelSourceError, match=match):
        nvrtc.compile("fill", sources, 90)


def test_an_unknown_architecture_is_refused_by_name(sources, nvrtc):
    with pytest.raises(KernelSourceError, match="fill.cu does not compile for sm_12"):
        nvrtc.compile("fill", sources, 12)


def test_a_cache_that_cannot_be_written_is_named(sources, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GPUCONVERT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(BackendError, match=r"file/cache: Not a directory; set GPUCONVERT_CACHE"):
        cubin_path("fill", 90, Compiler, sources)


def test_the_cache_lies_where_the_system_says(tmp_path, monkeypatch):
    monkeypatch.delenv("GPUCONVERT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_source.cache_folder() == tmp_path / "gpuconvert" / "kernels"


def test_a_missing_compiler_is_said_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(kernel_source, "PACKAGES", ())
    monkeypatch.setattr(kernel_source, "LIBRARIES", ("libno-such-thing.so",))
    load_nvrtc.cache_clear()
    try:
        with pytest.raises(BackendError, match="not installed; pip install nvidia-cuda-nvrtc"):
            load_nvrtc()
    finally:
        load_nvrtc.cache_clear()


def test_a_compiler_newer_than_the_driver_is_passed_over(nvrtc):
    match = r"NVRTC is for CUDA \d+, the driver for 11; pip install .* \(nvidia-cuda-nvrtc-cu12"
    with pytest.raises(BackendError, match=match):
        load_nvrtc(11)
    assert load_nvrtc(nvrtc.version[0]).version == nvrtc.version


LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'one' for 'sm_90'
ptxas info    : Function properties for one
    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 32 registers, used 0 barriers
ptxas info    : Compiling entry function 'two' for 'sm_90'
ptxas info    : Function properties for two
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 7 registers
"""


def test_stack_and_spills_are_read_from_the_log():
    assert read_resources(LOG) == {"one": Resources(32, 8, 16), "two": Resources(7, 0, 0)}


def test_a_log_without_figures_is_refused():
    with pytest.raises(KernelSourceError, match="says nothing of the registers of one"):
        read_resources("Compiling entry function 'one' for 'sm_90'")


def test_every_kernel_has_a_file():
    assert file_of_kernel()["pyramid_u8"] == "pyramid"
    assert file_of_kernel()["decode"] == "decode"
    assert set(file_of_kernel().values()) == {file.stem for file in kernel_folder().glob("*.cu")}


def test_a_wheel_holds_every_kernel(tmp_path, monkeypatch):
    builder = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    made = next(builder.WheelBuilder(str(CHECKOUT)).build(directory=str(tmp_path)))
    names = set(zipfile.ZipFile(made).namelist())
    sources = {file.name for file in (CHECKOUT / "kernels").glob("*.cu*")}
    assert {f"gpuconvert/_kernels/{name}" for name in sources} <= names
    assert not [name for name in names if name.startswith("kernels/")]


def test_the_sources_are_named_for_wheel_and_archive():
    targets = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = targets["targets"]["wheel"]
    assert wheel["sources"] == {"kernels": "gpuconvert/_kernels"}
    assert {"kernels/*.cu", "kernels/*.cuh"} <= set(wheel["include"])
    assert "/kernels" in targets["targets"]["sdist"]["include"]
    assert not list((CHECKOUT / "kernels").rglob("*.py"))
