"""What an mzPeak of ours says of itself: the file, its imaging grid, and how it was made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gpuconvert.mzpeak_tables import CENTROID, MS1, PROFILE
from gpuconvert.spectra import Acquisition
from gpuconvert.version import __version__

Ints = NDArray[np.int64]

VERSION = "0.9.0"
"""The draft of the format that is written."""

MICROMETRE = "UO:0000017"
ASSUMED = "assumed"
"""The source of a pixel size that no header gave."""

CV_LIST = [
    {"id": "MS", "full_name": "Proteomics Standards Initiative Mass Spectrometry Ontology",
     "uri": "http://purl.obolibrary.org/obo/ms/4.1.249/psi-ms.obo", "version": "4.1.249"},
    {"id": "UO", "full_name": "Units of measurement ontology",
     "uri": "http://purl.obolibrary.org/obo/uo/releases/2026-01-16/uo.obo",
     "version": "2026-01-16"},
    {"id": "IMS", "full_name": "Imaging Mass Spectrometry Ontology",
     "uri": "https://raw.githubusercontent.com/imzML/imzML/"
            "2c28b05ca297430303627d8c7d192cac1a2b1374/imagingMS.obo", "version": "1.1.0"},
]  # fmt: skip
"""The vocabularies that our terms are from, pinned."""

_MODES = {"continuous": "IMS:1000030", "processed": "IMS:1000031"}
_CHECKSUMS = {"md5": ("IMS:1000090", "ibd MD5"), "sha1": ("IMS:1000091", "ibd SHA-1"),
              "sha256": ("IMS:1000092", "ibd SHA-256")}  # fmt: skip
_KINDS = {"profile": (PROFILE, "profile spectrum"), "centroid": (CENTROID, "centroid spectrum")}


@dataclass(frozen=True, slots=True)
class Grid:
    """The pixels of a file: positions count from 1.

    shift : added to x, y, z of the acquisition, which count from 0
    count : (x, y, z), the largest positions
    planes : whether there is a z worth writing
    """

    shift: tuple[int, int, int]
    count: tuple[int, int, int]
    planes: bool

    @classmethod
    def of(cls, acquisition: Acquisition) -> Grid:
        """Return the grid of an acquisition: its own positions, or from 1 where they are not."""
        shift = tuple(max(1, low) for low in acquisition.origin)
        count = [int(a) + b for a, b in zip(acquisition.shape[::-1], shift, strict=True)]
        planes = acquisition.shape[0] > 1 or shift[2] > 1
        return cls(
            (shift[0], shift[1], shift[2]), (count[0] - 1, count[1] - 1, count[2] - 1), planes
        )


def parameter(
    name: str, accession: str | None, value: object = None, unit: str = ""
) -> dict[str, Any]:
    """Return a parameter as JSON."""
    return {"name": name, "accession": accession, "value": value, "unit": unit or None}


def describe_file(
    acquisition: Acquisition, grid: Grid, kinds: set[str], processing: dict[str, Any]
) -> dict[str, Any]:
    """Return the metadata of the index; all but the imaging block are footer keys as well.

    Parameters
    ----------
    acquisition, grid
        The source, and where its pixels go.
    kinds
        "profile", "centroid": what there are spectra of.
    processing
        What was done to the spectra, by name; text, numbers or None.
    """
    name = Path(acquisition.path).name
    software = {"id": "gpuconvert", "version": __version__, "parameters": [
        parameter("custom unreleased software tool", "MS:1000799", "gpuconvert"),
    ]}  # fmt: skip
    before = [
        {"id": f"source_{k}_{item['id']}", "version": item.get("version", ""), "parameters": []}
        for k, item in enumerate(_texts(acquisition.metadata.get("software")))
        if item.get("id")
    ]
    steps = [parameter("data processing action", "MS:1000543")]
    steps += [parameter(key, None, value) for key, value in processing.items()]
    block: dict[str, Any] = {
        "is_imaging": True, "coordinate_base": 1,
        "pixel_count": _axes(grid, grid.count), "pixel_count_source": "observed_max",
    }  # fmt: skip
    if acquisition.mz_range is not None:
        block["mz_range"] = dict(zip(("min", "max"), acquisition.mz_range, strict=True))
    return {
        "version": VERSION,
        "cv_list": CV_LIST,
        "file_description": {
            "contents": _contents(acquisition, kinds),
            "source_files": [{"id": "source", "name": name, "location": "", "parameters": []}],
        },
        "instrument_configuration_list": [_instrument(acquisition)],
        "data_processing_method_list": [
            {"id": "gpuconvert_export", "methods": [
                {"order": 0, "software_reference": "gpuconvert", "parameters": steps}
            ]}
        ],
        "software_list": [software, *before],
        "sample_list": [],
        "run": {
            "id": _stem(name), "default_data_processing_id": "gpuconvert_export",
            "default_instrument_id": 0, "default_source_file_id": "source", "start_time": None,
            "parameters": [],
        },
        "scan_settings_list": [
            {"id": "grid", "source_file_references": ["source"], "targets": [],
             "parameters": _grid_parameters(acquisition, grid)}
        ],
        "imaging": block,
    }  # fmt: skip


def _texts(value: object) -> list[dict[str, str]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _stem(name: str) -> str:
    return name.partition(".")[0] or name


def _axes(grid: Grid, values: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip("xyz" if grid.planes else "xy", values, strict=False))


def _contents(acquisition: Acquisition, kinds: set[str]) -> list[dict[str, Any]]:
    contents = [parameter("MS1 spectrum", MS1)]
    contents += [parameter(_KINDS[kind][1], _KINDS[kind][0]) for kind in sorted(kinds)]
    mode = str(acquisition.metadata.get("mode", ""))
    if mode in _MODES:
        contents.append(parameter(mode, _MODES[mode]))
    identity = acquisition.identity
    if identity.uuid:
        contents.append(parameter("universally unique identifier", "IMS:1000080", identity.uuid))
    algorithm, digest = identity.checksum
    known = _CHECKSUMS.get(algorithm.lower().replace("-", ""))
    if known is not None:
        contents.append(parameter(known[1], known[0], digest))
    return contents


def _instrument(acquisition: Acquisition) -> dict[str, Any]:
    """Return the instrument: its model, and the analysers that are named."""
    instrument = acquisition.instrument
    accessions = {
        rest.strip(): accession
        for accession, _, rest in (term.partition(" ") for term in instrument.terms)
    }
    known = accessions.get(instrument.name)
    model = parameter("instrument model", "MS:1000031", instrument.name or None)
    if known and ":" in known:
        model = parameter(instrument.name, known)
    analysers = [name for name in instrument.analyser.split(", ") if name]
    components = [
        {"component_type": "analyzer", "order": order, "parameters": [
            parameter(name, accessions.get(name))
        ]}
        for order, name in enumerate(analysers, 1)
    ]  # fmt: skip
    return {"id": 0, "components": components, "software_reference": "gpuconvert",
            "parameters": [model]}  # fmt: skip


def _grid_parameters(acquisition: Acquisition, grid: Grid) -> list[dict[str, Any]]:
    x, y, _ = grid.count
    found = [
        parameter("max count of pixels x", "IMS:1000042", x),
        parameter("max count of pixels y", "IMS:1000043", y),
    ]
    if acquisition.pixel_size_source == ASSUMED:
        return found
    width, height = (float(size) for size in acquisition.pixel_size)
    return [
        *found,
        parameter("max dimension x", "IMS:1000044", x * width, MICROMETRE),
        parameter("max dimension y", "IMS:1000045", y * height, MICROMETRE),
        parameter("pixel size (x)", "IMS:1000046", width, MICROMETRE),
        parameter("pixel size y", "IMS:1000047", height, MICROMETRE),
    ]


@dataclass(frozen=True, slots=True)
class SpectrumFacts:
    """What is known of every spectrum once all are written; columns in order of the index.

    centroid : (n_spectra,) bool
    n_stored : (n_spectra,) int64, points in the file, marked ones too
    figures : (5, n_spectra) float64, see `mzpeak_points.FIGURES`
    models : (n_spectra, 3) float64, NaN where no zero was marked with one
    """

    centroid: NDArray[np.bool_]
    n_stored: Ints
    figures: NDArray[np.float64]
    models: NDArray[np.float64]


def spectrum_values(
    acquisition: Acquisition, facts: SpectrumFacts, first: int, last: int
) -> dict[str, pa.Array]:
    """Return the columns of spectra [first, last) by name.

    Times are 0, as other writers have them where the source says none.
    """
    own = slice(first, last)
    n_spectra = last - first
    order, polarity = acquisition.order[own], acquisition.polarity[own]
    kind = pa.DictionaryArray.from_arrays(
        pa.array(facts.centroid[own].astype(np.int32)), pa.array([PROFILE, CENTROID])
    )
    low, high, base_mz, base, tic = (pa.array(row[own], from_pandas=True) for row in facts.figures)
    counts = facts.n_stored[own].astype(np.uint64)
    return {
        "index": pa.array(np.arange(first, last, dtype=np.uint64)),
        "id": pa.array([f"spectrum={number}" for number in order.tolist()], pa.large_string()),
        "ms_level": pa.array(np.ones(n_spectra, np.uint8)),
        "time": pa.array(np.zeros(n_spectra)),
        "scan_polarity": pa.array(polarity, mask=polarity == 0),
        "spectrum_representation": kind.cast(pa.string()),
        "spectrum_type": pa.array([MS1] * n_spectra),
        "lowest_observed_mz": low, "highest_observed_mz": high,
        "number_of_data_points": pa.array(counts, mask=facts.centroid[own]),
        "number_of_peaks": pa.array(counts, mask=~facts.centroid[own]),
        "base_peak_mz": base_mz, "base_peak_intensity": base, "total_ion_current": tic,
        "number_of_auxiliary_arrays": pa.array(np.zeros(n_spectra, np.uint32)),
        "mz_delta_model": _models(facts.models[own]),
    }  # fmt: skip


def _models(models: NDArray[np.float64]) -> pa.Array:
    """Return models as lists of ascending powers, empty where there is none."""
    has = ~np.isnan(models).any(axis=1)
    offsets = np.concatenate([[0], np.cumsum(3 * has)])
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(models[has].ravel()))


def scan_values(
    acquisition: Acquisition, grid: Grid, first: int, last: int
) -> dict[str, pa.Array | NDArray[Any]]:
    """Return the columns of the one scan of each of spectra [first, last) by name."""
    own = slice(first, last)
    index = np.arange(first, last, dtype=np.uint64)
    places = (acquisition.x, acquisition.y, acquisition.z)
    x, y, z = (column[own] + by for column, by in zip(places, grid.shift, strict=True))
    return {
        "source_index": index, "scan_index": index, "position_x": x, "position_y": y,
        "instrument_configuration_id": np.zeros(last - first, np.uint32),
        "scan_start_time": np.zeros(last - first),
    } | ({"position_z": z} if grid.planes else {})  # fmt: skip
