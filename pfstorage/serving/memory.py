"""How the process of a server keeps its memory."""

from __future__ import annotations

import contextlib
import ctypes

_M_ARENA_MAX = -8  # of mallopt(3), from glibc's malloc.h


def share_between_threads() -> None:
    """Have all threads take memory from one arena, before the first of them begins.

    By itself, glibc gives each of the first threads an arena of its own, up to eight for each processor: what one
    has freed is in the way of the others. Of many long messages, the process would hold twice as much. Other C
    libraries know no such thing.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
