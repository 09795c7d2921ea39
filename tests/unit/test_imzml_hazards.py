"""What real imzML files get wrong, one hazard after the other; every fixture is written by hand.

The numbers are those of the table of hazards that the reader is built against. Faulty
values inside spectra (19) are the backends' to find, metadata memory (29) has no switch here.
"""

import hashlib
import struct
import threading
import zlib

import numpy as np
import pytest

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.imzml import ImzmlReader
from gpuconvert.settings import Settings
from gpuconvert.spectra import decode, find_faults
from tests.imzml_writer import UUID, Array, Document, Spectrum, cv, external, position, ref

TWO = [(1, 1, [100.0, 200.0, 300.0], [1.0, 2.0, 3.0]), (2, 1, [110.0, 210.0], [4.0, 5.0])]


def two(**options):
    return Document.of(TWO, **options)


def opened(path, **words):
    return ImzmlReader(path, Settings(**words))


def spectra_of(path, **words):
    """Return every spectrum as (m/z, intensities), in row order, and the acquisition."""
    reader = opened(path, **words)
    try:
        found = []
        for row in range(reader.acquisition.n_spectra):
            batch = reader.read(row, row + 1, np.empty(reader.batch_bytes(row, row + 1), np.uint8))
            spectrum = decode(batch)
            found.append((spectrum.mz.tolist(), spectrum.intensity.tolist()))
        return found, reader.acquisition
    finally:
        reader.close()


def warnings_of(path, **words):
    return spectra_of(path, **words)[1].warnings


def refused(path, match, **words):
    with pytest.raises(SourceError, match=match):
        opened(path, **words)


def contradiction(path, match):
    """Check that a contradiction is a warning, and an error where the user is strict."""
    assert any(match in warning for warning in warnings_of(path)), warnings_of(path)
    with pytest.raises(SourceError, match="leave out --strict"):
        opened(path, strict=True)


EXPECTED = [(mz, counts) for _, _, mz, counts in TWO]
PLACE = r"test.imzML: spectrum 1 \(x=2, y=1\): "


# 1: compression


def test_01_zlib_arrays_are_inflated(tmp_path):
    assert spectra_of(two(compression="zlib").write(tmp_path))[0] == EXPECTED


@pytest.mark.parametrize("accession", ["MS:1002312", "MS:1002314", "MS:1002748", "MS:1003090"])
def test_01_other_compressions_are_refused(tmp_path, accession):
    document = two()
    document.spectra[1].arrays[0].elements.append(cv(accession, "MS-Numpress"))
    refused(document.write(tmp_path), PLACE + "the m/z array is compressed with Numpress")


def test_01_zlib_and_no_compression_at_once_are_refused(tmp_path):
    document = two()
    document.groups["intensityArray"].append(cv("MS:1000574"))
    refused(document.write(tmp_path), r"\(and 1 more\): the intensity array claims zlib and no")


def stored_as(tmp_path, stored, length=3):
    """Return the path of a file whose first m/z array is `stored`, said to be zlib."""
    document = Document.of(TWO[:1], compression="zlib")
    document.spectra[0].arrays[0].elements[1:] = external(len(document.ibd), length, len(stored))
    document.ibd += stored
    return document.write(tmp_path)


GOOD = struct.pack("<3d", 100, 200, 300)


@pytest.mark.parametrize(
    ("stored", "found"),
    [(zlib.compress(GOOD[:-1]), "gives 23 bytes, expected 24"),
     (zlib.compress(GOOD + b"x"), "gives more than 24 bytes, expected 24"),
     (zlib.compress(GOOD)[:-3], "gives 24 bytes and no end"),
     (zlib.compress(GOOD) + b"more", "gives 24 bytes and 4 bytes of something else"),
     (b"no deflate at all", "incorrect header check"),
     (zlib.compress(GOOD)[:-4] + b"sums", "incorrect data check"),
     (zlib.compress(bytes(10**7)), "gives more than 24 bytes")],
)  # fmt: skip
def test_01_compressed_arrays_of_another_size_are_refused(tmp_path, stored, found):
    reader = opened(stored_as(tmp_path, stored))
    with pytest.raises(SourceError, match=rf"test.ibd: spectrum 0 \(x=1, y=1\): .*{found}"):
        reader.read(0, 1, np.empty(reader.batch_bytes(0, 1), np.uint8))
    reader.close()


def test_01_points_that_deflate_cannot_hold_are_refused(tmp_path):
    path = stored_as(tmp_path, zlib.compress(GOOD), length=40_000)
    refused(path, r"40000 points of m/z cannot come from \d+ compressed bytes")


def test_01_compressed_arrays_need_their_stored_size(tmp_path):
    document = two(compression="zlib")
    document.spectra[1].arrays[1].elements.pop()
    refused(document.write(tmp_path), PLACE + "the compressed intensity array has no .*1000104")


# 2: a binary file that is too short or too long


def test_02_arrays_beyond_the_end_are_refused(tmp_path):
    document = two()
    document.ibd = document.ibd[:-1]
    refused(
        document.write(tmp_path),
        PLACE + r"the intensity array at external offset 68 \+ 8 bytes passes the end of "
        r".*test.ibd \(75 bytes\); is it truncated",
    )


def test_02_bytes_after_the_last_array_are_reported(tmp_path):
    document = two()
    document.ibd += bytes(5)
    contradiction(document.write(tmp_path), "has 5 bytes after the last array")


# 3: offsets that overflowed 32 bits


def far_away(tmp_path, offsets, stored=8):
    """Return a file of sparse size with one-point spectra at these intensity offsets."""
    document = Document.of([(x + 1, 1, [100.0], [1.0]) for x in range(len(offsets))])
    for spectrum, offset in zip(document.spectra, offsets, strict=True):
        spectrum.arrays[1].elements[1] = external(offset, 1, 4)[0]
    path = document.write(tmp_path)
    with path.with_suffix(".ibd").open("r+b") as stream:
        for index, place in enumerate([2**31 - 64, 2**31 + 64, 2**32 + 64]):
            stream.seek(place)
            stream.write(struct.pack("<f", 7.0 + index))
        stream.truncate(2**32 + 68)
    return path


def test_03_wrapped_offsets_are_repaired_where_the_result_is_sound(tmp_path):
    path = far_away(tmp_path, [2**31 - 64, 2**31 + 64 - 2**32, 64])
    found, acquisition = spectra_of(path)
    assert [counts for _, counts in found] == [[7.0], [8.0], [9.0]]
    assert "1 offsets of intensity had overflowed 32 bits; repaired" in acquisition.warnings


@pytest.mark.parametrize(
    "offsets",
    [[2**31 + 64 - 2**32, 2**31 - 64, 64],  # begins beyond the sign change
     [2**31 - 64, 2**31 + 64 - 2**32, 2**31 - 4],  # would end beyond the file
     [2**31 - 64, 2**31 + 64 - 2**32, 2**31 + 32 - 2**32],  # goes backwards
     [2**31 - 64, -(2**40), 64]],  # no 32-bit number
)  # fmt: skip
def test_03_other_negative_offsets_are_refused(tmp_path, offsets):
    refused(
        far_away(tmp_path, offsets), r"external offset of intensity is -\d+, expected at least 0"
    )


def test_03_negative_offsets_in_a_small_file_are_refused(tmp_path):
    document = two()
    document.spectra[1].arrays[0].elements[1] = external(-16, 2, 16)[0]
    refused(document.write(tmp_path), PLACE + "external offset of m/z is -16, expected at least 0")


# 4: numbers that lost their digits


def test_04_exact_numbers_in_scientific_notation_are_read(tmp_path):
    document = two()
    document.spectra[1].arrays[0].elements[1:] = external("5.2e+01", "2.0", "1.6e1")
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


@pytest.mark.parametrize("value", ["NA", "1.5e0", "", "1e300", "9223372036854775808"])
def test_04_numbers_that_are_none_are_refused(tmp_path, value):
    document = two()
    document.spectra[1].arrays[0].elements[1] = external(value, 2, 16)[0]
    words = PLACE + rf"external offset is '{value}', expected a whole number below 2\^63"
    refused(document.write(tmp_path), words)


def test_04_bad_numbers_of_arrays_that_are_not_read_do_no_harm(tmp_path):
    document = two()
    mobility = Array([cv("MS:1002816", "mean ion mobility array"), *external("NA", "NA", "NA")])
    document.spectra[1].arrays.append(mobility)
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


def test_04_rounded_offsets_that_overlap_are_refused(tmp_path):
    document = two()
    document.spectra[1].arrays[0].elements[1] = external("5e+01", 2, 16)[0]
    refused(document.write(tmp_path), "arrays overlap.*exponent.*the exporter lost digits")


def test_04_other_overlaps_are_reported(tmp_path):
    document = two()
    document.spectra[1].arrays[0].elements[1] = external(50, 2, 16)[0]
    contradiction(document.write(tmp_path), "arrays overlap others")


# 5: arrays of different lengths


def test_05_arrays_of_different_lengths_are_refused(tmp_path):
    document = two()
    document.spectra[1].arrays[1].elements[1:] = external(68, 1, 4)
    refused(
        document.write(tmp_path),
        PLACE + "the m/z array has 2 points but the intensity array 1, expected as many",
    )


def test_05_intensities_that_do_not_fit_the_shared_mz_are_refused(tmp_path):
    spectra = [(x, 1, [1.0, 2.0, 3.0], [1.0] * n) for x, n in ((1, 3), (2, 2))]
    path = Document.of(spectra, mode="continuous").write(tmp_path)
    refused(path, PLACE + "the shared m/z array has 3 points but the intensity array 2")


# 6, 7, 8: dtypes


@pytest.mark.parametrize(
    ("terms", "said"),
    [([cv("MS:1000521", "64-bit float")], "<f4"),
     ([cv("MS:1000521"), cv("MS:1000523")], "<f4 and <f8"), ([], "no dtype")],
)  # fmt: skip
def test_06_07_lengths_decide_the_dtype(tmp_path, terms, said):
    document = two()
    document.groups["mzArray"][1:2] = terms
    path = document.write(tmp_path)
    assert spectra_of(path)[0] == EXPECTED
    contradiction(path, f"the header says {said} for m/z, but its lengths say 8 bytes a point")


def test_06_the_name_of_a_dtype_is_not_read(tmp_path):
    document = two()
    document.groups["mzArray"][1] = cv("MS:1000523", "32-bit float")
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == EXPECTED
    assert acquisition.warnings == ()


def test_07_the_accession_decides_where_lengths_do_not(tmp_path):
    document = two()
    for spectrum, offsets in zip(document.spectra, [(16, 40), (52, 68)], strict=True):
        for array, offset in zip(spectrum.arrays, offsets, strict=True):
            length = 3 if spectrum is document.spectra[0] else 2
            array.elements[1:] = external(offset, length, 0)
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


@pytest.mark.parametrize(
    ("terms", "words"),
    [([], "no dtype"), ([cv("MS:1000521"), cv("MS:1000523")], "<f4 and <f8")],
)
def test_07_a_dtype_that_nothing_decides_is_refused(tmp_path, terms, words):
    document = two(compression="zlib")
    document.groups["mzArray"][1:2] = terms
    refused(document.write(tmp_path), f"the m/z array has {words} in its terms .*exactly one dtype")


def test_07_a_size_that_fits_no_dtype_is_refused(tmp_path):
    document = two()
    document.spectra[1].arrays[0].elements[1:] = external(52, 5, 16)
    words = "external encoded length of m/z is 16 bytes for 5 points, expected 1, 2, 4 or 8"
    refused(document.write(tmp_path), PLACE + words)


def test_07_empty_spectra_of_a_mislabelled_kind_keep_one_encoding(tmp_path):
    document = Document.of([*TWO, (3, 1, [], [])])
    document.groups["mzArray"][1] = cv("MS:1000521", "32-bit float")
    assert len(spectra_of(document.write(tmp_path))[1].encodings) == 1


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_08_every_dtype_has_its_own_size(tmp_path, dtype):
    document = two(intensity_dtype=dtype)
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == EXPECTED
    assert acquisition.encodings[0].intensity_dtype == f"<{dtype}"


@pytest.mark.parametrize(("accession", "dtype"), [("IMS:1000141", "i4"), ("IMS:1000142", "i8")])
def test_08_obsolete_integer_terms_are_known(tmp_path, accession, dtype):
    document = two(intensity_dtype=dtype)
    document.groups["intensityArray"][1] = cv(accession)
    found, acquisition = spectra_of(document.write(tmp_path))
    assert (found, acquisition.warnings) == (EXPECTED, ())


# 9: terms written inline, in groups of groups, in several groups


def test_09_arrays_may_describe_themselves(tmp_path):
    data = bytearray(UUID)
    spectra = []
    packed = [
        ("<3d", "MS:1000523", "<3f", "MS:1000521"),
        ("<2f", "MS:1000521", "<2d", "MS:1000523"),
    ]
    for (x, y, mz, counts), (f_mz, t_mz, f_in, t_in) in zip(TWO, packed, strict=True):
        arrays = []
        for kind, code, term, values in (("MS:1000514", f_mz, t_mz, mz),
                                         ("MS:1000515", f_in, t_in, counts)):  # fmt: skip
            raw = struct.pack(code, *values)
            terms = external(len(data), len(values), len(raw))
            arrays.append(Array([*terms, cv(term), cv(kind)]))
            data += raw
        spectra.append(Spectrum([ref("spectrum")], position(x, y), arrays))
    document = two()
    document.ibd, document.spectra = bytes(data), spectra
    document.groups = {"spectrum": document.groups["spectrum"]}
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == EXPECTED
    dtypes = [(e.mz_dtype, e.intensity_dtype) for e in acquisition.encodings]
    said = [dtypes[code] for code in acquisition.encoding]
    assert said == [("<f8", "<f4"), ("<f4", "<f8")]


def test_09_several_groups_may_describe_one_kind(tmp_path):
    document = two()
    document.groups["inner"] = document.groups["mzArray"]
    document.groups["second"] = [ref("inner")]
    document.spectra[1].arrays[0].elements[0] = ref("second")
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


# 10: further arrays


@pytest.mark.parametrize("accession", ["MS:1003006", "MS:1002816", "MS:1003008", "MS:1000786"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_10_mobility_arrays_are_left_out_with_a_warning(tmp_path, accession, place):
    document = two()
    extra = Array([cv(accession, "mobility"), cv("MS:1000523"), *external(16, 3, 24)])
    document.spectra[0].arrays.insert(place, extra)
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == EXPECTED
    assert any("1 spectra have further arrays" in text for text in acquisition.warnings)


@pytest.mark.parametrize(("index", "role"), [(0, "m/z"), (1, "intensity")])
def test_10_a_third_array_does_not_stand_in_for_one_that_is_missing(tmp_path, index, role):
    document = two()
    document.spectra[1].arrays[index].elements[0] = ref("nowhere")
    refused(document.write(tmp_path), PLACE + f"no {role} array, expected one; does it refer")


def test_10_two_arrays_of_one_kind_are_refused(tmp_path):
    document = two()
    document.spectra[1].arrays.append(document.spectra[1].arrays[0])
    refused(document.write(tmp_path), PLACE + "two m/z or two intensity arrays")


def test_10_an_array_of_two_kinds_is_refused(tmp_path):
    document = two()
    document.spectra[1].arrays[1].elements.append(cv("MS:1000514"))
    refused(document.write(tmp_path), PLACE + "one array claims to be both m/z and intensity")


# 11: continuous and processed


SAME = [(x, 1, [100.0, 200.0], [1.0 * x, 2.0]) for x in (1, 2, 3)]


def test_11_one_shared_axis_is_found_whatever_the_header_says(tmp_path):
    document = Document.of(SAME, mode="continuous")
    document.content[-1] = cv("IMS:1000031", "processed")
    path = document.write(tmp_path)
    assert spectra_of(path)[1].shared_mz_points == 2
    contradiction(path, "says processed, but all spectra share one m/z array")


def test_11_axes_of_their_own_are_found_whatever_the_header_says(tmp_path):
    document = Document.of(SAME, mode="processed")
    document.content[-1] = cv("IMS:1000030", "continuous")
    path = document.write(tmp_path)
    assert spectra_of(path)[1].shared_mz_points == 0
    contradiction(path, "says continuous, but spectra have m/z arrays of their own")


def test_11_both_modes_at_once_are_reported(tmp_path):
    document = Document.of(SAME, mode="continuous")
    document.content.append(cv("IMS:1000031", "processed"))
    contradiction(document.write(tmp_path), "both continuous and processed")


def test_11_the_mode_may_be_missing(tmp_path):
    document = Document.of(SAME, mode="continuous")
    document.content.pop()
    found, acquisition = spectra_of(document.write(tmp_path))
    assert (acquisition.shared_mz_points, acquisition.warnings) == (2, ())
    assert found == [(mz, counts) for _, _, mz, counts in SAME]


def test_11_some_spectra_may_share_an_axis_in_a_processed_file(tmp_path):
    document = Document.of([*SAME, (4, 1, [5.0], [6.0])])
    document.spectra[1].arrays[0] = document.spectra[0].arrays[0]
    found, acquisition = spectra_of(document.write(tmp_path))
    assert acquisition.shared_mz_points == 0
    assert found[1] == ([100.0, 200.0], [2.0, 2.0])


# 12, 13: identifier and checksum


@pytest.mark.parametrize("dress", ["{{{}}}", "{}", "  {}  "])
@pytest.mark.parametrize("dashes", [True, False])
def test_12_identifiers_match_in_any_dress(tmp_path, dress, dashes):
    document = two()
    text = "01234567-89AB-cdef-0123-456789abcdef"
    text = dress.format(text if dashes else text.replace("-", ""))
    document.content[0] = cv("IMS:1000080", "universally unique identifier", text)
    assert warnings_of(document.write(tmp_path)) == ()


@pytest.mark.parametrize(
    ("uuid", "words"),
    [("f" * 32, "do the two files belong together"), ("0000", "is not 32 hexadecimal digits")],
)
def test_12_another_identifier_is_reported(tmp_path, uuid, words):
    document = two()
    document.content[0] = cv("IMS:1000080", "", uuid)
    contradiction(document.write(tmp_path), words)


def test_13_the_checksum_is_recorded_and_not_verified(tmp_path):
    document = two()
    document.content.append(cv("IMS:1000090", "ibd MD5", "00FF"))
    _, acquisition = spectra_of(document.write(tmp_path))
    assert acquisition.identity.checksum == ("MD5", "00ff")
    assert acquisition.warnings == ()


# 14: the binary file


def test_14_a_missing_binary_file_is_named(tmp_path):
    path = two().write(tmp_path)
    path.with_suffix(".ibd").rename(tmp_path / "test.ibdtmp")
    words = r"needs its binary file test.ibd beside it.*\(test.ibdtmp looks like an unfinished exp"
    with pytest.raises(SourceMissingError, match=words):
        opened(path)


def test_14_the_case_of_the_binary_file_does_not_matter(tmp_path):
    path = two().write(tmp_path)
    path.with_suffix(".ibd").rename(tmp_path / "TEST.IBD")
    assert spectra_of(path)[0] == EXPECTED


def test_14_an_exact_name_goes_before_another_case(tmp_path):
    path = two().write(tmp_path)
    (tmp_path / "Test.IBD").write_bytes(b"something else")
    assert spectra_of(path)[0] == EXPECTED


def test_14_two_binary_files_that_differ_in_case_are_refused(tmp_path):
    path = two().write(tmp_path)
    path.with_suffix(".ibd").rename(tmp_path / "TEST.ibd")
    (tmp_path / "test.IBD").write_bytes(b"something else")
    refused(path, r"could belong to TEST.ibd or test.IBD, expected one binary file; give --ibd")


def test_14_a_folder_is_no_binary_file(tmp_path):
    path = two().write(tmp_path)
    path.with_suffix(".ibd").unlink()
    path.with_suffix(".ibd").mkdir()
    refused(path, r"test.ibd is a folder, expected the binary file")


def test_14_the_binary_file_can_be_given(tmp_path):
    path = two().write(tmp_path)
    moved = path.with_suffix(".ibd").rename(tmp_path / "elsewhere.bin")
    assert spectra_of(path, ibd=str(moved))[0] == EXPECTED
    with pytest.raises(SourceMissingError, match=r"nowhere.ibd does not exist; check --ibd"):
        opened(path, ibd=str(tmp_path / "nowhere.ibd"))


@pytest.mark.parametrize(
    ("data", "words"), [(b"", "test.ibd is empty"), (b"version https://git-lfs.g", "git lfs pull")]
)
def test_14_a_binary_file_that_is_none_is_refused(tmp_path, data, words):
    document = two()
    document.ibd = data
    refused(document.write(tmp_path), words)


# 15, 16, 17: positions


@pytest.mark.parametrize("first", [0, 1, 100, -3])
def test_15_positions_count_from_the_smallest(tmp_path, first):
    spectra = [(x + first, y + first, mz, counts) for x, y, mz, counts in TWO]
    _, acquisition = spectra_of(Document.of(spectra).write(tmp_path))
    assert acquisition.x.tolist() == [0, 1]
    assert acquisition.y.tolist() == [0, 0]
    assert acquisition.origin == (1 + first, 1 + first, 1)


def test_15_a_wrong_declared_grid_is_reported(tmp_path):
    contradiction(two(grid=(7, 1)).write(tmp_path), "declares 7 x 1 pixels (x, y), but 2 x 1 are")


def test_15_a_missing_grid_does_no_harm(tmp_path):
    _, acquisition = spectra_of(two().write(tmp_path))
    assert (acquisition.shape, acquisition.warnings) == ((1, 1, 2), ())


@pytest.mark.parametrize(("axis", "accession"), [(0, "IMS:1000050"), (1, "IMS:1000051")])
def test_15_spectra_without_position_are_refused(tmp_path, axis, accession):
    document = two()
    del document.spectra[1].scan[axis]
    refused(document.write(tmp_path), rf"spectrum 1 \(.*no position {'xy'[axis]} \({accession}\)")


def test_16_several_scans_of_a_pixel_are_refused_by_default(tmp_path):
    refused(Document.of([*TWO, TWO[0]]).write(tmp_path), "1 spectra lie on a pixel .*--duplicates")


@pytest.mark.parametrize("z", [0, 1, 7])
def test_17_planes_count_from_the_smallest(tmp_path, z):
    spectra = [(*spectrum, z + 2 * i) for i, spectrum in enumerate(TWO)]
    _, acquisition = spectra_of(Document.of(spectra).write(tmp_path))
    assert acquisition.z.tolist() == [0, 2]
    assert acquisition.origin == (1, 1, z)


# 18: nothing in a spectrum


@pytest.mark.parametrize("place", [(0, 0), (10**9, 0), (None, 0), (16, None)])
def test_18_spectra_without_points_are_kept(tmp_path, place):
    document = Document.of([*TWO, (3, 1, [], [])])
    for array in document.spectra[2].arrays:
        array.elements[1:] = external(place[0], 0, place[1])
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == [*EXPECTED, ([], [])]
    assert acquisition.n_points.tolist() == [3, 2, 0]


def test_18_spectra_without_arrays_are_kept_as_empty(tmp_path):
    document = Document.of([*TWO, (3, 1, [], [])])
    document.spectra[2].arrays = []
    found, acquisition = spectra_of(document.write(tmp_path))
    assert found == [*EXPECTED, ([], [])]
    assert any("1 spectra have no arrays" in text for text in acquisition.warnings)


def test_18_a_file_without_any_array_is_refused(tmp_path):
    document = two()
    for spectrum in document.spectra:
        spectrum.arrays = []
    refused(document.write(tmp_path), "has no binary arrays in any spectrum")


def test_18_a_file_without_spectra_is_refused(tmp_path):
    document = two()
    document.spectra = []
    refused(document.write(tmp_path), "has no spectra, expected at least one")


def test_18_a_file_of_empty_spectra_has_no_mz(tmp_path):
    reader = opened(Document.of([(1, 1, [], []), (2, 1, [], [])]).write(tmp_path))
    assert reader.mz_extent() == (0.0, 0.0)
    assert reader.batch_bytes(0, 2) == 0
    reader.close()


# 19: faulty points pass through to where they are found


def test_19_faulty_points_reach_the_backend_unchanged(tmp_path):
    mz, counts = [300.0, 200.0, 200.0, 250.0], [-1.0, 0.0, 1.0, float("nan")]
    reader = opened(Document.of([(1, 1, mz, counts)]).write(tmp_path))
    found = decode(reader.read(0, 1, np.empty(reader.batch_bytes(0, 1), np.uint8)))
    np.testing.assert_array_equal(found.mz, mz)
    np.testing.assert_array_equal(found.intensity, counts)
    assert find_faults(found)[0] != 0
    reader.close()


# 20, 21: pixel size


def test_20_a_size_that_is_not_finite_needs_the_user(tmp_path):
    document = two(pixel_size=(10.0, "Inf"))
    path = document.write(tmp_path)
    refused(path, r"IMS:1000047 .*'Inf', expected a number above 0; give --pixel-size")
    _, acquisition = spectra_of(path, pixel_size=(5.0, 6.0))
    assert (acquisition.pixel_size, acquisition.pixel_size_source) == ((5.0, 6.0), "given")


def test_20_sizes_come_from_the_header_by_accession(tmp_path):
    document = two(pixel_size=(20.0, 30.0))
    document.scan_settings[0][0] = cv("IMS:1000046", "pixel area", 20000, unit="UO:0000018")
    _, acquisition = spectra_of(document.write(tmp_path))
    assert acquisition.pixel_size == pytest.approx((20.0, 30.0), rel=1e-15)
    assert acquisition.pixel_size_source == "header (IMS:1000046)"


@pytest.mark.parametrize("settings", [[[]], []])
def test_20_without_any_size_one_is_assumed_and_said(tmp_path, settings):
    document = two()
    document.scan_settings = settings
    _, acquisition = spectra_of(document.write(tmp_path))
    assert (acquisition.pixel_size, acquisition.pixel_size_source) == ((1.0, 1.0), "assumed")
    said = "the header gives no pixel size; 1 um is assumed, give --pixel-size"
    assert acquisition.warnings == (said,)


def test_21_the_scan_settings_that_fit_the_grid_are_taken(tmp_path):
    document = two(pixel_size=25.0, grid=(9, 9))
    document.scan_settings += two(pixel_size=10.0, grid=(2, 1)).scan_settings
    document.scan_settings += two(pixel_size=5.0).scan_settings
    path = document.write(tmp_path)
    assert spectra_of(path)[1].pixel_size == (10.0, 10.0)
    contradiction(path, "3 scanSettings give different pixel sizes; 'settings1' is used")


# 22, 23: representation and polarity


@pytest.mark.parametrize("where", ["content", "group", "spectrum"])
def test_22_the_representation_is_found_in_any_of_three_places(tmp_path, where):
    document = two(representation=None)
    term = cv("MS:1000128", "profile spectrum")
    if where == "content":
        document.content.append(term)
    elif where == "group":
        document.groups["not referred to"] = [term]
    else:
        for spectrum in document.spectra:
            spectrum.elements.append(term)
    assert spectra_of(document.write(tmp_path))[1].representation == "profile"


def test_22_spectra_go_before_the_file_content(tmp_path):
    document = two(representation="centroid")
    document.content.append(cv("MS:1000128", "profile spectrum"))
    path = document.write(tmp_path)
    assert spectra_of(path)[1].representation == "centroid"
    contradiction(path, "file content and spectra disagree about the spectrum type")


def test_22_profile_terms_named_positive_scan_say_nothing_of_the_type(tmp_path):
    document = two(representation="centroid")
    document.groups["spectrum"].append(cv("MS:1000128", "positive scan"))
    _, acquisition = spectra_of(document.write(tmp_path))
    assert acquisition.representation == "centroid"
    assert acquisition.polarity.tolist() == [1, 1]


def test_23_polarities_may_differ_between_spectra(tmp_path):
    document = two()
    document.spectra[0].elements.append(cv("MS:1000129"))
    document.spectra[1].scan.append(cv("MS:1000130"))
    assert spectra_of(document.write(tmp_path))[1].polarity.tolist() == [-1, 1]


# 24 to 27: names, text and order


def test_24_unknown_and_broken_terms_do_no_harm(tmp_path):
    document = two()
    odd = [cv(None, "meanndering"), cv("", ""), cv("IMS:9999999", "new", "x"), "<cvParam/>",
           "<userParam/>", "<referenceableParamGroupRef/>", ref("nowhere")]  # fmt: skip
    document.content += odd
    document.scan_settings[0] += odd
    for spectrum in document.spectra:
        spectrum.elements += odd
        spectrum.arrays[0].elements += odd
    found, acquisition = spectra_of(document.write(tmp_path))
    assert (found, acquisition.warnings) == (EXPECTED, ())


def rewritten(tmp_path, change, encoding="utf-8"):
    path = two().write(tmp_path)
    path.write_bytes(change(two().xml()).encode(encoding))
    return path


@pytest.mark.parametrize(
    "change",
    [lambda text: text.split("\n", 1)[1],
     lambda text: "\ufeff" + text,
     lambda text: "\n  \n" + text,
     lambda text: text.replace("\n", "\r\n"),
     lambda text: text.replace("\n", ""),
     lambda text: text.replace("/>", "/>\n\t"),
     lambda text: text.replace("http://psi.hupo.org/ms/mzml", "urn:wrong"),
     lambda text: text.replace(' xmlns="http://psi.hupo.org/ms/mzml"', ""),
     lambda text: text.replace("<mzML", "<!-- a --><?b?><indexedmzML><mzML", 1) + "</indexedmzML>",
     lambda text: text.replace("<run", "<!-- <spectrumList> --><run", 1)],
)  # fmt: skip
def test_25_odd_shapes_of_the_xml_are_read(tmp_path, change):
    found, acquisition = spectra_of(rewritten(tmp_path, change))
    assert (found, acquisition.warnings) == (EXPECTED, ())


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-be", "utf-32"])
def test_25_wide_encodings_are_read(tmp_path, codec):
    path = rewritten(tmp_path, lambda text: text.replace("UTF-8", codec[:6]), codec)
    assert spectra_of(path)[0] == EXPECTED


def test_25_text_before_the_xml_is_skipped_and_said(tmp_path):
    path = rewritten(tmp_path, lambda text: "Exported by someone\n" + text)
    found, acquisition = spectra_of(path)
    assert found == EXPECTED
    assert acquisition.warnings == ("skipped 20 bytes before the XML begins",)


@pytest.mark.parametrize("declared", ["UTF-8", "UTF-16", "x-unknown"])
@pytest.mark.parametrize("comment", ["", "<!-- for the slow path -->"])
def test_25_latin_bytes_under_another_name_are_read(tmp_path, declared, comment):
    def change(text):
        text = text.replace('"UTF-8"', f'"{declared}"').replace(
            "</scanList>", comment + "</scanList>"
        )
        return text.replace("<run", '<userParam name="Gr\xf6\xdfe"/><run', 1)

    found, acquisition = spectra_of(rewritten(tmp_path, change, "latin-1"))
    assert found == EXPECTED
    said = "the text is not in the encoding that it declares; read as ISO-8859-1"
    assert acquisition.warnings == (said,)


def test_25_latin_bytes_inside_the_list_are_read(tmp_path):
    document = two()
    document.spectra[0].elements.append('<userParam name="\xdf"/><!-- for the slow path -->')
    assert spectra_of(document.write(tmp_path, encoding="latin-1"))[0] == EXPECTED


def test_26_index_and_id_do_not_matter_and_a_wrong_count_is_reported(tmp_path):
    document = two()
    for spectrum in document.spectra:
        spectrum.attributes = 'index="7" id=">"'
    document.count = 99
    path = document.write(tmp_path)
    assert spectra_of(path)[0] == EXPECTED
    contradiction(path, "spectrumList declares 99 spectra, but 2 are there")


def test_27_huge_parameters_do_no_harm(tmp_path):
    huge = f'<userParam name="method" value="{"x" * 300_000}"/>'
    document = two()
    document.content += [huge, '<sourceFile location="file:///C:\\raw data"/>']
    document.spectra[0].elements.append(huge)
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


# 28, 30: reading


def test_28_threads_read_the_same_as_one(tmp_path):
    rng = np.random.default_rng(0)
    spectra = [(x % 20, x // 20, rng.random(n), rng.random(n).astype("f4"))
               for x, n in enumerate(rng.integers(0, 50, 200))]  # fmt: skip
    reader = opened(Document.of(spectra, intensity_dtype="f4").write(tmp_path))
    failures = []

    def read(seed):
        for first in np.random.default_rng(seed).integers(0, 190, 60):
            batch = reader.read(first, first + 10, np.empty(20_000, np.uint8))
            found = decode(batch)
            expected = np.concatenate([spectra[i][2] for i in range(first, first + 10)])
            if not np.array_equal(found.mz, expected):
                failures.append(first)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    reader.close()
    assert failures == []


def test_30_nothing_is_written_beside_the_input(tmp_path):
    path = two().write(tmp_path)
    before = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in tmp_path.iterdir()}
    tmp_path.chmod(0o555)
    try:
        spectra_of(path)
    finally:
        tmp_path.chmod(0o755)
    assert {p.name: hashlib.sha256(p.read_bytes()).digest() for p in tmp_path.iterdir()} == before


# Beyond the table: numbers that would exhaust memory or wrap around


@pytest.mark.parametrize(
    ("numbers", "words"),
    [((2**62, 2, 16), "passes the end"), ((10**18 - 1, 2, 16), "passes the end"),
     ((52, 10**9, 4 * 10**9), r"1000000000 points, more than the 76 bytes of .*test.ibd"),
     ((52, 10**17, 0), "more than the 76 bytes"), ((52, 2, 10**17), "100000000000000000 bytes, mo"),
     ((52, -2, 16), "array length of m/z is -2, expected at least 0"),
     ((52, 2, -16), "encoded length of m/z is -16, expected at least 0"),
     ((None, 2, 16), "has no external offset"), ((52, None, None), "has no external array length"),
     ((52, None, 15), "no whole number of points")],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused_with_their_place(tmp_path, numbers, words):
    document = two()
    document.spectra[1].arrays[0].elements[1:] = external(*numbers)
    refused(document.write(tmp_path), PLACE + ".*" + words)


@pytest.mark.parametrize("missing", [1, 2])
def test_one_of_two_lengths_is_enough(tmp_path, missing):
    document = two()
    for spectrum in document.spectra:
        for array in spectrum.arrays:
            del array.elements[missing + 1]
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


def test_a_truncated_list_is_refused_with_what_is_there(tmp_path):
    path = two().write(tmp_path)
    text = path.read_text()
    path.write_text(text[: text.rindex("<spectrum ") + 40])
    refused(path, "ends after 1 spectra, before </spectrumList>: the file is truncated")


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("which", ["scan", "mz", "intensity"])
def test_a_number_that_is_said_twice_and_differs_is_refused(tmp_path, which, slow):
    document = two()
    if slow:
        # A comment leaves the list to the XML parser.
        document.between = "<!-- -->"
    spectrum = document.spectra[1]
    spectrum.scan.append(cv("IMS:1000050", "position x", 2))
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED
    if which == "scan":
        spectrum.scan.append(cv("IMS:1000050", "position x", 7))
    else:
        array = spectrum.arrays[which == "intensity"]
        array.elements.append(cv("IMS:1000102", "external offset", 20))
    refused(document.write(tmp_path), "spectrum 1 .*: a position, an offset or a length is given")


def test_a_number_said_twice_of_an_array_that_is_not_read_does_no_harm(tmp_path):
    document = two()
    other = Array([cv("MS:1000786", "other"), *external(16, 1, 8), *external(24, 1, 8)])
    document.spectra[1].arrays.append(other)
    assert spectra_of(document.write(tmp_path))[0] == EXPECTED


def test_a_signalling_nan_is_a_fault_like_any_other(tmp_path):
    document = two()
    ibd = bytearray(document.ibd)
    # The first intensity: after the identifier and three float64.
    ibd[40:44] = (0x7F800001).to_bytes(4, "little")
    document.ibd = bytes(ibd)
    found, _ = spectra_of(document.write(tmp_path))
    assert np.isnan(found[0][1][0])
    assert found[0][1][1:] == [2.0, 3.0]
