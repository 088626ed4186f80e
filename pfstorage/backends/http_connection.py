"""One kept HTTP connection, over which the bytes of objects go: `http.client`, with TLS and proxies.

requests and urllib3 take more time for a small object than all else here together
(docs/performance.rst has the numbers), so they have no part in it.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from pfstorage.backends.base import CHUNK
from pfstorage.backends.http_response import Response
from pfstorage.sockets import SILENT, bound_silence, has_ended, is_readable

CONTINUE_ABOVE = 8 * 1024**2
"""Bytes of a body above which the server is asked first whether it wants it: that costs one round trip."""
CONTINUE_PATIENCE = 1.0
"""Seconds to wait for that answer: RFC 9110, 10.1.1, forbids to wait for it without end."""
_CONTINUE = b"HTTP/1.1 100"


class ConnectionBroken(Exception):
    """There was no answer: *reason* in few words.

    *connecting* if there was no connection at all, *silent* if there is one, over which nothing comes.
    """

    def __init__(self, reason: str, *, connecting: bool = False, silent: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.connecting = connecting
        self.silent = silent


class Refusal(Exception):
    """The answer has a *status* that is none of success; None if there was not even an answer to refuse."""

    def __init__(self, status: int | None, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status = status
        self.reason = reason
        self.headers = headers or {}


@dataclass(frozen=True)
class Route:
    """How to reach the server of *url*: directly or by the HTTP proxy of the URL *proxy*.

    *timeout* in seconds bounds each silence, *connect_timeout* the opening of a
    connection. *context* is for https.
    """

    url: str
    proxy: str = field(repr=False)  # it may hold a password
    connect_timeout: float
    timeout: float
    context: ssl.SSLContext | None


class HttpConnection:
    """A connection along *route*, which is opened when it is needed. For one caller at a time."""

    def __init__(self, route: Route) -> None:
        self._route = route
        self._prefix, self._proxy_headers, self._http = _prepared(route)
        self._asks_first = True
        self._is_aborted = False
        self.buffer = memoryview(bytearray(CHUNK))
        """Room for what is read: it is made once, for that costs more than to fill it."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, size: int = 0
    ) -> Response:
        """Send a request; return the response, whose body is to be read to its end.

        *body* is bytes or has a ``read``; *headers* tell its length, *size* bytes.
        Raise `ConnectionBroken`. What a body raises passes through, and ends the connection.
        """
        asks_first = self._asks_first and size > CONTINUE_ABOVE
        self._open()
        with _TALKING:
            self._http.putrequest(method, self._prefix + path, skip_accept_encoding=True)
            for name, value in (*headers.items(), *self._proxy_headers.items()):
                self._http.putheader(name, value)
            if asks_first:
                self._http.putheader("Expect", "100-continue")
            self._http.endheaders()
        is_wanted = not asks_first or self._may_continue()
        if is_wanted:
            self._send_body(body)
        with _TALKING:
            response = self._http.getresponse()
        assert isinstance(response, Response)
        if response.status == http.HTTPStatus.EXPECTATION_FAILED and not is_wanted:
            self.close()
            self._asks_first = False  # of one that does not know the question (RFC 9110, 15.5.18)
            return self.request(method, path, headers, body, size)
        return response

    def _open(self) -> None:
        """Connect, unless the connection that was kept still stands: a server ends an idle one."""
        if self._http.sock is not None:
            if not has_ended(self._http.sock):
                return
            self._http.close()
        try:
            with _CONNECTING:
                self._http.timeout = self._route.connect_timeout
                self._http.connect()
        except ConnectionBroken as e:
            if not self._route.proxy:
                raise
            reason = "its proxy does not (see --httpProxy, or the variables http_proxy and no_proxy)"
            raise ConnectionBroken(reason, connecting=True) from e
        if self._is_aborted:  # while there was nothing yet to shut down
            self._is_aborted = False
            self._http.close()
            raise ConnectionBroken("it was broken off", connecting=True)
        bound_silence(self._http.sock, self._route.timeout)

    def _may_continue(self) -> bool:
        """Tell whether the server wants the body, or does not say so in time."""
        sock = self._http.sock
        answer = Response(sock, method="PUT")
        with _TALKING:
            bound_silence(sock, CONTINUE_PATIENCE)  # no poll: it takes what TLS says for itself for an answer
            try:
                begun = answer.fp.peek(1)
            except TimeoutError:
                answer.close()
                return True
            finally:
                bound_silence(sock, self._route.timeout)
        # the same object must read the rest, for it may have read further than this
        self._http.response_class = _once(answer, self._http)  # type: ignore[assignment]
        # what may yet become that is taken for it: a refusal is seen in the middle of a body, too
        return _CONTINUE.startswith(begun[: len(_CONTINUE)])

    def _send_body(self, body: Any) -> None:
        if body is None:
            return
        chunks = iter([body]) if isinstance(body, bytes) else iter(lambda: body.read(CHUNK), b"")
        try:
            for chunk in chunks:
                with _TALKING:
                    self._http.send(chunk)
        except ConnectionBroken:
            if not self._has_answered_early():
                raise

    def _has_answered_early(self) -> bool:
        """Tell whether the server refused the body before its end, and said why."""
        return self._http.sock is not None and is_readable(self._http.sock)

    def read_into(self, response: Response, buffer: memoryview) -> int:
        """Fill *buffer* from the body as far as it comes; return the bytes, 0 at its end."""
        with _TALKING:
            count = response.readinto(buffer)
        if not count and response.length:
            raise ConnectionBroken("the connection broke (the answer is cut off)")
        return count

    def read_all(self, response: Response) -> bytes:
        with _TALKING:
            return response.read()

    def abort(self) -> None:
        """End what another thread waits for on this connection."""
        sock = self._http.sock
        if sock is None:
            self._is_aborted = True
        else:
            with contextlib.suppress(OSError):  # it has ended by itself
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()


def _prepared(route: Route) -> tuple[str, dict[str, str], http.client.HTTPConnection]:
    """Return what goes before a path, the headers for a proxy, and the connection, not yet open."""
    target, proxy = urlsplit(route.url), urlsplit(route.proxy)
    is_tls = target.scheme == "https"
    default = http.client.HTTPS_PORT if is_tls else http.client.HTTP_PORT
    host, port = target.hostname or "", target.port or default
    kept: http.client.HTTPConnection
    first = (proxy.hostname, proxy.port or http.client.HTTP_PORT) if proxy.hostname else (host, port)
    if is_tls:
        kept = http.client.HTTPSConnection(*first, context=route.context, blocksize=CHUNK)
    else:
        kept = http.client.HTTPConnection(*first, blocksize=CHUNK)
    kept.response_class = Response
    if not proxy.hostname:
        return "", {}, kept
    headers = _proxy_headers(proxy.username, proxy.password)
    if is_tls:
        kept.set_tunnel(host, port, headers)
        return "", {}, kept
    return f"{target.scheme}://{target.netloc.rpartition('@')[2]}", headers, kept


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user:
        return {}
    login = f"{unquote(user)}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}


def _once(answer: Response, connection: http.client.HTTPConnection) -> Callable[..., Response]:
    """Return what makes *connection* take *answer* for its next response, and no further one."""

    def make(*_: object, **__: object) -> Response:
        connection.response_class = Response
        return answer

    return make


class _Broken:
    """Turns what fails in a connection within a ``with`` block into `ConnectionBroken`."""

    def __init__(self, *, connecting: bool = False) -> None:
        self._connecting = connecting

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None:
            return
        connecting = self._connecting
        if isinstance(error, socket.gaierror):
            raise ConnectionBroken("its name is not known", connecting=True) from error
        if isinstance(error, SILENT):
            reason = "no connection in time" if connecting else "it fell silent"
            raise ConnectionBroken(reason, connecting=connecting, silent=not connecting) from error
        if isinstance(error, ConnectionRefusedError):
            raise ConnectionBroken("nothing listens there", connecting=connecting) from error
        if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
            reason = f"the connection broke ({type(error).__name__})"
            raise ConnectionBroken(reason, connecting=connecting) from error


_CONNECTING = _Broken(connecting=True)
_TALKING = _Broken()
