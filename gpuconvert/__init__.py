"""Convert raw mass spectrometry imaging data into one analysis-ready SpatialData store.

>>> import gpuconvert
>>> gpuconvert.convert("tissue.imzML", "tissue.zarr")  # doctest: +SKIP
>>> gpuconvert.open("tissue.zarr")  # doctest: +SKIP

The words of `convert`, `export`, `inspect` and `verify` are those of the command line. What
they need is imported when they are first called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpuconvert.version import __version__

if TYPE_CHECKING:
    from gpuconvert.api import convert, export, inspect, open, verify

_FROM = {
    "convert": "gpuconvert.api",
    "export": "gpuconvert.api",
    "inspect": "gpuconvert.api",
    "verify": "gpuconvert.api",
    "open": "gpuconvert.api",
}

__all__ = ["__version__", "convert", "export", "inspect", "open", "verify"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever is asked for
    if name not in _FROM:
        raise AttributeError(f"module 'gpuconvert' has no attribute {name!r}")
    return getattr(importlib.import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
