"""The plan of a run: what is converted, onto which axis, in which partitions.

A plan is a frozen value that serialises to ``plan.json``; with the parts directory
beside it, it is everything that `convert` and `assemble` need. Its fingerprint says
which numbers come out, not where or by whom: it covers the source's identity, the
settings that decide numbers, the axis and the format version, and neither paths nor
executor nor backend.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.durable import rename
from gpuconvert.errors import BudgetError, PlanError
from gpuconvert.mass_axis import MassAxis
from gpuconvert.provenance import fingerprint
from gpuconvert.resampling import ResampleOptions
from gpuconvert.settings import Settings

PLAN_FORMAT = 1
MIB = 2**20

BASE_BYTES = 256 * MIB
"""Resident size of the program with everything loaded and nothing read."""
SPECTRUM_BYTES = 260
"""Index, table and shape columns of one spectrum, at the peak of writing the store."""
BIN_BYTES = 160
"""Axis, column counts and ``var`` of one bin, at the peak of writing the store."""
NONZERO_BYTES = 40
"""Blocks, their concatenation, the sorted copy and its scratch, of one non-zero of a part."""
UNIT_BYTES = 28
"""Assembled arrays, slices of parts and encoded chunks, of one non-zero of a unit."""

SLICE_BYTES = 16
"""Where a unit begins and ends in a part."""

SLOTS = 2
"""Buffers of the ring per worker: one is read while the other is resampled."""
SLOT_BYTES = 8 * MIB
"""Size of a buffer that every backend is given; a larger spectrum, or a backend that prefers
larger batches where nothing else has to be smaller for them, gets a larger one."""
PART_NONZEROS = 3 * 2**19
"""Preferred non-zeros of a part in a small data set."""
MOST_PARTS = 256
"""Large data sets get larger parts before they get more, memory permitting."""
LARGEST_PART = 2**31
"""Non-zeros of a part are counted in 32 bits."""
MOST_UNITS = 32
"""Large data sets are assembled in larger units before they get more, memory permitting."""
SHARD_CHUNKS = 8
"""Chunks in a shard of X."""


@dataclass(frozen=True, slots=True)
class Partition:
    """Spectra [first, last) of one z plane; what one worker converts at a time."""

    first: int
    last: int
    plane: int


@dataclass(frozen=True, slots=True)
class Plane:
    """Output rows [first, last) of one z plane, and their z from 0."""

    z: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Projection:
    """What the run is expected to take, in bytes; upper bounds.

    memory : peak resident size of one process with all its workers
    temporary : parts on disk
    store : X on disk before compression
    """

    memory: int
    temporary: int
    store: int

    def to_json(self) -> dict[str, int]:
        """Return the projection as plain JSON values."""
        return {"memory": self.memory, "temporary": self.temporary, "store": self.store}


@dataclass(frozen=True, slots=True)
class Layout:
    """How the work is cut, for a memory budget.

    slot_bytes : size of one buffer of the ring
    part_nonzeros : a partition is closed before it could exceed this
    unit_nonzeros : non-zeros assembled at a time by one worker
    workers : threads that convert at once
    """

    slot_bytes: int
    part_nonzeros: int
    unit_nonzeros: int
    workers: int


@dataclass(frozen=True)
class Plan:
    """Everything that `convert` and `assemble` need to know.

    source, output : paths, absolute
    identity : of the source, as plain JSON
    settings : as given by the user
    axis, options : the mass axis, and how spectra are put on it: one `ResampleOptions`
        per representation ("profile", "centroid")
    representation : taken where the file does not say
    decision : the evidence, as plain JSON
    planes, partitions : in row order
    layout, projection : how the work is cut, and what it takes
    merge : whether several spectra of one pixel are added up
    """

    source: str
    output: str
    identity: dict[str, Any]
    settings: Settings
    axis: MassAxis
    options: dict[str, ResampleOptions]
    representation: str
    decision: dict[str, Any]
    planes: tuple[Plane, ...]
    partitions: tuple[Partition, ...]
    layout: Layout
    projection: Projection
    merge: bool

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the numbers, lower-case hex."""
        return fingerprint(
            {
                "format": PLAN_FORMAT,
                "source": self.identity,
                "settings": self.settings.conversion(),
                "axis": self.axis.sha256,
                "options": {name: item.to_json() for name, item in self.options.items()},
                "representation": self.representation,
            }
        )

    def part_fingerprint(self, index: int) -> str:
        """SHA-256 of everything that decides the numbers of one part."""
        part = self.partitions[index]
        return fingerprint([self.fingerprint, part.first, part.last, part.plane])

    def options_for(self, representation: str | None) -> ResampleOptions:
        """Return how spectra of this representation are resampled."""
        return self.options[representation or self.representation]

    def to_json(self) -> dict[str, Any]:
        """Return the plan as plain JSON values."""
        layout = self.layout
        return {
            "format": PLAN_FORMAT,
            "fingerprint": self.fingerprint,
            "source": self.source,
            "output": self.output,
            "identity": self.identity,
            "settings": self.settings.to_json(),
            "axis": self.axis.to_json(),
            "options": {name: item.to_json() for name, item in self.options.items()},
            "representation": self.representation,
            "decision": self.decision,
            "planes": [[plane.z, plane.first, plane.last] for plane in self.planes],
            "partitions": [[part.first, part.last, part.plane] for part in self.partitions],
            "layout": [layout.slot_bytes, layout.part_nonzeros, layout.unit_nonzeros,
                       layout.workers],
            "projection": self.projection.to_json(),
            "merge": self.merge,
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Plan:
        """Return the plan that `to_json` wrote."""
        if value.get("format") != PLAN_FORMAT:
            raise PlanError(
                f"plan.json has format {value.get('format')!r}, this gpuconvert reads "
                f"{PLAN_FORMAT}; plan again"
            )
        try:
            plan = cls(
                source=value["source"],
                output=value["output"],
                identity=value["identity"],
                settings=Settings.from_json(value["settings"]),
                axis=MassAxis.from_json(value["axis"]),
                options={
                    name: ResampleOptions.from_json(item) for name, item in value["options"].items()
                },
                representation=value["representation"],
                decision=value["decision"],
                planes=tuple(Plane(*entry) for entry in value["planes"]),
                partitions=tuple(Partition(*entry) for entry in value["partitions"]),
                layout=Layout(*value["layout"]),
                projection=Projection(**value["projection"]),
                merge=value["merge"],
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise PlanError(f"plan.json has no usable entry {error}; plan again") from error
        if plan.fingerprint != value.get("fingerprint"):
            raise PlanError("plan.json was changed after it was written; plan again")
        return plan


def write_plan(plan: Plan, folder: Path) -> Path:
    """Write ``plan.json`` into `folder`, whole or not at all; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "plan.json"
    draft = folder / f"plan.json.{os.getpid()}.tmp"
    draft.write_text(json.dumps(plan.to_json(), indent=1))
    rename(draft, path, durable=plan.settings.durable)
    return path


def read_plan(path: Path) -> Plan:
    """Return the plan at `path`, a ``plan.json`` or the folder that holds one."""
    file = path / "plan.json" if path.is_dir() else path
    if not file.is_file():
        raise PlanError(f"no plan at {file}; run 'gpuconvert plan INPUT OUTPUT' first")
    try:
        value = json.loads(file.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise PlanError(f"{file} is not JSON ({error}); plan again") from error
    if not isinstance(value, dict):
        raise PlanError(f"{file} is not a plan; plan again")
    return Plan.from_json(value)


def cut_partitions(
    planes: tuple[Plane, ...], nonzeros: NDArray[np.int64], part_nonzeros: int,
    first_of_pixel: NDArray[np.bool_] | None,
) -> tuple[Partition, ...]:  # fmt: skip
    """Cut spectra into partitions of bounded size that stay inside a plane.

    Parameters
    ----------
    planes
        In spectra, ascending and without gaps.
    nonzeros
        (n_spectra,) int64, bound on the non-zeros of each spectrum.
    part_nonzeros
        No partition of more than one spectrum exceeds this.
    first_of_pixel
        (n_spectra,) bool where spectra of one pixel must stay together, else None.
    """
    total = np.concatenate([[0], np.cumsum(nonzeros)])
    parts: list[Partition] = []
    for number, plane in enumerate(planes):
        first = plane.first
        while first < plane.last:
            last = int(np.searchsorted(total, total[first] + part_nonzeros, "right")) - 1
            last = min(max(last, first + 1), plane.last)
            if first_of_pixel is not None:
                last = _whole_pixels(first, last, plane.last, first_of_pixel)
            parts.append(Partition(first, last, number))
            first = last
    return tuple(parts)


def _whole_pixels(first: int, last: int, end: int, first_of_pixel: NDArray[np.bool_]) -> int:
    """Return the nearest end of a pixel at or before `last`, else the next one after."""
    back = last
    while back > first and back < end and not first_of_pixel[back]:
        back -= 1
    if back > first:
        return back
    while last < end and not first_of_pixel[last]:
        last += 1
    return last


@dataclass(frozen=True, slots=True)
class Demand:
    """The size of a job, as far as memory depends on it.

    n_spectra, n_bins : of the whole data set
    most_rows : largest number of rows of a plane
    slot_bytes : size of a buffer; at least the largest spectrum
    batch_bytes : peak of resampling one full buffer
    largest_nonzeros, total_nonzeros : bounds for one spectrum and for all
    chunk : elements of a chunk of X
    reader_bytes, backend_bytes : what reader and backend themselves hold
    """

    n_spectra: int
    n_bins: int
    most_rows: int
    slot_bytes: int
    batch_bytes: int
    largest_nonzeros: int
    total_nonzeros: int
    chunk: int
    reader_bytes: int = 0
    backend_bytes: int = 0

    @property
    def shard(self) -> int:
        """Elements of a shard of X, the least that is assembled at a time."""
        return self.chunk * SHARD_CHUNKS

    @property
    def fixed(self) -> int:
        """Bytes that are held whatever the workers do."""
        each = self.n_spectra * SPECTRUM_BYTES + self.n_bins * BIN_BYTES
        return BASE_BYTES + self.reader_bytes + self.backend_bytes + each

    @property
    def ring(self) -> int:
        """Bytes of one worker's buffers, and of the batch it resamples."""
        return self.slot_bytes * SLOTS + self.batch_bytes

    def converting(self, part: int) -> int:
        """Return the bytes of one worker whose part holds at most `part` non-zeros."""
        return self.ring + part * NONZERO_BYTES

    def assembling(self, unit: int) -> int:
        """Return the bytes of one worker that assembles `unit` non-zeros at a time."""
        return min(unit, self.total_nonzeros) * UNIT_BYTES + self.most_rows * 8

    def finding(self, part: int, unit: int) -> int:
        """Return the bytes of what says where each unit lies in each part, and of checksums."""
        parts, units = (-(-self.total_nonzeros // max(size, 1)) for size in (part, unit))
        return parts * units * SLICE_BYTES + self.total_nonzeros // 2**10


def _whole_shards(nonzeros: int, shard: int) -> int:
    """Return `nonzeros` as whole shards, at least one."""
    return max(nonzeros // shard, 1) * shard


def _least_memory(demand: Demand, least_part: int) -> int:
    """Return the bytes that one worker takes with the smallest units and the best size of parts."""
    assembling = demand.assembling(demand.shard)
    # Larger parts take more to convert and less to find; a twentieth more is near enough.
    sizes = [int(least_part * 1.05**k) for k in range(240)]
    return demand.fixed + min(
        max(demand.converting(part), assembling + demand.finding(part, demand.shard))
        for part in sizes
    )


def fit_layout(demand: Demand, *, workers: int, budget: int) -> tuple[Layout, Projection]:
    """Return how to cut the work so that it stays within `budget`, and what it takes.

    Fewer workers than wanted are used before the work is refused.

    Raises
    ------
    BudgetError
        Where not even one worker with the smallest parts and units fits.
    """
    wanted_part = min(max(PART_NONZEROS, -(-demand.total_nonzeros // MOST_PARTS)), LARGEST_PART)
    wanted_unit = demand.shard * max(1, demand.total_nonzeros // (MOST_UNITS * demand.shard))
    least_part = max(demand.largest_nonzeros, 1)
    for count in range(workers, 0, -1):
        each = (budget - demand.fixed) // count
        part = min(max(wanted_part, least_part), (each - demand.ring) // NONZERO_BYTES)
        room = (each - demand.most_rows * 8) // UNIT_BYTES
        if part < least_part or room < min(demand.shard, demand.total_nonzeros):
            continue
        unit = _whole_shards(min(wanted_unit, room), demand.shard)
        # What says where units lie takes room from them; that of smaller units is more.
        told = demand.finding(part, _whole_shards(unit // 2, demand.shard))
        unit = _whole_shards(min(wanted_unit, room - told // (count * UNIT_BYTES)), demand.shard)
        assembling = count * demand.assembling(unit) + demand.finding(part, unit)
        memory = demand.fixed + max(count * demand.converting(part), assembling)
        if memory > budget:
            continue
        values = demand.total_nonzeros * 8
        layout = Layout(demand.slot_bytes, int(part), int(unit), count)
        return layout, Projection(memory, values, values + demand.n_spectra * 200)
    least = _least_memory(demand, least_part)
    raise BudgetError(
        f"--memory {budget / MIB:.0f} MiB is too little: {demand.n_spectra} spectra on "
        f"{demand.n_bins} bins, the largest with up to {demand.largest_nonzeros} values, need "
        f"at least {-(-least // MIB)} MiB; raise --memory"
    )
