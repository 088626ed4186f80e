"""One kept HTTP connection, over which the bytes of objects go: `http.client`, with TLS and proxies.

requests and urllib3 take more time for a small object than all else here together
(docs/performance.rst has the numbers), so they have no part in it.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from pfstorage.backends.capabilities import rewind_window
from pfstorage.backends.contract import CHUNK
from pfstorage.backends.http.errors import (
    CONNECTING,
    CONNECTING_TO_PROXY,
    TALKING,
    ConnectionBroken,
    Mistake,
    Refusal,
)
from pfstorage.backends.http.pace import Allowance
from pfstorage.backends.http.response import Response
from pfstorage.backends.http.tunnel import Tunnel
from pfstorage.runtime.sockets import is_readable, peer_has_closed, set_timeouts

__all__ = ["ConnectionBroken", "HttpConnection", "Mistake", "NetworkRoute", "Refusal"]

CONTINUE_ABOVE = 8 * 1024**2
"""Bytes of a body above which the server is asked first whether it wants it: that costs one round trip."""
CONTINUE_PATIENCE = 1.0
"""Seconds to wait for that answer: RFC 9110, 10.1.1, forbids to wait for it without end."""
MOST_WORDS = 4096
"""Bytes of a refusal's body that are read: its connection ends."""
WORDS_SECONDS = 5.0
"""Seconds for which they are waited for: the status alone says what is the matter."""
MOST_READ = 64 * 1024**2
"""Bytes of an answer that is read as a whole, where the caller does not say what is too long."""
MOST_SKIPPED = 1024**2
"""Bytes of an answer of which only the head is wanted."""
_CONTINUE = b"HTTP/1.1 100"
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SETTINGS = {
    "": "the path of the address (--swiftAuthUrl, OS_STORAGE_URL)",
    "x-auth-key": "the key of the store (--swiftKey, SWIFT_KEY)",
    "x-auth-user": "the user of the store (--swiftUsername, SWIFT_USERNAME)",
    "x-auth-token": "the token of the store (OS_AUTH_TOKEN)",
}


@dataclass(frozen=True)
class NetworkRoute:
    """How to reach the server of *url*: directly or by the HTTP proxy of the URL *proxy*.

    *timeout* in seconds bounds each silence, and the head of each answer; *connect_timeout* the opening of a
    connection. Bodies come and go with *min_rate* bytes a second, 0 is no such bound: `http_pace` says what counts.
    *context* is for https; without it, the system's certificates count.
    """

    url: str
    proxy: str = field(repr=False)  # it may hold a password
    connect_timeout: float
    timeout: float
    context: ssl.SSLContext | None = None
    min_rate: float = 0


class HttpConnection:
    """A connection along *route*, which is opened when it is needed. For one caller at a time."""

    def __init__(self, route: NetworkRoute) -> None:
        self._route = route
        self._prefix, self._own_headers, self._http = _prepared(route)
        self._sending = Allowance(route.timeout, "takes what is sent")
        self._asks_first = True
        self._is_aborted = False
        self._begun: Response | None = None
        self._last: Response | None = None
        self.buffer = memoryview(bytearray(CHUNK))
        """Room for what is read: it is made once, for that costs more than to fill it."""

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, size: int = 0
    ) -> Response:
        """Send a request; return the response, whose body is to be read to its end.

        *body* is bytes or has a ``read``; *headers* tell its length, *size* bytes.
        Raise `ConnectionBroken`. What a body raises passes through, and ends the connection.
        """
        asks_first = self._asks_first and size > min(CONTINUE_ABOVE, rewind_window(body))
        self._open()
        self._put_head(method, path, headers, asks_first)
        with TALKING:
            self._http.endheaders()
        is_wanted = not asks_first or self._may_continue()
        if is_wanted:
            self._send_body(body)
        with TALKING:
            response = self._http.getresponse()
        assert isinstance(response, Response)
        self._last = response
        if response.status == http.HTTPStatus.EXPECTATION_FAILED and not is_wanted:
            self.close()
            self._asks_first = False  # of one that does not know the question (RFC 9110, 15.5.18)
            return self.request(method, path, headers, body, size)
        return response

    def _put_head(self, method: str, path: str, headers: Mapping[str, str], asks_first: bool) -> None:
        """Write the head of a request as UTF-8; nothing is sent yet. Raise `Mistake` for a control character."""
        name = ""
        try:
            self._http.putrequest(method, self._prefix + path, skip_host=True, skip_accept_encoding=True)
            for name, value in (*self._own_headers.items(), *headers.items()):
                if _CONTROL.search(value):
                    raise ValueError(name)
                self._http.putheader(name, value.encode())
            if asks_first:
                self._http.putheader("Expect", "100-continue")
        except (ValueError, http.client.InvalidURL):
            self._http.close()
            *_, self._http = _prepared(self._route)  # else the half head would go before the next request
            known = _SETTINGS.get(name.lower())
            what = known or f"the header {name}"
            wrong = "a line break, another control character or what is not UTF-8"
            if not name:
                wrong = "a character that a URL can only contain as %XX"
            text = f"{what} contains {wrong}; it was not sent"
            raise Mistake(text, is_setting=bool(known)) from None

    def _open(self) -> None:
        """Connect, unless the connection that was kept still stands: a server ends an idle one."""
        if self._http.sock is not None:
            if not peer_has_closed(self._http.sock):
                return
            self._http.close()
        with CONNECTING_TO_PROXY if self._route.proxy else CONNECTING:
            self._http.timeout = self._route.connect_timeout
            self._http.connect()
        if self._is_aborted:  # while there was nothing yet to shut down
            self._is_aborted = False
            self._http.close()
            raise ConnectionBroken("it was broken off", connecting=True)
        set_timeouts(self._http.sock, self._route.timeout)

    def _may_continue(self) -> bool:
        """Tell whether the server wants the body, or does not say so in time."""
        sock = self._http.sock
        answer = _response_class(self._route)(sock, method="PUT")
        with TALKING:
            set_timeouts(sock, CONTINUE_PATIENCE)  # no poll: it takes what TLS says for itself for an answer
            try:
                begun = answer.fp.peek(1)
            except TimeoutError:
                answer.close()
                return True
            finally:
                set_timeouts(sock, self._route.timeout)
        # the same object must read the rest, for it may have read further than this
        self._begun = answer
        self._http.response_class = _once(answer, self._http)
        # what may yet become that is taken for it: a refusal is seen in the middle of a body, too
        return _CONTINUE.startswith(begun[: len(_CONTINUE)])

    def _send_body(self, body: Any) -> None:
        if body is None:
            return
        chunks = iter([body]) if isinstance(body, bytes) else iter(lambda: body.read(CHUNK), b"")
        self._sending.begin(self._route.min_rate)
        try:
            for chunk in chunks:
                with TALKING:
                    self._send(memoryview(chunk))
        except ConnectionBroken:
            if not self._has_answered_early():
                raise

    def _send(self, rest: memoryview) -> None:
        while rest:
            sent = self._sending.timed(functools.partial(self._http.sock.send, rest)) or 0
            self._sending.credit(sent)
            rest = rest[sent:]

    def _has_answered_early(self) -> bool:
        """Tell whether the server refused the body before its end, and said why."""
        return self._http.sock is not None and is_readable(self._http.sock)

    def read_into(self, response: Response, buffer: memoryview) -> int:
        """Fill *buffer* from the body as far as it comes; return the bytes, 0 at its end."""
        with TALKING:
            count = response.readinto(buffer)
        if not count and response.length:
            raise ConnectionBroken("the connection broke (the answer is cut off)")
        return count

    def read_all(self, response: Response, most: int = MOST_READ) -> bytes:
        """Return the body. Raise `ConnectionBroken`, also if it has over *most* bytes."""
        if response.length is not None and response.length <= most:
            with TALKING:
                return response.read()
        parts, left = [], most
        while count := self.read_into(response, self.buffer):
            parts.append(bytes(self.buffer[:count]))
            left -= count
            if left < 0:
                raise ConnectionBroken(f"its answer has more than {most} bytes")
        return b"".join(parts)

    def skip(self, response: Response) -> None:
        """Read a body that nobody wants to its end. Raise `ConnectionBroken`, also if it is long."""
        left = MOST_SKIPPED
        while count := self.read_into(response, self.buffer):
            left -= count
            if left < 0:
                raise ConnectionBroken(f"its answer has more than {MOST_SKIPPED} bytes where it needs none")

    def read_words(self, response: Response) -> str:
        """Return the text of a refusal's body in one line, without tags; "" if it does not come."""
        seconds, content = min(self._route.timeout, WORDS_SECONDS), b""
        with (
            contextlib.suppress(ConnectionBroken),
            TALKING,
            contextlib.closing(response),
        ):  # it may own the socket
            set_timeouts(response.socket, seconds)
            response.allow(seconds)
            content = response.read(MOST_WORDS)
        text = re.sub(
            r"<(head|style|script)\b.*?</\1>|<[^>]*>", " ", content.decode(errors="replace"), flags=re.S
        )
        return "".join(each for each in " ".join(text.split())[:200] if each.isprintable())

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
        if self._last is not None:  # one that ends with the connection owns the socket
            self._last.close()
        if (
            self._begun is not None
        ):  # where its body has failed, nobody takes this answer, and it would hold the socket
            self._begun.close()
            self._begun, self._http.response_class = None, _response_class(self._route)


def meets_tls(route: NetworkRoute) -> bool:
    """Tell whether the server of *route*, an address of plain HTTP, speaks TLS: such a one ends plain HTTP silently."""
    target = urlsplit(route.url)
    if route.proxy or target.scheme == "https":
        return False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    place = (target.hostname or "", target.port or http.client.HTTP_PORT)
    try:
        with socket.create_connection(place, route.connect_timeout) as sock, context.wrap_socket(sock):
            return True
    except (OSError, ValueError):
        return False


def _prepared(route: NetworkRoute) -> tuple[str, dict[str, str], http.client.HTTPConnection]:
    """Return what goes before a path, the headers of each request, and the connection, not yet open."""
    target, proxy = urlsplit(route.url), urlsplit(route.proxy)
    context = (route.context or ssl.create_default_context()) if target.scheme == "https" else None
    default = http.client.HTTPS_PORT if context else http.client.HTTP_PORT
    host, port = target.hostname or "", target.port or default
    netloc = target.netloc.rpartition("@")[2]
    headers = {"Host": netloc}
    kept: http.client.HTTPConnection
    prefix = ""
    if proxy.hostname:
        first = (proxy.hostname, proxy.port or http.client.HTTP_PORT)
        credentials = _proxy_headers(proxy.username, proxy.password)
        if context:
            kept = Tunnel(first, host, port, credentials, context, CHUNK)
        else:
            kept = http.client.HTTPConnection(*first, blocksize=CHUNK)
            prefix, headers = f"http://{netloc}", {**headers, **credentials}
    elif context:
        kept = http.client.HTTPSConnection(host, port, context=context, blocksize=CHUNK)
    else:
        kept = http.client.HTTPConnection(host, port, blocksize=CHUNK)
    kept.response_class = _response_class(route)
    return prefix, headers, kept


def _response_class(route: NetworkRoute) -> Any:
    return functools.partial(Response, seconds=route.timeout, min_rate=route.min_rate)


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if not user and not password:
        return {}
    login = f"{unquote(user or '')}:{unquote(password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {base64.b64encode(login).decode()}"}


def _once(answer: Response, connection: http.client.HTTPConnection) -> Any:
    """Return what makes *connection* take *answer* for its next response, and no further one."""
    before = connection.response_class

    def make(*_: object, **__: object) -> Response:
        connection.response_class = before
        return answer

    return make
