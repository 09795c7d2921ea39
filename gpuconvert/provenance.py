"""Where a result is from: versions of the software, time, and fingerprints of values.

A fingerprint is the SHA-256 of canonical JSON: two values have the same one
exactly when they are the same JSON, whatever the order of their keys.
"""

from __future__ import annotations

import hashlib
import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, TypeAlias

import numpy as np

from gpuconvert.errors import PlanError
from gpuconvert.version import __version__

JSON: TypeAlias = "str | int | float | bool | list[JSON] | dict[str, JSON] | None"
"""What JSON can say; floats are finite."""

LIBRARIES = ("numpy", "zarr")
"""Libraries whose version can change the bytes of a result."""


def software() -> dict[str, str]:
    """Return the versions of gpuconvert, Python and the libraries that decide the result."""
    own = {"gpuconvert": __version__, "python": platform.python_version()}
    return own | {name: version(name) for name in LIBRARIES}


def _plain(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value that a NumPy scalar or array stands for."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    raise TypeError(f"type {type(value).__name__} has no JSON form")


def canonical_json(value: JSON) -> str:
    """Return the one JSON text of `value`: sorted keys, no spaces, ASCII, shortest floats.

    Tuples count as lists, NumPy scalars and arrays as the numbers they hold.

    Raises
    ------
    PlanError
        Where `value` holds something that JSON cannot say, such as NaN or a set.
    """
    try:
        return json.dumps(
            value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain
        )
    except (TypeError, ValueError) as error:
        raise PlanError(
            f"a value of type {type(value).__name__} cannot be written as canonical JSON "
            f"({error}); use finite numbers, strings, lists and dicts with string keys"
        ) from error


def fingerprint(value: JSON) -> str:
    """Return the SHA-256 of the canonical JSON of `value`, lower-case hex."""
    return hashlib.sha256(canonical_json(value).encode("ascii")).hexdigest()


def now_utc() -> str:
    """Return the time as ISO 8601 in UTC, to the second: ``2026-11-20T08:15:00+00:00``."""
    return datetime.now(UTC).isoformat(timespec="seconds")
