"""What the tables of a Bruker ``.d`` say of m/z and of ion mobility: coefficients, temperatures.

`gpuconvert.calibration` has the formulas of m/z. Its chord, used on request where neither
model is there, lies between the ends of the acquisition range; it can be some tens of ppm off.

1/K0, model 2: ``V = C2 + (C3 - C2)/C1 (scan - C0 - C4)``, ``1/K0 = 1 / (C6 + C7/|V|)``.

The formulas are published ones: OpenReadout's notes on TDF, rustims, and US patent 7851746.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.calibration import (
    C0,
    C1,
    C3,
    C4,
    CHORD,
    KIND,
    LOW,
    MODEL_1,
    MODEL_2,
    MODEL_SIZE,
    MOST_TERMS,
    TERMS,
    TIMEBASE,
    calibrated,
)
from gpuconvert.errors import SourceError
from gpuconvert.readers.bruker_sql import Frames

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

_STATED = {
    MODEL_1: ("DigitizerTimebase", "DigitizerDelay", "C0", "C1"),
    MODEL_2: ("DigitizerTimebase", "DigitizerDelay", "C0", "C1", "C5", "C6", "C7"),
}
"""What a row has to state; of the others a missing one is a term that the model does not have."""

_WIDER = "Bruker otofControl"
_WIDER_BY = 5.0
"""Software whose acquisition range is that much narrower than its digitizer's, in Th."""


@dataclass(frozen=True, slots=True)
class MzCalibration:
    """How every frame's indices become m/z.

    models : (n_models, MODEL_SIZE) float64
    model : (n_frames,) int64, row of `models` of each frame
    factor : (n_frames,) float64, f of the frame's temperatures; 1 for a chord
    notes : sentences about what is approximate
    """

    models: Floats
    model: Longs
    factor: Floats
    notes: tuple[str, ...] = ()

    @property
    def approximate(self) -> bool:
        """Whether some frame is on a chord."""
        return bool((self.models[self.model, KIND] == CHORD).any())


def one_over_k0(scan: Floats, row: dict[str, Any]) -> Floats:
    """Return 1/K0 of scans counted from 0, in V s / cm2; not finite where there is none.

    `row` is of TimsCalibration; ValueError where a coefficient is no number.
    """
    c = np.array([_number(row, f"C{k}") for k in range(8)])
    with np.errstate(all="ignore"):
        voltage = c[2] + (c[3] - c[2]) / c[1] * (scan - c[0] - c[4])
        inverse: Floats = 1 / (c[6] + c[7] / np.abs(voltage))
    return inverse


def _number(row: dict[str, Any], name: str) -> float:
    """Return a coefficient; 0 where it is not there. Columns may hold numbers as text."""
    value = row.get(name)
    return 0.0 if value is None else float(str(value))


def row_number(row: dict[str, Any]) -> int | None:
    """Return the Id of a row; None where it is no whole number."""
    try:
        return int(str(row.get("Id")))
    except ValueError:
        return None


def _model(row: dict[str, Any]) -> Floats | str:
    """Return the model of a row of MzCalibration, or why there is none."""
    model = np.zeros(MODEL_SIZE)
    try:
        kind = int(_number(row, "ModelType"))
        if kind not in (MODEL_1, MODEL_2):
            return f"has ModelType {kind}"
        missing = [name for name in _STATED[kind] if row.get(name) is None]
        if missing:
            return f"states no {missing[0]}"
        names = ("DigitizerTimebase", "DigitizerDelay", "C0", "C1", "C2", "C3", "C4", "C5", "C6")
        model[TIMEBASE:TERMS] = [_number(row, name) for name in names]
        n_terms = int(_number(row, "C7"))
        model[TERMS:] = [_number(row, f"C{8 + k}") for k in range(MOST_TERMS)]
        drift = np.array([_number(row, name) for name in ("T1", "T2", "dC1", "dC2")])
    except (OverflowError, ValueError) as error:
        return f"holds something that is no number ({error})"
    model[KIND] = kind
    if kind == MODEL_1:
        model[LOW:] = 0
    elif not 0 <= n_terms <= MOST_TERMS:
        return f"has a polynomial of {n_terms} terms, expected at most {MOST_TERMS}"
    else:
        model[TERMS + n_terms :] = 0
        # They repeat C0 and C2 here.
        model[[C3, C4]] = 0
    if not np.isfinite(drift).all():
        return "has temperatures that are no finite numbers"
    if not (model[C1] > 0 and model[TIMEBASE] > 0 and np.isfinite(model).all()):
        return f"has C1 = {model[C1]:g} and a time base of {model[TIMEBASE]:g} ns"
    return model


def _chord(metadata: dict[str, str], n_samples: int) -> Floats | None:
    """Return the chord between the ends of the acquisition range; None where they are unknown."""
    try:
        low, high = (float(metadata[f"MzAcqRange{end}"]) for end in ("Lower", "Upper"))
    except (KeyError, ValueError):
        return None
    if metadata.get("AcquisitionSoftware") == _WIDER:
        low, high = low - _WIDER_BY, high + _WIDER_BY
    if not (0 <= low < high and n_samples > 0):
        return None
    model = np.zeros(MODEL_SIZE)
    model[C0] = math.sqrt(low)
    model[C1] = (math.sqrt(high) - math.sqrt(low)) / n_samples
    return model


def build_calibration(
    name: str, frames: Frames, used: Longs, rows: list[dict[str, Any]],
    metadata: dict[str, str], *, n_samples: int, chord: bool,
) -> MzCalibration:  # fmt: skip
    """Return how the frames at positions `used` become m/z.

    Parameters
    ----------
    name
        Of the source, for messages.
    frames, used
        All frames, and (n,) which of them are wanted.
    rows
        The table MzCalibration.
    metadata, n_samples
        GlobalMetadata, and the samples of the digitizer.
    chord
        Whether m/z may be approximated where no exact formula is known.

    Raises
    ------
    SourceError
        Where a frame has no calibration that is known, and `chord` is not set.
    """
    wanted, model = np.unique(frames.calibration[used], return_inverse=True)
    by_id = {row_number(row): row for row in rows}
    models, notes = np.zeros((len(wanted), MODEL_SIZE)), []
    factor = np.ones(len(used))
    for place, number in enumerate(wanted.tolist()):
        row = by_id.get(number)
        found = "is not in the table MzCalibration" if row is None else _model(row)
        mine = np.flatnonzero(model == place)
        if row is not None and not isinstance(found, str):
            models[place] = found
            factor[mine], note = _factors(row, frames, used[mine])
            notes += note
            continue
        what = f"the m/z calibration {number} of frame {frames.number[used[mine[0]]]} {found}"
        substitute = _chord(metadata, n_samples)
        if not chord or substitute is None:
            remedy = (
                "no acquisition range to approximate it from"
                if chord
                else ("give --calibration chord to approximate it, by some tens of ppm")
            )
            raise SourceError(f"{name}: {what}, expected ModelType 1 or 2; {remedy}")
        models[place] = substitute
        notes.append(
            f"{what}: m/z of {len(mine)} frames are approximate, by the chord of the acquisition "
            "range, and may be some tens of ppm off"
        )
    return MzCalibration(models, model.astype(np.int64).ravel(), factor, tuple(notes))


def _factors(row: dict[str, Any], frames: Frames, used: Longs) -> tuple[Floats, list[str]]:
    """Return f of each frame, and what had to be assumed."""
    factor = np.ones(len(used))
    notes = []
    for slope, reference, column in (("dC1", "T1", frames.t1), ("dC2", "T2", frames.t2)):
        gain, at = _number(row, slope), row.get(reference)
        if gain == 0:
            continue
        shift = (np.nan if at is None else float(at)) - column[used]
        known = np.isfinite(shift)
        factor += 1e-6 * gain * np.where(known, shift, 0.0)
        if not known.all():
            notes.append(
                f"{int((~known).sum())} frames do not state the temperature {reference}: their "
                "m/z are not corrected for it"
            )
    return factor, notes


def mz_ends(calibration: MzCalibration, n_samples: int) -> tuple[float, float]:
    """Return the m/z of the first and the last sample of the digitizer, over all frames, in Th.

    m/z grows with index and with f, so the frames of least and of largest f tell.
    """
    ends = []
    for place in np.unique(calibration.model):
        factors = calibration.factor[calibration.model == place]
        for factor in (factors.min(), factors.max()):
            index = np.array([0.0, n_samples - 1.0])
            ends.append(calibrated(index, calibration.models[place], float(factor)))
    if not ends:
        return 0.0, 0.0
    return float(np.min(ends)), float(np.max(ends))
