"""A pool of kept connections, each lent to one caller at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """Connections to a place, made by *connect* and ended by *disconnect*.

    The one that came back last is lent first: its socket is the likeliest to live.
    There are as many as there were ever callers at once. A caller that asks for another place
    ends the idle connections to the old one: the store has moved.
    """

    def __init__(self, connect: Callable[[str], C], disconnect: Callable[[C], None]) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._place = ""
        self._idle: list[C] = []
        self._lent = 0
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def borrowed(self, place: str) -> Iterator[C]:
        """Lend a connection to *place*. One on which anything failed is ended, not lent again."""
        connection = self._taken(place)
        try:
            yield connection
        except BaseException:
            with self._lock:
                self._lent -= 1
            self._disconnect(connection)
            raise
        with self._lock:
            self._lent -= 1
            keep = not self._closed and place == self._place
            if keep:
                self._idle.append(connection)
        if not keep:
            self._disconnect(connection)

    def _taken(self, place: str) -> C:
        left: list[C] = []
        with self._lock:
            if place != self._place:
                self._place = place
                left, self._idle = self._idle, []
            connection = self._idle.pop() if self._idle else None
        for each in left:
            self._disconnect(each)
        if connection is None:
            connection = self._connect(place)
        with self._lock:
            self._lent += 1
        return connection

    @property
    def counts(self) -> tuple[int, int]:
        """How many connections are lent, and how many idle."""
        return self._lent, len(self._idle)

    def close(self) -> None:
        """End the idle connections now, and the lent ones when they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            self._disconnect(connection)
