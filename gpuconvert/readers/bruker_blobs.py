"""The compiled loops over what a Bruker frame holds: headers, byte planes, scans, LZF.

Samples and scans are stored as 32-bit words in four byte planes: all lowest bytes, then
all second bytes, and so on. A kernel that meets something impossible returns one of the
negative codes of `DAMAGE` instead of a count.

TSF profile: one word per sample of the digitizer, its intensity.

TDF, compression 2: word 0 means nothing; words 1 to S-1 are twice the peaks of scans 0 to
S-2, the last scan has the rest; then P pairs (step, intensity). Within a scan the steps
add up to the index plus one.

TDF, compression 1: S+1 offsets of 4 bytes from the beginning of the frame, then each
scan in LZF; inflated it is a list of 32-bit integers, of which v > 0 is an intensity at
the current index, which then moves on by one, and v <= 0 moves the index on by -v.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gpuconvert.compiled import compiled, inner

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Words = NDArray[np.uint32]
Floats = NDArray[np.float64]

BAD_COUNTS, BAD_INDEX, BAD_LZF, BAD_PEAKS = -1, -2, -3, -4
DAMAGE = {
    BAD_COUNTS: "its scans claim more peaks than the frame has",
    BAD_INDEX: "a peak lies outside the digitizer's range",
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

BLOCK = 64
"""Samples looked at together: most of a profile is empty."""


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


@inner
def _plane_word(planes: Bytes, n: int, k: int) -> int:
    low = np.int64(planes[k]) | np.int64(planes[n + k]) << 8
    return int(low | np.int64(planes[2 * n + k]) << 16 | np.int64(planes[3 * n + k]) << 24)


@inner
def _is_empty(planes: Bytes, n: int, first: int, last: int) -> bool:
    """Return whether samples [first, last) are all zero."""
    # Slices, because from their beginning on Numba sees no negative index and uses vectors.
    a, b = planes[first:last], planes[n + first : n + last]
    c, d = planes[2 * n + first : 2 * n + last], planes[3 * n + first : 3 * n + last]
    found = np.uint8(0)
    for k in range(len(a)):
        found |= a[k] | b[k] | c[k] | d[k]
    return bool(found == 0)


@compiled
def count_samples(planes: Bytes, n: int) -> int:
    """Return how many of `n` samples are not zero. `planes` has 4 n bytes."""
    count = 0
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        if _is_empty(planes, n, first, last):
            continue
        for k in range(first, last):
            if planes[k] | planes[n + k] | planes[2 * n + k] | planes[3 * n + k]:
                count += 1
    return count


@compiled
def compact_samples(
    planes: Bytes, n: int, index: Floats, intensity: NDArray[np.float32]
) -> int:  # fmt: skip
    """Write index and intensity of the samples that are not zero; return how many.

    Never more than ``len(index)`` are written; one more is returned where there are more.
    """
    count = 0
    for first in range(0, n, BLOCK):
        last = min(first + BLOCK, n)
        if _is_empty(planes, n, first, last):
            continue
        for k in range(first, last):
            value = _plane_word(planes, n, k)
            if value == 0:
                continue
            if count == len(index):
                return count + 1
            index[count] = k
            intensity[count] = value
            count += 1
    return count


@compiled
def split_scans(
    planes: Bytes, n_scans: int, n_peaks: int, scan: Ints, tof: Ints, intensity: Words
) -> int:  # fmt: skip
    """Write scan, index and stored intensity of every peak of a TDF frame; return how many.

    `planes` has ``4 (n_scans + 2 n_peaks)`` bytes, the outputs at least `n_peaks` entries.
    """
    n = n_scans + 2 * n_peaks
    done = 0
    for s in range(n_scans):
        count = n_peaks - done
        if s < n_scans - 1:
            count = _plane_word(planes, n, s + 1) // 2
        if count > n_peaks - done:
            return BAD_COUNTS
        place = -1
        for k in range(done, done + count):
            place += _plane_word(planes, n, n_scans + 2 * k)
            if place < 0 or place >= 2**31:
                return BAD_INDEX
            scan[k] = s
            tof[k] = place
            intensity[k] = _plane_word(planes, n, n_scans + 2 * k + 1)
        done += count
    return done


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


@compiled
def split_lzf_scans(
    blob: Bytes, n_scans: int, n_peaks: int, buffer: Bytes, scan: Ints, tof: Ints,
    intensity: Words,
) -> int:  # fmt: skip
    """Do what `split_scans` does for a frame in LZF.

    `blob` is the whole frame with its header; `buffer` takes one inflated scan.
    """
    done = 0
    if HEAD_BYTES + 4 * (n_scans + 1) > len(blob):
        return BAD_LZF
    for s in range(n_scans):
        first = _word_at(blob, HEAD_BYTES + 4 * s)
        last = _word_at(blob, HEAD_BYTES + 4 * (s + 1))
        if first == last:
            continue
        if first < HEAD_BYTES or last < first or last > len(blob):
            return BAD_LZF
        size = inflate_lzf(blob[first:last], buffer)
        if size < 0 or size % 4:
            return BAD_LZF
        place = 0
        for k in range(0, size, 4):
            value = int(np.int32(_word_at(buffer, k)))
            if value <= 0:
                place -= value
                continue
            if done == n_peaks:
                return BAD_COUNTS
            if place >= 2**31 - 1:
                return BAD_INDEX
            scan[done] = s
            tof[done] = place
            intensity[done] = value
            done += 1
            place += 1
    return done


@compiled
def group_peaks(
    scan: Ints, tof: Ints, intensity: Words, scan_bin: Longs, starts: Longs, out_tof: Ints,
    out_intensity: Words,
) -> None:  # fmt: skip
    """Order peaks by the bin of their scan, within a bin as they were.

    Parameters
    ----------
    scan, tof, intensity
        (n_peaks,) of every peak.
    scan_bin
        (n_scans,) bin of each scan.
    starts
        (n_bins + 1,) output: where each bin begins.
    out_tof, out_intensity
        (n_peaks,) outputs.
    """
    starts[:] = 0
    for k in range(len(scan)):
        starts[scan_bin[scan[k]] + 1] += 1
    for b in range(1, len(starts)):
        starts[b] += starts[b - 1]
    cursor = starts[:-1].copy()
    for k in range(len(scan)):
        b = scan_bin[scan[k]]
        out_tof[cursor[b]] = tof[k]
        out_intensity[cursor[b]] = intensity[k]
        cursor[b] += 1


@compiled
def add_scans(
    tof: Ints, intensity: Words, scale: float, sums: Longs, seen: NDArray[np.uint64],
    index: Floats, total: NDArray[np.float32],
) -> int:  # fmt: skip
    """Add up the peaks of all scans that have the same index; return how many indices.

    Parameters
    ----------
    tof, intensity
        (n_peaks,) of every peak.
    scale
        Of the sums; they are formed from the stored whole numbers, then scaled once.
    sums, seen
        (n_samples,) and one bit for each of them, all zero; they are zero again afterwards.
    index, total
        Outputs with room for n_peaks; index ascends.
    """
    for k in range(len(tof)):
        if tof[k] >= len(sums):
            for j in range(k):
                sums[tof[j]] = 0
                seen[tof[j] >> 6] = 0
            return BAD_INDEX
        sums[tof[k]] += np.int64(intensity[k])
        seen[tof[k] >> 6] |= np.uint64(1) << np.uint64(tof[k] & 63)
    count = 0
    for word in range(len(seen)):
        if seen[word] == 0:
            continue
        for bit in range(64):
            if seen[word] >> np.uint64(bit) & np.uint64(1):
                place = 64 * word + bit
                index[count] = place
                total[count] = sums[place] * scale
                sums[place] = 0
                count += 1
        seen[word] = 0
    return count
