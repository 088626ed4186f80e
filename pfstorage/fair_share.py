"""The processor, shared between the loops of this process that take long.

One thread of Python runs at a time. A thread that makes a system call gives up its place, and waits for
it anew behind all others that compute. So a dozen long listings at once slow a short request a hundredfold,
though each of them would be as fast if they ran one after the other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LONG_SECONDS = 0.1
"""Seconds of computing up to which a loop is a short one, which never pauses."""
MOST_PAUSE = 0.25
"""Seconds that one pause takes at most, so that a loop soon notices that it is to end."""
_RECENT = 1.0
_BUSY = 0.7
"""The share of one processor from which on threads of Python stand in each other's way."""


@dataclass(frozen=True)
class Clocks:
    """The time, that which the process has computed and that which the thread has, all in seconds, and how to sleep."""

    now: Callable[[], float] = time.monotonic
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time
    sleep: Callable[[float], None] = time.sleep


class FairShare:
    """Has long loops pause, so that together they compute about as much as one thread. Any thread may call `pause`."""

    def __init__(self, clocks: Clocks | None = None) -> None:
        self._clocks = clocks or Clocks()
        self._seen: dict[int, tuple[float, float, float]] = {}  # when, computed by then, computed in its loop
        self._since = self._clocks.now(), self._clocks.process()
        self._is_busy = False

    def pause(self) -> None:
        """Sleep for as long as the other long loops are to compute. A loop calls it often: some times a second or more.

        A loop that has not called it for a second is over. Nobody pauses while the process is not busy.
        """
        clocks = self._clocks
        now, computed, thread = clocks.now(), clocks.thread(), threading.get_ident()
        seen, before, used = self._seen.get(thread, (now, computed, 0.0))
        if now - seen > _RECENT:
            before, used = computed, 0.0
        used += computed - before
        self._seen[thread] = now, computed, used
        if used < LONG_SECONDS or not self._looks_busy(now):
            return
        others = 0
        for each, (at, _, by_then) in list(self._seen.items()):
            if now - at > _RECENT:
                self._seen.pop(each, None)
            elif each != thread and by_then >= LONG_SECONDS:
                others += 1
        if others:
            clocks.sleep(min(MOST_PAUSE, others * (computed - before)))

    def _looks_busy(self, now: float) -> bool:
        then, computed = self._since
        if now - then > LONG_SECONDS:
            total = self._clocks.process()
            self._is_busy = total - computed > _BUSY * (now - then)
            self._since = now, total
        return self._is_busy


LOOPS = FairShare()
"""That of this process."""
