"""What the user asked for: one frozen value, checked once, that serialises to JSON.

`Settings` holds the words of the command line and of `gpuconvert.convert`. Those
that change the numbers (`conversion`) are part of a run's fingerprint; those that
change how the result is stored (`storage`) or how the work is done are not.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from gpuconvert.errors import SettingsError

MethodName = Literal["adaptive", "pchip", "linear", "nearest"]
QuantityName = Literal["counts", "height"]
Layout = Literal["csc", "csr"]
Compression = Literal["none", "lz4", "zstd"]
Duplicates = Literal["error", "first", "last", "sum", "keep"]
SpectrumType = Literal["auto", "profile", "centroid"]
SpectrumKind = Literal["auto", "line", "profile"]
CalibrationChoice = Literal["exact", "chord"]
BackendName = Literal["auto", "numpy", "cpu", "cuda"]
Preset = Literal["speed", "balanced", "small", "cloud"]
Target = Literal["auto", "spatialdata", "mzpeak"]
MzPeakLayout = Literal["point", "chunk"]
Dialect = Literal["split", "packed"]

PRESETS: dict[str, dict[str, Any]] = {
    "speed": {"compression": "lz4", "compression_level": 1, "chunk_size": 2**18},
    "balanced": {"compression": "lz4", "compression_level": 5, "chunk_size": 2**18},
    "small": {"compression": "zstd", "compression_level": 3, "chunk_size": 2**18},
    "cloud": {"compression": "zstd", "compression_level": 1, "chunk_size": 2**20},
}
"""What each preset stands for; chunk_size in elements."""

CONVERSION = (
    "axis", "bins", "bin_width", "bin_ppm", "mz_range", "max_bins", "method", "quantity",
    "threshold", "gap", "repair", "duplicates", "spectrum_type", "layout", "pixel_size",
    "spectrum", "region", "ms_level", "calibration", "mobility_bins",
)  # fmt: skip
"""Names of the settings that decide the numbers."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Every choice a user can make; the defaults are those of the command line.

    axis : "auto", a law, "source", or the path of an axis file
    bins : number of bins, or None
    bin_width : (width in Th, at this m/z in Th), or None
    bin_ppm : width of a bin in parts per million of its m/z, or None
    mz_range : (low, high) in Th, or None for all that the source holds
    max_bins : axes with more bins are coarsened by a whole factor, or refused
    method, quantity, threshold, gap : see `gpuconvert.resampling`
    repair : sort and drop faulty points, and record it, instead of refusing
    duplicates : what to do with several spectra of one pixel
    spectrum_type : overrides what header and data say
    layout : "csc" for fast ion images, "csr" for fast spectra
    pixel_size : (x, y) in micrometres, or None to believe the header
    spectrum : which of a frame's two spectra, or "auto" for what the acquisition declares
    region : numbers of the regions to convert, or None for all
    ms_level : 1 or 2, or None where the source holds one level only
    calibration : "exact", or "chord" to approximate m/z where no exact formula is known
    mobility_bins : bins of the table by ion mobility, or None for no such table
    id : prefix of the element names in the store
    compression, compression_level, chunk_size : codec, 1 to 9, elements; None: of the preset
    preset : what the three above default to
    workers : threads that convert, or None for one per core
    backend : where the arithmetic runs
    devices : numbers of the CUDA devices to use, or None for all
    memory : bytes that may be used, or None for the documented default
    temp_dir : folder for the parts, or None for beside the output
    ibd : the binary file of an imzML, or None to look for it
    strict : header contradictions are errors instead of warnings
    check_source : compare the source with the identifier and the checksum that it declares
    durable : write everything through to the disk before it is renamed into place
    ignore_space : start even where the disk may be too small
    to : what to write; "auto" goes by the name of the output
    mzpeak_layout, dialect : form of an mzPeak
    lossless : keep every zero of a profile in an mzPeak
    resampled : write the resampled spectra to an mzPeak instead of those of the source
    """

    axis: str = "auto"
    bins: int | None = None
    bin_width: tuple[float, float] | None = None
    bin_ppm: float | None = None
    mz_range: tuple[float, float] | None = None
    max_bins: int = 1_000_000
    method: MethodName = "adaptive"
    quantity: QuantityName = "counts"
    threshold: float = 0.0
    gap: float = 1.5
    repair: bool = False
    duplicates: Duplicates = "error"
    spectrum_type: SpectrumType = "auto"
    layout: Layout = "csc"
    pixel_size: tuple[float, float] | None = None
    spectrum: SpectrumKind = "auto"
    region: tuple[int, ...] | None = None
    ms_level: int | None = None
    calibration: CalibrationChoice = "exact"
    mobility_bins: int | None = None
    id: str = "msi"
    compression: Compression | None = None
    compression_level: int | None = None
    chunk_size: int | None = None
    preset: Preset = "balanced"
    workers: int | None = None
    backend: BackendName = "auto"
    devices: tuple[int, ...] | None = None
    memory: int | None = None
    temp_dir: str | None = None
    ibd: str | None = None
    strict: bool = False
    check_source: bool = False
    durable: bool = False
    ignore_space: bool = False
    to: Target = "auto"
    mzpeak_layout: MzPeakLayout = "point"
    dialect: Dialect = "split"
    lossless: bool = False
    resampled: bool = False

    def __post_init__(self) -> None:
        _check_words(self)
        _check_axis(self)
        _check_numbers(self)

    def storage_choice(self) -> tuple[str, int, int]:
        """Return (codec, level, chunk elements): what was given, else of the preset."""
        preset = PRESETS[self.preset]
        level, chunk = self.compression_level, self.chunk_size
        return (
            self.compression or preset["compression"],
            preset["compression_level"] if level is None else level,
            preset["chunk_size"] if chunk is None else chunk,
        )

    def conversion(self) -> dict[str, Any]:
        """Return the settings that decide the numbers, as plain JSON values."""
        return {name: _plain(getattr(self, name)) for name in CONVERSION}

    def to_json(self) -> dict[str, Any]:
        """Return all settings as plain JSON values."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Settings:
        """Return the settings that `to_json` wrote."""
        known = {item.name for item in fields(cls)}
        pairs = {"bin_width", "mz_range", "pixel_size", "region", "devices"}
        kept: dict[str, Any] = {
            name: tuple(entry) if name in pairs and entry is not None else entry
            for name, entry in value.items()
            if name in known
        }
        return cls(**kept)


OF_AXIS = (
    "axis", "bins", "bin_width", "bin_ppm", "mz_range", "method", "quantity", "threshold", "gap",
)  # fmt: skip
"""Settings that mean nothing to spectra that are not resampled."""
OF_MZPEAK = ("mzpeak_layout", "dialect", "lossless", "resampled")
"""Settings that mean nothing to a store."""


def check_meaning(settings: Settings, names: tuple[str, ...], why: str) -> None:
    """Raise SettingsError where a setting is given that has no meaning for what is written."""
    for name in names:
        if getattr(settings, name) != _DEFAULTS[name]:
            raise SettingsError(f"--{name.replace('_', '-')} has no meaning for {why}")


def wants_mzpeak(output: Path, settings: Settings) -> bool:
    """Return whether an mzPeak is to be written: said, or by the name of the output."""
    if settings.to == "auto":
        return output.name.lower().endswith(".mzpeak")
    return settings.to == "mzpeak"


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    return list(value) if isinstance(value, tuple) else value


_WORDS = {
    "method": MethodName, "quantity": QuantityName, "layout": Layout, "compression": Compression,
    "duplicates": Duplicates, "spectrum_type": SpectrumType, "backend": BackendName,
    "preset": Preset, "spectrum": SpectrumKind, "calibration": CalibrationChoice,
    "to": Target, "mzpeak_layout": MzPeakLayout, "dialect": Dialect,
}  # fmt: skip


def _check_words(settings: Settings) -> None:
    for name, kind in _WORDS.items():
        value = getattr(settings, name)
        choices = get_args(kind)
        if value not in choices and not (value is None and name == "compression"):
            option = name.replace("_", "-")
            raise SettingsError(f"unknown --{option} {value!r}; available: {', '.join(choices)}")
    if not re.fullmatch(r"(?!__)[A-Za-z0-9_][A-Za-z0-9_.-]*", settings.id):
        raise SettingsError(
            f"--id {settings.id!r} names elements of a store: use letters, digits, '_', '-' and '.'"
        )


def _check_axis(settings: Settings) -> None:
    widths = {"--bins": settings.bins, "--bin-width": settings.bin_width,
              "--bin-ppm": settings.bin_ppm}  # fmt: skip
    given = [name for name, value in widths.items() if value is not None]
    if len(given) > 1:
        raise SettingsError(f"{' and '.join(given)} all set the width of a bin; give one of them")
    if given and settings.axis == "source":
        raise SettingsError(f"{given[0]} has no meaning with --axis source, whose bins are given")
    if settings.bins is not None:
        _at_least("--bins", settings.bins, 1)
    if settings.bin_width is not None:
        _above("--bin-width", settings.bin_width[0], "Th")
        _above("--bin-width reference", settings.bin_width[1], "Th")
    if settings.bin_ppm is not None:
        _above("--bin-ppm", settings.bin_ppm, "ppm")
    if settings.mz_range is not None:
        low, high = settings.mz_range
        if not (0 < low < high and math.isfinite(high)):
            raise SettingsError(
                f"--mz-range must satisfy 0 < low < high, got {low:g} to {high:g} Th"
            )


def _check_numbers(settings: Settings) -> None:
    if not (settings.threshold >= 0 and math.isfinite(settings.threshold)):
        raise SettingsError(f"--threshold must be >= 0 counts, got {settings.threshold:g}")
    if not settings.gap >= 1:
        raise SettingsError(f"--gap must be at least 1 native step, got {settings.gap:g}")
    if settings.pixel_size is not None:
        for size in settings.pixel_size:
            _above("--pixel-size", size, "micrometres")
    if settings.compression_level is not None and not 1 <= settings.compression_level <= 9:
        raise SettingsError(f"--compression-level must be 1 to 9, got {settings.compression_level}")
    if settings.ms_level not in (None, 1, 2):
        raise SettingsError(f"--ms-level must be 1 or 2, got {settings.ms_level}")
    if settings.mobility_bins is not None:
        _check_mobility(settings)
    for region in settings.region or ():
        _at_least("--region", region, 0)
    _at_least("--max-bins", settings.max_bins, 1)
    if settings.workers is not None:
        _at_least("--workers", settings.workers, 1)
    if settings.chunk_size is not None:
        _at_least("--chunk-size", settings.chunk_size, 1024)
    if settings.memory is not None:
        _at_least("--memory", settings.memory, 1)
    if settings.devices is not None and (
        not settings.devices or min(settings.devices) < 0 or _repeats(settings.devices)
    ):
        raise SettingsError(
            f"--devices must be different numbers from 0, got {list(settings.devices)}"
        )


def _repeats(numbers: tuple[int, ...]) -> bool:
    return len(set(numbers)) < len(numbers)


def _check_mobility(settings: Settings) -> None:
    """Refuse what would make the table by mobility another one than the table it belongs to."""
    _at_least("--mobility-bins", settings.mobility_bins or 0, 1)
    if settings.method not in ("adaptive", "nearest") or settings.spectrum_type == "profile":
        raise SettingsError(
            "--mobility-bins puts every peak into its nearest bin; leave out --method and "
            "--spectrum-type"
        )
    if settings.threshold > 0:
        raise SettingsError(
            f"--mobility-bins parts values that --threshold {settings.threshold:g} would then "
            "leave out one by one; give one of the two"
        )


def _above(name: str, value: float, unit: str) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise SettingsError(f"{name} must be above 0 {unit}, got {value:g}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise SettingsError(f"{name} must be at least {least}, got {value}")


_DEFAULTS = {item.name: item.default for item in fields(Settings)}
