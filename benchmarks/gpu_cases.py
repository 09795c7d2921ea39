"""What devices are given: a batch like case z64 of any size, an axis, options, and how much."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cases import flight_time_axis, stripped_profile
from gpuconvert.mass_axis import MassAxis, of_law
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import RawBatch

POINTS = 30_000
"""Samples of a spectrum before zeros are dropped, as in case z64."""

DISTINCT = 64
"""Different spectra in a batch; the others repeat them."""

STORED = 12
"""Bytes of a point in the file: m/z as float64, intensity as float32."""

BINS = (90_000, 300_000)
LOW, HIGH = 100.0, 1000.0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured.

    kernel_bytes : of the batch whose kernels are timed
    batch_bytes : of a batch of the pipeline
    batches : of the pipeline
    scipy_spectra : that SciPy is given
    case : of the whole runs
    repeats : of every timing
    """

    kernel_bytes: int = 1_500_000_000
    batch_bytes: int = 64 << 20
    batches: int = 64
    scipy_spectra: int = 40
    case: str = "z64"
    repeats: int = 5


QUICK = Sizes(2_000_000, 1_000_000, 4, 3, "c64", 2)


def make_axis(n_bins: int) -> MassAxis:
    """Return a flight-time axis of so many bins over the range of the spectra."""
    return of_law("linear-tof", LOW, HIGH, du=(HIGH**0.5 - LOW**0.5) / n_bins)


def make_options() -> ResampleOptions:
    """Return how profiles are resampled by default: counts, pchip, the native step known."""
    mz = flight_time_axis(POINTS)
    slope, intercept = np.polyfit(mz[1:], np.diff(mz), 1, w=1 / np.diff(mz))
    return ResampleOptions("pchip", spacing=SpacingModel(float(intercept), float(slope)))


def make_batch(n_bytes: int, new: Callable[[int], Any]) -> RawBatch:
    """Return a batch of about `n_bytes` of zero-stripped profiles, in a buffer made by `new`."""
    rng = np.random.default_rng(7)
    pairs = [stripped_profile(POINTS, rng) for _ in range(DISTINCT)]
    each = STORED * sum(len(mz) for mz, _ in pairs) / len(pairs)
    pairs = pairs[: max(1, int(n_bytes / each))]
    arrays = [values.view(np.uint8) for pair in pairs for values in pair]
    once = np.concatenate(arrays)
    starts = np.cumsum([0, *(len(values) for values in arrays)])[:-1]
    repeats = max(1, n_bytes // len(once))
    raw = new(repeats * len(once))
    raw.reshape(repeats, len(once))[:] = once
    shift = np.arange(repeats)[:, None] * len(once)
    n = len(pairs) * repeats
    return RawBatch(
        raw, (shift + starts[::2]).ravel(), (shift + starts[1::2]).ravel(),
        np.tile(np.array([len(mz) for mz, _ in pairs], np.int64), repeats),
        np.dtype("<f8"), np.dtype("<f4"), np.arange(n, dtype=np.int64), "profile",
    )  # fmt: skip
