"""Backends: where the arithmetic runs, behind three verbs.

Every backend gives the numbers that `gpuconvert.resampling` defines. Nothing
outside this package knows which one is in use.
"""

from __future__ import annotations

import importlib
from typing import Protocol

from gpuconvert.errors import BackendError
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CscBlock, CsrBlock, MemoryUse, RawBatch


class Backend(Protocol):
    """The three verbs; safe to use from several threads at once."""

    name: str

    def resample(self, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
        """Decode the spectra of `batch` and put them on `axis`."""
        ...

    def by_bin(self, block: CsrBlock, n_bins: int) -> CscBlock:
        """Sort the non-zeros of `block` by bin; rows keep their order within a bin."""
        ...

    def peak_bytes(self, n_points: int, n_spectra: int, n_nonzeros: int, largest: int) -> MemoryUse:
        """Return the memory that resampling such a batch takes at its peak.

        The batch's own bytes are not counted; the returned block is.

        n_points, n_nonzeros : of all spectra
        largest : points of the largest spectrum
        """
        ...


BACKENDS: dict[str, str] = {
    "numpy": "gpuconvert.backends.host:HostBackend",
    "cpu": "gpuconvert.backends.jit:JitBackend",
}
"""Backend class by name on the command line; loaded when first needed."""

PREFERENCE = ("cuda", "cpu", "numpy")


def _load(name: str) -> Backend:
    module, _, attribute = BACKENDS[name].partition(":")
    backend: Backend = getattr(importlib.import_module(module), attribute)()
    return backend


def choose_backend(name: str) -> tuple[Backend, str]:
    """Return the backend called `name`, and one line that says which and why.

    ``"auto"`` takes the first of cuda, cpu, numpy that answers. A name never falls back.

    Raises
    ------
    BackendError
        Where the backend that was asked for does not exist or does not answer.
    """
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(
                f"backend {name!r} is not part of this version; available: {', '.join(BACKENDS)}"
            )
        try:
            return _load(name), f"backend {name}: asked for"
        except ImportError as error:
            raise BackendError(f"backend {name} cannot be used here: {error}") from error
    refused: list[str] = []
    for candidate in PREFERENCE:
        if candidate not in BACKENDS:
            refused.append(f"{candidate} is not part of this version")
            continue
        try:
            reasons = "; ".join(refused)
            return _load(candidate), f"backend {candidate}" + (f" ({reasons})" if reasons else "")
        except ImportError as error:
            refused.append(f"{candidate}: {error}")
    raise BackendError(f"no backend answers: {'; '.join(refused)}")
