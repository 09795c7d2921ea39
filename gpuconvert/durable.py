"""Files that must survive a loss of power: written through to the disk before they are named.

A rename may reach the disk before the bytes that it names. With ``--durable`` a file or
folder is synchronised before its rename, and the folder that holds the name after it.
"""

from __future__ import annotations

import os
from pathlib import Path


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(path: Path) -> None:
    """Write a file, or a folder with all below it, through to the disk."""
    if not path.is_dir():
        _sync(path)
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            _sync(Path(folder, name))
        _sync(Path(folder))


def rename(draft: Path, final: Path, *, durable: bool) -> None:
    """Rename `draft` to `final`, replacing a file that is there; through to the disk if asked."""
    if durable:
        sync_tree(draft)
    draft.replace(final)
    if durable:
        _sync(final.parent)
