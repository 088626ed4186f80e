"""What a server has to do just now: connections, requests at work, and who waits for whom."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Mapping

from pfstorage.serving.gate import Gate, Turn
from pfstorage.sockets import hang_up, has_news
from pfstorage.transfer import SharedWorkers

log = logging.getLogger(__name__)

Gauge = tuple[str, str, Callable[[], Mapping[str, float]]]
"""A text, the name of a label, and what returns the numbers by that label: one without one stands under ""."""


class Load:
    """Counts the connections and the requests of one server, and bounds them. Any thread may call a method."""

    def __init__(self, most_connections: int, most_requests: int, most_workers: int) -> None:
        self.workers = SharedWorkers(most_workers)
        self.quick, self.long = Gate(most_requests), Gate(most_requests)
        # who follows a job does no work, and holds a connection: half of them are left to others
        self.followers = Gate(max(1, most_connections // 2), 0, "too many clients follow jobs")
        self._most = most_connections
        self._open: set[socket.socket] = set()
        self._new: dict[socket.socket, None] = {}  # those that have sent nothing so far, in their order
        self._idle: dict[socket.socket, None] = {}  # those between two requests, the longest first
        self._answered = 0
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
        return Turn(self.quick, self.long, is_gone, followers=self.followers)

    def connect(self, connection: socket.socket) -> bool:
        """Count *connection* until `disconnect`; tell whether it is welcome.

        If there are too many, it takes the place of another in which nothing is under way: of one that has
        had an answer, or else of one that has not sent anything, and of those the one that has waited longest.
        """
        with self._lock:
            is_welcome = len(self._open) < self._most or self._made_room()
            if is_welcome:
                self._open.add(connection)
                self._new[connection] = None
            elif not self._is_full:
                log.warning("no more connections are taken: there are %d, see --maxConnections", self._most)
            self._is_full = not is_welcome
        return is_welcome

    def _made_room(self) -> bool:
        for waiting in (self._idle, self._new):
            for connection in waiting:
                if not has_news(connection):  # else its request is there already
                    self._forget(connection)
                    hang_up(connection)
                    return True
        return False

    def replace(self, connection: socket.socket, by: socket.socket) -> bool:
        """Count *by* in the place of *connection*, which it goes on with; tell whether that still has one."""
        with self._lock:
            if connection not in self._open:
                return False
            self._forget(connection)
            self._open.add(by)
            self._new[by] = None
            return True

    def wait(self, connection: socket.socket) -> None:
        """Note that nothing is under way in *connection*: until a request comes, its place may be given to another."""
        with self._lock:
            if connection in self._open:
                self._idle[connection] = None

    def wake(self, connection: socket.socket) -> bool:
        """Note that the first byte of a request has come; tell whether *connection* still has its place."""
        with self._lock:
            self._new.pop(connection, None)
            self._idle.pop(connection, None)
            return connection in self._open

    def disconnect(self, connection: socket.socket) -> None:
        with self._lock:
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        self._open.discard(connection)
        self._new.pop(connection, None)
        self._idle.pop(connection, None)

    def begin(self, connection: socket.socket) -> None:
        """Count a request of *connection* that is being answered, until `end`."""
        with self._lock:
            self._at_work.add(connection)

    def end(self, connection: socket.socket) -> None:
        """Note that the request is answered, and that *connection* waits for another."""
        with self._lock:
            self._at_work.discard(connection)
            if connection in self._open:
                self._idle[connection] = None
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
        for gate in (self.quick, self.long, self.followers):
            gate.end()

    def hang_up(self) -> None:
        """End the connections of the requests that are not answered yet: no client is waited for any more."""
        with self._lock:
            connections = list(self._at_work)
        for connection in connections:
            hang_up(connection)

    def gauges(self) -> dict[str, Gauge]:
        """Return what `Metrics` shows of it."""
        return {
            "connections": ("Connections that are open.", "", lambda: {"": len(self._open)}),
            "followers": ("Requests that follow jobs.", "", lambda: {"": self.followers.counts()["busy"]}),
            "requests": ("Requests, without those that move files.", "state", self.quick.counts),
            "transfers": ("Requests that move files.", "state", self.long.counts),
            "workers": ("Workers that move files.", "state", self.workers.counts),
        }
