"""Writes small imzML files by hand: every attribute, order, quote and byte is the test's choice.

`write_imzml` is the one-line entry. For hazards, `Document.of` gives the same file as
lists of elements that a test changes before `Document.write`.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

UUID = bytes.fromhex("0123456789abcdef0123456789abcdef")

DTYPE_TERMS = {
    "i1": ("IMS:1100000", "8-bit integer"), "i2": ("IMS:1100001", "16-bit integer"),
    "i4": ("MS:1000519", "32-bit integer"), "i8": ("MS:1000522", "64-bit integer"),
    "f2": ("MS:1000520", "16-bit float"), "f4": ("MS:1000521", "32-bit float"),
    "f8": ("MS:1000523", "64-bit float"),
}  # fmt: skip
STRUCT_CODES = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "f2": "e", "f4": "f", "f8": "d"}
COMPRESSION_TERMS = {
    "none": ("MS:1000576", "no compression"), "zlib": ("MS:1000574", "zlib compression"),
}  # fmt: skip
REPRESENTATION_TERMS = {
    "profile": ("MS:1000128", "profile spectrum"), "centroid": ("MS:1000127", "centroid spectrum"),
}  # fmt: skip
POLARITY_TERMS = {1: ("MS:1000130", "positive scan"), -1: ("MS:1000129", "negative scan")}
MODE_TERMS = {
    "continuous": ("IMS:1000030", "continuous"), "processed": ("IMS:1000031", "processed"),
}  # fmt: skip


def cv(accession, name="", value=None, *, unit=None, quote='"', extra=""):
    """Return a cvParam element; parts that are None are left out."""
    parts = [] if accession is None else [("accession", accession)]
    parts += [("name", name), ("value", value), ("unitAccession", unit)]
    text = " ".join(f"{key}={quote}{said}{quote}" for key, said in parts if said is not None)
    return f"<cvParam {text}{extra}/>"


def ref(name):
    """Return a reference to a group."""
    return f'<referenceableParamGroupRef ref="{name}"/>'


def pack(values, dtype):
    """Return values as little-endian bytes."""
    cast = float if dtype.startswith("f") else int
    return struct.pack(f"<{len(values)}{STRUCT_CODES[dtype]}", *(cast(v) for v in values))


@dataclass
class Array:
    """One binaryDataArray: its elements in order."""

    elements: list[str]
    attributes: str = 'encodedLength="0"'

    def xml(self):
        inside = "".join(self.elements)
        return f"<binaryDataArray {self.attributes}>{inside}<binary/></binaryDataArray>"


def external(offset, length, stored):
    """Return the three terms that place an array in the .ibd; None leaves one out."""
    terms = [("IMS:1000102", "external offset", offset),
             ("IMS:1000103", "external array length", length),
             ("IMS:1000104", "external encoded length", stored)]  # fmt: skip
    return [cv(accession, name, value) for accession, name, value in terms if value is not None]


def position(x, y, z=None):
    """Return the position terms of a scan; None leaves one out."""
    terms = [("IMS:1000050", "position x", x), ("IMS:1000051", "position y", y),
             ("IMS:1000052", "position z", z)]  # fmt: skip
    return [cv(accession, name, value) for accession, name, value in terms if value is not None]


@dataclass
class Spectrum:
    """One spectrum: elements of its own, of its scan, and its arrays."""

    elements: list[str]
    scan: list[str]
    arrays: list[Array]
    attributes: str = 'id="s" index="0" defaultArrayLength="0"'

    def xml(self):
        own, scan = "".join(self.elements), "".join(self.scan)
        arrays = "".join(array.xml() for array in self.arrays)
        return (
            f"<spectrum {self.attributes}>{own}"
            f'<scanList count="1"><scan>{scan}</scan></scanList>'
            f'<binaryDataArrayList count="{len(self.arrays)}">{arrays}</binaryDataArrayList>'
            "</spectrum>"
        )


@dataclass
class Document:
    """A whole imzML and its .ibd, as text that a test may change anywhere."""

    ibd: bytes
    spectra: list[Spectrum]
    content: list[str]
    groups: dict[str, list[str]]
    scan_settings: list[list[str]]
    instrument: list[str] = field(default_factory=list)
    count: int | None = None
    prolog: str = '<?xml version="1.0" encoding="UTF-8"?>\n'
    root: str = '<mzML xmlns="http://psi.hupo.org/ms/mzml" version="1.1">'
    before_list: str = ""
    between: str = "\n"
    tail: str = "</spectrumList></run></mzML>\n"

    @classmethod
    def of(
        cls, spectra, *, mode="processed", mz_dtype="f8", intensity_dtype="f4", compression="none",
        representation="centroid", pixel_size=10.0, polarity=None, instrument_terms=(),
        uuid=UUID, grid=None,
    ):  # fmt: skip
        """Return the document of (x, y, mz, intensity) or (x, y, mz, intensity, z) spectra."""
        data = bytearray(uuid)
        places = []
        shared = None
        for _, _, mz, intensity, *_ in spectra:
            if mode == "processed" or shared is None:
                shared = _append(data, mz, mz_dtype, compression)
            places.append((shared, _append(data, intensity, intensity_dtype, compression)))
        groups = {
            "mzArray": [cv("MS:1000514", "m/z array"), cv(*DTYPE_TERMS[mz_dtype]),
                        cv(*COMPRESSION_TERMS[compression])],
            "intensityArray": [cv("MS:1000515", "intensity array"),
                               cv(*DTYPE_TERMS[intensity_dtype]),
                               cv(*COMPRESSION_TERMS[compression])],
            "spectrum": [cv("MS:1000511", "ms level", 1)],
        }  # fmt: skip
        content = [cv("IMS:1000080", "universally unique identifier", f"{{{uuid.hex()}}}")]
        if mode:
            content.append(cv(*MODE_TERMS[mode]))
        if representation:
            groups["spectrum"].append(cv(*REPRESENTATION_TERMS[representation]))
        if polarity:
            groups["spectrum"].append(cv(*POLARITY_TERMS[polarity]))
        found = [
            Spectrum(
                [ref("spectrum")], position(x, y, *z),
                [Array([ref("mzArray"), *external(*mz)]),
                 Array([ref("intensityArray"), *external(*intensity)])],
            )
            for (x, y, _, _, *z), (mz, intensity) in zip(spectra, places, strict=True)
        ]  # fmt: skip
        instrument = [cv(*term) if isinstance(term, tuple) else term for term in instrument_terms]
        return cls(bytes(data), found, content, groups, [_settings(pixel_size, grid)], instrument)

    def header(self):
        """Return the text before the first spectrum."""
        groups = "".join(
            f'<referenceableParamGroup id="{name}">{"".join(terms)}</referenceableParamGroup>'
            for name, terms in self.groups.items()
        )
        settings = "".join(
            f'<scanSettings id="settings{index}">{"".join(terms)}</scanSettings>'
            for index, terms in enumerate(self.scan_settings)
        )
        count = len(self.spectra) if self.count is None else self.count
        return (
            f"{self.prolog}{self.root}\n"
            f"<fileDescription><fileContent>{''.join(self.content)}</fileContent></fileDescription>\n"
            f"<referenceableParamGroupList>{groups}</referenceableParamGroupList>\n"
            f"<scanSettingsList>{settings}</scanSettingsList>\n"
            f'<instrumentConfigurationList><instrumentConfiguration id="IC">'
            f"{''.join(self.instrument)}</instrumentConfiguration></instrumentConfigurationList>\n"
            f'{self.before_list}<run id="run" defaultInstrumentConfigurationRef="IC">'
            f'<spectrumList count="{count}">'
        )

    def xml(self):
        """Return the whole text."""
        spectra = "".join(f"{spectrum.xml()}{self.between}" for spectrum in self.spectra)
        return f"{self.header()}{self.between}{spectra}{self.tail}"

    def write(self, folder, name="test", *, encoding="utf-8"):
        """Write both files; return the path of the .imzML."""
        path = Path(folder) / f"{name}.imzML"
        path.write_bytes(self.xml().encode(encoding))
        path.with_suffix(".ibd").write_bytes(self.ibd)
        return path


def _append(data, values, dtype, compression):
    """Append an array to the .ibd; return its offset, length and stored size."""
    raw = pack(values, dtype)
    stored = zlib.compress(raw) if compression == "zlib" and raw else raw
    offset = len(data)
    data += stored
    return offset, len(values), len(stored)


def _settings(pixel_size, grid):
    terms = []
    if grid is not None:
        terms += [cv("IMS:1000042", "max count of pixels x", grid[0]),
                  cv("IMS:1000043", "max count of pixels y", grid[1])]  # fmt: skip
    if pixel_size is not None:
        x, y = pixel_size if isinstance(pixel_size, tuple) else (pixel_size, pixel_size)
        terms += [cv("IMS:1000046", "pixel size (x)", x, unit="UO:0000017"),
                  cv("IMS:1000047", "pixel size y", y, unit="UO:0000017")]  # fmt: skip
    return terms


def write_imzml(folder, spectra, *, name="test", **options) -> Path:
    """Write a small imzML and its .ibd into `folder`; return the path of the .imzML.

    Parameters
    ----------
    folder
        An existing folder.
    spectra
        (x, y, mz, intensity) or (x, y, mz, intensity, z), in the order of the file; positions
        as they are to be written.
    name
        Stem of both files.
    options
        mode : "processed" or "continuous" (the m/z of the first spectrum is written once)
        mz_dtype, intensity_dtype : "i1" to "f8"
        compression : "none" or "zlib", of both arrays
        representation : "profile", "centroid" or None to be silent
        pixel_size : micrometres, or (x, y), or None to be silent
        polarity : 1, -1 or None
        instrument_terms : elements, or tuples (accession, name, value) of cvParams
        uuid : 16 bytes
        grid : declared number of pixels (x, y), or None
    """
    return Document.of(spectra, **options).write(folder, name)
