"""The HTTP door: requests become messages for a `StoreHandler`, replies become HTTP."""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit

from pfstorage import body
from pfstorage._version import __version__
from pfstorage.actions import Caller, Upload
from pfstorage.config import is_loopback
from pfstorage.errors import (
    ForbiddenError,
    FullDiskError,
    IntegrityError,
    InvalidKeyError,
    LocalFileError,
    MessageError,
    MethodNotAllowedError,
    NoLengthError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    PfstorageError,
    RejectedError,
    SettingsError,
    SlowRequestError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnknownActionError,
)
from pfstorage.handler import StoreHandler
from pfstorage.message import Reply, decode_body, decode_json, decode_query

log = logging.getLogger(__name__)

PATHS = ("/", "/api/v1/cmd", "/api/v1/cmd/")
METHODS = "GET, HEAD, POST"
GRACE_SECONDS = 30.0

STATUS_BY_ERROR: dict[type[PfstorageError], HTTPStatus] = {
    MessageError: HTTPStatus.BAD_REQUEST,
    UnknownActionError: HTTPStatus.NOT_FOUND,
    MethodNotAllowedError: HTTPStatus.METHOD_NOT_ALLOWED,
    NoLengthError: HTTPStatus.LENGTH_REQUIRED,
    SlowRequestError: HTTPStatus.REQUEST_TIMEOUT,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    SettingsError: HTTPStatus.BAD_REQUEST,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    LocalFileError: HTTPStatus.BAD_REQUEST,
    FullDiskError: HTTPStatus.INSUFFICIENT_STORAGE,
    NotFoundError: HTTPStatus.NOT_FOUND,
    InvalidKeyError: HTTPStatus.BAD_REQUEST,
    UnauthenticatedError: HTTPStatus.BAD_GATEWAY,  # the store's, of this server: the client can't mend it
    PermissionDeniedError: HTTPStatus.FORBIDDEN,
    RejectedError: HTTPStatus.BAD_GATEWAY,
    NoSpaceError: HTTPStatus.INSUFFICIENT_STORAGE,
    IntegrityError: HTTPStatus.BAD_GATEWAY,
    UnavailableError: HTTPStatus.SERVICE_UNAVAILABLE,
}


def status_of(error: PfstorageError | None) -> HTTPStatus:
    """Return the HTTP status for a reply: 200 if the action ran, else that of the error's nearest kind."""
    if error is None:
        return HTTPStatus.OK
    kinds = (STATUS_BY_ERROR[kind] for kind in type(error).__mro__ if kind in STATUS_BY_ERROR)
    return next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)


class ThreadedHTTPServer(ThreadingMixIn, HTTPServer):
    """Serves one `StoreHandler` on one address, each connection in a thread of its own."""

    daemon_threads = True
    block_on_close = False  # idle kept connections would hold it up; requests at work are waited for below
    request_queue_size = 128
    allow_reuse_address = True

    def __init__(
        self, address: tuple[str, int], handler: StoreHandler | type[StoreHandler] = StoreHandler
    ) -> None:
        """Listen on *address*. As in 2.x, *handler* may be a class, which `setup` makes one of."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.args: dict[str, Any] = {}
        self.answers_once = False
        self._handler = handler
        self._at_work = 0
        self._answered = 0
        self._changed = threading.Condition()
        super().__init__(address, RequestHandler)

    def setup(
        self, *, args: Mapping[str, Any], name: str = "pfstorage", desc: str = "", ver: str = __version__
    ) -> None:
        """Configure the handler as 2.x did, from the ``vars`` of its parsed flags."""
        self.args = dict(args)
        if isinstance(self._handler, type):
            self._handler = self._handler.from_args(self.args, name=name, version=ver)

    @property
    def handler(self) -> StoreHandler:
        """The dispatcher that answers all requests."""
        if isinstance(self._handler, type):
            self._handler = self._handler()
        return self._handler

    @property
    def url(self) -> str:
        host, port = self.server_address[:2]
        return f"http://{f'[{host!s}]' if ':' in str(host) else host!s}:{port}/api/v1/cmd"

    def server_bind(self) -> None:
        """Bind without looking up the name of this host, which may take long and is not used."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def answer_once(self) -> None:
        """Answer one request, then return; connections that ask nothing don't count."""
        self.answers_once = True
        self.timeout = 0.1  # how soon it is noticed that a request was answered
        while not self._answered:
            self.handle_request()
        self.wait_for_requests(GRACE_SECONDS)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request while it is being answered."""
        with self._changed:
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._answered += 1
                self._changed.notify_all()

    def wait_for_requests(self, seconds: float) -> bool:
        """Wait until no request is being answered, *seconds* at most; tell whether that came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._at_work == 0, seconds)

    def stop(self) -> None:
        """Make `serve_forever` return soon. May be called from any thread, also from a request's."""
        threading.Thread(target=self.shutdown, daemon=True).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what broke a connection, such as a client that went away."""
        log.debug("the connection from %s broke: %r", client_address[0], sys.exc_info()[1])


class RequestHandler(BaseHTTPRequestHandler):
    """One connection: reads requests, gives their messages to the dispatcher, writes the replies."""

    server: ThreadedHTTPServer
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
        with self.server.working():
            started = time.monotonic()
            try:
                if urlsplit(self.path).path not in PATHS:
                    raise NotFoundError(f"there is nothing at this path: messages go to {PATHS[1]}")
                reply = answer()
            except PfstorageError as e:
                reply = Reply.of_error(e)
            status = status_of(reply.error)
            self._send(status, reply)
            log.debug(
                "%s %s: %d in %.3f s",
                self.command,
                self.client_address[0],
                status,
                time.monotonic() - started,
            )

    def _answer_get(self) -> Reply:
        content = decode_query(urlsplit(self.path).query)
        return self.server.handler.answer(content, Caller(trusted=False, read_only=True))

    def _answer_post(self) -> Reply:
        stays_open, self.close_connection = not self.close_connection, True  # while the body is not read
        source = body.open_body(
            self.rfile, self.headers.get("transfer-encoding"), self.headers.get_all("content-length", [])
        )
        boundary = body.boundary_of(self.headers.get("content-type", ""))
        try:
            received = body.read_form(source, boundary) if boundary else body.read_text(source)
            self.close_connection = not (stays_open and not source.read(1))
        except TimeoutError:
            raise SlowRequestError(f"the request stopped arriving for {self.timeout:.0f} s") from None
        if isinstance(received, str):
            return self._answer_text(received)
        with contextlib.closing(received) as form:
            return self._answer_form(form)

    def _answer_text(self, text: str) -> Reply:
        content, is_json = decode_body(text)
        caller = Caller(trusted=is_json and self._is_from_this_machine(), shut_down=self.server.stop)
        return self.server.handler.answer(content, caller)

    def _answer_form(self, form: body.Form) -> Reply:
        if "d_msg" not in form.fields:
            raise MessageError("a multipart form needs the field d_msg with the message")
        upload = Upload(form.file, form.size, form.fields.get("filename", "")) if form.file else None
        return self.server.handler.answer(
            decode_json(form.fields["d_msg"]), Caller(trusted=False, upload=upload)
        )

    def _is_from_this_machine(self) -> bool:
        """Tell whether a program on this host sent the request: no browser, and nobody behind a proxy."""
        tells = ("origin", "forwarded", "x-forwarded-for", "x-real-ip", "via")
        return is_loopback(self.client_address[0]) and not any(name in self.headers for name in tells)

    def _send(self, status: int, reply: Reply) -> None:
        text = reply.to_json()
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
        if self.close_connection or self.server.answers_once:
            self.close_connection = True
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()

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
            error = MessageError(f"the request is no HTTP that is understood here: {message or code}")
        with self.server.working():
            self._send(code, Reply.of_error(error))

    def parse_request(self) -> bool:
        """Refuse HTTP/0.9 as well, whose replies have no status."""
        parsed = super().parse_request()
        if parsed and self.request_version == "HTTP/0.9":
            self.request_version = self.default_request_version
            self.send_error(HTTPStatus.BAD_REQUEST, "the request line has no version")
            return False
        return parsed

    def finish(self) -> None:
        """Flush, and take in what the client still sends: closing at once might cost it the reply."""
        super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1.0)
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline and self.connection.recv(65536):
                continue

    def version_string(self) -> str:
        """Name this server, and not the Python below it."""
        return f"pfstorage/{__version__}"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Say nothing: `_respond` logs a request, and a path may hold a name."""
