"""A small correct store and the imzML file it was made of, resampled by SciPy and by hand."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import zarr
from pyimzml.compression import NoCompression, ZlibCompression
from pyimzml.ImzMLWriter import ImzMLWriter
from scipy.interpolate import PchipInterpolator

from gpuconvert.mass_axis import MassAxis, of_law
from gpuconvert.spacing import SpacingModel
from gpuconvert.spatial import PlaneFacts, finish_store
from gpuconvert.spectra import Acquisition, Encoding, SourceIdentity

PLANES = (
    ((0, 0), (3, 0), (6, 0), (1, 1), (2, 1), (5, 1), (0, 2), (4, 2)),
    ((2, 0), (6, 1), (1, 2)),
)
"""(x, y) of the pixels of two planes on a grid of 7 x 3, most of it empty, in row order."""

ORIGIN = (4, 9, 1)
CENTROID_AXIS = of_law("constant", 200.0, 300.0, du=0.05)
PROFILE_AXIS = of_law("constant", 200.0, 300.0, du=0.03)


@dataclass(frozen=True)
class Spectrum:
    """One pixel: its place, its points as acquired, and what the store must hold of it."""

    place: tuple[int, int, int]
    mz: np.ndarray
    intensity: np.ndarray
    stored: np.ndarray
    outside: float


def centroids(axis: MassAxis = CENTROID_AXIS) -> list[Spectrum]:
    """Return sticks, some beyond the ends of the axis, each in the bin of the nearest centre."""
    rng = np.random.default_rng(3)
    spectra = []
    for place in _places():
        mz = np.sort(rng.uniform(190, 310, 80))
        intensity = rng.gamma(0.5, 100, 80).astype(np.float32)
        stored = np.zeros(axis.n_bins)
        inside = (mz >= axis.low) & (mz <= axis.high)
        for m, value in zip(mz[inside], intensity[inside], strict=True):
            stored[np.abs(axis.centres - m).argmin()] += value
        spectra.append(Spectrum(place, mz, intensity, stored, intensity[~inside].sum(dtype=float)))
    return spectra


def profiles(axis: MassAxis = PROFILE_AXIS) -> list[Spectrum]:
    """Return peaks sampled every 0.02 Th, as counts put on the axis by SciPy's PCHIP."""
    rng = np.random.default_rng(4)
    mz = 200.3 + 0.02 * np.arange(4970)
    edges = np.concatenate([[mz[0] - 0.01], 0.5 * (mz[1:] + mz[:-1]), [mz[-1] + 0.01]])
    spectra = []
    for place in _places():
        apex = rng.uniform(201, 299, 6)
        height = rng.uniform(10, 1000, 6)
        peaks = height * np.exp(-0.5 * ((mz[:, None] - apex) / 0.05) ** 2)
        intensity = np.round(peaks.sum(axis=1)).astype(np.float32)
        cumulative = PchipInterpolator(edges, np.append(0, np.cumsum(intensity, dtype=float)))
        stored = np.diff(cumulative(np.clip(axis.edges, edges[0], edges[-1])))
        # What PCHIP leaves of a flat stretch is rounding of the cumulative counts.
        stored[stored < 1e-9 * intensity.sum()] = 0
        spectra.append(Spectrum(place, mz, intensity, stored, 0.0))
    return spectra


def _places() -> list[tuple[int, int, int]]:
    return [(x, y, z) for z, pixels in enumerate(PLANES) for x, y in pixels]


def _kind(spectra: list[Spectrum]) -> str:
    return "profile" if len(spectra[0].mz) > 1000 else "centroid"


def write_source(path: Path, spectra: list[Spectrum], *, compressed: bool = False) -> Path:
    """Write the spectra as imzML in reversed order, coordinates counted from ORIGIN."""
    packing = ZlibCompression() if compressed else NoCompression()
    with ImzMLWriter(
        str(path), mode="processed", spec_type=_kind(spectra), mz_compression=packing,
        intensity_compression=packing,
    ) as writer:  # fmt: skip
        for spectrum in reversed(spectra):
            place = tuple(int(at + shift) for at, shift in zip(spectrum.place, ORIGIN, strict=True))
            writer.addSpectrum(spectrum.mz, spectrum.intensity, place)
    return path


def _acquisition(spectra: list[Spectrum], acquired: list[Spectrum]) -> Acquisition:
    x, y, z = np.array([spectrum.place for spectrum in spectra], np.int32).T
    n = len(spectra)
    # The source is written in reversed order; a sum of spectra has no place in it.
    place = {id(spectrum): at for at, spectrum in enumerate(reversed(acquired))}
    order = [place.get(id(spectrum), 0) for spectrum in spectra]
    return Acquisition(
        path="tissue.imzML", format="imzML", identity=SourceIdentity((("imzML", 1, "00"),)),
        x=x, y=y, z=z, order=np.array(order, np.int64),
        n_points=np.array([len(spectrum.mz) for spectrum in spectra], np.int64),
        raw_bytes=np.full(n, 64, np.int64), encoding=np.zeros(n, np.uint8),
        encodings=(Encoding("<f8", "<f4", representation=_kind(spectra)),), shared_mz_points=0,
        polarity=np.zeros(n, np.int8), region=None, origin=ORIGIN, pixel_size=(12.5, 40.0),
        pixel_size_source="header",
    )  # fmt: skip


def write_store(
    folder: Path, spectra: list[Spectrum], axis: MassAxis, *, layout: str = "csc",
    chunk: int = 64, shards: tuple[int, ...] | None = None, parameters: dict | None = None,
    acquired: list[Spectrum] | None = None,
) -> Path:  # fmt: skip
    """Write the store that the spectra should become, X in chunks of `chunk` elements.

    `acquired` are the spectra of the source where they are not the same.
    """
    facts = []
    places = np.array([spectrum.place for spectrum in spectra])
    for z in sorted(set(places[:, 2].tolist())):
        rows = np.flatnonzero(places[:, 2] == z)
        dense = np.array([spectra[row].stored for row in rows], np.float32)
        _write_matrix(folder / f"tables/msi_z{z}/X", sp.csr_matrix(dense), layout, chunk, shards)
        facts.append(
            PlaneFacts(
                z, slice(int(rows[0]), int(rows[-1]) + 1), dense.sum(axis=1, dtype=float),
                np.array([spectra[row].intensity.sum(dtype=float) for row in rows]),
                np.array([spectra[row].outside for row in rows]), dense.mean(axis=0, dtype=float),
            )
        )  # fmt: skip
    kind = _kind(spectra)
    said = {
        "method": "adaptive", "quantity": "counts", "threshold": 0.0,
        "options": {"profile": options_of("pchip"), "centroid": options_of("nearest")},
    }  # fmt: skip
    provenance = {
        "axis": json.dumps(axis.to_json(), sort_keys=True, separators=(",", ":")),
        "axis_sha256": axis.sha256,
        "parameters": json.dumps(said | (parameters or {})),
        "representation": kind,
    }
    finish_store(
        folder,
        _acquisition(spectra, acquired or spectra),
        axis,
        facts,
        dataset_id="msi",
        provenance=provenance,
    )
    return folder


def options_of(method: str) -> dict[str, object]:
    """Return what a store says of how spectra were resampled, here without gaps."""
    return {"method": method, "spacing": SpacingModel(1e9).to_json(), "gap": 1.5}


def _write_matrix(
    folder: Path, matrix: sp.csr_matrix, layout: str, chunk: int, shards: tuple[int, ...] | None
) -> None:
    stored = matrix.tocsc() if layout == "csc" else matrix
    group = zarr.open_group(folder, mode="w", zarr_format=3)
    kind = {"encoding-type": f"{layout}_matrix", "encoding-version": "0.1.0"}
    group.attrs.update(kind | {"shape": list(stored.shape)})
    for name, dtype in (("data", "f4"), ("indices", "i4"), ("indptr", "i8")):
        values = getattr(stored, name)
        array = group.create_array(
            name, shape=values.shape, dtype=dtype, chunks=(chunk,),
            config={"write_empty_chunks": True},
            shards=None if name == "indptr" else shards,
        )  # fmt: skip
        array[...] = values
