"""One batch onto the axis: each backend on one thread, and SciPy on the same spectra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from benchmarks.conftest import constant_ppm_bins, flight_time_bins, pchip_options
from benchmarks.naive import counts_pchip, cumulative
from gpuconvert.backends import choose_backend
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spectra import decode

BACKENDS = ("cpu", "numpy")
BINS = (90_000, 300_000)
PPM = 2.0
"""Width of the bins for centroids; about 1.2 million of them, as many as a run may have."""


ENDS_OF_RUNS = 1e-4
"""Share of the counts that may differ from SciPy: the outer half step of the first and last
point of a run is that of the fitted spacing here, and that of the grid there."""


def record(benchmark, engine, batch, **more):
    """Note what the report needs to tell results apart and to scale them."""
    benchmark.extra_info.update(
        engine=engine, n_spectra=len(batch.raw.n_points), n_points=int(batch.raw.n_points.sum()),
        **more,
    )  # fmt: skip


def split(batch):
    """Return m/z and counts of every spectrum."""
    spectra = decode(batch.raw)
    ends = zip(spectra.indptr[:-1], spectra.indptr[1:], strict=True)
    return [(spectra.mz[a:b], spectra.intensity[a:b]) for a, b in ends]


def sparse_counts(mz, counts, edges):
    """Return the filled bins and their counts, as a backend does."""
    binned = counts_pchip(mz, counts, edges)
    filled = np.flatnonzero(binned > 0)
    return filled.astype(np.int32), binned[filled].astype(np.float32)


def restored(mz, counts):
    """Return a stripped spectrum with its zeros on their grid again."""
    t = np.sqrt(mz)
    step = np.median(np.diff(t))
    place = np.rint((t - t[0]) / step).astype(np.int64)
    whole = np.zeros(place[-1] + 1)
    whole[place] = counts
    return (t[0] + np.arange(len(whole)) * step) ** 2, whole


@pytest.fixture(params=["stripped", "full"])
def profile(request):
    """Return profiles of 30,000 points, of which a third or all are stored."""
    return request.param, request.getfixturevalue(request.param)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize("engine", BACKENDS)
def test_pchip_of_a_profile(benchmark, profile, engine, n_bins):
    shape, batch = profile
    backend, axis = choose_backend(engine)[0], flight_time_bins(n_bins)
    record(benchmark, engine, batch, part="pchip", shape=shape, n_bins=n_bins)
    block = benchmark(backend.resample, batch.raw, axis, pchip_options(batch))
    expected = counts_pchip(*split(batch)[0], axis.edges)
    found = np.zeros(axis.n_bins)
    found[block.indices[: block.indptr[1]]] = block.data[: block.indptr[1]]
    assert np.abs(found - expected).sum() < ENDS_OF_RUNS * expected.sum()


@pytest.mark.parametrize("n_bins", BINS)
def test_pchip_of_a_profile_by_scipy(benchmark, profile, n_bins):
    shape, batch = profile
    spectra, edges = split(batch), flight_time_bins(n_bins).edges
    record(benchmark, "scipy", batch, part="pchip", shape=shape, n_bins=n_bins)
    found = benchmark(lambda: [sparse_counts(mz, counts, edges) for mz, counts in spectra])
    totals = [counts.sum() for _, counts in spectra]
    np.testing.assert_allclose([counts.sum() for _, counts in found], totals, rtol=1e-6)


@pytest.mark.parametrize("n_bins", BINS)
def test_pchip_by_scipy_with_zeros_restored(benchmark, stripped, n_bins):
    # Without a gap rule, an interpolant smears counts over gaps unless the zeros are there.
    edges = flight_time_bins(n_bins).edges
    spectra = [restored(mz, counts) for mz, counts in split(stripped)]
    engine = "scipy, zeros restored"
    record(benchmark, engine, stripped, part="pchip", shape="stripped", n_bins=n_bins)
    found = benchmark(lambda: [sparse_counts(mz, counts, edges) for mz, counts in spectra])
    totals = [counts.sum() for _, counts in spectra]
    np.testing.assert_allclose([counts.sum() for _, counts in found], totals, rtol=1e-6)


@pytest.mark.parametrize("n_bins", BINS)
def test_the_interpolant_alone_by_scipy(benchmark, profile, n_bins):
    shape, batch = profile
    nodes = [cumulative(mz, counts) for mz, counts in split(batch)]
    edges = np.sqrt(flight_time_bins(n_bins).edges)
    record(benchmark, "scipy, interpolant alone", batch, part="pchip", shape=shape, n_bins=n_bins)
    found = benchmark(
        lambda: [PchipInterpolator(x, y)(np.clip(edges, x[0], x[-1])) for x, y in nodes]
    )
    totals = [values[-1] for _, values in nodes]
    np.testing.assert_allclose([values[-1] - values[0] for values in found], totals, rtol=1e-9)


@pytest.mark.parametrize("engine", BACKENDS)
def test_nearest_of_centroids(benchmark, centroids, engine):
    backend, axis = choose_backend(engine)[0], constant_ppm_bins(PPM)
    record(benchmark, engine, centroids, part="nearest", n_bins=axis.n_bins)
    block = benchmark(backend.resample, centroids.raw, axis, ResampleOptions("nearest"))
    counts = decode(centroids.raw).intensity
    np.testing.assert_allclose(block.data.sum(dtype=np.float64), counts.sum(), rtol=1e-6)


@pytest.mark.parametrize("engine", BACKENDS)
def test_sort_by_bin(benchmark, centroids, engine):
    backend, axis = choose_backend(engine)[0], constant_ppm_bins(PPM)
    block = backend.resample(centroids.raw, axis, ResampleOptions("nearest"))
    record(benchmark, engine, centroids, part="by_bin", n_bins=axis.n_bins)
    columns = benchmark(backend.by_bin, block, axis.n_bins)
    np.testing.assert_array_equal(
        columns.data, block.data[np.argsort(block.indices, kind="stable")]
    )


def test_decode(benchmark, centroids):
    record(benchmark, "numpy", centroids, part="decode")
    spectra = benchmark(decode, centroids.raw)
    assert spectra.indptr[-1] == centroids.raw.n_points.sum()
