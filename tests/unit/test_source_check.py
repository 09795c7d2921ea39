import hashlib
import zipfile

import pytest

import gpuconvert
from gpuconvert.errors import SourceError, SourceReadError
from gpuconvert.readers import open_reader
from gpuconvert.settings import Settings
from gpuconvert.source_check import SourceCheck
from tests.bruker_writer import Frame, write_tsf
from tests.imzml_writer import Document, cv

SPECTRA = [(1, 1, [100.0, 200.0], [1.0, 2.0]), (2, 1, [150.0], [4.0])]
TERMS = {"md5": "IMS:1000090", "sha1": "IMS:1000091", "sha256": "IMS:1000092"}
NAMES = {"md5": "MD5", "sha1": "SHA-1", "sha256": "SHA-256"}


def _write(folder, algorithm=None, digest=None, **options):
    document = Document.of(SPECTRA, **options)
    if algorithm:
        found = digest or hashlib.new(algorithm, document.ibd).hexdigest()
        document.content.append(cv(TERMS[algorithm], "checksum", found.upper()))
    return document.write(folder)


def _check(path):
    reader = open_reader(path, Settings())
    try:
        with SourceCheck(reader) as check:
            return check.result()
    finally:
        reader.close()


@pytest.mark.parametrize("algorithm", list(TERMS))
def test_every_declared_checksum_is_compared(tmp_path, algorithm):
    path = _write(tmp_path, algorithm)
    digest = hashlib.new(algorithm, path.with_suffix(".ibd").read_bytes()).hexdigest()
    assert _check(path) == f"{NAMES[algorithm]} of test.ibd is {digest}, as declared"


@pytest.mark.parametrize("algorithm", list(TERMS))
def test_another_checksum_is_refused(tmp_path, algorithm):
    wrong = hashlib.new(algorithm, b"other").hexdigest()
    words = f"test.ibd has {NAMES[algorithm]} .*, but the source declares {wrong}; is it damaged"
    with pytest.raises(SourceError, match=words):
        _check(_write(tmp_path, algorithm, wrong))


def test_without_a_declaration_that_is_said(tmp_path):
    assert _check(_write(tmp_path)) == "the source declares no checksum"


def test_another_identifier_is_refused_at_once(tmp_path):
    path = _write(tmp_path, "md5")
    ibd = path.with_suffix(".ibd")
    ibd.write_bytes(bytes(16) + ibd.read_bytes()[16:])
    with pytest.raises(SourceError, match="the UUID is 0123456789abcdef.* here but 0000.*in .*ibd"):
        _check(path)


def test_a_file_that_cannot_be_read_may_be_tried_again(tmp_path):
    path = _write(tmp_path, "md5")
    reader = open_reader(path, Settings())
    path.with_suffix(".ibd").unlink()
    words = "test.ibd cannot be read: No such file.*run the"
    with pytest.raises(SourceReadError, match=words), SourceCheck(reader) as check:
        check.result()
    reader.close()


@pytest.mark.parametrize("unpacked", [False, True])
def test_every_member_of_an_mzpeak_is_compared(tmp_path, unpacked):
    source = tmp_path / "test.mzpeak"
    gpuconvert.export(_write(tmp_path), source)
    with zipfile.ZipFile(source) as archive:
        place = archive.getinfo("spectra_peaks.parquet").header_offset
        members = [name for name in archive.namelist() if name != "mzpeak_index.json"]
        if unpacked:
            source = tmp_path / "folder.mzpeak"
            archive.extractall(source)
    assert _check(source) == f"SHA-512 of {', '.join(members)} are as declared"
    damaged = source / "spectra_peaks.parquet" if unpacked else source
    content = bytearray(damaged.read_bytes())
    # A bit of a page, which the footer of the table does not cover.
    content[59 if unpacked else place + 110] ^= 1
    damaged.write_bytes(content)
    words = "spectra_peaks.parquet.* has SHA-512 .*, but the source declares .*; is it damaged"
    with pytest.raises(SourceError, match=words):
        _check(source)


def test_an_older_mzpeak_and_a_bruker_folder_declare_none(tmp_path):
    archive = tmp_path / "test.mzpeak"
    gpuconvert.export(_write(tmp_path), archive, dialect="packed")
    assert _check(archive) == "the source declares no checksum"
    folder = write_tsf(tmp_path, [Frame(1, 1, line=([5.5], [3]))], n_samples=100)
    assert _check(folder) == "the source declares no checksum"
