"""One kept HTTP connection to a store, on top of `http.client`.

requests and urllib3 take more time for a small object than all code here together (docs/performance.rst has numbers).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import logging
import re
import socket
import time
from collections.abc import Mapping
from typing import Any

from pfstorage.backends.capabilities import rewind_window
from pfstorage.backends.contract import CHUNK
from pfstorage.backends.http.dialing import NetworkRoute, make_connection, response_class
from pfstorage.backends.http.errors import CONNECTING, CONNECTING_TO_PROXY, TALKING, ConnectionBroken, Mistake
from pfstorage.backends.http.pace import Allowance
from pfstorage.backends.http.response import StoreResponse
from pfstorage.runtime.sockets import has_data, peer_has_closed, set_timeouts

log = logging.getLogger(__name__)

# Bytes of a body above which the server must agree before it is sent: this costs a round trip.
CONTINUE_ABOVE = 8 * 1024**2
# Seconds to wait for that answer: RFC 9110, 10.1.1, forbids to wait for it without end.
CONTINUE_PATIENCE = 1.0
# Bytes of a refusal's body that are read. Its connection is closed.
MOST_WORDS = 4096
# Seconds to wait for these bytes: the status alone is mostly enough.
WORDS_SECONDS = 5.0
# Bytes of an answer that is read as a whole, unless the caller sets another limit.
MOST_READ = 64 * 1024**2
# Bytes of a body that is read only to reuse the connection.
MOST_SKIPPED = 1024**2
_CONTINUE = b"HTTP/1.1 100"
_CONTROL_CHARACTER = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SETTING_OF_HEADER = {
    "": "the path of the address (--swiftAuthUrl, OS_STORAGE_URL)",
    "x-auth-key": "the key of the store (--swiftKey, SWIFT_KEY)",
    "x-auth-user": "the user of the store (--swiftUsername, SWIFT_USERNAME)",
    "x-auth-token": "the token of the store (OS_AUTH_TOKEN)",
}


class HttpConnection:
    """A connection along *route*, which the first request opens. It serves one caller at a time."""

    def __init__(self, route: NetworkRoute) -> None:
        self._route = route
        self._prefix, self._own_headers, self._http = make_connection(route)
        self._sending = Allowance(route.timeout, "takes what is sent")
        self._asks_first = True
        self._is_aborted = False
        self._begun: StoreResponse | None = None
        self._last: StoreResponse | None = None
        # Space for received bytes. To allocate it takes longer than to fill it, so it is kept.
        self.buffer = memoryview(bytearray(CHUNK))

    def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Any = None, size: int = 0
    ) -> StoreResponse:
        """Send a request; return the response, whose body the caller must read to its end.

        *body* is bytes, or an object with ``read``, of *size* bytes; *headers* contain its length.
        Raise `ConnectionBroken`. An error of the body passes through. The connection must be closed then.
        """
        asks_first = self._asks_first and size > min(CONTINUE_ABOVE, rewind_window(body))
        started = time.monotonic()
        self._open()
        opened = time.monotonic()
        self._put_head(method, path, headers, asks_first)
        with TALKING:
            self._http.endheaders()
        is_wanted = not asks_first or self._may_continue()
        if is_wanted:
            self._send_body(body)
        with TALKING:
            response = self._http.getresponse()
        assert isinstance(response, StoreResponse)
        self._last = response
        log.debug(
            "%s %s: %d after %.3f s, %.3f s of them to connect",
            *(method, path, response.status, time.monotonic() - started, opened - started),
        )
        if response.status == http.HTTPStatus.EXPECTATION_FAILED and not is_wanted:
            self.close()
            self._asks_first = False  # the server does not support the question (RFC 9110, 15.5.18)
            return self.request(method, path, headers, body, size)
        return response

    def _put_head(self, method: str, path: str, headers: Mapping[str, str], asks_first: bool) -> None:
        """Prepare the head of a request in UTF-8, and send nothing yet. Raise `Mistake` for a control character."""
        name = ""
        try:
            self._http.putrequest(method, self._prefix + path, skip_host=True, skip_accept_encoding=True)
            for name, value in (*self._own_headers.items(), *headers.items()):
                if _CONTROL_CHARACTER.search(value):
                    raise ValueError(name)
                self._http.putheader(name, value.encode())
            if asks_first:
                self._http.putheader("Expect", "100-continue")
        except (ValueError, http.client.InvalidURL):
            self._http.close()
            *_, self._http = make_connection(
                self._route
            )  # otherwise the next request would begin with this half head
            known = _SETTING_OF_HEADER.get(name.lower())
            what = known or f"the header {name}"
            wrong = "a line break, another control character or bytes that are not UTF-8"
            if not name:
                wrong = "a character that a URL can only contain as %XX"
            text = f"{what} contains {wrong}; it was not sent"
            raise Mistake(text, is_setting=bool(known)) from None

    def _open(self) -> None:
        """Connect, unless the kept connection is still open: a server may close an idle one."""
        if self._http.sock is not None:
            if not peer_has_closed(self._http.sock):
                return
            self._http.close()
        with CONNECTING_TO_PROXY if self._route.proxy else CONNECTING:
            self._http.timeout = self._route.connect_timeout
            self._http.connect()
        if self._is_aborted:  # when there was no socket yet to shut down
            self._is_aborted = False
            self._http.close()
            raise ConnectionBroken("it was aborted", connecting=True)
        set_timeouts(self._http.sock, self._route.timeout)

    def _may_continue(self) -> bool:
        """Return whether to send the body: the server agrees, or does not answer in time."""
        sock = self._http.sock
        answer = response_class(self._route)(sock, method="PUT")
        with TALKING:
            set_timeouts(sock, CONTINUE_PATIENCE)  # a poll would take messages of TLS itself for an answer
            try:
                begun = answer.fp.peek(1)
            except TimeoutError:
                answer.close()
                return True
            finally:
                set_timeouts(sock, self._route.timeout)
        # this object may have buffered more, so it must read the rest
        self._begun = answer
        self._http.response_class = _once(answer, self._http)
        # a part of "100 Continue" counts as that; a refusal is also noticed while the body is sent
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
        """Return whether the server refused the body before its end and sent an answer."""
        return self._http.sock is not None and has_data(self._http.sock)

    def read_into(self, response: StoreResponse, buffer: memoryview) -> int:
        """Read bytes of the body into *buffer*; return their number, 0 at the end. Raise `ConnectionBroken`."""
        with TALKING:
            count = response.readinto(buffer)
        if not count and response.length:
            raise ConnectionBroken("the connection broke (the answer is cut off)")
        return count

    def read_all(self, response: StoreResponse, most: int = MOST_READ) -> bytes:
        """Return the body. Raise `ConnectionBroken`, also for a body of more than *most* bytes."""
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

    def skip(self, response: StoreResponse) -> None:
        """Read the body to its end and discard it. Raise `ConnectionBroken`, also for a long body."""
        left = MOST_SKIPPED
        while count := self.read_into(response, self.buffer):
            left -= count
            if left < 0:
                raise ConnectionBroken(f"its answer has more than {MOST_SKIPPED} bytes where it needs none")

    def read_words(self, response: StoreResponse) -> str:
        """Return the text of a refusal's body in one line, without tags, or "" if it does not arrive."""
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
        """Shut the connection down, so that the request of another thread fails."""
        sock = self._http.sock
        if sock is None:
            self._is_aborted = True
        else:
            with contextlib.suppress(OSError):  # it is closed already
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._http.close()
        if self._last is not None:  # a response that ends with its connection owns the socket
            self._last.close()
        if self._begun is not None:
            # its body failed, so nobody reads this answer, and it would keep the socket
            self._begun.close()
            self._begun, self._http.response_class = None, response_class(self._route)


def _once(answer: StoreResponse, connection: http.client.HTTPConnection) -> Any:
    """Return a response class that makes *answer* the next response of *connection*, and only that one."""
    before = connection.response_class

    def make(*_: object, **__: object) -> StoreResponse:
        connection.response_class = before
        return answer

    return make
