"""Where kernels run: a stream of a device with memory of its own.

Or the emulation that the tests build from the same sources.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = Any
"""An array where the kernels run."""


class Queue(Protocol):
    """Where kernels run one after the other, with memory that is kept between batches."""

    def empty(self, name: str, n: int, dtype: type[np.generic] | np.dtype[Any]) -> Array:
        """Return the array called `name`, `n` long, with whatever is in it."""
        ...

    def upload(self, name: str, values: NDArray[Any]) -> Array:
        """Return `values` where kernels run, in the array called `name`."""
        ...

    def constant(self, key: str, values: NDArray[np.float64]) -> Array:
        """Return `values` where kernels run; sent once for a `key`."""
        ...

    def launch(self, kernel: str, n_threads: int, *arguments: Any) -> None:  # noqa: ANN401
        """Start `kernel` with at least one thread, `n_threads` at best."""
        ...

    def scan(self, values: Array) -> Array:
        """Return the running sums of int64 `values`, which they replace."""
        ...

    def sort(self, values: Array) -> None:
        """Sort uint64 `values`."""
        ...

    def download(self, *values: Array) -> list[NDArray[Any]]:
        """Return all `values` on the host, once all before is done."""
        ...

    def span(self, stage: str) -> AbstractContextManager[None]:
        """Name what the block does, for profilers and traces."""
        ...
