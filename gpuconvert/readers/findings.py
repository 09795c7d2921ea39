"""What every reader may have to say of its source, and the order that its rows are in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gpuconvert.errors import SourceError

Longs = NDArray[np.int64]


@dataclass
class Findings:
    """Warnings in the order found; a contradiction is an error where the user is strict."""

    path: Path
    strict: bool
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)

    def contradict(self, text: str) -> None:
        """Keep a warning that two statements of the source disagree."""
        if self.strict:
            raise SourceError(f"{self.path}: {text}; leave out --strict to convert it nevertheless")
        self.note(text)


def row_order(
    path: Path, zyx: tuple[Longs, Longs, Longs], origin: tuple[int, int, int],
    findings: Findings, duplicates: str,
) -> Longs:  # fmt: skip
    """Return the spectra in ascending (z, y, x, place in the file); (n_rows,) int64."""
    z, y, x = zyx
    rows = np.arange(len(x))
    sizes = [int(column.max()) + 1 for column in zyx]
    if sizes[0] * sizes[1] * sizes[2] < 2**63:
        key = (z * sizes[1] + y) * sizes[2] + x
        if (np.diff(key) < 0).any():
            rows = np.argsort(key, kind="stable")
            key = key[rows]
        again = key[1:] == key[:-1]
    else:
        rows = np.lexsort((x, y, z))
        again = np.ones(len(rows) - 1, bool)
        for column in zyx:
            again &= column[rows[1:]] == column[rows[:-1]]
    if not again.any():
        return rows
    place = int(np.argmax(again))
    first, second = int(rows[place]), int(rows[place + 1])
    found = (
        f"{int(again.sum())} spectra lie on a pixel that has one already, the first are spectra "
        f"{first} and {second} at x={int(x[first]) + origin[0]}, y={int(y[first]) + origin[1]}, "
        f"z={int(z[first]) + origin[2]}"
    )
    if duplicates == "error":
        raise SourceError(
            f"{path}: {found}; choose one with --duplicates first or last, add them up with sum, "
            "or keep all as rows with keep"
        )
    findings.note(f"{found}; --duplicates {duplicates} decides")
    keep = np.ones(len(rows), bool)
    if duplicates == "first":
        keep[1:] = ~again
    elif duplicates == "last":
        keep[:-1] = ~again
    return rows[keep]
