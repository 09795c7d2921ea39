"""From batches of a source to spectra as an mzPeak stores them: checked, stripped, marked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends import Backend
from gpuconvert.errors import SourceError
from gpuconvert.mzpeak_points import FIGURES, Points, figures
from gpuconvert.mzpeak_tables import SignalFormat
from gpuconvert.pipeline import refusal
from gpuconvert.repairs import repair
from gpuconvert.spectra import (
    FAULT_MZ,
    FAULT_ORDER,
    Acquisition,
    RaggedSpectra,
    RawBatch,
    as_stored,
    find_faults,
)
from gpuconvert.zero_walk import fill_marks, fit_models

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_STORED_COUNTS = {
    "f2": "f4", "f4": "f4", "f8": "f8", "i1": "i4", "i2": "i4", "i4": "i4", "i8": "i8",
    "u1": "i4", "u2": "i4", "u4": "i8",
}  # fmt: skip
"""The type that an mzPeak has for intensities of each type; none changes a value."""


def stored_types(acquisition: Acquisition, used: Ints) -> tuple[np.dtype[Any], np.dtype[Any]]:
    """Return the types of m/z and intensity that hold all of the encodings `used`."""
    encodings = [acquisition.encodings[code] for code in used]
    mz = [np.dtype(item.mz_dtype) for item in encodings]
    wide = all(dtype.kind == "f" and dtype.itemsize == 4 for dtype in mz)
    counts = [np.dtype(_STORED_COUNTS[item.intensity_dtype[1:]]) for item in encodings]
    return np.dtype("<f4" if mz and wide else "<f8"), (
        np.result_type(*counts).newbyteorder("<") if counts else np.dtype("<f4")
    )


@dataclass
class Tally:
    """What was done to spectra so far, and what is known of each; columns by output index.

    figures : (5, n_spectra) float64
    n_stored : (n_spectra,) int64
    models : (n_spectra, 3) float64
    read, stored, marked : points
    dropped, sorted : points dropped and spectra sorted by ``--repair``
    unmarked : spectra whose zeros keep their m/z because they would not come back in order
    error, error_ppm : largest distance of a marked zero from where a reader puts it,
        in Th and in ppm of its m/z
    """

    figures: Floats
    n_stored: Ints
    models: Floats
    read: int = 0
    stored: int = 0
    marked: int = 0
    dropped: int = 0
    sorted: int = 0
    unmarked: int = 0
    error: float = 0.0
    error_ppm: float = 0.0

    @classmethod
    def of(cls, n_spectra: int) -> Tally:
        """Return a tally of nothing."""
        return cls(
            np.full((len(FIGURES), n_spectra), np.nan), np.zeros(n_spectra, np.int64),
            np.full((n_spectra, 3), np.nan),
        )  # fmt: skip

    def add(self, points: Points) -> None:
        """Count what is stored."""
        counts = np.diff(points.indptr)
        self.n_stored[points.index] = counts
        self.stored += int(counts.sum())
        self.marked += int(points.marked.sum())


def source_points(
    batch: RawBatch, acquisition: Acquisition, form: SignalFormat, tally: Tally, *,
    backend: Backend, strip: bool, mend: bool,
) -> Points:  # fmt: skip
    """Return the spectra of a batch as they are stored, and count them.

    Parameters
    ----------
    batch
        Of the source; its rows become indices.
    acquisition
        For messages.
    form
        Of the member that they are for.
    tally
        Is told what was done.
    backend
        Strips them.
    strip
        Whether runs of zeros are stripped, and marked if the form has marks.
    mend
        Whether faulty points are dropped and sorted instead of refused.

    Raises
    ------
    SourceError
        Where m/z are not ascending numbers and `mend` is not set.
    """
    indptr, mz, intensity = as_stored(batch)
    tally.read += len(mz)
    exact: Floats = mz.astype(np.float64)
    faults = find_faults(RaggedSpectra(indptr, exact, intensity.astype(np.float64)))
    if mend and faults.any():
        repaired, done = repair(batch)
        tally.dropped += done.dropped
        tally.sorted += done.sorted
        indptr, mz, intensity = as_stored(repaired)
        exact = mz
    else:
        # A negative or missing intensity is a value like any other; only m/z must be sound.
        wrong = faults & np.uint8(FAULT_ORDER | FAULT_MZ)
        if wrong.any():
            raise SourceError(refusal(acquisition, batch, wrong))
    tally.figures[:, batch.rows] = figures(indptr, exact, intensity)
    whole = Points(
        batch.rows, indptr, mz.astype(form.mz_dtype, copy=False),
        intensity.astype(form.intensity_dtype, copy=False), np.zeros(len(mz), bool),
    )  # fmt: skip
    points = _strip(whole, exact, form, tally, backend) if strip else whole
    tally.add(points)
    return points


def _strip(
    whole: Points, exact: Floats, form: SignalFormat, tally: Tally, backend: Backend
) -> Points:
    """Return spectra without their runs of zeros."""
    indptr, intensity = whole.indptr, whole.intensity
    places, marked, begins = backend.strip_zeros(indptr, intensity, whole.index)
    mz = whole.mz[places]
    if form.marks:
        # Compiled whatever the backend: sums in another order would be another archive.
        models = fit_models(indptr, exact, intensity)
        marked = _settled(begins, mz, marked, models, tally)
        tally.models[whole.index] = models
    else:
        marked = np.zeros(len(places), bool)
    return Points(whole.index, begins, mz, intensity[places], marked)


def _settled(
    indptr: Ints, mz: NDArray[Any], marked: NDArray[np.bool_], models: Floats, tally: Tally
) -> NDArray[np.bool_]:
    """Return which marks stay: those of spectra that a reader gets back in order.

    How far from their m/z they come back is told to `tally`.
    """
    if not marked.any():
        return marked
    exact: Floats = mz.astype(np.float64)
    filled, wrong = fill_marks(indptr, exact, marked, models)
    # A reader has them in the type of the others.
    filled = filled.astype(mz.dtype).astype(np.float64)
    owner = np.repeat(np.arange(len(wrong)), np.diff(indptr))
    falls = (np.diff(filled) < 0) & (owner[1:] == owner[:-1])
    bad = wrong >= 0
    bad[owner[1:][falls]] = True
    tally.unmarked += int(bad.sum())
    stays: NDArray[np.bool_] = marked & ~bad[owner]
    error = np.abs(filled - exact)[stays]
    if len(error):
        tally.error = max(tally.error, float(error.max()))
        tally.error_ppm = max(tally.error_ppm, float((error / exact[stays]).max()) * 1e6)
    return stays


def resampled_points(
    rows: Ints, indptr: Ints, mz: Floats, data: NDArray[np.float32], tally: Tally
) -> Points:
    """Return resampled spectra: the values of the bins that are filled, at their centres."""
    tally.figures[:, rows] = figures(indptr, mz, data)
    points = Points(rows, indptr, mz, data, np.zeros(len(mz), bool))
    tally.add(points)
    return points
