"""Hypothesis strategies: mass axes, ragged batches and options of resampling.

Points are drawn from what breaks resampling: bin edges and centres, m/z drawn
twice, m/z 0, sampling grids with gaps, points beyond both ends of the axis; counts
from nothing to 1e29, among them the smallest float32.
"""

import numpy as np
from hypothesis import strategies as st

from gpuconvert.mass_axis import LAWS, of_centres, of_law
from gpuconvert.resampling import ResampleOptions
from gpuconvert.spacing import SpacingModel
from gpuconvert.spectra import RawBatch

LOW, HIGH = 100.0, 130.0
"""The m/z range of every axis drawn here, about, in Th."""

TERMS = {"tof": (0.0877, 8.74e-4)}
MZ_DTYPES = ("<f8", "<f4", "<f2", "<i4", "<i8", "<i2", "<i1")
INTENSITY_DTYPES = ("<f4", "<f8", "<f2", "<i4", "<i8", "<i2", "<i1")


def make_axis(law, n_bins, low=LOW, high=HIGH, anchor=None):
    """Return the axis of `law` with about `n_bins` bins over [low, high]."""
    a, b = TERMS.get(law, (1.0, 1.0))
    ends = LAWS[law].forward(np.array([low, high]), a, b)
    return of_law(law, low, high, du=float(ends[1] - ends[0]) / n_bins, anchor=anchor, a=a, b=b)


@st.composite
def axes(draw, law=None):
    """Axes of every law, and listed ones: regular, irregular, and of one bin."""
    law = draw(st.sampled_from([*LAWS, "listed"])) if law is None else law
    n_bins = draw(st.sampled_from([1, 2, 3, 7, 40, 150]))
    if law != "listed":
        return make_axis(law, n_bins)
    steps = draw(
        st.one_of(
            st.just([0.125] * n_bins),
            st.lists(st.floats(1e-3, 5.0), min_size=n_bins, max_size=n_bins),
        )
    )
    # From m/z 0 on, so that the smallest m/z there are fall on different sides of decisions.
    start = draw(st.sampled_from([LOW, LOW, LOW, 0.0]))
    return of_centres(start + np.cumsum(steps) - steps[0])


def _mz_values(axis):
    """Single m/z: anywhere around the axis, and exactly where its decisions fall."""
    edges, centres = axis.edges.tolist(), axis.centres.tolist()
    return st.one_of(
        st.floats(LOW - 3, HIGH + 3),
        st.sampled_from(edges),
        st.sampled_from(centres),
        st.sampled_from([0.0, 5e-324, 1e-4, float(np.nextafter(edges[0], 0.0)), 2 * HIGH]),
        st.integers(98, 132).map(float),
    )


@st.composite
def _sampled_mz(draw):
    """A stretch of a regular sampling grid, with some of its points left out."""
    step = draw(st.sampled_from([1 / 64, 0.1, 0.125, 0.7]))
    n = draw(st.integers(1, 40))
    start = LOW + draw(st.floats(-2, 25))
    kept = draw(st.lists(st.sampled_from([True, True, True, False]), min_size=n, max_size=n))
    return [start + i * step for i in range(n) if kept[i]]


COUNTS = st.one_of(
    st.just(0.0),
    st.integers(0, 100).map(float),
    st.floats(0, 1e4, width=32),
    # The smallest float32 and the largest that a source may hold: sums must not overflow.
    st.sampled_from([1e-45, 1e-38, 1e29]),
)


@st.composite
def spectra(draw, axis):
    """One sound spectrum as (m/z, counts), two ascending float64 arrays; often short."""
    mz = draw(st.one_of(st.just([]), st.lists(_mz_values(axis), max_size=12), _sampled_mz()))
    mz = np.maximum(np.sort(np.array(mz, np.float64)), 0.0)  # an axis may begin below m/z 0
    counts = draw(st.lists(COUNTS, min_size=len(mz), max_size=len(mz)))
    return mz, np.array(counts, np.float64)


def cast(values, dtype):
    """Return `values` as a dtype, cut to what it holds; ascending values stay so."""
    dtype = np.dtype(dtype)
    beyond = float(np.finfo(dtype).max) if dtype.kind == "f" else 2.0 ** (8 * dtype.itemsize - 1)
    return np.minimum(values, min(np.nextafter(beyond, 0.0), 1e29)).astype(dtype)


def pack(pairs, mz_dtype="<f8", intensity_dtype="<f4", *, gaps=(), shared=False, **fields):
    """Return spectra, pairs of (m/z, counts), as the bytes of one batch.

    gaps : bytes to leave free before one array after the other, to no alignment
    shared : write the m/z of the first spectrum once, for all
    """
    chunks, size = [], 0
    places = {"mz": [], "intensity": []}
    gaps = iter(gaps)
    for number, (mz, counts) in enumerate(pairs):
        for name, values, dtype in (
            ("mz", mz, mz_dtype),
            ("intensity", counts, intensity_dtype),
        ):
            if shared and name == "mz" and number:
                places["mz"].append(places["mz"][0])
                continue
            gap = next(gaps, 0)
            chunks += [np.full(gap, 255, np.uint8), cast(values, dtype).view(np.uint8)]
            places[name].append(size + gap)
            size += gap + len(chunks[-1])
    return RawBatch(
        np.concatenate([np.zeros(0, np.uint8), *chunks]),
        np.array(places["mz"], np.int64),
        np.array(places["intensity"], np.int64),
        np.array([len(mz) for mz, _ in pairs], np.int64),
        np.dtype(mz_dtype),
        np.dtype(intensity_dtype),
        fields.get("rows", np.arange(len(pairs))),
        fields.get("representation"),
    )


@st.composite
def batches(draw, axis):
    """Batches of any dtypes and alignment, of separate or shared m/z, down to no spectrum."""
    mz_dtype = draw(st.sampled_from(MZ_DTYPES[:2] * 3 + MZ_DTYPES))
    intensity_dtype = draw(st.sampled_from(INTENSITY_DTYPES[:2] * 3 + INTENSITY_DTYPES))
    gaps = draw(st.one_of(st.just([]), st.lists(st.integers(0, 9), max_size=8)))
    if draw(st.booleans()):
        mz, counts = draw(spectra(axis))
        others = draw(st.lists(st.permutations(counts.tolist()), max_size=3))
        pairs = [(mz, counts), *((mz, np.array(other, np.float64)) for other in others)]
        return pack(pairs, mz_dtype, intensity_dtype, gaps=gaps, shared=True)
    pairs = draw(st.lists(spectra(axis), max_size=4))
    return pack(pairs, mz_dtype, intensity_dtype, gaps=gaps)


@st.composite
def spacings(draw):
    """Native steps: unknown, constant, growing, falling below 0, and bounded."""
    return draw(
        st.sampled_from(
            [
                SpacingModel(0.0),
                SpacingModel(0.125),
                SpacingModel(0.1, tolerance=0.3),
                SpacingModel(0.02, 0.0005),
                SpacingModel(0.0, 0.0, 1e-5, low=105.0, high=120.0),
                SpacingModel(1.1, -0.01),
                SpacingModel(3.0),
            ]
        )
    )


@st.composite
def options(draw, method=None, quantity=None, threshold=None):
    """Options of resampling; what is given is not drawn."""
    return ResampleOptions(
        method or draw(st.sampled_from(["pchip", "linear", "nearest"])),
        quantity or draw(st.sampled_from(["counts", "counts", "height"])),
        draw(st.sampled_from([0.0, 0.0, 0.5, 20.0])) if threshold is None else threshold,
        draw(st.sampled_from([1.5, 1.5, 1.0, 4.0, float("inf")])),
        draw(spacings()),
    )
