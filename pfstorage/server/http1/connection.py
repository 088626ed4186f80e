"""Read the requests of one HTTP/1.1 connection, and send the responses."""

from __future__ import annotations

import re
from abc import abstractmethod
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol
from urllib.parse import urlsplit

from pfstorage.errors import MessageError, NoLengthError
from pfstorage.runtime.sockets import drain, end_tls, peer_has_closed, peer_may_still_read, reset
from pfstorage.server.http1 import head
from pfstorage.server.http1.body import Reader, check_length, request_body
from pfstorage.server.http1.sending import Response, UnsentError, send_response
from pfstorage.server.http1.timed import TimedReader, TimedSocket, TimedWriter

LINGER_SECONDS = 5.0
MAX_EMPTY_LINES = 4
# While another client waits for the place of a slow one, the slow client must be this many times as fast.
SPEED_UP = 16

_NO_HEADERS = head.Headers()


class ConnectionLimits(Protocol):
    """The time limits of a connection: seconds for a head, idle seconds, and bytes per second of a body."""

    @property
    def head_seconds(self) -> float: ...

    @property
    def idle_seconds(self) -> float: ...

    @property
    def min_rate(self) -> float: ...


class HTTPConnection(BaseHTTPRequestHandler):
    """The HTTP/1.1 side of one connection. A subclass reads a request line, calls `read_head` and `send`.

    One thread handles a connection. Only `is_client_gone` may be called by any thread.
    """

    headers: head.Headers  # type: ignore[assignment]
    limits: ConnectionLimits
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Prepare the connection for its first request."""
        super().setup()
        self.rfile.close()
        sock = TimedSocket(self.connection)
        self.reader = TimedReader(sock, lambda: SPEED_UP if self.must_send_faster() else 1.0)
        self.rfile = self.reader.buffered()
        self.writer = self.wfile = TimedWriter(  # type: ignore[assignment]
            sock, self._read_limits, self.begin_waiting
        )
        self.forget_request()
        self.is_complete = True

    @abstractmethod
    def must_send_faster(self) -> bool:
        """Return whether another client waits until this client has sent its body."""

    @abstractmethod
    def must_read_faster(self) -> bool:
        """Return whether another client waits until this client has read its response."""

    @abstractmethod
    def begin_waiting(self) -> None:
        """Prepare for a wait: the client must read a part of its response before more can be sent."""

    def _read_limits(self) -> tuple[float, float]:
        """Return the seconds for which the client may read nothing, and the bytes that earn back one second."""
        limits = self.limits
        if self.must_read_faster():
            return limits.head_seconds, limits.min_rate * SPEED_UP
        return limits.idle_seconds, limits.min_rate

    def forget_request(self) -> None:
        """Release the previous request: a connection may be idle for long."""
        self.command, self.path, self.request_version, self.headers = "", "", "HTTP/1.1", _NO_HEADERS
        self._body: Reader | None = None
        self._may_stay_open = False

    def read_head(self, line: bytes) -> head.RequestHead:
        """Read the headers after the request line *line*. Raise `HeadError` or `MessageError`.

        The checks exclude every request that a proxy may read differently.
        """
        command, path, version = head.read_line(line)
        try:
            headers = head.read_headers(self.rfile)
        except TimeoutError:
            text = f"its head took more than {self.limits.head_seconds:g} s: send it faster"
            raise head.HeadError(HTTPStatus.REQUEST_TIMEOUT, text) from None
        self.command, self.path, self.request_version, self.headers = command, path, version, headers
        is_new = version != "HTTP/1.0"
        if is_new and "host" not in headers:
            raise head.HeadError(HTTPStatus.BAD_REQUEST, "it has no header Host")
        headers.only("host")
        if not is_new and "transfer-encoding" in headers:
            raise head.HeadError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding")
        self._body = request_body(self.rfile, headers)  # checked even if no endpoint reads it
        scheme, _, rest = path.partition("://")
        if (
            rest and "/" not in scheme
        ):  # an absolute target replaces the header Host (RFC 9112, section 3.2.2)
            headers.replace("host", re.split("[/?#]", rest)[0])
        try:
            if "#" in path:  # a fragment is never sent, and urlsplit would drop it
                raise ValueError
            target = urlsplit(path.encode("latin-1").decode())
        except ValueError:
            raise MessageError(
                "the target of the request is not valid: percent-encode its path and query as UTF-8"
            ) from None
        options = headers.items_of("connection")
        self._may_stay_open = "close" not in options and (is_new or "keep-alive" in options)
        return head.RequestHead(command, target.path, target.query, headers)

    def open_body(self, max_size: int) -> Reader:
        """Return the body. Raise `NoLengthError`, or `TooLargeError` if its stated length is over *max_size* bytes.

        A client that waits for ``100 Continue`` is asked for the body only now.
        """
        if self._body is None:
            raise NoLengthError("the request has a body without a length: send a Content-Length")
        check_length(self._body, max_size)
        is_new = self.request_version != "HTTP/1.0"
        if is_new and self.headers.get("expect", "").lower() == "100-continue":
            self._send_continue()
        limits = self.limits
        self.reader.set_budget(limits.head_seconds, rate=limits.min_rate, limit=limits.idle_seconds)
        return self._body

    def _send_continue(self) -> None:
        """Send ``100 Continue`` (RFC 9110, section 10.1.1)."""
        try:
            self.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.writer.begin_response()
        except OSError as e:  # TLS raises its own classes of errors
            raise ConnectionAbortedError("the client closed the connection before it sent the body") from e

    def send(self, response: Response, *, close: bool) -> bool:
        """Send *response*, and return whether to close the connection. Raise `UnsentError` as `send_response` does."""
        close = close or not (self._may_stay_open and self._is_body_read())
        try:
            return send_response(response, self.wfile, self.command, self.request_version, close=close)
        except UnsentError:
            raise
        except BaseException:
            if response.length is None and self.request_version == "HTTP/1.0":
                reset(self.connection)  # an ordinary close would mark the end of the content
            raise

    def _is_body_read(self) -> bool:
        return self._body.is_at_end if self._body else self.command not in ("POST", "PUT")

    def is_client_gone(self) -> bool:
        """Return whether the client has closed the connection, so that nobody reads the response.

        A client may close only its sending side, as ``nc -N`` does. It still accepts the first byte of the response.
        """
        try:
            if not peer_has_closed(self.connection):
                return False
            return not (peer_may_still_read(self.connection) and self.writer.probe())
        except OSError:
            return True

    def wait_for_close(self) -> None:
        """Wait some seconds until the client has read the response and closed the connection."""
        drain(self.connection, LINGER_SECONDS)

    def finish(self) -> None:
        """Close the files of the connection, even if the client left before the response was sent.

        Release its parts, too: they refer to it, so only a garbage collection would free them.
        """
        try:
            super().finish()
        finally:
            self.rfile.close()
            if self.is_complete:
                end_tls(self.connection)
            connection = self.connection
            vars(self).clear()
            self.connection = connection  # for `is_client_gone`
