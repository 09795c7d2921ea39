"""The answers of the verifier: one check, one sentence; a failed check is not an exception."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from gpuconvert.errors import SourceError, StoreError

T = TypeVar("T")

TOLERANCE = 1e-6
"""Relative error that float32 values of a sum may have added up to."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, whether it is as it must be, and what was found."""

    name: str
    ok: bool
    detail: str


@dataclass(slots=True)
class Ledger:
    """The checks made so far, in order."""

    checks: list[Check] = field(default_factory=list)

    def run(self, name: str, check: Callable[[], tuple[str, T]]) -> T | None:
        """Make a check and return what it found, or None where it failed.

        `check` returns a sentence and a value, or raises StoreError or
        SourceError with what is wrong.
        """
        try:
            detail, value = check()
        except (StoreError, SourceError) as error:
            self.checks.append(Check(name, False, str(error)))
            return None
        self.checks.append(Check(name, True, detail))
        return value

    def fail(self, name: str, detail: str) -> None:
        """Record a check that could not be made."""
        self.checks.append(Check(name, False, detail))
