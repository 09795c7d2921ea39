"""Spectra as a time-of-flight digitizer's file packs them: inflated, and not decoded.

A batch may hold frames instead of arrays. Their points are found where the batch is
resampled: by a backend, or by `Packed.unpack` for whoever else wants points. A frame is

``indices``
    the indices of its points as float64, then their intensities as float32.
``samples``
    a word for every sample of the digitizer: its intensity; those of 0 are no points.
``scans``
    words of S scans with P peaks: word 0 means nothing; words 1 to S-1 are twice the peaks
    of scans 0 to S-2, the last scan has the rest; then P pairs (step, intensity). Within a
    scan the steps add up to the index plus one. The peaks of all scans of one spectrum that
    have the same index are one point: their sum, as a whole number, then scaled.

A word is 32 bits in four byte planes: all lowest bytes of the frame, then all second
bytes, and so on. `gpuconvert.calibration` says how an index becomes m/z.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.unpacking import (
    BAD_COUNTS,
    BAD_INDEX,
    OTHER_SAMPLES,
    unpack_indices,
    unpack_samples,
    unpack_scans,
)

Content = Literal["indices", "samples", "scans"]
Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Floats = NDArray[np.float64]

POINT_BYTES = 12
"""An unpacked point: m/z as float64 and intensity as float32."""

_DAMAGED = "is damaged: {0}; copy it again"
_WORDS = {
    BAD_COUNTS: _DAMAGED.format("its scans claim more peaks than the frame has"),
    BAD_INDEX: _DAMAGED.format("a peak lies outside the digitizer's range"),
    OTHER_SAMPLES: (
        "has other samples than when it was opened; it changed while it was read: start again"
    ),
}


class Unpacked(NamedTuple):
    """The points of packed spectra.

    raw : (n_bytes,) uint8
    mz_at, intensity_at : (n_spectra,) int64, where in `raw` the m/z of each spectrum begin, as
        float64, and its intensities, as float32
    n_points : (n_spectra,) int64
    """

    raw: Bytes
    mz_at: Longs
    intensity_at: Longs
    n_points: Longs


@dataclass(frozen=True, slots=True)
class Packed:
    """How the points of a batch of spectra are packed; a spectrum may have no frame.

    Columns are in the order of the frames, which is that of the spectra.

    content : how frames are packed
    path, number : of the file, and (n_frames,) int64 of each frame, for messages
    begin : (n_frames,) int64, byte of the batch's `raw` where each begins, a multiple of 8
    n_peaks : (n_frames,) int64, points of a frame; of "scans" its peaks, at least one
    scan_at : (n_frames + 1,) int64; frame f has scans [scan_at[f], scan_at[f + 1]), at least
        one; a frame that is not of "scans" counts as one
    owner : (n_scans,) int64, spectrum of the batch that each scan belongs to, or -1. All
        scans of a spectrum are of one frame, and spectra ascend with their frames
    scale : (n_frames,) float64, what intensities of "scans" are multiplied by
    n_samples : of the digitizer; indices are below it
    models : (n_models, MODEL_SIZE) float64, see `gpuconvert.calibration`
    model : (n_frames,) int64, row of `models`
    factor : (n_frames,) float64, f of the frame's temperatures
    """

    content: Content
    path: str
    number: Longs
    begin: Longs
    n_peaks: Longs
    scan_at: Longs
    owner: Longs
    scale: Floats
    n_samples: int
    models: Floats
    model: Longs
    factor: Floats

    @property
    def point_at(self) -> Longs:
        """Where the room for the points of each frame begins; (n_frames + 1,) int64."""
        return np.concatenate([[0], np.cumsum(self.n_peaks)]).astype(np.int64)

    @property
    def n_bytes(self) -> Longs:
        """Bytes of each frame that are read; (n_frames,) int64."""
        return frame_bytes(self.content, self.n_peaks, np.diff(self.scan_at), self.n_samples)

    def select(self, keep: Longs, n_spectra: int) -> Packed:
        """Return what is of the distinct spectra `keep`, of `n_spectra` there are, alone."""
        place = np.full(n_spectra + 1, -1)
        place[keep] = np.arange(len(keep))
        owner = place[self.owner]
        sizes = np.diff(self.scan_at)
        frame = np.repeat(np.arange(len(sizes)), sizes)
        used = np.flatnonzero(np.bincount(frame[owner >= 0], minlength=len(sizes)))
        inside = np.isin(frame, used)
        return replace(
            self, number=self.number[used], begin=self.begin[used], n_peaks=self.n_peaks[used],
            scan_at=np.concatenate([[0], np.cumsum(sizes[used])]).astype(np.int64),
            owner=owner[inside], scale=self.scale[used], model=self.model[used],
            factor=self.factor[used],
        )  # fmt: skip

    def trimmed(self, raw: Bytes) -> tuple[Packed, Bytes]:
        """Return the same without the bytes before its first frame and after its last."""
        if not len(self.begin):
            return self, raw[:0]
        first, last = int(self.begin.min()), int((self.begin + self.n_bytes).max())
        return replace(self, begin=self.begin - first), raw[first:last]

    def unpack(self, raw: Bytes, n_spectra: int) -> Unpacked:
        """Return the points of all spectra; SourceError where a frame is damaged.

        This is the definition of unpacking; backends hold theirs against it.
        """
        point_at = self.point_at
        room = int(point_at[-1])
        points = np.empty(POINT_BYTES * room, np.uint8)
        mz, intensity = points[: 8 * room].view(np.float64), points[8 * room :].view(np.float32)
        place, counts = np.zeros(n_spectra, np.int64), np.zeros(n_spectra, np.int64)
        of_model = (self.models, self.model, self.factor)
        if self.content == "scans":
            codes = unpack_scans(
                raw, self.begin, point_at, self.scan_at, self.owner, self.scale, self.n_samples,
                *of_model, mz, intensity, place, counts,
            )  # fmt: skip
            self.refuse(codes)
        else:
            place[self.owner], counts[self.owner] = point_at[:-1], self.n_peaks
            find = unpack_samples if self.content == "samples" else unpack_indices
            self.refuse(find(raw, self.begin, point_at, self.n_samples, *of_model, mz, intensity))
        return Unpacked(points, 8 * place, 8 * room + 4 * place, counts)

    def refuse(self, codes: Longs) -> None:
        """Raise SourceError for the first frame whose code says damage.

        codes : (n_frames,) int64, of `gpuconvert.unpacking`; 0 is none
        """
        damaged = np.flatnonzero(codes)
        if len(damaged):
            frame = int(damaged[0])
            raise SourceError(
                f"{self.path}: frame {self.number[frame]} {_WORDS[int(codes[frame])]}"
            )


def frame_bytes(content: Content, n_peaks: Longs, n_scans: Longs, n_samples: int) -> Longs:
    """Return the bytes of frames with so many peaks and scans; (n_frames,) int64."""
    if content == "samples":
        return np.full(len(n_peaks), 4 * n_samples, np.int64)
    if content == "indices":
        return POINT_BYTES * n_peaks
    return 4 * (n_scans + 2 * n_peaks)
