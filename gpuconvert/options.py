"""The options that several commands share: one table, from which their signatures are made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from gpuconvert.setting_texts import PARSERS
from gpuconvert.settings import PRESETS, Settings

SOURCE = "Source"
AXIS = "Mass axis"
NUMBERS = "Numbers"
STORE = "Store"
MZPEAK = "mzPeak"
WORK = "Work"

_DEFAULTS = {item.name: item.default for item in fields(Settings)}

_PRESET_WORDS = "; ".join(
    f"{name}: {entry['compression']}-{entry['compression_level']}"
    for name, entry in PRESETS.items()
)

# name, type on the command line, panel, metavar, help
_TABLE: tuple[tuple[str, Any, str, str | None, str], ...] = (
    ("axis", str, AXIS, "auto|LAW|source|FILE",
     "Axis law (constant, linear-tof, reflector-tof, tof, orbitrap, fticr), the source's own "
     "m/z, or a file of bins; auto derives it from the data."),
    ("bins", int | None, AXIS, "N", "Number of bins."),
    ("bin_width", str | None, AXIS, "W@MZ", "Width of a bin in Th at one m/z: 0.005@400."),
    ("bin_ppm", float | None, AXIS, "PPM", "Width of a bin in ppm of its m/z."),
    ("mz_range", str | None, AXIS, "LO:HI", "Range of the axis in Th; default: all of the data."),
    ("max_bins", int, AXIS, "N", "Coarsen axes with more bins by a whole factor."),
    ("method", str, NUMBERS, "adaptive|pchip|linear|nearest",
     "Interpolant; adaptive: nearest for centroids, pchip or linear for profiles."),
    ("quantity", str, NUMBERS, "counts|height",
     "counts conserves the TIC; height evaluates the spectrum at the bin centres."),
    ("threshold", float, NUMBERS, "COUNTS", "Values not above this are not stored."),
    ("gap", float, NUMBERS, "STEPS", "Samples farther apart than this are not neighbours."),
    ("repair", bool, NUMBERS, None,
     "Sort and drop faulty points and record it, instead of refusing."),
    ("duplicates", str, NUMBERS, "error|first|last|sum|keep",
     "What to do with several spectra of one pixel."),
    ("spectrum_type", str, NUMBERS, "auto|profile|centroid", "Overrides what header and data say."),
    ("spectrum", str, SOURCE, "auto|line|profile",
     "Bruker: peaks of the vendor, or samples of the digitizer; auto: line where there are any."),
    ("region", str | None, SOURCE, "N[,N]", "Bruker: convert these regions only."),
    ("ms_level", int | None, SOURCE, "1|2", "Bruker: convert frames of this level only."),
    ("calibration", str, SOURCE, "exact|chord",
     "Bruker: chord approximates m/z where no exact formula is known."),
    ("mobility_bins", int | None, SOURCE, "N",
     "Bruker TDF: also write a table by m/z and ion mobility, with so many bins of 1/K0."),
    ("pixel_size", str | None, STORE, "UM|XxY", "Pixel size in micrometres."),
    ("id", str, STORE, "NAME", "Prefix of the element names."),
    ("layout", str, STORE, "csc|csr", "csc: fast ion images; csr: fast spectra."),
    ("preset", str, STORE, "speed|balanced|small|cloud",
     f"Compression and chunks ({_PRESET_WORDS}); explicit options win."),
    ("compression", str | None, STORE, "none|lz4|zstd", "Codec of the matrix."),
    ("compression_level", int | None, STORE, "1-9", "Level of the codec."),
    ("chunk_size", int | None, STORE, "N", "Values in a chunk of the matrix."),
    ("workers", int | None, WORK, "N", "Threads; default: one per core."),
    ("backend", str, WORK, "auto|numpy|cpu|cuda", "Where the arithmetic runs."),
    ("devices", str | None, WORK, "N,N", "CUDA devices to use; default: all."),
    ("memory", str | None, WORK, "SIZE",
     "Memory that may be used, like 2GiB; default: a quarter of what is free, at most 4 GiB."),
    ("temp_dir", str | None, WORK, "DIR", "Folder for unfinished work; default: beside OUTPUT."),
    ("ibd", str | None, WORK, "FILE", "Binary file of an imzML; default: beside it."),
    ("strict", bool, WORK, None, "Contradictions in the header are errors, not warnings."),
    ("check_source", bool, WORK, None,
     "Compare the source with the identifier and the checksums that it declares (imzML, mzPeak)."),
    ("durable", bool, WORK, None,
     "Write through to the disk before each rename, for machines that may lose power."),
    ("ignore_space", bool, WORK, None, "Start even where the disk may be too small."),
    ("to", str, MZPEAK, "auto|spatialdata|mzpeak",
     "What to write; auto: mzPeak where OUTPUT ends in .mzpeak, else a SpatialData store."),
    ("mzpeak_layout", str, MZPEAK, "point|chunk",
     "One row per point, or per 50 Th as differences, which is smaller."),
    ("lossless", bool, MZPEAK, None,
     "Keep every zero of a profile instead of two per run, marked and modelled."),
    ("resampled", bool, MZPEAK, None, "Write the resampled spectra instead of the source's own."),
    ("dialect", str, MZPEAK, "split|packed", "packed is for readers of 2025 and early 2026."),
)  # fmt: skip


def _parameter(entry: tuple[str, Any, str, str | None, str]) -> inspect.Parameter:
    name, kind, panel, metavar, words = entry
    flag = "--" + name.replace("_", "-")
    option = typer.Option(flag, help=words, metavar=metavar, rich_help_panel=panel)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=_DEFAULTS[name],
        annotation=Annotated[kind, option],
    )


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` every option of the table, and pass them on as its `settings`."""
    own = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    kept = [
        item.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, item in own.parameters.items()
        if name != "settings"
    ]
    added = [_parameter(entry) for entry in _TABLE]

    @wraps(command)
    def called(**values: Any) -> None:  # noqa: ANN401 - whatever the command line holds
        chosen = {}
        for name in (entry[0] for entry in _TABLE):
            value = values.pop(name)
            parse = PARSERS.get(name)
            chosen[name] = parse(value) if parse and value is not None else value
        command(**values, settings=Settings(**chosen))

    signature = inspect.Signature([*kept, *added])
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {
        name: item.annotation for name, item in signature.parameters.items()
    } | {"return": None}
    return called
