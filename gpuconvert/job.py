"""An open source with its plan, backend and workspace: what the steps of a run share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpuconvert.backends import Backend
from gpuconvert.decision import AxisDecision
from gpuconvert.pipeline import Work
from gpuconvert.pixels import first_of_pixel
from gpuconvert.plan import Plan
from gpuconvert.planning import Sample
from gpuconvert.readers import Reader
from gpuconvert.source_check import SourceCheck
from gpuconvert.stages import Monitor
from gpuconvert.workspace import Workspace


@dataclass(frozen=True)
class Job:
    """Everything that converting, assembling and describing one source needs.

    sample : what the plan was decided from, where it was made just now
    check : compares the source with what it declares, where that was asked for
    """

    plan: Plan
    reader: Reader
    backend: Backend
    backend_line: str
    space: Workspace
    monitor: Monitor
    sample: Sample | None = None
    check: SourceCheck | None = None

    def work(self) -> Work:
        """Return what converting a partition needs."""
        acquisition = self.reader.acquisition
        rows = np.arange(acquisition.n_spectra)
        if self.plan.merge:
            rows = np.cumsum(first_of_pixel(acquisition)) - 1
        return Work(self.plan, self.reader, self.backend, self.space.parts, rows, self.monitor)

    def source_check(self) -> str:
        """Return in words whether the source is what it declares; waits until that is known.

        Raises
        ------
        SourceError
            Where it is not.
        """
        return "not asked for" if self.check is None else self.check.result()

    def decision(self) -> AxisDecision:
        """Return what was detected when the plan was made."""
        return AxisDecision.from_json(self.plan.decision)

    def warnings(self) -> tuple[str, ...]:
        """Return the warnings of the header and of the decision."""
        return (*self.reader.acquisition.warnings, *self.decision().warnings)
