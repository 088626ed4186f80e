"""What either end of a connection asks of its socket: a bound on silence, and whether the other end has gone."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import struct
import sys

SILENT = (TimeoutError, BlockingIOError)
"""What a socket raises that was silent for too long; the second is how the system tells the first."""

_ESTABLISHED = b"\1"
"""The first byte of TCP_INFO while neither side has ended the connection (Linux, netinet/tcp.h)."""


def bound_silence(sock: socket.socket, seconds: float) -> None:
    """Let *sock* wait for *seconds* at most, each time that it sends or receives; then it raises one of `SILENT`.

    Python asks the system about a socket with a time-out before each call: two calls for one, and
    two times at which another thread takes the interpreter's lock. The system itself can bound
    the wait (socket(7), SO_RCVTIMEO); only what does TLS can't tell that from an error.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    bound = struct.pack("ll", int(seconds), max(1, int(seconds % 1 * 1e6)))  # 0 is for ever
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
    if sock.gettimeout() is not None:
        sock.settimeout(None)


def has_ended(sock: socket.socket) -> bool:
    """Tell whether the other end has ended the connection. No other thread runs meanwhile, as in a poll."""
    if sys.platform == "linux":
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != _ESTABLISHED
    return is_readable(sock)


def is_readable(sock: socket.socket) -> bool:
    """Tell whether *sock* has something to read, be it only its end."""
    if isinstance(sock, ssl.SSLSocket) and sock.pending():
        return True
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def reset(sock: socket.socket) -> None:
    """Tear the connection down: the other end sees that it was broken off, and takes it for no end in good order."""
    with contextlib.suppress(OSError):  # it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(sock.detach())
