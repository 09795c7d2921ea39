"""What is known of one output from outside: finished, under way, broken off or never begun."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpuconvert.errors import OutputError, PlanError
from gpuconvert.finished_store import StoreSummary, read_summary
from gpuconvert.plan import read_plan
from gpuconvert.workspace import Workspace, is_held, workspace_for

State = Literal["finished", "running", "interrupted"]


@dataclass(frozen=True, slots=True)
class Status:
    """How far the work on an output is.

    state : "running" while a living process holds it
    partitions, finished : how many there are and are done; 0 where there is no plan yet
    beat : what the process wrote last, see `gpuconvert.heartbeat`; empty where it wrote nothing
    store : what the finished store holds
    """

    output: str
    state: State
    partitions: int = 0
    finished: int = 0
    beat: dict[str, Any] | None = None
    store: StoreSummary | None = None

    @property
    def percent(self) -> float | None:
        """Share of the current stage that is done, or None where it is not counted."""
        total = (self.beat or {}).get("total_bytes")
        return 100 * self.beat["done_bytes"] / total if self.beat and total else None

    @property
    def rate(self) -> float | None:
        """Bytes per second of the current stage."""
        if not self.beat or self.percent is None:
            return None
        return float(self.beat["done_bytes"] / max(self.beat["stage_seconds"], 1e-3))

    @property
    def seconds_left(self) -> float | None:
        """Time until the current stage ends if it goes on as it did."""
        if not self.beat or not self.rate:
            return None
        return float((self.beat["total_bytes"] - self.beat["done_bytes"]) / self.rate)

    def to_json(self) -> dict[str, Any]:
        """Return the status as plain JSON values."""
        return {
            "output": self.output, "state": self.state, "partitions": self.partitions,
            "finished": self.finished, "percent": self.percent, "bytes_per_second": self.rate,
            "seconds_left": self.seconds_left, "process": self.beat or None,
            "store": None if self.store is None else self.store.to_json(),
        }  # fmt: skip


def _read_beat(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and "total_bytes" in value else None


def _counted(space: Workspace) -> tuple[int, int]:
    """Return how many partitions there are, and how many have a finished part."""
    try:
        plan = read_plan(space.plan)
    except (PlanError, OSError):
        return 0, 0
    done = [part for part in space.parts.glob("*") if re.fullmatch(r"\d{5,}", part.name)]
    return len(plan.partitions), min(len(done), len(plan.partitions))


def read_status(output: Path, temp_dir: str | None = None) -> Status:
    """Return what is known of `output`.

    Raises
    ------
    OutputError
        Where neither a store nor any work on one is there.
    StoreError
        Where what is there is no finished store.
    """
    space = workspace_for(output, temp_dir)
    beat = _read_beat(space.status)
    if beat is not None:
        space = Workspace(space.output, space.staging, Path(str(beat.get("work", space.work))))
    if beat is not None or space.work.exists():
        partitions, finished = _counted(space)
        state: State = "running" if is_held(space) else "interrupted"
        return Status(str(space.output), state, partitions, finished, beat)
    if not space.output.exists():
        raise OutputError(
            f"nothing is known of {space.output}: there is neither a store nor {space.staging}; "
            "check the path, and --temp-dir if the run had one"
        )
    return Status(str(space.output), "finished", store=read_summary(space.output))
