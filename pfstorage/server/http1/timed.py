"""What a connection is read from and written to, with bounds in time."""

from __future__ import annotations

import io
import math
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.runtime.sockets import TIMEOUT_ERRORS, set_timeouts, unacknowledged_bytes

CHECK_SECONDS = 2.5
"""How often a client is looked at that takes nothing of its answer."""
FIRST = b"H"
"""The byte with which each answer begins, whatever it says."""


class TimedSocket:
    """A socket that raises `TimeoutError` if it would have to wait longer than so many seconds."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self._has_one_bound = isinstance(sock, ssl.SSLSocket)
        self._bounds: dict[int, float] = {}

    def receive_into(self, buffer: Any, seconds: float) -> int:
        self._bound(socket.SO_RCVTIMEO, seconds)
        try:
            return self.socket.recv_into(buffer)
        except TIMEOUT_ERRORS:
            raise TimeoutError("nothing came in time") from None

    def send(self, data: Any, seconds: float) -> int:
        """Send some of *data*, and return how much: nothing if there was no room for it in time."""
        FAIR_SHARE.rest()
        self._bound(socket.SO_SNDTIMEO, seconds)
        try:
            return self.socket.send(data)
        except TIMEOUT_ERRORS:
            return 0

    def _bound(self, option: int, seconds: float) -> None:
        key = 0 if self._has_one_bound else option
        if self._bounds.get(key) != seconds:  # most often, it is as it was
            set_timeouts(self.socket, seconds, option)
            self._bounds[key] = seconds


class TimedStream(io.RawIOBase):
    """The bytes that *sock* receives. To wait longer for them than is allowed raises `TimeoutError`.

    The seconds that count are those of the waiting, not what the server does meanwhile. While *haste* returns 2,
    whoever sends must be twice as fast.
    """

    def __init__(self, sock: TimedSocket, haste: Callable[[], float] = lambda: 1.0) -> None:
        self._socket = sock
        self._haste = haste
        self.begin(math.inf)

    def begin(self, seconds: float, *, rate: float = math.inf, most: float = math.inf) -> None:
        """Allow *seconds* for all that comes from now on. Each *rate* bytes bring one more, up to *most* of them."""
        self._left, self._rate, self._most = seconds, rate, most

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise TimeoutError("it takes too long")
        started = time.monotonic()
        count = self._socket.receive_into(buffer, self._left)
        waited = time.monotonic() - started
        earned = 0.0 if self._rate == math.inf else count / (self._rate * self._haste())
        self._left = min(self._most, self._left - waited + earned)
        return count

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self)


class TimedWriter(io.RawIOBase):
    """Sends answers to *sock*. A client that is too slow in taking what is sent raises `TimeoutError`.

    *bounds* returns for how many seconds it may take nothing, and how many bytes bring back one of them. It is asked
    each time that the client is looked at. What the system holds for the client is not taken.
    """

    def __init__(self, sock: TimedSocket, bounds: Callable[[], tuple[float, float]]) -> None:
        self._socket = sock
        self._bounds = bounds
        self._has_begun, self._is_tried = True, False
        self._lock = threading.Lock()

    def begin(self) -> None:
        """Begin an answer: nothing of it has left yet."""
        self._has_begun = self._is_tried = False

    def is_tried(self) -> bool:
        """Send the first byte of the answer, if nothing has left yet; tell whether that was done. Raise `OSError`.

        So the system learns whether the client still takes any. Any thread may call it.
        """
        with self._lock:
            if not (self._has_begun or self._is_tried):
                self._is_tried = True
                self._socket.send(FIRST, CHECK_SECONDS)
            return self._is_tried

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = data
        if not self._has_begun:
            with self._lock:
                self._has_begun = True
            rest = data[len(FIRST) :] if self._is_tried else data
        sent = self._socket.send(rest, CHECK_SECONDS)
        if sent < len(rest):
            self._insist(memoryview(rest)[sent:])
        return len(data)

    def _insist(self, rest: memoryview) -> None:
        late, held = 0.0, unacknowledged_bytes(self._socket.socket)
        while rest:
            started = time.monotonic()
            sent = self._socket.send(rest, CHECK_SECONDS)
            waited = time.monotonic() - started
            rest = rest[sent:]
            taken, held = held + sent, unacknowledged_bytes(self._socket.socket)
            taken = max(0, taken - held)  # by TLS, a little more is held than was sent
            seconds, rate = self._bounds()
            late = max(0.0, late + waited - taken / rate)
            if late > seconds:
                raise TimeoutError("the client takes its answer too slowly")
