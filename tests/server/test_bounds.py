"""Limits of connections and of simultaneous requests: each limit applies to its whole resource at all times."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.handler import TRUSTED
from pfstorage.server import admission
from pfstorage.server.admission import WAITING_PER_WORKING
from pfstorage.server.http1 import timed
from pfstorage.server.load import ServerLoad
from pfstorage.server.options import ServerOptions
from pfstorage.wire.reply import Reply
from tests.conftest import ask, running_server
from tests.support.exchange import HELLO, answers, post, request
from tests.support.held import Held
from tests.support.waiting import until

OBJECT = bytes(range(256)) * 100_000
"""More than the system holds for a reader."""
GET = request("GET", "/api/v1/objects/big", "Connection: close")
HELLO_POST = post(json.dumps(HELLO))

Start = Callable[..., ThreadedHTTPServer]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Start a server over a storage; it checks its clients often, and its time limits are long by default."""
    monkeypatch.setattr(timed, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(admission, "WAIT_SECONDS", 600.0)
    with contextlib.ExitStack() as stack:

        def started(storage: Storage, **options: Any) -> ThreadedHTTPServer:
            given = ServerOptions(**{"head_seconds": 600.0, "idle_seconds": 3600.0, **options})
            made = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), given)
            return stack.enter_context(running_server(made))

        yield started


@pytest.fixture
def clients() -> Iterator[Callable[..., socket.socket]]:
    """Connect to a server, and send some bytes. Connections are closed in the end."""
    with contextlib.ExitStack() as stack:

        def connected(server: ThreadedHTTPServer, data: bytes = b"") -> socket.socket:
            made = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.server_port), timeout=60)
            )
            made.sendall(data)
            return made

        yield connected


Clients = Callable[..., socket.socket]


def rest_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


def stored(storage: Storage) -> Storage:
    storage.put("big", io.BytesIO(OBJECT), len(OBJECT))
    return storage


@pytest.fixture
def memory() -> Iterator[Storage]:
    with open_storage("memory") as storage:
        yield stored(storage)


def test_a_download_holds_its_permit_until_its_last_byte_is_sent(
    start: Start, clients: Clients, storage: Storage
) -> None:
    server = start(stored(storage), max_requests=1)
    transfers = server.load.transfers.counts
    first = clients(server, GET)
    assert first.recv(12) == b"HTTP/1.1 200"
    assert transfers() == {"busy": 1, "waiting": 0}
    others = [clients(server, GET) for _ in range(20)]
    until(lambda: transfers()["waiting"] == WAITING_PER_WORKING)
    with ThreadPoolExecutor(20) as threads:
        received = [threads.submit(rest_of, each) for each in others]
        until(lambda: sum(each.done() for each in received) == 20 - WAITING_PER_WORKING)
        assert transfers() == {"busy": 1, "waiting": WAITING_PER_WORKING}  # however much later
        assert rest_of(first).endswith(OBJECT)
        results = [each.result() for each in received]
    assert sum(each.startswith(b"HTTP/1.1 503") for each in results) == 20 - WAITING_PER_WORKING
    assert (
        sum(each.startswith(b"HTTP/1.1 200") and each.endswith(OBJECT) for each in results)
        == WAITING_PER_WORKING
    )
    until(lambda: transfers() == {"busy": 0, "waiting": 0})


def test_downloads_delay_no_other_request(start: Start, clients: Clients, memory: Storage) -> None:
    server = start(memory, max_requests=1)
    assert clients(server, GET).recv(12) == b"HTTP/1.1 200"
    assert ask(server, {"action": "ls"})[0] == 200
    received = rest_of(clients(server, request("HEAD", "/api/v1/objects/big", "Connection: close")))
    assert received.startswith(b"HTTP/1.1 200")
    clients(server, request("GET", "/api/v1/objects/big", "Range: bytes=0-"))  # a part is work, too
    until(lambda: server.load.transfers.counts()["waiting"] == 1)


def test_a_download_that_fails_or_loses_its_client_releases_its_permit(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_requests=1)
    for _ in range(3):
        gone = clients(server, GET)
        assert gone.recv(12) == b"HTTP/1.1 200"
        gone.close()
    assert rest_of(clients(server, GET)).endswith(OBJECT)


def test_a_failure_before_the_reply_releases_the_permit(memory: Storage) -> None:
    class Broken(StoreHandler):
        def answer(self, source: Any, request: RequestContext = TRUSTED) -> Reply:
            assert request.permit
            request.permit.begin_transfer()
            raise ConnectionResetError

    made = ThreadedHTTPServer(("127.0.0.1", 0), Broken(memory), ServerOptions(max_requests=1))
    with running_server(made) as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
                connection.sendall(HELLO_POST)
                assert connection.recv(1) == b""
        until(lambda: server.load.transfers.counts() == {"busy": 0, "waiting": 0})


def test_a_slow_reader_makes_room_for_another_request(
    start: Start, clients: Clients, memory: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(memory, max_requests=1, head_seconds=0.3)
    slow = clients(server, GET)
    assert slow.recv(12) == b"HTTP/1.1 200"
    with caplog.at_level("WARNING"):
        assert rest_of(clients(server, GET)).endswith(OBJECT)
    assert "error=SlowRequestError" in caplog.text
    with contextlib.suppress(ConnectionResetError):
        assert len(rest_of(slow)) < len(OBJECT)  # so it sees that it has not got all


def test_a_slow_reader_keeps_its_connection_while_nobody_waits(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_requests=1, head_seconds=0.05)
    slow = clients(server, GET)
    assert slow.recv(12) == b"HTTP/1.1 200"
    for _ in range(20):  # each longer than it would have if another waited
        threading.Event().wait(0.06)
        assert slow.recv(100)
    assert rest_of(slow).endswith(OBJECT[-1000:])


def test_a_reader_that_reads_nothing_is_disconnected(start: Start, clients: Clients, memory: Storage) -> None:
    server = start(memory, max_requests=1, idle_seconds=0.3)
    assert clients(server, GET).recv(12) == b"HTTP/1.1 200"
    until(lambda: server.load.transfers.counts()["busy"] == 0)


# connections


@pytest.mark.parametrize("kind", ["kept", "new", "both"])
def test_new_clients_are_answered_with_any_number_of_idle_connections(
    start: Start, clients: Clients, memory: Storage, kind: str, record_property: Any
) -> None:
    server = start(memory)
    for number in range(300):
        idle = clients(server)
        if kind == "kept" or (kind == "both" and number % 2):
            idle.sendall(HELLO_POST)
            assert idle.recv(12) == b"HTTP/1.1 200"
    assert [ask(server, HELLO)[0] for _ in range(100)] == [200] * 100


def test_the_oldest_idle_connection_is_closed_first_and_one_that_has_sent_nothing_last(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_connections=4)
    new = [clients(server) for _ in range(2)]
    until(lambda: len(server.load._new) == 2)
    kept = []
    for number in range(2):
        kept.append(clients(server, HELLO_POST))
        assert kept[-1].recv(12) == b"HTTP/1.1 200"
        until(lambda number=number: len(server.load._idle) == number + 1)  # type: ignore[misc]
    order = [kept[0], kept[1], new[0], new[1]]
    for number, closed in enumerate(order):
        busy = clients(server, b"POST / HTTP/1.1\r\n")  # a request begins: it is not idle itself
        rest_of(closed)  # the end of it
        for other in order[number + 1 :]:
            other.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                assert other.recv(1 << 16) != b""
            other.settimeout(60)
        assert busy.fileno() > 0


def test_a_connection_in_the_middle_of_a_request_is_not_closed_for_a_new_one(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_connections=4)
    middle = [
        clients(server, b"P"),
        clients(server, HELLO_POST[:30]),
        clients(server, HELLO_POST[:-5]),
        clients(server, GET),
    ]
    assert middle[-1].recv(12) == b"HTTP/1.1 200"
    until(lambda: not server.load._new)
    for _ in range(2):
        assert rest_of(clients(server)).startswith(b"HTTP/1.1 503")
    for connection, rest in zip(middle, (HELLO_POST[1:], HELLO_POST[30:], HELLO_POST[-5:]), strict=False):
        connection.sendall(rest)
        assert connection.recv(12) == b"HTTP/1.1 200"
    assert rest_of(middle[-1]).endswith(OBJECT)


def test_a_connection_whose_request_is_on_its_way_is_not_closed_for_a_new_one(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_connections=2)
    load = server.load
    near, far = socket.socketpair()
    idle = clients(server)
    until(lambda: len(load._new) == 1)
    with near, far:
        far.sendall(b"POST")  # which nobody has read so far
        load.connect(near)
        for connection in (near, *[each for each in list(load._new) if each is not near]):
            load._new.pop(connection)
            load._new[connection] = None  # the one with a request is the oldest
        assert clients(server, HELLO_POST).recv(12) == b"HTTP/1.1 200"
        assert idle.recv(1) == b""
        assert near in load._open
        load.disconnect(near)


@pytest.mark.parametrize("state", ["closed", "ended", "broken"])
def test_a_dead_connection_makes_room_first(state: str) -> None:
    load = ServerLoad(2, 1, 1)
    with contextlib.ExitStack() as stack:
        near, far, other, third, *_ = itertools.chain.from_iterable(
            map(stack.enter_context, socket.socketpair()) for _ in range(2)
        )
        assert load.connect(near)
        assert load.connect(other)
        if state == "closed":  # by the thread that serves it, and which has not reported that yet
            near.close()
        elif state == "ended":
            far.close()
        else:
            near.sendall(b"x")
            far.close()
        assert load.connect(third)
        assert load._open == {other, third}


def test_simultaneous_new_connections_replace_idle_ones(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_connections=8)
    for _ in range(8):
        assert clients(server, HELLO_POST).recv(12) == b"HTTP/1.1 200"
    until(lambda: len(server.load._idle) == 8)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: clients(server, HELLO_POST).recv(12), range(8)))
    assert found == [b"HTTP/1.1 200"] * 8
    until(lambda: len(server.load._open) == 8)


def test_a_lingering_connection_makes_room_for_a_new_one(
    start: Start, clients: Clients, memory: Storage
) -> None:
    server = start(memory, max_connections=1)
    refused = clients(server, b"junk\r\n\r\n")
    assert refused.recv(12) == b"HTTP/1.1 400"
    load = server.load
    until(lambda: len(load._idle) == 1)
    assert clients(server, HELLO_POST).recv(12) == b"HTTP/1.1 200"
    until(lambda: load.at_work == 0 and load._idle.keys() == load._open)
    assert len(load._open) == 1


def test_an_endless_tls_handshake_delays_nothing(
    start: Start, clients: Clients, memory: Storage, certificate: tuple[str, str]
) -> None:
    server = start(memory, max_connections=2, tls_cert=certificate[0], tls_key=certificate[1])
    hello = b"\x16\x03\x01\x02\x00\x01\x00"  # the beginning of a greeting
    hanging = [clients(server, hello[:length]) for length in (0, 1, len(hello), len(hello))]
    context = ssl.create_default_context(cafile=certificate[0])
    for _ in range(3):
        with context.wrap_socket(clients(server), server_hostname="localhost") as connection:
            connection.sendall(HELLO_POST)
            assert connection.recv(12) == b"HTTP/1.1 200"
    for each in hanging[:-1]:
        with contextlib.suppress(ConnectionResetError):
            assert each.recv(1) == b""


def test_an_endless_tls_handshake_is_ended(
    start: Start, clients: Clients, memory: Storage, certificate: tuple[str, str]
) -> None:
    server = start(memory, head_seconds=0.2, tls_cert=certificate[0], tls_key=certificate[1])
    assert clients(server, b"\x16\x03\x01").recv(1) == b""
    until(lambda: not server.load._open)


# clients that follow a job


def test_clients_that_follow_a_job_hold_no_permit_and_at_most_half_of_the_connections(
    start: Start, clients: Clients
) -> None:
    storage = Held()
    storage.put("x/a", io.BytesIO(b"1"), 1)
    server = start(storage, max_requests=1, max_connections=8)
    pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out", "async": True}}
    job = ask(server, pull)[1]["job"]
    status = {"action": "jobStatus", "meta": {"job": job}}
    waiting = post(json.dumps({**status, "meta": {"job": job, "wait": 60}}), "Connection: close")
    events = request("GET", f"/api/v1/jobs/{job}/events", "Connection: close")
    try:
        followers = [clients(server, data) for data in (events, waiting) * 2]
        until(lambda: server.load.followers.counts()["busy"] == 4)
        for data in (events, waiting):
            [received] = answers(rest_of(clients(server, data)))
            assert (received.status, received.json["error"]["type"]) == (503, "BusyError")
            assert "follow jobs" in received.json["msg"]
        assert server.load.requests.counts() == server.load.transfers.counts() == {"busy": 0, "waiting": 0}
        assert ask(server, status)[1]["state"] == "running"
        assert ask(server, {"action": "ls"})[0] == 200
    finally:
        storage.release.set()
    received = [rest_of(each) for each in followers]
    assert all(b'"done"' in each for each in received)
    assert [b"\r\nX-Accel-Buffering: no\r\n" in each for each in received] == [True, False] * 2
    until(lambda: server.load.followers.counts()["busy"] == 0)
    assert ask(server, {**status, "meta": {"job": job, "wait": 60}})[1]["state"] == "done"


def test_requests_leave_nothing_to_the_garbage_collection(start: Start, clients: Clients) -> None:
    """A collection stops all threads, so requests must free their memory and their descriptors themselves."""
    with contextlib.closing(open_storage("memory")) as storage:
        storage.put("a", io.BytesIO(b"content"), 7)
        server = start(storage)
        bodies = [
            {"action": action, "meta": {"path": "a", "obj": "a"}} for action in ("hello", "ls", "objExists")
        ]
        requests = [*(post(json.dumps(body)) for body in bodies), request("GET", "/api/v1/objects/a")]
        requests.append(request("GET", "/api/v1/objects/none", "Connection: close"))
        connection = clients(server, b"".join(requests))
        answered = answers(rest_of(connection))  # the first requests fill caches
        assert [each.status for each in answered] == [200, 200, 200, 200, 404]
        threads = threading.active_count()
        gc.collect()
        gc.disable()
        try:
            rest_of(clients(server, b"".join(requests)))
            until(lambda: threading.active_count() <= threads)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
        finally:
            gc.set_debug(0)
            gc.enable()
            garbage = gc.garbage[:]
            gc.garbage.clear()
        assert [each for each in garbage if type(each).__module__.startswith("pfstorage.")] == []
