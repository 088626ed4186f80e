"""How many requests are worked on at once, and how many may wait for that."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from pfstorage.errors import BusyError

WAIT_SECONDS = 10.0
WAITING_PER_WORKING = 2


class Gate:
    """Lets *most* requests at once through, in the order in which they came; a few more wait for some seconds."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._working = 0
        self._waiting: list[object] = []
        self._changed = threading.Condition()

    @property
    def working(self) -> int:
        return self._working

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @contextlib.contextmanager
    def passed(self) -> Iterator[None]:
        """Be one of those at work for the length of the block. Raise `BusyError`."""
        with self._changed:
            self._enter()
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    def _enter(self) -> None:
        if self._working >= self._most or self._waiting:
            self._wait()
        self._working += 1

    def _wait(self) -> None:
        if len(self._waiting) >= WAITING_PER_WORKING * self._most:
            raise _busy()
        me, deadline = object(), time.monotonic() + WAIT_SECONDS
        self._waiting.append(me)
        try:
            while self._working >= self._most or self._waiting[0] is not me:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise _busy()
        finally:
            self._waiting.remove(me)
            self._changed.notify_all()


def _busy() -> BusyError:
    return BusyError("the server has too much to do: try again in some seconds")
