"""The functions of the package: the words of the command line as keyword arguments."""

from __future__ import annotations

import os
from concurrent.futures import Executor
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpuconvert import conversion, exporting, inspection
from gpuconvert.errors import SettingsError
from gpuconvert.exporting import Export
from gpuconvert.finished_store import open_store
from gpuconvert.inspection import Inspection
from gpuconvert.setting_texts import PARSERS
from gpuconvert.settings import Settings
from gpuconvert.stages import Listener, Monitor
from gpuconvert.summary import Summary
from gpuconvert.verification import Verification
from gpuconvert.verification import verify as _verify

if TYPE_CHECKING:
    from spatialdata import SpatialData

AnyPath = str | os.PathLike[str]


def settings_from(options: dict[str, Any]) -> Settings:
    """Return the settings for keyword arguments; texts are read as on the command line."""
    known = {item.name for item in fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name not in known:
            raise SettingsError(f"unknown option {name!r}; available: {', '.join(sorted(known))}")
        if name in PARSERS and isinstance(value, str):
            values[name] = PARSERS[name](value)
        elif name == "pixel_size" and isinstance(value, int | float):
            values[name] = (float(value), float(value))
        elif name == "region" and isinstance(value, int | list):
            values[name] = tuple(sorted({value} if isinstance(value, int) else set(value)))
        elif isinstance(value, os.PathLike):
            values[name] = os.fspath(value)
        else:
            values[name] = value
    return Settings(**values)


def convert(
    source: AnyPath, output: AnyPath, *, overwrite: bool = False,
    executor: Executor | None = None, listener: Listener | None = None, **options: Any,  # noqa: ANN401
) -> Summary:  # fmt: skip
    """Convert `source` into one SpatialData store at `output`.

    An interrupted call continues where it stopped when it is made again.

    Parameters
    ----------
    source
        The input: an ``.imzML`` whose ``.ibd`` lies beside it, a Bruker ``.d`` folder, or an
        ``.mzpeak``.
    output
        The store to make; its folder must exist.
    overwrite
        Replace a store that is there already.
    executor
        Runs the partitions; threads by default.
    listener
        Told of progress, see `gpuconvert.stages.Listener`.
    **options
        Any field of `gpuconvert.settings.Settings`: ``axis="orbitrap"``,
        ``memory="2GiB"``, ``mz_range=(100, 1000)``, ...

    Returns
    -------
    Summary
        What was done, with its quality figures.

    Raises
    ------
    GpuconvertError
        One of the classes in `gpuconvert.errors`.
    """
    return conversion.run(
        Path(source), Path(output), settings_from(options), overwrite=overwrite,
        executor=executor, monitor=Monitor(listener),
    )  # fmt: skip


def export(
    source: AnyPath, output: AnyPath, *, overwrite: bool = False,
    listener: Listener | None = None, **options: Any,  # noqa: ANN401
) -> Export:  # fmt: skip
    """Write the spectra of `source` into one mzPeak archive at `output`.

    Parameters
    ----------
    source, output, overwrite, listener
        As for `convert`.
    **options
        Any field of `gpuconvert.settings.Settings`: ``mzpeak_layout="chunk"``,
        ``lossless=True``, ...

    Returns
    -------
    Export
        What was done.

    Raises
    ------
    GpuconvertError
        One of the classes in `gpuconvert.errors`.
    """
    return exporting.run(
        Path(source), Path(output), settings_from(options), overwrite=overwrite,
        monitor=Monitor(listener),
    )  # fmt: skip


def inspect(source: AnyPath, **options: Any) -> Inspection:  # noqa: ANN401
    """Return what `source` holds and what converting it with `options` would take."""
    return inspection.inspect(Path(source), settings_from(options))


def verify(
    store: AnyPath, source: AnyPath | None = None, *, ibd: AnyPath | None = None
) -> Verification:
    """Return whether a store is whole, and whether it says what `source` says."""
    return _verify(
        Path(store),
        None if source is None else Path(source),
        None if ibd is None else Path(ibd),
    )


def open(store: AnyPath) -> SpatialData:
    """Return a finished store as a `spatialdata.SpatialData`; needs the extra."""
    return open_store(Path(store))
