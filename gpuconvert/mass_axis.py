"""The mass axis: bins whose edges are uniform in the instrument's own coordinate.

An axis of a law has N bins with edges ``E_j = inverse(u0 + j du)``, where u(m) is
the law's coordinate: flight time, frequency, log m/z. An axis without a law
(``source``, ``file``) lists its bin centres, with edges half-way between them.
``var["mz"]`` of a store holds the arithmetic midpoints of the edges of a law,
and the listed centres themselves otherwise.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import PlanError, SettingsError

Floats = NDArray[np.float64]
Transform = Callable[[Floats, float, float], Floats]

AXIS_FORMAT = 1
MZ_FLOOR = 1e-3
"""m/z below this is taken as this before u(m), so that m/z 0 has a coordinate, in Th."""

NARROWEST = 1e-14
"""Least width of a bin as a fraction of its m/z: below it, rounding makes edges coincide."""

LISTED_CODE = 0
"""Kernel code of an axis that lists its bins."""


@dataclass(frozen=True, slots=True)
class Law:
    """A closed-form coordinate u(m) in which an instrument samples uniformly.

    code : how kernels call it; never reused
    forward, inverse, slope : u(m), m(u) and du/dm, of (values, a, b)
    exact : whether u needs only operations that IEEE 754 rounds correctly, so that
        every backend gives the same bits
    width : how the width of a bin grows with m/z, in words
    bounds : u between which the inverse holds: from the first, below the second
    """

    code: int
    forward: Transform
    inverse: Transform
    slope: Transform
    exact: bool
    width: str
    bounds: tuple[float, float] = (-math.inf, math.inf)


LAWS: dict[str, Law] = {
    "constant": Law(
        1, lambda m, a, b: m, lambda u, a, b: u, lambda m, a, b: np.ones_like(m), True, "1"),
    "linear-tof": Law(
        2, lambda m, a, b: np.sqrt(m), lambda u, a, b: u * u, lambda m, a, b: 0.5 / np.sqrt(m),
        True, "m^1/2", (0.0, math.inf)),
    "reflector-tof": Law(
        3, lambda m, a, b: np.log(m), lambda u, a, b: np.exp(u), lambda m, a, b: 1 / m,
        False, "m"),
    "tof": Law(
        4, lambda m, a, b: (2 / math.sqrt(b)) * np.arcsinh(np.sqrt(b * m / a)),
        lambda u, a, b: (a / b) * np.sinh(u * math.sqrt(b) / 2) ** 2,
        lambda m, a, b: 1 / np.sqrt(m * (a + b * m)),
        False, "sqrt(A m + B m^2)", (0.0, math.inf)),
    "orbitrap": Law(
        5, lambda m, a, b: -1 / np.sqrt(m), lambda u, a, b: 1 / (u * u),
        lambda m, a, b: 0.5 / (m * np.sqrt(m)), True, "m^3/2", (-math.inf, 0.0)),
    "fticr": Law(
        6, lambda m, a, b: -1 / m, lambda u, a, b: -1 / u, lambda m, a, b: 1 / (m * m),
        True, "m^2", (-math.inf, 0.0)),
}  # fmt: skip
"""Every law by its name on the command line; a new law is one entry here."""

TIMS_TOF_TERMS = (0.0877, 8.74e-4)
"""A (mDa^2/Da) and B (1e-6) of the two-term law of a timsTOF, from Thyra's documentation."""


@dataclass(frozen=True)
class MassAxis:
    """N bins along m/z; build it with `of_law` or `of_centres`.

    law : a name in LAWS, or "source" or "file" for listed centres
    n_bins : number of bins, at least 1
    u0, du : coordinate of the first edge and width of a bin in u; 0 for listed centres
    a, b : the two terms of law "tof", 1 otherwise
    listed : (n_bins,) float64 ascending centres in Th, empty for a law
    """

    law: str
    n_bins: int
    u0: float = 0.0
    du: float = 0.0
    a: float = 1.0
    b: float = 1.0
    listed: Floats = field(default_factory=lambda: np.zeros(0))

    def __post_init__(self) -> None:
        if self.n_bins < 1:
            raise SettingsError(f"an axis needs at least 1 bin, got {self.n_bins}")
        if self.is_listed:
            return
        if not self.du > 0:
            raise SettingsError(f"bin width must be above 0, got {self.du:g} in u")
        if not _inside(self.law, self.u0, self.u0 + self.n_bins * self.du):
            raise SettingsError(
                f"{self.n_bins} bins of {self.du:g} from {self.u0:g} in u of {self.law} reach "
                "where no m/z is; use narrower bins"
            )
        ends = self.u0 + np.array([0, 1, self.n_bins - 1, self.n_bins], np.float64) * self.du
        mz = LAWS[self.law].inverse(ends, self.a, self.b)
        if (mz[1::2] - mz[::2] < NARROWEST * mz[1::2]).any():
            raise SettingsError(
                f"bins of {self.du:g} in u of {self.law} are narrower than double precision; give "
                "wider ones, or --mz-range where an m/z of the source is damaged"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MassAxis) and self.sha256 == other.sha256

    def __hash__(self) -> int:
        return hash(self.sha256)

    @property
    def is_listed(self) -> bool:
        """Whether the axis lists its centres instead of following a law."""
        return self.law not in LAWS

    @property
    def exact(self) -> bool:
        """Whether every backend places points on this axis with the same bits."""
        return self.is_listed or LAWS[self.law].exact

    @property
    def code(self) -> int:
        """How kernels call the law."""
        return LISTED_CODE if self.is_listed else LAWS[self.law].code

    @cached_property
    def edges(self) -> Floats:
        """Bin edges; (n_bins + 1,) float64, ascending, Th."""
        if not self.is_listed:
            u = self.u0 + np.arange(self.n_bins + 1, dtype=np.float64) * self.du
            return LAWS[self.law].inverse(u, self.a, self.b)
        if self.n_bins == 1:
            # One m/z has no neighbour to be half-way to: 100 ppm to either side.
            only = float(self.listed[0])
            return np.array([only * (1 - 1e-4) - 1e-9, only * (1 + 1e-4) + 1e-9])
        inner = 0.5 * (self.listed[1:] + self.listed[:-1])
        first = self.listed[0] - (inner[0] - self.listed[0])
        last = self.listed[-1] + (self.listed[-1] - inner[-1])
        return np.concatenate([[first], inner, [last]])

    @cached_property
    def centres(self) -> Floats:
        """Bin centres, which is ``var["mz"]``; (n_bins,) float64, ascending, Th."""
        if self.is_listed:
            return self.listed
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def low(self) -> float:
        """Lower end of the first bin, in Th."""
        return float(self.edges[0])

    @property
    def high(self) -> float:
        """Upper end of the last bin, in Th."""
        return float(self.edges[-1])

    def position(self, mz: Floats) -> Floats:
        """Return where each m/z lies, in the coordinate that cells are cut in.

        For a law this is in bins: ``(u(m) - u0) / du``, so edges are the integers.
        For listed centres it is the m/z itself. Never descends where `mz` ascends.
        """
        if self.is_listed:
            return mz
        m = np.maximum(mz, MZ_FLOOR)
        return (LAWS[self.law].forward(m, self.a, self.b) - self.u0) / self.du

    def slope(self, mz: Floats) -> Floats:
        """Return d position / d m/z at each m/z, in bins (or Th) per Th."""
        if self.is_listed:
            return np.ones_like(mz)
        m = np.maximum(mz, MZ_FLOOR)
        return LAWS[self.law].slope(m, self.a, self.b) / self.du

    def width_at(self, mz: float) -> float:
        """Return the width of the bin that holds `mz` (the nearest one), in Th."""
        index = int(np.clip(np.searchsorted(self.edges, mz, "right") - 1, 0, self.n_bins - 1))
        return float(self.edges[index + 1] - self.edges[index])

    def to_json(self) -> dict[str, Any]:
        """Return the axis as plain JSON values that `from_json` reads back exactly."""
        value: dict[str, Any] = {"format": AXIS_FORMAT, "law": self.law, "n_bins": self.n_bins}
        if self.is_listed:
            packed = self.listed.astype("<f8").tobytes()
            value["centres_f8_base64"] = base64.b64encode(packed).decode("ascii")
        else:
            value |= {"u0": self.u0, "du": self.du}
            if self.law == "tof":
                value |= {"a": self.a, "b": self.b}
        return value

    @cached_property
    def sha256(self) -> str:
        """Digest of the canonical JSON of the axis, lower-case hex."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> MassAxis:
        """Return the axis that `to_json` wrote; PlanError where it is not one."""
        if value.get("format") != AXIS_FORMAT:
            raise PlanError(
                f"axis has format {value.get('format')!r}, this gpuconvert reads {AXIS_FORMAT}"
            )
        try:
            law = value["law"]
            if law in LAWS:
                return cls(
                    law=law, n_bins=int(value["n_bins"]), u0=float(value["u0"]),
                    du=float(value["du"]), a=float(value.get("a", 1.0)),
                    b=float(value.get("b", 1.0)),
                )  # fmt: skip
            packed = base64.b64decode(value["centres_f8_base64"], validate=True)
            return of_centres(np.frombuffer(packed, "<f8").astype(np.float64), str(law))
        except KeyError as error:
            raise PlanError(f"axis has no entry {error}, expected one as saved") from error
        except (TypeError, ValueError) as error:
            raise PlanError(f"axis cannot be used: {error}") from error


def _inside(law: str, first: float, last: float) -> bool:
    """Return whether edges from `first` to `last` in u of `law` all have an m/z."""
    lowest, highest = LAWS[law].bounds
    return math.isfinite(first) and math.isfinite(last) and lowest <= first and last < highest


def of_law(
    law: str, low: float, high: float, *, du: float, anchor: float | None = None,
    a: float = 1.0, b: float = 1.0,
) -> MassAxis:  # fmt: skip
    """Return the axis of `law` that covers [low, high] with bins `du` wide in u.

    Parameters
    ----------
    law
        A name in LAWS.
    low, high
        First and last m/z that must lie inside, in Th; ``0 < low <= high``.
    du
        Width of a bin in the law's coordinate.
    anchor
        A coordinate u at which a bin must have its centre; None starts a bin at `low`.
        Not kept where a bin would then reach beyond the law's range of u.
    a, b
        The two terms of law "tof".

    Raises
    ------
    SettingsError
        Where the range or the width cannot be used.
    """
    if law not in LAWS:
        raise SettingsError(f"unknown axis law {law!r}; available: {', '.join(LAWS)}")
    if not 0 < low <= high or not math.isfinite(high):
        raise SettingsError(f"m/z range must satisfy 0 < low <= high, got {low:g} to {high:g} Th")
    if not (du > 0 and math.isfinite(du)):
        raise SettingsError(f"bin width must be above 0, got {du:g} in u of {law}")
    ends = LAWS[law].forward(np.array([low, high]), a, b)
    if anchor is None:
        return _from_low(law, float(ends[0]), float(ends[1]), du, a, b)
    # The first bin is the one whose centre lies nearest to `low`, so that data on the
    # grid keeps exactly its own points.
    first = round((float(ends[0]) - anchor) / du)
    last = round((float(ends[1]) - anchor) / du)
    n_bins, u0 = max(1, last - first + 1), anchor + (first - 0.5) * du
    if not _inside(law, u0, u0 + n_bins * du):
        return _from_low(law, float(ends[0]), float(ends[1]), du, a, b)
    return MassAxis(law, n_bins, u0, du, a, b)


def _from_low(law: str, u0: float, end: float, du: float, a: float, b: float) -> MassAxis:
    """Return the bins from `u0` that reach `end`."""
    n_bins = max(1, math.ceil((end - u0) / du * (1 - 1e-12)))
    if n_bins * du < end - u0:
        # A width meant to divide the range misses the end by a rounding.
        du = (end - u0) / n_bins
    if not _inside(law, u0, u0 + n_bins * du):
        # Frequency ends at 0, which no m/z reaches: the last bin ends half way to it.
        du = (0.5 * (end + LAWS[law].bounds[1]) - u0) / n_bins
    return MassAxis(law, n_bins, u0, du, a, b)


def told_apart(centres: Floats) -> NDArray[np.bool_]:
    """Return whether each but the first lies above the one before by more than rounding."""
    return np.diff(centres) > 4 * NARROWEST * np.maximum(centres[1:], 1.0)


def of_centres(centres: Floats, law: str = "file") -> MassAxis:
    """Return the axis with these bin centres; (n_bins,) float64, strictly ascending, Th."""
    if centres.ndim != 1 or not len(centres):
        raise SettingsError(f"bin centres must be a non-empty list, got shape {centres.shape}")
    good = np.isfinite(centres) & (centres >= 0)
    if not good.all():
        place = int(np.flatnonzero(~good)[0])
        raise SettingsError(f"bin centre {place} is {centres[place]:g}, expected m/z of at least 0")
    close = ~told_apart(centres)
    if close.any():
        place = int(np.flatnonzero(close)[0]) + 1
        raise SettingsError(
            f"bin centres must ascend by more than rounding, but centre {place} is "
            f"{float(centres[place])!r} after {float(centres[place - 1])!r}"
        )
    return MassAxis(law, len(centres), listed=np.ascontiguousarray(centres, np.float64))


def coarsen(axis: MassAxis, max_bins: int) -> tuple[MassAxis, int]:
    """Return `axis` with at most `max_bins` bins, and the whole factor its bins grew by.

    Only an axis of a law can be coarsened; centres of the new bins fall on centres of
    old ones where the factor is odd.
    """
    factor = -(-axis.n_bins // max_bins)
    if factor <= 1:
        return axis, 1
    if axis.is_listed:
        raise SettingsError(
            f"the axis has {axis.n_bins} bins, more than --max-bins {max_bins}; "
            "name a law with --axis, or raise --max-bins"
        )
    n_bins = -(-axis.n_bins // factor)
    du = axis.du * factor
    if not _inside(axis.law, axis.u0, axis.u0 + n_bins * du):
        du = axis.du * axis.n_bins / n_bins
    return MassAxis(axis.law, n_bins, axis.u0, du, axis.a, axis.b), factor


def read_axis(path: Path) -> MassAxis:
    """Return the axis in a file: ``.json`` as saved, or centres in .npy, .txt or .csv.

    Raises
    ------
    SettingsError
        Where the file is missing, is of another kind, or does not hold ascending m/z.
    """
    if not path.is_file():
        raise SettingsError(
            f"--axis {path} is neither a file nor one of auto, source, {', '.join(LAWS)}"
        )
    try:
        if path.suffix == ".json":
            value = json.loads(path.read_text())
            return MassAxis.from_json(value.get("axis", value))
        if path.suffix == ".npy":
            centres = np.load(path, allow_pickle=False)
        elif path.suffix in {".txt", ".csv"}:
            centres = _read_lines(path)
        else:
            raise SettingsError(
                f"axis file {path} ends in {path.suffix!r}, expected .json, .npy, .txt or .csv"
            )
        return of_centres(np.asarray(centres, np.float64))
    except (ValueError, KeyError, TypeError, AttributeError, OSError, EOFError) as error:
        if isinstance(error, SettingsError) and str(path) in str(error):
            raise
        raise SettingsError(f"axis file {path} cannot be used: {error}") from error


def _read_lines(path: Path) -> Floats:
    """Return the first column of a text file, skipping one header line and comments."""
    lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
    cells = [line.replace(";", ",").split(",")[0].strip() for line in lines if line]
    if cells and not re.match(r"[-+.\d]|nan|inf", cells[0].lower()):
        cells = cells[1:]
    return np.array([float(cell) for cell in cells])
