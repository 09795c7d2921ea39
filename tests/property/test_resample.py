"""What resampling promises, on drawn spectra, axes and options, for every backend."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.mass_axis import LAWS, of_centres
from gpuconvert.resampling import ResampleOptions, most_nonzeros
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import decode
from tests.reference import resample_spectrum
from tests.strategies import axes, batches, make_axis, options, pack

KEPT = 1e-6
"""The share of a TIC that may go missing: float32 values are within 6e-8 of theirs."""

SMALLEST = 1.4e-45
"""The smallest float32: what rounding can take from one bin, however small its value."""


def row(block, index):
    """Return (bins, values) of one row of a block."""
    part = slice(block.indptr[index], block.indptr[index + 1])
    return block.indices[part], block.data[part].astype(np.float64)


def crowded(spectrum, axis, bin_edges):
    """Return the counts of the points within 0.002 bins of each bin edge."""
    mz, counts = spectrum
    away = np.abs(axis.position(mz)[:, None] - np.arange(bin_edges)[None])
    return np.where(away < 2e-3, counts[:, None], 0.0).sum(axis=0)


def assert_agrees(backend, block, index, spectrum, axis, expected):
    """Hold one row against the reference.

    Bit for bit, but where two math libraries differ in the last bit of a logarithm:
    a cell edge then moves by 1e-9 bins, which moves no more than that share of a cell
    over a bin edge, or all of a cell that is narrower than that.
    """
    bins, values = row(block, index)
    wanted_bins, wanted, tic, outside = expected
    assert block.tic[index] == tic
    if axis.exact or backend.name == "numpy":
        assert bins.tolist() == wanted_bins
        assert values.tolist() == wanted
        assert block.outside[index] == outside
        return
    total, wanted_total = np.zeros(axis.n_bins + 2), np.zeros(axis.n_bins + 2)
    total[bins + 1], wanted_total[np.array(wanted_bins, int) + 1] = values, wanted
    off = np.abs(np.cumsum(total) - np.cumsum(wanted_total))[:-1]
    near = crowded(spectrum, axis, axis.n_bins + 1)
    assert (off <= KEPT * tic + near).all()
    assert abs(block.outside[index] - outside) <= KEPT * tic + near[0] + near[-1]


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_backend_agrees_with_the_reference(backend, data):
    axis = data.draw(axes())
    batch = data.draw(batches(axis))
    # A value next to the threshold may fall on either side of it where math libraries differ.
    free = axis.exact or backend.name == "numpy"
    chosen = data.draw(options(threshold=None if free else 0.0))
    if not free and chosen.quantity == "height":
        chosen = ResampleOptions(chosen.method, "counts", 0.0, chosen.gap, chosen.spacing)
    block = backend.resample(batch, axis, chosen)
    decoded = decode(batch)
    assert block.rows.tolist() == batch.rows.tolist()
    assert not block.faults.any()
    for index in range(len(batch.rows)):
        part = slice(decoded.indptr[index], decoded.indptr[index + 1])
        spectrum = decoded.mz[part], decoded.intensity[part]
        expected = resample_spectrum(*spectrum, axis, chosen, batch.mz_dtype)
        assert_agrees(backend, block, index, spectrum, axis, expected)


def decisive(axis, random):
    """Return m/z on which something turns: edges, centres, ties, and their next numbers."""
    edges, centres = axis.edges, axis.centres
    at = np.concatenate(
        [edges, centres, 0.5 * (edges[1:] + edges[:-1]), 0.5 * (centres[1:] + centres[:-1])]
    )
    between = axis.low + (axis.high - axis.low) * random.uniform(-0.1, 1.1, 20)
    ends = [axis.low, axis.high] * 8 + [0.0, 5e-324]
    near = np.concatenate([np.nextafter(at, 0), np.nextafter(at, np.inf)])
    return np.maximum(np.concatenate([at, at, near, between, ends]), 0.0)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2"])
@pytest.mark.parametrize(
    ("method", "quantity"),
    [("pchip", "counts"), ("linear", "counts"), ("nearest", "counts"), ("pchip", "height"),
     ("linear", "height")],
)  # fmt: skip
@pytest.mark.parametrize("law", [*LAWS, "regular", "irregular", "from zero"])
def test_decisions_fall_as_in_the_reference(backend, law, method, quantity, dtype):
    random = np.random.default_rng(7)
    centres = 100.0 + np.cumsum(random.uniform(0.2, 3.0, 11))
    listed = {"regular": np.arange(100.0, 111.0), "irregular": centres,
              "from zero": np.arange(12.0)}  # fmt: skip
    axis = of_centres(listed[law]) if law in listed else make_axis(law, 11)
    if not axis.exact and backend.name != "numpy":
        pytest.skip("the last bit of a logarithm decides, and differs between math libraries")
    points = decisive(axis, random)
    for step in (0.0, 0.4, 1.0, 3.0):
        chosen = ResampleOptions(method, quantity, spacing=SpacingModel(step))
        pairs = []
        for _ in range(60):
            mz = np.sort(random.choice(points, random.integers(1, 9)))
            counts = random.integers(0, 4, len(mz)) * random.uniform(0.5, 1.0, len(mz))
            pairs.append((mz, counts))
        batch = pack(pairs, dtype, "<f8")
        block, decoded = backend.resample(batch, axis, chosen), decode(batch)
        for index in range(len(pairs)):
            part = slice(decoded.indptr[index], decoded.indptr[index + 1])
            spectrum = decoded.mz[part], decoded.intensity[part]
            expected = resample_spectrum(*spectrum, axis, chosen, dtype)
            assert_agrees(backend, block, index, spectrum, axis, expected)


def assert_all_agree(backend, batch, axis, options):
    """Hold every row of a batch against the reference."""
    block = backend.resample(batch, axis, options)
    decoded = decode(batch)
    for index in range(len(batch.rows)):
        part = slice(decoded.indptr[index], decoded.indptr[index + 1])
        spectrum = decoded.mz[part], decoded.intensity[part]
        expected = resample_spectrum(*spectrum, axis, options, batch.mz_dtype)
        assert_agrees(backend, block, index, spectrum, axis, expected)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_heights_agree_where_points_lie_on_centres(backend, data):
    # A centre at the point that ends one interval and begins the next is in one of them only.
    axis = data.draw(axes())
    mz = data.draw(st.lists(st.sampled_from([*axis.centres, *axis.edges]), max_size=12))
    mz = np.maximum(np.sort(np.array(mz, np.float64)), 0.0)
    counts = data.draw(st.lists(st.integers(0, 5).map(float), min_size=len(mz), max_size=len(mz)))
    method = data.draw(st.sampled_from(["pchip", "linear"]))
    gap = data.draw(st.sampled_from([1.5, float("inf")]))
    spacing = SpacingModel(data.draw(st.sampled_from([0.125, 1.0])))
    chosen = ResampleOptions(method, "height", gap=gap, spacing=spacing)
    assert_all_agree(backend, pack([(mz, np.array(counts))]), axis, chosen)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_the_smallest_masses_and_the_ends_of_the_axis_agree(backend, data):
    # Where the native step is longer than the m/z, and where cells have no width.
    law = data.draw(st.sampled_from([*LAWS, "listed"]))
    n_bins = data.draw(st.sampled_from([1, 3, 8]))
    axis = make_axis("constant" if law == "listed" else law, n_bins, 0.5, 4.5)
    if law == "listed":
        axis = of_centres(axis.centres)
    some = st.one_of(st.sampled_from([0.0, 1e-3, 0.25, axis.low, axis.high]), st.floats(0, 6))
    mz = np.sort(np.array(data.draw(st.lists(some, max_size=5)), np.float64))
    step = data.draw(st.sampled_from([0.0, 0.5, 3.0]))
    chosen = ResampleOptions(
        data.draw(st.sampled_from(["pchip", "linear", "nearest"])),
        spacing=SpacingModel(step, tolerance=0.0),
    )
    assert_all_agree(backend, pack([(mz, np.ones(len(mz)))]), axis, chosen)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_bins_ascend_and_values_pass_the_threshold(backend, data):
    axis = data.draw(axes())
    batch = data.draw(batches(axis))
    chosen = data.draw(options())
    block = backend.resample(batch, axis, chosen)
    assert block.indices.dtype == np.int32
    assert block.data.dtype == np.float32
    assert block.indptr.dtype == np.int64
    assert (block.data.astype(np.float64) > chosen.threshold).all()
    assert block.indptr[0] == 0
    assert block.indptr[-1] == len(block.indices) == len(block.data)
    for index, n_points in enumerate(batch.n_points):
        bins, _ = row(block, index)
        assert (np.diff(bins) > 0).all()
        assert ((bins >= 0) & (bins < axis.n_bins)).all()
        assert len(bins) <= most_nonzeros(axis, chosen, int(n_points))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_counts_are_conserved(backend, data):
    axis = data.draw(axes())
    batch = data.draw(batches(axis))
    chosen = data.draw(options(quantity="counts", threshold=0.0))
    block = backend.resample(batch, axis, chosen)
    for index in range(len(batch.rows)):
        _, values = row(block, index)
        lost = abs(values.sum() + block.outside[index] - block.tic[index])
        assert lost <= KEPT * block.tic[index] + SMALLEST * axis.n_bins


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_spectrum_does_not_depend_on_those_beside_it(backend, data):
    axis = data.draw(axes())
    batch = data.draw(batches(axis))
    chosen = data.draw(options())
    together = backend.resample(batch, axis, chosen)
    decoded = decode(batch)
    for index in range(len(batch.rows)):
        part = slice(decoded.indptr[index], decoded.indptr[index + 1])
        pair = decoded.mz[part], decoded.intensity[part]
        alone = backend.resample(
            pack([pair], batch.mz_dtype.str, batch.intensity_dtype.str), axis, chosen
        )
        assert row(alone, 0)[0].tolist() == row(together, index)[0].tolist()
        assert row(alone, 0)[1].tolist() == row(together, index)[1].tolist()
        assert alone.outside[0] == together.outside[index]


def own_grid(law, n_bins, dtype):
    """Return an axis whose bin centres (in u) are the points of a grid, and that grid."""
    axis = make_axis(law, n_bins, 200.0, 260.0)
    u = axis.u0 + (np.arange(axis.n_bins) + 0.5) * axis.du
    mz = LAWS[law].inverse(u, axis.a, axis.b)
    steps = np.diff(mz)
    b2, b1, b0 = np.polyfit(mz[1:], steps, 2, w=1 / steps)
    spacing = SpacingModel(float(b0), float(b1), float(b2), low=200.0, high=260.0)
    return axis, mz.astype(dtype).astype(np.float64), spacing


@settings(max_examples=60, deadline=None)
@given(
    law=st.sampled_from(list(LAWS)),
    dtype=st.sampled_from(["<f8", "<f4"]),
    method=st.sampled_from(["pchip", "linear", "nearest"]),
    stripped=st.booleans(),
    n_bins=st.sampled_from([50, 5000, 20_000]),
    seed=st.integers(0, 2**32 - 1),
)
def test_data_on_its_own_grid_is_unchanged(backend, law, dtype, method, stripped, n_bins, seed):
    axis, mz, spacing = own_grid(law, n_bins, dtype)
    random = np.random.default_rng(seed)
    counts = (random.integers(0, 2, axis.n_bins) * random.uniform(0.1, 9, axis.n_bins)).astype(
        "<f4"
    )
    filled = np.flatnonzero(counts)
    kept = filled if stripped else np.arange(axis.n_bins)
    batch = pack([(mz[kept], counts[kept])], dtype)
    block = backend.resample(batch, axis, ResampleOptions(method, spacing=spacing))
    assert block.indices.tolist() == filled.tolist()
    assert block.data.tolist() == counts[filled].tolist()
    assert block.outside[0] == 0


@settings(max_examples=60, deadline=None)
@given(
    n_bins=st.sampled_from([3, 30, 700]),
    method=st.sampled_from(["pchip", "linear"]),
    blocks=st.lists(st.lists(st.integers(1, 50), min_size=1, max_size=6), min_size=1, max_size=5),
    gap=st.integers(1, 4),
)
def test_zeros_between_peaks_may_be_left_out(backend, n_bins, method, blocks, gap):
    counts = np.concatenate([[0] * gap + block + [0] * gap for block in blocks]).astype(np.float64)
    mz = 110.0 + np.arange(len(counts)) / 16
    kept = counts > 0
    chosen = ResampleOptions(method, spacing=SpacingModel(1 / 16, tolerance=0.0))
    batch = pack([(mz, counts), (mz[kept], counts[kept])])
    block = backend.resample(batch, make_axis("constant", n_bins), chosen)
    (bins, values), (stripped_bins, stripped_values) = row(block, 0), row(block, 1)
    assert bins.tolist() == stripped_bins.tolist()
    np.testing.assert_allclose(stripped_values, values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n_bins", [5_000, 100_000])
@pytest.mark.parametrize("method", ["pchip", "linear", "nearest"])
@pytest.mark.parametrize("law", [*LAWS, "listed"])
def test_two_equal_ions_stay_equal_on_every_axis(backend, law, method, n_bins):
    # Sampled at equal steps of flight time, resampled by interpolating heights at bin
    # centres, the ratio of the two ions comes out wrong by up to 10 times.
    flight = np.linspace(np.sqrt(150.0), np.sqrt(1000.0), 20_000)
    mz = flight**2
    ions = [np.exp(-0.5 * ((flight - np.sqrt(m)) / 0.01) ** 2) for m in (200.0, 900.0)]
    ions = [np.where(ion > 1e-6, ion, 0.0) * (1000 / ion.sum()) for ion in ions]
    steps = np.diff(mz)
    b1, b0 = np.polyfit(mz[1:], steps, 1, w=1 / steps)
    axis = make_axis("constant" if law == "listed" else law, n_bins, 150.0, 1000.0)
    if law == "listed":
        axis = of_centres(axis.centres)
    batch = pack([(mz, ions[0] + ions[1])], "<f8", "<f8")
    options = ResampleOptions(method, spacing=SpacingModel(float(b0), float(b1)))
    block = backend.resample(batch, axis, options)
    at = axis.centres[block.indices]
    low, high = (
        block.data[(at > m - 50) & (at < m + 50)].sum(dtype=np.float64) for m in (200, 900)
    )
    assert abs(low / high * (ions[1].sum() / ions[0].sum()) - 1) < 1e-6
    assert (block.data > 0).all()
    assert abs(block.data.sum(dtype=np.float64) / block.tic[0] - 1) < 1e-6
