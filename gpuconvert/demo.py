"""A small realistic data set: what a newcomer converts first.

A kidney-like section measured on an Orbitrap in profile mode: two nested regions
with their own lipids, peak shapes and sampling as the instrument makes them, noise
counted as ions are, zero-stripped as vendors export it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyimzml.ImzMLWriter import ImzMLWriter

from gpuconvert.errors import OutputError

GRID = (44, 30)
"""Width and height of the measured area, in pixels."""
PIXEL_UM = 20.0
"""Distance of the pixels, in micrometres."""
RESOLVING_POWER = 60_000
"""At m/z 400; it falls with the square root of m/z, as that of an Orbitrap does."""
SAMPLES_PER_FWHM = 5
N_IONS = 60
SEED = 20


def _ions(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return m/z of the ions, (n_ions,), and their mean counts outside, in cortex and medulla."""
    mz = np.sort(rng.uniform(400, 1000, N_IONS))
    # Lipids have a mass defect that grows with their mass.
    mz = np.floor(mz) + 0.00075 * mz
    counts = rng.gamma(0.6, 900, (3, N_IONS))
    counts[0] *= 0.02
    return mz, counts


def _regions() -> NDArray[np.int64]:
    """Return 0 outside, 1 in the cortex and 2 in the medulla of each pixel; (ny, nx)."""
    nx, ny = GRID
    y, x = np.mgrid[0:ny, 0:nx]
    radius = np.hypot((x - nx / 2) / (nx / 2.2), (y - ny / 2) / (ny / 2.2))
    regions: NDArray[np.int64] = (radius < 1).astype(np.int64) + (radius < 0.55)
    return regions


def _spectrum(
    mz: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return one zero-stripped profile: m/z (Th) and counts of its points."""
    fwhm = mz * np.sqrt(mz / 400) / RESOLVING_POWER
    # The instrument samples evenly in frequency, u = -m^-1/2.
    step = 400**-0.5 / (2 * RESOLVING_POWER * SAMPLES_PER_FWHM)
    start = -(mz**-0.5)
    offsets = np.arange(-8, 9)
    index = np.round(start / step)[:, None] + offsets
    sampled = 1 / (index * step) ** 2
    shape = np.exp(-4 * np.log(2) * ((sampled - mz[:, None]) / fwhm[:, None]) ** 2)
    ions = rng.poisson(counts[:, None] * shape).astype(np.float32)
    place, first = np.unique(index.ravel(), return_index=True)
    values = np.bincount(np.searchsorted(place, index.ravel()), weights=ions.ravel())
    kept = values > 0
    return sampled.ravel()[first][kept], values[kept].astype(np.float32)


def write_demo(path: Path) -> Path:
    """Write the demo's ``.imzML`` at `path` and its ``.ibd`` beside it; return `path`.

    Pixels outside the section are measured too; a corner is missing, as it is where a
    region was drawn by hand.

    Raises
    ------
    OutputError
        Where the folder cannot be written.
    """
    rng = np.random.default_rng(SEED)
    mz, counts = _ions(rng)
    regions = _regions()
    try:
        with ImzMLWriter(
            str(path.with_suffix("")), mode="processed", spec_type="profile", polarity="positive"
        ) as writer:
            for y, x in np.ndindex(regions.shape):
                if x + y < 8:
                    continue
                scale = rng.gamma(20, 1 / 20)
                points, values = _spectrum(mz, counts[regions[y, x]] * scale, rng)
                writer.addSpectrum(points, values, (x + 1, y + 1, 1))
    except OSError as error:
        raise OutputError(
            error.errno, f"the demo cannot be written to {path.parent}: {error.strerror}"
        ) from error
    return path
