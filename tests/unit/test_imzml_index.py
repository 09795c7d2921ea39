"""The index of an imzML: rows, encodings, and what header and spectra say of each other."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import SourceError
from gpuconvert.readers.imzml import ImzmlReader
from gpuconvert.readers.imzml_checks import distinct
from gpuconvert.readers.imzml_index import normal_uuid
from gpuconvert.readers.imzml_scan import FLOAT32, FLOAT64, INT32, INT64
from gpuconvert.readers.imzml_terms import choose_dtype
from gpuconvert.settings import Settings
from gpuconvert.spectra import Encoding
from tests.imzml_writer import Document, cv, position, write_imzml


def acquisition_of(source, folder=None, **words):
    path = source.write(folder) if isinstance(source, Document) else source
    reader = ImzmlReader(path, Settings(**words))
    reader.close()
    return reader.acquisition


def plain(places, **options):
    """Return a document of one-point spectra at places (x, y) or (x, y, z)."""
    spectra = [
        (place[0], place[1], [100.0 + i], [1.0], *place[2:]) for i, place in enumerate(places)
    ]
    return Document.of(spectra, **options)


PLACES = st.lists(
    st.tuples(st.integers(-2, 9), st.integers(0, 4), st.integers(0, 2)),
    min_size=1, max_size=25, unique=True,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(places=PLACES)
def test_rows_ascend_by_z_y_x_from_the_smallest_position(tmp_path_factory, places):
    found = acquisition_of(plain(places), tmp_path_factory.mktemp("rows"))
    expected = sorted(range(len(places)), key=lambda i: places[i][::-1])
    low = [min(place[axis] for place in places) for axis in range(3)]
    assert found.origin == tuple(low)
    assert found.order.tolist() == expected
    based = [tuple(value - low[axis] for axis, value in enumerate(places[i])) for i in expected]
    assert list(zip(found.x.tolist(), found.y.tolist(), found.z.tolist(), strict=True)) == based
    assert found.x.dtype == found.y.dtype == found.z.dtype == np.int32
    assert found.order.dtype == found.n_points.dtype == found.raw_bytes.dtype == np.int64
    assert found.encoding.dtype == np.uint8
    assert found.polarity.dtype == np.int8


def test_a_grid_too_large_for_one_number_per_pixel_is_sorted_all_the_same(tmp_path):
    far = 2**31 - 1
    places = [(far, 0, far), (0, far, 0), (0, 0, far), (far, 0, 0), (0, 0, 0)]
    found = acquisition_of(plain(places), tmp_path)
    assert found.order.tolist() == [4, 3, 1, 2, 0]


def test_positions_beyond_int32_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"position y runs from 1 to 2147483649, expected fewer"):
        acquisition_of(plain([(1, 1), (1, 2**31 + 1)]), tmp_path)


def test_a_file_without_z_is_the_first_plane(tmp_path):
    assert acquisition_of(plain([(3, 4)]), tmp_path).origin == (3, 4, 1)


def test_spectra_without_z_join_the_lowest_plane(tmp_path):
    found = acquisition_of(plain([(1, 1, 5), (2, 1), (3, 1, 4)]), tmp_path)
    assert found.origin == (1, 1, 4)
    assert dict(zip(found.order.tolist(), found.z.tolist(), strict=True)) == {0: 1, 1: 0, 2: 0}
    assert found.warnings == ("1 spectra have no position z; taken as 4",)


TWICE = [(2, 1), (1, 1), (2, 1), (2, 2), (2, 1)]


def test_duplicate_pixels_are_refused_with_the_first_and_the_remedies(tmp_path):
    words = (
        "2 spectra lie on a pixel that has one already, the first are spectra 0 and 2 at "
        "x=2, y=1, z=1; choose one with --duplicates first or last, add them up with sum"
    )
    with pytest.raises(SourceError, match=words):
        acquisition_of(plain(TWICE), tmp_path)


@pytest.mark.parametrize(
    ("duplicates", "order"),
    [("first", [1, 0, 3]), ("last", [1, 4, 3]),
     ("sum", [1, 0, 2, 4, 3]), ("keep", [1, 0, 2, 4, 3])],
)  # fmt: skip
def test_duplicates_are_dropped_or_kept_as_asked(tmp_path, duplicates, order):
    found = acquisition_of(plain(TWICE), tmp_path, duplicates=duplicates)
    assert found.order.tolist() == order
    assert any("--duplicates" in warning for warning in found.warnings)


def test_duplicates_are_found_on_grids_too_large_for_one_number(tmp_path):
    far = 2**31 - 1
    places = [(far, far, far), (0, 0, 0), (far, far, far)]
    found = acquisition_of(plain(places), tmp_path, duplicates="last")
    assert found.order.tolist() == [1, 2]


def test_spectra_of_one_pixel_in_two_planes_are_not_duplicates(tmp_path):
    assert acquisition_of(plain([(1, 1, 1), (1, 1, 2)]), tmp_path).n_spectra == 2


def test_bytes_count_points_of_both_arrays_or_of_one_where_mz_is_shared(tmp_path):
    mz = [100.0, 200.0, 300.0]
    spectra = [(1, 1, mz, [1.0] * 3), (2, 1, mz, [2.0] * 3)]
    separate = acquisition_of(write_imzml(tmp_path, spectra, name="a"))
    shared = acquisition_of(write_imzml(tmp_path, spectra, name="b", mode="continuous"))
    assert (separate.shared_mz_points, separate.raw_bytes.tolist()) == (0, [36, 36])
    assert (shared.shared_mz_points, shared.raw_bytes.tolist()) == (3, [12, 12])
    assert shared.n_points.tolist() == [3, 3]


@pytest.mark.parametrize(("mode", "points"), [("continuous", 2), ("processed", 0)])
def test_a_single_spectrum_shares_its_mz_where_the_header_says_so(tmp_path, mode, points):
    found = acquisition_of(write_imzml(tmp_path, [(1, 1, [1.0, 2.0], [1.0, 1.0])], mode=mode))
    assert found.shared_mz_points == points
    assert found.warnings == ()


@pytest.mark.parametrize("kind", ["profile", "centroid", None])
def test_the_representation_comes_from_the_spectra(tmp_path, kind):
    found = acquisition_of(plain([(1, 1), (2, 1)], representation=kind), tmp_path)
    assert found.representation == kind


@pytest.mark.parametrize("asked", ["profile", "centroid"])
def test_the_user_overrides_the_representation(tmp_path, asked):
    document = plain([(1, 1), (2, 1)], representation="centroid")
    document.spectra[0].elements = [cv("MS:1000128", "profile spectrum")]
    assert acquisition_of(document, tmp_path, spectrum_type=asked).representation == asked


def test_mixed_representations_give_one_encoding_each(tmp_path):
    document = plain([(1, 1), (2, 1), (3, 1)], representation=None)
    terms = ["MS:1000128", "MS:1000127", "MS:1000128"]
    for spectrum, term in zip(document.spectra, terms, strict=True):
        spectrum.elements.append(cv(term))
    found = acquisition_of(document, tmp_path)
    assert found.representation is None
    said = [found.encodings[code].representation for code in found.encoding]
    assert said == ["profile", "centroid", "profile"]


def test_spectra_that_say_both_are_unknown(tmp_path):
    document = plain([(1, 1), (2, 1)], representation="centroid")
    document.spectra[0].elements.append(cv("MS:1000128", "profile spectrum"))
    found = acquisition_of(document, tmp_path)
    assert [found.encodings[code].representation for code in found.encoding] == [None, "centroid"]
    assert any("two things about their spectrum type" in text for text in found.warnings)


def test_polarities_are_kept_per_spectrum(tmp_path):
    document = plain([(1, 1), (2, 1), (3, 1), (4, 1)])
    for spectrum, terms in zip(
        document.spectra, [["MS:1000129"], ["MS:1000130"], [], ["MS:1000129", "MS:1000130"]],
        strict=True,
    ):  # fmt: skip
        spectrum.elements += [cv(term) for term in terms]
    assert acquisition_of(document, tmp_path).polarity.tolist() == [-1, 1, 0, 0]


@pytest.mark.parametrize("where", ["file", "spectrum", "group"])
def test_the_polarity_is_found_in_any_of_three_places(tmp_path, where):
    document = plain([(1, 1), (2, 1)], polarity=-1 if where == "spectrum" else None)
    if where == "file":
        document.content.append(cv("MS:1000129", "negative scan"))
    if where == "group":
        document.groups["never referred to"] = [cv("MS:1000129", "negative scan")]
    assert acquisition_of(document, tmp_path).polarity.tolist() == [-1, -1]


def test_encodings_are_a_table_of_what_occurs(tmp_path):
    spectra = [(1, 1, [100.0, 200.0], [1.0, 2.0])]
    for (mz, counts), packing in itertools.product(
        [("f8", "f4"), ("f4", "i2"), ("i4", "f8")], ["none", "zlib"]
    ):
        path = write_imzml(
            tmp_path, spectra, name=f"{mz}{counts}{packing}", mz_dtype=mz, intensity_dtype=counts,
            compression=packing, representation="profile",
        )  # fmt: skip
        zipped = packing == "zlib"
        expected = Encoding(f"<{mz}", f"<{counts}", zipped, zipped, "profile")
        assert acquisition_of(path).encodings == (expected,)


def test_identity_holds_sizes_digests_and_identifier(tmp_path):
    path = write_imzml(tmp_path, [(1, 1, [1.0], [1.0])])
    identity = acquisition_of(path).identity
    sizes = {role: size for role, size, _ in identity.files}
    assert sizes == {"imzML": path.stat().st_size, "ibd": path.with_suffix(".ibd").stat().st_size}
    assert identity.uuid == "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    ["{E46923F0-bcd1-5ee8-8e81-061a44f3c632}", "e46923f0bcd15ee88e81061a44f3c632",
     " urn:uuid:e46923f0-bcd1-5ee8-8e81-061a44f3c632 "],
)  # fmt: skip
def test_identifiers_are_compared_without_dress(text):
    assert normal_uuid(text) == "e46923f0bcd15ee88e81061a44f3c632"


@pytest.mark.parametrize(
    ("terms", "size", "dtype"),
    [(FLOAT32, 4, "<f4"), (FLOAT32, 0, "<f4"), (FLOAT32, 8, "<f8"), (INT32, 8, "<i8"),
     (FLOAT32 | FLOAT64, 8, "<f8"), (FLOAT32 | FLOAT64, 4, "<f4"), (FLOAT32 | FLOAT64, 0, None),
     (0, 8, "<f8"), (0, 4, "<f4"), (0, 0, None), (0, 1, None), (INT32 | FLOAT32, 4, None),
     (INT32 | FLOAT64, 8, "<f8"), (INT64 | FLOAT32, 2, None)],
)  # fmt: skip
def test_lengths_decide_the_dtype_before_the_terms_do(terms, size, dtype):
    assert choose_dtype(terms, size) == dtype


@given(keys=st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_distinct_values_rebuild_the_keys(keys):
    values, code = distinct(np.array(keys))
    assert values.tolist() == sorted(set(keys))
    assert values[code].tolist() == keys


def test_a_declared_grid_that_fits_is_not_reported(tmp_path):
    for grid in [(9, 5), (7, 4)]:  # the largest position, and the number of positions covered
        found = acquisition_of(plain([(3, 2), (9, 5)], grid=grid), tmp_path)
        assert found.warnings == ()
        assert found.metadata["declared_grid"] == list(grid)


def test_positions_need_not_be_in_a_scan(tmp_path):
    document = plain([(2, 1), (1, 1)])
    for spectrum, place in zip(document.spectra, [(2, 1), (1, 1)], strict=True):
        spectrum.scan, spectrum.elements = [], spectrum.elements + position(*place)
    assert acquisition_of(document, tmp_path).order.tolist() == [1, 0]
