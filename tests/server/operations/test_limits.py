"""The limits of a server: slow connections, surplus connections and surplus requests."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.server import admission
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server
from tests.support.exchange import HELLO, post, request
from tests.support.operations import CMD, get
from tests.support.waiting import until


def test_a_connection_that_gets_no_thread_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with contextlib.closing(open_storage("memory")) as storage:
        options = ServerOptions(max_connections=2)
        with running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)) as server:
            assert ask(server, HELLO)[0] == 200  # the server has started its threads
            with monkeypatch.context() as patch:
                patch.setattr(threading.Thread, "start", no_thread)
                for _ in range(4):
                    with socket.create_connection(
                        ("127.0.0.1", server.server_port), timeout=30
                    ) as connection:
                        assert connection.recv(1) == b""
            assert ask(server, HELLO)[0] == 200


@pytest.fixture
def impatient() -> Iterator[ThreadedHTTPServer]:
    bounds = ServerOptions(head_seconds=0.5, min_rate=1e6)
    with (
        open_storage("memory") as storage,
        running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), bounds)) as server,
    ):
        yield server


def test_a_connection_with_a_trickling_head_is_closed(impatient: ThreadedHTTPServer) -> None:
    _is_given_up(impatient, b"POST /api/v1/cmd HTTP/1.1\r\n", b"X")


def test_a_connection_with_a_silent_head_is_closed_long_before_an_idle_one(
    impatient: ThreadedHTTPServer,
) -> None:
    with socket.create_connection(("127.0.0.1", impatient.server_port), timeout=30) as connection:
        connection.sendall(b"POST /api/v1/cmd HTTP/1.1\r\n")
        time.sleep(0.1)
        connection.sendall(b"Host: localhost\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_a_connection_with_a_trickling_body_is_closed(impatient: ThreadedHTTPServer) -> None:
    _is_given_up(impatient, request("POST", CMD, "Content-Length: 1000"), b" ")


def _is_given_up(server: ThreadedHTTPServer, beginning: bytes, then: bytes) -> None:
    """Send *beginning*, and *then* repeatedly. The server must answer soon."""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(beginning)
        connection.settimeout(0.1)
        got = b""
        while not got and time.monotonic() - started < 20:
            connection.sendall(then)
            with contextlib.suppress(TimeoutError):
                got = connection.recv(1000)
    assert got.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 10


def test_surplus_connections_are_refused_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    with contextlib.closing(open_storage("memory")) as storage:
        made = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), ServerOptions(max_connections=2))
        with running_server(made) as server, contextlib.ExitStack() as stack:
            kept = [socket.create_connection(("127.0.0.1", server.server_port), timeout=30) for _ in range(2)]
            for connection in kept:
                stack.enter_context(connection)
                connection.sendall(post(json.dumps(HELLO)))
                assert connection.recv(10).startswith(b"HTTP/1.1 2")
                connection.sendall(post("")[:-5])  # and another request begins
            until(lambda: not server.load._idle)
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as third:
                    assert third.recv(1000).startswith(b"HTTP/1.1 503 ")
            said = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
            assert said == ["new connections are refused: all 2 are in use, see --maxConnections"]
            for connection in kept:
                connection.close()
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    if ask(server, HELLO)[0] == 200:
                        return
                time.sleep(0.05)
            raise AssertionError("no room came back")


def test_surplus_requests_are_asked_to_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAIT_SECONDS", 0.2)
    entered, release = threading.Event(), threading.Event()

    class Slow(StoreHandler):
        def wait_process(self, *, request: dict[str, Any]) -> dict[str, Any]:
            entered.set()
            release.wait(20)
            return {"status": True}

    with contextlib.closing(open_storage("memory")) as storage:
        made = ThreadedHTTPServer(("127.0.0.1", 0), Slow(storage), ServerOptions(max_requests=1))
        with running_server(made) as server:
            thread = threading.Thread(target=ask, args=(server, {"action": "wait"}))
            thread.start()
            assert entered.wait(20)
            status, reply = ask(server, {"action": "wait"})
            assert (status, reply["error"]["type"]) == (503, "BusyError")
            assert ask(server, HELLO)[0] == 200  # needs no store
            for path in ("/api/v1/objects", "/api/v1/objects/x"):
                assert get(server, path)[0] == 503
            assert get(server, "/healthz")[0] == 200
            release.set()
            thread.join()
            assert ask(server, HELLO)[0] == 200
