"""The independent verifier: a finished store read again, by itself and against its source.

It shares no code with what wrote the store: Zarr alone reads the store, pyimzML (or a
slow reading of Bruker's folders, or plain zipfile and pyarrow) the source, and what
resampling may do to a spectrum is bounded from its definition.
X is streamed. A check that fails is an answer; only what cannot be verified at all
(no store, no source) is an error.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gpuconvert.errors import StoreError
from gpuconvert.quality import Quality
from gpuconvert.verification.bruker import BrukerOracle
from gpuconvert.verification.checks import Check, Ledger
from gpuconvert.verification.compare import compare
from gpuconvert.verification.integrity import check_integrity
from gpuconvert.verification.mobility import SUFFIX, check_mobility, compare_mobility
from gpuconvert.verification.sources import open_source
from gpuconvert.verification.store import Store
from gpuconvert.verification.structure import check_metadata, check_table, lists_tables

__all__ = ["Check", "Verification", "verify"]


@dataclass(frozen=True, slots=True)
class Verification:
    """Every check that was made, in order, and the quality figures measured anew.

    quality : None without a source, and where the store does not fit it
    """

    checks: tuple[Check, ...]
    quality: Quality | None = None

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "ok": self.ok,
            "checks": [asdict(check) for check in self.checks],
            "quality": None if self.quality is None else self.quality.to_json(),
        }

    def lines(self) -> list[str]:
        """Return the result as sentences for a terminal."""
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [
            f"{'ok    ' if check.ok else 'FAILED'}  {check.name:<{width}}  {check.detail}"
            for check in self.checks
        ]
        return lines + ([] if self.quality is None else self.quality.lines())


def verify(store: Path, source: Path | None = None, ibd: Path | None = None) -> Verification:
    """Read a finished store again and check it.

    Parameters
    ----------
    store
        The folder of the store.
    source
        The imzML, ``.d`` folder or mzPeak that it was made of, to compare with.
    ibd
        The binary file of an imzML, where that is not beside it under the same name.

    Raises
    ------
    StoreError
        Where `store` is no store at all.
    SourceError
        Where `source` is of another kind, or cannot be read.
    """
    opened = Store(store)
    ledger = Ledger()
    with ExitStack() as stack:
        oracle = None if source is None else stack.enter_context(open_source(source, ibd, opened))
        ledger.run("consolidated metadata", lambda: check_metadata(opened))
        ledger.run("integrity", lambda: check_integrity(opened))
        names = opened.children("tables")
        if not names and lists_tables(opened):
            # Damage, which the checks so far have named.
            return Verification(tuple(ledger.checks))
        if not names:
            raise StoreError(f"{store} has no tables")
        mains = [name for name in names if not name.endswith(SUFFIX)]
        tables = [check_table(opened, name, ledger) for name in mains]
        by_name = dict(zip(mains, tables, strict=True))
        parted = [
            check_mobility(opened, name, by_name.get(name.removesuffix(SUFFIX)), ledger)
            for name in names
            if name.endswith(SUFFIX)
        ]
        good = [table for table in tables if table is not None]
        if oracle is None:
            return Verification(tuple(ledger.checks))
        if len(good) < len(tables):
            ledger.fail("source", "not compared: tables of the store are damaged, see above")
            return Verification(tuple(ledger.checks))
        ratio = opened.n_bytes / max(1, oracle.n_bytes)
        quality = compare(opened, good, oracle, ratio, ledger)
        for table in parted:
            if table is not None and isinstance(oracle, BrukerOracle):
                ledger.run(f"source of {table.name}", partial(compare_mobility, table, oracle))
        return Verification(tuple(ledger.checks), quality)
