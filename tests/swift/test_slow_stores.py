"""Stores that keep a client waiting with single bytes, or with endless answers."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.backends.capabilities import Part
from pfstorage.backends.contract import NO_ATTRIBUTES
from pfstorage.backends.http.connection import HttpConnection
from pfstorage.backends.http.dialing import NetworkRoute
from pfstorage.backends.http.errors import ConnectionBroken
from pfstorage.backends.retry import RetryPolicy
from pfstorage.backends.swift.manifests import segments_etag_of
from pfstorage.backends.swift.store import SwiftStorage
from pfstorage.errors import NotFoundError, PfstorageError, UnavailableError
from tests.conftest import run
from tests.support.peer import Peer, Serving

SECONDS = 0.25
"""The silence in seconds that the client accepts. The stores send their bytes more often."""
PAUSE = 0.02
FAST = 1_000_000.0
"""Bytes a second that no store of these tests sends."""
OK = b"HTTP/1.1 200 OK\r\n"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


class Dripping:
    """Answers a request with *begin*, and then repeats *drop* until the client disconnects. Counts requests."""

    def __init__(self, begin: bytes, drop: bytes, pause: float = PAUSE) -> None:
        self.begin, self.drop, self.pause = begin, drop, pause
        self.heads: list[bytes] = []
        self.is_over = threading.Event()

    def __call__(self, peer: Peer) -> None:
        while head := peer.head():
            self.heads.append(head)
            peer.send(self.begin)
            while not self.is_over.wait(self.pause):
                peer.send(self.drop)


@pytest.fixture
def drip() -> Iterator[Callable[..., Dripping]]:
    """Make answers that drip; they end before the servers do."""
    made: list[Dripping] = []

    def make(*args: Any) -> Dripping:
        made.append(Dripping(*args))
        return made[-1]

    yield make
    for each in made:
        each.is_over.set()


@contextlib.contextmanager
def connected(
    port: int,
    scheme: str = "http",
    proxy: str = "",
    context: ssl.SSLContext | None = None,
    rate: float = FAST,
) -> Iterator[HttpConnection]:
    route = NetworkRoute(f"{scheme}://127.0.0.1:{port}", proxy, SECONDS, SECONDS, context, rate)
    with contextlib.closing(HttpConnection(route)) as connection:
        yield connection


def got(connection: HttpConnection) -> bytes:
    return connection.read_all(connection.request("GET", "/a", {}))


ENDLESS = [
    pytest.param(OK, b"X", id="a header, byte by byte"),
    pytest.param(OK, b"X-A: b\r\n", id="headers"),
    pytest.param(b"", GO_ON, id="100 Continue"),
    pytest.param(b"", b"HTTP/1.1 102 Processing\r\nX-Wait: yes\r\n\r\n", id="102 Processing"),
    pytest.param(OK + b"Content-Length: 99999\r\n\r\n", b"x", id="a body of a length"),
    pytest.param(OK + b"\r\n", b"x", id="a body to the end"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", id="chunks"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n99999\r\n", b"x", id="a chunk"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1", b";a=b", id="an extension of a chunk"),
    pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n", id="trailers"),
]


@pytest.mark.parametrize(("begin", "drop"), ENDLESS)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_answer_that_drips_ends_as_silence_does(
    serve_peers: Serving,
    drip: Callable[..., Dripping],
    tls: ssl.SSLContext,
    trusts: ssl.SSLContext,
    begin: bytes,
    drop: bytes,
    scheme: str,
) -> None:
    server = serve_peers(drip(begin, drop), tls if scheme == "https" else None)
    with (
        connected(server.port, scheme, context=trusts) as connection,
        pytest.raises(ConnectionBroken, match=r"it answers too slowly: .*--(timeout|minRate)") as caught,
    ):
        got(connection)
    assert (caught.value.connecting, caught.value.silent) == (False, True)


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        pytest.param(b"", GO_ON * 1000, id="100 Continue"),
        pytest.param(OK, b"X-A: " + b"b" * 60_000 + b"\r\n", id="large headers"),
        pytest.param(OK, b"b" * 60_000, id="a header line"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n1", b";a=" + b"b" * 9000, id="an extension"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 1000, id="trailers"),
        pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"-1\r\n", id="a chunk of no size"),
    ],
)
def test_an_endless_answer_is_given_up_at_each_speed(
    serve_peers: Serving, drip: Callable[..., Dripping], begin: bytes, drop: bytes
) -> None:
    server = serve_peers(drip(begin, drop, 0.0))
    with (
        connected(server.port, rate=0) as connection,
        pytest.raises(ConnectionBroken, match="broke") as caught,
    ):
        got(connection)
    assert not caught.value.silent


def test_a_body_of_which_nothing_is_wanted_is_not_read_without_end(
    serve_peers: Serving, drip: Callable[..., Dripping]
) -> None:
    server = serve_peers(drip(OK + b"\r\n", bytes(60_000), 0.0))
    with connected(server.port) as connection:
        answer = connection.request("PUT", "/a", {})
        with pytest.raises(ConnectionBroken, match="has more than 1048576 bytes where it needs none"):
            connection.skip(answer)


def test_an_answer_is_not_kept_without_end(serve_peers: Serving, drip: Callable[..., Dripping]) -> None:
    server = serve_peers(drip(OK + b"\r\n", bytes(60_000), 0.0))
    with connected(server.port) as connection:
        answer = connection.request("GET", "/a", {})
        with pytest.raises(ConnectionBroken, match="has more than 100000 bytes"):
            connection.read_all(answer, 100_000)


def test_the_status_of_a_refusal_counts_though_its_words_drip(
    serve_peers: Serving, drip: Callable[..., Dripping]
) -> None:
    server = serve_peers(drip(b"HTTP/1.1 404 No\r\nContent-Length: 4000\r\n\r\n", b"x"))
    with connected(server.port) as connection:
        answer = connection.request("GET", "/a", {})
        assert (answer.status, connection.read_words(answer)) == (404, "")


def test_a_proxy_whose_answer_to_connect_drips_is_given_up(
    serve_peers: Serving, drip: Callable[..., Dripping], trusts: ssl.SSLContext
) -> None:
    proxy = serve_peers(drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"))
    with (
        connected(1, "https", f"http://127.0.0.1:{proxy.port}", trusts) as connection,
        pytest.raises(ConnectionBroken, match="its proxy does not") as caught,
    ):
        got(connection)
    assert caught.value.connecting


def test_a_handshake_that_drips_is_given_up(
    serve_peers: Serving, drip: Callable[..., Dripping], trusts: ssl.SSLContext
) -> None:
    dripping = drip(b"", b"\x01")

    def shake(peer: Peer) -> None:
        peer.sock.recv(65536)
        peer.send(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a record with the beginning of a long greeting
        while not dripping.is_over.wait(PAUSE):
            peer.send(b"\x01")

    server = serve_peers(shake)
    with (
        connected(server.port, "https", context=trusts) as connection,
        pytest.raises(ConnectionBroken, match="no connection in time"),
    ):
        got(connection)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("size", [200_000, 60_000_000])
def test_a_store_that_reads_an_upload_too_slowly_is_given_up(
    serve_peers: Serving,
    drip: Callable[..., Dripping],
    tls: ssl.SSLContext,
    trusts: ssl.SSLContext,
    scheme: str,
    size: int,
) -> None:
    dripping = drip(b"", b"")

    def read(peer: Peer) -> None:
        peer.head()
        while not dripping.is_over.wait(PAUSE):
            peer.sock.recv(100)

    server = serve_peers(read, tls if scheme == "https" else None)
    with (
        connected(server.port, scheme, context=trusts) as connection,
        pytest.raises(ConnectionBroken, match=r"too slowly|it fell silent") as caught,
    ):
        connection.request("PUT", "/a", {"Content-Length": str(size)}, io.BytesIO(bytes(size)), size)
    assert caught.value.silent


# delays that do not make a store slow


def test_a_body_may_take_long_that_comes_fast_enough(serve_peers: Serving) -> None:
    pieces = 40  # which take three times as long as silence may

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK + b"Content-Length: %d\r\n\r\n" % (pieces * 1000))
        for _ in range(pieces):
            threading.Event().wait(PAUSE)
            peer.send(bytes(1000))

    with connected(serve_peers(serve).port, rate=1000) as connection:
        assert got(connection) == bytes(pieces * 1000)


def test_any_byte_is_enough_without_a_rate(serve_peers: Serving) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):
            threading.Event().wait(PAUSE)
            peer.send(b"1\r\nx\r\n")
        peer.send(b"0\r\n\r\n")

    with connected(serve_peers(serve).port, rate=0) as connection:
        assert got(connection) == b"x" * 40


def test_a_slow_reader_does_not_make_the_store_look_slow(serve_peers: Serving) -> None:
    size = 8_000_000  # more than the system holds for a connection

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK + b"Content-Length: %d\r\n\r\n" % size)
        peer.send(bytes(size))

    with connected(serve_peers(serve).port) as connection:
        answer = connection.request("GET", "/a", {})
        total = 0
        while count := connection.read_into(answer, connection.buffer):
            total += count
            if total < 2_000_000:
                threading.Event().wait(SECONDS / 3)
    assert total == size


def test_a_slow_sender_does_not_make_the_store_look_slow(serve_peers: Serving) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.body(20 * 10_000)
        peer.send(OK + b"Content-Length: 0\r\n\r\n")

    class Slow(io.BytesIO):
        def read(self, _: int | None = -1) -> bytes:
            threading.Event().wait(PAUSE * 2)
            return super().read(10_000)

    with connected(serve_peers(serve).port) as connection:
        answer = connection.request("PUT", "/a", {"Content-Length": "200000"}, Slow(bytes(200_000)), 200_000)
        assert answer.status == 200


# the storage


STORAGE_URL = "http://127.0.0.1:{}/v1/AUTH_a"
LISTING = [{"name": "a", "bytes": 99_999, "hash": "0" * 32, "last_modified": "", "content_type": ""}]


class Store:
    """A Swift with a normal login, and a normal listing unless *drips*. *answer* answers other requests."""

    def __init__(self, answer: Callable[[Peer], None]) -> None:
        self.answer = answer
        self.port = 0
        self.drips = False
        self.asked: list[bytes] = []

    def __call__(self, peer: Peer) -> None:
        while head := peer.head():
            if head.startswith(b"GET /auth"):
                url = STORAGE_URL.format(self.port).encode()
                peer.send(OK + b"X-Storage-Url: %b\r\nX-Auth-Token: t\r\nContent-Length: 0\r\n\r\n" % url)
            elif head.startswith(b"GET /info"):
                peer.send(b"HTTP/1.1 404 No\r\nX-Trans-Id: t\r\nContent-Length: 0\r\n\r\n")
            elif b"format=json" in head and not self.drips:
                rows = json.dumps(LISTING).encode()
                peer.send(OK + b"X-Trans-Id: t\r\nContent-Length: %d\r\n\r\n%b" % (len(rows), rows))
            else:
                self.asked.append(head.partition(b" ")[0])
                self.answer(peer)


@pytest.fixture
def slow(
    serve_peers: Serving, drip: Callable[..., Dripping]
) -> Iterator[Callable[..., tuple[Storage, Store]]]:
    """Open a storage on a `Store` whose answers *begin*, and then drip."""
    with contextlib.ExitStack() as stack:

        def make(begin: bytes, drop: bytes = b"x", **more: Any) -> tuple[Storage, Store]:
            dripping = drip(begin, drop)

            def answer(peer: Peer) -> None:
                peer.send(begin)
                while not dripping.is_over.wait(PAUSE):
                    peer.send(drop)

            store = Store(answer)
            store.port = serve_peers(store).port
            options = {"retries": 1, "timeout": SECONDS, "min_rate": "1M", **more}
            url = f"http://127.0.0.1:{store.port}/auth/v1.0"
            return stack.enter_context(open_storage(type="swift", auth_url=url, **options)), store

        yield make


Use = Callable[[Storage], object]
USES: list[tuple[str, Use]] = [
    ("GET", lambda storage: storage.get("a", io.BytesIO())),
    ("HEAD", lambda storage: storage.head("a")),
    ("DELETE", lambda storage: storage.delete("a")),
    ("COPY", lambda storage: storage.copy("a", "b")),
    ("PUT", lambda storage: storage.put("a", io.BytesIO(b"hi"), 2)),
]


@pytest.mark.parametrize(("method", "use"), USES, ids=[method for method, _ in USES])
@pytest.mark.parametrize(("begin", "drop"), [(b"", GO_ON), (OK + b"X-Trans-Id: t\r\n", b"X-A: b\r\n")])
def test_each_request_to_a_store_that_drips_ends_after_its_tries(
    slow: Callable[..., tuple[Storage, Store]], method: str, use: Use, begin: bytes, drop: bytes
) -> None:
    storage, store = slow(begin, drop)
    with pytest.raises(
        UnavailableError, match=rf"127.0.0.1:{store.port} does not answer: it answers too slowly"
    ):
        use(storage)
    assert store.asked == [method.encode()] * 2


@pytest.mark.parametrize("status", [b"404 No", b"503 Later"])
def test_a_refusal_with_a_slow_body_is_that_refusal(
    slow: Callable[..., tuple[Storage, Store]], status: bytes
) -> None:
    storage, store = slow(b"HTTP/1.1 %b\r\nX-Trans-Id: t\r\nContent-Length: 999\r\n\r\n" % status)
    kind = NotFoundError if b"404" in status else UnavailableError
    with pytest.raises(kind, match=r"there is no object|answered 503"):
        storage.head("a") if b"503" in status else storage.get("a", io.BytesIO())
    assert len(store.asked) == (1 if b"404" in status else 2)


def test_a_pull_from_a_store_that_drips_ends_and_names_the_cause(
    slow: Callable[..., tuple[Storage, Store]], tmp_path: Path
) -> None:
    storage, store = slow(OK + b"X-Trans-Id: t\r\nETag: e\r\nContent-Length: 99999\r\n\r\n")
    reply = run(storage, "objPull", path="", mapLocationOver=str(tmp_path))
    assert reply["status"] is False
    assert f"127.0.0.1:{store.port} does not answer: it answers too slowly: under 1.04858e+06" in reply["msg"]
    assert not list(tmp_path.iterdir())


def test_a_listing_that_drips_ends(slow: Callable[..., tuple[Storage, Store]]) -> None:
    storage, store = slow(OK + b"X-Trans-Id: t\r\nContent-Length: 99999\r\n\r\n[", b" ")
    store.drips = True
    with pytest.raises(UnavailableError, match="too slowly"):
        list(storage.list())
    assert store.asked == [b"GET"] * 2


@pytest.mark.parametrize("version", ["1", "3"])
def test_a_login_that_drips_ends(serve_peers: Serving, drip: Callable[..., Dripping], version: str) -> None:
    dripping = drip(
        OK + b"X-Storage-Url: http://127.0.0.1:1/v1\r\nX-Auth-Token: t\r\nContent-Length: 999\r\n\r\n", b"x"
    )
    server = serve_peers(dripping)
    options: dict[str, Any] = {"auth_version": version, "os_options": {"project_name": "p"}}
    url = f"http://127.0.0.1:{server.port}/v3"
    with (
        open_storage(
            type="swift", auth_url=url, retries=1, timeout=SECONDS, min_rate="1M", **options
        ) as storage,
        pytest.raises(UnavailableError, match="too slowly"),
    ):
        storage.head("a")
    assert len(dripping.heads) == 2


def test_a_download_that_brings_a_byte_with_each_try_is_not_tried_without_end(
    slow: Callable[..., tuple[Storage, Store]],
) -> None:
    storage, store = slow(b"", min_rate="1K", timeout=5)
    sent = itertools.count()

    def one_byte(peer: Peer) -> None:
        at = next(sent)
        head = (
            b"HTTP/1.1 206 Part\r\nContent-Range: bytes %d-99998/99999\r\n" if at else OK + b"X-First: %d\r\n"
        )
        peer.send(head % at + b"X-Trans-Id: t\r\nETag: e\r\nContent-Length: %d\r\n\r\nx" % (99_999 - at))
        raise ConnectionResetError

    store.answer = one_byte
    with pytest.raises(UnavailableError, match="the connection broke"):
        storage.get("a", io.BytesIO())
    # each has up to half a second for its pause, in which 1 KiB/s would bring more
    assert next(sent) < 50


def test_the_tries_restart_while_progress_keeps_up_with_the_rate() -> None:
    reached, tries = 0, 0

    def call() -> int:
        nonlocal reached, tries
        reached, tries = reached + 10_000_000, tries + 1
        if tries < 9:
            raise UnavailableError("busy", retry_after=0)
        return tries

    assert RetryPolicy(1).call(call, progress=lambda: reached, least_rate=1000) == 9
    tries = 0
    with pytest.raises(PfstorageError, match="busy"):
        RetryPolicy(1).call(call, progress=lambda: reached, least_rate=1e15)
    assert tries == 2


def test_the_heartbeats_of_a_store_that_checks_a_manifest_are_no_slow_answer(
    slow: Callable[..., tuple[Storage, Store]],
) -> None:
    storage, store = slow(b"", timeout=0.5)
    assert isinstance(storage, SwiftStorage)
    size = 4
    etag = segments_etag_of("0" * 32 for _ in range(size))
    reported = json.dumps({"Response Status": "201 Created", "Etag": etag}).encode()

    def beat(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 202 Accepted\r\nX-Trans-Id: t\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(40):  # which take longer than the silence that the client accepts
            threading.Event().wait(PAUSE)
            peer.send(b"1\r\n \r\n")
        peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(reported), reported))

    store.answer = beat
    upload = storage.start_multipart_upload("a", size, 1, NO_ATTRIBUTES, None)
    pieces = [Part(offset, 1, "0" * 32) for offset in range(size)]
    assert upload.finish(pieces).etag == etag
    assert store.asked == [b"PUT"]
