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
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from gpuconvert.durable import rename
from gpuconvert.errors import OutputError

PARTIAL = ".partial"
"""Suffix of the folder of a conversion that has not finished."""


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
    def lock(self) -> Path:
        """Held by the process that works on this output."""
        return self.work / "lock"

    @property
    def status(self) -> Path:
        """What the process that works on this output is doing."""
        return self.staging / "status.json"

    @property
    def replaced(self) -> Path:
        """An older store, between the two renames that replace it."""
        return self.staging / "replaced"

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

    The system lets go of the lock when a process ends, however it ends. An older store
    that a killed process had moved aside, and not replaced, is moved back.

    Raises
    ------
    OutputError
        Where another living process holds it, or it cannot be created.
    """
    try:
        handle = _take(space)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        with suppress(OSError):
            space.work.rmdir()  # Only where it is empty: it was made just now.
        raise OutputError(
            error.errno,
            f"{space.work} cannot be written: {error.strerror}; mend that or name another folder, "
            "and run the same command again",
        ) from error
    try:
        if os.path.lexists(space.replaced) and not os.path.lexists(space.output):
            space.replaced.rename(space.output)
        yield
    finally:
        os.close(handle)


def _take(space: Workspace) -> int:
    """Return the descriptor of the lock, which this process now holds."""
    while True:
        space.work.mkdir(parents=True, exist_ok=True)
        try:
            handle = os.open(space.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:
            continue  # Another process finished just now and removed the folder.
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, space.lock):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}".encode(), 0)
                return handle
        except BlockingIOError as error:
            holder = os.pread(handle, 300, 0).decode("utf-8", "replace").strip() or "unknown"
            os.close(handle)
            raise OutputError(
                errno.EBUSY,
                f"process {holder} is already working on {space.output}; wait for it or stop it",
            ) from error
        except BaseException:
            os.close(handle)
            raise
        # What was locked had been removed meanwhile: it locks nothing any more.
        os.close(handle)


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def is_held(space: Workspace) -> bool:
    """Return whether a living process works on this output; nothing is changed."""
    try:
        handle = os.open(space.lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def check_room(space: Workspace, *, temporary: int, store: int) -> None:
    """Raise OutputError where the disks have less free than the work may take, in bytes.

    What the work folder holds already counts as free: it is part of what is asked for.
    """
    needs: dict[int, tuple[Path, int]] = {}
    for folder, needed in ((space.work, temporary), (space.output.parent, store)):
        device = folder.stat().st_dev
        place, sum_ = needs.get(device, (folder, 0))
        needs[device] = place, sum_ + needed
    held = sum(file.stat().st_size for file in space.parts.rglob("*") if file.is_file())
    for place, needed in needs.values():
        free = shutil.disk_usage(place).free + (held if place == space.work else 0)
        if free < needed:
            raise OutputError(
                errno.ENOSPC,
                f"{place} has {free / 1e6:,.1f} MB free, but the run may need "
                f"{needed / 1e6:,.1f} MB there; make room, name another --temp-dir, or give "
                "--ignore-space",
            )


def commit(space: Workspace, *, durable: bool = False) -> None:
    """Rename the finished store to its place, and remove the work folder.

    An older store is moved aside first, and moved back if the rename fails.
    """
    try:
        if os.path.lexists(space.output):
            space.output.rename(space.replaced)
        try:
            rename(space.store, space.output, durable=durable)
        except OSError:
            if space.replaced.exists():
                space.replaced.rename(space.output)
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
