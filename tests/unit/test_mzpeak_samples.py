"""Archives by other writers, read by us and by plain pyarrow, and held against each other."""

import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpuconvert import inspect
from gpuconvert.errors import SourceError
from gpuconvert.readers import cut_batches, open_reader
from gpuconvert.readers.mzpeak_arrays import SignalLayout
from gpuconvert.readers.mzpeak_decode import Space, chunk_counts, decode_chunks
from gpuconvert.settings import Settings
from gpuconvert.spectra import concatenate, decode

pytestmark = pytest.mark.real_data

NUMPRESS_MZ = 2e-8
"""Relative error of linear Numpress in these files: half a unit of their fixed point."""
SLOF = 5e-4
"""Relative error of short logged floats with their usual fixed point."""


def spectra_of(path, **options):
    """Every spectrum of an archive in order of its rows, and the acquisition."""
    reader = open_reader(path, Settings(**options))
    try:
        rows = reader.acquisition.n_spectra
        batches = list(cut_batches(reader, 0, rows, 1 << 18))
        buffer = np.empty(max(reader.batch_bytes(*batch) for batch in batches), np.uint8)
        parts = [decode(reader.read(*batch, buffer)) for batch in batches]
        return concatenate(parts), reader.acquisition
    finally:
        reader.close()


@pytest.fixture(scope="module")
def archives(shared_data):
    return shared_data / "mzpeak"


@pytest.mark.parametrize("layout", ["point", "chunk"])
@pytest.mark.parametrize("dialect", ["packed", "split"])
def test_generated_archives_have_the_expected_values(archives, dialect, layout):
    stem = f"minimal_imaging.{dialect}.{layout}"
    spectra, acquisition = spectra_of(archives / "generated" / f"{stem}.mzpeak")
    expected = np.load(archives / "generated" / f"{stem}.expected.npz")
    assert (acquisition.shape, acquisition.pixel_size) == ((1, 2, 3), (100.0, 100.0))
    assert acquisition.x.tolist() == [0, 1, 2, 0, 1, 2]
    assert acquisition.y.tolist() == [0, 0, 0, 1, 1, 1]
    for k in range(6):
        own = slice(*spectra.indptr[k : k + 2])
        null = expected[f"null_{k}"]
        assert spectra.mz[own][~null].tobytes() == expected[f"mz_{k}"][~null].tobytes()
        assert (spectra.intensity[own] == expected[f"I_{k}"]).all()
        # Marked zeros come back near the true m/z, which lie some 0.005 Th apart.
        assert np.abs(spectra.mz[own] - expected[f"mz_{k}"]).max() < 1e-3
        assert (np.diff(spectra.mz[own]) > 0).all()


def table(path, name):
    """A member of an archive, by zipfile and pyarrow alone."""
    if path.is_dir():
        return pq.read_table(path / name)
    with zipfile.ZipFile(path) as archive:
        return pq.read_table(io.BytesIO(archive.read(name)))


SMALL = ("packed/small.point.mzpeak", "packed/small.point.peaks-split.mzpeak",
         "packed/small.unpacked.mzpeak", "packed/small.chunked.mzpeak",
         "packed/small.chunked.peaks-split.mzpeak", "split/small.point.mzpeak",
         "split/small.chunked.mzpeak")  # fmt: skip
PACKED = ("packed/small.numpress.mzpeak", "packed/small.numpress.mzpeakj.mzpeak")


@pytest.fixture(scope="module")
def small(archives):
    return spectra_of(archives / "samples" / SMALL[0])[0]


@pytest.mark.parametrize("name", SMALL[1:])
def test_every_layout_of_one_run_says_the_same(archives, small, name):
    spectra, acquisition = spectra_of(archives / "samples" / name)
    assert not acquisition.imaging
    assert spectra.indptr.tolist() == small.indptr.tolist()
    assert (spectra.intensity == small.intensity).all()
    np.testing.assert_allclose(spectra.mz, small.mz, rtol=1e-14)


@pytest.mark.parametrize("name", PACKED)
def test_numpress_is_as_near_as_its_fixed_point(archives, small, name):
    spectra, _ = spectra_of(archives / "samples" / name)
    assert spectra.indptr.tolist() == small.indptr.tolist()
    np.testing.assert_allclose(spectra.intensity, small.intensity, rtol=SLOF, atol=SLOF)
    stored = small.intensity > 0
    np.testing.assert_allclose(spectra.mz[stored], small.mz[stored], rtol=NUMPRESS_MZ)


def test_points_are_those_of_the_table(archives, small):
    """Plain pyarrow: real points bit for bit, nulls where we have zeros."""
    points = table(archives / "samples" / SMALL[0], "spectra_data.parquet")["point"]
    points = points.combine_chunks()
    points = points.chunk(0) if hasattr(points, "chunks") else points
    mz = points.field("mz").to_numpy(zero_copy_only=False)
    intensity = points.field("intensity").to_numpy(zero_copy_only=False)
    real = ~np.isnan(mz)
    assert (~real).sum() == 39968
    assert (small.mz[real] == mz[real]).all()
    assert (small.intensity[real] == intensity[real]).all()
    assert (small.intensity[~real] == 0).all()
    assert np.isfinite(small.mz).all()
    index = points.field("spectrum_index").to_numpy()
    inside = np.diff(index) == 0
    assert (np.diff(small.mz)[inside] > 0).all()


ALL = (*SMALL, *PACKED, "packed/demo.thermo.mzpeak", "packed/has_uv.mzpeak", "split/has_uv.mzpeak",
       "packed/imaging_example_processed_3x3.mzpeak")  # fmt: skip


@pytest.mark.parametrize("name", ALL)
def test_spectra_add_up_to_what_their_metadata_say(archives, name):
    path = archives / "samples" / name
    spectra, acquisition = spectra_of(path)
    stated = table(path, "spectra_metadata.parquet")
    if "spectrum" in stated.column_names:
        rows = [row for row in stated["spectrum"].to_pylist() if row is not None]
    else:
        rows = stated.to_pylist()

    def column(word):
        (key,) = [key for key in rows[0] if word in key]
        return np.array([rows[k][key] or 0 for k in acquisition.order], np.float64)

    tic = np.add.reduceat(np.append(spectra.intensity, 0), spectra.indptr[:-1])
    tic[np.diff(spectra.indptr) == 0] = 0
    tolerance = SLOF if "numpress" in name else 1e-4
    # This writer states the instrument's own sums, which are not those of its profiles.
    vendor = np.array(["thermo" in name and row["MS_1000525_spectrum_representation"]
                       == "MS:1000128" for row in rows])  # fmt: skip
    tic[vendor] = column("total_ion_current")[vendor]
    np.testing.assert_allclose(tic, column("total_ion_current"), rtol=tolerance)
    base = np.maximum.reduceat(np.append(spectra.intensity, 0), spectra.indptr[:-1])
    filled = (np.diff(spectra.indptr) > 0) & ~vendor
    np.testing.assert_allclose(base[filled], column("base_peak_intensity")[filled], rtol=tolerance)


def test_a_spectrum_in_both_members_is_read_from_one(archives):
    path = archives / "samples" / "packed" / "small.chunked.mzpeak"
    _, profiles = spectra_of(path)
    spectra, peaks = spectra_of(path, spectrum_type="centroid")
    held = table(path, "spectra_peaks.parquet")["point"].combine_chunks()
    index, mz = held.field("spectrum_index").to_numpy(), held.field("mz").to_numpy()
    picked = np.unique(index)
    assert len(picked) == 14
    assert "14 spectra are there as profiles and as centroids" in profiles.warnings[0]
    for k in picked:
        own = spectra.mz[slice(*spectra.indptr[k : k + 2])]
        assert (own == mz[index == k]).all()
        assert profiles.n_points[k] > peaks.n_points[k]


def test_runs_that_are_no_images_are_shown_and_not_converted(archives, tmp_path):
    from gpuconvert import convert

    path = archives / "samples" / "split" / "small.point.mzpeak"
    found = inspect(path)
    assert found.source["imaging"] is False
    assert found.source["spectra"] == 48
    with pytest.raises(SourceError, match="none of its 48 spectra has a position"):
        convert(path, tmp_path / "out.zarr")
    assert not list(tmp_path.iterdir())


def test_published_delta_vectors_are_decoded(archives):
    """Also those that the decoder of the vectors itself gets wrong or loses."""
    values, counts = pa.large_list(pa.float64()), pa.large_list(pa.float32())
    fields = [("spectrum_index", pa.uint64()), ("mz_chunk_start", pa.float64())]
    fields += [("mz_chunk_end", pa.float64()), ("mz_chunk_values", values)]
    fields += [("chunk_encoding", pa.string()), ("intensity", counts)]
    layout = SignalLayout(
        "chunk", "spectrum_index", "mz_chunk_values", "intensity", np.dtype("<f8"),
        np.dtype("<f4"), "mz_chunk_start", "mz_chunk_end", "chunk_encoding",
    )  # fmt: skip
    cases = json.loads((archives / "vectors.json").read_text())["delta"]
    rows = [
        {"spectrum_index": 0, "mz_chunk_start": case["chunk_start"],
         "mz_chunk_end": case["chunk_end_as_written_by_rust_ref"],
         "mz_chunk_values": case["chunk_values"], "chunk_encoding": "MS:1003089",
         "intensity": [0.0] * len(case["mz"])}
        for case in cases
    ]  # fmt: skip
    chunks = pa.array(rows, pa.struct(fields))
    counts = chunk_counts(layout, chunks)
    assert counts.tolist() == [len(case["mz"]) for case in cases]
    total = int(counts.sum())
    space = Space(np.full(total, np.nan), np.ones(total, np.float32), np.zeros(total, bool))
    decode_chunks(layout, chunks, counts, space)
    expected = [value for case in cases for value in case["mz"]]
    found = [None if mark else mz for mz, mark in zip(space.mz.tolist(), space.marked)]
    assert found == expected
    assert (space.intensity == 0).all()
