"""Broken and hostile input: what is given, the exit code, and the words of the answer."""

import gzip
import io
import json
import os
import resource
import sqlite3
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numcodecs import zstd

from gpuconvert import conversion, exporting
from gpuconvert.settings import Settings
from tests.bruker_writer import Frame, write_tsf
from tests.e2e.data import centroid_spectra, pixels, write_centroid
from tests.e2e.test_command_line import ENVIRONMENT, call
from tests.imzml_writer import Array, Document, cv, external, ref

LAUGHS = [f'<!ENTITY l{n} "{f"&l{n - 1};" * 2 if n else "ha"}">' for n in range(30)]


def _document(**options):
    return Document.of(centroid_spectra(pixels()), **options)


def _prolog(text):
    document = _document()
    document.prolog += text
    return document


def _with_numbers(offset=None, length=None, stored=None, **options):
    document = _document(**options)
    array = document.spectra[4].arrays[1]
    said = external(offset, length, stored)
    kept = [
        old
        for old in array.elements
        if not any(f'"{name}"' in old for name, value in zip(
            ("IMS:1000102", "IMS:1000103", "IMS:1000104"), (offset, length, stored)
        ) if value is not None)
    ]  # fmt: skip
    array.elements = [*kept, *said]
    return document


def _bomb():
    """One array of 40 points whose zlib stream inflates to 64 MiB."""
    document = _document(compression="zlib")
    packed = zlib.compress(bytes(64 << 20))
    offset = len(document.ibd)
    document.ibd += packed
    document.spectra[4].arrays[0] = Array([ref("mzArray"), *external(offset, 40, len(packed))])
    return document


def _far():
    document = _document()
    document.spectra[4].scan = [
        cv("IMS:1000050", "position x", 10**6), cv("IMS:1000051", "position y", 10**6),
    ]  # fmt: skip
    return document


def _position(x):
    document = _document()
    document.spectra[4].scan[0] = cv("IMS:1000050", "position x", x)
    return document


def _nested(depth):
    document = _document()
    document.before_list = "<a>" * depth + "</a>" * depth
    return document


def _longest_tag():
    document = _document()
    # A comment makes the tokenizer leave the list to the XML parser.
    document.between = f'<!-- - --><userParam name="{"A" * (17 << 20)}"/>'
    document.spectra = document.spectra[:1]
    return document


def _looping_groups():
    document = _document()
    document.groups["mzArray"].append(ref("intensityArray"))
    document.groups["intensityArray"].append(ref("mzArray"))
    return document


def _truncated(part):
    document = _document()
    document.ibd = document.ibd[: int(len(document.ibd) * part)]
    return document


def _cut(part):
    document = _document()
    text = document.xml()
    document.xml = lambda: text[: int(len(text) * part)]
    return document


HOSTILE = [
    ("billion laughs", lambda: _prolog(f"<!DOCTYPE mzML [{''.join(LAUGHS)}]>\n"), 3,
     "document type declaration at line 2, which imzML never needs"),
    ("external entity", lambda: _prolog('<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/passwd">]>'),
     3, "document type declaration"),
    ("external document type", lambda: _prolog('<!DOCTYPE m SYSTEM "http://127.0.0.1:1/x.dtd">'),
     3, "document type declaration"),
    ("10^9 points in a small file", lambda: _with_numbers(length=10**9, stored=4 * 10**9), 3,
     "spectrum 4 (x=1, y=2): external array length of intensity is 1000000000 points, more than"),
    ("10^18 points", lambda: _with_numbers(length=10**18, stored=4), 3,
     "is 1000000000000000000 points, more than"),
    ("offset near 2^63", lambda: _with_numbers(offset=2**63 - 8), 3, "intensity array at external "
     "offset 9223372036854775800 + 160 bytes passes the end of"),
    ("offset beyond 2^63", lambda: _with_numbers(offset=2**63 + 8), 3,
     "is '9223372036854775816', expected a whole number below 2^63"),
    ("negative offset", lambda: _with_numbers(offset=-16), 3,
     "external offset of intensity is -16, expected at least 0"),
    ("negative length", lambda: _with_numbers(length=-40), 3,
     "external array length of intensity is -40, expected at least 0"),
    ("negative stored length", lambda: _with_numbers(stored=-160), 3,
     "external encoded length of intensity is -160, expected at least 0"),
    ("length that is no number", lambda: _with_numbers(length="1e9.5"), 3,
     "is '1e9.5', expected a whole number"),
    ("zlib bomb", _bomb, 3, "a compressed array gives more than 320 bytes, expected 320"),
    ("more points than zlib can hold",
     lambda: _with_numbers(length=10**6, stored=40, compression="zlib"), 3,
     "1000000 points of intensity cannot come from 40 compressed bytes"),
    ("pixel a million away", _far, 2, "span a grid of 1000000 x 1000000 pixels, whose image takes"),
    ("position near 2^63", lambda: _position(2**63 - 1), 3, "expected fewer than 2^31 pixels"),
    ("negative positions", lambda: _position(-(2**62)), 3, "expected fewer than 2^31 pixels"),
    ("deep nesting", lambda: _nested(100_000), 3, "nests more than 100 elements"),
    ("a tag of 17 MB", _longest_tag, 3, "a tag or a text of more than 16777216 bytes"),
    ("groups in a circle", _looping_groups, 3, "claims to be both m/z and intensity"),
    ("binary cut in half", lambda: _truncated(0.5), 3, "passes the end of"),
    ("binary of its identifier alone", lambda: _truncated(0.01), 3, "more than the"),
    ("XML cut in the list", lambda: _cut(0.8), 3, "the file is truncated; copy or export it again"),
    ("XML cut in the header", lambda: _cut(0.1), 3, "(unclosed token); is it complete?"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "code", "words"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE]
)
def test_hostile_input_is_refused_in_a_line(tmp_path, capsys, make, code, words):
    source = make().write(tmp_path)
    found, out, err = call(capsys, "run", source, tmp_path / "o.zarr", "--memory", "1GiB")
    assert found == code, err
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not list(tmp_path.glob("o.zarr*"))


LIMITED = """
import resource, sys
from gpuconvert import cli, conversion
conversion.run
resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv.pop()), resource.RLIM_INFINITY))
cli.main()
"""


FRAMES = [Frame(1 + k, 1, line=([9.5, 20.5 + k], [3, 4 + k])) for k in range(6)]


def _bruker(folder, damage):
    source = write_tsf(folder, FRAMES, n_samples=500)
    with sqlite3.connect(source / "analysis.tsf") as connection:
        damage(source, connection)
    connection.close()
    return source


def _says(statement):
    return lambda _, connection: connection.execute(statement)


def _inflating(source, connection):
    """Let the first frame inflate to 128 MiB, as its table says too."""
    n_peaks = (128 << 20) // 12
    packed = zstd.compress(bytes(12 * n_peaks), 1)
    binary = source / "analysis.tsf_bin"
    place = binary.stat().st_size
    with binary.open("ab") as stream:
        stream.write(struct.pack("<II", 8 + len(packed), len(packed)) + packed)
    connection.execute("UPDATE Frames SET TimsId = ?, NumPeaks = ? WHERE Id = 1", (place, n_peaks))


FOLDERS = [
    ("no database", lambda source, _: (source / "analysis.tsf").write_bytes(os.urandom(5000)), 3,
     "cannot be read as an SQLite database"),
    ("half a database", lambda source, _: _halve(source / "analysis.tsf"), 3,
     "cannot be read as an SQLite database"),
    ("half a binary", lambda source, _: _halve(source / "analysis.tsf_bin"), 3, "is it truncated?"),
    ("no frames", _says("DROP TABLE Frames"), 3, "has no column Id in a table Frames"),
    ("no peak counts", _says("UPDATE Frames SET NumPeaks = NULL"), 3, "states no NumPeaks"),
    ("2 billion peaks", _says("UPDATE Frames SET NumPeaks = 2000000000 WHERE Id = 2"), 3,
     "frame 2 states 2000000000 NumPeaks, more than the 500 samples of the digitizer"),
    ("frames inside each other", _says("UPDATE Frames SET TimsId = TimsId + 3 WHERE Id = 4"), 3,
     "frame 4 is damaged"),
    ("pixel far away", _says("UPDATE MaldiFrameInfo SET XIndexPos = 2000000000 WHERE Frame = 2"),
     2, "span a grid of 2000000000 x 1 pixels"),
    ("a bomb", _inflating, 3, "frame 1 states 11184810 NumPeaks, more than the 500 samples"),
]  # fmt: skip


def _halve(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize(
    ("damage", "code", "words"), [row[1:] for row in FOLDERS], ids=[row[0] for row in FOLDERS]
)
def test_a_hostile_folder_is_refused_in_a_line(tmp_path, capsys, damage, code, words):
    source = _bruker(tmp_path, damage)
    options = ("--memory", "400MiB", "--spectrum", "line")
    found, out, err = call(capsys, "run", source, tmp_path / "o.zarr", *options)
    assert (found, out) == (code, ""), err
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("o.zarr"))


def _repacked(folder, change, how=zipfile.ZIP_STORED):
    """Write an archive whose members `change` has had in its hands."""
    source = folder / "whole.mzpeak"
    exporting.run(write_centroid(folder), source, Settings())
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    change(members)
    hostile = folder / "test.mzpeak"
    with zipfile.ZipFile(hostile, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return hostile


def _without(member, column):
    def change(members):
        opened = pq.ParquetFile(io.BytesIO(members[member]))
        table = opened.read()
        if column in table.column_names:
            table = table.drop_columns([column])
        else:
            (root,) = table.column_names
            rows = table.column(root).combine_chunks()
            kept = [field.name for field in rows.type if field.name != column]
            parts = [rows.field(name) for name in kept]
            table = pa.table({root: pa.StructArray.from_arrays(parts, kept)})
        table = table.replace_schema_metadata(opened.metadata.metadata)
        stream = io.BytesIO()
        pq.write_table(table, stream)
        members[member] = stream.getvalue()

    return change


def _cut_member(member):
    return lambda members: members.update({member: members[member][:-200]})


def _index(**changes):
    def change(members):
        index = json.loads(members["mzpeak_index.json"]) | changes
        members["mzpeak_index.json"] = json.dumps(index).encode()

    return change


PEAKS, META = "spectra_peaks.parquet", "spectra_metadata.parquet"
SCANS = "spectra_metadata_scans.parquet"
ARCHIVES = [
    ("no m/z", _without(PEAKS, "mz"), "has no column for the m/z"),
    ("no intensities", _without(PEAKS, "intensity"), "has no column for the intensities"),
    ("no spectrum of points", _without(PEAKS, "spectrum_index"), "expected that of the spectrum"),
    ("no index of spectra", _without(META, "index"), "has no column index"),
    ("no join", _without(SCANS, "source_index"), "has no column source_index"),
    ("no positions", _without(SCANS, "position_x"), "is no imaging data"),
    ("half a table", _cut_member(PEAKS), "spectra_peaks.parquet cannot be read"),
    ("half the metadata", _cut_member(META), "spectra_metadata.parquet cannot be read"),
    ("a list of nothing", _index(files=[]), "has no metadata of spectra"),
    ("no list", _index(files=None), "lists no files"),
    ("another folder", _index(files=[{"name": "../../etc/passwd", "entity_type": "spectrum",
                                      "data_kind": "metadata"}]), "which is not there"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"), [row[1:] for row in ARCHIVES], ids=[row[0] for row in ARCHIVES]
)
def test_a_hostile_archive_is_refused_in_a_line(tmp_path, capsys, change, words):
    source = _repacked(tmp_path, change)
    found, out, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert (found, out) == (3, ""), err
    assert words in err
    assert err.count("\n") == 1
    assert not list(tmp_path.glob("o.zarr*"))


def test_members_that_are_compressed_are_refused_unread(tmp_path, capsys):
    source = _repacked(
        tmp_path, lambda members: members.update({PEAKS: bytes(200 << 20)}), zipfile.ZIP_DEFLATED
    )
    assert source.stat().st_size < 1 << 20
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "member spectra_data.parquet is compressed, but members of an mzPeak are stored" in err


@pytest.mark.parametrize("make", [_bomb, _far, lambda: _with_numbers(length=10**9, stored=4)])
def test_what_is_refused_takes_no_memory(tmp_path, make):
    source = make().write(tmp_path)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert used > 0
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "run", source, tmp_path / "o.zarr", "--memory", "700MiB",
         "--workers", "1", str(700 << 20)],
        capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60,
    )  # fmt: skip
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_plane_far_away_takes_no_memory_for_those_between(tmp_path, capsys):
    document = _document()
    for number, spectrum in enumerate(document.spectra):
        z = 10**9 if number == 4 else 1
        spectrum.scan.append(cv("IMS:1000052", "position z", z))
    source = document.write(tmp_path)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr", "--memory", "1GiB")
    assert code == 0, err
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 2**20
    assert (tmp_path / "o.zarr/tables/msi_z0/X").is_dir()
    assert len(list((tmp_path / "o.zarr/tables").glob("msi_z*"))) == 2
    assert call(capsys, "verify", tmp_path / "o.zarr", source)[0] == 0


def _gz(tmp_path, body):
    source = tmp_path / "test.imzML.gz"
    with gzip.open(source, "wb", compresslevel=1) as stream:
        for piece in body:
            stream.write(piece)
    return source


def test_a_gzip_bomb_before_the_list_is_left_early(tmp_path, capsys):
    head = _document().header().encode()
    at = head.index(b"<run")
    source = _gz(tmp_path, [head[:at], *(b" " * (1 << 20) for _ in range(200)), head[at:]])
    assert source.stat().st_size < 2 << 20
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "has no <spectrumList> in its first 67108864 bytes" in err


def test_a_gzip_bomb_in_the_list_is_left_early(tmp_path, capsys):
    document = _document()
    head = document.header().encode()
    (tmp_path / "test.ibd").write_bytes(document.ibd)
    source = _gz(tmp_path, [head, b'<userParam name="', *(b"A" * (1 << 20) for _ in range(200))])
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "a tag or a text of more than 16777216 bytes" in err


def test_a_header_that_names_another_binary_file_is_not_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "other.ibd").write_bytes(b"private")
    document = _document()
    document.content += [
        cv("IMS:1000070", "external binary uri", f"file://{secret}/other.ibd"),
        cv("IMS:1000070", "external binary uri", "../secret/other.ibd"),
    ]
    document.before_list = (
        '<sourceFileList count="1"><sourceFile id="s" name="other.ibd" '
        f'location="file://{secret}"/></sourceFileList>'
    )
    source = document.write(tmp_path, "named")
    code = (
        "import sys\n"
        "from gpuconvert import cli\n"
        "def look(event, found):\n"
        "    if event in ('open', 'os.listdir', 'os.scandir') and '/secret/' in f'{found[0]}/':\n"
        "        sys.stderr.write(f'{event} {found}\\n')\n"
        "sys.addaudithook(look)\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", source, tmp_path / "o.zarr"],
        capture_output=True, text=True, check=False, env=ENVIRONMENT,
    )  # fmt: skip
    assert done.returncode == 0
    assert f"{secret}" not in done.stderr


def test_links_are_read_and_never_replaced(tmp_path, capsys):
    real = tmp_path / "real"
    real.mkdir()
    source = write_centroid(real)
    linked = tmp_path / "linked.imzML"
    linked.symlink_to(source)
    (tmp_path / "linked.ibd").symlink_to(source.with_suffix(".ibd"))
    assert call(capsys, "run", linked, tmp_path / "o.zarr")[0] == 0
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").write_text("kept")
    (tmp_path / "p.zarr").symlink_to(elsewhere)
    code, _, err = call(capsys, "run", linked, tmp_path / "p.zarr", "--overwrite")
    assert code == 1
    assert "is not a Zarr store and is not replaced" in err
    (tmp_path / "q.zarr").symlink_to(tmp_path / "o.zarr")
    assert call(capsys, "run", linked, tmp_path / "q.zarr", "--overwrite")[0] == 0
    assert (tmp_path / "o.zarr/zarr.json").is_file()
    assert not (tmp_path / "q.zarr").is_symlink()
    assert (elsewhere / "keep").read_text() == "kept"


def test_a_link_in_a_circle_is_no_input(tmp_path, capsys):
    loop = tmp_path / "loop.imzML"
    loop.symlink_to(loop)
    code, _, err = call(capsys, "run", loop, tmp_path / "o.zarr")
    assert code == 3
    assert "loop.imzML does not exist" in err


def _never_ending(path, kind):
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("suffix", [".imzML", ".ibd"])
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_may_never_end_is_not_opened(tmp_path, capsys, suffix, kind):
    source = write_centroid(tmp_path)
    path = source.with_suffix(suffix)
    _never_ending(path, kind)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert f"{path} is not a regular file, expected" in err


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["test.d/analysis.tsf", "test.d/analysis.tsf_bin", "test.mzpeak"])
def test_nor_is_it_in_other_formats(tmp_path, capsys, name, kind):
    write_tsf(tmp_path, FRAMES, n_samples=500)
    exporting.run(write_centroid(tmp_path), tmp_path / "test.mzpeak", Settings())
    source = tmp_path / name.split("/", maxsplit=1)[0]
    conversion.run(source, tmp_path / "whole.zarr", Settings())
    _never_ending(tmp_path / name, kind)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "is not a regular file, expected" in err or "which is not there" in err
    assert call(capsys, "verify", tmp_path / "whole.zarr", source)[0] == 3


def test_control_characters_of_names_and_headers_reach_no_terminal(tmp_path, capsys):
    document = _document()
    document.scan_settings[0] = [
        cv("IMS:1000046", "pixel size", "10&#x9b;31m", unit="UO:0000017"),
    ]
    source = document.write(tmp_path, "a\n\x1b[2Jb")
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "a\\n\\x1b[2Jb.imzML" in err
    assert err.count("\n") == 1
    assert not {"\x1b", "\x9b"} & set(err)


def test_points_that_are_no_numbers_are_refused_and_repaired(tmp_path, capsys):
    spectra = centroid_spectra(pixels())
    for row, value in ((2, np.nan), (3, np.inf), (4, -1.0)):
        counts = np.array(spectra[row][3])
        counts[5] = value
        spectra[row] = (*spectra[row][:3], counts)
    source = Document.of(spectra).write(tmp_path)
    code, _, err = call(capsys, "run", source, tmp_path / "o.zarr")
    assert code == 3
    assert "spectrum 2" in err
    assert "give --repair" in err
    code, out, _ = call(capsys, "run", source, tmp_path / "o.zarr", "--repair")
    assert code == 0
    assert "3 points dropped" in out
