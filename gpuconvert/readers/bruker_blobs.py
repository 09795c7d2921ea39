"""The compiled loops over what a Bruker frame is stored as: headers, and scans in LZF.

A TDF frame of compression 1 has, after its header, S+1 offsets of 4 bytes from the
beginning of the frame, then each scan in LZF; inflated it is a list of 32-bit integers, of
which v > 0 is an intensity at the current index, which then moves on by one, and v <= 0
moves the index on by -v. It is written as the words that compression 2 inflates to, see
`gpuconvert.packed`. A loop that meets something impossible returns one of the negative
codes of `DAMAGE` instead of a count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]

BAD_LZF, BAD_PEAKS = -1, -2
DAMAGE = {
    BAD_LZF: "a scan cannot be inflated",
    BAD_PEAKS: "its scans hold another number of peaks than the frame",
}
"""What each code says."""

SIZE, SECOND, FIRST_CONTENT, SECOND_CONTENT = 0, 1, 2, 3
N_HEAD = 4
"""Columns of `read_heads`: the first two words of a frame, and what its zstd frames inflate to."""

NOT_STATED, NOT_ZSTD = -1, -2
"""Instead of an inflated size."""

HEAD_BYTES = 8
"""The two words that every frame begins with."""

LARGEST_WORD = 2**32 - 1
"""A step beyond it has no place in a frame."""


@inner
def _word_at(raw: Bytes, at: int) -> int:
    low = np.int64(raw[at]) | np.int64(raw[at + 1]) << 8
    return int(low | np.int64(raw[at + 2]) << 16 | np.int64(raw[at + 3]) << 24)


@inner
def _content_size(raw: Bytes, at: int, end: int) -> int:
    """Return how many bytes the zstd frame at `at` inflates to, by its header (RFC 8878)."""
    if end - at < 6 or _word_at(raw, at) != 0xFD2FB528:
        return NOT_ZSTD
    descriptor = np.int64(raw[at + 4])
    flag, single, dictionary = descriptor >> 6, descriptor >> 5 & 1, descriptor & 3
    place = at + 5 + (1 - single)
    if dictionary:
        place += 1 << (dictionary - 1)
    width = 1 << flag
    if flag == 0 and single == 0:
        return NOT_STATED
    if place + width > end:
        return NOT_ZSTD
    size = np.int64(0)
    for k in range(width):
        size |= np.int64(raw[place + k]) << (8 * k)
    return int(size + 256 if flag == 1 else size)


@compiled
def read_heads(raw: Bytes, at: Longs, room: Longs, pairs: int) -> Longs:
    """Return the header of each frame; (n_frames, N_HEAD) int64.

    Parameters
    ----------
    raw
        Holds the frames.
    at, room
        (n_frames,) where each begins, and the bytes there are; 0 for a frame that is not read.
    pairs
        1 where a frame holds two zstd frames (TSF), 0 where it holds one (TDF).
    """
    heads = np.zeros((len(at), N_HEAD), np.int64)
    for f in range(len(at)):
        heads[f, FIRST_CONTENT:] = NOT_ZSTD
        if room[f] < HEAD_BYTES:
            continue
        size = _word_at(raw, at[f])
        second = _word_at(raw, at[f] + 4)
        heads[f, SIZE], heads[f, SECOND] = size, second
        if size > room[f]:
            continue
        begin, end = at[f] + HEAD_BYTES, at[f] + size
        middle = min(begin + second, end) if pairs else end
        heads[f, FIRST_CONTENT] = _content_size(raw, begin, middle)
        if pairs:
            heads[f, SECOND_CONTENT] = _content_size(raw, middle, end)
    return heads


@compiled
def inflate_lzf(source: Bytes, target: Bytes) -> int:
    """Inflate LZF data; return the bytes written to `target`, or BAD_LZF.

    A control byte below 32 is followed by that many bytes plus one; any other is a copy
    from what was written before: its upper 3 bits are the length less 2 (7: the next byte
    adds to it), its lower 5 bits and the next byte the distance less 1.
    """
    at, done = 0, 0
    while at < len(source):
        control = int(source[at])
        at += 1
        if control < 32:
            length = control + 1
            if at + length > len(source) or done + length > len(target):
                return BAD_LZF
            for k in range(length):
                target[done + k] = source[at + k]
            at += length
            done += length
            continue
        length = control >> 5
        if length == 7:
            if at >= len(source):
                return BAD_LZF
            length += int(source[at])
            at += 1
        if at >= len(source):
            return BAD_LZF
        before = done - ((control & 31) << 8 | int(source[at])) - 1
        at += 1
        length += 2
        if before < 0 or done + length > len(target):
            return BAD_LZF
        for k in range(length):
            target[done + k] = target[before + k]
        done += length
    return done


@inner
def _put_word(planes: Bytes, n: int, k: int, value: int) -> None:
    for plane in range(4):
        planes[plane * n + k] = value >> (8 * plane) & 255


@inner
def _put_peaks(scan: Bytes, planes: Bytes, n_scans: int, n_peaks: int, done: int) -> int:
    """Write the peaks of an inflated scan after `done` others; return how many there are then."""
    n = n_scans + 2 * n_peaks
    place, before = 0, -1
    for k in range(0, len(scan), 4):
        value = int(np.int32(_word_at(scan, k)))
        if value <= 0:
            place -= value
            continue
        if done == n_peaks:
            return BAD_PEAKS
        if place - before > LARGEST_WORD:
            return BAD_LZF
        _put_word(planes, n, n_scans + 2 * done, place - before)
        _put_word(planes, n, n_scans + 2 * done + 1, value)
        done += 1
        before = place
        place += 1
    return done


@compiled
def pack_lzf_scans(blob: Bytes, n_scans: int, n_peaks: int, buffer: Bytes, planes: Bytes) -> int:
    """Write a frame in LZF as words in byte planes; return how many peaks it has.

    Parameters
    ----------
    blob
        The whole frame with its header.
    buffer
        Takes one inflated scan: a peak is a word, and another one for the gap before it.
    planes
        ``4 (n_scans + 2 n_peaks)`` bytes.
    """
    n, done = n_scans + 2 * n_peaks, 0
    if HEAD_BYTES + 4 * (n_scans + 1) > len(blob):
        return BAD_LZF
    for s in range(n_scans):
        first = _word_at(blob, HEAD_BYTES + 4 * s)
        last = _word_at(blob, HEAD_BYTES + 4 * (s + 1))
        if first != last and (first < HEAD_BYTES or last < first or last > len(blob)):
            return BAD_LZF
        size = 0 if first == last else inflate_lzf(blob[first:last], buffer)
        if size < 0 or size % 4:
            return BAD_LZF
        before = done
        done = _put_peaks(buffer[:size], planes, n_scans, n_peaks, done)
        if done < 0:
            return done
        # The word after that of a scan says what it has; nothing says it of the last one.
        _put_word(planes, n, (s + 1) % n_scans, 2 * (done - before) if s + 1 < n_scans else 0)
    return done if done == n_peaks else BAD_PEAKS
