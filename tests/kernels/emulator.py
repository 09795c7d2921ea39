"""The kernels' own source as C++ on the CPU: built with g++ over a small shim.

`EmulatedQueue` is a `Queue` of `gpuconvert.backends.launches` whose kernels run here, and
`EmulatedBackend` a backend made of it. Test only: it says what the kernels compute, not
that a device runs them.
"""

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from contextlib import nullcontext
from functools import cache
from pathlib import Path

import numpy as np

from gpuconvert.backends import launches
from gpuconvert.backends.kernel_source import file_of_kernel, kernel_folder, kernel_names
from gpuconvert.spectra import MemoryUse

SHIM = Path(__file__).parent / "shim"
SANITIZE = "GPUCONVERT_TEST_SANITIZE"
"""Environment variable: build with the address and undefined-behaviour sanitizers."""

FLAGS = ("-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-ffp-contract=off", "-Wall", "-Wextra",
         "-Werror")  # fmt: skip
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

GRIDS = ((1, 1, 0), (3, 4, 0), (2, 5, 1))
"""Blocks, threads, and whether the last thread goes first: taken in turn."""


def flags():
    """Return the options of the compiler."""
    return (*FLAGS, *SANITIZERS) if os.environ.get(SANITIZE) else FLAGS


@cache
def library():
    """Return all kernels as one loaded library, built when its sources changed."""
    folder = kernel_folder()
    sources = sorted(folder.glob("*.cu*"))
    names = [name for source in sources for name in kernel_names(source.read_text())]
    text = '#include "cuda_shim.hpp"\n'
    text += "".join(f'#include "{source.name}"\n' for source in sources if source.suffix == ".cu")
    text += "".join(
        f'extern "C" void run_{name}(unsigned blocks, unsigned threads, int back, void** values) '
        f"{{\n    shim::launch({name}, blocks, threads, back, values);\n}}\n"
        for name in names
    )
    digest = hashlib.sha256("".join([text, *flags()]).encode())
    for file in (*sources, SHIM / "cuda_shim.hpp"):
        digest.update(file.read_bytes())
    place = Path(tempfile.gettempdir()) / f"gpuconvert-kernels-{os.getuid()}"
    place.mkdir(mode=0o700, exist_ok=True)
    built = place / f"{digest.hexdigest()[:32]}.so"
    if not built.exists():
        with tempfile.TemporaryDirectory(dir=place) as work:
            main = Path(work) / "kernels.cpp"
            main.write_text(text)
            made = Path(work) / "kernels.so"
            command = [shutil.which("g++"), *flags(), f"-I{SHIM}", f"-I{folder}",
                       str(main), "-o", str(made)]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            made.replace(built)
    return ctypes.CDLL(str(built))


DTYPES = {
    "double": "f8", "float": "f4", "int": "i4", "long long": "i8", "unsigned long long": "u8",
    "unsigned char": "u1", "unsigned short": "u2", "unsigned int": "u1", "Problem": "u1",
    "Model": "f8",
}  # fmt: skip
"""The dtype of the array that stands for each type of C; words and structures are bytes."""


@cache
def parameters(kernel):
    """Return of each parameter of a kernel whether it is a pointer, and its dtype."""
    source = (kernel_folder() / f"{file_of_kernel()[kernel]}.cu").read_text()
    listed = re.search(rf"__global__ void {kernel}\(([^{{]*?)\) {{", source)[1]
    found = []
    for line in re.sub(r"//[^\n]*", "", listed).split(","):
        words = re.fullmatch(r"\s*(?:const )?([\w ]+?)(\*?)(?: __restrict__)? \w+\s*", line)
        found.append((words[2] == "*", DTYPES[words[1]]))
    return found


def _word_aligned(values):
    """Return bytes in a buffer of whole words, as a device has them."""
    padded = np.zeros(-(-values.nbytes // 4), np.uint32).view(np.uint8)
    padded[: values.nbytes] = values.view(np.uint8)
    return padded


def run_kernel(kernel, grid, arguments):
    """Run every thread of a grid: blocks, threads of each, and whether the last goes first."""
    held = []
    for value, wanted in zip(arguments, parameters(kernel), strict=True):
        pointer = isinstance(value, np.ndarray)
        assert (pointer, value.dtype.str[1:]) == wanted, f"{kernel}: {wanted}"
        assert not pointer or value.flags.c_contiguous
        held.append(np.array([value.ctypes.data if pointer else value]))
    addresses = (ctypes.c_void_p * len(held))(*(value.ctypes.data for value in held))
    getattr(library(), f"run_{kernel}")(*grid, addresses)


class EmulatedQueue:
    """Runs kernels at once, in memory that is filled with rubbish beforehand."""

    def __init__(self):
        self.launched = 0

    def empty(self, name, n, dtype):
        """Return a new array full of bytes that no result may show."""
        return np.full(n * np.dtype(dtype).itemsize, 0xA5, np.uint8).view(dtype)

    def upload(self, name, values):
        """Return a copy of exactly these bytes, so that reading beyond them is found out."""
        if values.dtype == np.uint8 and values.ndim == 1:
            return _word_aligned(values)
        return np.array(values)

    def constant(self, key, values):
        """Return a copy of `values`."""
        return np.array(values)

    def launch(self, kernel, n_threads, *arguments):
        """Run every thread of a small grid."""
        assert n_threads > 0
        grid = GRIDS[self.launched % len(GRIDS)]
        self.launched += 1
        run_kernel(kernel, grid, arguments)

    def scan(self, values):
        """Return the running sums, in place of `values`."""
        return np.cumsum(values, out=values)

    def sort(self, values):
        """Sort `values`."""
        values.sort()

    def download(self, *values):
        """Return copies of all."""
        return [np.array(each) for each in values]

    def span(self, stage):
        """Name nothing."""
        return nullcontext()


class KeptQueue(EmulatedQueue):
    """Keeps memory by its name, as a slot of a device does: who asks again gets the same."""

    def __init__(self):
        super().__init__()
        self.memory = {}

    def empty(self, name, n, dtype):
        """Return the memory called `name`, full of rubbish, as of whoever had it before."""
        size = n * np.dtype(dtype).itemsize
        block = self.memory.get(name)
        if block is None or len(block) < size:
            block = self.memory[name] = np.empty(size, np.uint8)
        block[:] = 0xA5
        return block[:size].view(dtype)

    def upload(self, name, values):
        """Return a copy of `values` in the memory called `name`; bytes end in a whole word."""
        sent = super().upload(name, values)
        kept = self.empty(name, sent.size, sent.dtype).reshape(sent.shape)
        kept[:] = sent
        return kept


class EmulatedBackend:
    """The kernels behind the verbs of a backend."""

    name = "emulated"
    batch_bytes = base_bytes = 0

    def resample(self, batch, axis, options):
        """Resample with the kernels."""
        return launches.resample(EmulatedQueue(), batch, axis, options)

    def by_bin(self, block, n_bins):
        """Sort with the kernels."""
        return launches.by_bin(EmulatedQueue(), block, n_bins)

    def strip_zeros(self, indptr, intensity, rows):
        """Strip with the kernels."""
        return launches.strip_zeros(EmulatedQueue(), indptr, intensity)

    def peak_bytes(self, n_points, n_spectra, n_nonzeros, largest):
        """Return nothing: memory is the device's affair."""
        return MemoryUse(0)
