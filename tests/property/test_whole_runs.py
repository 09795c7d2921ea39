"""Whole runs of small random data sets through the options that matter: no number may lie.

What must hold is computed from the spectra as they were written, with NumPy alone; the
store is read with zarr alone. The result must not depend on the order of the spectra in
the file, on how the work is cut, on the number of workers, or on the backend.
"""

import itertools

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import gpuconvert
from gpuconvert import plan
from tests.e2e.data import read_table, store_bytes
from tests.imzml_writer import write_imzml

TIC_ERROR = 1e-6
"""Relative error of a pixel's TIC: the promise."""

FLOAT32_STEPS = 2
"""Where ln or asinh are involved, backends may round a bin edge differently."""


@st.composite
def data_sets(draw):
    """Spectra on a sparse grid that is not square, in any order; and how they are written."""
    nx, ny = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    places = [(x + 1, y + 1) for y in range(ny) for x in range(nx)]
    kept = draw(st.lists(st.sampled_from(places), min_size=1, unique=True))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    profile = draw(st.booleans())
    continuous = draw(st.booleans())
    points = draw(st.sampled_from([1, 2, 30, 200]))
    # Zero-stripped and noisy profiles, empty pixels (guards the joins), huge counts (float32 sums).
    scale = draw(st.sampled_from([1.0, 1e-3, 1e7]))
    empty = draw(st.sets(st.integers(0, len(kept) - 1), max_size=len(kept) // 2))
    shared = _mz(rng, points, profile=profile)
    spectra = []
    for number, (x, y) in enumerate(kept):
        mz = shared if continuous else _mz(rng, points, profile=profile)
        counts = rng.poisson(3, points) * rng.gamma(2, scale, points)
        if number in empty and not continuous:
            mz, counts = mz[:0], counts[:0]
        spectra.append((x, y, mz, counts.astype("f4")))
    words = {
        "mode": "continuous" if continuous else "processed",
        "representation": "profile" if profile else "centroid",
        "compression": draw(st.sampled_from(["none", "zlib"])),
        "mz_dtype": draw(st.sampled_from(["f8", "f4"])),
        "pixel_size": draw(st.sampled_from([10.0, (5.0, 20.0)])),
    }
    return spectra, words


def _mz(rng, points, *, profile):
    if profile:
        # Uniform in the square root, as a linear flight tube samples, with a gap in it.
        step = np.cumsum(np.where(rng.random(points) < 0.05, 40, 1))
        return (14.0 + 0.01 * step) ** 2
    return np.sort(rng.choice(np.arange(20_000, 80_000), points, replace=False)) / 100


OPTIONS = st.fixed_dictionaries(
    {
        "layout": st.sampled_from(["csc", "csr"]),
        "axis": st.sampled_from(["auto", "constant", "linear-tof", "orbitrap", "fticr",
                                 "reflector-tof"]),
        "method": st.sampled_from(["adaptive", "pchip", "linear", "nearest"]),
        "threshold": st.sampled_from([0.0, 0.0, 0.5]),
        "mz_range": st.sampled_from([None, None, (210.0, 500.0)]),
        "preset": st.sampled_from(["speed", "balanced", "small"]),
    }
)  # fmt: skip

ONCE = settings(
    max_examples=25, deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


@pytest.fixture
def fresh(tmp_path):
    """Returns a new folder for every example."""
    numbers = itertools.count()

    def make():
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return folder

    return make


def _bins(options):
    """A law needs a width; `auto` may keep the source's own axis."""
    return options | ({} if options["axis"] == "auto" else {"bins": 500})


def _sums(spectra, words, order):
    """TIC of the spectra as they are stored, in row order."""
    return np.array([np.asarray(spectra[i][3], "f4").astype("f8").sum() for i in order])


def _row_order(spectra):
    return np.lexsort(([s[0] for s in spectra], [s[1] for s in spectra]))


@ONCE
@given(made=data_sets(), options=OPTIONS)
def test_no_number_of_a_store_lies(fresh, made, options):
    spectra, words = made
    folder = fresh()
    source = write_imzml(folder, spectra, **words)
    gpuconvert.convert(source, folder / "o.zarr", backend="numpy", **_bins(options))
    table = read_table(folder / "o.zarr")
    order = _row_order(spectra)
    x0, y0 = min(s[0] for s in spectra), min(s[1] for s in spectra)
    places = [(spectra[i][0] - x0, spectra[i][1] - y0) for i in order]
    assert list(zip(table.obs["x"].tolist(), table.obs["y"].tolist())) == places
    np.testing.assert_array_equal(table.obs["n_points"], [len(spectra[i][2]) for i in order])
    source_tic = _sums(spectra, words, order)
    np.testing.assert_allclose(table.obs["source_tic"], source_tic, rtol=TIC_ERROR)
    stored = np.asarray(table.x.astype("f8").sum(axis=1)).ravel()
    np.testing.assert_allclose(table.obs["tic"], stored, rtol=TIC_ERROR)
    expected = source_tic - table.obs["outside_tic"]
    slack = TIC_ERROR * source_tic
    if options["threshold"]:
        assert (stored <= expected + slack).all()
    else:
        assert (np.abs(stored - expected) <= slack).all()
    _matrix_is_sound(folder / "o.zarr", options)
    assert (np.diff(table.mz) > 0).all()
    exact = options["method"] == "nearest" or (
        options["method"] == "adaptive" and words["representation"] == "centroid"
    )
    if options["mz_range"] is None and exact:
        # All points lie on the axis. The cell of a profile's last point may reach beyond it.
        assert (table.obs["outside_tic"] <= slack).all()


def _matrix_is_sound(store, options):
    group = zarr.open_group(store, mode="r")["tables/msi_z0/X"]
    data, indices, indptr = (group[name][:] for name in ("data", "indices", "indptr"))
    n_rows, n_bins = group.attrs["shape"]
    major, minor = (n_bins, n_rows) if options["layout"] == "csc" else (n_rows, n_bins)
    assert indptr.dtype == np.int64
    assert (indptr[0], indptr[-1], len(indptr)) == (0, len(data), major + 1)
    assert (np.diff(indptr) >= 0).all()
    assert np.isfinite(data).all()
    assert (data > options["threshold"]).all()
    assert ((indices >= 0) & (indices < minor)).all()
    line = np.repeat(np.arange(major), np.diff(indptr))
    key = line * np.int64(max(minor, 1)) + indices
    assert (np.diff(key) > 0).all()


@ONCE
@given(made=data_sets(), options=OPTIONS, seed=st.integers(0, 99))
def test_the_order_of_spectra_the_cut_and_the_workers_change_no_number(fresh, made, options, seed):
    spectra, words = made
    folder = fresh()
    shuffled = [spectra[i] for i in np.random.default_rng(seed).permutation(len(spectra))]
    one = write_imzml(folder, spectra, name="a", **words)
    two = write_imzml(folder, shuffled, name="b", **words)
    options = _bins(options)
    gpuconvert.convert(one, folder / "a.zarr", workers=1, backend="numpy", **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "PART_NONZEROS", 10)
        patch.setattr(plan, "MOST_PARTS", 10**9)
        patch.setattr("gpuconvert.planning.SLOT_BYTES", 1000)
        gpuconvert.convert(one, folder / "c.zarr", workers=3, backend="numpy", **options)
        gpuconvert.convert(two, folder / "b.zarr", workers=2, backend="numpy", **options)
    # The same file cut otherwise: the same bytes, all of them.
    assert store_bytes(folder / "a.zarr") == store_bytes(folder / "c.zarr")
    first, second = read_table(folder / "a.zarr"), read_table(folder / "b.zarr")
    np.testing.assert_array_equal(first.mz, second.mz)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(first.x, name), getattr(second.x, name))
    for column in ("x", "y", "source_tic", "outside_tic", "n_points"):
        np.testing.assert_allclose(first.obs[column], second.obs[column], rtol=1e-12)


@ONCE
@given(made=data_sets(), options=OPTIONS)
def test_the_backend_changes_no_number(fresh, made, options):
    spectra, words = made
    folder = fresh()
    source = write_imzml(folder, spectra, **words)
    options = _bins(options)
    for backend in ("numpy", "cpu"):
        gpuconvert.convert(source, folder / f"{backend}.zarr", backend=backend, **options)
    one, two = read_table(folder / "numpy.zarr"), read_table(folder / "cpu.zarr")
    np.testing.assert_array_equal(one.x.indptr, two.x.indptr)
    np.testing.assert_array_equal(one.x.indices, two.x.indices)
    if len(one.x.data):
        np.testing.assert_array_max_ulp(one.x.data, two.x.data, FLOAT32_STEPS)
