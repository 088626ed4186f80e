"""What a server has to do just now: connections, requests at work, and who waits for whom."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Mapping

from pfstorage.serving.gate import Gate, Turn
from pfstorage.transfer import SharedWorkers

log = logging.getLogger(__name__)

Gauge = tuple[str, str, Callable[[], Mapping[str, float]]]
"""A text, the name of a label, and what returns the numbers by that label: one without one stands under ""."""


class Load:
    """Counts the connections and the requests of one server, and bounds them. Any thread may call a method."""

    def __init__(self, most_connections: int, most_requests: int, most_workers: int) -> None:
        self.workers = SharedWorkers(most_workers)
        self.quick, self.long = Gate(most_requests), Gate(most_requests)
        self._most = most_connections
        self._connections = self._answered = 0
        self._at_work: set[socket.socket] = set()
        self._is_full = False
        # each request takes the lock itself twice: by way of the condition, that takes longer
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._is_awaited = False  # a server that serves for ever has nobody wait until its end

    @property
    def at_work(self) -> int:
        """How many requests are being answered, from their first line on."""
        return len(self._at_work)

    @property
    def answered(self) -> int:
        return self._answered

    def new_turn(self, is_gone: Callable[[], bool]) -> Turn:
        """Return the place that a request is to take among those at work, unless its client *is_gone* by then."""
        return Turn(self.quick, self.long, is_gone)

    def connect(self) -> bool:
        """Count a connection until `disconnect`, unless there are too many; tell whether it is welcome."""
        with self._lock:
            is_welcome = self._connections < self._most
            self._connections += is_welcome
            if not (is_welcome or self._is_full):
                log.warning("no more connections are taken: there are %d, see --maxConnections", self._most)
            self._is_full = not is_welcome
        return is_welcome

    def disconnect(self) -> None:
        with self._lock:
            self._connections -= 1

    def begin(self, connection: socket.socket) -> None:
        """Count a request of *connection* that is being answered, until `end`."""
        with self._lock:
            self._at_work.add(connection)

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._at_work.discard(connection)
            self._answered += 1
            if self._is_awaited:
                self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Wait until a request is answered, or *seconds* are over."""
        with self._changed:
            self._is_awaited = True
            self._changed.wait(seconds)

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until all requests are answered, *seconds* at most; tell whether they are."""
        with self._changed:
            self._is_awaited = True
            return self._changed.wait_for(lambda: not self._at_work, seconds)

    def end_turns(self) -> None:
        """Let no request begin to work any more; who waits for that is told so."""
        self.quick.end()
        self.long.end()

    def hang_up(self) -> None:
        """End the connections of the requests that are not answered yet: no client is waited for any more."""
        with self._lock:
            connections = list(self._at_work)
        for connection in connections:
            with contextlib.suppress(OSError):
                # that of the base class: the one of TLS would take what another thread is using
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def gauges(self) -> dict[str, Gauge]:
        """Return what `Metrics` shows of it."""
        return {
            "connections": ("Connections that are open.", "", lambda: {"": self._connections}),
            "requests": ("Requests, without those that move files.", "state", self.quick.counts),
            "transfers": ("Requests that move files.", "state", self.long.counts),
            "workers": ("Workers that move files.", "state", self.workers.counts),
        }
