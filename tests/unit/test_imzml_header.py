"""What stands before the spectra of an imzML, and how its XML is read."""

import gzip
import json

import pytest

from gpuconvert.errors import SourceError, SourceMissingError
from gpuconvert.readers.imzml_facts import pixel_size
from gpuconvert.readers.imzml_header import read_header
from gpuconvert.readers.imzml_list import read_list
from gpuconvert.readers.imzml_scan import CENTROID, NEGATIVE, POSITIVE, PROFILE
from gpuconvert.readers.source_files import reading
from tests.imzml_writer import Document, cv, ref, write_imzml

ONE = [(1, 1, [100.0], [1.0])]


def header_of(tmp_path, change=lambda document: None, **options):
    document = Document.of(ONE, **options)
    change(document)
    return read_header(document.write(tmp_path))


def test_identifier_mode_count_and_checksum_are_read(tmp_path):
    header = header_of(
        tmp_path, lambda d: d.content.append(cv("IMS:1000091", "ibd SHA-1", " ABCDEF01 "))
    )
    assert header.uuid == "{0123456789abcdef0123456789abcdef}"
    assert (header.mode, header.count, header.checksum) == ("processed", 1, ("SHA-1", "abcdef01"))


@pytest.mark.parametrize(
    ("terms", "mode"),
    [(["IMS:1000030"], "continuous"), (["IMS:1000031"], "processed"), ([], "none"),
     (["IMS:1000030", "IMS:1000031"], "both"), (["IMS:1000032"], "none")],
)  # fmt: skip
def test_the_mode_is_known_by_accession(tmp_path, terms, mode):
    header = header_of(
        tmp_path, lambda d: d.content.extend(cv(term, "processed") for term in terms), mode=None
    )
    assert header.mode == mode


@pytest.mark.parametrize("accession", ["IMS:1000090", "IMS:1000091", "IMS:1000092"])
def test_every_kind_of_checksum_is_named(tmp_path, accession):
    header = header_of(tmp_path, lambda d: d.content.append(cv(accession, "", "FF")))
    names = {"IMS:1000090": "MD5", "IMS:1000091": "SHA-1", "IMS:1000092": "SHA-256"}
    assert header.checksum == (names[accession], "ff")


def test_groups_carry_their_terms_and_those_of_groups_inside(tmp_path):
    def change(document):
        document.groups["a"] = [ref("b"), cv("MS:1000130", "positive scan")]
        document.groups["b"] = [ref("a"), cv("MS:1000128", "profile spectrum"), ref("missing")]

    header = header_of(tmp_path, change, representation=None)
    assert header.groups["a"][0] == header.groups["b"][0] == PROFILE | POSITIVE


def test_groups_that_multiply_each_other_cost_nothing(tmp_path):
    # Forty doublings: 10^12 terms if each reference were followed anew.
    def change(document):
        for index in range(40):
            document.groups[f"g{index}"] = [ref(f"g{index + 1}")] * 2
        document.groups["g40"] = [cv("MS:1000129", "negative scan")]

    header = header_of(tmp_path, change)
    assert header.groups["g0"][0] == NEGATIVE


def test_file_content_and_groups_are_kept_apart(tmp_path):
    header = header_of(
        tmp_path, lambda d: d.content.append(cv("MS:1000128", "profile spectrum")), polarity=-1
    )
    assert header.file_bits == PROFILE
    assert header.group_bits & (CENTROID | NEGATIVE) == CENTROID | NEGATIVE


INSTRUMENT = [
    cv("MS:1000529", "instrument serial number", "7"), cv("MS:1000557", "LTQ FT Ultra"),
    "<componentList><source>", cv("MS:1000073", "electrospray ionization"), "</source><analyzer>",
    cv("MS:1000081", "quadrupole"), "</analyzer><analyzer>", cv("MS:1000484", "orbitrap"),
    cv("MS:1000800", "mass resolving power", "60000"),
    "</analyzer><detector/></componentList>",
]  # fmt: skip


def test_the_instrument_is_named_with_all_its_analysers(tmp_path):
    instrument = header_of(tmp_path, instrument_terms=INSTRUMENT).instrument
    assert (instrument.name, instrument.analyser) == ("LTQ FT Ultra", "quadrupole, orbitrap")
    assert "MS:1000800 mass resolving power 60000" in instrument.terms
    assert "MS:1000073 electrospray ionization" in instrument.terms


def test_terms_of_a_group_belong_to_the_instrument(tmp_path):
    header = header_of(
        tmp_path,
        lambda d: d.groups.update(common=[cv("MS:1002416", "Orbitrap Fusion")]),
        instrument_terms=[ref("common"), cv("MS:1000031", "instrument model")],
    )
    assert header.instrument.name == "Orbitrap Fusion"


def test_the_default_instrument_is_taken(tmp_path):
    def change(document):
        document.instrument = [
            cv("MS:1000557", "the default"),
            '</instrumentConfiguration><instrumentConfiguration id="x">',
            cv("MS:1000448", "another"),
        ]

    assert header_of(tmp_path, change).instrument.name == "the default"


@pytest.mark.parametrize("name", [None, "bruker maXis"])
def test_the_bare_class_instrument_model_names_no_instrument(tmp_path, name):
    terms = [("MS:1000031", "instrument model", name)]
    assert header_of(tmp_path, instrument_terms=terms).instrument.name == (name or "")


def test_scan_windows_give_the_declared_mz_range(tmp_path):
    def change(document):
        for index, (low, high) in enumerate([("50.5", "900"), ("60", "1200"), ("9", "NaN")]):
            document.groups[f"window{index}"] = [
                cv("MS:1000501", "lower", low), cv("MS:1000500", "upper", high)
            ]  # fmt: skip

    assert header_of(tmp_path, change).mz_range == (50.5, 1200.0)
    assert header_of(tmp_path).mz_range is None


def test_metadata_is_plain_json_and_short(tmp_path):
    def change(document):
        document.before_list = (
            '<softwareList><software id="tool" version="1.2"/></softwareList>'
            '<fileDescription><sourceFile name="C:\\raw\\a.d" location="file:///C:/raw"/>'
            "</fileDescription>"
        )
        document.scan_settings[0].append(cv("IMS:1000413", "meanndering"))
        document.content.append(cv("MS:1000630", "data processing parameter", "x" * 5000))

    metadata = header_of(tmp_path, change).metadata
    assert json.loads(json.dumps(metadata)) == metadata
    assert metadata["software"] == [{"id": "tool", "version": "1.2"}]
    assert metadata["source_files"] == [{"name": "C:\\raw\\a.d", "location": "file:///C:/raw"}]
    assert {"accession": "IMS:1000413", "name": "meanndering"} in metadata["scan_settings"][0][
        "terms"
    ]
    assert len(json.dumps(metadata)) < 3000


def size_of(tmp_path, *terms):
    header = header_of(tmp_path, lambda d: d.scan_settings.__setitem__(0, list(terms)))
    return pixel_size(tmp_path / "test.imzML", header.scan_settings[0])


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [("20", "UO:0000017", 20.0), ("4406.25", "UO:0000018", 4.40625), ("0.05", "UO:0000016", 50.0),
     ("1e-5", "UO:0000008", 10.0), ("5.0e+00", "UO:0000017", 5.0)],
)  # fmt: skip
def test_pixel_sizes_are_converted_to_micrometres(tmp_path, value, unit, expected):
    (x, y), warnings = size_of(
        tmp_path, cv("IMS:1000046", "pixel area", value, unit=unit),
        cv("IMS:1000047", "pixel size y", value, unit=unit),
    )  # fmt: skip
    assert x == y == pytest.approx(expected, rel=1e-15)
    assert warnings == []


def test_a_unit_may_be_given_by_name_alone(tmp_path):
    size, warnings = size_of(
        tmp_path,
        '<cvParam accession="IMS:1000046" value="7" unitName="micrometre"/>',
        '<cvParam accession="IMS:1000047" value="9" unitName="micrometer"/>',
    )
    assert (size, warnings) == ((7.0, 9.0), [])


def test_a_missing_unit_is_taken_as_micrometre_with_a_warning(tmp_path):
    size, warnings = size_of(tmp_path, cv("IMS:1000046", "", 7), cv("IMS:1000047", "", 9))
    assert size == (7.0, 9.0)
    assert warnings == [
        "pixel size 7 x 9 has no unit; taken as micrometres (give --pixel-size if it is not)"
    ]


def test_an_unknown_unit_is_named(tmp_path):
    size, (warning,) = size_of(tmp_path, cv("IMS:1000046", "", 7, unit="UO:0000017"),
                               cv("IMS:1000047", "", 9, unit="UO:0000999"))  # fmt: skip
    assert size == (7.0, 9.0)
    assert "has the unknown unit 'UO:0000999'" in warning


def test_one_pixel_size_means_square_pixels(tmp_path):
    size, warnings = size_of(tmp_path, cv("IMS:1000046", "", 7, unit="UO:0000017"))
    assert size == (7.0, 7.0)
    assert warnings == ["one pixel size is given; pixels are taken as 7 um square"]


@pytest.mark.parametrize("value", ["Inf", "nan", "0", "-3", "ten"])
def test_a_pixel_size_that_is_no_size_is_refused(tmp_path, value):
    with pytest.raises(SourceError, match=rf"IMS:1000046 \(size\).*'{value}'.*give --pixel-size"):
        size_of(tmp_path, cv("IMS:1000046", "size", value, unit="UO:0000017"))


def test_a_pixel_size_without_value_is_none(tmp_path):
    assert size_of(tmp_path, cv("IMS:1000046", "size", "")) == (None, [])


def refused(tmp_path, data, match, name="x.imzML"):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(SourceError, match=match):
        read_header(path)


def test_what_is_no_imzml_is_refused(tmp_path):
    refused(tmp_path, b"", "x.imzML is empty, expected an imzML file")
    refused(tmp_path, b"\x89PNG\r\n\x1a\n" + bytes(99), "begins with .*PNG.*expected XML")
    refused(tmp_path, b"<html><body/></html>", "root element <html>, expected <mzML>")
    refused(tmp_path, b"<mzML><run/></mzML>", "has no <spectrumList>")
    refused(tmp_path, b"<mzML><run>", "not well-formed XML .*no element found.*complete")
    refused(tmp_path, b"<mzML><run></mzML>", "line 1, column 14 .*mismatched tag")
    refused(
        tmp_path,
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "git-lfs pointer.*git lfs pull",
    )


def test_folders_and_missing_files_are_refused(tmp_path):
    with pytest.raises(SourceError, match="is a folder, expected an imzML file"):
        read_header(tmp_path)
    with pytest.raises(SourceMissingError, match=r"none.imzML does not exist"):
        read_header(tmp_path / "none.imzML")


LAUGHS = '<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'


def test_document_types_are_refused_in_the_header(tmp_path):
    with pytest.raises(SourceError, match=r"document type declaration at line 2.*remove it"):
        header_of(tmp_path, lambda d: setattr(d, "prolog", d.prolog + LAUGHS))


def test_document_types_are_refused_in_the_list(tmp_path):
    document = Document.of(ONE)
    document.spectra[0].elements.append(LAUGHS)
    header = read_header(document.write(tmp_path))
    with pytest.raises(SourceError, match=r"not well-formed XML at line \d+, column \d+"):
        read_list(header)


def test_entities_that_are_not_declared_are_refused(tmp_path):
    document = Document.of(ONE)
    document.spectra[0].scan[0] = cv("IMS:1000050", "position x", "&a;")
    with pytest.raises(SourceError, match="undefined entity"):
        read_list(read_header(document.write(tmp_path)))


def test_endless_headers_and_endless_nesting_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("gpuconvert.readers.imzml_header.LONGEST_HEADER", 100_000)
    long = b"<mzML>" + b"<userParam name='x'/>" * 20_000
    refused(tmp_path, long, "no <spectrumList> in its first 100000 bytes")
    refused(tmp_path, b"<mzML>" + b"<a>" * 5000, "nests more than 100 elements")


def test_zipped_files_are_read(tmp_path):
    path = write_imzml(tmp_path, ONE)
    zipped = tmp_path / "test.imzML.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    header = read_header(zipped)
    assert header.count == 1
    assert read_list(header).columns.tolist() == read_list(read_header(path)).columns.tolist()


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_damaged_zipped_files_are_refused(tmp_path, damage):
    packed = bytearray(gzip.compress(Document.of(ONE).xml().encode() * 3))
    packed[-8] ^= 1
    zipped = tmp_path / "test.imzML.gz"
    zipped.write_bytes(packed[:-30] if damage == "cut" else packed)
    with pytest.raises(SourceError, match=r"imzML.gz cannot be decompressed .*copy it again"):
        read_list(read_header(zipped))


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with (
        pytest.raises(
            SourceError, match=r"x.imzML cannot be read: .*denied; check its permissions"
        ),
        reading(tmp_path / "x.imzML"),
    ):
        raise PermissionError(13, "Permission denied")
