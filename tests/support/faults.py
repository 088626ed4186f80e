"""An HTTP proxy in front of a store. It counts requests and bytes, and makes chosen requests fail."""

from __future__ import annotations

import collections
import contextlib
import socket
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from http.client import HTTPMessage, parse_headers
from typing import Literal, NamedTuple
from urllib.parse import unquote

from tests.support.peer import Listener, Peer

# bytes of a body in hand at a time
PIECE = 64 * 1024

Side = Literal["request", "answer"]


@dataclass(frozen=True)
class Fault:
    """A failure of one request or of its answer, as *side* says.

    - ``answer``: the proxy itself answers *status*, with *retry_after* if given; the store sees nothing.
    - ``expire``: 401 for the token of this request, now and from now on. The next login gives another.
    - ``garbage``: the client gets bytes that are no HTTP, and the connection ends. The store sees nothing.
    - ``stall``: *seconds* of silence. Before the head of a request, it is the latency of a network.
    - ``reset``: the connection is torn down (RST).
    - ``close``: the connection ends in good order, too early.
    - ``flip``: one bit of byte *at* of the body is another.
    - ``shorten``: the body ends before byte *at*, and its Content-Length says so.
    - ``change``: the function *change* replaces the body of an answer of the status 200 or 202.
    - ``omit``: the answer has no *header*. A body without Content-Length goes in chunks, or, if *until_end*, to the
      end of the connection.

    A stall, a reset and a close strike before byte *at* of the body or, without *at*, before
    the head is passed on. Before the head of an answer, the store has done its work. A body
    that has no byte *at* passes as it is.
    """

    kind: Literal[
        "answer", "expire", "garbage", "stall", "reset", "close", "flip", "shorten", "change", "omit"
    ]
    at: int | None = None
    side: Side = "answer"
    seconds: float = 0.0
    status: int = 503
    retry_after: int | None = None
    header: str = ""
    until_end: bool = False
    change: Callable[[bytes], bytes] = bytes
    is_signed: bool = False
    """Whether an answer of the proxy itself looks like one of a Swift."""


class Request(NamedTuple):
    """The request, and the status of the answer to the client, or 0 without an answer."""

    method: str
    path: str
    query: str
    status: int


@dataclass
class Exchange:
    """One request and its result. *path* is unquoted, and the names of *headers* are case-insensitive.

    *received* and *sent* are the bytes of the bodies that came from the client and went to it.
    """

    method: str
    path: str
    query: str
    headers: HTTPMessage
    status: int = 0
    received: int = 0
    sent: int = 0

    @property
    def kind(self) -> Literal["login", "account", "container", "object"]:
        if self.path.startswith("/auth/"):
            return "login"
        return "object" if self.key else "container" if self.container else "account"

    @property
    def container(self) -> str:
        return (self.path.split("/", 4) + [""] * 3)[3]

    @property
    def key(self) -> str:
        return (self.path.split("/", 4) + [""] * 3)[4]


Where = Callable[[Exchange], bool]


def is_login(exchange: Exchange) -> bool:
    return exchange.kind == "login"


def is_listing(exchange: Exchange) -> bool:
    return (exchange.method, exchange.kind) == ("GET", "container")


def is_object(exchange: Exchange) -> bool:
    return exchange.kind == "object"


class _BrokenOffError(Exception):
    """The connections end here: in good order, or *abruptly*."""

    def __init__(self, abruptly: bool = False) -> None:
        self.abruptly = abruptly


class _Peer(Peer):
    """One end of a connection, and the HTTP that comes and goes there."""

    def read_head(self) -> tuple[str, HTTPMessage]:
        """Return the first line and the headers. Raise `_BrokenOffError` where nothing more comes."""
        return self._line(), parse_headers(self.reader)

    def _line(self) -> str:
        line = self.reader.readline()
        if not line:
            raise _BrokenOffError
        return line.decode("latin-1").rstrip("\r\n")

    def send_head(self, line: str, headers: HTTPMessage) -> None:
        lines = [line, *(f"{name}: {value}" for name, value in headers.items()), "\r\n"]
        self.sock.sendall("\r\n".join(lines).encode("latin-1"))

    def read_body(self, headers: HTTPMessage, until_end: bool = False) -> Iterator[bytes]:
        """Yield the body that *headers* announce as it arrives. Without a length, read to the end if *until_end*."""
        if _is_chunked(headers):
            return self._read_chunks()
        if until_end and "Content-Length" not in headers:
            return iter(lambda: self.reader.read1(PIECE), b"")
        return self._read(int(headers.get("Content-Length", 0)))

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self._line().partition(";")[0], 16):
            yield from self._read(size)
            self._line()
        while self._line():
            continue  # trailers

    def _read(self, size: int) -> Iterator[bytes]:
        while size:
            try:
                piece = self.reader.read1(min(size, PIECE))
            except OSError:  # not to be taken for one of the side that it is sent to
                piece = b""
            if not piece:
                raise _BrokenOffError
            size -= len(piece)
            yield piece

    def send_body(self, pieces: Iterator[bytes], headers: HTTPMessage) -> None:
        chunked = _is_chunked(headers)
        for piece in pieces:
            if piece:  # an empty chunk would be the last one
                self.sock.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self.sock.sendall(b"0\r\n\r\n")


def _status(line: str) -> int:
    return int(line.split(" ")[1])


def _is_chunked(headers: HTTPMessage) -> bool:
    return "chunked" in headers.get("Transfer-Encoding", "").lower()


def _drain(pieces: Iterator[bytes]) -> None:
    collections.deque(pieces, maxlen=0)


class _Link:
    """A client's connection, and one to the store for it."""

    def __init__(self, proxy: Proxy, client: _Peer, store: _Peer) -> None:
        self._proxy = proxy
        self._client = client
        self._store = store

    def serve(self) -> bool:
        """Pass requests and answers until either side ends. Return whether it ends abruptly."""
        try:
            while not self._proxy.closing.is_set() and self._serve_one():
                continue
        except _BrokenOffError as e:
            return e.abruptly
        except OSError:
            return True
        return False

    def _serve_one(self) -> bool:
        """Pass one request on and its answer back. Return whether the connections can serve another."""
        line, headers = self._client.read_head()
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        exchange = Exchange(method, unquote(path), query, headers)
        faults = self._proxy.note(exchange)
        body = self._counted(self._client.read_body(headers), exchange, "received")
        own = next((fault for fault in faults if fault.kind in ("answer", "expire", "garbage")), None)
        self._before_head("request", faults)
        if own:
            return self._answer(own, exchange, body)
        status_line, answer = self._ask(line, headers, self._tampered("request", headers, body, faults))
        self._before_head("answer", faults)
        kept = self._pass_back(exchange, faults, status_line, answer)
        return kept and headers.get("Connection", "").lower() != "close"

    def _pass_back(self, exchange: Exchange, faults: list[Fault], line: str, headers: HTTPMessage) -> bool:
        exchange.status = _status(line)
        has_body = exchange.method != "HEAD" and exchange.status not in (204, 304)
        body = self._store.read_body(headers, until_end=True) if has_body else iter(())
        body = self._counted(self._tampered("answer", headers, body, faults), exchange, "sent")
        for fault in faults:
            if fault.kind == "change" and has_body and exchange.status in (200, 202):
                self._proxy.note_struck(fault)
                content = fault.change(b"".join(body))
                for name in ("Content-Length", "Transfer-Encoding"):
                    del headers[name]
                headers["Content-Length"] = str(len(content))
                body = iter([content])
        self._omit(headers, faults, has_body=has_body)
        framed = not has_body or "Content-Length" in headers or _is_chunked(headers)
        if exchange.kind == "login":
            self._proxy.rename_token(headers)
        self._client.send_head(line, headers)
        self._client.send_body(body, headers)
        return framed and headers.get("Connection", "").lower() != "close"

    def _omit(self, headers: HTTPMessage, faults: list[Fault], *, has_body: bool) -> None:
        for fault in faults:
            if fault.kind == "omit" and fault.header in headers:
                self._proxy.note_struck(fault)
                del headers[fault.header]
                if has_body and fault.header == "Content-Length" and not fault.until_end:
                    headers["Transfer-Encoding"] = "chunked"

    def _before_head(self, side: Side, faults: list[Fault]) -> None:
        for fault in faults:
            if fault.side == side and fault.at is None and fault.kind in ("stall", "reset", "close"):
                self._act(fault)

    def _act(self, fault: Fault) -> None:
        self._proxy.note_struck(fault)
        if fault.kind in ("reset", "close"):
            raise _BrokenOffError(fault.kind == "reset")
        if fault.seconds and self._proxy.closing.wait(fault.seconds):
            raise _BrokenOffError

    def _answer(self, fault: Fault, exchange: Exchange, body: Iterator[bytes]) -> bool:
        self._proxy.note_struck(fault)
        waits = "Expect" in exchange.headers  # the client sends no body to an answer like this
        if not waits:
            _drain(body)
        if fault.kind == "garbage":
            self._client.sock.sendall(b"\0\xff this is no HTTP \r\n\r\n")
            return False
        exchange.status = 401 if fault.kind == "expire" else fault.status
        headers = HTTPMessage()
        headers["Content-Length"] = "0"
        if fault.retry_after is not None:
            headers["Retry-After"] = str(fault.retry_after)
        if fault.is_signed:
            headers["X-Trans-Id"] = "tx-fault"
        if waits:
            headers["Connection"] = "close"
        self._client.send_head(f"HTTP/1.1 {exchange.status} Fault", headers)
        return not waits

    def _ask(self, line: str, headers: HTTPMessage, body: Iterator[bytes]) -> tuple[str, HTTPMessage]:
        """Pass a request on to the store; return the head of its answer."""
        self._proxy.restore_token(headers)
        self._store.send_head(line, headers)
        if headers.get("Expect", "").lower() == "100-continue":
            answer = self._store.read_head()
            if _status(answer[0]) != 100:
                del answer[1]["Connection"]
                answer[1]["Connection"] = "close"  # the client may or may not send its body
                return answer
            self._client.send_head(*answer)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may have answered early
            self._store.send_body(body, headers)
        _drain(body)  # the rest, for a store that has answered early
        while _status((answer := self._store.read_head())[0]) < 200:
            continue
        return answer

    def _tampered(
        self, side: Side, headers: HTTPMessage, pieces: Iterator[bytes], faults: list[Fault]
    ) -> Iterator[bytes]:
        """Return the body *pieces* with those of *faults* that strike it; *headers* are made to fit."""
        for fault in faults:
            if fault.side == side and fault.at is not None:
                if fault.kind == "shorten" and int(headers.get("Content-Length", 0)) > fault.at:
                    headers.replace_header("Content-Length", str(fault.at))
                pieces = self._struck_body(fault, fault.at, pieces)
        return pieces

    def _struck_body(self, fault: Fault, at: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
        passed = 0
        for piece in pieces:
            cut, passed = at - passed, passed + len(piece)
            if not 0 <= cut < len(piece):
                yield piece
                continue
            yield piece[:cut]
            self._act(fault)
            if fault.kind == "shorten":
                _drain(pieces)  # so the connection can serve another request
                return
            yield bytes([piece[cut] ^ (fault.kind == "flip")]) + piece[cut + 1 :]

    def _counted(
        self, pieces: Iterator[bytes], exchange: Exchange, name: Literal["received", "sent"]
    ) -> Iterator[bytes]:
        for piece in pieces:
            setattr(exchange, name, getattr(exchange, name) + len(piece))
            yield piece


@dataclass
class _Rule:
    fault: Fault
    method: str | None
    on: Collection[int] | None
    where: Where
    count: int = 0

    def is_due(self, exchange: Exchange) -> bool:
        if self.method not in (None, exchange.method) or not self.where(exchange):
            return False
        self.count += 1
        return self.on is None or self.count in self.on


class Proxy(Listener):
    """Passes HTTP/1.1 on to *port* of this machine, by a connection for each of the clients'.

    A Swift's login names the address of the request, so a client that logs in here sends all requests here.
    *exchanges* are all requests, in the order in which they came; *struck* are the faults
    that have acted, once for each time.
    """

    def __init__(self, port: int) -> None:
        self.exchanges: list[Exchange] = []
        self.struck: list[Fault] = []
        self._target = port
        self._rules: list[_Rule] = []
        self._expired: set[str] = set()
        self._tokens: dict[str, str] = {}
        super().__init__(self._pass_on)

    @property
    def auth_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/auth/v1.0"

    def fault(
        self,
        fault: Fault,
        method: str | None = None,
        on: Collection[int] | None = None,
        where: Where = is_object,
    ) -> None:
        """Let *fault* strike the requests of *method*, None is any, for which *where* is true.

        *on* are their numbers among these, from 1 on; None is all. Faults of one request add up.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, on, where))

    def forget(self) -> None:
        """Reset the counts and remove the faults. Expired tokens remain expired."""
        with self._lock:
            self.exchanges, self.struck, self._rules = [], [], []

    @property
    def requests(self) -> list[Request]:
        return [Request(each.method, each.path, each.query, each.status) for each in self.exchanges]

    def made(self, method: str, where: Where = is_object) -> list[Exchange]:
        """Return the requests of *method* for which *where* is true."""
        return [each for each in self.exchanges if each.method == method and where(each)]

    @property
    def logins(self) -> int:
        return len(self.made("GET", is_login))

    @property
    def listings(self) -> int:
        """Pages of listings that were asked for."""
        return len(self.made("GET", is_listing))

    @property
    def gets(self) -> int:
        return len(self.made("GET"))

    @property
    def puts(self) -> int:
        """PUTs of objects; segments and manifests are objects, too."""
        return len(self.made("PUT"))

    def note(self, exchange: Exchange) -> list[Fault]:
        """Count *exchange*; return the faults that are due."""
        token = exchange.headers.get("X-Auth-Token", "")
        with self._lock:
            self.exchanges.append(exchange)
            due = [rule.fault for rule in self._rules if rule.is_due(exchange)]
            if any(fault.kind == "expire" for fault in due):
                self._expired.add(token)
            elif token in self._expired:
                due.append(Fault("expire"))
        return due

    def note_struck(self, fault: Fault) -> None:
        with self._lock:
            self.struck.append(fault)

    def rename_token(self, headers: HTTPMessage) -> None:
        """Replace the token in the answer to a login by a unique one: tempauth repeats a token until it expires."""
        with self._lock:
            suffix = f"-{len(self._tokens) + 1}"
            for each in ("X-Auth-Token", "X-Storage-Token"):  # clients take either
                if each in headers:
                    self._tokens[headers[each] + suffix] = headers[each]
                    headers.replace_header(each, headers[each] + suffix)

    def restore_token(self, headers: HTTPMessage) -> None:
        token = headers.get("X-Auth-Token", "")
        if token in self._tokens:
            headers.replace_header("X-Auth-Token", self._tokens[token])

    def _pass_on(self, client: socket.socket) -> None:
        # a store that is away takes no connection: the client's ends
        peers = _Peer(client), _Peer(socket.create_connection(("127.0.0.1", self._target)))
        with self.holding(peers[1].sock):
            abruptly = _Link(self, *peers).serve()
        for peer in peers:
            peer.end(abruptly)


@contextlib.contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """Run a proxy to *port* of this machine, on a free one, for the length of the block."""
    with contextlib.closing(Proxy(port)) as proxy:
        yield proxy
