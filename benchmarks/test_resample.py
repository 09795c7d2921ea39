"""One batch onto the axis: each backend on one thread, and SciPy on the same spectra."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import PchipInterpolator

from benchmarks.conftest import constant_ppm_bins, flight_time_bins, pchip_options
from benchmarks.naive import cumulative
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


def scipy_nodes(batch):
    """Return the nodes and cumulative counts of every spectrum, made beforehand."""
    spectra = decode(batch.raw)
    ends = zip(spectra.indptr[:-1], spectra.indptr[1:], strict=True)
    return [cumulative(spectra.mz[a:b], spectra.intensity[a:b]) for a, b in ends]


def scipy_counts(nodes, edges):
    """Return what SciPy's interpolant gives to every bin of every spectrum."""
    return [
        np.diff(PchipInterpolator(x, y)(np.clip(edges, x[0], x[-1])))
        for x, y in nodes
    ]


@pytest.fixture(params=["stripped", "full"])
def profile(request):
    """Profiles of 30,000 points, of which a third or all are stored."""
    return request.param, request.getfixturevalue(request.param)


@pytest.mark.parametrize("n_bins", BINS)
@pytest.mark.parametrize("engine", BACKENDS)
def test_pchip_of_a_profile(benchmark, profile, engine, n_bins):
    shape, batch = profile
    backend, axis = choose_backend(engine)[0], flight_time_bins(n_bins)
    record(benchmark, engine, batch, part="pchip", shape=shape, n_bins=n_bins)
    block = benchmark(backend.resample, batch.raw, axis, pchip_options(batch))
    expected = scipy_counts(scipy_nodes(batch)[:1], np.sqrt(axis.edges))[0]
    found = np.zeros(axis.n_bins)
    found[block.indices[: block.indptr[1]]] = block.data[: block.indptr[1]]
    assert np.abs(found - expected).sum() < ENDS_OF_RUNS * expected.sum()


@pytest.mark.parametrize("n_bins", BINS)
def test_pchip_of_a_profile_by_scipy(benchmark, profile, n_bins):
    shape, batch = profile
    nodes, edges = scipy_nodes(batch), np.sqrt(flight_time_bins(n_bins).edges)
    record(benchmark, "scipy", batch, part="pchip", shape=shape, n_bins=n_bins)
    found = benchmark(scipy_counts, nodes, edges)
    totals = [values[-1] for _, values in nodes]
    np.testing.assert_allclose([np.sum(counts) for counts in found], totals, rtol=1e-9)


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
    np.testing.assert_array_equal(columns.data, block.data[np.argsort(block.indices, kind="stable")])


def test_decode(benchmark, centroids):
    record(benchmark, "numpy", centroids, part="decode")
    spectra = benchmark(decode, centroids.raw)
    assert spectra.indptr[-1] == centroids.raw.n_points.sum()
