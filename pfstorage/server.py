"""The HTTP door: requests become messages for a `StoreHandler`, replies become HTTP."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pfstorage import body
from pfstorage._version import __version__
from pfstorage.actions import Caller, Upload
from pfstorage.config import Settings, is_loopback
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
from pfstorage.message import Message, Reply, decode_body, decode_form, decode_json, decode_query

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

    def __init__(self, address: tuple[str, int], handler: StoreHandler | type[StoreHandler] = StoreHandler) -> None:
        """Listen on *address*. As in 2.x, *handler* may be a class, which `setup` makes one of."""
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.args: dict[str, Any] = {}
        self.answers_once = False
        self._handler = handler
        self._at_work = 0
        self._answered = 0
        self._changed = threading.Condition()
        super().__init__(address, RequestHandler)

    def setup(self, *, args: Mapping[str, Any], name: str = "pfstorage", desc: str = "", ver: str = __version__) -> None:
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
        """Log what went wrong with a connection; that a client went away is no news."""
        log.debug("the connection from %s broke", client_address, exc_info=True)


class RequestHandler(BaseHTTPRequestHandler):
    """One connection: reads requests, gives their messages to the dispatcher, writes the replies."""

    server: ThreadedHTTPServer
    protocol_version = "HTTP/1.1"
    server_version = f"pfstorage/{__version__}"
    sys_version = ""
    timeout = 60.0
    wbufsize = -1  # headers and body leave in one packet
    disable_nagle_algorithm = True
    default_request_version = "HTTP/1.1"  # a reply to anything has a status line
    unread: ClassVar[bool]

    def do_GET(self) -> None:
        self._respond(self._answer_get)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._respond(self._answer_post)

    def _respond(self, answer: Callable[[], Reply]) -> None:
        with self.server.working():
            try:
                if urlsplit(self.path).path not in PATHS:
                    raise NotFoundError(f"there is nothing at this path: messages go to {PATHS[1]}")
                reply = answer()
            except PfstorageError as e:
                reply = Reply.of_error(e)
            self._send(reply)

    def _answer_get(self) -> Reply:
        content = decode_query(urlsplit(self.path).query)
        return self.server.handler.answer(content, Caller(trusted=False, read_only=True))

    def _answer_post(self) -> Reply:
        self.close_connection, keep_open = True, not self.close_connection  # until the body is read
        source = body.open_body(self.rfile, self.headers, self.headers.get_all("content-length", []))
        try:
            boundary = body.boundary_of(self.headers.get("content-type", ""))
            reply = self._answer_form(source, boundary) if boundary else self._answer_text(source)
        except TimeoutError:
            raise SlowRequestError(f"the request did not arrive within {self.timeout:.0f} s of silence") from None
        finally:
            self.close_connection = not (keep_open and source.is_at_end)
        return reply

    def _answer_text(self, source: body.Reader) -> Reply:
        content = decode_body(body.read_text(source))
        return self.server.handler.answer(content, Caller(trusted=self._is_trusted(), shut_down=self.server.stop))
