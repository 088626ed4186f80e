"""A kept connection to a server whose bytes are up to each test."""

from __future__ import annotations

import io
import logging
import re
import socket
import ssl
import threading
import time

import pytest

from pfstorage.backends.contract import CHUNK
from pfstorage.backends.http.connection import CONTINUE_ABOVE, HttpConnection
from pfstorage.backends.http.errors import ConnectionBroken
from pfstorage.errors import LocalFileError
from tests.support.peer import Connecting, Peer, Serve, Server, Serving

LARGE = CONTINUE_ABOVE + 100_000
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Thing: A\r\n\r\nhi"
REFUSED = b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\n\r\nmuch"
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"


def get(connection: HttpConnection, path: str = "/a") -> tuple[int, bytes]:
    answer = connection.request("GET", path, {"X-Auth-Token": "t"})
    return answer.status, connection.read_all(answer)


def put(connection: HttpConnection, body: object, size: int) -> tuple[int, bytes]:
    answer = connection.request("PUT", "/a", {"Content-Length": str(size)}, body, size)
    return answer.status, connection.read_all(answer)


def answers(server: list[Server], answer: bytes = OK) -> Serve:
    def serve(peer: Peer) -> None:
        while head := peer.head():
            server[0].heads.append(head)
            peer.send(answer)

    return serve


# kept connections


def test_one_connection_serves_one_request_after_the_other(serve_peers: Serving, connect: Connecting) -> None:
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers)))
    connection = connect(servers[0].port)
    for number in range(50):
        assert get(connection, f"/v1/c/{number}") == (200, b"hi")
    assert servers[0].connections == 1
    assert servers[0].heads[7].startswith(b"GET /v1/c/7 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nX-Auth-Token: t\r\n" in servers[0].heads[7]
    assert b"Expect" not in servers[0].heads[7]


def test_the_log_has_each_request_with_its_duration(
    serve_peers: Serving, connect: Connecting, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pfstorage")
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers)))
    connection = connect(servers[0].port)
    get(connection, "/v1/c/1")
    get(connection, "/v1/c/2")
    assert [re.sub(r"\d+\.\d{3}", "N", line) for line in caplog.messages] == [
        "GET /v1/c/1: 200 after N s, N s of them to connect",
        "GET /v1/c/2: 200 after N s, N s of them to connect",
    ]


def test_nothing_connects_before_it_is_needed(serve_peers: Serving, connect: Connecting) -> None:
    server = serve_peers(lambda peer: None)
    connect(server.port).close()
    assert server.connections == 0


def test_a_connection_that_the_server_ended_while_idle_is_replaced_silently(
    serve_peers: Serving, connect: Connecting
) -> None:
    ended = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.end()
        ended.set()

    server = serve_peers(serve)
    connection = connect(server.port)
    for _ in range(5):
        ended.clear()
        assert get(connection) == (200, b"hi")
        assert ended.wait(10)
    assert server.connections == 5


def test_one_that_says_it_closes_is_not_used_again(serve_peers: Serving, connect: Connecting) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK.replace(b"X-Thing: A", b"Connection: close"))

    server = serve_peers(serve)
    connection = connect(server.port)
    assert [get(connection) for _ in range(3)] == [(200, b"hi")] * 3
    assert server.connections == 3


def test_one_that_ends_instead_of_an_answer_is_broken(serve_peers: Serving, connect: Connecting) -> None:
    connection = connect(serve_peers(lambda peer: peer.head() and None).port)
    with pytest.raises(ConnectionBroken, match="the connection broke") as caught:
        get(connection)
    assert (caught.value.connecting, caught.value.silent) == (False, False)


# answers


def test_a_body_may_come_in_chunks_or_end_with_the_connection(
    serve_peers: Serving, connect: Connecting
) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\nto the end")

    connection = connect(serve_peers(serve).port)
    assert get(connection) == (200, b"abcde")
    assert get(connection) == (200, b"to the end")


def test_the_names_of_headers_know_no_case(serve_peers: Serving, connect: Connecting) -> None:
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers, OK.replace(b"X-Thing:", b"x-THING:"))))
    connection = connect(servers[0].port)
    answer = connection.request("GET", "/a", {})
    assert answer.fields["x-thing"] == "A"
    connection.read_all(answer)


def test_a_body_is_read_piece_by_piece_into_room_that_is_there(
    serve_peers: Serving, connect: Connecting
) -> None:
    content = bytes(range(256)) * 4000

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)

    connection = connect(serve_peers(serve).port)
    answer = connection.request("GET", "/a", {})
    got = b""
    while count := connection.read_into(answer, connection.buffer):
        assert count <= CHUNK
        got += connection.buffer[:count]
    assert got == content


def test_a_body_that_trickles_fills_its_room_at_once(serve_peers: Serving, connect: Connecting) -> None:
    content = bytes(range(256)) * 1000

    def serve(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.head()
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content)
        peer.send(head + content[:1000])
        for start in range(1000, len(content), 30_000):
            time.sleep(0.01)
            peer.send(content[start : start + 30_000])
        peer.head()
        peer.send(OK)

    server = serve_peers(serve)
    connection = connect(server.port)
    answer = connection.request("GET", "/a", {})
    assert connection.read_into(answer, connection.buffer) == len(content) < CHUNK
    assert connection.buffer[: len(content)] == content
    assert connection.read_into(answer, connection.buffer) == 0
    assert (get(connection), server.connections) == ((200, b"hi"), 1)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_silence_in_the_middle_of_a_body_is_reported_as_such(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext, trusts: ssl.SSLContext, scheme: str
) -> None:
    release = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n" + bytes(100_000))
        release.wait(10)

    server = serve_peers(serve, tls if scheme == "https" else None)
    connection = connect(server.port, scheme=scheme, timeout=0.3, context=trusts)
    answer = connection.request("GET", "/a", {})
    with pytest.raises(ConnectionBroken, match="it fell silent") as caught:
        connection.read_all(answer)
    release.set()
    assert caught.value.silent


def test_a_body_that_is_cut_off_is_reported(serve_peers: Serving, connect: Connecting) -> None:
    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")

    connection = connect(serve_peers(serve).port)
    answer = connection.request("GET", "/a", {})
    assert connection.read_into(answer, connection.buffer) == 3
    with pytest.raises(ConnectionBroken, match="cut off"):
        connection.read_into(answer, connection.buffer)
    with pytest.raises(ConnectionBroken):
        get(connection)


@pytest.mark.parametrize(
    "answer", [b"\0\xff\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\n" * 200]
)
def test_an_answer_that_is_no_http_is_a_broken_connection(
    serve_peers: Serving, connect: Connecting, answer: bytes
) -> None:
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers, answer)))
    with pytest.raises(ConnectionBroken):
        get(
            connect(servers[0].port, timeout=1.0)
        )  # the first line of another protocol alone is no whole head


def test_silence_is_reported_as_such(serve_peers: Serving, connect: Connecting) -> None:
    release = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        release.wait(10)

    connection = connect(serve_peers(serve).port, timeout=0.2)
    with pytest.raises(ConnectionBroken, match="it fell silent") as caught:
        get(connection)
    release.set()
    assert (caught.value.connecting, caught.value.silent) == (False, True)


def test_a_refused_connection_is_reported(connect: Connecting) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionBroken, match="nothing listens there") as caught:
        get(connect(port))
    assert caught.value.connecting


def test_another_thread_can_end_a_wait(serve_peers: Serving, connect: Connecting) -> None:
    asked, release = threading.Event(), threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        asked.set()
        release.wait(10)

    connection = connect(serve_peers(serve).port)
    connection.abort()  # there is nothing to end yet

    def abort() -> None:
        asked.wait(10)
        connection.abort()

    threading.Thread(target=abort).start()
    started = time.monotonic()
    with pytest.raises(ConnectionBroken):
        get(connection)
    release.set()
    assert time.monotonic() - started < 5.0


# bodies that go up


def test_a_small_body_goes_at_once(serve_peers: Serving, connect: Connecting) -> None:
    got: list[bytes] = []

    def serve(peer: Peer) -> None:
        for size in (5, 300_000):
            assert b"Expect" not in peer.head()
            got.append(peer.body(size))
            peer.send(OK)

    connection = connect(serve_peers(serve).port)
    assert put(connection, b"hello", 5) == (200, b"hi")
    assert put(connection, io.BytesIO(b"x" * 300_000), 300_000) == (200, b"hi")
    assert got == [b"hello", b"x" * 300_000]


@pytest.mark.parametrize("pieces", [[GO_ON], [GO_ON[:5], GO_ON[5:20], GO_ON[20:]]])
def test_a_large_body_goes_when_the_server_wants_it(
    serve_peers: Serving, connect: Connecting, pieces: list[bytes]
) -> None:
    got: list[int] = []

    def serve(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(2):
            assert b"\r\nExpect: 100-continue\r\n" in peer.head()
            for piece in pieces:
                peer.send(piece)
                time.sleep(0.05)
            got.append(len(peer.body(LARGE)))
            peer.send(OK)
        peer.head()
        peer.send(OK.replace(b"200", b"203"))

    server = serve_peers(serve)
    connection = connect(server.port)
    for _ in range(2):
        started = time.monotonic()
        assert put(connection, io.BytesIO(bytes(LARGE)), LARGE) == (200, b"hi")
        assert time.monotonic() - started < 5.0
    assert get(connection) == (203, b"hi")
    assert got == [LARGE, LARGE]
    assert server.connections == 1


def test_a_large_body_that_the_server_refuses_is_not_sent(serve_peers: Serving, connect: Connecting) -> None:
    rest: list[bytes] = []

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(REFUSED)
        rest.append(peer.body(1))

    class Unread(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise AssertionError("nobody wants it")

    server = serve_peers(serve)
    connection = connect(server.port)
    assert put(connection, Unread(), LARGE) == (413, b"much")
    connection.close()
    server.close()
    assert rest == [b""]


def test_a_server_that_does_not_know_the_question_is_not_asked_again(
    serve_peers: Serving, connect: Connecting
) -> None:
    got: list[int] = []

    def serve(peer: Peer) -> None:
        if b"Expect" in peer.head():
            peer.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
            return
        got.append(len(peer.body(LARGE)))
        peer.send(OK)

    server = serve_peers(serve)
    assert put(connect(server.port), io.BytesIO(bytes(LARGE)), LARGE) == (200, b"hi")
    assert (got, server.connections) == ([LARGE], 2)


@pytest.mark.parametrize("size", [CONTINUE_ABOVE - 10, LARGE])
def test_a_refusal_in_the_middle_of_a_body_is_read_and_reported(
    serve_peers: Serving, connect: Connecting, size: int
) -> None:
    def serve(peer: Peer) -> None:
        if b"Expect" in peer.head():
            peer.send(GO_ON)
        peer.body(200_000)
        peer.send(REFUSED)
        peer.sock.shutdown(socket.SHUT_WR)
        time.sleep(0.3)  # with unread bytes, closing is a reset, which may overtake the answer

    connection = connect(serve_peers(serve).port, timeout=1.0)
    assert put(connection, io.BytesIO(bytes(size)), size) == (413, b"much")


def test_a_server_that_stops_reading_is_given_up(serve_peers: Serving, connect: Connecting) -> None:
    release = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        release.wait(10)

    connection = connect(serve_peers(serve).port, timeout=0.3)
    with pytest.raises(ConnectionBroken, match="it fell silent"):
        put(connection, io.BytesIO(bytes(CONTINUE_ABOVE)), CONTINUE_ABOVE)
    release.set()


def test_an_error_of_a_body_passes_through(serve_peers: Serving, connect: Connecting) -> None:
    class Changed(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise LocalFileError("it changed")

    connection = connect(serve_peers(lambda peer: peer.head() and None).port)
    with pytest.raises(LocalFileError, match="it changed"):
        put(connection, Changed(), 10)


# TLS and proxies


def test_bytes_go_over_tls_both_ways_and_the_connection_is_kept(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext, trusts: ssl.SSLContext
) -> None:
    got: list[int] = []

    def serve(peer: Peer) -> None:
        for _ in range(3):
            peer.head()
            peer.send(GO_ON)
            got.append(len(peer.body(LARGE)))
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + bytes(LARGE))

    server = serve_peers(serve, tls)
    connection = connect(server.port, scheme="https", context=trusts)
    for _ in range(3):
        assert put(connection, io.BytesIO(bytes(LARGE)), LARGE) == (200, bytes(LARGE))
    assert (got, server.connections) == ([LARGE] * 3, 1)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_large_body_goes_to_a_server_that_does_not_say_whether_it_wants_it(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext, trusts: ssl.SSLContext, scheme: str
) -> None:
    got: list[int] = []

    def serve(peer: Peer) -> None:
        peer.head()
        got.append(len(peer.body(LARGE)))
        peer.send(GO_ON + OK)  # as late as this it means nothing

    server = serve_peers(serve, tls if scheme == "https" else None)
    connection = connect(server.port, scheme=scheme, context=trusts)
    started = time.monotonic()
    assert put(connection, io.BytesIO(bytes(LARGE)), LARGE) == (200, b"hi")
    assert 0.9 < time.monotonic() - started < 9.0
    assert got == [LARGE]


def test_a_tls_connection_that_ended_while_idle_is_replaced_silently(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext, trusts: ssl.SSLContext
) -> None:
    ended = threading.Event()

    def serve(peer: Peer) -> None:
        peer.head()
        peer.send(OK)
        peer.end()
        ended.set()

    server = serve_peers(serve, tls)
    connection = connect(server.port, scheme="https", context=trusts)
    for _ in range(3):
        ended.clear()
        assert get(connection) == (200, b"hi")
        assert ended.wait(10)
    assert server.connections == 3


def test_a_certificate_that_nobody_vouches_for_is_refused(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext
) -> None:
    served: list[bytes] = []
    server = serve_peers(lambda peer: served.append(peer.head()), tls)
    connection = connect(server.port, scheme="https", context=ssl.create_default_context())
    with pytest.raises(ConnectionBroken, match=r"verify failed: self-signed .*--caCert FILE"):
        get(connection)
    assert served == []


def test_a_proxy_gets_the_whole_address_and_the_credentials(
    serve_peers: Serving, connect: Connecting
) -> None:
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers)))
    connection = connect(9, proxy=f"http://me%40here:p%3Aw@127.0.0.1:{servers[0].port}")
    assert [get(connection, "/v1/c/a%20b?x=1") for _ in range(3)] == [(200, b"hi")] * 3
    assert servers[0].connections == 1
    assert servers[0].heads[0].startswith(b"GET http://127.0.0.1:9/v1/c/a%20b?x=1 HTTP/1.1\r\n")
    assert b"\r\nHost: 127.0.0.1:9\r\n" in servers[0].heads[0]
    assert b"\r\nProxy-Authorization: Basic bWVAaGVyZTpwOnc=\r\n" in servers[0].heads[0]


def test_tls_goes_through_a_tunnel_of_the_proxy(
    serve_peers: Serving, connect: Connecting, tls: ssl.SSLContext, trusts: ssl.SSLContext
) -> None:
    heads: list[bytes] = []

    def serve(peer: Peer) -> None:
        heads.append(peer.head())
        peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        inner = Peer(tls.wrap_socket(peer.sock, server_side=True))
        while head := inner.head():
            heads.append(head)
            inner.send(OK)
        inner.end()

    proxy = f"http://me:secret@127.0.0.1:{serve_peers(serve).port}"
    connection = connect(9, scheme="https", proxy=proxy, context=trusts)
    assert [get(connection) for _ in range(2)] == [(200, b"hi")] * 2
    connection.close()
    tunnel, first, _ = heads
    assert tunnel.startswith(b"CONNECT 127.0.0.1:9 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n" in tunnel
    assert first.startswith(b"GET /a HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in first


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_does_not_answer_is_named_as_the_one(connect: Connecting, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = connect(9, scheme=scheme, proxy=f"http://127.0.0.1:{port}")
    with pytest.raises(ConnectionBroken, match=r"its proxy does not \(see --httpProxy") as caught:
        get(connection)
    assert caught.value.connecting


def test_a_proxy_that_wants_no_tunnel_is_named_as_the_one(serve_peers: Serving, connect: Connecting) -> None:
    servers: list[Server] = []
    servers.append(serve_peers(answers(servers, b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n")))
    connection = connect(9, scheme="https", proxy=f"http://127.0.0.1:{servers[0].port}")
    with pytest.raises(ConnectionBroken, match="its proxy does not"):
        get(connection)
