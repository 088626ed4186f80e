"""One HTTP connection: reads requests, has the `Site` answer them, sends the answers."""

from __future__ import annotations

import functools
import logging
import re
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pfstorage.errors import MessageError, NoLengthError, PfstorageError, SlowRequestError
from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.runtime.sockets import drain, end_tls, peer_has_closed, peer_may_still_read, reset
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.server.exchange import Answer, Request, answer_of
from pfstorage.server.http1 import body, head
from pfstorage.server.http1.sending import UnsentError, send
from pfstorage.server.http1.timed import TimedSocket, TimedStream, TimedWriter
from pfstorage.server.load import no_place
from pfstorage.server.options import WANTED
from pfstorage.server.request_log import id_of, log_request
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import KIND_BY_STATUS

if TYPE_CHECKING:
    from pfstorage.server.server import ThreadedHTTPServer

log = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
MOST_EMPTY_LINES = 4

_METHODS = frozenset(("", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
"""What the log names; any other is somebody's text."""

_NONE = head.Headers()


class RequestHandler(BaseHTTPRequestHandler):
    """One connection, which serves one request after the other."""

    server: ThreadedHTTPServer
    headers: head.Headers  # type: ignore[assignment]
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Bound how long each request may take to come, and its answer to be read."""
        super().setup()
        self.headers = _NONE
        self._request: Request | None = None
        self._is_whole = True
        self._empty_lines = 0
        self._client = str(self.client_address[0])
        self._options = self.server.options
        self.rfile.close()
        sock = TimedSocket(self.connection)
        self._received = TimedStream(sock, self._haste)
        self.rfile = self._received.buffered()
        self._writer = self.wfile = TimedWriter(sock, self._reader_bounds)  # type: ignore[assignment]
        self._patience = self.server.head_seconds(self.connection)

    def _reader_bounds(self) -> tuple[float, float]:
        """Return how long the client may take nothing of an answer, and how many bytes bring back a second of that.

        A place that another waits for is not for who takes their time.
        """
        options = self._options
        is_in_the_way = self.server.load.is_in_the_way(self.connection)
        if is_in_the_way or (self._request and self._request.permit.is_wanted):
            return options.head_seconds, options.min_rate * WANTED
        return options.idle_seconds, options.min_rate

    def _haste(self) -> float:
        """Return how many times as fast as otherwise a body must come now."""
        load = self.server.load
        owner = self._request.principal.owner if self._request else ""
        return WANTED if load.is_in_the_way(self.connection) or load.room.is_wanted_of(owner) else 1.0

    def handle_one_request(self) -> None:
        """Read one request and answer it. The server's end waits for it from its first line on."""
        self.close_connection = True
        load, options = self.server.load, self._options
        self._received.begin(self._patience)
        try:
            has_begun = self.rfile.peek(1)  # type: ignore[attr-defined] # at once, if it came with the one before
            if not (load.wake(self.connection) and has_begun):
                return
            self._received.begin(self.server.head_seconds(self.connection))
            line = self.rfile.readline(head.MAX_LINE + 1)
        except TimeoutError:
            if load.is_guest(self.connection):
                self._refuse()
            return
        # an empty line before a request means nothing (RFC 9112, section 2.2); many of them keep it open for nothing
        if line in (b"\r\n", b""):
            self._empty_lines += 1
            self.close_connection = not line or self._empty_lines > MOST_EMPTY_LINES
            load.wait(self.connection)
            return
        self._empty_lines = 0
        load.begin(self.connection)
        try:
            self._respond(line)
        finally:
            self._end_turn()
            self._request, self.headers = None, _NONE  # it may be long until the next one
            load.end(self.connection)
            self._patience = options.idle_seconds

    def _refuse(self) -> None:
        """Tell a connection that asks for nothing, and has no place, to come again."""
        self.server.load.refuse()
        send(self._answer_of(no_place()), self.wfile, "GET", "HTTP/1.1", ends=True)

    def _end_turn(self) -> None:
        if self._request:
            self._request.permit.end()

    def _respond(self, line: bytes) -> None:
        """Answer the request that begins with *line*. The connection ends with it unless all of it is read."""
        self._started = time.monotonic()
        self._body: body.Reader | None = None
        self._may_stay_open = self._is_counted = self._is_whole = False
        self.command, self.path, self.request_version = "", "", "HTTP/1.1"
        self._id = id_of("")
        self._writer.begin()
        FAIR_SHARE.begin_request()
        try:
            answer = self._answered(line)
        finally:
            FAIR_SHARE.end_request()
        try:
            ends = self._send(answer)
            self._is_whole = True
        finally:
            self._end_turn()
            self._count()
            self._log(time.monotonic() - self._started)
        self.close_connection = ends
        if ends:
            end_tls(self.connection)
            self.server.load.wait(self.connection)  # a new one may have its place
            drain(self.connection, LINGER_SECONDS)

    def _send(self, answer: Answer) -> bool:
        """Send *answer*, or that it failed, if nothing of it has left by then; return whether the connection ends."""
        self._status, self._notes = answer.status, answer.notes
        if self._request:
            answer.headers = {**self._request.defaults, **answer.headers}
        answer.headers["X-Request-Id"] = self._id
        answer.headers |= self.server.site.cors_headers(self.headers.get("origin"))
        is_last = self.server.is_last_reply or self.server.load.is_guest(self.connection)
        ends = is_last or not (self._may_stay_open and self._is_body_read())
        if isinstance(answer.content, bytes):
            self._count()
        else:
            answer.content = functools.partial(self._write, answer, answer.content)
        try:
            return send(answer, self.wfile, self.command, self.request_version, ends=ends)
        except UnsentError as e:
            return self._send(self._answer_of(e.error))
        except BaseException as e:
            if isinstance(e, TimeoutError):
                self._notes = {"error": SlowRequestError.__name__}
            if answer.length is None and self.request_version == "HTTP/1.0":
                reset(self.connection)  # only the end tells how long the content is: this is none
            raise

    def _write(self, answer: Answer, content: Callable[[body.Outlet], None], out: body.Outlet) -> None:
        try:
            content(out)
        except PfstorageError as e:
            self._notes = {"error": type(e).__name__}
            raise
        finally:
            self._status = answer.status  # which may be known only since then
        self._count()

    def _count(self) -> None:
        """Count the request, if that was not done with its message: before its answer is whole, which tells of it."""
        if not self._is_counted:
            self._is_counted = True
            route = self._request.route if self._request else ""
            self.server.metrics.count(route or "other", self._status, time.monotonic() - self._started)

    def _answered(self, line: bytes) -> Answer:
        """Return the answer. Only a broken connection raises."""
        status = 0
        try:
            self._read_head(line)
            self._request = self._read_request()
            return self.server.site.answer(self._request)
        except head.HeadError as e:
            status = e.status
            kind = KIND_BY_STATUS.get(status, MessageError)
            error: PfstorageError = kind(f"the request is no HTTP that is understood here: {e}")
        except TimeoutError:
            error = SlowRequestError("the request stopped arriving")
        except PfstorageError as e:
            error = e
        except (ConnectionError, ssl.SSLError):
            raise
        except Exception as e:  # noqa: BLE001 - it is logged
            error = unexpected_error(e, "a request")
        answer = self._answer_of(error)
        answer.status = status or answer.status
        return answer

    def _answer_of(self, error: PfstorageError) -> Answer:
        return answer_of(Reply.from_error(error), as_html=self.server.handler.settings.http_response)

    def _read_head(self, line: bytes) -> None:
        """Read what comes before the body. Raise `HeadError`."""
        command, path, version = head.read_line(line)
        try:
            headers = head.read_headers(self.rfile)
        except TimeoutError:
            text = f"its head took over {self._options.head_seconds:g} s"
            raise head.HeadError(HTTPStatus.REQUEST_TIMEOUT, text) from None
        self.command, self.path, self.request_version, self.headers = command, path, version, headers
        if given := headers.get("x-request-id"):
            self._id = id_of(given)
        is_new = version != "HTTP/1.0"
        # where something between here and the client may read it in another way
        if is_new and "host" not in headers:
            raise head.HeadError(HTTPStatus.BAD_REQUEST, "it has no header Host")
        headers.only("host")
        if not is_new and "transfer-encoding" in headers:
            raise head.HeadError(HTTPStatus.BAD_REQUEST, "HTTP/1.0 has no Transfer-Encoding")
        self._body = body.body_of(self.rfile, headers)  # also where nothing reads it
        scheme, _, rest = path.partition("://")
        if rest and "/" not in scheme:  # a whole address says which host is meant (RFC 9112, section 3.2.2)
            headers.put("host", re.split("[/?#]", rest)[0])
        wishes = headers.words("connection")
        self._may_stay_open = "close" not in wishes and (is_new or "keep-alive" in wishes)

    def _read_request(self) -> Request:
        try:
            if "#" in self.path:  # which no request has: what is after it would be lost
                raise ValueError
            target = urlsplit(self.path.encode("latin-1").decode())
        except ValueError:
            self._may_stay_open = (
                False  # as with all that can't be read: what follows may be meant as a part of it
            )
            raise MessageError("the address of the request can't be read") from None

        permit = self.server.load.new_turn(self._is_gone)
        return Request(
            self.command,
            target.path,
            target.query,
            self.headers,
            self._client,
            self._id,
            self.server.handler,
            self._open_body,
            functools.partial(self.server.new_context, permit=permit, observe=self._observe),
            permit,
            functools.partial(self.server.load.admit, self.connection, permit),
            self._options.max_upload,
            self.server.load.room,
            self._options.stream_seconds,
            self.server.metrics.moved,
        )

    def _observe(self, action: str, reply: Reply, seconds: float) -> None:
        self._is_counted = True
        self.server.follow_settings()  # before anybody hears that they have changed
        if self._request:
            self._request.action = action
        self.server.metrics.observe(action, reply, seconds)

    def _is_gone(self) -> bool:
        """Tell whether the client has closed the connection, and so does not wait for an answer.

        It may have closed but its own side, as ``nc -N`` does: then it takes the first byte of its answer.
        """
        try:
            if not peer_has_closed(self.connection):
                return False
            return not (peer_may_still_read(self.connection) and self._writer.is_tried())
        except OSError:
            return True

    def _log(self, seconds: float) -> None:
        request = self._request
        action, owner = (request.action or request.route, request.principal.owner) if request else ("", "")
        log_request(
            {
                "id": self._id,
                "client": self._client,
                "method": self.command if self.command in _METHODS else "other",
                "action": action,
                "owner": owner,
                "status": int(self._status),
                "error": self._notes.get("error", ""),
                "job": self._notes.get("job", ""),
                "seconds": round(seconds, 3),
                "broken": not self._is_whole,
            }
        )

    def _open_body(self, most: int) -> body.Reader:
        """Return the body. Raise `TooLargeError` if it says that it has over *most* bytes: it is not asked for then."""
        if self._body is None:
            raise NoLengthError("the request needs a Content-Length")
        body.require_length(self._body, most)
        is_new = self.request_version != "HTTP/1.0"
        if is_new and self.headers.get("expect", "").lower() == "100-continue":
            self._ask_for_body()
        options = self._options
        self._received.begin(options.head_seconds, rate=options.min_rate, most=options.idle_seconds)
        return self._body

    def _ask_for_body(self) -> None:
        """Have a client send its body that waits for that: who is refused before keeps it (RFC 9110, 10.1.1)."""
        try:
            self._writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._writer.begin()
        except OSError as e:  # what does TLS calls it by a name of its own
            raise ConnectionAbortedError("the client went away before it sent the body") from e

    def _is_body_read(self) -> bool:
        return self._body.is_at_end if self._body else self.command not in ("POST", "PUT")

    def finish(self) -> None:
        """Close the files of the connection, also if the client went away with a reply unsent."""
        try:
            super().finish()
        finally:
            self.rfile.close()
            if self._is_whole:
                end_tls(self.connection)
