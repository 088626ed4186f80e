"""Read the answer to an HTTP request: `http.client` with faster headers and with bounds.

`http.client` parses headers as mail, which takes a third of the client's time for a small object
(docs/performance.rst has the numbers). It bounds neither the time of an answer nor the length of its head and trailers.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import math
import re
import socket
import ssl
from typing import Any

from pfstorage.backends.http.pace import Allowance

# Bytes that are read ahead: the headers, and the content that arrived with them.
BUFFER = 64 * 1024
# The limits of `http.client`.
MAX_RESPONSE_LINE = 65536
MAX_RESPONSE_HEADERS = 100
# Bytes of the head of an answer, with all interim heads (1xx) before it, or of the trailers.
MAX_RESPONSE_HEAD = 256 * 1024
MAX_CHUNK_LINE = 4096
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r?\n")


class StoreResponse(http.client.HTTPResponse):
    """An answer with its headers in *fields*, by lower-case names. The last of several equal headers counts.

    All waits for the head may take *seconds* together, and so may those for the body. Each *min_rate* bytes of
    content extend this by a second. With a *min_rate* of 0, only silence is bounded. Reading raises `TooSlowError`.
    """

    fields: dict[str, str]

    def __init__(
        self, sock: socket.socket, *args: Any, seconds: float = math.inf, min_rate: float = 0, **kwargs: Any
    ) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self._min_rate = min_rate
        self._received = _Received(sock, Allowance(seconds, "answers"))
        self.fp = io.BufferedReader(self._received, BUFFER)

    def begin(self) -> None:
        """Read the status and the headers of the answer. Skip interim answers (1xx)."""
        if self.headers is not None:
            return
        received, size, status = self._received, 0, 0
        received.allowance.begin()
        while status < http.HTTPStatus.OK and status != http.HTTPStatus.SWITCHING_PROTOCOLS:
            first, *rest = _read_head(self.fp, MAX_RESPONSE_HEAD - size)
            size += sum(map(len, rest), len(first))
            version, status, reason = _status(first.decode("latin-1"))
            self.fields = dict(map(_header_field, rest[:-1]))
        received.pending -= size
        self.version = 11 if version != "HTTP/1.0" else 10
        self.code = self.status = status
        self.reason = reason
        self.headers = self.msg = (
            http.client.HTTPMessage()
        )  # an empty one for the code of http.client; *fields* has the headers
        self._prepare_body()

    def _prepare_body(self) -> None:
        """Set the attributes by which `http.client` finds the end of the body (RFC 9112, 6.3)."""
        length = self.fields.get("content-length", "")
        is_empty = self._method == "HEAD" or self.status in (  # type: ignore[attr-defined]
            http.HTTPStatus.NO_CONTENT,
            http.HTTPStatus.NOT_MODIFIED,
        )
        self.chunked = not is_empty and self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if is_empty:
            self.length = 0
        connection = self.fields.get("connection", "").lower()
        stays_open = "keep-alive" in connection if self.version == 10 else "close" not in connection
        if self.length:
            self._received.expect(self.length)
        self.will_close = not stays_open or (self.length is None and not self.chunked)
        self._received.allowance.begin(self._min_rate)
        self._received.is_content = (
            not self.chunked
        )  # in a chunked body, only `readinto` can count the content

    def allow(self, seconds: float) -> None:
        """Bound all waits for the rest of the body by *seconds* in total, independent of its speed."""
        self._received.allowance = Allowance(seconds, "answers")

    @property
    def socket(self) -> socket.socket:
        """The socket of the answer, even after its connection has released it."""
        return self._received.socket

    def readinto(self, buffer: Any) -> int:
        """Fill *buffer* up to the end of the body; return the number of bytes."""
        if not self.chunked:
            return super().readinto(buffer)
        room, count = memoryview(buffer), 0
        while count < len(room) and self.fp is not None:
            left = self._get_chunk_left()  # type: ignore[attr-defined] # at the end, this is None and there is no fp
            if left is not None:
                got = self.fp.readinto1(room[count : count + left])
                if not got:
                    raise http.client.IncompleteRead(b"")
                self._received.allowance.credit(got)
                self.chunk_left = left - got
                count += got
        return count

    def _read_next_chunk_size(self) -> int:
        """Return the size of the next chunk. `http.client` accepts malformed numbers and longer lines."""
        found = _CHUNK_LINE.fullmatch(self.fp.readline(MAX_CHUNK_LINE))
        if not found:
            raise http.client.HTTPException("a chunk has no size, or its line is too long")
        return int(found[1], 16)

    def _read_and_discard_trailer(self) -> None:
        """Discard the trailers. `http.client` accepts any number of them."""
        with contextlib.suppress(http.client.RemoteDisconnected):  # some servers omit the empty line
            _read_head(self.fp, MAX_RESPONSE_HEAD)


class _Received(io.RawIOBase):
    """The received bytes of *socket*. A timeout of the system raises `TimeoutError`, and does not look like the end.

    *allowance* bounds all waits together. Received bytes extend it if *is_content* is set. *pending* counts the
    received bytes that no head and no body has claimed.
    """

    def __init__(self, sock: socket.socket, allowance: Allowance) -> None:
        self.pending = 0
        self.socket = sock
        self.allowance = allowance
        self.is_content = False
        self._file = sock.makefile("rb", buffering=0)
        self._expected = 0

    def expect(self, size: int) -> None:
        """Wait for whole buffers of a body of *size* bytes, not for single packets. *pending* is part of the body."""
        if not isinstance(self.socket, ssl.SSLSocket):
            self._expected = size - self.pending

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.allowance.timed(lambda: self._receive(buffer))
        if count is None:
            raise TimeoutError("no bytes arrived in time")
        if self.is_content:
            self.allowance.credit(count)
        self.pending += count
        self._expected -= count
        return count

    def _receive(self, buffer: Any) -> int | None:
        if self._expected > 0:
            return self.socket.recv_into(buffer, min(len(buffer), self._expected), socket.MSG_WAITALL)
        return self._file.readinto(buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_head(file: io.BufferedReader, most: int) -> list[bytes]:
    """Return the lines of a head, *most* bytes at most. The last one is the empty line that ends it."""
    lines = [file.readline(MAX_RESPONSE_LINE + 1)]
    if not lines[0]:
        raise http.client.RemoteDisconnected("the server closed the connection")
    while lines[-1] not in (b"\r\n", b"\n", b""):
        most -= len(lines[-1])
        if len(lines[-1]) > MAX_RESPONSE_LINE or most <= 0:
            raise http.client.LineTooLong("header line")
        if len(lines) > MAX_RESPONSE_HEADERS:
            raise http.client.HTTPException(f"got more than {MAX_RESPONSE_HEADERS} headers")
        lines.append(file.readline(MAX_RESPONSE_LINE + 1))
    return lines


def _status(line: str) -> tuple[str, int, str]:
    version, _, rest = line.partition(" ")
    status, _, reason = rest.partition(" ")
    if not version.startswith("HTTP/1.") or not (status.isdecimal() and 100 <= int(status) <= 999):
        raise http.client.BadStatusLine(line[:80])
    return version, int(status), reason.strip()


def _header_field(line: bytes) -> tuple[str, str]:
    name, _, value = line.decode("utf-8", "replace").partition(":")
    return name.strip().lower(), value.strip()
