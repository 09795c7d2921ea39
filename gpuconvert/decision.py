"""The axis decision: what the data, the header and the user say about the mass axis.

`decide` is one pure function of a sample of spectra, so the same sample gives the same
axis, whether its spectra share their m/z or not. What it chose, from what
evidence, is one value that is printed, stored and read back.

The width of a bin is that of the sampling for profiles and of the m/z scatter for
centroids. Where the data tell neither, it is 5 mDa at m/z 1000, growing as the law
says: 5 ppm for ``reflector-tof``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.decision_axis import Choice, Findings, law_axis, listed_axis, native_spacing
from gpuconvert.decision_evidence import (
    STRETCHES,
    Spacings,
    candidate_laws,
    find_spacings,
    instrument_prior,
    law_scores,
    local_steps,
    measure_scatter,
    select_points,
    spacing_deviation,
)
from gpuconvert.errors import PlanError
from gpuconvert.mass_axis import MZ_FLOOR, MassAxis, coarsen
from gpuconvert.resampling import Method, adaptive_method
from gpuconvert.settings import Settings
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import Instrument, RaggedSpectra, Representation

Floats = NDArray[np.float64]

PROFILE_DEVIATION = 0.15
"""Spacings of a profile deviate by less within a stretch: 0.06 at most, centroids 0.35 at least."""

COARSEST_STEP = 0.01
"""Samples of a peak shape lie closer than this fraction of their m/z."""


@dataclass(frozen=True)
class AxisDecision:
    """The mass axis and how spectra are put on it, with the evidence for both.

    method : what the method asked for, or ``adaptive``, stands for with `representation`
    representation : of the spectra, where they do not say themselves
    representation_source, law_source, width_source, phase_source : where each is from, in words
    spacing : native step of profiles; width of a bin for centroids
    evidence : every figure behind the decision, as plain JSON values
    warnings : sentences for the user
    """

    axis: MassAxis
    method: Method
    representation: Representation
    representation_source: str
    law_source: str
    width_source: str
    phase_source: str
    spacing: SpacingModel
    evidence: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain JSON values that `from_json` reads back exactly."""
        return {
            "axis": self.axis.to_json(), "method": self.method,
            "representation": self.representation,
            "representation_source": self.representation_source,
            "law_source": self.law_source, "width_source": self.width_source,
            "phase_source": self.phase_source, "spacing": self.spacing.to_json(),
            "evidence": self.evidence, "warnings": list(self.warnings),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AxisDecision:
        """Return the decision that `to_json` wrote; PlanError where it is not one."""
        try:
            return cls(
                MassAxis.from_json(value["axis"]), value["method"], value["representation"],
                value["representation_source"], value["law_source"], value["width_source"],
                value["phase_source"], SpacingModel.from_json(value["spacing"]),
                value["evidence"], tuple(value["warnings"]),
            )  # fmt: skip
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"axis decision has no usable entry {error}; plan again") from error

    def lines(self) -> list[str]:
        """Return the decision in a few lines for a terminal."""
        axis, middle = self.axis, math.sqrt(max(self.axis.low, MZ_FLOOR) * self.axis.high)
        width = f"{axis.width_at(middle):.4g} Th at m/z {middle:.4g}"
        of_law = [f"width  {width} ({self.width_source})", f"phase  {self.phase_source}"]
        return [
            f"representation  {self.representation} ({self.representation_source})",
            f"law  {axis.law} ({self.law_source})",
            *([] if axis.is_listed else of_law),
            f"bins  {axis.n_bins} from m/z {axis.low:.4f} to {axis.high:.4f}",
            f"method  {self.method}",
        ]


def decide(
    sample: RaggedSpectra, *, extent: tuple[float, float],
    representation: Representation | None, instrument: Instrument,
    shared_mz: Floats | None, union: Callable[[], Floats], settings: Settings,
) -> AxisDecision:  # fmt: skip
    """Return the mass axis for a source, and how its spectra are put on it.

    Parameters
    ----------
    sample
        Some of the spectra, evenly spread over the source.
    extent
        Smallest and largest m/z of the source, in Th.
    representation
        What the file says of its spectra; None where it says nothing.
    instrument
        What the header says about the instrument.
    shared_mz
        (n_points,) Th, the m/z that all spectra share; None where each has its own.
    union
        Returns the distinct m/z of the whole source, ascending; raises SettingsError
        where they are too many.
    settings
        What the user asked for.

    Raises
    ------
    SettingsError
        Where the axis that was asked for cannot be built.
    """
    found = _look(sample, representation, instrument, settings)
    choice, refused = listed_axis(found, shared_mz, union, settings)
    if choice is None:
        choice = law_axis(found, extent, settings)
    axis, factor = coarsen(choice.axis, settings.max_bins)
    warnings = [*found.warnings, *refused, *choice.warnings]
    if factor > 1:
        warnings.append(
            f"{choice.axis.n_bins} bins are more than --max-bins {settings.max_bins}: "
            f"bins are {factor} times as wide"
        )
    spacing = native_spacing(found, axis)
    is_profile = found.representation == "profile"
    method = settings.method
    return AxisDecision(
        axis=axis,
        method=adaptive_method(is_profile, axis, spacing) if method == "adaptive" else method,
        representation=found.representation,
        representation_source=found.representation_source,
        law_source=choice.law_source,
        width_source=choice.width_source,
        phase_source=choice.phase_source,
        spacing=spacing,
        evidence=_evidence(found, choice, factor),
        warnings=tuple(warnings),
    )


def _evidence(found: Findings, choice: Choice, factor: int) -> dict[str, Any]:
    prior = found.prior
    return {
        "spectra": found.points.n_spectra,
        "points": len(found.points.mz),
        "spacings": len(found.spacings.left),
        "spacing_deviation": found.deviation,
        "law_scores": found.scores,
        "header": None if prior is None else {"law": prior.law, "words": prior.words},
        "grid": None if choice.grid is None else choice.grid.to_json(),
        "scatter": found.scatter.to_json(),
        "coarsening_factor": factor,
    }


def _look(
    sample: RaggedSpectra, said: Representation | None, instrument: Instrument, settings: Settings
) -> Findings:
    """Return what the sample and the header say."""
    points = select_points(sample)
    spacings = find_spacings(points)
    laws = candidate_laws(instrument, settings.axis)
    deviation = spacing_deviation(spacings, laws)
    asked = settings.spectrum_type
    name: Representation | None = said if asked == "auto" else asked
    source = "header" if asked == "auto" else "asked for with --spectrum-type"
    even = _is_even(spacings, deviation, name)
    warnings: tuple[str, ...] = ()
    if name is None:
        name, source, warnings = _representation_by_data(deviation, even=even)
    elif deviation is not None:
        warnings = _representation_contradiction(name, source, deviation, even=even)
        source = f"{source}; spacing deviation {deviation:.2f}"
    return Findings(
        points=points,
        spacings=spacings,
        scores=law_scores(spacings, laws),
        deviation=deviation,
        scatter=measure_scatter(points),
        prior=instrument_prior(instrument),
        representation=name,
        representation_source=source,
        sampled=even,
        warnings=warnings,
    )


def _is_even(spacings: Spacings, deviation: float | None, name: Representation | None) -> bool:
    """Return whether the points are samples of peak shapes on a smooth grid."""
    if not len(spacings.left):
        return False
    mz, step = local_steps(spacings, "constant", spacings.stretches())
    if float(np.median(step / np.maximum(mz, MZ_FLOOR))) > COARSEST_STEP:
        return False
    if deviation is None:
        return name == "profile"
    # A short list of isotopes is evenly spaced too: against the header only a long one counts.
    enough = name != "centroid" or spacings.stretches() == STRETCHES
    return enough and deviation <= PROFILE_DEVIATION


def _representation_by_data(
    deviation: float | None, *, even: bool
) -> tuple[Representation, str, tuple[str, ...]]:
    if deviation is None:
        warning = (
            "the header does not say whether spectra are profile or centroid, and there are too "
            "few points to tell: taken as centroid; set --spectrum-type to change that"
        )
        return "centroid", "assumed: too few points to tell", (warning,)
    name: Representation = "profile" if even else "centroid"
    return name, f"data: spacing deviation {deviation:.2f}", ()


def _representation_contradiction(
    name: Representation, source: str, deviation: float, *, even: bool
) -> tuple[str, ...]:
    if even == (name == "profile"):
        return ()
    looks = f"not evenly spaced (deviation {deviation:.2f})"
    if even:
        looks = f"evenly spaced like a profile (deviation {deviation:.2f})"
    elif deviation <= PROFILE_DEVIATION:
        looks = f"more than {COARSEST_STEP:.0%} of their m/z apart"
    found = f"{name}, but the points are {looks}"
    if source == "header":
        return (f"the header says {found}; set --spectrum-type if it is wrong",)
    return (f"--spectrum-type says {found}",)
