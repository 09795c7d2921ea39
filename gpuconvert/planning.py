"""From an open source to a plan: sample it, decide the axis, cut the work to the budget."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.backends import Backend
from gpuconvert.decision import AxisDecision, decide
from gpuconvert.errors import BudgetError, SettingsError
from gpuconvert.executors import default_workers
from gpuconvert.mass_axis import MassAxis
from gpuconvert.memory import default_budget
from gpuconvert.pixels import first_of_pixel, one_row_per_pixel
from gpuconvert.plan import (
    SLOT_BYTES,
    Demand,
    Layout,
    Partition,
    Plan,
    Plane,
    Projection,
    cut_partitions,
    fit_layout,
)
from gpuconvert.readers import Reader, cut_batches, with_mobility
from gpuconvert.repairs import repair
from gpuconvert.resampling import Method, ResampleOptions, adaptive_method, most_nonzeros
from gpuconvert.settings import Settings
from gpuconvert.spectra import (
    Acquisition,
    RaggedSpectra,
    RawBatch,
    Representation,
    concatenate,
    decode,
    find_faults,
    from_ragged,
)

IMAGE_BYTES = 24
"""Bytes of one pixel of the grid while the TIC image of a plane is made, filled or not."""

LEAST_SHARE = 0.75
"""Of a part that stays where a backend prefers larger buffers."""

OUTSTANDING = 10
"""A spectrum of so many times the median of points is named where memory is too little."""

SAMPLE_SPECTRA = 256
SAMPLE_POINTS = 1_000_000
"""A sample holds at most this many spectra, and not many more points."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Evenly spread spectra of a source.

    rows : (n_sample,) int64, ascending
    spectra : their points
    """

    rows: NDArray[np.int64]
    spectra: RaggedSpectra


def take_sample(reader: Reader) -> Sample:
    """Return some hundreds of spectra, evenly spread over those that hold points."""
    acquisition = reader.acquisition
    filled = np.flatnonzero(acquisition.n_points)
    mean = float(acquisition.n_points[filled].mean()) if len(filled) else 1.0
    count = int(min(SAMPLE_SPECTRA, len(filled), max(8, SAMPLE_POINTS / mean)))
    rows = filled[np.unique(np.linspace(0, len(filled) - 1, count).round().astype(np.int64))]
    needed = max((reader.batch_bytes(row, row + 1) for row in rows), default=1)
    buffer = np.empty(max(needed, 1), np.uint8)
    parts = [decode(reader.read(int(row), int(row) + 1, buffer)) for row in rows]
    return Sample(rows.astype(np.int64), concatenate(parts))


def sample_batch(sample: Sample, representation: Representation | None) -> RawBatch:
    """Return the sample as a batch without faults, whatever they may be in the source."""
    batch = from_ragged(sample.spectra, np.arange(len(sample.rows)), representation)
    return repair(batch)[0] if find_faults(sample.spectra).any() else batch


def distinct_mz(reader: Reader, most: int) -> NDArray[np.float64]:
    """Return every m/z that occurs in the source, ascending; one pass over all of it.

    Raises
    ------
    SettingsError
        As soon as there are more than `most`.
    """
    known = np.zeros(0)
    buffer = np.empty(1, np.uint8)
    for first, last in cut_batches(reader, 0, reader.acquisition.n_spectra, SLOT_BYTES):
        needed = reader.batch_bytes(first, last)
        if needed > len(buffer):
            buffer = np.empty(needed, np.uint8)
        mz = decode(reader.read(first, last, buffer)).mz
        known = np.union1d(known, mz[np.isfinite(mz) & (mz >= 0)])
        if len(known) > most:
            raise SettingsError(
                f"{Path(reader.acquisition.path).name} holds more than {most} distinct m/z, too "
                "many for --axis source; name a law with --axis, or raise --max-bins"
            )
    return known


def decide_axis(
    reader: Reader, sample: Sample, settings: Settings, extent: tuple[float, float], *,
    union: Callable[[], NDArray[np.float64]] | None = None,
) -> AxisDecision:  # fmt: skip
    """Return the axis and the methods for a source whose m/z lie within `extent`.

    `union` returns the distinct m/z of the source; by default by reading all of it.
    """
    acquisition = reader.acquisition
    spectra = sample.spectra
    shared = None
    if acquisition.shared_mz_points and len(sample.rows):
        shared = spectra.mz[spectra.indptr[0] : spectra.indptr[1]]
    return decide(
        spectra,
        extent=extent,
        representation=acquisition.representation,
        instrument=acquisition.instrument,
        shared_mz=shared,
        union=union or (lambda: distinct_mz(reader, settings.max_bins)),
        settings=settings,
    )


def sample_extent(sample: Sample) -> tuple[float, float]:
    """Return the smallest and largest m/z of the sample; (0, 0) where it has no points."""
    mz = sample.spectra.mz[np.isfinite(sample.spectra.mz)]
    return (float(mz.min()), float(mz.max())) if len(mz) else (0.0, 0.0)


def resample_options(settings: Settings, decision: AxisDecision) -> dict[str, ResampleOptions]:
    """Return how profile and centroid spectra are put on the decided axis."""
    options = {}
    for name in ("profile", "centroid"):
        method: Method
        if settings.method == "adaptive":
            method = adaptive_method(name == "profile", decision.axis, decision.spacing)
        else:
            method = settings.method
        options[name] = ResampleOptions(
            method, settings.quantity, settings.threshold, settings.gap, decision.spacing
        )
    return options


def nonzero_bounds(
    acquisition: Acquisition, axis: MassAxis, options: dict[str, ResampleOptions], default: str
) -> NDArray[np.int64]:
    """Return a bound on the non-zeros of every spectrum; (n_spectra,) int64."""
    each = np.array(
        [
            most_nonzeros(axis, options[item.representation or default], 1)
            for item in acquisition.encodings
        ],
        np.int64,
    )
    bounds: NDArray[np.int64] = acquisition.n_points * each[acquisition.encoding]
    return np.minimum(axis.n_bins, bounds)


def find_planes(z: NDArray[np.int32]) -> tuple[Plane, ...]:
    """Return the planes of rows whose `z` ascend, empty planes left out."""
    values, starts = np.unique(z, return_index=True)
    ends = np.append(starts[1:], len(z))
    return tuple(
        Plane(int(value), int(first), int(last))
        for value, first, last in zip(values, starts, ends, strict=True)
    )


def measure_demand(
    reader: Reader, bounds: NDArray[np.int64], axis: MassAxis, backend: Backend,
    settings: Settings, slot_bytes: int,
) -> Demand:  # fmt: skip
    """Return what the job takes with buffers of `slot_bytes`, as far as memory depends on it."""
    acquisition = reader.acquisition
    rows = np.arange(acquisition.n_spectra)
    largest = int(np.argmax(acquisition.raw_bytes)) if len(rows) else 0
    slot = max(slot_bytes, reader.batch_bytes(largest, largest + 1) if len(rows) else 0)
    per_byte = acquisition.n_points / np.maximum(acquisition.raw_bytes, 1)
    points = 1 + min(int(slot * float(per_byte.max(initial=0.0))), int(acquisition.n_points.sum()))
    density = float((bounds / np.maximum(acquisition.n_points, 1)).max(initial=1.0))
    spectra = int(slot / max(1.0, float(acquisition.raw_bytes.mean()))) + 1 if len(rows) else 1
    nonzeros = 1 + min(int(points * density), int(bounds.sum()))
    most = int(acquisition.n_points.max(initial=0))
    batch = backend.peak_bytes(points, min(spectra, len(rows)), nonzeros, most).host
    batch += acquisition.unpack_bytes
    # Not by bincount: z may be any number.
    planes = np.unique(acquisition.z, return_counts=True)[1]
    return Demand(
        n_spectra=acquisition.n_spectra,
        n_bins=axis.n_bins,
        most_rows=int(planes.max(initial=0)),
        slot_bytes=slot,
        batch_bytes=batch,
        largest_nonzeros=int(bounds.max(initial=1)),
        total_nonzeros=int(bounds.sum()),
        chunk=settings.storage_choice()[2],
        reader_bytes=acquisition.reader_bytes,
        backend_bytes=backend.base_bytes,
    )


def _cut(
    acquisition: Acquisition, bounds: NDArray[np.int64], layout: Layout, *, merge: bool
) -> tuple[tuple[Plane, ...], tuple[Partition, ...]]:
    """Return the planes of output rows, and the partitions of spectra."""
    together = first_of_pixel(acquisition) if merge else None
    spectra = find_planes(acquisition.z)
    partitions = cut_partitions(spectra, bounds, layout.part_nonzeros, together)
    rows = find_planes(one_row_per_pixel(acquisition).z) if merge else spectra
    return rows, partitions


def check_grid(acquisition: Acquisition, budget: int) -> None:
    """Refuse a grid whose TIC image cannot be made within `budget` bytes.

    Raises
    ------
    BudgetError
        Where pixels lie so far apart, as a wrong position makes them.
    """
    _, ny, nx = acquisition.shape
    needed = ny * nx * IMAGE_BYTES
    if needed > budget // 2:
        raise BudgetError(
            f"{Path(acquisition.path).name}: {acquisition.n_spectra} spectra span a grid of "
            f"{nx} x {ny} pixels, whose image takes {needed / 2**20:,.0f} MiB, more than half of "
            "the memory that may be used; is a position wrong? raise --memory if it is not"
        )


def _fit(
    demand: Callable[[int], Demand], preferred: int, bytes_per_value: float, *, workers: int,
    budget: int, least_part: int,
) -> tuple[Layout, Projection]:  # fmt: skip
    """Return how to cut the work, and what it takes.

    Fewer workers come before parts below `least_part`. Buffers have SLOT_BYTES or, where they
    leave room for as many workers and most of a part, up to what is preferred.
    """
    least = demand(SLOT_BYTES)
    kept = replace(least, largest_nonzeros=max(least.largest_nonzeros, least_part))
    try:
        layout, projection = fit_layout(kept, workers=workers, budget=budget)
    except BudgetError:
        layout, projection = fit_layout(least, workers=workers, budget=budget)
    largest_part = bytes_per_value * layout.part_nonzeros
    least_part = max(least_part, int(LEAST_SHARE * layout.part_nonzeros))
    slot = preferred
    while slot > layout.slot_bytes:
        # No batch is larger than a part.
        if slot // 2 < largest_part:
            with suppress(BudgetError):
                larger, takes = fit_layout(demand(slot), workers=layout.workers, budget=budget)
                if larger.workers == layout.workers and larger.part_nonzeros >= least_part:
                    return larger, takes
        slot //= 2
    return layout, projection


def project(
    reader: Reader, decision: AxisDecision, backend: Backend, settings: Settings, *,
    least_part: int = 0,
) -> tuple[NDArray[np.int64], Layout, Projection]:  # fmt: skip
    """Return bounds on the non-zeros, how the work is cut, and what it takes.

    Parts are of `least_part` values or more where memory allows that at all.

    Raises
    ------
    BudgetError
        Where it cannot be done within the budget.
    """
    budget = settings.memory or default_budget()
    check_grid(reader.acquisition, budget)
    options = resample_options(settings, decision)
    bounds = nonzero_bounds(reader.acquisition, decision.axis, options, decision.representation)
    acquisition = reader.acquisition
    sizes, parted = bounds, with_mobility(reader)
    if parted is not None:
        # A second matrix of at most one value a peak, and of as many columns as there are cells.
        sizes = bounds + acquisition.n_points

    def demand(slot_bytes: int) -> Demand:
        found = measure_demand(reader, bounds, decision.axis, backend, settings, slot_bytes)
        if parted is None:
            return found
        cells = min(decision.axis.n_bins * parted[1].n_bins, int(acquisition.n_points.sum()))
        return replace(
            found, n_bins=found.n_bins + cells, largest_nonzeros=int(sizes.max(initial=1)),
            total_nonzeros=int(sizes.sum()),
        )  # fmt: skip

    per_value = float((acquisition.raw_bytes / np.maximum(sizes, 1)).max(initial=0.0))
    workers = settings.workers or default_workers()
    try:
        layout, projection = _fit(
            demand, backend.batch_bytes, per_value, workers=workers, budget=budget,
            least_part=least_part,
        )  # fmt: skip
    except BudgetError as error:
        raise BudgetError(f"{error}{_largest(acquisition)}") from error
    return sizes, layout, projection


def _largest(acquisition: Acquisition) -> str:
    """Return a clause that names the spectrum that takes most, where it stands out."""
    points = acquisition.n_points
    row = int(np.argmax(points))
    if points[row] < OUTSTANDING * max(1.0, float(np.median(points))):
        return ""
    x0, y0, _ = acquisition.origin
    return (
        f"; spectrum {int(acquisition.order[row])} (x={int(acquisition.x[row]) + x0}, "
        f"y={int(acquisition.y[row]) + y0}) alone has {int(points[row])} points"
    )


def make_plan(
    reader: Reader, output: Path, settings: Settings, backend: Backend
) -> tuple[Plan, Sample]:
    """Return the plan that converts an open source, and the sample it was decided from."""
    acquisition = reader.acquisition
    sample = take_sample(reader)
    decision = decide_axis(reader, sample, settings, reader.mz_extent())
    bounds, layout, projection = project(reader, decision, backend, settings)
    merge = settings.duplicates == "sum"
    planes, partitions = _cut(acquisition, bounds, layout, merge=merge)
    plan = Plan(
        source=str(Path(acquisition.path).resolve()),
        output=str(output),
        identity=acquisition.identity.to_json(),
        settings=settings,
        axis=decision.axis,
        options=resample_options(settings, decision),
        representation=decision.representation,
        decision=decision.to_json(),
        planes=planes,
        partitions=partitions,
        layout=layout,
        projection=projection,
        merge=merge,
    )
    return plan, sample
