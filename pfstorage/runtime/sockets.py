"""Socket operations for clients and servers: time-outs, the state of the peer, and ways to close."""

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

# The errors of a time-out. The system reports its own time-outs as BlockingIOError.
TIMEOUT_ERRORS = (TimeoutError, BlockingIOError)

# The first byte of TCP_INFO: no side has closed the connection, or only the peer has (Linux, netinet/tcp.h).
_ESTABLISHED, _CLOSE_WAIT = b"\1", b"\10"


_BOTH = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)


def set_timeouts(sock: socket.socket, seconds: float, *options: int) -> None:
    """Set the time-out of sending and receiving; after it, a call raises one of `TIMEOUT_ERRORS`.

    *options* may limit this to SO_RCVTIMEO or SO_SNDTIMEO. Infinity means no time-out.

    With Python's own time-out, each call first polls the socket: that is two system calls, and two moments at which
    another thread may take the interpreter's lock. So this uses the time-outs of the system (socket(7)). TLS sockets
    can't distinguish these from errors; they get Python's time-out, for both directions.
    """
    if isinstance(sock, ssl.SSLSocket):
        sock.settimeout(None if seconds == math.inf else seconds)
        return
    whole, part = (0, 0.0) if seconds == math.inf else divmod(seconds, 1)  # 0 means no time-out
    bound = struct.pack("ll", int(whole), 0 if seconds == math.inf else max(1, int(part * 1e6)))
    for option in options or _BOTH:
        sock.setsockopt(socket.SOL_SOCKET, option, bound)
    if sock.gettimeout() is not None:
        sock.settimeout(None)


def unacknowledged_bytes(sock: socket.socket) -> int:
    """Return the number of sent bytes that the peer has not acknowledged (tcp(7), SIOCOUTQ); 0 if unknown."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0


def peer_has_closed(sock: socket.socket) -> bool:
    """Return whether the peer has closed the connection. Unlike a poll, this keeps the interpreter's lock."""
    if sys.platform == "linux":
        return _state(sock) != _ESTABLISHED
    return has_data(sock)


def peer_may_still_read(sock: socket.socket) -> bool:
    """Return whether the peer, if `peer_has_closed`, may have closed only its sending side and still read.

    TCP does not show the difference until a byte is sent: a peer that is gone answers it with a reset.
    """
    return sys.platform == "linux" and _state(sock) == _CLOSE_WAIT


def _state(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)


def has_data(sock: socket.socket) -> bool:
    """Return whether a read from *sock* returns at once, with data or the end of the stream."""
    return bool(isinstance(sock, ssl.SSLSocket) and sock.pending()) or _is_readable(sock)


def has_unread_bytes(sock: socket.socket) -> bool:
    """Return whether *sock* has received bytes that are unread, not only the end. With TLS, they may be a handshake."""
    try:
        return _is_readable(sock) and bool(socket.socket.recv(sock, 1, socket.MSG_PEEK))
    except (OSError, ValueError):  # it is broken or closed
        return False


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def reset(sock: socket.socket) -> None:
    """Abort the connection with a reset, so that the peer does not take it for a normal end."""
    with contextlib.suppress(OSError):  # it is closed already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(sock.detach())


def shut_down(sock: socket.socket) -> None:
    """Close both directions. A thread that reads or writes meanwhile finds the connection closed."""
    with contextlib.suppress(OSError):
        # of the base class: the TLS method would discard the TLS object that another thread uses
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def drain(sock: socket.socket, seconds: float) -> None:
    """Close the sending side, and discard received bytes for up to *seconds*, before the caller closes *sock*.

    To close with unread bytes would reset the connection, and the peer might lose bytes that it has not read
    yet (RFC 9112, section 9.6).
    """
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        sock.settimeout(1.0)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and socket.socket.recv(sock, 65536):
            continue  # discarded without decryption


def end_tls(sock: socket.socket) -> None:
    """Send the TLS closure alert, without which the peer can't distinguish the end from a cut (RFC 8446, 6.1)."""
    if isinstance(sock, ssl.SSLSocket):
        with contextlib.suppress(OSError, ValueError):  # does not wait for the peer's alert
            sock.setblocking(False)
            sock.unwrap()
