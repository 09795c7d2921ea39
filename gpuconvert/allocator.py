"""The memory of this process, set up for large blocks that come and go.

By default the C library gives every block above some size back to the system when it
is freed, and each new one costs a page fault for every 4 KiB. A conversion makes and
frees blocks of megabytes all the time: one of 80 million values had 489,000 page faults,
and has 43,000 when freed blocks are kept.
"""

from __future__ import annotations

import ctypes
import gc
import os

M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
"""Parameters of mallopt(3), as glibc numbers them."""

ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"
"""Read by Arrow when it is loaded."""

KEPT_BYTES = 2**30
"""Blocks up to this size, and as much free memory at the end of the heap, are kept."""


def keep_freed_memory() -> bool:
    """Tell the C library to keep freed blocks for reuse; return whether it understood.

    For programs, not for libraries: it holds for the whole process. All threads share
    one heap, so that what one frees another can use. The peak is not changed.
    """
    # Arrow has an allocator of its own, which cannot use what others freed.
    os.environ.setdefault(ARROW_POOL, "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    wishes = ((M_MMAP_THRESHOLD, KEPT_BYTES), (M_TRIM_THRESHOLD, KEPT_BYTES), (M_ARENA_MAX, 1))
    told = [mallopt(parameter, value) == 1 for parameter, value in wishes]
    return all(told)


def keep_what_is_loaded() -> None:
    """Never again look for cyclic garbage among what was loaded so far.

    Modules stay until the end; looking for garbage took a twentieth of the CPU time of a
    run of three seconds. What a run makes is collected as ever: its cycles may hold large arrays.
    """
    gc.freeze()
