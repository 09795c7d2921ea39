"""What a store says of its acquisition in words: root attributes and essential metadata.

The names are those that readers of the peer's stores look for, so that both kinds
of store can be used alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gpuconvert.coordinate_systems import system_names
from gpuconvert.mass_axis import MassAxis
from gpuconvert.pixels import first_of_pixel
from gpuconvert.provenance import software
from gpuconvert.spectra import Acquisition

KINDS = ("images", "shapes", "tables")
"""Groups of a store that hold elements, each under its name."""

SPATIALDATA_ATTRS = "spatialdata_attrs"
AXIS_ATTRS = "mass_axis"
"""Root attributes that make a store SpatialData, and ours."""

MOBILITY_SUFFIX = "_mobility"
"""Ends the name of a table by m/z and ion mobility, after that of the table it belongs to."""


def essential_metadata(acquisition: Acquisition, axis: MassAxis) -> dict[str, Any]:
    """Return the table's summary; the m/z range is that of the header, else of the axis."""
    nz, ny, nx = acquisition.shape
    return {
        "dimensions": [nx, ny, nz],
        "mass_range": list(acquisition.mz_range or (axis.low, axis.high)),
        "source_path": Path(acquisition.path).name,
        "spectrum_type": acquisition.representation or "unknown",
        "gpuconvert_version": software()["gpuconvert"],
    }


def root_attributes(acquisition: Acquisition, axis: MassAxis, dataset_id: str) -> dict[str, Any]:
    """Return the attributes of the root group."""
    version = software()["gpuconvert"]
    width, height = (float(size) for size in acquisition.pixel_size)
    nz, ny, nx = acquisition.shape
    systems = _describe_systems(acquisition, f"gpuconvert/{version}")
    return {
        SPATIALDATA_ATTRS: {
            "version": "0.2", "spatialdata_software_version": f"gpuconvert-{version}",
        },
        AXIS_ATTRS: {"law": axis.law, "n_bins": axis.n_bins, "sha256": axis.sha256},
        "pixel_size_x_um": width,
        "pixel_size_y_um": height,
        "pixel_size_units": "micrometers",
        "pixel_size_detection_info": {
            "method": acquisition.pixel_size_source, "source_format": acquisition.format,
            "detected_x_um": width, "detected_y_um": height,
        },
        "coordinate_system": "physical_micrometers",
        "coordinate_systems": dict.fromkeys(system_names(dataset_id), systems),
        "msi_converter_version": version,
        "msi_dataset_info": {
            "dataset_id": dataset_id,
            "total_grid_pixels": nx * ny * nz,
            "non_empty_pixels": int(first_of_pixel(acquisition).sum()),
            "dimensions_xyz": [nx, ny, nz],
        },
    }  # fmt: skip


def _describe_systems(acquisition: Acquisition, producer: str) -> dict[str, Any]:
    """Return what our coordinate systems mean; offsets lead back to the file's own pixels."""
    width, height = (float(size) for size in acquisition.pixel_size)
    x, y, _ = acquisition.origin
    return {
        "unit": "micrometer",
        "pixel_size_um_x": width,
        "pixel_size_um_y": height,
        "raster_to_global_affine": [
            [width, 0.0, -0.5 * width],
            [0.0, height, -0.5 * height],
            [0.0, 0.0, 1.0],
        ],
        "coordinate_offsets_px": list(acquisition.origin),
        "stage_offset_um": [x * width, y * height],
        "convention_version": 1,
        "produced_by": producer,
    }
