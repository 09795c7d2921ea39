"""Which mobility bin every scan of a TDF acquisition belongs to."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.mobility_axis import MobilityAxis
from gpuconvert.readers.bruker_calibration import one_over_k0, row_number
from gpuconvert.readers.bruker_sql import Frames

Longs = NDArray[np.int64]

MODEL = 2
"""The only TimsCalibration.ModelType whose formula is known."""


class ScanBins:
    """The bins of 1/K0 over all scans of some frames, and where each scan lies.

    Frames in LZF hold more scans than they state; those beyond count as the last one.

    axis : from the smallest to the largest 1/K0 of any scan
    """

    def __init__(
        self, name: str, frames: Frames, rows: Longs, table: list[dict[str, Any]], n_bins: int
    ) -> None:
        """Build the bins for the frames at positions `rows`; SourceError where they have none."""
        self._number, self._n_scans = frames.mobility[rows], frames.n_scans[rows]
        self._table = {row_number(row): row for row in table}
        for number in np.unique(self._number).tolist():
            row = self._table.get(number)
            found = "is not in the table TimsCalibration"
            if row is not None:
                found = f"has ModelType {row.get('ModelType')}"
            if row is None or str(row.get("ModelType")) != str(MODEL):
                first = int(frames.number[rows[np.argmax(self._number == number)]])
                raise SourceError(
                    f"{name}: the mobility calibration {number} of frame {first} {found}, expected "
                    f"ModelType {MODEL}; leave out --mobility-bins"
                )
        pairs = np.unique(np.stack([self._number, self._n_scans]), axis=1).T.tolist()
        try:
            values = [
                self._k0(number, np.arange(n_scans)) for number, n_scans in pairs if n_scans > 0
            ]
        except ValueError as error:
            raise SourceError(
                f"{name}: a mobility calibration holds something that is no number ({error}); "
                "leave out --mobility-bins"
            ) from error
        known = np.concatenate(values) if values else np.zeros(0)
        if not len(known) or not np.isfinite(known).all() or known.min() <= 0:
            raise SourceError(
                f"{name}: the mobility calibration gives no 1/K0 above 0; leave out --mobility-bins"
            )
        low, high = float(known.min()), float(known.max())
        self.axis = MobilityAxis(low, high if high > low else low * 1.001, n_bins)
        self._cached = lru_cache(maxsize=64)(self._bins)

    def of_row(self, row: int, n_scans: int) -> tuple[Longs, Longs]:
        """Return the bins of the scans of a row, and which of them each scan is in.

        bins : (n_bins,) int64, ascending
        own : (n_scans,) int64, place in `bins`
        """
        return self._cached(int(self._number[row]), int(self._n_scans[row]), n_scans)

    def _k0(self, number: int, scan: Longs) -> NDArray[np.float64]:
        return one_over_k0(scan.astype(np.float64), self._table[number])

    def _bins(self, number: int, stated: int, n_scans: int) -> tuple[Longs, Longs]:
        scan = np.minimum(np.arange(n_scans), max(0, stated - 1))
        bins, own = np.unique(self.axis.bin_of(self._k0(number, scan)), return_inverse=True)
        return bins.astype(np.int64), own.astype(np.int64)
