"""What can do the arithmetic here, and what is missing where something cannot."""

from __future__ import annotations

import importlib
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from gpuconvert.backends import BACKENDS, ON_DEVICES, PREFERENCE
from gpuconvert.errors import BackendError
from gpuconvert.executors import default_workers
from gpuconvert.memory import available


@dataclass(frozen=True, slots=True)
class Device:
    """One backend: its name, whether it can be used here, and what it runs on or lacks."""

    backend: str
    usable: bool
    detail: str


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def _look(name: str) -> Device:
    if name not in BACKENDS:
        return Device(name, usable=False, detail="not part of this version; the CPU is used")
    module = BACKENDS[name].partition(":")[0]
    try:
        loaded = importlib.import_module(module)
        if name in ON_DEVICES:
            return Device(name, usable=True, detail="; ".join(loaded.describe()))
    except (ImportError, BackendError) as error:
        return Device(name, usable=False, detail=f"cannot be used: {error}")
    cores = f"{_processor()}, {default_workers()} cores, {available() / 1e9:.1f} GB free"
    libraries = {"numpy": ("numpy",), "cpu": ("numba", "llvmlite")}.get(name, ())
    return Device(name, usable=True, detail=", ".join([cores, *map(_version, libraries)]))


def find_devices() -> list[Device]:
    """Return every backend in the order that ``--backend auto`` tries them."""
    return [_look(name) for name in PREFERENCE]
