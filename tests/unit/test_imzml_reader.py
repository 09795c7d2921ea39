"""Reading bytes of imzML spectra, on files written by hand and on published ones."""

import gzip
import hashlib
import os
import struct
import tracemalloc
import warnings
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyimzml.ImzMLParser import ImzMLParser

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers import Reader, extents, imzml, open_reader
from gpuconvert.readers.imzml import ImzmlReader
from gpuconvert.readers.source_files import digest
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode
from tests.imzml_writer import Document, cv, external, write_imzml

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "imzml"
SPECTRA = [
    (3, 1, [100.0, 200.0, 300.0], [1.0, 2.0, 3.0]), (1, 1, [110.0], [4.0]),
    (2, 2, [], []), (1, 3, [90.0, 950.0], [5.0, 6.0]), (4, 2, [120.0, 130.0], [7.0, 8.0]),
]  # fmt: skip
ROWS = [1, 0, 2, 4, 3]  # ascending (y, x)


def opened(path, **words):
    return ImzmlReader(path, Settings(**words))


def read_rows(reader, first, last):
    """Read rows into a buffer of exactly the promised size, and decode them."""
    size = reader.batch_bytes(first, last)
    buffer = np.full(size, 255, np.uint8)
    batch = reader.read(first, last, buffer)
    assert batch.raw is buffer
    assert batch.rows.tolist() == list(range(first, last))
    return batch, decode(batch)


def check_rows(found, expected):
    assert np.diff(found.indptr).tolist() == [len(mz) for mz, _ in expected]
    np.testing.assert_array_equal(found.mz, [m for mz, _ in expected for m in mz])
    np.testing.assert_array_equal(found.intensity, [c for _, counts in expected for c in counts])


OPTIONS = [
    {}, {"compression": "zlib"}, {"mz_dtype": "f4", "intensity_dtype": "f8"},
    {"intensity_dtype": "i2"}, {"intensity_dtype": "i1"},
    {"mz_dtype": "f4", "intensity_dtype": "f2"},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("first", "last"), [(0, 5), (0, 1), (2, 3), (1, 4), (5, 5), (0, 0)])
def test_any_range_of_rows_is_read_exactly(tmp_path, options, first, last):
    reader = opened(write_imzml(tmp_path, SPECTRA, **options))
    _, found = read_rows(reader, first, last)
    check_rows(found, [SPECTRA[i][2:] for i in ROWS[first:last]])
    assert reader.batch_bytes(first, last) == reader.acquisition.raw_bytes[first:last].sum()
    reader.close()


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(("first", "last"), [(0, 3), (1, 2), (2, 2)])
def test_a_shared_axis_is_copied_once_per_batch(tmp_path, options, first, last):
    mz = [100.0, 250.0, 300.0]
    spectra = [(x, 1, mz, [x + 1.0, x + 2.0, x + 3.0]) for x in (3, 1, 2)]
    reader = opened(write_imzml(tmp_path, spectra, mode="continuous", **options))
    batch, found = read_rows(reader, first, last)
    expected = [(mz, [x + 1.0, x + 2.0, x + 3.0]) for x in (1, 2, 3)]
    check_rows(found, expected[first:last])
    assert batch.mz_at.tolist() == [0] * (last - first)
    assert batch.shared_mz == (last - first > 1)
    axis = 3 * np.dtype(reader.acquisition.encodings[0].mz_dtype).itemsize if last > first else 0
    assert reader.batch_bytes(first, last) == axis + reader.acquisition.raw_bytes[first:last].sum()
    reader.close()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_arrays_may_lie_anywhere_in_the_file(tmp_path_factory, data):
    # Gaps, arrays in any order, m/z used twice: a reader that assumes [m/z][intensity] fails.
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=8))
    arrays = [(i, kind) for i in range(len(lengths)) for kind in (0, 1)]
    order = data.draw(st.permutations(arrays))
    ibd, at, values = bytearray(bytes(16)), {}, {}
    for spectrum, kind in order:
        ibd += bytes(data.draw(st.sampled_from([0, 0, 1, 8, 70_000])))
        values[spectrum, kind] = [1.0 + spectrum * 10 + k for k in range(lengths[spectrum])]
        at[spectrum, kind] = len(ibd)
        ibd += struct.pack(f"<{lengths[spectrum]}{'df'[kind]}", *values[spectrum, kind])
    document = Document.of([(i + 1, 1, [0.0] * n, [0.0] * n) for i, n in enumerate(lengths)])
    for (spectrum, kind), offset in at.items():
        length = lengths[spectrum]
        terms = external(offset, length, length * (8, 4)[kind])
        document.spectra[spectrum].arrays[kind].elements[1:] = terms
    document.ibd = bytes(ibd)
    reader = opened(document.write(tmp_path_factory.mktemp("anywhere")))
    first = data.draw(st.integers(0, len(lengths)))
    last = data.draw(st.integers(first, len(lengths)))
    _, found = read_rows(reader, first, last)
    check_rows(found, [(values[i, 0], values[i, 1]) for i in range(first, last)])
    reader.close()


def test_short_integers_do_not_push_mz_off_their_alignment(tmp_path):
    spectra = [(x, 1, [100.0 + x] * (x % 4), [1.0] * (x % 4)) for x in range(1, 12)]
    reader = opened(write_imzml(tmp_path, spectra, intensity_dtype="i2"))
    batch, found = read_rows(reader, 0, 11)
    assert (batch.mz_at % 8 == 0).all()
    check_rows(found, [spectrum[2:] for spectrum in spectra])
    reader.close()


def test_neighbouring_arrays_take_one_read(tmp_path, count_reads):
    spectra = [(x, 1, [100.0] * 5, [1.0] * 5) for x in range(1, 400)]
    reader = opened(write_imzml(tmp_path, spectra))
    calls = count_reads()
    read_rows(reader, 0, 399)
    assert calls == [(1, 399 * 60)]
    reader.close()


def test_reads_that_come_back_short_are_continued(tmp_path, monkeypatch):
    spectra = [(x, 1, [100.0 + x] * 50, [1.0 * x] * 50) for x in range(1, 30)]
    reader = opened(write_imzml(tmp_path, spectra))
    preadv = os.preadv

    def short(descriptor, parts, place):
        return preadv(descriptor, [parts[0][:37]], place)

    monkeypatch.setattr(extents.os, "preadv", short)
    _, found = read_rows(reader, 0, 29)
    check_rows(found, [spectrum[2:] for spectrum in spectra])
    reader.close()


def test_more_parts_than_one_call_takes_are_read(tmp_path, monkeypatch, count_reads):
    document = Document.of([(x, 1, [100.0 + x], [1.0]) for x in range(1, 40)])
    data = bytearray(16)
    for index, spectrum in enumerate(document.spectra):
        for array, values, code in zip(
            spectrum.arrays, ([100.0 + index], [2.0]), "df", strict=True
        ):
            raw = struct.pack(f"<1{code}", *values)
            array.elements[1:] = external(len(data), 1, len(raw))
            data += raw + bytes(3)
    document.ibd = bytes(data)
    reader = opened(document.write(tmp_path))
    calls = count_reads()
    monkeypatch.setattr(extents, "_MOST_PARTS", 16)
    _, found = read_rows(reader, 0, 39)
    check_rows(found, [([100.0 + index], [2.0]) for index in range(39)])
    assert max(parts for parts, _ in calls) == 16
    reader.close()


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path):
    path = write_imzml(tmp_path, SPECTRA)
    reader = opened(path)
    os.truncate(path.with_suffix(".ibd"), 40)
    with pytest.raises(SourceError, match=r"test.ibd ended at byte 40, before the \d+ bytes"):
        read_rows(reader, 0, 5)
    with pytest.raises(SourceError, match=r"test.ibd ended at byte 40, before the \d+ bytes"):
        reader.mz_extent()
    reader.close()


@pytest.mark.parametrize("suffix", [".imzML", ".ibd"])
@pytest.mark.parametrize("change", ["grow", "touch", "remove"])
def test_a_file_that_changed_is_noticed(tmp_path, suffix, change):
    path = write_imzml(tmp_path, SPECTRA)
    reader = opened(path)
    reader.check_unchanged()
    file = path.with_suffix(suffix)
    if change == "grow":
        stamp = file.stat()
        file.write_bytes(file.read_bytes() + b" ")
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    elif change == "touch":
        os.utime(file, ns=(1, 1))
    else:
        file.unlink()
    with pytest.raises(SourceError, match=rf"test{suffix} changed since it was opened"):
        reader.check_unchanged()
    reader.close()


EXTENTS = [{}, {"compression": "zlib"}, {"mz_dtype": "f4"}, {"mode": "continuous"}]


@pytest.mark.parametrize("options", EXTENTS, ids=str)
def test_the_extent_is_that_of_all_first_and_last_points(tmp_path, monkeypatch, options):
    monkeypatch.setattr(extents, "SPAN", 64)
    monkeypatch.setattr(imzml, "EXTENT_BYTES", 100)
    rng = np.random.default_rng(3)
    continuous = options.get("mode") == "continuous"
    axis = np.sort(rng.uniform(100, 1000, 7))
    spectra = []
    for x in range(1, 60):
        mz = axis if continuous else np.sort(rng.uniform(100, 1000, rng.integers(0, 9)))
        mz = mz.astype("f4").astype("f8")
        spectra.append((x, 1, mz, np.ones(len(mz))))
    reader = opened(write_imzml(tmp_path, spectra, **options))
    everything = np.concatenate([spectrum[2] for spectrum in spectra])
    assert reader.mz_extent() == (everything.min(), everything.max())
    reader.close()


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -5.0, 1e35])
def test_values_that_are_no_mz_do_not_widen_the_extent(tmp_path, odd):
    spectra = [(1, 1, [odd, 200.0], [1.0, 1.0]), (2, 1, [150.0, odd], [1.0, 1.0])]
    reader = opened(write_imzml(tmp_path, spectra))
    assert reader.mz_extent() == (150.0, 200.0)
    reader.close()


def test_the_extent_of_mixed_encodings_covers_all(tmp_path):
    document = Document.of([(x, 1, [100.0 * x, 110.0 * x], [1.0, 1.0]) for x in (1, 2, 3)])
    document.spectra[1].elements = [cv("MS:1000128", "profile spectrum")]
    reader = opened(document.write(tmp_path))
    assert len(reader.acquisition.encodings) == 2
    assert reader.mz_extent() == (100.0, 330.0)
    reader.close()


def test_compressed_arrays_are_inflated_in_threads_as_in_one(tmp_path, monkeypatch):
    monkeypatch.setattr(imzml, "INFLATE_TOGETHER", 3)
    spectra = [(x, 1, [100.0 + x, 200.0 + x], [1.0 * x, 2.0]) for x in range(1, 40)]
    reader = opened(write_imzml(tmp_path, spectra, compression="zlib"))
    _, found = read_rows(reader, 0, 39)
    check_rows(found, [spectrum[2:] for spectrum in spectra])
    reader.close()


def test_one_array_may_be_compressed_and_the_other_not(tmp_path):
    document = Document.of(SPECTRA)
    data = bytearray(16)
    document.groups["mzArray"][2] = cv("MS:1000574", "zlib compression")
    for spectrum, (_, _, mz, counts) in zip(document.spectra, SPECTRA, strict=True):
        stored = [zlib.compress(struct.pack(f"<{len(mz)}d", *mz)) if mz else b"",
                  struct.pack(f"<{len(mz)}f", *counts)]  # fmt: skip
        for array, raw in zip(spectrum.arrays, stored, strict=True):
            array.elements[1:] = external(len(data), len(mz), len(raw))
            data += raw
    document.ibd = bytes(data)
    document.content.pop(0)
    reader = opened(document.write(tmp_path))
    _, found = read_rows(reader, 0, 5)
    check_rows(found, [SPECTRA[i][2:] for i in ROWS])
    assert reader.acquisition.encodings[0].mz_zlib
    assert not reader.acquisition.encodings[0].intensity_zlib
    reader.close()


def test_a_bomb_does_not_take_the_memory_it_asks_for(tmp_path):
    stored = zlib.compress(bytes(50 << 20))
    document = Document.of([(1, 1, [1.0], [1.0])], compression="zlib")
    document.spectra[0].arrays[0].elements[1:] = external(len(document.ibd), 1, len(stored))
    document.ibd += stored
    reader = opened(document.write(tmp_path))
    tracemalloc.start()
    with pytest.raises(SourceError, match="more than 8 bytes, expected 8"):
        read_rows(reader, 0, 1)
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
    reader.close()


@pytest.mark.parametrize("size", [3, 393_216])
def test_small_files_are_digested_whole(tmp_path, size):
    data = np.random.default_rng(0).bytes(size)
    (tmp_path / "x").write_bytes(data)
    assert digest(tmp_path / "x") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [393_217, 3_000_001])
def test_large_files_are_digested_in_blocks(tmp_path, size):
    data = np.random.default_rng(0).integers(0, 255, size, np.uint8)
    (tmp_path / "x").write_bytes(data.tobytes())
    places = [i * (size - 4096) // 63 for i in range(64)]
    blocks = [data[:65536], data[-65536:], *(data[p : p + 4096] for p in places)]
    expected = hashlib.sha256(np.concatenate(blocks).tobytes()).hexdigest()
    assert digest(tmp_path / "x") == expected


def test_the_registry_finds_the_reader_whatever_the_case(tmp_path):
    path = write_imzml(tmp_path, SPECTRA)
    other = path.rename(tmp_path / "test.IMZML")
    reader: Reader = open_reader(other, Settings())
    assert isinstance(reader, ImzmlReader)
    assert reader.acquisition.path == str(other)
    reader.close()


def test_zipped_headers_are_read(tmp_path):
    path = write_imzml(tmp_path, SPECTRA)
    zipped = tmp_path / "test.imzML.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    reader = open_reader(zipped, Settings())
    _, found = read_rows(reader, 0, 5)
    check_rows(found, [SPECTRA[i][2:] for i in ROWS])
    reader.close()


def test_a_reader_may_be_closed_twice(tmp_path):
    reader = opened(write_imzml(tmp_path, SPECTRA))
    reader.close()
    reader.close()


# What becomes of every published file that is not plainly sound, written by hand from its header.
REFUSED = {
    "AlanRace__jimzMLParser/ImzMLTest.NO_IBD.imzML": "needs its binary file",
    "NHPatterson__napari-imsmicrolink/imzml_file.NO_IBD.imzML": "needs its binary file",
    "cKNUSPeR__i2nca/cc.imzML": "spectrum 1 .*shared m/z array has 1999 points .* 1997",
    "cKNUSPeR__i2nca/cp.NO_IBD.imzML": "needs its binary file",
    "cKNUSPeR__i2nca/pp.NO_IBD.imzML": "needs its binary file",
    "galaxyp__cardinal/out3.imzml": "pixel size of 'Inf'",
    "jvolkening__p5-MS/test.imzML.gz": "needs its binary file test.ibd",
    "wanchanglin__massPix/test_pos.NO_IBD.imzML": "needs its binary file",
}
WARNED = {
    "M4i-Imaging-Mass-Spectrometry__thyra/iontof_sparse.imzML": ["has no unit"],
    "M4i-Imaging-Mass-Spectrometry__thyra/two_precision_terms.imzML": [
        "says <f4 and <f8 for m/z", "has no unit"],
    "M4i-Imaging-Mass-Spectrometry__thyra/two_scansettings.imzML": [
        "2 scanSettings give different pixel sizes", "has no unit"],
    "M4i-Imaging-Mass-Spectrometry__thyra/unit_nanometre.imzML": [],
    "djdt__pewlib/test.imzML": [
        "declares 95993 spectra, but 4", "not 32 hexadecimal digits", "has no unit"],
    "djdt__pewlib/test_orbi.imzml": ["declares 4113 spectra, but 2", "not 32 hexadecimal digits"],
    "galaxyp__cardinal/112_auto_combined.imzml": ["5 x 3 pixels (x, y), but 15 x 3", "no unit"],
    "galaxyp__cardinal/out8.imzml": ["2 x 3 pixels (x, y), but 3 x 3", "has no unit"],
    "sgibb__MALDIquantForeign/tiny_continuous.imzML": ["no pixel size"],
    "sgibb__MALDIquantForeign/tiny_processed.imzML": ["no pixel size"],
    "alexandrovteam__pyimzML/Example_Continuous.imzML": [],
    "vandeplaslab__imzy/simple_imzml.imzML": ["has no unit"],
}  # fmt: skip
PIXEL_SIZES = {
    "M4i-Imaging-Mass-Spectrometry__thyra/two_scansettings.imzML": (10.0, 10.0),
    "M4i-Imaging-Mass-Spectrometry__thyra/unit_nanometre.imzML": (4.40625, 4.40625),
    "galaxyp__cardinal/out8.imzml": (2.0, 1.0),
    "galaxyp__maldiquant/outfile1.imzml": (100.0, 100.0),
    "sgibb__MALDIquantForeign/tiny_continuous.imzML": (1.0, 1.0),
}
NOT_FOR_PYIMZML = {
    "sgibb__MALDIquantForeign/tiny_continuous.imzML",  # positions outside a scan
    "sgibb__MALDIquantForeign/tiny_processed.imzML",
}
MOST_COMPARED = 3000
"""Spectra whose values are compared per file; offsets are compared for all."""

needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no published files at {DATA}")


def published():
    """Return the names of all published files, or one that is skipped where there are none."""
    names = [
        str(path.relative_to(DATA)) for path in DATA.rglob("*") if ".imzml" in path.name.lower()
    ]
    return sorted(names) or ["none"]


@needs_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", REFUSED)
def test_published_files_that_are_damaged_are_refused(name):
    with pytest.raises(SourceError, match=REFUSED[name]) as caught:
        opened(DATA / name)
    assert isinstance(caught.value, SourceMissingError) == ("binary file" in REFUSED[name])


@needs_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", WARNED)
def test_published_files_give_the_warnings_that_they_deserve(name):
    reader = opened(DATA / name)
    found = reader.acquisition.warnings
    reader.close()
    assert len(found) == len(WARNED[name])
    for words, text in zip(WARNED[name], found, strict=True):
        assert words in text


@needs_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", PIXEL_SIZES)
def test_published_files_have_the_pixel_size_of_their_header(name):
    reader = opened(DATA / name)
    assert reader.acquisition.pixel_size == PIXEL_SIZES[name]
    reader.close()


def oracle(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ImzMLParser(str(path))


CONVERTIBLE = [name for name in published() if name not in REFUSED or "pixel size" in REFUSED[name]]


@needs_data
@pytest.mark.real_data
@pytest.mark.parametrize("name", CONVERTIBLE)
def test_published_files_are_read_as_pyimzml_reads_them(name):
    reader = opened(DATA / name, pixel_size=(1.0, 1.0))
    if name not in NOT_FOR_PYIMZML:
        parser = oracle(DATA / name)
        compare_index(reader, parser)
        if not any(encoding.mz_zlib for encoding in reader.acquisition.encodings):
            compare_spectra(reader, parser)
        parser.m.close()
    reader.close()


@needs_data
@pytest.mark.real_data
def test_a_published_zipped_header_reads_the_binary_file_of_its_acquisition():
    # Three copies of one acquisition are public; this one comes without its .ibd.
    other = DATA / "metaspace2020__metaspace" / "Example_Continuous.ibd"
    reader = opened(DATA / "jvolkening__p5-MS" / "test.imzML.gz", ibd=str(other))
    parser = oracle(other.with_suffix(".imzML"))
    assert reader.acquisition.warnings == ()
    compare_index(reader, parser)
    compare_spectra(reader, parser)
    parser.m.close()
    reader.close()


def compare_index(reader, parser):
    found, index = reader.acquisition, reader._index
    order = found.order
    assert found.n_spectra == len(parser.coordinates)
    expected = np.array(parser.coordinates)[order]
    columns = (found.x, found.y, found.z)
    for axis, column in enumerate(columns):
        np.testing.assert_array_equal(column + found.origin[axis], expected[:, axis])
    np.testing.assert_array_equal(found.n_points, np.array(parser.intensityLengths)[order])
    np.testing.assert_array_equal(found.n_points, np.array(parser.mzLengths)[order])
    used = found.n_points > 0
    for ours, theirs in ((index.mz_offset, parser.mzOffsets),
                         (index.intensity_offset, parser.intensityOffsets)):  # fmt: skip
        np.testing.assert_array_equal(ours[used], np.array(theirs)[order][used])


def compare_spectra(reader, parser):
    found = reader.acquisition
    # pyimzML believes the last of two dtype terms; all files here that have two mean the wider.
    n = min(found.n_spectra, MOST_COMPARED)
    for first, last in pairwise([*range(0, n, 700), n]):
        _, spectra = read_rows(reader, first, last)
        for row in range(first, last):
            mz, intensity = parser.getspectrum(int(found.order[row]))
            part = slice(*spectra.indptr[row - first : row - first + 2])
            np.testing.assert_array_equal(spectra.mz[part], mz)
            np.testing.assert_array_equal(spectra.intensity[part], intensity)


@needs_data
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "total"),
    [("continuous_f8_f4", 689392679.99), ("processed_zlib_f8_f4", 234486753.30),
     ("pyimzml_continuous", 41904410.01)],
)  # fmt: skip
def test_the_bladder_has_the_ion_count_that_is_known_for_it(name, total):
    reader = opened(DATA / "bladder_PXD001283" / f"{name}.imzML")
    _, found = read_rows(reader, 0, reader.acquisition.n_spectra)
    reader.close()
    # The known sums are given to a hundredth of a count.
    assert found.intensity.sum() == pytest.approx(total, abs=0.006)


@needs_data
@pytest.mark.real_data
def test_continuous_and_processed_examples_hold_the_same_spectra():
    pair = []
    for mode in ("Continuous", "Processed"):
        reader = opened(DATA / "alexandrovteam__pyimzML" / f"Example_{mode}.imzML")
        pair.append(read_rows(reader, 0, 9)[1])
        reader.close()
    np.testing.assert_array_equal(pair[0].mz, pair[1].mz)
    np.testing.assert_array_equal(pair[0].intensity, pair[1].intensity)
