"""What the header of an imzML says of instrument, pixels and origin, from its terms."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from gpuconvert.errors import SourceError
from gpuconvert.readers.imzml_scan import lookup_place, rename_bits
from gpuconvert.readers.imzml_terms import LOOKUP, accession_code, parse_integer
from gpuconvert.spectra import Instrument

LONGEST_TEXT = 500
"""Texts of the metadata are cut here, in characters."""

_LENGTHS = {
    "UO:0000008": 1e6, "UO:0000015": 1e4, "UO:0000016": 1e3, "UO:0000017": 1.0,
    "UO:0000018": 1e-3, "meter": 1e6, "centimeter": 1e4, "millimeter": 1e3, "mm": 1e3,
    "micrometer": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0, "nanometer": 1e-3, "nm": 1e-3,
}  # fmt: skip
"""Micrometres in each unit, by accession and by name."""

PIXEL_SIZE = ("IMS:1000046", "IMS:1000047")
"""Pixel size x and y; the names of these terms have changed over the years."""

# Instrument terms that are no model: the bare class, customisation, serial number.
_NO_MODEL = {"MS:1000031", "MS:1000032", "MS:1000529"}
_ANALYSER_CLASS = "MS:1000443"


@dataclass(frozen=True, slots=True)
class Term:
    """One cvParam; every part is "" where it is missing."""

    accession: str
    name: str
    value: str
    unit: str
    unit_name: str

    def to_json(self) -> dict[str, str]:
        """Return the term as plain JSON values, without its empty parts."""
        parts = {"accession": self.accession, "name": self.name, "value": self.value,
                 "unit": self.unit_name or self.unit}  # fmt: skip
        return {name: text[:LONGEST_TEXT] for name, text in parts.items() if text}


@dataclass(frozen=True, slots=True)
class ScanSettings:
    """One scanSettings element: what was to be acquired.

    counts : declared number of pixels (x, y); None where it is not a whole number above 0
    """

    name: str
    terms: tuple[Term, ...]
    counts: tuple[int | None, int | None]

    def find(self, accession: str) -> Term | None:
        """Return the first term with this accession that has a value."""
        found = [term for term in self.terms if term.accession == accession and term.value.strip()]
        return found[0] if found else None


def find_terms(element: Element | None, groups: dict[str, Element]) -> tuple[Term, ...]:
    """Return the terms of an element in order, those of referenced groups in their place."""
    found: list[Term] = []
    seen: set[str] = set()
    waiting = [] if element is None else [element]
    while waiting:
        item = waiting.pop()
        if item.tag == "cvParam":
            get = item.get
            found.append(Term(get("accession", ""), get("name", ""), get("value", ""),
                              get("unitAccession", ""), get("unitName", "")))  # fmt: skip
        elif item.tag == "referenceableParamGroupRef":
            # Each group counts once: groups may refer to each other, or to themselves.
            ref = item.get("ref", "")
            if ref in groups and ref not in seen:
                seen.add(ref)
                waiting.extend(reversed(groups[ref]))
        elif item is element:
            waiting.extend(reversed(item))
    return tuple(found)


def term_bits(term: Term) -> int:
    """Return the bits of a term that decide how spectra are read; 0 for all others."""
    bits = max(0, int(LOOKUP[lookup_place(accession_code(term.accession))]))
    if len(term.name) >= 2:
        bits = rename_bits(bits, ord(term.name[0]), ord(term.name[1]))
    return bits


def all_bits(terms: tuple[Term, ...]) -> int:
    """Return the bits of all terms together."""
    bits = 0
    for term in terms:
        bits |= term_bits(term)
    return bits


def find_value(terms: tuple[Term, ...], accession: str) -> str:
    """Return the value of the first term with this accession, or ""."""
    return next((term.value.strip() for term in terms if term.accession == accession), "")


def read_scan_settings(element: Element, groups: dict[str, Element]) -> ScanSettings:
    """Return what a scanSettings element says."""
    terms = find_terms(element, groups)
    counts = [parse_integer(find_value(terms, name)) for name in ("IMS:1000042", "IMS:1000043")]
    x, y = (count if count and count > 0 else None for count in counts)
    return ScanSettings(element.get("id", ""), terms, (x, y))


def read_instrument(root: Element, groups: dict[str, Element]) -> Instrument:
    """Return the instrument of the default configuration."""
    run = root.find(".//run")
    default = "" if run is None else run.get("defaultInstrumentConfigurationRef", "")
    all_found = list(root.iter("instrumentConfiguration"))
    chosen = [item for item in all_found if item.get("id", "") == default] or all_found
    if not chosen:
        return Instrument()
    own = find_terms(chosen[0], groups)
    named = [term.name or term.value for term in own if term.accession not in _NO_MODEL]
    named += [term.value for term in own if term.accession == "MS:1000031" and term.value.strip()]
    terms, analysers = list(own), []
    for part in chosen[0].iter():
        if part.tag in ("source", "analyzer", "detector"):
            terms += find_terms(part, groups)
        if part.tag == "analyzer":
            analysers += [
                term.name
                for term in find_terms(part, groups)
                if not term.value.strip() and term.accession != _ANALYSER_CLASS
            ]
    return Instrument(
        name=named[0][:LONGEST_TEXT] if named else "",
        analyser=", ".join(dict.fromkeys(analysers)),
        terms=tuple(f"{t.accession} {t.name} {t.value}".strip()[:LONGEST_TEXT] for t in terms),
    )


def read_mz_range(groups: dict[str, Element]) -> tuple[float, float] | None:
    """Return the widest scan window that the groups declare, in Th."""
    lows, highs = [], []
    for element in groups.values():
        terms = find_terms(element, groups)
        low, high = (_number(find_value(terms, name)) for name in ("MS:1000501", "MS:1000500"))
        if 0 <= low < high < math.inf:
            lows.append(low)
            highs.append(high)
    return (min(lows), max(highs)) if lows else None


def _number(text: str) -> float:
    """Return a number, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def pixel_size(path: Path, chosen: ScanSettings) -> tuple[tuple[float, float] | None, list[str]]:
    """Return the pixel size (x, y) in micrometres, or None, and what had to be assumed.

    Raises
    ------
    SourceError
        Where a size is given that is not a finite number above 0.
    """
    terms = [term for name in PIXEL_SIZE if (term := chosen.find(name)) is not None]
    sizes = [_number(term.value) * _unit(term) for term in terms]
    for size, term in zip(sizes, terms, strict=True):
        if not 0 < size < math.inf:
            raise SourceError(
                f"{path}: {term.accession} ({term.name}) gives a pixel size of {term.value!r}, "
                "expected a number above 0; give --pixel-size"
            )
    if not sizes:
        return None, []
    warnings = []
    written = " x ".join(term.value.strip() for term in terms)
    strange = [term for term in terms if _known_unit(term) is None]
    if strange:
        unit = strange[0].unit_name or strange[0].unit
        said = f"has the unknown unit {unit!r}" if unit else "has no unit"
        warnings.append(
            f"pixel size {written} {said}; taken as micrometres (give --pixel-size if it is not)"
        )
    if len(sizes) == 1:
        warnings.append(f"one pixel size is given; pixels are taken as {sizes[0]:g} um square")
    return (sizes[0], sizes[-1]), warnings


def _known_unit(term: Term) -> float | None:
    """Return the micrometres in the unit of a length, or None."""
    name = term.unit_name.strip().lower().replace("metre", "meter")
    return _LENGTHS.get(term.unit, _LENGTHS.get(name))


def _unit(term: Term) -> float:
    """Return the micrometres in the unit of a length; one in a unit that is not known."""
    known = _known_unit(term)
    return 1.0 if known is None else known


def read_metadata(
    root: Element, groups: dict[str, Element], content: tuple[Term, ...],
    settings: tuple[ScanSettings, ...],
) -> dict[str, Any]:  # fmt: skip
    """Return further facts of the header as plain JSON values."""

    def texts(tag: str, *names: str) -> list[dict[str, str]]:
        return [
            {name: item.get(name, "")[:LONGEST_TEXT] for name in names if item.get(name)}
            for item in root.iter(tag)
        ]

    spectrum_bits = [
        item for item in groups.values() if all_bits(find_terms(item, groups)) & 0xF000
    ]
    return {
        "file_content": [term.to_json() for term in content],
        "spectrum_groups": [
            [term.to_json() for term in find_terms(item, groups)] for item in spectrum_bits
        ],
        "scan_settings": [
            {"id": item.name, "terms": [term.to_json() for term in item.terms]} for item in settings
        ],
        "software": texts("software", "id", "version"),
        "source_files": texts("sourceFile", "name", "location"),
        "samples": texts("sample", "id", "name"),
        "run": texts("run", "id", "startTimeStamp"),
    }
