"""What is done to spectra with faults where it was asked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuconvert.spectra import (
    FAULT_ORDER,
    RaggedSpectra,
    RawBatch,
    decode,
    from_ragged,
    point_faults,
)


@dataclass(frozen=True, slots=True)
class Repair:
    """What `repair` did: points dropped, and spectra whose points were sorted."""

    dropped: int = 0
    sorted: int = 0


def repair(batch: RawBatch) -> tuple[RawBatch, Repair]:
    """Return `batch` without its faults, and what was done.

    Points whose m/z or intensity is no usable number or negative are dropped;
    spectra that are out of order are sorted by m/z, equal m/z in their old order.
    """
    spectra = decode(batch)
    n_spectra = len(batch.n_points)
    owner = np.repeat(np.arange(n_spectra), np.diff(spectra.indptr))
    good = (point_faults(spectra) & ~np.uint8(FAULT_ORDER)) == 0
    owner, mz, intensity = owner[good], spectra.mz[good], spectra.intensity[good]
    unsorted = np.unique(owner[1:][(mz[1:] < mz[:-1]) & (owner[1:] == owner[:-1])])
    order = np.lexsort((mz, owner))
    indptr = np.zeros(n_spectra + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=n_spectra), out=indptr[1:])
    repaired = RaggedSpectra(indptr, mz[order], intensity[order], spectra.mz_eps)
    done = Repair(dropped=int((~good).sum()), sorted=len(unsorted))
    return from_ragged(repaired, batch.rows, batch.representation), done
