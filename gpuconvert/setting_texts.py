"""Settings as a person writes them: sizes, ranges, pairs and lists as short texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gpuconvert.errors import SettingsError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip


def parse_bytes(text: str) -> int:
    """Return a size such as ``"4GiB"``, ``"500 MB"`` or ``"1e9"`` in bytes."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    if not match:
        raise SettingsError(f"--memory {text!r} is not a size; write it like 4GiB or 500MB")
    try:
        return int(float(match[1]) * _UNITS[match[2] or ""])
    except ValueError as error:
        raise SettingsError(f"--memory {text!r} is not a size; write it like 4GiB") from error


def parse_range(text: str) -> tuple[float, float]:
    """Return an m/z range such as ``"100:1000"`` as (low, high) in Th."""
    return _pair("--mz-range", text, ":", "100:1000")


def parse_bin_width(text: str) -> tuple[float, float]:
    """Return a width such as ``"0.005@400"`` as (width, at m/z), both in Th."""
    return _pair("--bin-width", text, "@", "0.005@400")


def parse_devices(text: str) -> tuple[int, ...]:
    """Return numbers of devices such as ``"0,1"``."""
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError as error:
        raise SettingsError(f"--devices {text!r} is not clear; write it like 0,1") from error


def parse_pixel_size(text: str) -> tuple[float, float]:
    """Return a pixel size such as ``"10"`` or ``"10x20"`` as (x, y) in micrometres."""
    return _pair("--pixel-size", text, "x", "10 or 10x20", one_is_both=True)


def parse_regions(text: str) -> tuple[int, ...]:
    """Return region numbers such as ``"2"`` or ``"0,2"``, each once, ascending."""
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise SettingsError(f"--region {text!r} is not clear; write it like 2 or 0,2") from error


def _pair(
    name: str, text: str, separator: str, example: str, *, one_is_both: bool = False
) -> tuple[float, float]:
    first, found, second = text.partition(separator)
    try:
        if not found and not one_is_both:
            raise ValueError
        return float(first), float(second if found else first)
    except ValueError as error:
        raise SettingsError(f"{name} {text!r} is not clear; write it like {example}") from error


PARSERS: dict[str, Callable[[str], Any]] = {
    "bin_width": parse_bin_width,
    "mz_range": parse_range,
    "pixel_size": parse_pixel_size,
    "memory": parse_bytes,
    "region": parse_regions,
    "devices": parse_devices,
}
"""What reads the text of a setting, by its name; the others are what they are."""
