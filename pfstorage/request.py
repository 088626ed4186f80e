"""One HTTP connection: requests become messages for the dispatcher, replies become HTTP."""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from pfstorage import body
from pfstorage._version import __version__
from pfstorage.actions import Caller, Upload
from pfstorage.config import is_loopback
from pfstorage.errors import (
    MessageError,
    MethodNotAllowedError,
    PfstorageError,
    SlowRequestError,
    UnknownPathError,
)
from pfstorage.message import decode_form, decode_query, looks_like_json
from pfstorage.reply import Reply
from pfstorage.status import KIND_BY_STATUS, status_of

if TYPE_CHECKING:
    from pfstorage.server import ThreadedHTTPServer

log = logging.getLogger(__name__)

PATHS = ("/", "/api/v1/cmd", "/api/v1/cmd/")
METHODS = "GET, HEAD, POST"
LINGER_SECONDS = 5.0


class RequestHandler(BaseHTTPRequestHandler):
    """One connection: reads requests, gives their messages to the dispatcher, writes the replies."""

    server: ThreadedHTTPServer
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    timeout = 60.0
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    default_request_version = "HTTP/1.1"  # a reply to anything has a status line

    def do_GET(self) -> None:
        self._respond(self._answer_get)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self._respond(self._answer_post)

    def _respond(self, answer: Callable[[], Reply]) -> None:
        self._may_stay_open = not self.close_connection
        self.close_connection = True  # until the body is read: what is left of it is no request
        started = time.monotonic()
        status, text = self._answered(answer)
        seconds = time.monotonic() - started
        log.debug("%s %s: %d in %.3f s", self.command, self.client_address[0], status, seconds)
        self._send(status, text)

    def _answered(self, answer: Callable[[], Reply]) -> tuple[HTTPStatus, str]:
        """Return the status and the JSON of the reply. Only a broken connection raises."""
        try:
            if self._target().path not in PATHS:
                raise UnknownPathError(f"there is nothing at this path: messages go to {PATHS[1]}")
            reply = answer()
            return status_of(reply.error), reply.to_json()
        except PfstorageError as e:
            error = e
        except (ConnectionError, TimeoutError):
            raise
        except Exception as e:
            log.exception("a request failed for a reason that pfstorage does not know")
            error = PfstorageError(f"unexpected {type(e).__name__}; the log has the details")
        return status_of(error), Reply.of_error(error).to_json()

    def _target(self) -> SplitResult:
        try:
            return urlsplit(self.path.encode("latin-1").decode())
        except ValueError:
            raise MessageError("the address of the request can't be read") from None

    def _answer_get(self) -> Reply:
        if not ("content-length" in self.headers or "transfer-encoding" in self.headers):
            self.close_connection = not self._may_stay_open
        content = decode_query(self._target().query)
        return self.server.handler.answer(
            content, Caller(trusted=False, read_only=True, stop=self.server.end_of_work)
        )

    def _answer_post(self) -> Reply:
        source = body.open_body(
            self.rfile,
            self.headers.get_all("transfer-encoding", []),
            self.headers.get_all("content-length", []),
        )
        boundary = body.boundary_of(self.headers.get("content-type", ""))
        try:
            received = body.read_text(source) if boundary is None else body.read_form(source, boundary)
            self.close_connection = not (self._may_stay_open and not source.read(1))
        except TimeoutError:
            raise SlowRequestError(f"the request stopped arriving for {self.timeout:.0f} s") from None
        if isinstance(received, str):
            return self._answer_text(received)
        with contextlib.closing(received) as form:
            return self._answer_form(form)

    def _answer_text(self, text: str) -> Reply:
        is_json = looks_like_json(text)
        is_trusted = is_json and self._is_from_this_machine()
        caller = Caller(trusted=is_trusted, shut_down=self.server.stop, stop=self.server.end_of_work)
        return self.server.handler.answer(text if is_json else decode_form(text), caller)

    def _answer_form(self, form: body.Form) -> Reply:
        if "d_msg" not in form.fields:
            raise MessageError("a multipart form needs the field d_msg with the message")
        upload = Upload(form.file, form.size, form.fields.get("filename", "")) if form.file else None
        return self.server.handler.answer(
            form.fields["d_msg"], Caller(trusted=False, upload=upload, stop=self.server.end_of_work)
        )

    def _is_from_this_machine(self) -> bool:
        """Tell whether a program on this host sent the request: no browser, and nobody behind a proxy."""
        tells = ("origin", "forwarded", "x-forwarded-for", "x-real-ip", "via")
        return is_loopback(self.client_address[0]) and not any(name in self.headers for name in tells)

    def _send(self, status: int, text: str) -> None:
        kind = "application/json"
        if self.server.handler.settings.http_response:
            kind = "text/html; charset=utf-8"
            for character in "<>&":  # JSON all the same, and no markup to a browser
                text = text.replace(character, f"\\u{ord(character):04x}")
        content = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", METHODS)
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.send_header("Retry-After", "5")
        if self.close_connection or self.server.is_last_reply:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()
        if self.close_connection:
            self._linger()

    def _linger(self) -> None:
        """Take in what the client still sends: to close before that would reset the connection.

        A reset takes along what the client has not read of the reply (RFC 9112, section 9.6).
        """
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            deadline = time.monotonic() + LINGER_SECONDS
            while time.monotonic() < deadline and self.connection.recv(65536):
                continue

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer in JSON what `http.server` refuses by itself: a bad request line, an unknown method."""
        self.close_connection = True
        self.command = self.command or ""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED
            error: PfstorageError = MethodNotAllowedError(
                f"messages come by {METHODS}, not by {self.command[:20]!r}"
            )
        else:
            reason = (message or str(code))[:200]  # it may quote the whole request
            kind = KIND_BY_STATUS.get(code, MessageError)
            error = kind(f"the request is no HTTP that is understood here: {reason}")
        self._begin_work()
        self._send(code, Reply.of_error(error).to_json())

    def handle_one_request(self) -> None:
        """Read one request and answer it. The server's end waits for it from its first line on."""
        self._work = contextlib.ExitStack()
        self._is_at_work = False
        with self._work:
            super().handle_one_request()

    def _begin_work(self) -> None:
        if not self._is_at_work:
            self._is_at_work = True
            self._work.enter_context(self.server.working())

    def parse_request(self) -> bool:
        """Read the head of a request. HTTP/0.9 is refused: its replies have no status."""
        words = self.raw_requestline.split()
        if not words:  # an empty line before a request means nothing (RFC 9112, section 2.2)
            self.close_connection = False
            return False
        self._begin_work()
        if len(words) == 2:
            return self._refuse(HTTPStatus.BAD_REQUEST, "the request line has no version")
        try:
            parsed = super().parse_request()
        except TimeoutError:
            return self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"its head took over {self.timeout:.0f} s")
        if parsed and not self.request_version.startswith("HTTP/1."):
            return self._refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "its version is older than 1.0")
        return parsed

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

    def version_string(self) -> str:
        """Name this server, and not the Python below it."""
        return f"pfstorage/{__version__}"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: `_respond` logs a request, and a path may hold a name."""
