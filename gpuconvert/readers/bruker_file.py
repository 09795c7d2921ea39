"""Where the frames of a Bruker ``.d`` lie in its binary file, read and checked but not decoded.

A frame begins with two words, its size and another number; what follows is known from
the tables. Everything a header says is held against them before anything is inflated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gpuconvert import packed
from gpuconvert.errors import SourceError
from gpuconvert.packed import POINT_BYTES
from gpuconvert.readers import bruker_blobs as blobs
from gpuconvert.readers.bruker_sql import Frames
from gpuconvert.readers.extents import ExtentFile

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Content = Literal["line", "profile", "scans"]

PACKED: dict[Content, packed.Content] = {
    "line": "indices", "profile": "samples", "scans": "scans",
}  # fmt: skip
"""How the inflated frames of each content are packed."""

WIDE_POINT_BYTES = 16
"""A stored peak of a line spectrum that has a width too."""

LZF, ZSTD = 1, 2

MOST_INFLATED = 1 << 15
"""Bytes that a byte of a zstd frame may become: a block of at most 128 KiB takes at least 4
(RFC 8878, 3.1.1.2). LZF makes less of it."""


@dataclass(frozen=True, slots=True)
class Form:
    """How the frames of a file are stored, and what of them is wanted.

    content : "line" or "profile" of TSF, "scans" of TDF
    compression : of TDF, LZF or ZSTD
    n_samples : of the digitizer
    """

    content: Content
    compression: int
    n_samples: int


class BlobFile:
    """An open binary file and some of its frames, in the order of the rows that they become.

    path : of the file
    form : how frames are stored
    number, n_peaks : (n_rows,) int64, as the tables have them
    n_scans : (n_rows,) int64, the most that a header may state
    stored : (n_rows,) int64, bytes to read of each; 0 where there is nothing to read
    """

    def __init__(self, path: Path, frames: Frames, rows: Longs, form: Form) -> None:
        self.path = path
        self.form = form
        self.number, self.n_peaks = frames.number[rows], frames.n_peaks[rows]
        self._place = frames.place[rows]
        self._file = ExtentFile(path)
        try:
            self.stored = self._find_extents(frames)
            self._check_claims()
            self.n_scans = frames.n_scans[rows]
            if form.compression == LZF:
                # They hold more scans than they state; each takes an offset of 4 bytes.
                self.n_scans = self.stored // 4
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _check_claims(self) -> None:
        """Raise SourceError where a frame states more peaks than it can hold.

        Memory is taken for as many as it states.
        """
        if self.form.content == "profile":
            return
        if self.form.content == "line":
            most = np.full_like(self.stored, self.form.n_samples)
            limit = "the {0} samples of the digitizer"
        else:
            most, limit = self.stored * (MOST_INFLATED // 8), "its {1} bytes can hold"
        many = np.flatnonzero((self.stored > 0) & (self.n_peaks > most))
        if len(many):
            row = int(many[0])
            raise SourceError(
                f"{self.path}: frame {self.number[row]} states {self.n_peaks[row]} NumPeaks, more "
                f"than {limit.format(most[row], self.stored[row])}; copy the whole folder again"
            )

    def _find_extents(self, frames: Frames) -> Longs:
        """Return the bytes from each frame to the next one in the file; 0 where none are read.

        Raises
        ------
        SourceError
            Where a frame lies beyond the end of the file.
        """
        used = np.ones(len(self._place), bool)
        if self.form.content != "profile":
            used = self.n_peaks > 0
        inside = (frames.place >= 0) & (frames.place <= self._file.size)
        places = np.unique(frames.place[inside])
        ends = np.append(places[1:], self._file.size)
        at = np.searchsorted(places, self._place)
        stored: Longs = (
            ends[np.minimum(at, len(places) - 1)] - self._place
            if len(places)
            else (np.zeros_like(self._place))
        )
        lost = used & ((self._place < 0) | (self._place > self._file.size - blobs.HEAD_BYTES))
        if lost.any():
            row = int(np.argmax(lost))
            raise SourceError(
                f"{self.path}: frame {self.number[row]} begins at byte {self._place[row]}, "
                f"but the file has {self._file.size} bytes; is it truncated? copy it again"
            )
        stored[~used] = 0
        self._check_end(stored)
        return stored

    def _check_end(self, stored: Longs) -> None:
        """Refuse a file that ends within its last frame; leave out what follows that frame."""
        last = np.flatnonzero((self._place + stored == self._file.size) & (stored > 0))
        if not len(last):
            return
        head = np.empty(blobs.HEAD_BYTES, np.uint8)
        self._file.read_extents(
            self._place[last[:1]], np.array([len(head)]), np.zeros(1, np.int64), head
        )
        size = int(head.view("<u4")[0])
        if size > stored[last[0]]:
            raise SourceError(
                f"{self.path}: frame {self.number[last[0]]} ends at byte "
                f"{self._place[last[0]] + size}, but the file has {self._file.size} bytes; is it "
                "truncated? copy it again"
            )
        stored[last] = max(size, blobs.HEAD_BYTES)

    def fetch(self, rows: Longs, into: Bytes, at: Longs) -> Longs:
        """Read the stored bytes of rows to `at`; return their checked headers."""
        stored = self.stored[rows]
        self._file.read_extents(self._place[rows], stored, at, into)
        heads = blobs.read_heads(into, at, stored, int(self.form.content != "scans"))
        self._check_heads(rows, heads, stored)
        return heads

    def _check_heads(self, rows: Longs, heads: Longs, stored: Longs) -> None:
        size, second = heads[:, blobs.SIZE], heads[:, blobs.SECOND]
        n_peaks, used = self.n_peaks[rows], stored > 0
        bad = used & ((size < blobs.HEAD_BYTES) | (size > stored))
        self._refuse(rows, bad, "its header says {0} bytes, but {1} are there", size, stored)
        content = heads[:, blobs.FIRST_CONTENT]
        if self.form.content == "scans":
            words = "its header says {0} scans, expected 1 to {1}"
            n_scans = self.n_scans[rows]
            self._refuse(rows, used & ((second < 1) | (second > n_scans)), words, second, n_scans)
            if self.form.compression == ZSTD:
                words = "its peaks inflate to {0} bytes, expected {1}"
                expected = 4 * (second + 2 * n_peaks)
                self._refuse(rows, used & (content != expected), words, content, expected)
            return
        short = used & (blobs.HEAD_BYTES + second > size)
        words = "its line spectrum ends at byte {0}, after the frame of {1} bytes"
        self._refuse(rows, short, words, blobs.HEAD_BYTES + second, size)
        if self.form.content == "line":
            words = "its line spectrum inflates to {0} bytes, expected {1}"
            expected = POINT_BYTES * n_peaks
            wrong = used & (content != expected) & (content != WIDE_POINT_BYTES * n_peaks)
            self._refuse(rows, wrong, words, content, expected)
            return
        content = heads[:, blobs.SECOND_CONTENT]
        expected = np.full(len(rows), 4 * self.form.n_samples)
        words = "its profile inflates to {0} bytes, expected {1}"
        self._refuse(rows, used & (content != expected), words, content, expected)

    def _refuse(
        self, rows: Longs, bad: NDArray[np.bool_], words: str, found: Longs, expected: Longs
    ) -> None:
        if bad.any():
            k = int(np.argmax(bad))
            raise self.damage(int(rows[k]), words.format(_said(found[k]), int(expected[k])))

    def damage(self, row: int, words: str) -> SourceError:
        """Return the error that says what is wrong with the frame of a row."""
        return SourceError(
            f"{self.path}: frame {self.number[row]} is damaged: {words}; copy it again"
        )


def _said(size: int) -> str:
    """Return an inflated size in words."""
    words = {blobs.NOT_STATED: "an unstated number of", blobs.NOT_ZSTD: "no zstd"}
    return words.get(int(size), str(int(size)))
