"""Every backend: decoding, faults, sorting by bin, memory, threads; and how one is chosen."""

import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyimzml.ImzMLParser import ImzMLParser
from scipy.sparse import csr_matrix

from gpuconvert.backends import BACKENDS, choose_backend
from gpuconvert.backends.host import HostBackend
from gpuconvert.errors import BackendError
from gpuconvert.mass_axis import LAWS, of_centres, of_law
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import (
    FAULT_INTENSITY,
    FAULT_MZ,
    FAULT_NEGATIVE,
    FAULT_ORDER,
    CsrBlock,
    unpack,
)
from tests.frames import N_SAMPLES, pack_frames, packed_batches
from tests.strategies import INTENSITY_DTYPES, MZ_DTYPES, make_axis, pack

NAN = float("nan")
AXIS = make_axis("constant", 30)  # bins of 1 Th from m/z 100
METHODS = [("pchip", "counts"), ("linear", "counts"), ("nearest", "counts"),
           ("pchip", "height"), ("linear", "height")]  # fmt: skip


def spectrum(mz, counts):
    return np.array(mz, np.float64), np.array(counts, np.float64)


def columns(block):
    """Return every column of a block as a list."""
    return {item.name: getattr(block, item.name).tolist() for item in fields(block)}


def blocks_are_equal(first, second):
    return all(
        np.array_equal(getattr(first, item.name), getattr(second, item.name))
        for item in fields(first)
    )


def peaks(seed, n_spectra=3, n_points=3000, gaps=True):
    """Return spectra of peaks between zeros on a grid even in sqrt(m/z), partly thinned."""
    random = np.random.default_rng(seed)
    mz = np.linspace(np.sqrt(99.5), np.sqrt(130.5), n_points) ** 2
    pairs = []
    for _ in range(n_spectra):
        counts = np.zeros(n_points)
        for centre in random.integers(0, n_points, n_points // 60):
            here = slice(max(centre - 9, 0), centre + 10)
            counts[here] += random.uniform(0, 99, len(counts[here]))
        kept = (counts > 0) | (random.random(n_points) < 0.7) if gaps else slice(None)
        pairs.append((mz[kept], counts[kept]))
    return pairs


def step_of(n_points=3000):
    """Return the native step of `peaks`: 2 sqrt(m) du, nearly a line over so short a range."""
    du = (np.sqrt(130.5) - np.sqrt(99.5)) / (n_points - 1)
    slope = (np.sqrt(130.5) - np.sqrt(99.5)) * 2 * du / 31
    return SpacingModel(float(2 * np.sqrt(99.5) * du - slope * 99.5), float(slope))


@pytest.mark.parametrize(("method", "quantity"), METHODS)
@pytest.mark.parametrize("law", [*LAWS, "listed"])
@pytest.mark.parametrize("n_bins", [30, 4000, 200_000])
def test_long_spectra_are_those_of_the_numpy_backend(backend, law, n_bins, method, quantity):
    if backend.name == "numpy":
        pytest.skip("the others are held against it")
    axis = make_axis("constant" if law == "listed" else law, n_bins)
    if law == "listed":
        axis = of_centres(axis.centres)
    options = ResampleOptions(method, quantity, spacing=step_of())
    batch = pack(peaks(n_bins), "<f8", "<f4")
    block, wanted = (each.resample(batch, axis, options) for each in (backend, HostBackend()))
    assert len(wanted.data) > 10
    if axis.exact:
        assert blocks_are_equal(block, wanted)
        return
    # ln and asinh differ in the last bit between math libraries: positions by 1e-10 bins.
    shape = (len(batch.rows), axis.n_bins)
    dense, wanted_dense = (
        csr_matrix((b.data.astype(float), b.indices, b.indptr), shape).toarray()
        for b in (block, wanted)
    )
    np.testing.assert_allclose(dense, wanted_dense, rtol=2e-7, atol=1e-6)
    np.testing.assert_allclose(block.outside, wanted.outside, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize(("method", "quantity"), METHODS)
@pytest.mark.parametrize("dtypes", [*zip(MZ_DTYPES, INTENSITY_DTYPES, strict=True)])
def test_the_dtype_of_whole_numbers_does_not_matter(backend, dtypes, method, quantity):
    pairs = [spectrum([101, 102, 103, 105], [4, 60, 7, 9]), spectrum([104], [3])]
    options = ResampleOptions(method, quantity, spacing=SpacingModel(1.0))
    wanted = backend.resample(pack(pairs, "<f8", "<f8"), AXIS, options)
    found = backend.resample(pack(pairs, *dtypes, gaps=[3, 1, 5, 2]), AXIS, options)
    assert columns(found) == columns(wanted)
    assert len(wanted.data) > 1 or quantity == "height"


@pytest.mark.parametrize(("method", "quantity"), METHODS)
def test_one_mz_array_for_all_gives_what_a_copy_for_each_does(backend, method, quantity):
    (mz, _), *_ = peaks(1, gaps=False)
    pairs = [(mz, counts) for _, counts in peaks(2, 4, gaps=False)]
    options = ResampleOptions(method, quantity, spacing=step_of())
    axis = make_axis("linear-tof", 2000)
    shared = backend.resample(pack(pairs, shared=True), axis, options)
    assert blocks_are_equal(shared, backend.resample(pack(pairs), axis, options))
    assert len(shared.data) > 100


@pytest.mark.parametrize(("method", "quantity"), METHODS)
def test_a_batch_of_nothing_gives_nothing(backend, method, quantity):
    options = ResampleOptions(method, quantity)
    block = backend.resample(pack([]), AXIS, options)
    assert columns(block) == {
        "rows": [], "indptr": [0], "indices": [], "data": [], "tic": [], "outside": [],
        "faults": [],
    }  # fmt: skip
    empty = spectrum([], [])
    block = backend.resample(pack([empty, spectrum([103.5], [2]), empty]), AXIS, options)
    assert block.tic.tolist() == [0, 2, 0]
    assert block.indptr[1] == 0
    assert block.indptr[3] == block.indptr[2]


@pytest.mark.parametrize(
    ("mz", "expected"),
    [
        # Cells end at positions 40.5 and 42.5 (bins of 0.5 Th from m/z 100), half-way between
        # two bin edges and no farther from them than float16 leaves open: the lower ones.
        ([119.75, 120.75], {40: 4.0, 41: 4.0}),
        # Position 40.5 is 0.875 from its point, and may not move by more than half of that;
        # position 42.375 is 1 from its point, and snaps.
        ([119.8125, 120.6875], {40: 8 / 3, 41: 16 / 3}),
    ],
)
def test_cell_edges_move_to_the_lower_bin_edge_but_not_half_way(backend, mz, expected):
    options = ResampleOptions("linear", spacing=SpacingModel(1.0, tolerance=0.0))
    batch = pack([spectrum(mz, [0, 8])], "<f2")
    block = backend.resample(batch, make_axis("constant", 60), options)
    assert block.indices.tolist() == list(expected)
    np.testing.assert_allclose(block.data, list(expected.values()), rtol=1e-7)


def test_a_cell_edge_snaps_by_the_bin_of_the_point_to_its_left(backend):
    # Bin edges 99, 101, 102.1, 102.3, 102.5. The cell edge lies 6e-7 below 102.1: within
    # 1e-6 bins of the left point's bin, 1.1 wide, but not of the right one's, 0.2 wide.
    axis = of_centres(np.array([100.0, 102.0, 102.2, 102.4]))
    options = ResampleOptions("linear", spacing=SpacingModel(1.0, tolerance=0.0))
    batch = pack([spectrum([101.6, 102.6 - 1.2e-6], [0, 8])])
    assert backend.resample(batch, axis, options).indices.tolist() == [2, 3]


def test_points_at_one_position_count_as_the_first(backend):
    # m/z 0 and 0.0005 have the position of 0.001. From the first it is farther to the ion
    # at 0.0015 than four steps of 0.0003, from the second it is not.
    axis = of_law("constant", 0.001, 0.002, du=1e-4)
    options = ResampleOptions("linear", gap=4.0, spacing=SpacingModel(3e-4, tolerance=0.0))
    block = backend.resample(pack([spectrum([0.0, 5e-4, 0.0015], [0, 0, 6])]), axis, options)
    assert block.indices.tolist() == [3, 4, 5, 6]
    np.testing.assert_allclose(block.data, [1, 2, 2, 1], rtol=1e-6)


@pytest.mark.parametrize("n_bins", [2, 11, 5_000, 700_000])
@pytest.mark.parametrize("law", LAWS)
def test_the_nearest_bin_is_found_next_to_where_it_changes(backend, law, n_bins):
    axis = make_axis(law, n_bins)
    centres = axis.centres
    some = np.unique(np.linspace(0, len(centres) - 2, 2_000).astype(int))
    halves = 0.5 * (centres[some] + centres[some + 1])
    steps = np.nextafter(halves, 0), np.nextafter(halves, np.inf), axis.edges[some + 1]
    mz = np.sort(np.concatenate([halves, *steps, centres[some], centres[some] + 1e-9]))
    block = backend.resample(pack([(mz, np.ones(len(mz)))]), axis, ResampleOptions("nearest"))
    right = np.clip(np.searchsorted(centres, mz), 1, len(centres) - 1)
    # Ties go to the right.
    found = right - (mz - centres[right - 1] < centres[right] - mz)
    bins, counts = np.unique(found, return_counts=True)
    np.testing.assert_array_equal(block.indices, bins)
    np.testing.assert_array_equal(block.data, counts)


def test_neighbours_are_judged_by_the_native_step_at_the_second(backend):
    # The step is m/100: the points are 1.51 apart, 1.5 steps at the first are 1.5 and at the
    # second 1.523. So the cell of the second begins half-way, at m/z 100.755.
    options = ResampleOptions("linear", spacing=SpacingModel(0.0, 0.01, tolerance=0.0))
    block = backend.resample(
        pack([spectrum([100.0, 101.51], [0, 6])]), make_axis("constant", 300), options
    )
    assert block.indices[0] == 7


def test_rows_are_those_of_the_batch(backend):
    pairs = [spectrum([100.5 + k], [k + 1]) for k in range(4)]
    rows = np.array([5, 9, 9, 1_000_000], np.int64)
    block = backend.resample(pack(pairs, rows=rows), AXIS, ResampleOptions("nearest"))
    assert block.rows.tolist() == rows.tolist()
    assert block.indices.tolist() == [0, 1, 2, 3]
    assert block.data.tolist() == [1, 2, 3, 4]


FAULTY = [
    (spectrum([102.5, 101.5], [1, 1]), FAULT_ORDER),
    (spectrum([101.5, NAN], [1, 1]), FAULT_MZ),
    (spectrum([-1.0, 101.5], [1, 1]), FAULT_MZ),
    (spectrum([101.5, 1.1e6], [1, 1]), FAULT_MZ),
    (spectrum([101.5, 1e300], [1, 1]), FAULT_MZ),
    (spectrum([101.5, float("inf")], [1, 1]), FAULT_MZ),
    (spectrum([101.5, 102.5], [1, NAN]), FAULT_INTENSITY),
    (spectrum([101.5, 102.5], [1, 1.1e30]), FAULT_INTENSITY),
    (spectrum([101.5, 102.5], [1, -1]), FAULT_NEGATIVE),
    (spectrum([102.5, 101.5], [-1, -float("inf")]),
     FAULT_ORDER | FAULT_INTENSITY | FAULT_NEGATIVE),
]  # fmt: skip


@pytest.mark.parametrize(("method", "quantity"), METHODS)
@pytest.mark.parametrize("law", ["constant", "tof", "fticr"])
def test_a_spectrum_with_a_fault_is_left_empty(backend, law, method, quantity):
    good = spectrum([101.0, 101.5, 102.0, 102.5], [1, 2, 3, 4])
    pairs = [pair for faulty, _ in FAULTY for pair in (good, faulty)]
    batch = as_they_are(pairs)
    axis = make_axis(law, 30)
    options = ResampleOptions(method, quantity, spacing=SpacingModel(0.5))
    block = backend.resample(batch, axis, options)
    alone = backend.resample(pack([good]), axis, options)
    assert len(alone.data) > 0
    assert block.faults.tolist() == [bit for _, bits in FAULTY for bit in (0, bits)]
    assert block.tic.tolist() == [10.0, 0.0] * len(FAULTY)
    assert block.outside.tolist() == [0.0] * 2 * len(FAULTY)
    lengths = np.diff(block.indptr)
    assert lengths.tolist() == [len(alone.data), 0] * len(FAULTY)
    assert block.data.tolist() == alone.data.tolist() * len(FAULTY)


def as_they_are(pairs):
    """Return spectra as a batch without the cut to sound values that `pack` makes."""
    batch = pack([(np.zeros(len(mz)), np.zeros(len(mz))) for mz, _ in pairs], "<f8", "<f8")
    whole = np.concatenate([values for pair in pairs for values in pair])
    return replace(batch, raw=whole.view(np.uint8))


@pytest.mark.parametrize("mz", [[101.5, 102.5], [102.5, 101.5], [NAN, NAN]])
def test_shared_mz_with_a_fault_is_a_fault_of_every_spectrum(backend, mz):
    pairs = [spectrum([0, 0], [1, 1]), spectrum([0, 0], [1, -1]), spectrum([0, 0], [2, 2])]
    batch = pack(pairs, "<f8", "<f8", shared=True)
    raw = batch.raw.copy()
    raw[:16] = np.array(mz).view(np.uint8)
    options = ResampleOptions("pchip", spacing=SpacingModel(1.0))
    block = backend.resample(replace(batch, raw=raw), AXIS, options)
    bit = {101.5: 0, 102.5: FAULT_ORDER}.get(mz[0], FAULT_MZ)
    assert block.faults.tolist() == [bit, bit | FAULT_NEGATIVE, bit]
    assert (block.indptr[-1] > 0) == (bit == 0)


def test_bytes_that_cannot_be_written_are_read(backend):
    batch = pack([spectrum([101.5], [3])])
    locked = batch.raw.copy()
    locked.flags.writeable = False
    block = backend.resample(replace(batch, raw=locked), AXIS, ResampleOptions("nearest"))
    assert block.data.tolist() == [3]
    assert locked.tolist() == batch.raw.tolist()


def test_the_batch_is_left_as_it_was(backend):
    batch = pack(peaks(4), "<f4", "<f4")
    before = batch.raw.copy()
    backend.resample(batch, AXIS, ResampleOptions("pchip", spacing=step_of()))
    assert np.array_equal(batch.raw, before)


def test_threads_do_not_disturb_each_other(backend):
    axis = make_axis("linear-tof", 5000)
    options = ResampleOptions("pchip", spacing=step_of())
    batches = [pack(peaks(seed)) for seed in range(12)]
    wanted = [backend.resample(batch, axis, options) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: backend.resample(batch, axis, options), batches))
    assert all(blocks_are_equal(a, b) for a, b in zip(found, wanted, strict=True))


def random_block(seed, n_rows, n_bins, n_filled):
    random = np.random.default_rng(seed)
    indices = [
        np.sort(random.choice(n_bins, random.integers(0, n_filled + 1), replace=False))
        for _ in range(n_rows)
    ]
    lengths = [len(row) for row in indices]
    data = np.arange(1, sum(lengths) + 1, dtype=np.float32)
    none = np.zeros(n_rows)
    return CsrBlock(
        np.arange(n_rows, dtype=np.int64) * 3 + 7, np.cumsum([0, *lengths]),
        np.concatenate([np.zeros(0, int), *indices]).astype(np.int32), data, none, none,
        none.astype(np.uint8),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("n_rows", "n_bins", "n_filled"),
    [(0, 5, 0), (3, 5, 0), (4, 1, 1), (9, 12, 8), (50, 2048, 90), (40, 70_000, 900),
     (5, 1_000_000, 60), (6, 5_000_000, 60)],
)  # fmt: skip
def test_non_zeros_are_sorted_by_bin_and_then_row(backend, n_rows, n_bins, n_filled):
    block = random_block(n_bins, n_rows, n_bins, n_filled)
    found = backend.by_bin(block, n_bins)
    wanted = csr_matrix((block.data, block.indices, block.indptr), (n_rows, n_bins)).tocsc()
    filled = np.flatnonzero(np.diff(wanted.indptr))
    assert found.bins.tolist() == filled.tolist()
    assert found.indptr.tolist() == [*wanted.indptr[filled].tolist(), wanted.nnz]
    assert found.rows.tolist() == block.rows[wanted.indices].tolist()
    assert found.data.tolist() == wanted.data.tolist()
    dtypes = (found.bins.dtype, found.indptr.dtype, found.rows.dtype, found.data.dtype)
    assert dtypes == (np.int32, np.int64, np.int32, np.float32)


def test_rows_of_one_pixel_keep_their_order(backend):
    block = random_block(0, 2, 4, 0)
    block = replace(
        block, rows=np.array([8, 8]), indptr=np.array([0, 2, 3]),
        indices=np.array([1, 2, 1], np.int32), data=np.array([5, 6, 7], np.float32),
    )  # fmt: skip
    found = backend.by_bin(block, 4)
    assert found.rows.tolist() == [8, 8, 8]
    assert found.data.tolist() == [5, 7, 6]


@given(data=st.data())
@pytest.mark.parametrize("content", ["indices", "samples", "scans"])
@pytest.mark.parametrize(("method", "quantity"), METHODS)
def test_packed_spectra_give_what_their_points_do(backend, content, method, quantity, data):
    batch = data.draw(packed_batches(content))
    axis, options = make_axis("linear-tof", 300), ResampleOptions(method, quantity)
    found = backend.resample(batch, axis, options)
    assert blocks_are_equal(found, backend.resample(unpack(batch), axis, options))
    assert found.rows.tolist() == batch.rows.tolist()


@pytest.mark.parametrize("content", ["indices", "samples", "scans"])
def test_packed_spectra_take_no_more_memory_than_was_said(backend, content):
    index = np.arange(N_SAMPLES)
    frame = {
        "indices": (index, index), "samples": dict.fromkeys(range(N_SAMPLES), 3),
        "scans": [(index, index), (index[::2], index[::2])],
    }[content]  # fmt: skip
    batch = pack_frames(content, [frame] * 300)
    axis, options = make_axis("linear-tof", 3000), ResampleOptions("pchip")
    block = backend.resample(batch, axis, options)
    tracemalloc.start()
    backend.resample(batch, axis, options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    most = int(batch.n_points.max())
    assert peak < backend.peak_bytes(batch.most_points, 300, len(block.data), most).host


@pytest.mark.parametrize(("method", "quantity"), METHODS)
@pytest.mark.parametrize("mz_dtype", ["<f8", "<f4", "<f2"])
@pytest.mark.parametrize(
    ("n_spectra", "n_points", "n_bins"),
    [(1, 60_000, 6_000), (1, 20_000, 160_000), (40, 3_000, 3_000), (20_000, 1, 30), (3_000, 0, 9)],
)
def test_no_more_memory_is_used_than_was_said(
    backend, n_spectra, n_points, n_bins, mz_dtype, method, quantity
):
    axis = make_axis("linear-tof", n_bins)
    assert len(axis.centres) == len(axis.edges) - 1  # found once, and no part of a call
    mz = np.linspace(np.sqrt(100.0), np.sqrt(130.0), n_points) ** 2
    batch = pack([(mz, np.ones(n_points))] * n_spectra, mz_dtype, gaps=[1])
    step = SpacingModel(40.0 / max(n_points, 1))
    options = ResampleOptions(method, quantity, spacing=step)
    backend.resample(batch, axis, options)
    tracemalloc.start()
    block = backend.resample(batch, axis, options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    total = n_spectra * n_points
    said = backend.peak_bytes(total, n_spectra, len(block.data), n_points).host
    assert block.data.nbytes + block.indices.nbytes < peak < said


def test_the_numpy_backend_does_not_need_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from gpuconvert.backends import choose_backend\n"
        "backend, why = choose_backend('auto')\n"
        "print(backend.name, '|', why)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    name, why = done.stdout.strip().split(" | ")
    assert name == "numpy"
    assert "cpu: import of numba" in why


def test_backends_go_by_their_names():
    for name in BACKENDS:
        if name != "cuda":
            backend, why = choose_backend(name)
            assert backend.name == name
            assert why == f"backend {name}: asked for"


def test_an_unknown_backend_is_refused():
    with pytest.raises(BackendError, match="'tpu' is not part of this version; available: numpy"):
        choose_backend("tpu")


@pytest.mark.real_data
@pytest.mark.parametrize(("law", "n_bins"), [("orbitrap", 3_000), ("constant", 400_000)])
def test_a_measured_orbitrap_spectrum_keeps_its_counts(backend, shared_data, law, n_bins):
    path = shared_data / "imzml" / "djdt__pewlib" / "test_orbi.imzml"
    with ImzMLParser(str(path)) as parser:
        pairs = [parser.getspectrum(index) for index in range(2)]
    axis = make_axis(law, n_bins, 340.0, 1520.0)
    steps = np.diff(pairs[0][0])
    common = steps < 2 * np.median(steps)
    spacing = SpacingModel(float(np.median(steps[common])), low=340.0, high=1520.0)
    options = ResampleOptions("pchip", spacing=spacing)
    block = backend.resample(pack(pairs, "<f4", "<f4"), axis, options)
    for index, (_, counts) in enumerate(pairs):
        values = block.data[block.indptr[index] : block.indptr[index + 1]]
        tic = counts.sum(dtype=np.float64)
        assert abs(values.sum(dtype=np.float64) / tic - 1) < 1e-6
        assert block.tic[index] == pytest.approx(tic, rel=1e-12)
