"""What either end of a connection asks of its socket: a bound on silence, and whether the other end has gone."""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import select
import socket
import ssl
import struct
import sys
import termios
import time

TIMEOUT_ERRORS = (TimeoutError, BlockingIOError)
"""What a socket raises that was silent for too long; the second is how the system tells the first."""

_ESTABLISHED, _CLOSE_WAIT = b"\1", b"\10"
"""The first byte of TCP_INFO while neither side has ended the connection, or only the other (Linux, netinet/tcp.h)."""


_BOTH = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)


def set_timeouts(sock: socket.socket, seconds: float, *options: int) -> None:
    """Let each send and receive of *sock* wait for *seconds* at most; then it raises one of `TIMEOUT_ERRORS`.

    Python asks the system about a socket with a time-out before each call: two calls for one, and
    two times at which another thread takes the interpreter's lock. The system itself can bound
    the wait (socket(7), SO_RCVTIMEO); only what does TLS can't tell that from an error, and has one bound
    for both. *options* name the one of the two that is meant.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(None if seconds == math.inf else seconds)
        return
    whole, part = (0, 0.0) if seconds == math.inf else divmod(seconds, 1)  # 0 is for ever
    bound = struct.pack("ll", int(whole), 0 if seconds == math.inf else max(1, int(part * 1e6)))
    for option in options or _BOTH:
        sock.setsockopt(socket.SOL_SOCKET, option, bound)
    if sock.gettimeout() is not None:
        sock.settimeout(None)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return how many bytes the system holds that the other end has not taken (tcp(7), SIOCOUTQ).

    That is 0 where the system does not tell.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def peer_has_closed(sock: socket.socket) -> bool:
    """Tell whether the other end has ended the connection. No other thread runs meanwhile, as in a poll."""
    if sys.platform == "linux":
        return _state(sock) != _ESTABLISHED
    return is_readable(sock)


def peer_may_still_read(sock: socket.socket) -> bool:
    """Tell whether the other end, which `peer_has_closed`, has perhaps ended but what it sends: it does not tell which.

    If it takes no more, the system knows that once a byte was sent to it.
    """
    return sys.platform == "linux" and _state(sock) == _CLOSE_WAIT


def _state(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)


def is_readable(sock: socket.socket) -> bool:
    """Tell whether *sock* has something to read, be it only its end."""
    return bool(isinstance(sock, ssl.SSLSocket) and sock.pending()) or _is_readable(sock)


def has_unread_bytes(sock: socket.socket) -> bool:
    """Tell whether bytes, and not only the end, have come that nobody has read; by TLS, they may be of a greeting."""
    try:
        return _is_readable(sock) and bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))
    except (OSError, ValueError):  # it is broken, or closed
        return False


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def reset(sock: socket.socket) -> None:
    """Tear the connection down: the other end sees that it was broken off, and takes it for no end in good order."""
    with contextlib.suppress(OSError):  # it is gone already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(sock.detach())


def shut_down(sock: socket.socket) -> None:
    """End the connection, also while another thread reads from it or writes to it: it finds it ended."""
    with contextlib.suppress(OSError):
        # that of the base class: the one of TLS would take what another thread is using
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def drain(sock: socket.socket, seconds: float) -> None:
    """Send no more, and take in what the other end still sends: to close before that would reset the connection.

    A reset takes along what the other end has not read yet (RFC 9112, section 9.6).
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(1.0)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and socket.socket.recv(sock, 65536):
            continue  # it is of no interest: also by TLS, it is not decrypted


def end_tls(sock: socket.socket) -> None:
    """Tell the other end that what it got is all: it could not tell the end from a cut else (RFC 8446, 6.1)."""
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):  # the same word of the other end is not waited for
            sock.setblocking(False)
            sock.unwrap()
