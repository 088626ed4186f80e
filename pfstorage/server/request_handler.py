"""Answer the requests of one connection: count, admit, route, time and log each of them."""

from __future__ import annotations

import functools
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.errors import (
    MessageError,
    PfstorageError,
    SlowRequestError,
    StoppedError,
    without_traceback,
)
from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.runtime.owner_shares import RequestUsage
from pfstorage.runtime.sockets import end_tls
from pfstorage.runtime.unexpected import unexpected_error
from pfstorage.server.exchange import Client, Request, Services, standard_headers, to_response
from pfstorage.server.http1.connection import MAX_EMPTY_LINES, HTTPConnection
from pfstorage.server.http1.head import MAX_LINE, HeadError
from pfstorage.server.http1.sending import ContentWriter, Response, UnsentError, send_response
from pfstorage.server.load import ServerLoad, no_place
from pfstorage.server.options import ServerOptions
from pfstorage.server.request_log import log_request, logged_method, request_id
from pfstorage.server.router import Route, Router
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import KIND_BY_STATUS

if TYPE_CHECKING:
    import socket

    from pfstorage.server.endpoints.metrics import Metrics


class Server(Protocol):
    """The members of a server that `RequestHandler` uses."""

    load: ServerLoad
    options: ServerOptions
    router: Router
    metrics: Metrics

    @property
    def services(self) -> Services: ...

    @property
    def is_last_reply(self) -> bool: ...

    def head_seconds(self, connection: socket.socket) -> float: ...

    def new_context(self, principal: Principal, **known: Any) -> RequestContext: ...

    def follow_settings(self) -> None: ...


class RequestHandler(HTTPConnection):
    """The handler of one connection, which serves one request after the other."""

    server: Server  # type: ignore[assignment]

    def setup(self) -> None:
        self._address = str(self.client_address[0])
        self.limits = self.server.options
        self._services = self.server.services
        permit = self.server.load.new_permit(self.is_client_gone)
        self._client = Client(self._address, self.open_body, permit, self._admit)
        self._new_context = functools.partial(self.server.new_context, permit=permit, observe=self._observe)
        self._request: Request | None = None
        self._usage = RequestUsage()
        self._empty_lines = 0
        super().setup()
        self._has_place = not self.server.load.is_provisional(self.connection)
        self._next_head_seconds = self._head_seconds()

    def must_send_faster(self) -> bool:
        load = self.server.load
        owner = self._request.principal.owner if self._request else ""
        return load.is_in_the_way(self.connection) or load.spool_space.is_wanted_of(owner)

    def must_read_faster(self) -> bool:
        is_in_the_way = self.server.load.is_in_the_way(self.connection)
        return is_in_the_way or self._client.permit.is_wanted

    def begin_waiting(self) -> None:
        FAIR_SHARE.requests.begin_waiting(self._usage)

    def handle_one_request(self) -> None:
        """Read one request and answer it. From its first line on, the end of the server waits for it."""
        self.close_connection = True
        load = self.server.load
        self.reader.set_budget(self._next_head_seconds)
        try:
            has_begun = self.rfile.peek(1)  # type: ignore[attr-defined] # returns at once for a pipelined request
            if not (load.wake(self.connection) and has_begun):
                return
            self.reader.set_budget(self._head_seconds())
            line = self.rfile.readline(MAX_LINE + 1)
        except TimeoutError:
            if not self._has_place:
                self._refuse()
            return
        # Empty lines before a request are ignored (RFC 9112, section 2.2). Without a limit, a client could keep the
        # connection open with them.
        if line in (b"\r\n", b""):
            self._empty_lines += 1
            self.close_connection = not line or self._empty_lines > MAX_EMPTY_LINES
            load.wait(self.connection)
            return
        self._empty_lines = 0
        load.begin(self.connection)
        try:
            self._respond(line)
        finally:
            self._request = None
            self.forget_request()
            load.end(self.connection)
            self._next_head_seconds = self.limits.idle_seconds

    def _head_seconds(self) -> float:
        return self.limits.head_seconds if self._has_place else self.server.head_seconds(self.connection)

    def _refuse(self) -> None:
        """Answer 503 on a connection that has no place and sent no request in time."""
        self.server.load.refuse()
        response = self._error_response(no_place())
        response.headers = standard_headers(response.status) | response.headers
        send_response(response, self.wfile, "GET", "HTTP/1.1", close=True)

    def _respond(self, line: bytes) -> None:
        """Answer the request whose first line is *line*."""
        self._started = time.monotonic()
        self._route: Route | None = None
        self._action = ""
        self._is_counted = False
        self.is_complete = False
        self.writer.begin_response()
        FAIR_SHARE.requests.begin(self._usage)
        try:
            response = self._response(line)
            self._id = request_id(self.headers.get("x-request-id", ""))
            close = self._send_and_log(response)
        finally:
            FAIR_SHARE.requests.end(self._usage)
            self._client.permit.end()
        self.close_connection = close
        if close:
            end_tls(self.connection)
            self.server.load.wait(self.connection)  # a new connection may take its place now
            self.wait_for_close()

    def _response(self, line: bytes) -> Response:
        """Return the response to the request. Only a broken connection raises an error."""
        status = 0
        try:
            self._request = Request(self.read_head(line), self._client, self._services, self._new_context)
            self._route = self.server.router.route(self._request.head)
            return self.server.router.respond(self._request, self._route)
        except HeadError as e:
            status = e.status
            kind = KIND_BY_STATUS.get(status, MessageError)
            error: PfstorageError = kind(f"the request is not valid HTTP: {e}")
        except TimeoutError:
            error = SlowRequestError("the request stopped arriving: send it again, and faster")
        except PfstorageError as e:
            error = e
        except (ConnectionError, ssl.SSLError):
            raise
        except Exception as e:  # noqa: BLE001 - `unexpected_error` logs it
            error = unexpected_error(e, "a request")
        response = self._error_response(error)
        response.status = status or response.status
        return response

    def _admit(self, owner: str) -> None:
        self.server.load.admit(self.connection, self._client.permit, owner)
        self._has_place = True
        FAIR_SHARE.requests.set_owner(self._usage, owner or self._address)

    def _error_response(self, error: PfstorageError) -> Response:
        reply = Reply.from_error(without_traceback(error))
        return to_response(reply, as_html=self._services.handler.settings.http_response)

    def _send_and_log(self, response: Response) -> bool:
        try:
            close = self._send(response)
            self.is_complete = True
            return close
        finally:
            # the content may hold the response, and only a garbage collection would free such a cycle
            response.content = b""
            if not self._is_counted:
                self._count()
            self._log(time.monotonic() - self._started)

    def _send(self, response: Response) -> bool:
        """Send *response*, or the error of its content if none of it was sent. Return whether to close."""
        self._status, self._error, self._log_fields = response.status, response.error, response.log_fields
        response.headers = {
            **standard_headers(response.status),
            **(self._route.headers if self._route else {}),
            **response.headers,
            "X-Request-Id": self._id,
            **self.server.router.cors_headers(self.headers.get("origin")),
        }
        if isinstance(response.content, bytes) or self.command == "HEAD":
            self._count()
        else:
            response.content = functools.partial(self._write, response, response.content)
        close = self.server.is_last_reply or not self._has_place
        try:
            return self.send(response, close=close)
        except UnsentError as e:
            return self._send(self._error_response(e.error))
        except TimeoutError:
            self._error = SlowRequestError("the client reads its response too slowly")
            raise

    def _write(
        self, response: Response, content: Callable[[ContentWriter], None], out: ContentWriter
    ) -> None:
        try:
            content(out)
        except PfstorageError as e:
            self._error = e
            raise
        finally:
            self._status = response.status  # *content* may have changed it
        self._count()

    def _observe(self, action: str, reply: Reply, seconds: float) -> None:
        self._is_counted = True
        self.server.follow_settings()  # before the reply reports that they have changed
        self._action = action
        self.server.metrics.observe(action, reply, seconds)

    def _count(self) -> None:
        """Count the request in the metrics, unless `_observe` has counted its message.

        This happens before the last bytes of the response are sent: a client that has them may ask for the metrics.
        """
        if not self._is_counted:
            self._is_counted = True
            route = self._route.path if self._route else "other"
            self.server.metrics.count(route, self._status, time.monotonic() - self._started)

    def _log(self, seconds: float) -> None:
        error, is_broken = self._error, not self.is_complete
        log_request(
            {
                "id": self._id,
                "client": self._address,
                "method": logged_method(self.command),
                "action": self._action or (self._route.path if self._route else ""),
                "owner": self._request.principal.owner if self._request else "",
                "status": int(self._status),
                "error": type(error).__name__ if error else self._log_fields.get("error", ""),
                "job": self._log_fields.get("job", ""),
                "seconds": round(seconds, 3),
                "broken": is_broken,
            },
            is_abandoned=is_broken and isinstance(error, StoppedError),
        )
