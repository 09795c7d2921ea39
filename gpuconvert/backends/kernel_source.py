"""The CUDA sources of `kernels/`, and their compiled form: made by NVRTC, kept on disk.

NVRTC is a library that compiles without a device. Every kernel file becomes one cubin of
the architecture at hand, under a name that covers all sources, the options and the
version of NVRTC: a change of any of them is another file.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from gpuconvert.errors import BackendError, KernelSourceError

OPTIONS = (
    "--std=c++17",
    # Sums and products round one by one, as on the CPU: equal operands give equal bits.
    "--fmad=false",
    # NVRTC's defaults, said because results depend on them: IEEE 754 with subnormals.
    "--ftz=false",
    "--prec-div=true",
    "--prec-sqrt=true",
    # Registers, stack and spills of every kernel, in the log.
    "--ptxas-options=-v",
)
"""What every kernel is compiled with."""

PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")
LIBRARIES = ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12")
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\(')

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_FRAME = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_REGISTERS = re.compile(r"Used (\d+) registers")


@dataclass(frozen=True, slots=True)
class Resources:
    """What ptxas says of one kernel: registers a thread, and bytes it had to keep elsewhere."""

    registers: int
    stack: int
    spills: int


@cache
def kernel_folder() -> Path:
    """Return the folder of the sources: in the package, else beside it in a checkout."""
    packaged = Path(__file__).parents[1] / "_kernels"
    checkout = Path(__file__).parents[2] / "kernels"
    for folder in (packaged, checkout):
        if (folder / "problem.cuh").is_file():
            return folder
    raise KernelSourceError(f"no kernels at {packaged} or {checkout}; reinstall gpuconvert")


def kernel_names(source: str) -> list[str]:
    """Return the kernels that a source text defines, in their order."""
    return KERNEL.findall(source)


@cache
def file_of_kernel() -> dict[str, str]:
    """Return the name of the file, without ``.cu``, that defines each kernel."""
    files = sorted(kernel_folder().glob("*.cu"))
    return {name: file.stem for file in files for name in kernel_names(file.read_text())}


def read_resources(log: str) -> dict[str, Resources]:
    """Return what ptxas reports of every kernel in the log of a compilation."""
    entries = _ENTRY.split(log)
    found = {}
    for name, text in zip(entries[1::2], entries[2::2], strict=True):
        frame, registers = _FRAME.search(text), _REGISTERS.search(text)
        if frame is None or registers is None:
            raise KernelSourceError(f"the compiler says nothing of the registers of {name}")
        stack, stores, loads = (int(value) for value in frame.groups())
        found[name] = Resources(int(registers[1]), stack, stores + loads)
    return found


def _installed_libraries() -> list[Path]:
    """Return each NVRTC that a Python package of NVIDIA brought."""
    found = []
    for package in PACKAGES:
        try:
            files = distribution(package).files or []
        except PackageNotFoundError:
            continue
        names = (file for file in files if re.fullmatch(r"libnvrtc\.so\.\d+", file.name))
        found += [Path(str(file.locate())) for file in names]
    return found


class Nvrtc:
    """NVRTC, called through its C interface."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._check("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
        self.version = (major.value, minor.value)

    def _call(self, function: str, *arguments: Any) -> int:  # noqa: ANN401 - of C
        return int(getattr(self._library, function)(*arguments))

    def _check(self, function: str, *arguments: Any) -> None:  # noqa: ANN401 - of C
        code = self._call(function, *arguments)
        if code:
            words = self._library.nvrtcGetErrorString(code).decode()
            raise KernelSourceError(f"{function} of NVRTC failed: {words}")

    def _read(self, program: ctypes.c_void_p, size: str, get: str) -> bytes:
        length = ctypes.c_size_t()
        self._check(size, program, ctypes.byref(length))
        buffer = ctypes.create_string_buffer(length.value)
        self._check(get, program, buffer)
        return buffer.raw

    def compile(self, name: str, folder: Path, arch: int) -> tuple[bytes, str]:
        """Return the cubin of one kernel file for an architecture (90 is sm_90), and the log.

        Raises
        ------
        KernelSourceError
            With the compiler's own words, which name file and line.
        """
        headers = sorted(folder.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*(file.read_bytes() for file in headers))
        names = (ctypes.c_char_p * len(headers))(*(file.name.encode() for file in headers))
        options = [option.encode() for option in (*OPTIONS, f"--gpu-architecture=sm_{arch}")]
        program = ctypes.c_void_p()
        source = (folder / f"{name}.cu").read_bytes()
        self._check(
            "nvrtcCreateProgram", ctypes.byref(program), source, f"{name}.cu".encode(),
            len(headers), texts, names,
        )  # fmt: skip
        try:
            flags = (ctypes.c_char_p * len(options))(*options)
            code = self._call("nvrtcCompileProgram", program, len(options), flags)
            log = self._read(program, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog")
            text = log.rstrip(b"\0").decode(errors="replace").strip()
            if code:
                raise KernelSourceError(f"{name}.cu does not compile for sm_{arch}: {text}")
            return self._read(program, "nvrtcGetCUBINSize", "nvrtcGetCUBIN"), text
        finally:
            self._check("nvrtcDestroyProgram", ctypes.byref(program))


@cache
def load_nvrtc(newest: int = sys.maxsize) -> Nvrtc:
    """Return NVRTC from its Python package, else from the system.

    A driver of CUDA 12 does not load what NVRTC 13 compiles: `newest` is the major version
    that may be.

    Raises
    ------
    BackendError
        Where there is none, with the command that installs it.
    """
    reason = "is not installed"
    for candidate in (*map(str, _installed_libraries()), *LIBRARIES):
        try:
            found = Nvrtc(ctypes.CDLL(candidate))
        except OSError:
            continue
        if found.version[0] <= newest:
            return found
        reason = f"is for CUDA {found.version[0]}, the driver for {newest}"
    raise BackendError(
        f"the compiler NVRTC {reason}; pip install nvidia-cuda-nvrtc "
        "(nvidia-cuda-nvrtc-cu12 for CUDA 12)"
    )


def cache_folder() -> Path:
    """Return the folder of compiled kernels; GPUCONVERT_CACHE_DIR or XDG_CACHE_HOME move it."""
    own = os.environ.get("GPUCONVERT_CACHE_DIR")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gpuconvert" / "kernels"


def cubin_path(
    name: str, arch: int, nvrtc: Callable[[], Nvrtc] = load_nvrtc, folder: Path | None = None
) -> Path:
    """Return the cubin of one kernel file for an architecture, compiled where there is none.

    Written beside its name and renamed into place, so that processes may share a folder.
    """
    sources = kernel_folder() if folder is None else folder
    compiler = nvrtc()
    place = cache_folder() / f"{name}-sm_{arch}-{_digest(name, arch, compiler, sources)}.cubin"
    if place.is_file():
        return place
    code, _ = compiler.compile(name, sources, arch)
    beside = place.with_name(f"{place.name}.{uuid.uuid4().hex}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(code)
            beside.replace(place)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise BackendError(
            f"compiled kernels cannot be kept in {place.parent}: {error.strerror}; "
            "set GPUCONVERT_CACHE_DIR to a folder that can be written"
        ) from error
    return place


def _digest(name: str, arch: int, compiler: Nvrtc, folder: Path) -> str:
    """Return what tells one compiled kernel file from another; 32 hex digits."""
    digest = hashlib.sha256()
    said = (name, f"sm_{arch}", *OPTIONS, ".".join(map(str, compiler.version)))
    digest.update("\0".join(said).encode())
    for file in sorted(folder.glob("*.cu*")):
        digest.update(f"\0{file.name}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:32]
