"""The tokenizer and its oracle, the conforming parser: same table or none."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuconvert.errors import SourceError
from gpuconvert.readers import imzml_list
from gpuconvert.readers.imzml_bytes import MISSING, find_byte, integer_at, seven_digits, word_at
from gpuconvert.readers.imzml_header import read_header
from gpuconvert.readers.imzml_list import read_list, scan_list
from gpuconvert.readers.imzml_scan import (
    CENTROID,
    FLAG_BOTH,
    FLAG_OTHER_ARRAY,
    FLAG_TWICE,
    FLOAT32,
    FLOAT64,
    IS_INTENSITY,
    IS_MZ,
    N_COLUMNS,
    NEGATIVE,
    POSITIVE,
    PROFILE,
    TERMS,
    UNCOMPRESSED,
    ZLIB,
)
from gpuconvert.readers.imzml_slow import parse_list
from gpuconvert.readers.imzml_terms import accession_code, group_table, is_plain, parse_integer
from tests.imzml_writer import Array, Document, Spectrum, cv, external, position, ref

THREE = [(1, 1, [100.0, 200.0], [1.0, 2.0]), (2, 1, [100.5], [3.0]), (5, 4, [], [])]
NO_GROUPS = group_table({})


def fast(path):
    """Return what the tokenizer alone makes of a file, or None where it declines."""
    header = read_header(path)
    if header.body_at < 0:
        return None
    with header.source.open(header.body_at) as stream:
        table, _, complete = scan_list(stream, group_table(header.groups))
    return table if complete else None


def slow(path):
    header = read_header(path)
    return parse_list(header.source, header.encoding, header.groups).columns


def scan_text(text):
    return scan_list(io.BytesIO(text.encode()), NO_GROUPS)


def bytes_of(text):
    return np.frombuffer(text + bytes(64), np.uint8)


def test_a_table_holds_what_the_file_says(tmp_path):
    table = fast(Document.of(THREE).write(tmp_path))
    # The .ibd begins with 16 bytes of UUID; m/z is float64, intensity float32, interleaved.
    expected = [
        [1, 2, 5], [1, 1, 4], [MISSING] * 3,
        [16, 40, 52], [2, 1, 0], [16, 8, 0],
        [32, 48, 52], [2, 1, 0], [8, 4, 0],
    ]  # fmt: skip
    np.testing.assert_array_equal(table[:TERMS], expected)
    mz, intensity = IS_MZ | FLOAT64 | UNCOMPRESSED, IS_INTENSITY | FLOAT32 | UNCOMPRESSED
    assert table[TERMS].tolist() == [mz | intensity << 16 | CENTROID << 32] * 3


# Any order of attributes, both quotes, blanks around "=", ">" inside a value, tabs and line ends:
# each broke a tokenizer that was written for one exporter.
ODD_SHAPES = [
    "<cvParam value='7' name=\"external > offset\" accession='IMS:1000102' cvRef='IMS'/>",
    '<cvParam\n\taccession = "IMS:1000102"\r\n  value\t=\t"7"  />',
    '<cvParam cvRef="IMS" accession="IMS:1000102" unitName="value" value="7"></cvParam>',
    '<cvParam values="9" accession="IMS:1000102" value="7" valued="8" xaccession="IMS:1000103"/>',
    '<cvParam note="a=\'5\' / b" accession="IMS:1000102" value="7"/>',
]


@pytest.mark.parametrize("element", ODD_SHAPES)
def test_attributes_may_be_written_in_any_way(tmp_path, element):
    document = Document.of(THREE[:1])
    document.spectra[0].arrays[0].elements[1] = element
    path = document.write(tmp_path)
    assert fast(path)[3, 0] == 7
    np.testing.assert_array_equal(fast(path), slow(path))


def test_names_that_only_begin_alike_are_other_elements(tmp_path):
    document = Document.of(THREE[:1])
    decoys = ["<cvParams accession='IMS:1000050' value='9'/>", "<binaryDataArrayList/>",
              "<spectrumX/>", "<scan/>", "<userParam name='position x' value='9'/>"]  # fmt: skip
    document.spectra[0].elements += decoys
    path = document.write(tmp_path)
    assert fast(path)[0, 0] == 1
    np.testing.assert_array_equal(fast(path), slow(path))


def test_terms_of_one_array_do_not_leak_into_the_next(tmp_path):
    inline = [cv("MS:1000514"), cv("MS:1000523"), cv("MS:1000574"), *external(16, 2, 9)]
    bare = [cv("MS:1000515"), cv("MS:1000521"), cv("IMS:1000102", value=25)]
    document = Document.of(THREE[:1])
    document.spectra = [Spectrum([], position(1, 1), [Array(inline), Array(bare)])]
    table = fast(document.write(tmp_path))
    assert table[TERMS, 0] == IS_MZ | FLOAT64 | ZLIB | (IS_INTENSITY | FLOAT32) << 16
    assert table[6:9, 0].tolist() == [25, MISSING, MISSING]


def test_numbers_and_terms_may_come_from_groups_and_groups_of_groups(tmp_path):
    document = Document.of(THREE[:1])
    document.groups["outer"] = [ref("mzArray"), cv("IMS:1000103", value=2), ref("outer")]
    document.spectra[0].arrays[0].elements = [ref("outer"), *external(16, None, 16)]
    path = document.write(tmp_path)
    assert fast(path)[3:6, 0].tolist() == [16, 2, 16]
    np.testing.assert_array_equal(fast(path), slow(path))


def test_many_groups_with_ids_that_differ_in_one_letter_are_told_apart(tmp_path):
    document = Document.of(THREE[:1])
    for index in range(300):
        sign = "MS:1000130" if index % 2 else "MS:1000129"
        document.groups[f"sample{index}SpectrumParameters"] = [cv(sign)]
    template = document.spectra[0]
    document.spectra = [
        Spectrum([ref(f"sample{i}SpectrumParameters")], position(i + 1, 1), template.arrays)
        for i in range(300)
    ]
    table = fast(document.write(tmp_path))
    assert (table[TERMS] >> 32 & 0xFFFF).tolist() == [NEGATIVE, POSITIVE] * 150


def test_flags_say_which_spectra_have_odd_arrays(tmp_path):
    document = Document.of([(x, 1, [1.0], [1.0]) for x in (1, 2, 3, 4)])
    one, two, three, _ = document.spectra
    one.arrays.append(Array([cv("MS:1003006", "mean inverse reduced ion mobility array")]))
    two.arrays.append(two.arrays[1])
    three.arrays[1].elements.append(ref("mzArray"))
    path = document.write(tmp_path)
    flags = fast(path)[TERMS] >> 48
    assert flags.tolist() == [FLAG_OTHER_ARRAY, FLAG_TWICE, FLAG_BOTH, 0]
    np.testing.assert_array_equal(fast(path), slow(path))


def test_profile_terms_that_are_named_after_a_polarity_are_polarities(tmp_path):
    document = Document.of([(x, 1, [1.0], [1.0]) for x in (1, 2, 3)], representation=None)
    names = ["positive scan", "Negative scan", "profile spectrum"]
    for spectrum, name in zip(document.spectra, names, strict=True):
        spectrum.elements.append(cv("MS:1000128", name))
    path = document.write(tmp_path)
    assert (fast(path)[TERMS] >> 32 & 0xFFFF).tolist() == [POSITIVE, NEGATIVE, PROFILE]
    np.testing.assert_array_equal(fast(path), slow(path))


DECLINED = {
    "comment": lambda d: d.spectra[0].elements.append("<!-- <spectrum> -->"),
    "instruction": lambda d: d.spectra[0].elements.append("<?note?>"),
    "cdata": lambda d: d.spectra[0].elements.append("<a><![CDATA[</spectrum>]]></a>"),
    "entity in a number": lambda d: d.spectra[0].scan.__setitem__(0, position("&#49;", 1)[0]),
    "entity in an accession": lambda d: d.spectra[0].elements.append(cv("MS:100013&#48;")),
    "entity in a name": lambda d: d.spectra[0].elements.append(cv("MS:1000128", "p&#111;sitive")),
    "entity in a reference": lambda d: d.spectra[0].elements.append(ref("spectr&#117;m")),
    "exponent": lambda d: d.spectra[0].scan.__setitem__(0, position("1e0", 1)[0]),
    "plus sign": lambda d: d.spectra[0].scan.__setitem__(0, position("+1", 1)[0]),
    "blanks": lambda d: d.spectra[0].scan.__setitem__(0, position(" 1 ", 1)[0]),
}  # fmt: skip


@pytest.mark.parametrize("change", DECLINED.values(), ids=DECLINED.keys())
def test_what_the_tokenizer_is_not_sure_of_goes_to_the_slow_path(tmp_path, change):
    document = Document.of(THREE, polarity=1)
    change(document)
    path = document.write(tmp_path)
    assert fast(path) is None
    table = read_list(read_header(path)).columns
    plain = fast(Document.of(THREE, polarity=1).write(tmp_path, "plain"))
    np.testing.assert_array_equal(table[:TERMS], plain[:TERMS])


def test_prefixed_tags_go_to_the_slow_path(tmp_path):
    document = Document.of(THREE)
    text = document.xml().replace("</", "</m:").replace("<", "<m:").replace("<m:/m:", "</m:")
    path = document.write(tmp_path)
    expected = fast(path)
    path.write_text(text.replace("<m:?xml", "<?xml").replace("xmlns=", "xmlns:m="))
    assert fast(path) is None
    np.testing.assert_array_equal(read_list(read_header(path)).columns, expected)


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
def test_wide_encodings_are_read_as_the_same_table(tmp_path, codec):
    document = Document.of(THREE)
    expected = fast(document.write(tmp_path, "plain"))
    document.prolog = f'<?xml version="1.0" encoding="{codec[:6].upper()}"?>\n'
    path = document.write(tmp_path, encoding=codec)
    np.testing.assert_array_equal(read_list(read_header(path)).columns, expected)


BROKEN = {
    "spectrum inside a spectrum": "<spectrum><spectrum></spectrum></spectrum></spectrumList>",
    "array outside a spectrum": "<binaryDataArray></binaryDataArray></spectrumList>",
    "end without beginning": "</spectrum></spectrumList>",
    "list ends inside a spectrum": "<spectrum></spectrumList>",
    "attribute without quotes": "<spectrum><cvParam accession=MS:1/></spectrum></spectrumList>",
    "attribute without value": "<spectrum selected></spectrum></spectrumList>",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN.keys())
def test_broken_nesting_is_not_judged_by_the_tokenizer(text):
    table, _, _ = scan_text(text)
    assert table is None


def test_a_closed_spectrum_and_a_closed_array_are_empty():
    table, rest, complete = scan_text(
        '<spectrum id="a"/><spectrum><binaryDataArray id="/>"/></spectrum></spectrumList>rest'
    )
    assert complete
    assert rest == b"rest"
    assert table.shape == (N_COLUMNS, 2)
    assert table[TERMS].tolist() == [0, FLAG_OTHER_ARRAY << 48]


def test_elements_after_the_list_are_not_spectra():
    text = "<spectrum></spectrum></spectrumList><chromatogramList><spectrum></spectrum>"
    table, rest, _ = scan_text(text)
    assert table.shape[1] == 1
    assert rest.startswith(b"<chromatogramList>")


@pytest.mark.parametrize("cut", [30, 700, 1400, 1900])
def test_a_list_that_is_cut_short_is_reported(cut):
    spectra = Document.of(THREE).xml().split('count="3">')[1]
    assert "</spectrumList>" not in spectra[:cut]
    table, _, complete = scan_text(spectra[:cut])
    assert not complete
    assert table.shape[1] == spectra[:cut].count("</spectrum>")


def test_the_size_of_a_block_does_not_show(tmp_path, monkeypatch):
    document = Document.of([(x, x % 7 + 1, [1.0] * (x % 5), [1.0] * (x % 5)) for x in range(1, 90)])
    path = document.write(tmp_path)
    expected = fast(path)
    for block in (64, 700, 1500, 4097):
        monkeypatch.setattr(imzml_list, "BLOCK", block)
        np.testing.assert_array_equal(fast(path), expected)


def test_a_table_grows_beyond_its_first_size():
    text = "<spectrum></spectrum>" * 70_000 + "</spectrumList>"
    table, _, complete = scan_text(text)
    assert complete
    assert table.shape == (N_COLUMNS, 70_000)
    assert (table[0] == MISSING).all()


def test_a_spectrum_without_end_is_given_up_at_a_limit(monkeypatch):
    monkeypatch.setattr(imzml_list, "BLOCK", 1000)
    monkeypatch.setattr(imzml_list, "LONGEST", 4000)
    table, _, _ = scan_text("<spectrum>" + " " * 20_000 + "</spectrum></spectrumList>")
    assert table is None


ACCESSIONS = st.sampled_from(
    ["IMS:1000050", "IMS:1000051", "IMS:1000052", "IMS:1000102", "IMS:1000103", "IMS:1000104",
     "MS:1000514", "MS:1000515", "MS:1000521", "MS:1000523", "MS:1000574", "MS:1000576",
     "MS:1000127", "MS:1000128", "MS:1000129", "MS:1000130", "MS:1002312", "MS:1000285",
     "IMS:1100001", "MS:100051", "UO:0000017", "ms:1000514", "MS:10005140", "IMS:10O0050", ""]
)  # fmt: skip
PLAIN = st.sampled_from(["1", "0", "-5", "007", "123456789012345678"])
# A long number, a fraction, an exponent, an entity, nothing: what exporters wrote.
ODD = st.sampled_from(["1234567890123456789", "2.5", "1e3", "NA", "&#49;", "", " 4", "x>y", "/"])
VALUES = st.integers(0, 9).flatmap(lambda dice: PLAIN if dice else ODD)
NAMES = st.sampled_from(["", "p", "positive scan", "profile spectrum", "NEGATIVE", "a/>b"])


@st.composite
def elements(draw):
    kind = draw(st.sampled_from(["cv", "cv", "cv", "ref", "user", "other"]))
    if kind == "ref":
        return ref(draw(st.sampled_from(["mzArray", "intensityArray", "spectrum", "nowhere"])))
    if kind != "cv":
        return (
            '<userParam name="n" value="v"/>'
            if kind == "user"
            else "<precursorList></precursorList>"
        )
    parts = [f'accession="{draw(ACCESSIONS)}"', f"value='{draw(VALUES)}'", f'name="{draw(NAMES)}"']
    chosen = draw(st.permutations(parts))[: draw(st.integers(0, 3))]
    return f"<cvParam {draw(st.sampled_from([' ', chr(10)])).join(chosen)}/>"


@st.composite
def documents(draw):
    document = Document.of(THREE)
    lists = st.lists(elements(), max_size=5)
    arrays = st.lists(lists, max_size=3)
    document.spectra = [
        Spectrum(draw(lists), draw(lists), [Array(found) for found in draw(arrays)])
        for _ in range(draw(st.integers(0, 3)))
    ]
    return document


@settings(max_examples=100, deadline=None)
@given(document=documents())
def test_the_tokenizer_agrees_with_the_parser_or_declines(tmp_path_factory, document):
    path = document.write(tmp_path_factory.mktemp("scan"))
    table = fast(path)
    if table is not None:
        np.testing.assert_array_equal(table, slow(path))


@given(data=st.binary(max_size=70), wanted=st.integers(0, 255), start=st.integers(0, 10))
def test_a_byte_is_found_where_bytes_find_it(data, wanted, start):
    b = bytes_of(data)
    place = data.find(bytes([wanted]), start)
    expected = place if place >= 0 else max(start, len(data))
    assert find_byte(b, start, max(start, len(data)), wanted) == expected


@given(data=st.binary(min_size=8, max_size=8), size=st.integers(1, 8))
def test_a_word_is_little_endian(data, size):
    assert int(word_at(bytes_of(data), 0, size)) == int.from_bytes(data[:size], "little")


SEVEN = st.text("0123456789/:a-", min_size=7, max_size=7)


@given(text=SEVEN | st.integers(0, 9999999).map("{:07d}".format))
def test_seven_digits_are_a_number_or_none(text):
    expected = int(text) if text.isdigit() else -1
    assert seven_digits(bytes_of(text.encode()), 0) == expected


@given(value=st.integers(-(10**18) + 1, 10**18 - 1))
def test_integers_are_read_back(value):
    text = str(value).encode()
    assert integer_at(bytes_of(text), 0, len(text)) == value


@pytest.mark.parametrize("text", ["", "-", "1.0", "1e3", " 1", "+1", "0x1", "1" * 19, "NA"])
def test_other_numbers_are_left_to_the_slow_path(text):
    assert integer_at(bytes_of(text.encode()), 0, len(text)) == MISSING


@pytest.mark.parametrize(
    ("text", "value"),
    [("16", 16), (" 16 ", 16), ("+16", 16), ("-3", -3), ("1.6e+01", 16), ("1.156e+09", 1156000000),
     ("2.0", 2), (".5e1", 5), (str(2**63 - 1), 2**63 - 1), (str(2**63), None), ("1e400", None),
     ("1e-400", None), ("2.5", None), ("NA", None), ("Inf", None), ("nan", None), ("", None),
     ("1_0", None), ("0x10", None), ("9" * 5000, None), ("1e999999999", None), ("١", None)],
)  # fmt: skip
def test_integers_count_only_where_they_are_exact(text, value):
    assert parse_integer(text) == value


@pytest.mark.parametrize("text", ["1", "-12", "0"])
def test_digits_alone_are_plain(text):
    assert is_plain(text)


@pytest.mark.parametrize("text", ["1.0", "1e3", "", "+1"])
def test_points_and_exponents_are_not_plain(text):
    assert not is_plain(text)


def test_accessions_of_the_two_vocabularies_differ():
    codes = [accession_code(text) for text in ("MS:1000141", "IMS:1000141", "UO:1000141", "MS:1")]
    assert codes[0] == 1000141
    assert len(set(codes[:2])) == 2
    assert codes[2:] == [0, 0]


@pytest.mark.parametrize(
    "tail", ["</spectrumList></run>", "</spectrumList></mzML>", "</spectrumList></run></mzML><x>"]
)
def test_xml_that_is_damaged_after_the_list_is_refused(tmp_path, tail):
    document = Document.of(THREE)
    document.tail = tail
    with pytest.raises(SourceError, match="not well-formed XML after its spectrum list"):
        read_list(read_header(document.write(tmp_path)))


def test_an_index_may_follow_the_list(tmp_path):
    document = Document.of(THREE)
    document.root = "<indexedmzML><mzML>"
    index = "<indexList>" + "<offset idRef='s'>1</offset>" * 9000 + "</indexList>"
    document.tail = f"</spectrumList><chromatogramList/></run></mzML>{index}</indexedmzML>"
    assert read_list(read_header(document.write(tmp_path))).columns.shape[1] == 3
