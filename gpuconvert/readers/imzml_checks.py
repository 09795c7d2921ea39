"""Every check of what an imzML says about its arrays, made before anything is read.

Spectra are counted from 0 in the order of the file. Every number that the XML declares
is held against the size of the binary file here, so that nothing later reads, computes
or allocates from a wrong one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.readers import imzml_scan as scan
from gpuconvert.readers.findings import Findings
from gpuconvert.readers.imzml_bytes import MISSING
from gpuconvert.readers.imzml_slow import SpectrumTable
from gpuconvert.readers.imzml_terms import choose_dtype, named_dtypes, undecided_dtype

Longs = NDArray[np.int64]

LARGEST_RATIO = 1040
"""Deflate cannot shrink more than 1032 times; a little more for the header."""

_SIZES = (1, 2, 4, 8)

UUID_BYTES = 16
"""An .ibd begins with the identifier of the acquisition, in bytes."""


@dataclass
class Arrays:
    """One array (m/z or intensity) of every spectrum, in file order.

    role : "m/z" or "intensity"
    offset, stored : (n_spectra,) int64, bytes into the binary file, and bytes there
    length : (n_spectra,) int64, points
    terms : (n_spectra,) int64, term bits
    dtypes : dtype names found, and `code` (n_spectra,) int64 which of them each array has
    """

    role: str
    offset: Longs
    length: Longs
    stored: Longs
    terms: Longs
    dtypes: tuple[str, ...] = ()
    code: Longs = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def zlib(self) -> NDArray[np.bool_]:
        """Whether each array is compressed."""
        return (self.terms & scan.ZLIB).astype(bool)

    def item_sizes(self) -> Longs:
        """Return bytes per value of each array; (n_spectra,) int64."""
        sizes: Longs = np.array([np.dtype(name).itemsize for name in self.dtypes], np.int64)
        return sizes[self.code]


class Checker:
    """The checks of one file; each raises SourceError with the first spectrum that fails."""

    def __init__(
        self, path: Path, ibd: Path, ibd_size: int, table: SpectrumTable, findings: Findings
    ) -> None:
        self.path = path
        self.ibd = ibd
        self.ibd_size = ibd_size
        self.columns = columns = table.columns
        self.rounded = table.rounded
        self.findings = findings
        packed = self.columns[scan.TERMS]
        self.spectrum_terms = packed >> 32 & 0xFFFF
        self.flags = packed >> 48
        self.mz, self.intensity = (
            Arrays(role, columns[at], columns[at + 1], columns[at + 2], packed >> shift & 0xFFFF)
            for role, at, shift in (
                ("m/z", scan.MZ_OFFSET, 0),
                ("intensity", scan.INTENSITY_OFFSET, 16),
            )
        )

    def refuse(self, bad: NDArray[np.bool_], text: str, **values: Longs) -> None:
        """Raise SourceError for the first spectrum that is `bad`, with its values put in `text`."""
        if not bad.any():
            return
        index = int(np.argmax(bad))
        x, y = (_said(self.columns[axis][index]) for axis in (scan.X, scan.Y))
        filled = text
        for name, value in values.items():
            filled = filled.replace(f"{{{name}}}", _said(value[index]))
        more = int(np.count_nonzero(bad)) - 1
        others = f" (and {more} more)" if more else ""
        raise SourceError(f"{self.path}: spectrum {index} (x={x}, y={y}){others}: {filled}")

    def check_all(self) -> None:
        """Run every check, and fill in dtypes and missing sizes."""
        self._check_positions()
        self._check_presence()
        for arrays in (self.mz, self.intensity):
            self._check_terms(arrays)
            self._check_lengths(arrays)
            self._find_dtypes(arrays)
            self._fill_stored(arrays)
        self._check_pairs()
        for arrays in (self.mz, self.intensity):
            self._unwrap(arrays)
            self._check_extents(arrays)
        self._check_overlap()
        self._check_rest()

    def _check_positions(self) -> None:
        if not self.columns.shape[1]:
            raise SourceError(f"{self.path} has no spectra, expected at least one; export it again")
        for axis, name in ((scan.X, "x (IMS:1000050)"), (scan.Y, "y (IMS:1000051)")):
            self.refuse(
                self.columns[axis] == MISSING,
                f"no position {name}, expected one for every spectrum; export with coordinates",
            )

    def _check_presence(self) -> None:
        """Require one array of each kind; a spectrum without any is empty."""
        self.refuse(
            (self.flags & scan.FLAG_BOTH) != 0,
            "one array claims to be both m/z and intensity, expected one of them; export again",
        )
        self.refuse(
            (self.flags & scan.FLAG_TWICE) != 0,
            "two m/z or two intensity arrays, expected one of each; export again",
        )
        self.refuse(
            (self.flags & scan.FLAG_CONFLICT) != 0,
            "a position, an offset or a length is given twice and differs, expected it once; "
            "export again",
        )
        other = (self.flags & scan.FLAG_OTHER_ARRAY) != 0
        empty = (self.mz.terms == 0) & (self.intensity.terms == 0) & ~other
        for arrays in (self.mz, self.intensity):
            self.refuse(
                (arrays.terms == 0) & ~empty,
                f"no {arrays.role} array, expected one; does it refer to a group that is missing?",
            )
            arrays.length[empty] = 0
        if empty.all():
            raise SourceError(f"{self.path} has no binary arrays in any spectrum; export it again")
        if empty.any():
            self.findings.note(
                f"{int(empty.sum())} spectra have no arrays and are taken as empty, "
                f"the first is spectrum {int(np.argmax(empty))}"
            )
        if other.any():
            self.findings.note(
                f"{int(other.sum())} spectra have further arrays (such as ion mobility), "
                "which are not converted"
            )

    def _check_terms(self, arrays: Arrays) -> None:
        self.refuse(
            (arrays.terms & scan.UNSUPPORTED) != 0,
            f"the {arrays.role} array is compressed with Numpress or another method that is not "
            "read, expected zlib or none; export it again",
        )
        both = scan.ZLIB | scan.UNCOMPRESSED
        self.refuse(
            (arrays.terms & both) == both,
            f"the {arrays.role} array claims zlib and no compression, expected one; export again",
        )

    def _check_lengths(self, arrays: Arrays) -> None:
        for values, name in ((arrays.length, "array length"), (arrays.stored, "encoded length")):
            self.refuse(
                (values < 0) & (values != MISSING),
                f"external {name} of {arrays.role} is {{value}}, expected at least 0; "
                "export it again",
                value=values,
            )
        self.refuse(
            (arrays.stored == MISSING) & arrays.zlib & (arrays.length != 0),
            f"the compressed {arrays.role} array has no external encoded length (IMS:1000104), "
            "expected one; export it again",
        )
        self.refuse(
            (arrays.length == MISSING)
            & ((arrays.stored == MISSING) | (arrays.zlib & (arrays.stored != 0))),
            f"the {arrays.role} array has no external array length (IMS:1000103), expected one; "
            "export it again",
        )
        arrays.length[(arrays.length == MISSING) & (arrays.stored == 0)] = 0
        most = np.where(arrays.zlib, self.ibd_size * LARGEST_RATIO, self.ibd_size)
        self.refuse(
            arrays.length > most,
            f"external array length of {arrays.role} is {{value}} points, more than the "
            f"{self.ibd_size} bytes of {self.ibd} can hold; is it truncated? copy it again",
            value=arrays.length,
        )
        self.refuse(
            arrays.stored > self.ibd_size,
            f"external encoded length of {arrays.role} is {{value}} bytes, more than the "
            f"{self.ibd_size} bytes of {self.ibd}; is it truncated? copy it again",
            value=arrays.stored,
        )

    def _bytes_each(self, arrays: Arrays) -> Longs:
        """Return bytes per value as the lengths say, 0 where they do not; (n_spectra,) int64."""
        known = (arrays.length > 0) & (arrays.stored > 0) & ~arrays.zlib
        size = np.zeros(len(known), np.int64)
        np.floor_divide(arrays.stored, arrays.length, out=size, where=known)
        self.refuse(
            known & (~np.isin(size, _SIZES) | (size * arrays.length != arrays.stored)),
            f"external encoded length of {arrays.role} is {{stored}} bytes for {{length}} points, "
            "expected 1, 2, 4 or 8 bytes a point; export it again",
            stored=arrays.stored, length=arrays.length,
        )  # fmt: skip
        return size

    def _find_dtypes(self, arrays: Arrays) -> None:
        """Decide every dtype: by bytes per value where the file gives them, else by accession."""
        values, code = distinct(arrays.terms << 4 | self._bytes_each(arrays))
        found: dict[str, int] = {}
        each = np.zeros(len(values), np.int64)
        for index, key in enumerate(values.tolist()):
            terms = key >> 4
            size = key & 15 or _only_size(values, terms)
            name = choose_dtype(terms, size)
            if name is None:
                used = (code == index) & (arrays.length != 0)
                self.refuse(used, undecided_dtype(arrays.role, terms, size))
                continue
            self._compare_dtype(arrays.role, terms, size, name)
            each[index] = found.setdefault(name, len(found))
        # An array without points may stay undecided: it passes for one of the first dtype.
        arrays.dtypes, arrays.code = tuple(found) or ("<f4",), each[code]

    def _compare_dtype(self, role: str, terms: int, size: int, name: str) -> None:
        named = named_dtypes(terms)
        if size and named != [name]:
            said = " and ".join(named) or "no dtype"
            self.findings.contradict(
                f"the header says {said} for {role}, but its lengths say {size} bytes a point: "
                f"read as {name}"
            )

    def _fill_stored(self, arrays: Arrays) -> None:
        """Complete the one of length and stored size that is missing."""
        sizes = arrays.item_sizes()
        short = arrays.length == MISSING
        self.refuse(
            short & (arrays.stored % sizes != 0),
            f"external encoded length of {arrays.role} is {{stored}} bytes, no whole number of "
            "points; export it again",
            stored=arrays.stored,
        )
        arrays.length[short] = arrays.stored[short] // sizes[short]
        empty = arrays.length == 0
        unknown = ~arrays.zlib & (arrays.stored <= 0) & ~empty
        arrays.stored[unknown] = arrays.length[unknown] * sizes[unknown]
        arrays.stored[empty] = 0
        self.refuse(
            arrays.zlib & (arrays.length * sizes > arrays.stored * LARGEST_RATIO),
            f"{{length}} points of {arrays.role} cannot come from {{stored}} compressed bytes; "
            "export it again",
            length=arrays.length, stored=arrays.stored,
        )  # fmt: skip

    def _check_pairs(self) -> None:
        bad = self.mz.length != self.intensity.length
        shared = bool((self.mz.offset == self.mz.offset[0]).all()) and len(bad) > 1
        what = "the shared m/z array" if shared else "the m/z array"
        self.refuse(
            bad,
            f"{what} has {{mz}} points but the intensity array {{intensity}}, expected as many; "
            "export it again",
            mz=self.mz.length, intensity=self.intensity.length,
        )  # fmt: skip

    def _unwrap(self, arrays: Arrays) -> None:
        """Undo the overflow of offsets that were written as signed 32-bit integers."""
        used = arrays.stored > 0
        offset = np.where(used, arrays.offset, 0)
        self.refuse(
            used & (offset == MISSING),
            f"the {arrays.role} array has no external offset (IMS:1000102), expected one; "
            "export it again",
        )
        negative = used & (offset < 0)
        if not negative.any():
            return
        text = (
            f"external offset of {arrays.role} is {{value}}, expected at least 0; the exporter "
            "wrote past 2 GiB with 32-bit numbers: export it again"
        )
        plausible = self.ibd_size >= 2**31 and bool((offset[used] >= -(2**31)).all())
        self.refuse(negative & (not plausible), text, value=arrays.offset)
        signs = offset[used] < 0
        wraps = np.cumsum(signs[1:] & ~signs[:-1])
        repaired = offset[used] + np.concatenate([[0], wraps]) * 2**32
        ends = repaired + arrays.stored[used]
        if signs[0] or (np.diff(repaired) < 0).any() or ends.max() > self.ibd_size:
            self.refuse(negative, text, value=arrays.offset)
        arrays.offset[used] = repaired
        self.findings.note(
            f"{int(negative.sum())} offsets of {arrays.role} had overflowed 32 bits; repaired"
        )

    def _check_extents(self, arrays: Arrays) -> None:
        used = arrays.stored > 0
        arrays.offset[~used] = 0
        self.refuse(
            used & (arrays.offset > self.ibd_size - arrays.stored),
            f"the {arrays.role} array at external offset {{offset}} + {{stored}} bytes passes the "
            f"end of {self.ibd} ({self.ibd_size} bytes); is it truncated? copy it again",
            offset=arrays.offset, stored=arrays.stored,
        )  # fmt: skip

    def _check_overlap(self) -> None:
        """Report arrays that share some bytes but not all: then an offset is wrong."""
        offset = np.stack([self.mz.offset, self.intensity.offset], axis=1).ravel()
        end = offset + np.stack([self.mz.stored, self.intensity.stored], axis=1).ravel()
        order = np.flatnonzero(end > offset)
        if (np.diff(offset[order]) < 0).any():
            order = order[np.argsort(offset[order], kind="stable")]
        offset, end = offset[order], end[order]
        same = (offset[1:] == offset[:-1]) & (end[1:] == end[:-1])
        clash = np.flatnonzero((offset[1:] < end[:-1]) & ~same)
        if not len(clash):
            return
        spectrum = int(order[clash[0] + 1]) // 2
        text = (
            f"{len(clash)} arrays overlap others in {self.ibd}, the first in spectrum {spectrum}: "
            "their offsets cannot all be right"
        )
        if self.rounded:
            raise SourceError(
                f"{self.path}: {text}, and some are written with an exponent or a point: "
                "the exporter lost digits, export the file again"
            )
        self.findings.contradict(text)

    def _check_rest(self) -> None:
        # A file of empty spectra holds its identifier and nothing else.
        ends = [int((a.offset + a.stored).max()) for a in (self.mz, self.intensity)]
        last = max(UUID_BYTES, *ends)
        if last < self.ibd_size and not (self.flags & scan.FLAG_OTHER_ARRAY).any():
            self.findings.contradict(
                f"{self.ibd} has {self.ibd_size - last} bytes after the last array"
            )


def _said(value: Any) -> str:  # noqa: ANN401 - a NumPy scalar
    return "?" if value == MISSING else str(int(value))


def distinct(keys: Longs) -> tuple[Longs, Longs]:
    """Return the different values, ascending, and which of them each key is."""
    if bool((keys == keys[0]).all()):
        return keys[:1].copy(), np.zeros(len(keys), np.int64)
    values, code = np.unique(keys, return_inverse=True)
    return values, code.astype(np.int64)


def _only_size(keys: Longs, terms: int) -> int:
    """Return the bytes per value of the other arrays with these terms, if they agree, else 0."""
    sizes = {key & 15 for key in keys.tolist() if key >> 4 == terms and key & 15}
    return sizes.pop() if len(sizes) == 1 else 0
