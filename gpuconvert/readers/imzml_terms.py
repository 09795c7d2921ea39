"""The controlled vocabulary of imzML: which terms a reader needs, and what their values say.

Terms are known by accession, never by name, with one exception (`rename_bits`).
"""

from __future__ import annotations

import re
from decimal import Decimal

import numpy as np

from gpuconvert.readers.imzml_bytes import hash_bytes
from gpuconvert.readers.imzml_scan import (
    CENTROID,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    IMS,
    INT8,
    INT16,
    INT32,
    INT64,
    IS_INTENSITY,
    IS_MZ,
    LOOKUP_SIZE,
    NEGATIVE,
    POSITIVE,
    PROFILE,
    SLACK,
    UNCOMPRESSED,
    UNSUPPORTED,
    ZLIB,
    Groups,
    Longs,
    lookup_place,
)

BITS = {
    "MS:1000514": IS_MZ, "MS:1000515": IS_INTENSITY, "MS:1000574": ZLIB, "MS:1000576": UNCOMPRESSED,
    "MS:1000519": INT32, "MS:1000520": FLOAT16, "MS:1000521": FLOAT32, "MS:1000522": INT64,
    "MS:1000523": FLOAT64, "IMS:1000141": INT32, "IMS:1000142": INT64, "IMS:1100000": INT8,
    "IMS:1100001": INT16, "MS:1000127": CENTROID, "MS:1000128": PROFILE, "MS:1000129": NEGATIVE,
    "MS:1000130": POSITIVE,
}  # fmt: skip
"""Bit of every term that decides how a spectrum is read."""

UNSUPPORTED_TERMS = {
    "MS:1002312": "MS-Numpress linear prediction", "MS:1002313": "MS-Numpress positive integer",
    "MS:1002314": "MS-Numpress short logged float",
    "MS:1002746": "MS-Numpress linear prediction and zlib",
    "MS:1002747": "MS-Numpress positive integer and zlib",
    "MS:1002748": "MS-Numpress short logged float and zlib",
    "MS:1003088": "truncation and zlib", "MS:1003089": "delta prediction and zlib",
    "MS:1003090": "linear prediction and zlib", "MS:1003780": "Zstandard",
    "MS:1003781": "byte-shuffled Zstandard", "MS:1003782": "dictionary-encoded Zstandard",
}  # fmt: skip
"""Compressions that are known, so that they are refused instead of misread."""

NUMBERS = (
    "IMS:1000050", "IMS:1000051", "IMS:1000052", "IMS:1000102", "IMS:1000103", "IMS:1000104",
)  # fmt: skip
NUMBER_NAMES = (
    "position x", "position y", "position z",
    "external offset", "external array length", "external encoded length",
)  # fmt: skip
"""Terms that carry the six numbers of a spectrum and of its arrays, and their names."""

DTYPES = {
    INT8: "<i1", INT16: "<i2", INT32: "<i4", INT64: "<i8",
    FLOAT16: "<f2", FLOAT32: "<f4", FLOAT64: "<f8",
}  # fmt: skip
"""NumPy dtype of each dtype bit; imzML is little-endian throughout."""


def accession_code(accession: str) -> int:
    """Return an accession as the tokenizer numbers it; 0 where it is of another vocabulary."""
    match = re.fullmatch(r"(I?)MS:([0-9]{7})", accession)
    return int(match[2]) + (IMS if match[1] else 0) if match else 0


def _lookup_table() -> Longs:
    table = np.zeros(LOOKUP_SIZE, np.int64)
    for accession, bit in (BITS | dict.fromkeys(UNSUPPORTED_TERMS, UNSUPPORTED)).items():
        table[lookup_place(accession_code(accession))] = bit
    for field, accession in enumerate(NUMBERS):
        table[lookup_place(accession_code(accession))] = -1 - field
    return table


LOOKUP = _lookup_table()
"""(LOOKUP_SIZE,) int64, by `lookup_place`: term bits, or ``-1 - field`` of a number, or 0."""

_NUMBER = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?\s*", re.ASCII)


def parse_integer(text: str) -> int | None:
    """Return the integer in `text`, which may be written as ``1.156e+09``; None where it is none.

    A fraction, and a value that does not fit into 63 bits, is no integer here.
    """
    if len(text) > 64 or not _NUMBER.fullmatch(text):
        return None
    value = Decimal(text.strip())
    if value.adjusted() > 19 or value != value.to_integral_value():
        return None
    return int(value) if abs(value) < 2**63 else None


def is_plain(text: str) -> bool:
    """Return whether `text` is an integer written with digits alone."""
    return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def named_dtypes(terms: int) -> list[str]:
    """Return the dtypes that term bits name, the smallest first."""
    return [DTYPES[bit] for bit in DTYPES if terms & bit]


def choose_dtype(terms: int, size: int) -> str | None:
    """Return the dtype of an array, or None where the file does not decide.

    Parameters
    ----------
    terms
        Its term bits.
    size
        Bytes per value as its lengths say, which is trusted over the terms; 0 if unknown.
    """
    named = named_dtypes(terms)
    if not size:
        return named[0] if len(named) == 1 else None
    fitting = [name for name in named if np.dtype(name).itemsize == size]
    if fitting:
        return fitting[0] if len(fitting) == 1 else None
    kinds = {name[1] for name in named} or {"f"}
    guess = f"<{kinds.pop()}{size}"
    return guess if not kinds and guess in DTYPES.values() else None


def undecided_dtype(role: str, terms: int, size: int) -> str:
    """Return in words why `choose_dtype` gives None for an array."""
    named = named_dtypes(terms)
    said = " and ".join(named) if named else "no dtype"
    length = f"{size} bytes a point" if size else "nothing about the size of a point"
    return (
        f"the {role} array has {said} in its terms and its lengths say {length}, "
        "expected exactly one dtype; export it again"
    )


def group_table(groups: dict[str, tuple[int, tuple[int, ...]]]) -> Groups:
    """Return referenceable groups as arrays for the tokenizer.

    Parameters
    ----------
    groups
        By id: its term bits, and its numbers x, y, z, offset, length, stored size,
        MISSING where it has none.

    Returns
    -------
    tuple
        Ids as (n_bytes,) uint8 and where each begins, (n_groups + 1,) int64; a hash table of
        group numbers, (a power of two,) int64; term bits (n_groups,) int64; numbers
        (n_groups, 6) int64.
    """
    names = [name.encode("utf-8") for name in groups]
    ids = np.frombuffer(b"".join(names) + bytes(SLACK), np.uint8).copy()
    id_at = np.zeros(len(names) + 1, np.int64)
    np.cumsum([len(name) for name in names], out=id_at[1:])
    slots = np.full(1 << (2 * len(names) + 1).bit_length(), -1, np.int64)
    for group in range(len(names)):
        slot = int(hash_bytes(ids, id_at[group], id_at[group + 1])) & (len(slots) - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (len(slots) - 1)
        slots[slot] = group
    bits = np.array([entry[0] for entry in groups.values()], np.int64).reshape(-1)
    numbers = np.array([entry[1] for entry in groups.values()], np.int64).reshape(-1, 6)
    return ids, id_at, slots, bits, numbers
