"""The folder of unfinished work, ``OUT.partial``, and the rename that finishes it.

Beside the target lies ``OUT.partial`` with ``plan.json``, ``parts/`` and, while it is
being written, ``store/``. With a folder for temporary files the plan and the parts lie
there instead. A store is at OUT whole or not at all: the last step is one rename.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpuconvert.errors import OutputError

PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where the work on one output lies.

    output : the finished store
    staging : holds the store while it is made; on the same file system as `output`
    work : holds ``plan.json`` and the parts
    """

    output: Path
    staging: Path
    work: Path

    @property
    def plan(self) -> Path:
        """The plan of the run."""
        return self.work / "plan.json"

    @property
    def parts(self) -> Path:
        """The folder of finished partitions."""
        return self.work / "parts"

    @property
    def store(self) -> Path:
        """The store while it is being made."""
        return self.staging / "store"


def workspace_for(output: Path, temp_dir: str | None = None) -> Workspace:
    """Return where the work on `output` lies."""
    target = Path(os.path.abspath(output))  # noqa: PTH100 - a link at OUT is not followed
    staging = target.with_name(target.name + PARTIAL)
    if temp_dir is None:
        return Workspace(target, staging, staging)
    # Two outputs of one name may share a temporary folder.
    tag = hashlib.sha256(os.fsencode(target)).hexdigest()[:12]
    return Workspace(target, staging, Path(temp_dir).absolute() / f"{target.name}.{tag}{PARTIAL}")


def _is_store(path: Path) -> bool:
    return path.is_dir() and ((path / "zarr.json").exists() or not any(path.iterdir()))


def check_target(
    space: Workspace, *, overwrite: bool, known: Callable[[Path], bool] = _is_store,
    kind: str = "a Zarr store",
) -> None:  # fmt: skip
    """Raise OutputError where the output exists and may not be replaced, or has no folder.

    Only what is `known` as an earlier output of this `kind` is ever replaced.
    """
    if not space.output.parent.is_dir():
        raise OutputError(
            errno.ENOENT,
            f"folder {space.output.parent} of the output does not exist; create it first",
        )
    if not os.path.lexists(space.output):
        return
    if not overwrite:
        raise OutputError(errno.EEXIST, f"{space.output} exists; give --overwrite to replace it")
    if not known(space.output):
        raise OutputError(
            errno.EEXIST,
            f"{space.output} is not {kind} and is not replaced; remove it or name another",
        )


@contextmanager
def locked(space: Workspace) -> Iterator[None]:
    """Hold the work folder for this process; it is created if it is not there.

    Raises
    ------
    OutputError
        Where another living process holds it, or it cannot be created.
    """
    try:
        space.work.mkdir(parents=True, exist_ok=True)
        handle = os.open(space.work / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(
            error.errno, f"{space.work} cannot be written: {error.strerror}"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise OutputError(
                errno.EBUSY,
                f"process {holder} is already working on {space.output}; wait for it or stop it",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def commit(space: Workspace) -> None:
    """Rename the finished store to its place, and remove the work folder.

    An older store is moved aside first, and moved back if the rename fails.
    """
    older = space.staging / "replaced"
    try:
        if os.path.lexists(space.output):
            space.output.rename(older)
        try:
            space.store.rename(space.output)
        except OSError:
            if older.exists():
                older.rename(space.output)
            raise
    except OSError as error:
        raise OutputError(
            error.errno,
            f"the finished store cannot be renamed to {space.output} ({error.strerror}); "
            "run the same command again",
        ) from error
    discard(space)


def discard(space: Workspace) -> None:
    """Remove everything that an unfinished run left."""
    for folder in {space.staging, space.work}:
        shutil.rmtree(folder, ignore_errors=True)
