"""The values that travel between the stages: what was acquired, and batches of spectra.

Nothing here reads a file or resamples; a value is checked where data enters
(reader, JSON) and is trusted afterwards. Everything per spectrum is a column,
never a Python object per spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from gpuconvert.packed import Packed

Representation = Literal["profile", "centroid"]

MAX_MZ = 1e6
"""m/z above this is not a mass-to-charge ratio but damage, in Th."""

MAX_INTENSITY = 1e30
"""Intensities above this could overflow float32 when summed, in counts."""

FAULT_ORDER = 1
FAULT_MZ = 2
FAULT_INTENSITY = 4
FAULT_NEGATIVE = 8
FAULT_WORDS = {
    FAULT_ORDER: "m/z decreases",
    FAULT_MZ: f"m/z is not a number between 0 and {MAX_MZ:g}",
    FAULT_INTENSITY: f"intensity is not a number below {MAX_INTENSITY:g}",
    FAULT_NEGATIVE: "intensity is negative",
}
"""Bits of a spectrum's fault code, and what each says."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the two arrays of a spectrum are stored, and what they mean.

    mz_dtype, intensity_dtype : NumPy names with byte order, for example ``"<f8"``
    mz_zlib, intensity_zlib : whether the stored bytes are zlib-compressed
    representation : ``"profile"``, ``"centroid"``, or None where the file does not say
    mz_eps : relative precision of the m/z where they were rounded to less than `mz_dtype`, or 0
    """

    mz_dtype: str
    intensity_dtype: str
    mz_zlib: bool = False
    intensity_zlib: bool = False
    representation: Representation | None = None
    mz_eps: float = 0.0


@dataclass(frozen=True, slots=True)
class Instrument:
    """What the header says about the instrument; empty where it says nothing.

    name : model or free text
    analyser : mass analyser in the words of the controlled vocabulary
    terms : every instrument term found, as ``accession name value``
    """

    name: str = ""
    analyser: str = ""
    terms: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """What tells one source from another, whatever its path.

    files : (role, size in bytes, content digest) of every file, in a fixed order;
        the digest is a SHA-256 over the head, the tail and evenly spread blocks
    uuid : the identifier that the file gives itself, lower-case hex, or ""
    checksum : (algorithm, lower-case hex) as declared by the file, or ("", "")
    """

    files: tuple[tuple[str, int, str], ...]
    uuid: str = ""
    checksum: tuple[str, str] = ("", "")

    def to_json(self) -> dict[str, Any]:
        """Return the identity as plain JSON values."""
        return {
            "files": [list(entry) for entry in self.files],
            "uuid": self.uuid,
            "checksum": list(self.checksum),
        }


@dataclass(frozen=True)
class Acquisition:
    """Everything the headers of one source say; columns are in row order.

    Rows are pixels in ascending (z, y, x); row ``i`` of every column is spectrum
    ``i`` of the output, whatever its place in the file.

    path : the source as the user named it
    format : for example ``"imzML"``
    x, y, z : (n_spectra,) int32, counted from 0 at the smallest value observed
    order : (n_spectra,) int64, position of the spectrum in the file, from 0
    n_points : (n_spectra,) int64
    raw_bytes : (n_spectra,) int64, bytes a spectrum takes in a batch, shared m/z not counted
    encoding : (n_spectra,) uint8, index into `encodings`
    shared_mz_points : number of points of the one m/z array that all spectra share, or 0
    polarity : (n_spectra,) int8; +1, -1, or 0 where unknown
    region : (n_spectra,) int32 region number, or None where the file has none
    origin : smallest observed (x, y, z), as in the file
    pixel_size : (x, y) in micrometres
    pixel_size_source : where `pixel_size` is from, in words; "assumed" where nothing said
    mz_range : (low, high) in Th as declared by the header, or None
    warnings : sentences for the user, in the order found
    metadata : further header content as plain JSON values
    imaging : whether the spectra have pixels; where not, they are strung along x
    reader_bytes : memory that reading takes beside the buffers it fills, whatever is read
    unpack_bytes : memory that unpacking any batch takes beside its points, see `unpack`
    """

    path: str
    format: str
    identity: SourceIdentity
    x: NDArray[np.int32]
    y: NDArray[np.int32]
    z: NDArray[np.int32]
    order: NDArray[np.int64]
    n_points: NDArray[np.int64]
    raw_bytes: NDArray[np.int64]
    encoding: NDArray[np.uint8]
    encodings: tuple[Encoding, ...]
    shared_mz_points: int
    polarity: NDArray[np.int8]
    region: NDArray[np.int32] | None
    origin: tuple[int, int, int]
    pixel_size: tuple[float, float]
    pixel_size_source: str
    instrument: Instrument = Instrument()
    mz_range: tuple[float, float] | None = None
    warnings: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    imaging: bool = True
    reader_bytes: int = 0
    unpack_bytes: int = 0

    @property
    def n_spectra(self) -> int:
        """Number of spectra, which is the number of rows of the output."""
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Extent of the pixel grid as (nz, ny, nx)."""
        if not len(self.x):
            return (0, 0, 0)
        return int(self.z.max()) + 1, int(self.y.max()) + 1, int(self.x.max()) + 1

    @property
    def representation(self) -> Representation | None:
        """What the file says of all its spectra; None where it is silent or mixed."""
        said = {self.encodings[code].representation for code in np.unique(self.encoding)}
        return said.pop() if len(said) == 1 else None


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive rows as bytes; decoding them is the backend's work.

    raw : (n_bytes,) uint8
    mz_at, intensity_at : (n_spectra,) int64, byte offsets of the two arrays in `raw`;
        no alignment is promised; every entry of `mz_at` is equal where m/z is shared
    n_points : (n_spectra,) int64; of packed spectra the most that there can be
    mz_dtype, intensity_dtype : little-endian dtypes, one for the whole batch
    rows : (n_spectra,) int64, output rows, ascending (equal only for duplicate pixels)
    representation : of every spectrum in the batch, as the file says
    packed : how to find the points where `raw` holds no arrays; the dtypes are then those of
        what `unpack` returns, and `mz_at` and `intensity_at` are empty
    mz_eps : relative precision of the m/z where they were rounded to less than `mz_dtype`, or 0
    """

    raw: NDArray[np.uint8]
    mz_at: NDArray[np.int64]
    intensity_at: NDArray[np.int64]
    n_points: NDArray[np.int64]
    mz_dtype: np.dtype[Any]
    intensity_dtype: np.dtype[Any]
    rows: NDArray[np.int64]
    representation: Representation | None = None
    packed: Packed | None = None
    mz_eps: float = 0.0

    @property
    def precision(self) -> float:
        """Relative precision of the m/z: that of their dtype, or what they were rounded to."""
        kind = self.mz_dtype if self.mz_dtype.kind == "f" else np.float64
        return max(float(np.finfo(kind).eps), self.mz_eps)

    @property
    def most_points(self) -> int:
        """The most points that all spectra together can have."""
        return int((self.n_points if self.packed is None else self.packed.n_peaks).sum())

    @property
    def shared_mz(self) -> bool:
        """Whether all spectra of the batch use one m/z array."""
        return (
            len(self.mz_at) > 1
            and bool((self.mz_at == self.mz_at[0]).all())
            and bool((self.n_points == self.n_points[0]).all())
        )


@dataclass(frozen=True, slots=True)
class RaggedSpectra:
    """Decoded spectra, one after the other.

    indptr : (n_spectra + 1,) int64; spectrum s owns points [indptr[s], indptr[s + 1])
    mz : (n_points,) float64, Th
    intensity : (n_points,) float64, counts
    mz_eps : relative precision of the m/z where they were rounded to less than float64, or 0
    """

    indptr: NDArray[np.int64]
    mz: NDArray[np.float64]
    intensity: NDArray[np.float64]
    mz_eps: float = 0.0


@dataclass(frozen=True, slots=True)
class CsrBlock:
    """Resampled spectra: coordinate format with its rows run-length coded.

    rows : (n_rows,) int64, output rows, ascending
    indptr : (n_rows + 1,) int64; row r owns non-zeros [indptr[r], indptr[r + 1])
    indices : (n_nonzero,) int32, bins, strictly ascending within a row
    data : (n_nonzero,) float32, counts or heights, above the threshold
    tic : (n_rows,) float64, sum of the source's intensities
    outside : (n_rows,) float64, the part of `tic` beyond the ends of the axis
    faults : (n_rows,) uint8, bits FAULT_*; a row with a fault has no non-zeros
    """

    rows: NDArray[np.int64]
    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]
    tic: NDArray[np.float64]
    outside: NDArray[np.float64]
    faults: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class CscBlock:
    """The non-zeros of a block sorted by bin; rows ascend within a bin.

    bins : (n_filled,) int32, bins with at least one non-zero, strictly ascending
    indptr : (n_filled + 1,) int64; ``bins[k]`` owns non-zeros [indptr[k], indptr[k + 1])
    rows : (n_nonzero,) int32, output rows
    data : (n_nonzero,) float32
    """

    bins: NDArray[np.int32]
    indptr: NDArray[np.int64]
    rows: NDArray[np.int32]
    data: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes at the peak of a step, on the host and on the device."""

    host: int
    device: int = 0


def _gather(
    raw: NDArray[np.uint8], at: NDArray[np.int64], indptr: NDArray[np.int64], dtype: np.dtype[Any]
) -> NDArray[Any]:
    """Return the values of `dtype` that start at bytes `at`, spectrum after spectrum."""
    counts = np.diff(indptr)
    if not indptr[-1]:
        return np.zeros(0, dtype)
    # A value at every byte: offsets in a file are promised to no alignment.
    everywhere: NDArray[Any] = np.ndarray(
        (len(raw) - dtype.itemsize + 1,), dtype, np.ascontiguousarray(raw), strides=(1,)
    )
    first = np.repeat(at - indptr[:-1] * dtype.itemsize, counts)
    values: NDArray[Any] = everywhere[first + np.arange(indptr[-1]) * dtype.itemsize]
    return values


def unpack(batch: RawBatch) -> RawBatch:
    """Return a batch with an array of m/z and one of intensities for every spectrum.

    It is `batch` itself where that is not packed.
    """
    if batch.packed is None:
        return batch
    raw, mz_at, intensity_at, n_points = batch.packed.unpack(batch.raw, len(batch.rows))
    return replace(
        batch, raw=raw, mz_at=mz_at, intensity_at=intensity_at, n_points=n_points, packed=None
    )


def as_stored(batch: RawBatch) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Return bounds, m/z and intensities of the spectra of `batch`, in order and in its dtypes.

    indptr : (n_spectra + 1,) int64; spectrum s owns points [indptr[s], indptr[s + 1])
    """
    batch = unpack(batch)
    indptr = np.zeros(len(batch.n_points) + 1, np.int64)
    np.cumsum(batch.n_points, out=indptr[1:])
    mz = _gather(batch.raw, batch.mz_at, indptr, batch.mz_dtype)
    return indptr, mz, _gather(batch.raw, batch.intensity_at, indptr, batch.intensity_dtype)


def decode(batch: RawBatch) -> RaggedSpectra:
    """Return the spectra of `batch` as float64, in order.

    This is the definition of decoding; backends hold theirs against it.
    """
    indptr, mz, intensity = as_stored(batch)
    with np.errstate(invalid="ignore"):
        # A signalling NaN of a damaged file becomes a quiet one, and is found as a fault.
        wide = mz.astype(np.float64), intensity.astype(np.float64)
    return RaggedSpectra(indptr, *wide, batch.precision)


def concatenate(parts: list[RaggedSpectra]) -> RaggedSpectra:
    """Return the spectra of all `parts`, in order."""
    if not parts:
        return RaggedSpectra(np.zeros(1, np.int64), np.zeros(0), np.zeros(0))
    counts = np.concatenate([np.diff(part.indptr) for part in parts])
    indptr = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return RaggedSpectra(
        indptr,
        np.concatenate([part.mz for part in parts]),
        np.concatenate([part.intensity for part in parts]),
        max(part.mz_eps for part in parts),
    )


def point_faults(spectra: RaggedSpectra) -> NDArray[np.uint8]:
    """Return the FAULT_* bits of every point; (n_points,) uint8."""
    mz, intensity = spectra.mz, spectra.intensity
    faults = np.zeros(len(mz), np.uint8)
    if not len(mz):
        return faults
    decreases = np.zeros(len(mz), bool)
    decreases[1:] = mz[1:] < mz[:-1]
    first = spectra.indptr[:-1]
    decreases[first[first < len(mz)]] = False
    faults[decreases] |= FAULT_ORDER
    faults[~((mz >= 0) & (mz <= MAX_MZ))] |= FAULT_MZ
    faults[~(np.abs(intensity) <= MAX_INTENSITY)] |= FAULT_INTENSITY
    faults[intensity < 0] |= FAULT_NEGATIVE
    return faults


def find_faults(spectra: RaggedSpectra) -> NDArray[np.uint8]:
    """Return the FAULT_* bits of every spectrum; (n_spectra,) uint8."""
    faults = np.zeros(len(spectra.indptr) - 1, np.uint8)
    filled = np.flatnonzero(np.diff(spectra.indptr))
    if len(filled):
        faults[filled] = np.bitwise_or.reduceat(point_faults(spectra), spectra.indptr[filled])
    return faults


def describe_fault(batch: RawBatch, index: int) -> str:
    """Return in words the first fault of spectrum `index` of `batch`."""
    spectrum = decode(select(batch, np.array([index])))
    faults = point_faults(spectrum)
    point = int(np.flatnonzero(faults)[0])
    bit = next(bit for bit in FAULT_WORDS if faults[point] & bit)
    if bit == FAULT_ORDER:
        found = f"{spectrum.mz[point]:.6f} after {spectrum.mz[point - 1]:.6f}"
    else:
        found = f"{spectrum.mz[point] if bit == FAULT_MZ else spectrum.intensity[point]:g}"
    return f"{FAULT_WORDS[bit]} at point {point} ({found})"


def select(batch: RawBatch, keep: NDArray[np.int64]) -> RawBatch:
    """Return the spectra of `batch` at distinct positions `keep`; the bytes are shared."""
    part = replace(batch, n_points=batch.n_points[keep], rows=batch.rows[keep])
    if batch.packed is not None:
        return replace(part, packed=batch.packed.select(keep, len(batch.rows)))
    return replace(part, mz_at=batch.mz_at[keep], intensity_at=batch.intensity_at[keep])


def from_ragged(
    spectra: RaggedSpectra, rows: NDArray[np.int64], representation: Representation | None
) -> RawBatch:
    """Return decoded spectra as a batch of float64 arrays."""
    raw = np.concatenate([spectra.mz.view(np.uint8), spectra.intensity.view(np.uint8)])
    at = spectra.indptr[:-1] * 8
    eight = np.dtype("<f8")
    return RawBatch(
        raw, at, at + 8 * len(spectra.mz), np.diff(spectra.indptr), eight, eight, rows,
        representation, mz_eps=spectra.mz_eps,
    )  # fmt: skip
