"""From the digitizer's index to m/z, and from the scan to 1/K0, by the coefficients in the file.

m/z, model 1, of a frame whose temperatures are T1, T2 (T1ref, T2ref those of the row)::

    f = 1 + 1e-6 (dC1 (T1ref - T1) + dC2 (T2ref - T2))
    t = index * DigitizerTimebase + DigitizerDelay                       in ns
    t = C0 + b s + (C2/f) s^2 + C3 s^3,   b = sqrt(1e12 / (C1 f)),   s = sqrt(m/z + C4)

Model 2 takes m1 from C0, C1 and C2 alone and corrects it by a polynomial P of C7 terms::

    x = m1 within [C5, C6],   m/z = m1 - P(x) exp(-(m1 - x)^2),   P(x) = sum C[8 + k] x^k

The chord, used on request where neither is there, is uniform in the square root of m/z
between the ends of the acquisition range; it can be some tens of ppm off.

1/K0, model 2: ``V = C2 + (C3 - C2)/C1 (scan - C0 - C4)``, ``1/K0 = 1 / (C6 + C7/|V|)``.

The formulas are published ones: OpenReadout's notes on TDF, rustims, and US patent 7851746.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner
from gpuconvert.errors import SourceError
from gpuconvert.readers.bruker_sql import Frames

Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

CHORD, MODEL_1, MODEL_2 = 0, 1, 2

KIND, TIMEBASE, DELAY, C0, C1, C2, C3, C4, LOW, HIGH, TERMS = range(11)
MOST_TERMS = 7
MODEL_SIZE = TERMS + MOST_TERMS
"""Entries of a model: kind, then coefficients; a chord is C0 + C1 index, squared."""

NEWTON_STEPS = 12
"""Quadratic convergence from a start that is right to C3: three steps suffice for real data."""

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


@inner
def _base_mz(index: float, model: Floats, factor: float) -> float:
    """Return m/z by model 1; by model 2 before its correction."""
    b = math.sqrt(1e12 / (model[C1] * factor))
    c2 = model[C2] / factor
    d = index * model[TIMEBASE] + model[DELAY] - model[C0]
    s = 2.0 * d / (b + math.sqrt(b * b + 4.0 * c2 * d))
    c3 = model[C3]
    if c3 != 0.0:
        for _ in range(NEWTON_STEPS):
            step = (((c3 * s + c2) * s + b) * s - d) / ((3.0 * c3 * s + 2.0 * c2) * s + b)
            s -= step
            if abs(step) <= 1e-16 * abs(s):
                break
    return float(s * s - model[C4])


@inner
def _mz(index: float, model: Floats, factor: float) -> float:
    if model[KIND] == CHORD:
        root = model[C0] + model[C1] * index
        return float(root * root)
    mz = _base_mz(index, model, factor)
    if model[KIND] == MODEL_1:
        return mz
    x = min(max(mz, model[LOW]), model[HIGH])
    correction = 0.0
    for k in range(MOST_TERMS - 1, -1, -1):
        correction = correction * x + model[TERMS + k]
    return mz - correction * math.exp(-((mz - x) * (mz - x)))


@compiled
def calibrate(
    values: Floats, first: Longs, count: Longs, models: Floats, model: Longs, factor: Floats
) -> None:
    """Turn indices into m/z, in place.

    Parameters
    ----------
    values
        Holds the indices of all spectra; nothing else in it is touched.
    first, count
        (n_spectra,) where each spectrum's begin in `values`, and how many they are.
    models
        (n_models, MODEL_SIZE), see `MzCalibration`.
    model, factor
        (n_spectra,) of each spectrum.
    """
    for s in range(len(first)):
        row = models[model[s]]
        f = factor[s]
        for k in range(first[s], first[s] + count[s]):
            values[k] = _mz(values[k], row, f)


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
        values = np.array([0.0, n_samples - 1.0] * 2)
        calibrate(
            values, np.array([0, 2]), np.array([2, 2]), calibration.models,
            np.array([place, place], np.int64), np.array([factors.min(), factors.max()]),
        )  # fmt: skip
        ends.append(values)
    if not ends:
        return 0.0, 0.0
    return float(np.min(ends)), float(np.max(ends))
