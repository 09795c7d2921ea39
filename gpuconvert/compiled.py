"""How kernels are compiled: by Numba, without the GIL, cached on disk, IEEE 754 throughout.

Numba keeps compiled code until the file of that one function changes, and does not
notice when a function it calls, or a constant from another file, does. The stamp of
every cache entry is therefore that of all files with kernels and of what they import.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

BLAS = "scipy.linalg.cython_blas"


def _load_array_functions() -> None:
    """Load what Numba knows of arrays, without SciPy: importing that takes half as long again.

    Numba would only use its BLAS for the inner products in `numpy.convolve` and
    `numpy.correlate`, which no kernel has. Where SciPy is loaded already nothing is gained.
    """
    if "scipy.linalg" in sys.modules:
        return
    missing: Any = None
    sys.modules[BLAS] = missing
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        del sys.modules[BLAS]


_load_array_functions()

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


DECORATOR = re.compile(rb"^@(compiled|inner)$", re.MULTILINE)
IMPORT = re.compile(rb"^from gpuconvert\.([\w.]+) import", re.MULTILINE)


_caches: list[Any] = []
"""What Numba keeps on disk of each kernel loaded so far."""


@cache
def _kernel_stamp() -> tuple[tuple[str, int, int], ...]:
    """Return name, time and size of every file that compiled code may depend on."""
    folder = Path(__file__).parent
    sources = {file: file.read_bytes() for file in folder.rglob("*.py")}
    kernels = {file for file, text in sources.items() if DECORATOR.search(text)}
    imported = {
        folder / f"{name.decode().replace('.', '/')}.py"
        for file in kernels
        for name in IMPORT.findall(sources[file])
    }
    files = sorted(file for file in kernels | imported if file in sources)
    stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def compiled(kernel: Kernel) -> Kernel:
    """Return `kernel` compiled; it takes arrays, numbers and named tuples of them."""
    return _compile(kernel)


def inner(kernel: Kernel) -> Kernel:
    """Return `kernel` compiled for other kernels only: Python cannot call it.

    Without the code that takes its arguments from Python it compiles in half the time.
    """
    return _compile(kernel, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def _compile(kernel: Kernel, **options: bool) -> Kernel:
    dispatcher: Any = njit(nogil=True, cache=True, error_model="numpy", **options)(kernel)
    # Where nothing can be cached on disk there is no such file, and nothing to go stale.
    file = getattr(dispatcher._cache, "_cache_file", None)
    if file is not None:
        file._source_stamp = _kernel_stamp()
        _caches.append(file)
    return cast(Kernel, dispatcher)


def nothing_compiled_yet() -> bool:
    """Return whether no kernel loaded so far was ever compiled as it is now: the first run."""
    return not any(file._load_index() for file in _caches)
