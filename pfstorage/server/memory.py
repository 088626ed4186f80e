"""How the process of a server keeps its memory."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # of mallopt(3), from glibc's malloc.h


def share_between_threads() -> None:
    """Have all threads take memory from one arena, before the first of them begins.

    By default, glibc gives each of the first threads its own arena, up to eight for each processor. No thread can use
    the memory that another one has freed there. With many long messages, the process would hold twice as much memory.
    Other C libraries have no such option.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
