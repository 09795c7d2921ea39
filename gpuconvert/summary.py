"""What a run did, as a value: sizes, quality, times and memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpuconvert.quality import Quality


@dataclass(frozen=True)
class Summary:
    """What a run did.

    output : the finished store
    n_spectra, n_pixels, n_bins, n_nonzeros : sizes
    decision : what was detected, in sentences
    backend : which one, and why
    quality : how well the store says what the source said
    warnings : sentences, of the header and of the decision
    source_check : whether the source is what it declares, in words
    parts, parts_reused : partitions, and how many of them an earlier run had finished
    dropped, sorted : points dropped and spectra sorted by ``--repair``
    seconds : wall time
    stages : seconds of every stage, summed over threads
    peak_memory, projected_memory : bytes
    stored : effective storage parameters, read back from the store
    """

    output: str
    n_spectra: int
    n_pixels: int
    n_bins: int
    n_nonzeros: int
    decision: tuple[str, ...]
    backend: str
    quality: Quality
    warnings: tuple[str, ...]
    source_check: str
    parts: int
    parts_reused: int
    dropped: int
    sorted: int
    seconds: float
    stages: dict[str, float]
    peak_memory: int
    projected_memory: int
    stored: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as plain JSON values."""
        value = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return value | {
            "quality": self.quality.to_json(),
            "decision": list(self.decision),
            "warnings": list(self.warnings),
        }
