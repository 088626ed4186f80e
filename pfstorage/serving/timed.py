"""What a connection is read from, with bounds in time."""

from __future__ import annotations

import io
import socket
import time
from typing import Any

from pfstorage.sockets import SILENT, bound_silence


class TimedStream(io.RawIOBase):
    """The bytes that *sock* receives, whose silence is bound to *idle* seconds. A longer one raises `TimeoutError`.

    So does what takes longer than it may as a whole: a client that sends a byte now and
    then is never silent, and would hold its connection for ever.
    """

    def __init__(self, sock: socket.socket, idle: float) -> None:
        self._socket = sock
        self._idle = idle
        self._allowed: float | None = None
        self._slowest = float("inf")
        self._deadline: float | None = None
        bound_silence(sock, idle)

    def begin(self, seconds: float | None, slowest: float = float("inf")) -> None:
        """Allow *seconds* for what comes from now on, counted from its first byte; None is as long as it takes.

        With *slowest*, each so many bytes bring one second more.
        """
        self._allowed, self._slowest = seconds, slowest
        self._deadline = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wait = self._idle
        if self._deadline is not None:
            wait = min(wait, self._deadline - time.monotonic())
            if wait <= 0:
                raise TimeoutError("it takes too long")
        try:
            count = self._socket.recv_into(buffer) if wait >= self._idle else self._receive(buffer, wait)
        except SILENT:
            raise TimeoutError("nothing came in time") from None
        if self._deadline is None and self._allowed is not None:
            self._deadline = time.monotonic() + self._allowed
        if self._deadline is not None:
            self._deadline += count / self._slowest
        return count

    def _receive(self, buffer: Any, wait: float) -> int:
        bound_silence(self._socket, wait)
        try:
            return self._socket.recv_into(buffer)
        finally:
            bound_silence(self._socket, self._idle)

    def buffered(self) -> io.BufferedReader:
        return io.BufferedReader(self)
