"""Keep connections, and lend each of them to one caller at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """A pool of connections to one origin, which *connect* opens and *disconnect* closes. Safe in many threads.

    The connection that was returned last is lent first, since its socket is most likely still open. The pool grows
    with the number of callers at the same time. A request for another origin closes the idle connections, since the
    store has moved.
    """

    def __init__(self, connect: Callable[[str], C], disconnect: Callable[[C], None]) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._origin = ""
        self._idle: list[C] = []
        self._lent = 0
        self._lock = threading.Lock()
        self._closed = False

    @contextlib.contextmanager
    def borrowed(self, origin: str) -> Iterator[C]:
        """Lend a connection to *origin*. A connection is closed after any error."""
        connection = self._acquired(origin)
        try:
            yield connection
        except BaseException:
            with self._lock:
                self._lent -= 1
            self._disconnect(connection)
            raise
        with self._lock:
            self._lent -= 1
            keep = not self._closed and origin == self._origin
            if keep:
                self._idle.append(connection)
        if not keep:
            self._disconnect(connection)

    def _acquired(self, origin: str) -> C:
        left: list[C] = []
        with self._lock:
            if origin != self._origin:
                self._origin = origin
                left, self._idle = self._idle, []
            connection = self._idle.pop() if self._idle else None
        for each in left:
            self._disconnect(each)
        if connection is None:
            connection = self._connect(origin)
        with self._lock:
            self._lent += 1
        return connection

    @property
    def counts(self) -> tuple[int, int]:
        """The number of lent connections, and of idle ones."""
        return self._lent, len(self._idle)

    def close(self) -> None:
        """Close the idle connections now, and each lent one when it is returned."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            self._disconnect(connection)
