"""Send a response: its head, then its content, with a length or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from pfstorage.errors import PfstorageError
from pfstorage.server.http1.head import response_head

JSON = "application/json"

# bytes up to which the head and the content are sent in one packet
_ONE_PACKET = 64 * 1024

# statuses without content, and so without Content-Length (RFC 9110, section 8.6)
_WITHOUT_CONTENT = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


class Writer(Protocol):
    """The sending side of a connection."""

    def write(self, data: bytes | memoryview, /) -> int: ...

    def flush(self) -> object: ...


class ContentWriter(Writer, Protocol):
    """The destination of the content of one response."""

    def discard(self) -> bool:
        """Discard the content written so far, and return True. Return False if some of it was already sent."""
        ...


@dataclass
class Response:
    """A response: *content* is the bytes, or a function that writes them while they are sent.

    The function may change every other field until it writes its first byte, because the head is sent with that byte.
    *length* is the number of bytes that the function will write, or None if that is unknown. An error in the function
    closes the connection, so that the client sees an incomplete response. *error* is the reported error, if any.
    *log_fields* are added to the request log.
    """

    status: int = 200
    content: bytes | Callable[[ContentWriter], None] = b""
    content_type: str = JSON
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    error: PfstorageError | None = None
    log_fields: dict[str, str] = field(default_factory=dict)


class UnsentError(Exception):
    """The content function failed with *error* before a byte was sent, so another response can be sent instead."""

    def __init__(self, error: PfstorageError) -> None:
        super().__init__(str(error))
        self.error = error


def send_response(response: Response, out: Writer, method: str, version: str, *, close: bool) -> bool:
    """Send *response* to a request with *method* and HTTP *version*. Return whether to close the connection.

    The connection is closed if *close* is set, or if only its end marks the end of the content. Raise `UnsentError` if
    the content function fails before a byte was sent. Any later error passes through: the response is incomplete
    then, and the caller must close the connection.
    """
    framing = _Framing(response, version, close)
    if isinstance(response.content, bytes) or method == "HEAD":
        content = response.content if isinstance(response.content, bytes) and method != "HEAD" else b""
        if len(content) > _ONE_PACKET:  # joining them would hold the content in memory twice
            out.write(framing.head())
            out.write(content)
        else:
            out.write(framing.head() + content)
        return framing.close
    writer = _HoldingWriter(out, framing)
    try:
        response.content(writer)
    except PfstorageError as e:
        if writer.has_sent:
            raise
        raise UnsentError(e) from e
    writer.end()
    return framing.close


class _Framing:
    """The way to mark the end of the content for the client: a length, chunks, or the end of the connection."""

    def __init__(self, response: Response, version: str, close: bool) -> None:
        self._response = response
        self._version = version
        self.close = close
        self.length: int | None = None
        self.is_chunked = False

    def head(self) -> bytes:
        """Return the head of the response. Later changes of the response have no effect."""
        response = self._response
        content = response.content
        self.length = len(content) if isinstance(content, bytes) else response.length
        self.is_chunked = self.length is None and self._version == "HTTP/1.1"
        self.close = self.close or (self.length is None and not self.is_chunked)
        headers = {"Content-Type": response.content_type, **response.headers}
        if self.length is not None and response.status not in _WITHOUT_CONTENT:
            headers["Content-Length"] = str(self.length)
        elif self.is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if self.close:
            headers["Connection"] = "close"
        return response_head(response.status, headers)


class _HoldingWriter:
    """A writer that sends the head with the first body bytes, and withholds the last bytes until `end`.

    So a client never receives a complete response if the content function fails. The last bytes are those that
    complete the length of the content or, without a length, the last chunk.
    """

    def __init__(self, out: Writer, framing: _Framing) -> None:
        self._out = out
        self._framing = framing
        self._held: bytes | None = None
        self._left = 0
        self.has_sent = False

    def write(self, data: bytes | memoryview) -> int:
        self._hold_head()
        if self._framing.length is None:
            self._send(_chunk(data) if self._framing.is_chunked and data else data)
            return len(data)
        self._left -= len(data)
        if self._left <= 0:
            self._held = (self._held or b"") + data
        else:
            self._send(data)
        return len(data)

    def flush(self) -> None:
        self._out.flush()

    def discard(self) -> bool:
        if not self.has_sent:
            self._held = None
        return not self.has_sent

    def end(self) -> None:
        """Send the withheld bytes and the last chunk."""
        self._hold_head()
        self._send(b"0\r\n\r\n" if self._framing.is_chunked else b"")
        self._out.flush()

    def _hold_head(self) -> None:
        if self._held is None:
            self._held = self._framing.head()
            self._left = self._framing.length or 0

    def _send(self, data: bytes | memoryview) -> None:
        self.has_sent = True
        if self._held:
            data, self._held = self._held + data, b""
        self._out.write(data)


def _chunk(data: bytes | memoryview) -> bytes:
    """Return *data* as a chunk of ``Transfer-Encoding: chunked`` (RFC 9112, section 7.1)."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))
