"""Backends: where the arithmetic runs, behind few verbs.

Every backend gives the numbers that `gpuconvert.resampling` defines. Nothing
outside this package knows which one is in use.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import BackendError, SettingsError
from gpuconvert.mass_axis import MassAxis
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import CscBlock, CsrBlock, MemoryUse, RawBatch
from gpuconvert.zero_runs import Stripped


class Backend(Protocol):
    """The verbs; safe to use from several threads at once.

    batch_bytes : size below which batches cost it time, in bytes; 0 where any will do
    base_bytes : host memory that it takes whatever it is given
    """

    name: str
    batch_bytes: int
    base_bytes: int

    def resample(self, batch: RawBatch, axis: MassAxis, options: ResampleOptions) -> CsrBlock:
        """Decode the spectra of `batch` and put them on `axis`."""
        ...

    def by_bin(self, block: CsrBlock, n_bins: int) -> CscBlock:
        """Sort the non-zeros of `block` by bin; rows keep their order within a bin."""
        ...

    def strip_zeros(
        self, indptr: NDArray[np.int64], intensity: NDArray[Any], rows: NDArray[np.int64]
    ) -> Stripped:
        """Return which points stay, and are marked, by `zero_runs.zero_roles`.

        Parameters
        ----------
        indptr
            (n_spectra + 1,) int64; spectrum s owns points [indptr[s], indptr[s + 1]).
        intensity
            (n_points,) float32, float64, int32 or int64, contiguous.
        rows
            (n_spectra,) int64, what errors call the spectra.
        """
        ...

    def peak_bytes(self, n_points: int, n_spectra: int, n_nonzeros: int, largest: int) -> MemoryUse:
        """Return the memory that resampling such a batch takes at its peak.

        The batch's own bytes are not counted; the returned block is.

        n_points, n_nonzeros : of all spectra
        largest : points of the largest spectrum
        """
        ...

    def buffer(self, n_bytes: int) -> NDArray[np.uint8]:
        """Return a buffer that the bytes of batches are best read into; (n_bytes,) uint8."""
        ...


BACKENDS: dict[str, str] = {
    "numpy": "gpuconvert.backends.host:HostBackend",
    "cpu": "gpuconvert.backends.jit:JitBackend",
    "cuda": "gpuconvert.backends.device:DeviceBackend",
}
"""Backend class by name on the command line; loaded when first needed."""

PREFERENCE = ("cuda", "cpu", "numpy")


ON_DEVICES = frozenset({"cuda"})
"""Backends that run on devices, and take their numbers."""


def _load(name: str, devices: Sequence[int]) -> Backend:
    module, _, attribute = BACKENDS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    backend: Backend = kind(devices) if name in ON_DEVICES else kind()
    return backend


def choose_backend(name: str, devices: Sequence[int] = ()) -> tuple[Backend, str]:
    """Return the backend called `name`, and one line that says which and why.

    ``"auto"`` takes the first of cuda, cpu, numpy that answers. A name never falls back,
    nor do numbers of devices.

    Parameters
    ----------
    name
        ``"auto"`` or a name in BACKENDS.
    devices
        Numbers of the devices to use; all where there is none.

    Raises
    ------
    SettingsError
        Where devices are given to a backend that has none.
    BackendError
        Where the backend that was asked for does not exist or does not answer.
    """
    if devices and name == "auto":
        name = "cuda"
    if name != "auto":
        if name not in BACKENDS:
            raise BackendError(
                f"backend {name!r} is not part of this version; available: {', '.join(BACKENDS)}"
            )
        if devices and name not in ON_DEVICES:
            raise SettingsError(f"--devices names CUDA devices, but backend {name} uses none")
        try:
            return _load(name, devices), f"backend {name}: asked for"
        except (ImportError, BackendError) as error:
            raise BackendError(f"backend {name} cannot be used here: {error}") from error
    refused: list[str] = []
    for candidate in PREFERENCE:
        try:
            reasons = "; ".join(refused)
            return _load(candidate, ()), f"backend {candidate}" + (
                f" ({reasons})" if reasons else ""
            )
        except (ImportError, BackendError) as error:
            refused.append(f"{candidate}: {error}")
    raise BackendError(f"no backend answers: {'; '.join(refused)}")
