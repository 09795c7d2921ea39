"""Where the elements of a store lie: coordinate systems in micrometres, in words of NGFF.

The pixel of column x and row y is centred at ``(x * width, y * height)`` in the
coordinate systems ``{id}`` and ``global``. Squares are stored in these micrometres
already; an image is shifted by half a pixel and then scaled.
"""

from __future__ import annotations

from typing import Any


def system_names(dataset_id: str) -> list[str]:
    """Return the coordinate systems of every element."""
    return list(dict.fromkeys((dataset_id, "global")))


def shape_transformations(dataset_id: str) -> list[dict[str, Any]]:
    """Return the ways from shapes in micrometres to each system: none has far to go."""
    return [{"type": "identity"} | _between("xy", system) for system in system_names(dataset_id)]


def tic_metadata(name: str, pixel_size: tuple[float, float], dataset_id: str) -> dict[str, Any]:
    """Return the OME metadata of an image of one level whose only channel is the TIC."""
    whole = {"type": "scale", "scale": [1.0, 1.0, 1.0]}
    multiscale = {
        "name": name,
        "axes": [{"name": "c", "type": "channel"}, *({"name": n, "type": "space"} for n in "yx")],
        "datasets": [{"path": "s0", "coordinateTransformations": [whole]}],
        "coordinateTransformations": [
            _pixels_to_micrometres(pixel_size, system) for system in system_names(dataset_id)
        ],
    }
    return {
        "version": "0.5-dev-spatialdata",
        "multiscales": [multiscale],
        "omero": {"channels": [{"label": "tic"}]},
    }


def _pixels_to_micrometres(pixel_size: tuple[float, float], system: str) -> dict[str, Any]:
    """Return the way from image coordinates, in which pixel i spans [i, i + 1], to `system`."""
    width, height = pixel_size
    ends = _between("cyx", system)
    steps = [
        {"type": "translation", "translation": [0.0, -0.5, -0.5]} | ends,
        {"type": "scale", "scale": [1.0, float(height), float(width)]} | ends,
    ]
    return {"type": "sequence", "transformations": steps} | ends


def _between(axes: str, system: str) -> dict[str, Any]:
    """Return the two ends of a transformation: the element's own axes, and `system`."""

    def described(unit: str) -> list[dict[str, str]]:
        return [
            {"name": name, "type": "channel"} if name == "c" else
            {"name": name, "type": "space", "unit": unit}
            for name in axes
        ]  # fmt: skip

    return {
        "input": {"name": axes, "axes": described("unit")},
        "output": {"name": system, "axes": described("micrometer")},
    }
