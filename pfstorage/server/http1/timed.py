"""Read from a socket and write to it, with limits on the time that the client may take."""

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

# seconds between two checks of a client that does not read its response
CHECK_SECONDS = 2.5
# the first byte of every response
FIRST_BYTE = b"H"


class TimedSocket:
    """A socket with a timeout for each call."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        # a TLS socket has one timeout for both directions
        self._is_tls = isinstance(sock, ssl.SSLSocket)
        self._receive_key, self._send_key = (0, 0) if self._is_tls else (0, 1)
        self._timeouts: dict[int, float] = {}

    def receive_into(self, buffer: Any, seconds: float) -> int:
        """Receive bytes into *buffer*, and return their number. Raise `TimeoutError` after *seconds*."""
        if self._timeouts.get(self._receive_key) != seconds:  # saves a system call in most cases
            self._set_timeout(socket.SO_RCVTIMEO, self._receive_key, seconds)
        try:
            return self.socket.recv_into(buffer)
        except TIMEOUT_ERRORS:
            raise TimeoutError("the client sent nothing in time") from None

    def send(self, data: Any, seconds: float) -> int:
        """Send a part of *data*, and return its length: 0 if the send buffer stayed full for *seconds*."""
        FAIR_SHARE.rest()
        if self._timeouts.get(self._send_key) != seconds:
            self._set_timeout(socket.SO_SNDTIMEO, self._send_key, seconds)
        try:
            return self.socket.send(data)
        except TIMEOUT_ERRORS:
            return 0

    def send_now(self, data: Any) -> int:
        """Send as much of *data* as is possible without waiting for the client. Return the number of bytes.

        It is 0 over TLS, where nothing shows whether the client must be waited for.
        """
        if self._is_tls:
            return 0
        try:
            return self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def _set_timeout(self, option: int, key: int, seconds: float) -> None:
        set_timeouts(self.socket, seconds, option)
        self._timeouts[key] = seconds


class TimedReader(io.RawIOBase):
    """A reader from *sock* with a time budget. It raises `TimeoutError` when the budget is spent.

    Only the time of waiting for the client counts, not the time in which the server works. *speed_up* returns a
    factor: at 2, the client must send twice as fast to earn the same time.
    """

    def __init__(self, sock: TimedSocket, speed_up: Callable[[], float] = lambda: 1.0) -> None:
        self._socket = sock
        self._speed_up = speed_up
        self.set_budget(math.inf)

    def set_budget(self, seconds: float, *, rate: float = math.inf, limit: float = math.inf) -> None:
        """Set the budget to *seconds*. Every *rate* bytes received add one second, up to *limit* seconds."""
        self._left, self._rate, self._limit = seconds, rate, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive bytes into *buffer*, and return their number: 0 at the end.

        Raise `TimeoutError` if the budget is spent, or another `OSError`.
        """
        if self._left <= 0:
            raise TimeoutError("the client sends too slowly")
        started = time.monotonic()
        count = self._socket.receive_into(buffer, self._left)
        waited = time.monotonic() - started
        earned = 0.0 if self._rate == math.inf else count / (self._rate * self._speed_up())
        self._left = min(self._limit, self._left - waited + earned)
        return count

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self)


class TimedWriter(io.RawIOBase):
    """A writer of responses to *sock*. It raises `TimeoutError` if the client reads too slowly.

    *limits* returns a pair: the seconds for which the client may read nothing, and the number of bytes that earn one
    of these seconds back. It is called at each check, so the limits may change. Bytes in the send buffer of the
    system do not count as read. *on_wait* is called before the writer waits for the client.
    """

    def __init__(
        self,
        sock: TimedSocket,
        limits: Callable[[], tuple[float, float]],
        on_wait: Callable[[], object] = lambda: None,
    ) -> None:
        self._socket = sock
        self._limits = limits
        self._on_wait = on_wait
        self._has_begun, self._is_probed = True, False
        self._lock = threading.Lock()

    def begin_response(self) -> None:
        """Start a new response, of which nothing was sent."""
        self._has_begun = self._is_probed = False

    def probe(self) -> bool:
        """Send the first byte of the response if none was sent. Return whether this method sent it. Raise `OSError`.

        The send makes the system report a client that reads no more. Any thread may call this method.
        """
        with self._lock:
            if not (self._has_begun or self._is_probed):
                self._is_probed = True
                self._socket.send(FIRST_BYTE, CHECK_SECONDS)
            return self._is_probed

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Send all of *data*, and return its number of bytes.

        Raise `TimeoutError` if the client reads too slowly, or another `OSError`.
        One thread at a time may call this method. Another thread may call `probe` meanwhile.
        """
        rest = data
        if not self._has_begun:
            with self._lock:
                self._has_begun = True
            rest = data[len(FIRST_BYTE) :] if self._is_probed else data
        sent = self._socket.send_now(rest)
        if sent < len(rest):
            self._on_wait()
            self._send_rest(memoryview(rest)[sent:])
        return len(data)

    def _send_rest(self, rest: memoryview) -> None:
        delay, buffered = 0.0, unacknowledged_bytes(self._socket.socket)
        while rest:
            started = time.monotonic()
            sent = self._socket.send(rest, CHECK_SECONDS)
            waited = time.monotonic() - started
            rest = rest[sent:]
            taken, buffered = buffered + sent, unacknowledged_bytes(self._socket.socket)
            taken = max(0, taken - buffered)  # TLS adds bytes, so the buffer may hold more than was sent
            seconds, rate = self._limits()
            delay = max(0.0, delay + waited - taken / rate)
            if delay > seconds:
                raise TimeoutError("the client reads its response too slowly")
