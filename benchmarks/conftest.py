"""What the measured parts share: small data sets, opened, and the folder for them.

With ``--benchmark-disable`` sizes shrink, so that the parts run as tests in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cases import Case, flight_time_axis, write_case
from gpuconvert.allocator import keep_freed_memory
from gpuconvert.mass_axis import MassAxis, of_law
from gpuconvert.readers import open_reader
from gpuconvert.resampling import ResampleOptions
from gpuconvert.settings import Settings
from gpuconvert.spacing import SpacingModel, fit_spacing
from gpuconvert.spectra import RawBatch

LOW, HIGH = 99.0, 1001.0
"""m/z that every measured axis covers; the cases lie within."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Spectra as the pipeline hands them to a backend, and the native step of a profile."""

    raw: RawBatch
    spacing: SpacingModel


@pytest.fixture(scope="session", autouse=True)
def program_allocator():
    """Keep freed memory as the program does; whatever is compared with it gains as well."""
    keep_freed_memory()


@pytest.fixture(scope="session")
def measured(request):
    """Tell whether figures are wanted, and not only that everything runs."""
    return not request.config.getoption("benchmark_disable")


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Return a folder for the data sets of this session."""
    return tmp_path_factory.mktemp("cases")


def read_batch(case: Case, folder: Path) -> RawBatch:
    """Return all spectra of a case as one batch."""
    reader = open_reader(write_case(case, folder), Settings())
    into = np.empty(reader.batch_bytes(0, case.n_pixels), np.uint8)
    batch = reader.read(0, case.n_pixels, into)
    reader.close()
    return batch


def profiles(case: Case, folder: Path) -> Batch:
    """Return the profiles of a case with their native step."""
    axis = flight_time_axis(case.points)
    return Batch(read_batch(case, folder), fit_spacing(axis[1:], np.diff(axis)))


@pytest.fixture(scope="session")
def stripped(folder, measured):
    """Return profiles as in case z64: 30,000 points of which a third is stored."""
    return profiles(Case("stripped", "stripped", 4 if measured else 2, 30_000), folder)


@pytest.fixture(scope="session")
def full(folder, measured):
    """Return profiles of 30,000 points, none of them zero, on one axis."""
    return profiles(Case("full", "continuous", 4 if measured else 2, 30_000), folder)


@pytest.fixture(scope="session")
def centroids(folder, measured):
    """Return centroids as in case c256."""
    case = Case("centroids", "centroid", 64 if measured else 8, 500)
    return Batch(read_batch(case, folder), SpacingModel(0.0))


def flight_time_bins(n_bins: int) -> MassAxis:
    """Return `n_bins` bins uniform in flight time."""
    return of_law("linear-tof", LOW, HIGH, du=(HIGH**0.5 - LOW**0.5) / n_bins)


def constant_ppm_bins(ppm: float) -> MassAxis:
    """Return bins of a fixed fraction of their m/z."""
    return of_law("reflector-tof", LOW, HIGH, du=ppm * 1e-6)


def pchip_options(batch: Batch) -> ResampleOptions:
    """Return the options that profiles are converted with by default."""
    return ResampleOptions("pchip", spacing=batch.spacing)
