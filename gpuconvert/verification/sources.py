"""The source that a store is held against, whatever its format."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SettingsError, SourceError, StoreError
from gpuconvert.verification.bruker import BrukerOracle
from gpuconvert.verification.mzpeak import MzPeakOracle
from gpuconvert.verification.oracle import Oracle
from gpuconvert.verification.store import Store


class Spectra(Protocol):
    """Spectra of a source, in its own order, read by means that the conversion does not use.

    coordinates : (n_spectra, 3) int64; x, y, z, each from 0 at the smallest observed
    n_points : (n_spectra,) int64
    order : (n_spectra,) int64, position of each spectrum in the source, from 0
    facts : further columns of obs as the source has them, by name; (n_spectra,) int64 each
    """

    coordinates: NDArray[np.int64]
    n_points: NDArray[np.int64]
    order: NDArray[np.int64]
    facts: dict[str, NDArray[np.int64]]

    @property
    def n_bytes(self) -> int:
        """Size of the files."""
        ...

    def spectrum(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return m/z and intensities of one spectrum as float64, as the source has them."""
        ...


class OpenSpectra(Spectra, AbstractContextManager["OpenSpectra"], Protocol):
    """Spectra whose files are closed at the end of a ``with``."""


def open_source(path: Path, ibd: Path | None, store: Store) -> OpenSpectra:
    """Return the source of `store`, opened as its parameters say.

    Raises
    ------
    SourceError
        Where it is of no kind that can be verified, or cannot be read.
    SettingsError
        Where `ibd` is given for a source that has none.
    """
    if path.name in ("", ".."):
        path = path.resolve()
    name = path.name.lower()
    if name.endswith((".imzml", ".imzml.gz")):
        return Oracle(path, ibd)
    if name.endswith((".d", ".mzpeak")) and ibd is not None:
        raise SettingsError("--ibd has no meaning for a .d folder or a .mzpeak; leave it out")
    if name.endswith(".d"):
        return BrukerOracle(path, _parameters(store))
    if name.endswith(".mzpeak"):
        return MzPeakOracle(path, _parameters(store))
    raise SourceError(
        f"{path} is neither imzML, a Bruker .d folder nor mzPeak, the kinds of source that verify "
        "reads"
    )


def _parameters(store: Store) -> dict[str, Any]:
    """Return what the store was made with; nothing where it does not say (another check will)."""
    for table in store.children("tables"):
        try:
            found = json.loads(store.text(f"tables/{table}/uns/gpuconvert/parameters"))
        except (StoreError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}
