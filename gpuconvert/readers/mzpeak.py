"""The mzPeak reader: metadata as columns when it is opened, signal row groups on demand.

Profiles lie in one member and centroids in another; a spectrum that is in both is
read from one of them, never from both. Rows that lie together in the file are placed
together in a batch, whatever the order of their pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError
from gpuconvert.mzpeak_tables import COMMON_MZ, OWN_BLOCK
from gpuconvert.readers.findings import Findings, row_order
from gpuconvert.readers.imzml_facts import ScanSettings, Term, pixel_size
from gpuconvert.readers.mzpeak_archive import Archive, understood
from gpuconvert.readers.mzpeak_decode import Space
from gpuconvert.readers.mzpeak_signal import Signal
from gpuconvert.readers.mzpeak_tables import NOWHERE, Spectra, file_metadata, read_spectra
from gpuconvert.readers.source_files import Declared, Stamps, digest
from gpuconvert.settings import Settings
from gpuconvert.spectra import (
    Acquisition,
    Encoding,
    Instrument,
    RawBatch,
    Representation,
    SourceIdentity,
)

Ints = NDArray[np.int64]

DATA, PEAKS = 0, 1
"""The members that hold signals: profiles (and centroids of old writers), centroids."""

READER_BYTES = {"point": 120 << 20, "chunk": 200 << 20}
"""pyarrow, and the pages and batches of its cursors, by layout. Measured at 80 and 180 MB more than
an imzML takes, for 10 and for 48 million points alike."""

SINGLE_EPS = float(np.finfo(np.float32).eps)
"""Relative precision of float32."""

_REPRESENTATIONS: tuple[Representation | None, ...] = (None, "profile", "centroid")
_NO_MODEL = {"MS:1000031", "MS:1000032", "MS:1000529"}


class MzPeakReader:
    """An open mzPeak; see `gpuconvert.readers.Reader`."""

    def __init__(self, path: Path, settings: Settings) -> None:
        self.path = path
        with understood(path, "the archive"), ExitStack() as undo:
            self._archive = Archive(path)
            undo.callback(self._archive.close)
            self._stamps = Stamps(self._archive.files)
            spectra = read_spectra(self._archive)
            self._signals = _open_signals(self._archive, spectra)
            self._take(spectra, settings)
            undo.pop_all()

    def _take(self, spectra: Spectra, settings: Settings) -> None:
        """Choose the spectra to read, and describe them."""
        findings = Findings(self.path, settings.strict)
        chosen = _choose(self.path, spectra, findings)
        stated = file_metadata(self._archive, spectra.footer)
        places, origin = _rebase(self.path, spectra, chosen)
        rows = row_order(self.path, places, origin, findings, settings.duplicates)
        self._rows = chosen[rows]
        self._models = spectra.models[self._rows]
        member = self._choose_members(settings, findings)
        kind = _representations(spectra.representation[self._rows], member, settings)
        encodings, encoding, self._member_of = self._encodings(member, kind, stated)
        n_points = self._count(member)
        common = _common_points(stated, n_points) if len(encodings) == 1 else 0
        item_bytes = np.array([np.dtype(item.intensity_dtype).itemsize for item in encodings])
        if not common:
            item_bytes += [np.dtype(item.mz_dtype).itemsize for item in encodings]
        size, size_source = (1.0, 1.0), "none"
        if spectra.imaging:
            size, size_source = _pixel_size(self.path, stated, findings, settings)
        z, y, x = (column[rows].astype(np.int32) for column in places)
        self.acquisition = Acquisition(
            path=str(self.path), format="mzPeak", identity=_identity(self._archive),
            x=x, y=y, z=z, order=self._rows, n_points=n_points,
            raw_bytes=n_points * item_bytes[encoding], encoding=encoding, encodings=encodings,
            shared_mz_points=common, polarity=spectra.polarity[self._rows], region=None,
            origin=origin, pixel_size=size, pixel_size_source=size_source,
            instrument=_instrument(stated), mz_range=_mz_range(stated),
            warnings=tuple(findings.warnings), metadata=self._metadata(spectra, stated),
            imaging=spectra.imaging,
            reader_bytes=max(READER_BYTES[s.layout.root] for s in self._signals.values()),
        )  # fmt: skip
        self._common_mz = self._read_common()

    def _count(self, member: Ints) -> Ints:
        """Return the points of every row in the member it is read from; (n_rows,) int64."""
        n_points = np.zeros(len(member), np.int64)
        for name, signal in self._signals.items():
            own = member == name
            n_points[own] = signal.n_points[self._rows[own]]
        return n_points

    def _read_common(self) -> NDArray[Any]:
        """Return the m/z of all spectra, those of the first; empty where they have their own."""
        count, encoding = self.acquisition.shared_mz_points, self.acquisition.encodings[0]
        mz = np.empty(count, encoding.mz_dtype)
        if count:
            intensity = np.empty(count, encoding.intensity_dtype)
            self._decode(0, 1, Space(mz, intensity, np.zeros(count, bool)))
        return mz

    def read(self, first: int, last: int, into: NDArray[np.uint8]) -> RawBatch:
        """Return rows [first, last), their bytes in `into`."""
        acquisition = self.acquisition
        code = int(acquisition.encoding[first]) if first < last else 0
        encoding = acquisition.encodings[code]
        types = np.dtype(encoding.mz_dtype), np.dtype(encoding.intensity_dtype)
        n_points = acquisition.n_points[first:last]
        total = int(n_points.sum())
        if acquisition.shared_mz_points:
            begins = 0, self._common_mz.nbytes
            into[: begins[1]] = self._common_mz.view(np.uint8)
            mz = np.empty(total, types[0])
        else:
            # The wider array first, so that both are aligned.
            begins = (0, total * types[0].itemsize)
            if types[1].itemsize > types[0].itemsize:
                begins = (total * types[1].itemsize, 0)
            mz = into[begins[0] : begins[0] + total * types[0].itemsize].view(types[0])
        intensity = into[begins[1] : begins[1] + total * types[1].itemsize].view(types[1])
        before = self._decode(first, last, Space(mz, intensity, np.zeros(total, bool)))
        mz_at = begins[0] + before * types[0].itemsize
        if acquisition.shared_mz_points:
            self._check_common(mz)
            mz_at = np.zeros(last - first, np.int64)
        return RawBatch(
            into, mz_at, begins[1] + before * types[1].itemsize, n_points, *types,
            np.arange(first, last), encoding.representation, mz_eps=encoding.mz_eps,
        )  # fmt: skip

    def _decode(self, first: int, last: int, space: Space) -> Ints:
        """Put the points of rows [first, last) into `space`; return where each row begins there.

        Rows lie in the order of the file, in which they are decoded.
        """
        n_points, spectra = self.acquisition.n_points[first:last], self._rows[first:last]
        order = np.argsort(spectra, kind="stable")
        if len(space.mz):
            signal = self._signals[self._member_of[self.acquisition.encoding[first]]]
            with understood(self.path, "its signal"):
                signal.read(spectra[order], self._models[first:last][order], space)
        before = np.empty(len(spectra), np.int64)
        before[order] = np.cumsum(n_points[order]) - n_points[order]
        return before

    def _check_common(self, mz: NDArray[Any]) -> None:
        """Raise SourceError where spectra do not have the m/z that all are said to have."""
        different = (mz.reshape(-1, len(self._common_mz)) != self._common_mz).any(axis=1)
        if different.any():
            raise SourceError(
                f"{self.path}: all spectra are said to have one m/z axis, but "
                f"{int(different.sum())} of a batch of {len(different)} have another; was it "
                "changed? export it again"
            )

    def batch_bytes(self, first: int, last: int) -> int:
        """Return the bytes of buffer that rows [first, last) need."""
        shared = self._common_mz.nbytes if first < last else 0
        return shared + int(self.acquisition.raw_bytes[first:last].sum())

    def mz_extent(self) -> tuple[float, float]:
        """Return the smallest and largest m/z that the file has of all spectra, in Th."""
        member_of = np.array(self._member_of)[self.acquisition.encoding]
        found = []
        for member, signal in self._signals.items():
            chosen = np.zeros(len(signal.n_points), bool)
            chosen[self._rows[member_of == member]] = True
            with understood(self.path, "its signal"):
                extent = signal.extent(chosen)
            if extent is not None:
                found.append(extent)
        if not found:
            return (0.0, 0.0)
        return min(low for low, _ in found), max(high for _, high in found)

    def check_unchanged(self) -> None:
        """Raise SourceError if a file changed since it was opened."""
        self._stamps.check()

    def declared(self) -> tuple[Declared, ...]:
        """Return the SHA-512 that the index states of members; archives before D4 have none."""
        return self._archive.checksums()

    def close(self) -> None:
        """Close the files; the reader cannot be used afterwards."""
        self._archive.close()

    def _choose_members(self, settings: Settings, findings: Findings) -> Ints:
        """Return which member each row is read from; (n_rows,) int64."""
        n_points = {name: signal.n_points[self._rows] for name, signal in self._signals.items()}
        nothing = np.zeros(len(self._rows), np.int64)
        data, peaks = n_points.get(DATA, nothing), n_points.get(PEAKS, nothing)
        both = (data > 0) & (peaks > 0)
        wants_peaks = settings.spectrum_type == "centroid"
        if both.any():
            used = "centroids" if wants_peaks else "profiles"
            findings.note(
                f"{int(both.sum())} spectra are there as profiles and as centroids; their {used} "
                "are used, --spectrum-type profile or centroid chooses"
            )
        use_peaks = (peaks > 0) & ((data == 0) | wants_peaks)
        return np.where(use_peaks, PEAKS, DATA)

    def _is_single(self, signal: Signal, stated: dict[str, Any]) -> bool:
        """Return whether the m/z of a member are float32 in wider columns.

        Old writers put those of their sources there; ours keeps the format of its source.
        """
        if any(item.get("id") == OWN_BLOCK for item in _dicts(stated.get("software_list"))):
            return False
        with understood(self.path, "its signal"):
            return signal.is_single()

    def _encodings(
        self, member: Ints, kind: Ints, stated: dict[str, Any]
    ) -> tuple[tuple[Encoding, ...], NDArray[np.uint8], tuple[int, ...]]:
        """Return the encodings, that of every row, and the member each stands for."""
        keys, code = np.unique(member * len(_REPRESENTATIONS) + kind, return_inverse=True)
        members = [int(key) // len(_REPRESENTATIONS) for key in keys]
        # A row without points in either member has the encoding of whichever there is.
        any_member = next(iter(self._signals))
        sources = [name if name in self._signals else any_member for name in members]
        single = {name: self._is_single(self._signals[name], stated) for name in set(sources)}
        encodings = tuple(
            Encoding(
                self._signals[name].layout.mz_dtype.newbyteorder("<").str,
                self._signals[name].layout.intensity_dtype.newbyteorder("<").str,
                representation=_REPRESENTATIONS[int(key) % len(_REPRESENTATIONS)],
                mz_eps=SINGLE_EPS if single[name] else 0.0,
            )
            for name, key in zip(sources, keys, strict=True)
        )
        return encodings, code.astype(np.uint8), tuple(members)

    def _metadata(self, spectra: Spectra, stated: dict[str, Any]) -> dict[str, Any]:
        layouts = {
            ("data", "peaks")[name]: signal.layout.root for name, signal in self._signals.items()
        }
        return stated | {"dialect": "packed" if spectra.packed else "split", "layouts": layouts}


def _open_signals(archive: Archive, spectra: Spectra) -> dict[int, Signal]:
    members = {DATA: archive.member("spectrum", "data_arrays"),
               PEAKS: archive.member("spectrum", "peaks")}  # fmt: skip
    signals = {
        name: Signal(member, spectra.index)
        for name, member in members.items()
        if member is not None
    }
    if not signals:
        raise SourceError(f"{archive.path} holds no signals of spectra; export it again")
    return signals


def _choose(path: Path, spectra: Spectra, findings: Findings) -> Ints:
    """Return the positions of the spectra that become pixels, in the order of the file."""
    if not len(spectra.index):
        raise SourceError(f"{path} has no spectra; is the acquisition complete?")
    if not spectra.imaging:
        return np.arange(len(spectra.index))
    placed = spectra.position[:, 0] != NOWHERE
    if spectra.torn.any():
        findings.note(
            f"{int(spectra.torn.sum())} spectra have scans on different pixels and are left out"
        )
    lost = int((~placed & ~spectra.torn).sum())
    if lost:
        findings.note(f"{lost} spectra have no position and are left out")
    if not placed.any():
        raise SourceError(f"{path} has no spectrum that lies on one pixel; export it again")
    lowest = int(spectra.ms_level[placed].min())
    # Some writers leave the level of all spectra at 0.
    fragments = placed & (spectra.ms_level > max(lowest, 1))
    if fragments.any():
        findings.note(
            f"{int(fragments.sum())} spectra of a level above MS {max(lowest, 1)} are left out"
        )
    return np.flatnonzero(placed & ~fragments)


def _common_points(stated: dict[str, Any], n_points: Ints) -> int:
    """Return the number of points of the one m/z axis that our own writer states, or 0."""
    own = stated.get(OWN_BLOCK)
    count = own.get(COMMON_MZ) if isinstance(own, dict) else None
    fits = isinstance(count, int) and count > 0 and len(n_points) > 1
    return int(count) if fits and count is not None and bool((n_points == count).all()) else 0


def _rebase(
    path: Path, spectra: Spectra, chosen: Ints
) -> tuple[tuple[Ints, Ints, Ints], tuple[int, int, int]]:
    """Return z, y, x of the chosen spectra from 0, and the origin (x, y, z)."""
    if not spectra.imaging:
        zeros = np.zeros(len(chosen), np.int64)
        return (zeros, zeros, np.arange(len(chosen))), (0, 0, 0)
    x, y, z = spectra.position[chosen].T
    z = np.where(z == NOWHERE, z[z != NOWHERE].min(initial=1), z)
    origin = int(x.min()), int(y.min()), int(z.min())
    for name, column, low in zip("xyz", (x, y, z), origin, strict=True):
        if int(column.max()) - low >= 2**31:
            raise SourceError(
                f"{path}: position {name} runs from {low} to {int(column.max())}, expected fewer "
                "than 2^31 pixels; export it again"
            )
    return (z - origin[2], y - origin[1], x - origin[0]), origin


def _representations(stated: NDArray[np.int8], member: Ints, settings: Settings) -> Ints:
    """Return which of `_REPRESENTATIONS` each row is; (n_rows,) int64."""
    if settings.spectrum_type == "auto":
        kinds = np.where(member == PEAKS, 2, stated)
    else:
        kinds = np.full(len(stated), _REPRESENTATIONS.index(settings.spectrum_type))
    return kinds.astype(np.int64)


def _identity(archive: Archive) -> SourceIdentity:
    files = archive.files
    names = ["mzPeak"] if files == [archive.path] else [file.name for file in files]
    return SourceIdentity(
        tuple(
            (name, file.stat().st_size, digest(file))
            for name, file in zip(names, files, strict=True)
        )
    )


def _terms(parameters: object) -> Iterator[Term]:
    """Yield the parameters of a JSON object of the archive as terms."""
    for item in parameters if isinstance(parameters, list) else ():
        if not isinstance(item, dict):
            continue
        value = item.get("value")
        yield Term(
            str(item.get("accession") or ""), str(item.get("name") or ""),
            "" if value is None else str(value),
            str(item.get("unit") or item.get("unit_accession") or ""), "",
        )  # fmt: skip


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _pixel_size(
    path: Path, stated: dict[str, Any], findings: Findings, settings: Settings
) -> tuple[tuple[float, float], str]:
    """Return the pixel size (x, y) in micrometres, and where it is from."""
    if settings.pixel_size is not None:
        return settings.pixel_size, "given"
    for item in _dicts(stated.get("scan_settings_list")):
        terms = tuple(_terms(item.get("parameters")))
        size, warnings = pixel_size(path, ScanSettings(str(item.get("id")), terms, (None, None)))
        if size is not None:
            for text in warnings:
                findings.note(text)
            return size, "header (IMS:1000046)"
    findings.note("the metadata give no pixel size; 1 um is assumed, give --pixel-size")
    return (1.0, 1.0), "assumed"


def _mz_range(stated: dict[str, Any]) -> tuple[float, float] | None:
    """Return the m/z range that the imaging block declares, or None."""
    block = stated.get("imaging")
    declared = block.get("mz_range") if isinstance(block, dict) else None
    if not isinstance(declared, dict):
        return None
    low, high = (declared.get(key) for key in ("min", "max"))
    if not (isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    return (float(low), float(high)) if 0 <= low < high < float("inf") else None


def _instrument(stated: dict[str, Any]) -> Instrument:
    """Return the default instrument configuration."""
    listed = _dicts(stated.get("instrument_configuration_list"))
    run = stated.get("run")
    default = run.get("default_instrument_id") if isinstance(run, dict) else None
    chosen = [item for item in listed if item.get("id") == default] or listed
    if not chosen:
        return Instrument()
    own = list(_terms(chosen[0].get("parameters")))
    named = [term.name or term.value for term in own if term.accession not in _NO_MODEL]
    named += [term.value for term in own if term.accession == "MS:1000031" and term.value]
    terms, analysers = own, []
    for part in _dicts(chosen[0].get("components")):
        found = list(_terms(part.get("parameters")))
        terms += found
        if part.get("component_type") == "analyzer":
            analysers += [term.name for term in found if not term.value]
    return Instrument(
        named[0] if named else "", ", ".join(dict.fromkeys(analysers)),
        tuple(f"{term.accession} {term.name} {term.value}".strip() for term in terms),
    )  # fmt: skip
