"""The same bytes for this server and for h11, another parser of HTTP/1.1: the server takes nothing that h11 refuses.

It reads each accepted request as h11 does: the method, the target, the headers, the body, and where the next
request begins. It is stricter, see `test_some_requests_that_h11_accepts_are_refused`. It also accepts a few requests
that h11 refuses: `_as_h11_would_have_it` and `heard_by_h11` name them, with the reasons.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.server.exchange import Request
from pfstorage.server.http1 import head
from pfstorage.server.http1.connection import MAX_EMPTY_LINES
from pfstorage.server.http1.head import RequestHead
from pfstorage.server.http1.sending import Response
from pfstorage.server.request_handler import RequestHandler
from pfstorage.server.router import ROUTES, Route

STREAMS = 30_000
LONGEST = 150_000
"""Bytes of a stream: more than a head may have, and as much as the system holds until the server reads it."""
EXAMPLES = 600


@dataclass(frozen=True)
class Heard:
    """An accepted request: its contents, and how many bytes of the stream follow it."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes
    left: int


class Ears:
    """A router that takes each request with its body, and notes it."""

    def __init__(self, server: ThreadedHTTPServer) -> None:
        self._server = server
        self._heard: list[Heard] = []
        self._handler: RequestHandler | None = None
        server.router = self  # type: ignore[assignment]
        ears = self

        class Handler(RequestHandler):
            """A handler that is not connected by TCP."""

            disable_nagle_algorithm = False

            def setup(self) -> None:
                super().setup()
                ears._handler = self

        server.RequestHandlerClass = Handler  # type: ignore[assignment]

    def route(self, _: RequestHead) -> Route:
        return ROUTES[0]

    def respond(self, request: Request, _: Route) -> Response:
        content = b""
        headers = request.head.headers
        if {"content-length", "transfer-encoding"} & set(headers):
            reader = request.client.open_body(1 << 60)
            content = b"".join(iter(lambda: reader.read(1 << 16), b""))
        assert self._handler
        waiting = self._handler.connection.recv(1 << 20, socket.MSG_PEEK)
        left = len(self._handler.rfile.peek(1)) + len(waiting)  # type: ignore[attr-defined]
        values = {name: headers.get_all(name) for name in headers}
        self._heard.append(Heard(request.head.method, self._handler.path, values, content, left))
        return Response()

    def cors_headers(self, _: str | None) -> dict[str, str]:
        return {}

    def hear(self, data: bytes) -> list[Heard]:
        """Return the requests that the server accepts in *data*."""
        self._heard = []
        near, far = socket.socketpair()
        with near, far:
            far.sendall(data)
            far.shutdown(socket.SHUT_WR)
            self._server.load.connect(near)
            self._server.finish_request(near, ("127.0.0.1", 1))
            near.close()
            received = b"".join(iter(lambda: far.recv(1 << 16), b""))
        statuses = re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", received)
        assert statuses.count(b"200") == len(self._heard)
        assert set(statuses) <= {b"100", b"200", b"400", b"411", b"414", b"431", b"505"}
        return self._heard


@pytest.fixture(scope="module")
def ears() -> Iterator[Ears]:
    with (
        open_storage(type="memory") as storage,
        ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage)) as server,
    ):
        yield Ears(server)


def heard_by_h11(data: bytes) -> list[Heard]:
    """Return the requests that h11 accepts in *data*, and those that only this server accepts on purpose."""
    found: list[Heard] = []
    with contextlib.suppress(h11.RemoteProtocolError):
        while data := _as_h11_would_have_it(data):
            connection = h11.Connection(h11.SERVER, max_incomplete_event_size=head.MAX_HEAD)
            connection.receive_data(data)
            connection.receive_data(b"")
            request, content = connection.next_event(), bytearray()
            assert isinstance(request, h11.Request)
            while isinstance(event := connection.next_event(), h11.Data):
                content += event.data
            assert isinstance(event, h11.EndOfMessage)
            data = connection.trailing_data[0]
            values: dict[str, list[str]] = {}
            for name, value in request.headers:
                values.setdefault(name.decode(), []).append(value.decode("latin-1"))
            target = request.target.decode("latin-1")
            found.append(Heard(request.method.decode(), target, values, bytes(content), len(data)))
            words = {word.strip().lower() for word in ",".join(values.get("connection", ())).split(",")}
            # RFC 9112, 9.3: a client of HTTP/1.0 may ask for a kept connection, as ab does; h11 knows none
            is_kept = request.http_version == b"1.0" and "keep-alive" in words and "close" not in words
            if connection.their_state is h11.MUST_CLOSE and not is_kept:
                break
    return found


_TARGET = re.compile(rb"([^ \r\n]+ )([^ \r\n]+)( HTTP/)")
_EMPTY = re.compile(rb"(?:\r\n){0,%d}" % MAX_EMPTY_LINES)
_ASCII = bytes(range(128)) + b"~" * 128


def _as_h11_would_have_it(data: bytes) -> bytes:
    """Return *data* without the bytes that this server accepts on purpose and h11 refuses.

    Some empty lines before a request (RFC 9112, 2.2: a server should ignore one at least; a client of old ends its
    body with one), and bytes beyond ASCII in a target, which curl sends as they were typed. They divide nothing.
    """
    data = data[_EMPTY.match(data).end() :]  # type: ignore[union-attr]
    found = _TARGET.match(data)
    return found[1] + found[2].translate(_ASCII) + data[found.end(2) :] if found else data


def comparable(heard: Heard) -> Heard:
    """Return *heard* without differences of notation that have no meaning."""
    target = heard.target.encode("latin-1").translate(_ASCII).decode()
    if target.startswith("//"):  # this server's links name no other host
        target = "/" + target.lstrip("/")
    values = {**heard.headers}
    if "://" in target:  # then the target says which host is meant
        values.pop("host", None)
    if "content-length" in values:
        values["content-length"] = sorted(set(values["content-length"]))
    if "transfer-encoding" in values:
        values["transfer-encoding"] = [each.lower() for each in values["transfer-encoding"]]
    return Heard(heard.method, target, values, heard.body, heard.left)


def compare(ears: Ears, data: bytes) -> list[Heard]:
    """Return the requests that both accept in *data*. Fail if this server accepts more, or reads one differently."""
    ours = ears.hear(data)
    theirs = heard_by_h11(data)
    assert [*map(comparable, ours)] == [*map(comparable, theirs[: len(ours)])], data
    return ours


# fmt: off
GOOD_METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"CONNECT", b"OPTIONS", b"BREW", b"get")
METHODS = (*GOOD_METHODS, b"G\xe4T", b"G(T", b"")
GOOD_TARGETS = (b"/", b"/a?b=c", b"//x/y", b"*", b"http://h/p", b"h:1", b"/\xc3\xa4", b"/%00")
TARGETS = (*GOOD_TARGETS, b"/a b", b"/\x00", b"", b"/\x7f")
GOOD_VERSIONS = (b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.2")
VERSIONS = (*GOOD_VERSIONS, b"HTTP/2.0", b"HTTP/0.9", b"http/1.1", b"HTTP/1.10", b"")
GOOD_HEADERS = (
    b"X: y", b"Accept: */*", b"x-empty:", b"X-Spaces: \t a  b \t", b"X-Latin: \xe4\xff", b"Connection: keep-alive",
    b"Expect: 100-continue", b"Connection: x, Keep-Alive", b"Upgrade: h2c", b"TE: trailers",
)
HEADERS = (
    *GOOD_HEADERS, b"Connection: close",
    b"Content-Length: 3", b"Content-Length: 0", b"Content-Length: 3, 3", b"Content-Length: 3, 4", b"Content-Length:",
    b"Content-Length: +3", b"Content-Length: 0x3", b"Content-Length: 1_0", b"Content-Length: 3 ",
    b"Content-Length : 3", b"Content-Length\t: 3", b" Content-Length: 3", b"Content-Length: 00000003",
    b"Content-Length: -0", b"content-LENGTH: 5", b"Content-Length: 99999999999999999999999",
    b"Content-Length: \xb2", b"Content-Length: 3;a=b", b"Content-Length: 3\x0b",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: identity",
    b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: x\r\n chunked", b"Transfer-Encoding:", b"Transfer-Encoding: \x00chunked",
    b"Transfer_Encoding: chunked", b"Host: b", b"X: a\r\n b", b"X", b": y", b"", b"X: a\x00b", b"X: a\rb",
    b"X: a\nY: b", b"X\x00: y", b"X y: z", b"X: \x7f", b"X: \x01", b"X: " + b"y" * 70_000,
)
GOOD_SIZES = (b"%x", b"0%x", b"%x;a", b"%x;a=b", b'%x;a="b;c"', b"%x; a = b", b"%x;a;b=c")
SIZES = (
    *GOOD_SIZES, b"%x ", b" %x", b"%x ;a", b"%x;", b"%x;a=", b'%x;a="b', b"0x%x", b"+%x", b"-%x", b"%x_0", b"%xh",
    b"%x,a", b"%x\r", b"%x\x00", b"%x;a\x00", b"%x;a\rb", b"%x;a\nb", b"00000000000000000000%x", b"%x.0", b"1%x",
    b"f%x", b"%x;a=\x7f", b"",
)
GOOD_ENDS = (b"\r\n",)
ENDS = (*GOOD_ENDS * 12, b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\r\n\r\n", b"", b" \r\n", b"\x00\r\n")
# fmt: on


@st.composite
def requests(draw: Callable[[Any], Any]) -> bytes:
    """The bytes of a request, most often of a right one."""
    is_right = draw(st.sampled_from((True, True, True, False)))

    def pick(good: tuple[bytes, ...], others: tuple[bytes, ...]) -> bytes:
        return bytes(draw(st.sampled_from(good if is_right else others)))

    def end() -> bytes:
        return b"\r\n" if is_right else bytes(draw(st.sampled_from(ENDS)))

    def fields() -> list[bytes]:
        return [pick(GOOD_HEADERS, HEADERS) for _ in range(draw(st.integers(0, 2)))]

    version = pick(GOOD_VERSIONS, VERSIONS)
    line = b" ".join((pick(GOOD_METHODS, METHODS), pick(GOOD_TARGETS, TARGETS), version))
    headers, content = (
        [*fields(), pick((b"Host: a", b"host:a"), (b"Host: a", b"Hos: a"))],
        draw(st.binary(max_size=6)),
    )
    is_chunked = version != b"HTTP/1.0" and draw(st.booleans())
    if is_chunked:
        headers.append(b"Transfer-Encoding: chunked")
    if not is_chunked or (not is_right and draw(st.booleans())):
        slip = draw(st.sampled_from((0,) if is_right else (0, 0, 1, -1)))
        headers.append(b"Content-Length: %d" % (len(content) + slip))
    if version == b"HTTP/1.0":
        headers.append(b"Connection: keep-alive")
    head = b"".join(each + end() for each in (line, *headers, b""))
    if not is_chunked:
        return head + content
    chunk = [pick(GOOD_SIZES, SIZES).replace(b"%x", b"%x" % len(content)), content] if content else []
    chunks = (*chunk, pick(GOOD_SIZES, SIZES).replace(b"%x", b"0"), *fields(), b"")
    return head + b"".join(each + end() for each in chunks)


# fmt: off
INSERTED = (
    b"\n", b"\r", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x7f", b"\x85", b"\xa0", b":", b";", b",", b"=",
    b'"', b"\\", b"0", b"5", b"f", b"g", b"x", b"_", b"+", b"-", b".", b"0x", b"\r\n", b"\n\n", b"\r\n\r\n", b"\r\n ",
    b"\r\n\t", b"0\r\n\r\n", b"\r\nContent-Length: 1", b"\r\nTransfer-Encoding: chunked", b"\r\nHost: c",
    b"\r\nTransfer-Encoding : chunked", b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n",
)
# fmt: on
_JOINT = re.compile(rb"[\r\n:; =\"]|(?<=\n).|$")


def mutants(data: bytes, places: list[int]) -> Iterator[bytes]:
    """Yield *data* with one change each: at the *places*, counted along what divides it."""
    joints = [found.start() for found in _JOINT.finditer(data)]
    for place in {joints[number % len(joints)] for number in places}:
        before, after = data[:place], data[place:]
        yield before  # it breaks off
        yield before + after[1:]
        yield before + after[2:]
        yield before + after[:1] + after
        yield before + after.replace(b"\r\n", b"\n", 1)
        yield before + after.replace(b"\r\n", b"\r", 1)
        yield from (before + each + after for each in INSERTED)
        yield from (before + each + after[1:] for each in INSERTED[:12])


@pytest.mark.no_cover  # other tests cover the same lines, and 50,000 streams take twice as long with coverage
def test_no_stream_is_read_in_another_way_than_h11_reads_it(ears: Ears) -> None:
    tried = taken = 0

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(st.lists(requests(), min_size=1, max_size=3), st.integers(0, 1 << 16))
    def try_out(pipeline: list[bytes], place: int) -> None:
        nonlocal tried, taken
        data = b"".join(pipeline)
        for each in (data, *mutants(data, [place])):
            tried += 1
            taken += bool(compare(ears, each))

    try_out()
    print(f"{tried} streams, {taken} of them with a request that was taken")
    assert tried >= STREAMS
    assert taken > tried / 4  # nothing would be found out about those that are all refused


STREAM = (
    b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\n"
    b"PUT /b HTTP/1.0\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\nabcd"
    b"GET /c HTTP/1.1\r\nHost: a\r\n\r\n"
)


@pytest.mark.no_cover
def test_every_byte_at_every_place_is_read_as_h11_reads_it(ears: Ears) -> None:
    assert [each.target for each in compare(ears, STREAM)] == ["/a", "/b", "/c"]
    for place in range(len(STREAM) + 1):
        for number in range(256):
            compare(ears, STREAM[:place] + bytes([number]) + STREAM[place:])


@pytest.mark.parametrize("empty", range(MAX_EMPTY_LINES + 1))
def test_a_right_stream_is_taken_whole(ears: Ears, empty: int) -> None:
    data = b"\r\n" * empty + STREAM
    assert [(each.body, each.left) for each in compare(ears, data * 3)[-3:]] == [
        (b"abc", len(STREAM[STREAM.index(b"PUT") :])),
        (b"abcd", len(STREAM[STREAM.index(b"GET") :])),
        (b"", 0),
    ]


STRICTER = {
    "a line of the head ends with LF": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "a header line ends with LF": b"GET / HTTP/1.1\r\nHost: a\n\r\n",
    "the head ends with LF": b"GET / HTTP/1.1\r\nHost: a\r\n\n",
    "a trailer ends with LF": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
    "a header goes on in the next line": b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
    "a control character in a header": b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n",
    "a length and chunks": (
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "two equal lengths in one line": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 0\r\n\r\n",
    "chunks by HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "junk in an extension": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0;\0\r\n\r\n",
    "a blank after the size": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0 \r\n\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
    "another version": b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", STRICTER.values(), ids=STRICTER)
def test_some_requests_that_h11_accepts_are_refused(ears: Ears, data: bytes) -> None:
    assert heard_by_h11(data)
    assert compare(ears, data) == []
