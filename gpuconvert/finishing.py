"""From the parts of a job to its store, complete but for its name."""

from __future__ import annotations

import shutil
import time

from gpuconvert.assemble import PlaneResult, assemble_plane
from gpuconvert.cell_tables import CellResult, assemble_cells
from gpuconvert.executors import make_executor
from gpuconvert.job import Job
from gpuconvert.parts import read_summary
from gpuconvert.pixels import one_row_per_pixel
from gpuconvert.quality import Quality
from gpuconvert.readers import with_mobility
from gpuconvert.record import describe, judge
from gpuconvert.safeguards import damaged_removed
from gpuconvert.spatial import PlaneFacts, element_names, finish_store


def _assemble(job: Job) -> list[PlaneResult]:
    """Write X of every plane into a new staging folder."""
    store = job.space.store
    shutil.rmtree(store, ignore_errors=True)
    store.mkdir(parents=True)
    found = [
        read_summary(job.space.parts, index, job.plan.part_fingerprint(index))
        for index in range(len(job.plan.partitions))
    ]
    n_bytes = 8 * sum(part.n_nonzeros for part in found if part)
    job.monitor.begin("assemble", n_bytes)
    begun = time.perf_counter()
    with damaged_removed(), make_executor(job.plan.layout.workers) as executor:
        results = [
            assemble_plane(
                job.plan,
                number,
                job.space.parts,
                store / "tables" / element_names(job.plan.settings.id, plane.z).table,
                executor,
                job.monitor,
            )
            for number, plane in enumerate(job.plan.planes)
        ]
    job.monitor.note("assemble", time.perf_counter() - begun, n_bytes)
    return results


def _assemble_mobility(job: Job) -> list[CellResult]:
    """Write X by m/z and ion mobility of every plane, where that was asked for."""
    parted = with_mobility(job.reader)
    if parted is None:
        return []
    tables = job.space.store / "tables"
    with damaged_removed(), make_executor(job.plan.layout.workers) as executor:
        return [
            assemble_cells(
                job.plan, number, job.space.parts,
                tables / element_names(job.plan.settings.id, plane.z).mobility,
                executor, job.monitor, parted[1],
            )
            for number, plane in enumerate(job.plan.planes)
        ]  # fmt: skip


def finish(job: Job) -> tuple[Quality, list[PlaneResult]]:
    """Assemble and describe the store, complete but for its name."""
    results = _assemble(job)
    cells = _assemble_mobility(job)
    quality = judge(job, results)
    acquisition = job.reader.acquisition
    if job.plan.merge:
        acquisition = one_row_per_pixel(acquisition)
    planes = [
        PlaneFacts(
            z=result.z, rows=slice(result.first, result.last), tic=result.stored_tic,
            source_tic=result.source_tic, outside=result.outside, average=result.average,
        )
        for result in results
    ]  # fmt: skip
    with job.monitor.logged("store"):
        finish_store(
            job.space.store, acquisition, job.plan.axis, planes,
            dataset_id=job.plan.settings.id, provenance=describe(job, quality, results),
            cells=cells,
        )  # fmt: skip
    job.monitor.check()
    return quality, results
