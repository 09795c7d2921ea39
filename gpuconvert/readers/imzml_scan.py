"""The spectrum list of an imzML as columns: a tokenizer that knows only what a reader needs.

The list is scanned in blocks, in one pass, without building any element. What the
tokenizer does not understand for certain (entities, comments, numbers that are not
plain integers, broken nesting) it does not judge: it gives up, and the file is parsed
again by `gpuconvert.readers.imzml_slow`, which defines what is right.

This module also owns the table that both fill.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled
from gpuconvert.readers.imzml_bytes import (
    MISSING,
    Bytes,
    byte_at,
    find_byte,
    hash_bytes,
    integer_at,
    seven_digits,
    word_at,
    word_of,
)

Longs = NDArray[np.int64]
Groups = tuple[Bytes, Longs, Longs, Longs, Longs]
"""Referenceable groups as the tokenizer takes them; see `imzml_terms.group_table`."""

X, Y, Z, MZ_OFFSET, MZ_LENGTH, MZ_STORED = 0, 1, 2, 3, 4, 5
INTENSITY_OFFSET, INTENSITY_LENGTH, INTENSITY_STORED, TERMS = 6, 7, 8, 9
N_COLUMNS = 10
"""Rows of the (N_COLUMNS, n_spectra) int64 table; offsets and stored sizes in bytes.

TERMS packs the term bits of the m/z array (16 bits), of the intensity array (16 bits)
and of the spectrum (16 bits), then the flags, from the lowest bit up.
"""

IS_MZ, IS_INTENSITY, ZLIB, UNCOMPRESSED, UNSUPPORTED = 1, 2, 4, 8, 16
INT8, INT16, INT32, INT64, FLOAT16, FLOAT32, FLOAT64 = 32, 64, 128, 256, 512, 1024, 2048
PROFILE, CENTROID, POSITIVE, NEGATIVE = 4096, 8192, 16384, 32768
"""Bits of the terms that matter, 16 in all."""

FLAG_OTHER_ARRAY, FLAG_TWICE, FLAG_BOTH, FLAG_CONFLICT = 1, 2, 4, 8
"""Spectrum has an array of another kind; two of one kind; one that claims both kinds; a
number (of the spectrum, or of an array that is read) that is said twice and differs."""

IMS = 10_000_000
"""What is added to the number of an ``IMS:`` accession to tell it from an ``MS:`` one."""

LOOKUP_SIZE = 4202
"""Length of the lookup table: bits of a term; or -1 to -6 for the number it carries
(x, y, z, offset, length, stored size); or 0."""

SLACK = 64
"""Bytes that must follow the last one scanned, so that words can be compared in place."""

MORE, FULL, DONE, ODD, CUT = 0, 1, 2, 3, 4
"""How a scan ended: at the last byte; at the last column; at the end of the list; at
something for the slow path; inside a tag or a spectrum."""

_CV, _REFERENCE, _SPECTRUM, _ARRAY, _SPECTRUM_END, _ARRAY_END, _LIST_END, _ODD_TAG = range(1, 9)
_ACCESSION, _VALUE, _NAME, _REF, _OTHER, _TAG_END, _CLOSED_END = range(1, 8)

# What is known of the spectrum at hand: columns 0 to 8 of the table, then
_SPECTRUM_TERMS, _FLAGS, _MZ_TERMS, _INTENSITY_TERMS = 9, 10, 11, 12
_OFFSET, _ARRAY_TERMS, _DEPTH, _N_KNOWN = 13, 16, 17, 18
# where three numbers begin at _OFFSET, and _DEPTH is 0 in the list, 1 in a spectrum, 2 in an array.

_CONFLICT = 1 << 16
"""Beside the 16 bits of the terms of the array at hand: one of its numbers differs."""

_CV_NAME, _SPECTRUM_NAME, _ARRAY_NAME = (
    word_of("cvParam"),
    word_of("spectrum"),
    word_of("binaryDa"),
)
_LIST_NAME, _ARRAY_REST = word_of("List"), word_of("taArray")
_REFERENCE_NAME = (word_of("referenc"), word_of("eablePar"), word_of("amGroupR"), word_of("ef"))
_ACCESSION_NAME, _VALUE_NAME, _NAME_NAME = word_of("accessio"), word_of("value"), word_of("name")
_REF_NAME, _MS = word_of("ref"), word_of("MS:")


@compiled
def lookup_place(code: int) -> int:
    """Return where the lookup table has the term with this accession; 0 for all other terms."""
    if 1000000 < code < 1004000:
        return code - 1000000
    if IMS + 1000000 <= code < IMS + 1000200:
        return code - IMS - 1000000 + 4000
    if IMS + 1100000 <= code < IMS + 1100002:
        return code - IMS - 1100000 + 4200
    return 0


@compiled
def rename_bits(bits: int, first: int, second: int) -> int:
    """Return the bit meant by a spectrum type term whose name begins with two characters.

    Some writers call ``MS:1000128`` (profile spectrum) "positive scan": there the name is right.
    """
    if bits & (PROFILE | CENTROID):
        if first | 32 == 112 and second | 32 == 111:  # po
            return POSITIVE
        if first | 32 == 110 and second | 32 == 101:  # ne
            return NEGATIVE
    return bits


@compiled
def _ends(b: Bytes, i: int) -> bool:
    """Return whether the name of a tag ends before `i`."""
    after = byte_at(b, i)
    return bool(after <= 32 or after == 62 or after == 47)


@compiled
def _tag(b: Bytes, i: int) -> tuple[int, int]:
    """Return what kind of tag opens at `i`, where a ``<`` is, and where its name ends."""
    closing = int(byte_at(b, i + 1) == 47)
    at = i + 1 + closing
    word = word_at(b, at, 8)
    if word & np.uint64(0x00FFFFFFFFFFFFFF) == _CV_NAME and not closing and _ends(b, at + 7):
        return _CV, at + 7
    if word == _SPECTRUM_NAME and _ends(b, at + 8):
        return (_SPECTRUM_END if closing else _SPECTRUM), at + 8
    if word == _ARRAY_NAME and word_at(b, at + 8, 7) == _ARRAY_REST and _ends(b, at + 15):
        return (_ARRAY_END if closing else _ARRAY), at + 15
    if word == _SPECTRUM_NAME and word_at(b, at + 8, 4) == _LIST_NAME and _ends(b, at + 12):
        return (_LIST_END if closing else _ODD_TAG), at + 12
    if (
        word == _REFERENCE_NAME[0]
        and word_at(b, at + 8, 8) == _REFERENCE_NAME[1]
        and word_at(b, at + 16, 8) == _REFERENCE_NAME[2]
        and word_at(b, at + 24, 2) == _REFERENCE_NAME[3]
        and _ends(b, at + 26)
        and not closing
    ):
        return _REFERENCE, at + 26
    first = byte_at(b, at)
    return (_ODD_TAG if first == 33 or first == 63 else 0), at


@compiled
def _attribute_name(b: Bytes, i: int, hi: int) -> tuple[int, int]:
    """Return the kind of the attribute whose name begins at `i`, and where the name ends."""
    word = word_at(b, i, 8)
    kind, size = _OTHER, 0
    if word == _ACCESSION_NAME and byte_at(b, i + 8) == 110:
        kind, size = _ACCESSION, 9
    elif word & np.uint64(0xFFFFFFFFFF) == _VALUE_NAME:
        kind, size = _VALUE, 5
    elif word & np.uint64(0xFFFFFFFF) == _NAME_NAME:
        kind, size = _NAME, 4
    elif word & np.uint64(0xFFFFFF) == _REF_NAME:
        kind, size = _REF, 3
    stop = i + size
    while stop < hi and byte_at(b, stop) > 32 and byte_at(b, stop) != 61 and byte_at(b, stop) != 62:
        stop += 1
    return (kind if stop == i + size else _OTHER), stop


@compiled
def _attribute(b: Bytes, i: int, hi: int) -> tuple[int, int, int]:
    """Return the next attribute inside a tag: its kind, and where its value begins and ends.

    At the end of the tag: _TAG_END or _CLOSED_END (``/>``), and the place after it twice.
    Where there is neither: -CUT or -ODD.
    """
    while i < hi and byte_at(b, i) <= 32:
        i += 1
    if i < hi and byte_at(b, i) == 62:
        return _TAG_END, i + 1, i + 1
    if i + 1 < hi and byte_at(b, i) == 47:
        return (_CLOSED_END if byte_at(b, i + 1) == 62 else -ODD), i + 2, i + 2
    kind, i = _attribute_name(b, i, hi)
    while i < hi and (byte_at(b, i) <= 32 or byte_at(b, i) == 61):
        i += 1
    quote = byte_at(b, i)
    if i >= hi or (quote != 34 and quote != 39):
        return (-CUT if i >= hi else -ODD), i, i
    stop = find_byte(b, i + 1, hi, quote)
    return (kind if stop < hi else -CUT), i + 1, stop


@compiled
def _end_of_tag(b: Bytes, i: int, hi: int) -> tuple[int, int]:
    """Return how a tag ends, as `_attribute` says it, and the place after it."""
    while True:
        kind, _, stop = _attribute(b, i, hi)
        if kind < 0 or kind >= _TAG_END:
            return kind, stop
        i = stop + 1


@compiled
def _accession(b: Bytes, start: int, stop: int) -> int:
    """Return an accession as a number, 0 for other text, -1 where it has an entity."""
    ims = int(stop - start == 11 and byte_at(b, start) == 73)
    at = start + ims
    if stop - at == 10 and word_at(b, at, 3) == _MS:
        digits = seven_digits(b, at + 3)
        if digits >= 0:
            return digits + ims * IMS
    return -1 if find_byte(b, start, stop, 38) < stop else 0


@compiled
def _find_group(b: Bytes, start: int, stop: int, ids: Bytes, id_at: Longs, slots: Longs) -> int:
    """Return the group whose id is [start, stop), or -1; -2 where the id has an entity."""
    mask = len(slots) - 1
    slot = hash_bytes(b, start, stop) & mask
    while slots[slot] >= 0:
        group = int(slots[slot])
        first = id_at[group]
        if id_at[group + 1] - first == stop - start:
            k = 0
            while k < stop - start and ids[first + k] == b[start + k]:
                k += 1
            if k == stop - start:
                return group
        slot = (slot + 1) & mask
    return -2 if find_byte(b, start, stop, 38) < stop else -1


@compiled
def _note_number(now: Longs, field: int, value: int) -> None:
    if field < 3:
        if now[field] != MISSING and now[field] != value:
            now[_FLAGS] |= FLAG_CONFLICT
        now[field] = value
    elif now[_DEPTH] == 2:
        at = _OFFSET + field - 3
        if now[at] != MISSING and now[at] != value:
            now[_ARRAY_TERMS] |= _CONFLICT
        now[at] = value


@compiled
def _note_bits(now: Longs, bits: int) -> None:
    now[_ARRAY_TERMS if now[_DEPTH] == 2 else _SPECTRUM_TERMS] |= bits


@compiled
def _note_term(b: Bytes, i: int, hi: int, now: Longs, lookup: Longs) -> tuple[int, int]:
    """Apply the cvParam whose attributes start at `i`; return (status, where to go on)."""
    bits = value = value_end = name = name_end = 0
    while True:
        kind, start, stop = _attribute(b, i, hi)
        if kind < 0:
            return -kind, i
        if kind >= _TAG_END:
            break
        if kind == _ACCESSION:
            code = _accession(b, start, stop)
            if code < 0:
                return ODD, i
            bits = lookup[lookup_place(code)]
            if bits == 0:
                return MORE, stop + 1
        elif kind == _VALUE:
            value, value_end = start, stop
        elif kind == _NAME:
            name, name_end = start, stop
        i = stop + 1
        if bits < 0 and value:
            break
    if bits < 0:
        number = integer_at(b, value, value_end)
        _note_number(now, -bits - 1, number)
        return (ODD if number == MISSING else MORE), i
    if bits & (PROFILE | CENTROID) and name_end - name >= 2:
        if byte_at(b, name) == 38 or byte_at(b, name + 1) == 38:
            return ODD, i
        bits = rename_bits(bits, byte_at(b, name), byte_at(b, name + 1))
    _note_bits(now, bits)
    return MORE, i


@compiled
def _find_reference(b: Bytes, i: int, hi: int) -> tuple[int, int, int]:
    """Return (status, begin, end) of the value of ``ref``; begin is end where there is none."""
    while True:
        kind, start, stop = _attribute(b, i, hi)
        if kind < 0:
            return -kind, i, i
        if kind == _REF or kind >= _TAG_END:
            return MORE, start, stop
        i = stop + 1


@compiled
def _end_array(now: Longs) -> None:
    """Store the array at hand as m/z or intensity."""
    kind = now[_ARRAY_TERMS] & (IS_MZ | IS_INTENSITY)
    if kind == 0 or kind == IS_MZ | IS_INTENSITY:
        now[_FLAGS] |= FLAG_BOTH if kind else FLAG_OTHER_ARRAY
        return
    at = MZ_OFFSET if kind == IS_MZ else INTENSITY_OFFSET
    terms = _MZ_TERMS if kind == IS_MZ else _INTENSITY_TERMS
    if now[terms]:
        now[_FLAGS] |= FLAG_TWICE
    if now[_ARRAY_TERMS] & _CONFLICT:
        now[_FLAGS] |= FLAG_CONFLICT
    for k in range(3):
        now[at + k] = now[_OFFSET + k]
    now[terms] = now[_ARRAY_TERMS] & (_CONFLICT - 1)


@compiled
def _end_spectrum(now: Longs, table: Longs, n: int) -> None:
    for column in range(9):
        table[column, n] = now[column]
    table[TERMS, n] = (
        now[_MZ_TERMS]
        | now[_INTENSITY_TERMS] << 16
        | now[_SPECTRUM_TERMS] << 32
        | now[_FLAGS] << 48
    )


@compiled
def _begin(now: Longs, kind: int) -> None:
    """Forget what was known of the spectrum or of the array before."""
    first, terms, last = (0, 9, _OFFSET) if kind == _SPECTRUM else (_OFFSET, 16, _DEPTH)
    for k in range(first, last):
        now[k] = MISSING if k < terms else 0


@compiled
def _step(kind: int, depth: int) -> int:
    """Return how deep a tag leads, or -1 where it cannot stand."""
    if kind == _SPECTRUM:
        return 1 if depth == 0 else -1
    if kind == _ARRAY:
        return 2 if depth == 1 else -1
    if kind == _ARRAY_END:
        return 1 if depth == 2 else -1
    if kind == _SPECTRUM_END:
        return 0 if depth == 1 else -1
    return 0 if kind == _LIST_END and depth == 0 else -1


@compiled
def scan(
    b: Bytes, lo: int, hi: int, lookup: Longs, groups: Groups, table: Longs, n: int
) -> tuple[int, int, int]:
    """Scan bytes [lo, hi) of `b` from between two spectra, into `table` from column `n`.

    Returns (status, spectra in the table, place after the last whole spectrum, or
    after the end of the list). `b` holds at least SLACK bytes beyond `hi`.
    """
    ids, id_at, slots, group_bits, group_numbers = groups
    now = np.zeros(_N_KNOWN, np.int64)
    i, safe = lo, lo
    while True:
        i = find_byte(b, i, hi, 60)
        if i >= hi:
            return (CUT if now[_DEPTH] else MORE), n, safe
        kind, i = _tag(b, i)
        status = end = 0
        if kind == 0 or (kind <= _REFERENCE and now[_DEPTH] == 0):
            continue
        if kind == _CV:
            status, i = _note_term(b, i, hi, now, lookup)
        elif kind == _REFERENCE:
            status, i, stop = _find_reference(b, i, hi)
            group = _find_group(b, i, stop, ids, id_at, slots) if status == MORE else -1
            if group >= 0:
                _note_bits(now, group_bits[group])
                for field in range(6):
                    if group_numbers[group, field] != MISSING:
                        _note_number(now, field, group_numbers[group, field])
            status = ODD if group == -2 else status
        else:
            now[_DEPTH] = _step(kind, now[_DEPTH])
            end, i = _end_of_tag(b, i, hi)
            status = ODD if now[_DEPTH] < 0 else -min(end, 0)
        if status != MORE or kind == _LIST_END:
            return (status or DONE), n, (i if status == MORE else safe)
        if kind in (_SPECTRUM, _ARRAY):
            _begin(now, kind)
        if kind == _ARRAY_END or (kind == _ARRAY and end == _CLOSED_END):
            _end_array(now)
            now[_DEPTH] = 1
        if kind == _SPECTRUM_END or (kind == _SPECTRUM and end == _CLOSED_END):
            if n == table.shape[1]:
                return FULL, n, safe
            _end_spectrum(now, table, n)
            now[_DEPTH] = 0
            n, safe = n + 1, i
