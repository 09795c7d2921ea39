"""What a source holds and what converting it would take, from its headers and a sample."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpuconvert.backends import Backend, choose_backend
from gpuconvert.decision import AxisDecision
from gpuconvert.errors import BudgetError
from gpuconvert.plan import Projection
from gpuconvert.planning import (
    Sample,
    decide_axis,
    project,
    resample_options,
    sample_batch,
    sample_extent,
    take_sample,
)
from gpuconvert.readers import Reader, StatesExtent, open_reader
from gpuconvert.settings import Settings
from gpuconvert.spectra import Acquisition

WRITE_SECONDS_PER_NONZERO = 3e-8
"""Sorting, storing, assembling and compressing one value on one core, for the estimate."""


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found; sizes in bytes, times in seconds.

    source : facts of the header, by name
    decision : what was detected from the sample, in sentences
    axis : the axis that would be used, as plain JSON; of the sampled m/z range
    backend : which one would be used, and why
    warnings : sentences, of the header and of the decision
    sampled : number of spectra the decision rests on
    projection : upper bounds, or None where the memory does not do; `refusal` says why
    seconds, nonzeros, store_bytes : estimates from resampling the sample
    """

    source: dict[str, Any]
    decision: tuple[str, ...]
    evidence: dict[str, Any]
    axis: dict[str, Any]
    backend: str
    warnings: tuple[str, ...]
    sampled: int
    projection: Projection | None
    refusal: str
    seconds: float
    nonzeros: int
    store_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return the inspection as plain JSON values."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return value | {
            "decision": list(self.decision),
            "warnings": list(self.warnings),
            "projection": None if self.projection is None else self.projection.to_json(),
        }


def _facts(acquisition: Acquisition) -> dict[str, Any]:
    """Return the header's facts under the names they are shown by."""
    nz, ny, nx = acquisition.shape
    counts = acquisition.n_points
    polarities = {1: "positive", -1: "negative", 0: "unknown"}
    return {
        "file": Path(acquisition.path).name,
        "format": acquisition.format,
        "bytes": sum(size for _, size, _ in acquisition.identity.files),
        "spectra": acquisition.n_spectra,
        "imaging": acquisition.imaging,
        "grid": [nx, ny, nz],
        "filled": acquisition.n_spectra / max(1, nx * ny * nz),
        "origin": list(acquisition.origin),
        "pixel_size_um": list(acquisition.pixel_size) if acquisition.imaging else None,
        "pixel_size_source": acquisition.pixel_size_source,
        "points": int(counts.sum()),
        "points_per_spectrum": [
            int(value) for value in np.percentile(counts, [0, 50, 100], method="nearest")
        ]
        if len(counts)
        else [0, 0, 0],
        "shared_mz": bool(acquisition.shared_mz_points),
        "stored_as": [
            f"m/z {item.mz_dtype}{' zlib' if item.mz_zlib else ''}, "
            f"intensity {item.intensity_dtype}{' zlib' if item.intensity_zlib else ''}"
            for item in acquisition.encodings
        ],
        "representation": acquisition.representation or "not stated",
        "polarity": sorted(polarities[int(code)] for code in np.unique(acquisition.polarity)),
        "instrument": acquisition.instrument.name,
        "analyser": acquisition.instrument.analyser,
        "declared_mz_range": acquisition.mz_range,
    }


def _estimate(
    reader: Reader, sample: Sample, decision: AxisDecision, backend: Backend, settings: Settings
) -> tuple[float, int]:
    """Return seconds for one worker, and non-zeros, scaled up from the sample."""
    acquisition = reader.acquisition
    points = int(np.diff(sample.spectra.indptr).sum())
    if not points:
        return 0.0, 0
    said = acquisition.representation
    options = resample_options(settings, decision)[said or decision.representation]
    batch = sample_batch(sample, said)
    # Once unmeasured: the first call may load or compile kernels.
    backend.resample(batch, decision.axis, options)
    begun = time.perf_counter()
    block = backend.resample(batch, decision.axis, options)
    spent = time.perf_counter() - begun
    scale = int(acquisition.n_points.sum()) / points
    nonzeros = round(len(block.data) * scale)
    return spent * scale + nonzeros * WRITE_SECONDS_PER_NONZERO, nonzeros


def _extent(reader: Reader, sample: Sample) -> tuple[float, float]:
    """Return the m/z range that a conversion uses where it is known unread, or the sample's."""
    stated = reader.stated_extent() if isinstance(reader, StatesExtent) else None
    return stated or sample_extent(sample)


def inspect(source: Path, settings: Settings) -> Inspection:
    """Return what `source` holds and what converting it would take.

    Reads the headers and a sample of the spectra, and nothing else; where the tables of the
    source do not tell the m/z range it is that of the sample, so the axis of a conversion
    may be a few bins longer.

    Raises
    ------
    SourceError
        Where the source is refused.
    """
    reader = open_reader(source, settings)
    try:
        backend, line = choose_backend(settings.backend, settings.devices or ())
        sample = take_sample(reader)
        decision = decide_axis(
            reader, sample, settings, _extent(reader, sample), union=lambda: np.unique(
                sample.spectra.mz[np.isfinite(sample.spectra.mz)]
            ),
        )  # fmt: skip
        projection, refusal, workers = None, "", 1
        try:
            _, layout, projection = project(reader, decision, backend, settings)
            workers = layout.workers
        except BudgetError as error:
            refusal = str(error)
        seconds, nonzeros = _estimate(reader, sample, decision, backend, settings)
        return Inspection(
            source=_facts(reader.acquisition),
            decision=tuple(decision.lines()),
            evidence=decision.evidence,
            axis=decision.axis.to_json(),
            backend=line,
            warnings=(*reader.acquisition.warnings, *decision.warnings),
            sampled=len(sample.rows),
            projection=projection,
            refusal=refusal,
            seconds=seconds / workers,
            nonzeros=nonzeros,
            store_bytes=nonzeros * 8,
        )
    finally:
        reader.close()
