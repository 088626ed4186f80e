"""The answer to an HTTP request: `http.client`'s, but for its headers.

`http.client` reads headers with the parser for mail, which takes a third of the
client's time for a small object (docs/performance.rst has the numbers).
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from typing import Any

BUFFER = 64 * 1024
"""Bytes: headers, and the rest of what the system has got by then."""
MAX_LINE = 65536
MAX_HEADERS = 100
"""The limits of `http.client`."""


class Response(http.client.HTTPResponse):
    """An answer whose headers are *fields*, by their names in lower case; where one came twice, the last."""

    fields: dict[str, str]

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._received = _Received(sock)
        self.fp = io.BufferedReader(self._received, BUFFER)

    def begin(self) -> None:
        """Read the status and the headers of the answer, past those that only announce it (1xx)."""
        if self.headers is not None:
            return
        status = 0
        while status < http.HTTPStatus.OK and status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            first, *rest = _head(self.fp)
            self._received.pending -= sum(map(len, rest), len(first))
            version, status, reason = _status(first.decode("latin-1"))
            self.fields = dict(map(_field, rest[:-1]))
        self.version = 11 if version != "HTTP/1.0" else 10
        self.code = self.status = status
        self.reason = reason
        self.headers = self.msg = http.client.HTTPMessage()  # for whoever looks: all is in fields
        self._prepare_body()

    def _prepare_body(self) -> None:
        """Tell the readers of `http.client` how the body ends (RFC 9112, 6.3)."""
        length = self.fields.get("content-length", "")
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if self.status in (http.HTTPStatus.NO_CONTENT, http.HTTPStatus.NOT_MODIFIED):
            self.length = 0
        connection = self.fields.get("connection", "").lower()
        stays_open = "keep-alive" in connection if self.version == 10 else "close" not in connection
        if self.length:
            self._received.expect(self.length)
        self.will_close = not stays_open or (self.length is None and not self.chunked)


class _Received(io.RawIOBase):
    """What comes over *sock*. A wait that the system has bounded ends with `TimeoutError`, not as if all had come.

    *pending* are the bytes that came, and that nobody has taken note of.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.pending = 0
        self._socket = sock
        self._file = sock.makefile("rb", buffering=0)
        self._expected = 0

    def expect(self, size: int) -> None:
        """Let a body of *size* bytes be waited for buffer by buffer, not packet by packet; *pending* belongs to it."""
        if not isinstance(self._socket, ssl.SSLSocket):
            self._expected = size - self.pending

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._expected > 0:
            size = min(len(buffer), self._expected)
            count: int | None = self._socket.recv_into(buffer, size, socket.MSG_WAITALL)
        else:
            count = self._file.readinto(buffer)
        if count is None:
            raise TimeoutError("nothing came in time")
        self.pending += count
        self._expected -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _head(file: io.BufferedReader) -> list[bytes]:
    """Return the lines of an answer up to its body; the last is empty but for its end."""
    lines = [file.readline(MAX_LINE + 1)]
    if not lines[0]:
        raise http.client.RemoteDisconnected("the server closed the connection")
    while lines[-1] not in (b"\r\n", b"\n", b""):
        if len(lines[-1]) > MAX_LINE:
            raise http.client.LineTooLong("header line")
        if len(lines) > MAX_HEADERS:
            raise http.client.HTTPException(f"got more than {MAX_HEADERS} headers")
        lines.append(file.readline(MAX_LINE + 1))
    return lines


def _status(line: str) -> tuple[str, int, str]:
    version, _, rest = line.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (status.isdecimal() and 100 <= int(status) <= 999):
        raise http.client.BadStatusLine(line[:80])
    return version, int(status), reason.strip()


def _field(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("utf-8", "replace").partition(":")
    return name.strip().lower(), value.strip()
