"""Everything gpuconvert raises on purpose.

Each class also inherits the standard type that a caller would guess, and
carries the exit code that the command line returns for it::

    GpuconvertError                     1   failed
    ├── SettingsError    (ValueError)   2   an option is wrong or contradicts another
    │   └── BudgetError  (MemoryError)  2   the work cannot be done within --memory
    ├── SourceError      (ValueError)   3   the input is refused
    │   ├── SourceMissingError (FileNotFoundError)
    │   └── SourceReadError        1   the input cannot be read just now; what is done is kept
    ├── BackendError     (RuntimeError) 1   an explicitly chosen backend cannot be used
    │   └── KernelSourceError           1   a kernel of it is missing or does not compile
    ├── PlanError        (ValueError)   1   plan.json or a part does not fit
    │   └── DamagedPartError            1   a finished part is not as it was written
    ├── OutputError      (OSError)      1   the target cannot be written
    ├── StoreError       (ValueError)   1   a store is damaged or not one of ours
    ├── MissingExtraError (ImportError) 1   an optional dependency is not installed
    └── Stopped                         75  stopped on request; the same command continues

A message names file, place, value, expectation and remedy in one sentence,
in lower case and without a full stop.
"""

from pathlib import Path


class GpuconvertError(Exception):
    """Base of every error that gpuconvert raises on purpose."""

    exit_code = 1


class SettingsError(GpuconvertError, ValueError):
    """An option has a value that cannot be used, or contradicts another."""

    exit_code = 2


class BudgetError(SettingsError, MemoryError):
    """The work does not fit into the memory it may use."""


class SourceError(GpuconvertError, ValueError):
    """The input is refused: damaged, contradictory or not supported."""

    exit_code = 3


class SourceMissingError(SourceError, FileNotFoundError):
    """A file that the input needs is not there."""


class SourceReadError(SourceError):
    """Reading the input failed, whatever is in it; the same command continues."""

    exit_code = 1


class BackendError(GpuconvertError, RuntimeError):
    """An explicitly chosen backend cannot be used here, or failed."""


class KernelSourceError(BackendError):
    """A kernel is missing or does not compile: the installation is damaged."""


class PlanError(GpuconvertError, ValueError):
    """A plan or a part on disk does not fit this program or this job."""


class DamagedPartError(PlanError):
    """A finished part does not hold what was written; made again, it does.

    folder : of the part
    """

    def __init__(self, folder: Path, found: str) -> None:
        super().__init__(
            f"{found}; the part is removed, run the same command again (or 'gpuconvert convert' "
            f"with index {int(folder.name)}) to make it anew"
        )
        self.folder = folder


class OutputError(GpuconvertError, OSError):
    """The target cannot be written; built from (errno, message)."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()


class StoreError(GpuconvertError, ValueError):
    """A finished store is damaged, or was not written by gpuconvert."""


class MissingExtraError(GpuconvertError, ImportError):
    """An optional dependency is needed and not installed."""


class Stopped(GpuconvertError):  # noqa: N818 - a request, not a failure
    """The run was stopped on request and can be resumed."""

    exit_code = 75
