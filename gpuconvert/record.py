"""What a store keeps of how it was made: quality figures and provenance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gpuconvert.assemble import PlaneResult
from gpuconvert.job import Job
from gpuconvert.planning import Sample, sample_batch, take_sample
from gpuconvert.provenance import canonical_json, now_utc, software
from gpuconvert.quality import PeakFigures, Quality, figures_of, measure, peak_shifts
from gpuconvert.resampling import most_nonzeros
from gpuconvert.spectra import decode

LOCAL = (
    "workers", "memory", "temp_dir", "ibd", "backend", "check_source", "durable", "ignore_space",
    "to", "mzpeak_layout", "dialect", "lossless", "resampled",
)  # fmt: skip
"""Settings that say where and how the work was done, or are of other outputs: no parameters."""


PIECE_NONZEROS = 2**20
"""Values of the resampled sample that are in memory at a time: some 100 MB."""


def _peaks(job: Job, sample: Sample) -> PeakFigures:
    """Return what became of the peaks of the sample, resampled once more piece by piece."""
    said = job.reader.acquisition.representation
    options = job.plan.options_for(said)
    axis = job.plan.axis
    profile = (said or job.plan.representation) == "profile"
    shifts = [np.zeros(0)]
    for piece in _pieces(sample, axis.n_bins, most_nonzeros(axis, options, 1)):
        batch = sample_batch(piece, said)
        block = job.backend.resample(batch, axis, options)
        shifts.append(
            peak_shifts(
                decode(batch), block.indptr, block.indices, block.data, centres=axis.centres,
                edges=axis.edges, profile=profile, spacing=options.spacing, gap=options.gap,
            )
        )  # fmt: skip
    return figures_of(np.concatenate(shifts))


def _pieces(sample: Sample, n_bins: int, each: int) -> Iterator[Sample]:
    """Yield consecutive parts of a sample, of PIECE_NONZEROS at most or of one spectrum.

    each : bound on the non-zeros that a point becomes
    """
    indptr = sample.spectra.indptr
    bounds = np.cumsum(np.minimum(n_bins, np.diff(indptr) * each))
    first = 0
    while first < len(bounds):
        before = bounds[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(bounds, before + PIECE_NONZEROS, "right")))
        points = slice(indptr[first], indptr[last])
        spectra = replace(
            sample.spectra, indptr=indptr[first : last + 1] - indptr[first],
            mz=sample.spectra.mz[points], intensity=sample.spectra.intensity[points],
        )  # fmt: skip
        yield Sample(sample.rows[first:last], spectra)
        first = last


def _bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def judge(job: Job, results: list[PlaneResult]) -> Quality:
    """Return how well the assembled matrices say what the source said."""
    with job.monitor.logged("quality"):
        peaks = _peaks(job, job.sample or take_sample(job.reader))
        stored, source, outside = (
            np.concatenate([getattr(result, name) for result in results])
            for name in ("stored_tic", "source_tic", "outside")
        )
        source_bytes = sum(size for _, size, _ in job.reader.acquisition.identity.files)
        ratio = _bytes_below(job.space.store) / max(1, source_bytes)
        return measure(stored, source, outside, peaks, ratio)


def describe(job: Job, quality: Quality, results: list[PlaneResult]) -> dict[str, Any]:
    """Return what the store keeps of how it was made."""
    plan = job.plan
    acquisition = job.reader.acquisition
    parameters = {
        name: value for name, value in plan.settings.to_json().items() if name not in LOCAL
    }
    compression, level, chunk = plan.settings.storage_choice()
    parameters |= {"compression": compression, "compression_level": level, "chunk_size": chunk}
    parameters["options"] = {name: item.to_json() for name, item in plan.options.items()}
    return {
        "software": software(),
        "parameters": canonical_json(parameters),
        "axis": canonical_json(plan.axis.to_json()),
        "axis_sha256": plan.axis.sha256,
        "axis_law": plan.axis.law,
        "decision": canonical_json(plan.decision),
        "decision_lines": job.decision().lines(),
        "fingerprint": plan.fingerprint,
        "source": canonical_json(
            {"name": Path(acquisition.path).name, "format": acquisition.format}
            | acquisition.identity.to_json()
        ),
        "source_check": job.source_check(),
        "instrument": {"name": acquisition.instrument.name,
                       "analyser": acquisition.instrument.analyser,
                       "terms": list(acquisition.instrument.terms)},
        "pixel_size_source": acquisition.pixel_size_source,
        "origin": list(acquisition.origin),
        "representation": plan.representation,
        "repairs": {"points_dropped": sum(result.dropped for result in results),
                    "spectra_sorted": sum(result.sorted for result in results)},
        "warnings": list(job.warnings()),
        "header": canonical_json(acquisition.metadata),
        "quality": quality.to_json(),
        # One text, so that nothing else in a store depends on when it was made.
        "times": canonical_json({"created": now_utc(), "stage_seconds": {**job.monitor.seconds()}}),
    }  # fmt: skip
