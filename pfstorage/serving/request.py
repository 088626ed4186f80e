"""One HTTP connection: reads requests, has the `Site` answer them, writes the answers."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import re
import secrets
import select
import socket
import ssl
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pfstorage._version import __version__
from pfstorage.errors import MessageError, MethodNotAllowedError, PfstorageError, SlowRequestError
from pfstorage.reply import Reply
from pfstorage.serving import body, head
from pfstorage.serving.exchange import Answer, Request, answer_of
from pfstorage.serving.site import ALL
from pfstorage.serving.timed import TimedStream
from pfstorage.status import KIND_BY_STATUS

if TYPE_CHECKING:
    from pfstorage.serving.server import ThreadedHTTPServer

log = logging.getLogger(__name__)
requests = logging.getLogger("pfstorage.requests")

METHODS = ", ".join(ALL)
LINGER_SECONDS = 5.0
SLOWEST = 4096
"""Bytes a second that a body comes with at least."""
HEAD_SECONDS = 10.0
"""What the head of a request may take, from its first byte on, and the greeting of TLS."""
MOST_EMPTY_LINES = 4
IDLE_SECONDS = 60.0
"""How long a kept connection may lie idle, and a body or its reader be silent."""

_BARE = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Statuses without content, and so without its length (RFC 9110, section 8.6)."""

_ID = re.compile(r"[\w.:/+=-]{1,128}", re.ASCII)
_PROCESS = secrets.token_hex(4)
"""What the names of this process' requests begin with; they are no secret, and a random number each takes long."""
_NUMBERS = itertools.count(1)
_NONE = head.Headers()
_ALWAYS = {
    "Server": f"pfstorage/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}


class RequestHandler(BaseHTTPRequestHandler):
    """One connection, which serves one request after the other."""

    server: ThreadedHTTPServer
    raw_requestline: bytes
    headers: head.Headers  # type: ignore[assignment]
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    default_request_version = "HTTP/1.1"  # a reply to anything has a status line

    def setup(self) -> None:
        """Greet by TLS, if that is asked for, and bound how long each request may take to come."""
        if self.server.tls:
            self.request.settimeout(HEAD_SECONDS)
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        super().setup()
        self._is_whole = True
        self._empty_lines = 0
        self.rfile.close()
        self._received = TimedStream(self.connection, self.timeout)
        self.rfile = self._received.buffered()

    def do_GET(self) -> None:
        self._respond()

    do_HEAD = do_POST = do_PUT = do_OPTIONS = do_GET  # noqa: N815 - the names of the base class

    def _respond(self) -> None:
        self._received.begin(None)
        self._may_stay_open = not self.close_connection
        self.close_connection = True  # until the body is read: what is left of it is no request
        self._body: body.Reader | None = None
        started = time.monotonic()
        self._request: Request | None = None
        self._is_counted = False  # as a message is, with its reply
        answer = self._answered()
        answer.headers |= {
            "X-Request-Id": self._id,
            **self.server.site.cors_headers(self.headers.get("origin")),
        }
        if not self._is_counted:
            route = self._request.route if self._request else ""
            self.server.metrics.count(route or "other", answer.status, time.monotonic() - started)
        self.close_connection = not (self._may_stay_open and self._is_body_read())
        try:
            self._send(answer)
        finally:
            self._log(answer, time.monotonic() - started)
        if self.close_connection:
            self._linger()

    def _answered(self) -> Answer:
        """Return the answer. Only a broken connection raises."""
        self._id = _id_of(self.headers.get("x-request-id", ""))
        try:
            self._request = self._read_request()
            return self.server.site.answer(self._request)
        except TimeoutError:
            error: PfstorageError = SlowRequestError("the request stopped arriving")
        except PfstorageError as e:
            error = e
        except ConnectionError:
            raise
        except Exception as e:
            log.exception("a request failed for a reason that pfstorage does not know")
            error = PfstorageError(f"unexpected {type(e).__name__}; the log has the details")
        return answer_of(Reply.of_error(error), as_html=self.server.handler.settings.http_response)

    def _read_request(self) -> Request:
        try:
            target = urlsplit(self.path.encode("latin-1").decode())
        except ValueError:
            raise MessageError("the address of the request can't be read") from None

        def observe(action: str, reply: Reply, seconds: float) -> None:
            request.action, self._is_counted = action, True
            self.server.metrics.observe(action, reply, seconds)

        request = Request(
            self.command,
            target.path,
            target.query,
            self.headers,
            str(self.client_address[0]),
            self._id,
            self.server.handler,
            self._open_body,
            functools.partial(self.server.caller, observe=observe),
            self.server.new_turn(self._is_gone),
            self.server.options.max_upload,
            self.server.metrics.moved,
        )
        return request

    def _is_gone(self) -> bool:
        """Tell whether the client has closed the connection, and so does not wait for an answer."""
        try:
            look = select.poll()
            look.register(self.connection, select.POLLIN)
            if not look.poll(0):  # a socket with a time-out would wait for it, whatever the flags of recv
                return False
            # what TLS has in between is not looked at: its end comes as one of the connection, too
            return not socket.socket.recv(self.connection, 1, socket.MSG_PEEK)
        except (OSError, ValueError):
            return True

    def _log(self, answer: Answer, seconds: float) -> None:
        """Write one line of the log: what was asked, and by whom; no key and no local path, which may be a name."""
        request = self._request
        fields = {
            "id": self._id,
            "client": str(self.client_address[0]),
            "method": self.command,
            "action": (request.action or request.route) if request else "",
            "owner": request.caller.owner if request else "",
            "status": int(answer.status),
            "seconds": round(seconds, 3),
            "broken": "" if self._is_whole else True,
        }
        text = " ".join(f"{name}={value}" for name, value in fields.items() if value != "")
        requests.info("%s", text, extra={"fields": fields})

    def _open_body(self) -> body.Reader:
        encodings = self.headers.get_all("transfer-encoding")
        self._body = body.open_body(self.rfile, encodings, self.headers.get_all("content-length"))
        self._received.begin(self.timeout, SLOWEST)
        return self._body

    def _is_body_read(self) -> bool:
        if self._body is not None:
            return self._body.is_at_end
        has_none = not ("content-length" in self.headers or "transfer-encoding" in self.headers)
        return has_none and self.command in ("GET", "HEAD", "OPTIONS")

    def _send(self, answer: Answer) -> None:
        self._is_whole = False
        if self.server.is_last_reply:
            self.close_connection = True
        length = len(answer.content) if isinstance(answer.content, bytes) else answer.length
        is_chunked = length is None and self.request_version == "HTTP/1.1"
        self.close_connection |= length is None and not is_chunked
        headers = {"Content-Type": answer.kind, **_ALWAYS, **_headers_of(answer.status), **answer.headers}
        if length is not None and answer.status not in _BARE:
            headers["Content-Length"] = str(length)
        elif is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if self.close_connection:
            headers["Connection"] = "close"
        self.wfile.write(head.answer_head(answer.status, headers))
        if self.command != "HEAD":
            self._send_content(answer.content, is_chunked)
        self.wfile.flush()
        self._is_whole = True

    def _send_content(self, content: bytes | Callable[[body.Writer], None], is_chunked: bool) -> None:
        if isinstance(content, bytes):
            self.wfile.write(content)
            return
        ends, self.close_connection = self.close_connection, True  # what is not whole ends with it
        if is_chunked:
            content(body.ChunkedWriter(self.wfile))
            self.wfile.write(b"0\r\n\r\n")
        else:
            content(self.wfile)
        self.close_connection = ends

    def _linger(self) -> None:
        """Take in what the client still sends: to close before that would reset the connection.

        A reset takes along what the client has not read of the reply (RFC 9112, section 9.6).
        """
        self._end_tls()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.connection, socket.SHUT_WR)
            self.connection.settimeout(1.0)
            deadline = time.monotonic() + LINGER_SECONDS
            while time.monotonic() < deadline and socket.socket.recv(self.connection, 65536):
                continue  # it is of no interest: also by TLS, it is not decrypted

    def _end_tls(self) -> None:
        """Tell the client that what it got is all: it could not tell the end from a cut else (RFC 8446, 6.1)."""
        if isinstance(self.connection, ssl.SSLSocket) and self._is_whole:
            with contextlib.suppress(OSError, ValueError):  # the same word of the client is not waited for
                self.connection.setblocking(False)
                self.connection.unwrap()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON what `http.server` refuses by itself: a bad request line, an unknown method."""
        self.close_connection = True
        self.command = self.command or ""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            error: PfstorageError = MethodNotAllowedError(
                f"messages come by {METHODS}, not by {self.command[:20]!r}", allow=METHODS
            )
        else:
            reason = (message or str(code))[:200]  # it may quote the whole request
            kind = KIND_BY_STATUS.get(code, MessageError)
            error = kind(f"the request is no HTTP that is understood here: {reason}")
        self._begin_work()
        answer = answer_of(Reply.of_error(error), as_html=self.server.handler.settings.http_response)
        if code != HTTPStatus.NOT_IMPLEMENTED:
            answer.status = code
        self._send(answer)
        self._linger()

    def handle_one_request(self) -> None:
        """Read one request and answer it. The server's end waits for it from its first line on."""
        self._is_at_work = False
        self._received.begin(HEAD_SECONDS)
        try:
            super().handle_one_request()
        finally:
            self._request, self.headers = None, _NONE  # it may be long until the next one
            if self._is_at_work:
                self.server.end_work()

    def _begin_work(self) -> None:
        if not self._is_at_work:
            self.server.begin_work()
            self._is_at_work = True

    def parse_request(self) -> bool:
        """Read the head of a request."""
        # an empty line before a request means nothing (RFC 9112, section 2.2); many of them keep it open for nothing
        if not self.raw_requestline.strip():
            self._empty_lines += 1
            self.close_connection = self._empty_lines > MOST_EMPTY_LINES
            return False
        self._empty_lines = 0
        self._begin_work()
        try:
            self.requestline, self.command = "", ""
            self.command, self.path, self.request_version = head.read_line(self.raw_requestline)
            self.headers = head.read_headers(self.rfile)
        except TimeoutError:
            return self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"its head took over {HEAD_SECONDS:.0f} s")
        except head.HeadError as e:
            return self._refuse(e.status, str(e))
        is_new = self.request_version != "HTTP/1.0"
        if reason := self._wrong_head(is_new):
            return self._refuse(HTTPStatus.BAD_REQUEST, reason)
        scheme, _, rest = self.path.partition("://")
        if rest and "/" not in scheme:  # a whole address says which host is meant (RFC 9112, section 3.2.2)
            self.headers.put("Host", re.split("[/?#]", rest)[0])
        wishes = self.headers.words("connection")
        self.close_connection = "close" in wishes or not (is_new or "keep-alive" in wishes)
        is_awaited = is_new and self.headers.get("expect", "").lower() == "100-continue"
        return self.handle_expect_100() if is_awaited else True

    def _wrong_head(self, is_new: bool) -> str:
        """Tell what is wrong with a head where something between here and the client may read it in another way."""
        if not is_new:
            return "HTTP/1.0 has no Transfer-Encoding" if "transfer-encoding" in self.headers else ""
        return "" if "host" in self.headers else "it has no header Host"

    def _refuse(self, status: HTTPStatus, reason: str) -> bool:
        self.command, self.requestline = "", ""
        self.request_version = self.default_request_version
        self.send_error(status, reason)
        return False

    def handle_expect_100(self) -> bool:
        """Ask for the body at once: the base class leaves that in the buffer until the reply."""
        proceeds = super().handle_expect_100()
        self.wfile.flush()
        return proceeds

    def finish(self) -> None:
        """Close the files of the connection, also if the client went away with a reply unsent."""
        try:
            super().finish()
        finally:
            self.rfile.close()
            if self.server.tls:
                self._end_tls()
                self.connection.close()  # the server knows only the socket below it

    def version_string(self) -> str:
        """Name this server, and not the Python below it."""
        return f"pfstorage/{__version__}"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: `_respond` logs a request, and a path may hold a name."""


def _id_of(given: str) -> str:
    """Return what the client calls its request, or a new name for it."""
    return given if _ID.fullmatch(given) else f"{_PROCESS}{next(_NUMBERS):08x}"


def _headers_of(status: int) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return {"Allow": METHODS}
    return {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else {}
