"""Readers: one way in for every format, found by what the path looks like.

A reader knows one format and nothing of what becomes of its spectra. It hands out
an `Acquisition` (columns, in row order) and fills a caller's buffer with the bytes
of consecutive rows. A new format is one file here and one line in `FORMATS`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SettingsError, SourceError, SourceMissingError
from gpuconvert.mobility_axis import MobilityAxis
from gpuconvert.settings import Settings
from gpuconvert.spectra import Acquisition, RawBatch


class Reader(Protocol):
    """An open source. Safe to use from several threads at once."""

    acquisition: Acquisition

    def read(self, first: int, last: int, into: NDArray[np.uint8]) -> RawBatch:
        """Return rows [first, last), their bytes in `into`.

        The rows must share one entry of ``acquisition.encoding``; `into` must hold at
        least `batch_bytes(first, last)`. The batch stays valid until `into` is reused.
        """
        ...

    def batch_bytes(self, first: int, last: int) -> int:
        """Return the bytes of buffer that rows [first, last) need."""
        ...

    def mz_extent(self) -> tuple[float, float]:
        """Return the smallest and largest m/z of all spectra, in Th."""
        ...

    def check_unchanged(self) -> None:
        """Raise SourceError if a file changed since it was opened."""
        ...

    def close(self) -> None:
        """Close the files; the reader cannot be used afterwards."""
        ...


@runtime_checkable
class MobilityReader(Protocol):
    """A reader whose spectra can be had parted by ion mobility as well.

    mobility : the bins, or None where they were not asked for
    """

    acquisition: Acquisition
    mobility: MobilityAxis | None

    def read_mobility(self, first: int, last: int, into: NDArray[np.uint8]) -> RawBatch:
        """Return rows [first, last) as one spectrum for every mobility bin there may be peaks in.

        Number ``row * n_bins + bin`` stands for a row of the batch, ascending. Together
        the spectra of a row have the counts of its spectrum. Otherwise as `Reader.read`.
        """
        ...


@runtime_checkable
class StatesExtent(Protocol):
    """A reader whose tables tell the m/z range of all spectra, without reading one."""

    def stated_extent(self) -> tuple[float, float] | None:
        """Return what `Reader.mz_extent` does; None where that would read spectra."""
        ...


FORMATS: dict[str, str] = {
    ".imzml": "gpuconvert.readers.imzml:ImzmlReader",
    ".imzml.gz": "gpuconvert.readers.imzml:ImzmlReader",
    ".d": "gpuconvert.readers.bruker:BrukerReader",
    ".mzpeak": "gpuconvert.readers.mzpeak:MzPeakReader",
}
"""Reader class by lower-case suffix, longest first; loaded when first needed."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "ibd": (".imzml", ".imzml.gz"),
    "spectrum": (".d",),
    "region": (".d",),
    "ms_level": (".d",),
    "calibration": (".d",),
    "mobility_bins": (".d",),
}
"""Settings that mean something for some formats only, and the suffixes of those."""


def find_suffix(path: Path) -> str:
    """Return the entry of `FORMATS` that `path` belongs to; SourceError where there is none."""
    name = path.name.lower()
    for suffix in sorted(FORMATS, key=len, reverse=True):
        if name.endswith(suffix):
            return suffix
    inside = name.startswith("analysis.t") and path.resolve().parent.suffix.lower() == ".d"
    hint = "; name the .d folder, not a file in it" if inside else ""
    raise SourceError(
        f"{path} is not a known kind of input: expected a name ending in {', '.join(FORMATS)}{hint}"
    )


def _check_options(suffix: str, settings: Settings) -> None:
    """Refuse a setting that means nothing for a format, where it was given."""
    default = Settings()
    for name, suffixes in OPTIONS.items():
        if suffix not in suffixes and getattr(settings, name) != getattr(default, name):
            raise SettingsError(
                f"--{name.replace('_', '-')} has no meaning for {suffix} sources, only for "
                f"{', '.join(suffixes)}; leave it out"
            )


def open_reader(path: str | Path, settings: Settings) -> Reader:
    """Return a reader for `path`.

    Raises
    ------
    SourceMissingError
        Where nothing is at `path`.
    SourceError
        Where the input is refused.
    SettingsError
        Where a setting is given that has no meaning for the format.
    """
    source = Path(path)
    if source.name in ("", ".."):
        # Given from within: its name tells the format.
        source = source.resolve()
    if not source.exists():
        raise SourceMissingError(f"{source} does not exist; check the path")
    suffix = find_suffix(source)
    _check_options(suffix, settings)
    module, _, name = FORMATS[suffix].partition(":")
    reader: Any = getattr(importlib.import_module(module), name)
    opened: Reader = reader(source, settings)
    return opened


def require_pixels(acquisition: Acquisition) -> None:
    """Raise SourceError where the spectra of a source have no pixels."""
    if not acquisition.imaging:
        raise SourceError(
            f"{acquisition.path} is no imaging data: none of its {acquisition.n_spectra} spectra "
            "has a position; 'gpuconvert inspect' shows what is in it"
        )


def with_mobility(reader: Reader) -> tuple[MobilityReader, MobilityAxis] | None:
    """Return a reader that parts its spectra by ion mobility, and the bins; None if not asked."""
    if isinstance(reader, MobilityReader) and reader.mobility is not None:
        return reader, reader.mobility
    return None


def cut_batches(
    reader: Reader, first: int, last: int, slot_bytes: int
) -> Iterator[tuple[int, int]]:
    """Yield consecutive ranges of rows [first, last) that share one encoding.

    Each fits a buffer of `slot_bytes`, or is a single row that is larger by itself.
    """
    acquisition = reader.acquisition
    room = slot_bytes - reader.batch_bytes(first, first)
    ends = np.cumsum(acquisition.raw_bytes[first:last])
    codes = acquisition.encoding[first:last]
    changes = np.append(np.flatnonzero(codes[1:] != codes[:-1]) + 1, last - first)
    begin = 0
    while begin < last - first:
        spent = int(ends[begin - 1]) if begin else 0
        fits = int(np.searchsorted(ends, spent + room, "right"))
        change = int(changes[np.searchsorted(changes, begin, "right")])
        end = min(max(fits, begin + 1), change)
        yield first + begin, first + end
        begin = end
