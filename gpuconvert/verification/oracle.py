"""The source as pyimzML reads it: no code is shared with the readers of the conversion.

pyimzML cannot read compressed arrays, and believes the name of a number format
before its size. Both show in the encoded lengths (IMS:1000104), which a small pass
over the XML finds; such arrays are then decoded here.
"""

from __future__ import annotations

import gzip
import warnings
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray
from pyimzml.ImzMLParser import ImzMLParser

from gpuconvert.errors import SourceError, SourceMissingError

Floats = NDArray[np.float64]

NAMESPACE = "{http://psi.hupo.org/ms/mzml}"
KINDS = {"MS:1000514": "mz", "MS:1000515": "intensity"}
ZLIB = "MS:1000574"
ARRAY_LENGTH, ENCODED_LENGTH = "IMS:1000103", "IMS:1000104"

FLOATS = {2: "<f2", 4: "<f4", 8: "<f8"}
"""What an array holds whose item size is not that of its declared format."""

PARSE_ERRORS = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
    EOFError, zlib.error,
)  # fmt: skip
"""What pyimzML and ElementTree raise on files that they cannot read."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """How the arrays of a file are stored.

    plain : whether pyimzML's own decoding is right
    encoded : bytes of every array in the file, by kind; only where some are compressed
    inflate : whether each is compressed, likewise
    """

    plain: bool
    encoded: dict[str, list[int]]
    inflate: dict[str, list[bool]]


class Oracle:
    """Spectra of an imzML file, in the order of the file.

    coordinates : (n_spectra, 3) int64; x, y, z, each from 0 at the smallest observed
    n_points : (n_spectra,) int64
    order : (n_spectra,) int64, 0, 1, 2, ...
    facts : nothing; pyimzML tells the polarity of the first spectrum only
    """

    def __init__(self, path: Path, ibd: Path | None = None) -> None:
        """Open `path`; SourceError where it is no imzML file that pyimzML can read."""
        if not path.is_file():
            raise SourceMissingError(f"{path} does not exist; check the path")
        self.path = path
        self._ibd_path = _find_ibd(path) if ibd is None else ibd
        if not self._ibd_path.is_file():
            raise SourceMissingError(f"{self._ibd_path} does not exist; name the .ibd with --ibd")
        self._ibd = self._ibd_path.open("rb")
        try:
            self._parser = _parse(path, self._ibd)
            self._stored = _look_at_arrays(path, self._parser)
            coordinates = np.array(self._parser.coordinates, np.int64).reshape(-1, 3)
            self.coordinates = coordinates - coordinates.min(axis=0)
        except PARSE_ERRORS as error:
            self._ibd.close()
            raise SourceError(
                f"{path} cannot be read by pyimzML, on which verify relies: {error!r}"
            ) from error
        self.n_points = np.array(self._parser.intensityLengths, np.int64)
        self.order = np.arange(len(self.n_points))
        self.facts: dict[str, NDArray[np.int64]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._ibd.close()

    @property
    def n_bytes(self) -> int:
        """Size of both files."""
        return self.path.stat().st_size + self._ibd_path.stat().st_size

    def spectrum(self, index: int) -> tuple[Floats, Floats]:
        """Return m/z and intensities of one spectrum as float64, as the file has them."""
        parser = self._parser
        lengths = parser.mzLengths[index], parser.intensityLengths[index]
        if lengths[0] != lengths[1]:
            raise SourceError(
                f"spectrum {index} of {self.path} has {lengths[0]} m/z and {lengths[1]} intensities"
            )
        if self._stored.plain:
            mz, intensity = parser.getspectrum(index)
        else:
            mz = self._decode(index, "mz", parser.mzOffsets, parser.mzPrecision)
            intensity = self._decode(
                index, "intensity", parser.intensityOffsets, parser.intensityPrecision
            )
        if (len(mz), len(intensity)) != lengths:
            raise SourceError(
                f"spectrum {index} of {self.path} has {min(len(mz), len(intensity))} of "
                f"{lengths[0]} points; is the .ibd file truncated?"
            )
        with np.errstate(invalid="ignore"):
            # A signalling NaN becomes a quiet one.
            return mz.astype(np.float64), intensity.astype(np.float64)

    def _decode(self, index: int, kind: str, offsets: list[int], precision: str) -> NDArray[Any]:
        """Return one array, inflated if need be, in the format that its size says."""
        n_points = int(self.n_points[index])
        if n_points == 0:
            return np.zeros(0)
        self._ibd.seek(offsets[index])
        raw = self._ibd.read(self._stored.encoded[kind][index])
        if self._stored.inflate[kind][index]:
            try:
                raw = zlib.decompress(raw)
            except zlib.error as error:
                raise SourceError(
                    f"{kind} array of spectrum {index} of {self.path} cannot be inflated: {error}"
                ) from error
        size, rest = divmod(len(raw), n_points)
        dtype = np.dtype(precision)
        if rest or (size != dtype.itemsize and size not in FLOATS):
            raise SourceError(
                f"{kind} array of spectrum {index} of {self.path} has {len(raw)} bytes for "
                f"{n_points} points"
            )
        return np.frombuffer(raw, dtype if size == dtype.itemsize else FLOATS[size])


def _find_ibd(path: Path) -> Path:
    """Return the binary file beside `path`: the same name, or the same but for case."""
    stem = path.name[: path.name.lower().rindex(".imzml")]
    exact = path.with_name(f"{stem}.ibd")
    if exact.is_file():
        return exact
    wanted = exact.name.lower()
    alike = [entry for entry in path.parent.iterdir() if entry.name.lower() == wanted]
    if len(alike) != 1:
        raise SourceMissingError(f"{exact} does not exist; name the .ibd with --ibd")
    return alike[0]


def _open_xml(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return path.open("rb")


def _parse(path: Path, ibd: IO[bytes]) -> Any:  # noqa: ANN401 - pyimzML is untyped
    with closing(_open_xml(path)) as xml, warnings.catch_warnings():
        # It warns of every accession that has another name than it knows.
        warnings.simplefilter("ignore")
        return ImzMLParser(xml, parse_lib="ElementTree", ibd_file=ibd)


def _look_at_arrays(path: Path, parser: Any) -> _Stored:  # noqa: ANN401 - pyimzML is untyped
    """Return how the arrays are stored; reads past the first spectra only if need be."""
    sizes = {
        "mz": np.dtype(parser.mzPrecision).itemsize,
        "intensity": np.dtype(parser.intensityPrecision).itemsize,
    }
    encoded: dict[str, list[int]] = {"mz": [], "intensity": []}
    inflate: dict[str, list[bool]] = {"mz": [], "intensity": []}
    plain, sized = True, False
    for kind, terms in _arrays(path):
        n_points, n_bytes = (int(terms.get(term) or 0) for term in (ARRAY_LENGTH, ENCODED_LENGTH))
        encoded[kind].append(n_bytes)
        inflate[kind].append(ZLIB in terms)
        plain &= ZLIB not in terms and n_bytes in {0, n_points * sizes[kind]}
        sized |= n_bytes > 0
        if plain and sized and kind == "intensity":
            break
    return _Stored(plain, encoded, inflate)


def _arrays(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield kind and terms of every m/z and intensity array, those of groups included."""
    groups: dict[str, dict[str, str]] = {}
    with closing(_open_xml(path)) as xml:
        for _, element in ET.iterparse(xml):
            if element.tag == f"{NAMESPACE}referenceableParamGroup":
                groups[element.attrib["id"]] = _terms(element, {})
            if element.tag != f"{NAMESPACE}spectrum":
                continue
            for array in element.iter(f"{NAMESPACE}binaryDataArray"):
                terms = _terms(array, groups)
                kinds = [KINDS[term] for term in terms if term in KINDS]
                if kinds:
                    yield kinds[0], terms
            element.clear()


def _terms(element: ET.Element, groups: dict[str, dict[str, str]]) -> dict[str, str]:
    """Return accession and value of every term of an element and of the groups it refers to."""
    terms: dict[str, str] = {}
    for reference in element.iter(f"{NAMESPACE}referenceableParamGroupRef"):
        terms |= groups.get(reference.attrib["ref"], {})
    for term in element.iter(f"{NAMESPACE}cvParam"):
        terms[term.attrib.get("accession", "")] = term.attrib.get("value", "")
    return terms
