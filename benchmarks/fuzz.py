"""Mutated imzML files against the reader, and now and then against a whole run.

A case is made of a sound file by a few mutations: bytes, tags, numbers and accessions are
flipped, cut, doubled or swapped. It must be read or be refused in words. Of what is read,
the tokenizer and the XML parser, where it takes the file, must have
made the same table; of what is converted, the
store must pass the verifier, and its sums must be those that pyimzML reads.
"""

from __future__ import annotations

import gzip
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np

from gpuconvert import conversion
from gpuconvert.errors import GpuconvertError, SourceError
from gpuconvert.readers import open_reader
from gpuconvert.readers.imzml_header import read_header
from gpuconvert.readers.imzml_list import read_list
from gpuconvert.readers.imzml_slow import parse_list
from gpuconvert.settings import Settings
from gpuconvert.verification import verify
from tests.e2e.data import centroid_spectra, pixels, profile_spectra
from tests.imzml_writer import Document

MEMORY = 2 << 30
"""Bytes that a case may take beyond what the program holds."""
SECONDS = 20
"""Time that a case may take."""
WHOLE_RUNS = 4
"""One of so many cases is converted as a whole."""

NUMBERS = (
    b"-1", b"0", b"1", b"16", b"40", b"41", b"2147483647", b"2147483648", b"4294967295",
    b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"1e9", b"1e400",
    b"nan", b"inf", b"", b"1.0", b"0x10", b" 7 ", b"1000000000",
)  # fmt: skip
ACCESSIONS = (
    b"MS:1000514", b"MS:1000515", b"MS:1000574", b"MS:1000576", b"MS:1000521", b"MS:1000523",
    b"MS:1000519", b"MS:1000522", b"IMS:1000050", b"IMS:1000051", b"IMS:1000102", b"IMS:1000103",
    b"IMS:1000104", b"IMS:1000030", b"IMS:1000031", b"MS:1000127", b"MS:1000128", b"MS:1002312",
)  # fmt: skip
FLOATS = np.array([np.nan, np.inf, -np.inf, -1, 0, 1e300, -1e300, 1e-310, 1e30, 5e-324])


class Hung(Exception):  # noqa: N818 - what a case did
    """A case took too long."""


@dataclass(frozen=True, slots=True)
class Case:
    """Both files of a case; `zipped` where the XML is stored compressed."""

    xml: bytes
    ibd: bytes
    zipped: bool

    def write(self, folder: Path) -> Path:
        """Write both files; return the path of the first."""
        path = folder / ("case.imzML.gz" if self.zipped else "case.imzML")
        path.write_bytes(gzip.compress(self.xml, 1) if self.zipped else self.xml)
        (folder / "case.ibd").write_bytes(self.ibd)
        return path


def seeds() -> list[Case]:
    """Return sound files of every kind."""
    sticks, curves = centroid_spectra(pixels()), profile_spectra(pixels(), n=300)
    shared = [(x, y, np.linspace(100, 200, 50), np.arange(50.0)) for x, y in pixels()]
    documents = [
        Document.of(sticks), Document.of(curves, representation="profile", polarity=1),
        Document.of(sticks, compression="zlib", grid=(5, 3)),
        Document.of(shared, mode="continuous", mz_dtype="f4", representation="profile"),
        Document.of(shared, mode="continuous", compression="zlib", intensity_dtype="i4"),
        Document.of([(*item, 1 + item[0] % 2) for item in sticks], representation=None),
    ]  # fmt: skip
    plain = [Case(item.xml().encode(), item.ibd, False) for item in documents]
    wide = documents[0].xml().replace("UTF-8", "UTF-16").encode("utf-16")
    return [*plain, Case(plain[0].xml, plain[0].ibd, True), Case(wide, plain[0].ibd, False)]


def _flip(raw: bytearray, rng: np.random.Generator) -> None:
    for place in rng.integers(0, len(raw), int(rng.integers(1, 4))):
        raw[place] ^= 1 << int(rng.integers(8))


def _cut(raw: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(raw)))
    del raw[start : start + int(rng.integers(1, 60))]


def _end(raw: bytearray, rng: np.random.Generator) -> None:
    del raw[int(rng.integers(1, len(raw))) :]


def _double(raw: bytearray, rng: np.random.Generator) -> None:
    start = int(rng.integers(len(raw)))
    piece = raw[start : start + int(rng.integers(1, 400))]
    at = int(rng.integers(len(raw)))
    raw[at:at] = piece


def _element(raw: bytearray, rng: np.random.Generator) -> None:
    """Remove, double or move one whole tag."""
    start = raw.find(b"<", int(rng.integers(len(raw))))
    stop = raw.find(b">", start) + 1
    if start < 0 or stop <= 0:
        return
    piece = bytes(raw[start:stop])
    how = rng.integers(3)
    if how != 1:
        del raw[start:stop]
    if how:
        at = max(0, raw.find(b"<", int(rng.integers(max(1, len(raw))))))
        raw[at:at] = piece


def _value(raw: bytearray, rng: np.random.Generator) -> None:
    """Put another number where a value stands."""
    start = raw.find(b'value="', int(rng.integers(len(raw)))) + 7
    stop = raw.find(b'"', start)
    if start >= 7 and stop > 0:
        raw[start:stop] = NUMBERS[rng.integers(len(NUMBERS))]


def _accession(raw: bytearray, rng: np.random.Generator) -> None:
    """Put another term where one stands."""
    start = raw.find(b'accession="', int(rng.integers(len(raw)))) + 11
    stop = raw.find(b'"', start)
    if start >= 11 and stop > 0:
        raw[start:stop] = ACCESSIONS[rng.integers(len(ACCESSIONS))]


def _float(raw: bytearray, rng: np.random.Generator) -> None:
    """Put a number where it hurts into the binary file."""
    size = ("<f4", "<f8")[rng.integers(2)]
    with np.errstate(over="ignore"):
        value = FLOATS[rng.integers(len(FLOATS))].astype(size).tobytes()
    at = int(rng.integers(len(raw)))
    raw[at : at + len(value)] = value


TEXT = (_flip, _cut, _end, _double, _element, _element, _value, _value, _value, _accession)
BINARY = (_flip, _cut, _end, _double, _float, _float)


def mutate(case: Case, rng: np.random.Generator) -> Case:
    """Return a case with a few things changed."""
    xml, ibd = bytearray(case.xml), bytearray(case.ibd)
    for _ in range(int(rng.integers(1, 4))):
        if len(xml) > 1 and (rng.random() < 0.8 or len(ibd) < 2):
            TEXT[rng.integers(len(TEXT))](xml, rng)
        elif len(ibd) > 1:
            BINARY[rng.integers(len(BINARY))](ibd, rng)
    return Case(bytes(xml), bytes(ibd), case.zipped)


def read_all(path: Path) -> None:
    """Read everything a reader offers; the two ways through the XML must agree."""
    settings = Settings(duplicates="keep")
    reader = open_reader(path, settings)
    try:
        header = read_header(path)
        fast = read_list(header).columns
        # The tokenizer reads past damage of elements that it does not use.
        with suppress(SourceError):
            slow = parse_list(header.source, header.encoding, header.groups).columns
            if not np.array_equal(fast, slow):
                raise AssertionError("tokenizer and XML parser made different tables")
        reader.mz_extent()
        for row in range(reader.acquisition.n_spectra):
            buffer = np.empty(max(1, reader.batch_bytes(row, row + 1)), np.uint8)
            reader.read(row, row + 1, buffer)
        reader.check_unchanged()
    finally:
        reader.close()


def run_whole(path: Path, folder: Path, rng: np.random.Generator) -> None:
    """Convert a case; the store must be right where there is one."""
    output = folder / "o.zarr"
    settings = Settings(
        workers=1, memory=1 << 30, duplicates="keep", max_bins=20_000, backend="numpy",
        layout=("csc", "csr")[rng.integers(2)],  # type: ignore[arg-type]
        repair=bool(rng.integers(2)),
    )  # fmt: skip
    conversion.run(path, output, settings)
    alone = verify(output)
    wrong = [check for check in alone.checks if not check.ok]
    if wrong:
        raise AssertionError(f"the store does not pass: {wrong}")
    try:
        against = verify(output, path)
    except SourceError:
        return  # pyimzML cannot read all that we can.
    wrong = [check for check in against.checks if not check.ok]
    if wrong:
        raise AssertionError(f"pyimzML reads something else: {wrong}")


def attempt(case: Case, folder: Path, rng: np.random.Generator, *, whole: bool) -> str:
    """Return what became of a case: "read", "refused", "converted"; raise where it broke a rule."""
    path = case.write(folder)
    try:
        if whole:
            run_whole(path, folder, rng)
        else:
            read_all(path)
    except GpuconvertError as error:
        if not str(error).strip() or error.exit_code not in (1, 2, 3):
            raise AssertionError(f"an error without words: {error!r}") from error
        if list(folder.glob("o.zarr*")) and isinstance(error, SourceError):
            raise AssertionError("a refused source left something behind") from error
        return "refused"
    return "converted" if whole else "read"


def _hung(_number: int, _frame: FrameType | None) -> None:
    raise Hung(f"more than {SECONDS} s")


def main() -> None:
    """Try cases for so many seconds; end with 1 where one broke a rule."""
    seconds, kept = float(sys.argv[1]), Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else int(time.time())
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, resource.RLIM_INFINITY))
    signal.signal(signal.SIGALRM, _hung)
    corpus, rng = seeds(), np.random.default_rng(seed)
    counts: Counter[str] = Counter()
    begun, number = time.monotonic(), 0
    # The kernels are compiled here, not within the time of a case.
    with tempfile.TemporaryDirectory() as folder:
        attempt(corpus[0], Path(folder), rng, whole=True)
    while time.monotonic() - begun < seconds:
        case = mutate(corpus[rng.integers(len(corpus))], rng)
        with tempfile.TemporaryDirectory() as folder:
            signal.alarm(SECONDS)
            try:
                whole = number % WHOLE_RUNS == 0
                counts[attempt(case, Path(folder), rng, whole=whole)] += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                signal.alarm(0)
                counts["broken"] += 1
                place = kept / f"{seed}-{number}"
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir(parents=True)
                case.write(place)
                (place / "traceback.txt").write_text(traceback.format_exc())
                print(f"case {place}: {type(error).__name__}: {error}", flush=True)
            finally:
                signal.alarm(0)
        number += 1
    print(f"seed {seed}: {dict(counts)}")
    sys.exit(counts["broken"] > 0)


if __name__ == "__main__":
    main()
