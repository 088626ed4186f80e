"""No client shuts out others: the one with most connections makes room, and the server still answers probes."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.errors import BusyError
from pfstorage.jobs import scheduler
from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.server import admission, listener, load
from pfstorage.server.admission import AdmissionQueue
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server
from tests.support.exchange import HELLO, answers, message, post, request
from tests.support.held import Held
from tests.support.waiting import until

NAMES = ("ann", "bob", "eve")
HELLO_POST = post(json.dumps(HELLO))
LS = post(message("ls"))


def bearer(name: str) -> str:
    return f"Authorization: Bearer token-of-{name}-0123456789"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[..., ThreadedHTTPServer]]:
    """Start a server with few connections, all of whose time limits are minutes."""
    monkeypatch.setattr(admission, "WAIT_SECONDS", 600.0)
    tokens = tmp_path / "tokens.cfg"
    grants = "".join(f"{name} = admin\n" for name in NAMES)
    values = "".join(f"{name} = token-of-{name}-0123456789\n" for name in NAMES)
    tokens.write_text(f"[AUTH TOKENS]\n{values}[TOKEN RIGHTS]\n{grants}")
    tokens.chmod(0o600)
    with contextlib.ExitStack() as stack:

        def started(storage: Any = None, *, guarded: bool = False, **options: Any) -> ThreadedHTTPServer:
            storage = storage or stack.enter_context(contextlib.closing(open_storage("memory")))
            given = {"head_seconds": 600.0, "idle_seconds": 3600.0, "max_connections": 4, **options}
            if guarded:
                given["token_path"] = str(tokens)
            made = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), ServerOptions(**given))
            return stack.enter_context(running_server(made))

        yield started


@pytest.fixture
def clients() -> Iterator[Callable[..., socket.socket]]:
    """Connect to a server from an address of the loopback network, and send some bytes."""
    with contextlib.ExitStack() as stack:

        def connected(
            server: ThreadedHTTPServer, data: bytes = b"", address: str = "127.0.0.1"
        ) -> socket.socket:
            place = ("127.0.0.1", server.server_port)
            made = socket.create_connection(place, timeout=60, source_address=(address, 0))
            stack.enter_context(made).sendall(data)
            return made

        yield connected


Start = Callable[..., ThreadedHTTPServer]
Clients = Callable[..., socket.socket]


def rest_of(connection: socket.socket) -> bytes:
    return b"".join(iter(lambda: connection.recv(1 << 20), b""))


def said(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of the next answer."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status, {name.lower(): value for name, value in answer.headers.items()}


def is_over(connection: socket.socket) -> bool:
    """Return whether the server has ended the connection, without an answer."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    finally:
        connection.settimeout(60)


def all_taken(server: ThreadedHTTPServer, clients: Clients, data: bytes, address: str) -> list[socket.socket]:
    """Use all connections of the server, each for *data*, which must leave it at work."""
    most = server.options.max_connections
    taken = []
    for number in range(most):
        taken.append(clients(server, data, address))
        until(lambda number=number: len(server.load._at_work) == number + 1)  # type: ignore[misc]
    return taken


# reserved connections


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_are_answered_when_all_connections_are_taken(
    start: Start, clients: Clients, path: str
) -> None:
    server = start()
    taken = all_taken(server, clients, HELLO_POST[:-5], "127.0.0.1")
    for _ in range(2 * load.MAX_PROVISIONAL):
        status, headers = said(clients(server, request("GET", path)))
        assert (status, headers["connection"]) == (200, "close")
    assert said(clients(server, LS))[0] == 503
    assert all(map(is_open, taken))


def test_probes_are_answered_when_all_requests_are_taken(start: Start, clients: Clients) -> None:
    server = start(max_requests=1, max_connections=64)
    with contextlib.ExitStack() as stack:
        for kind in (server.load.requests, server.load.transfers):
            kind.enter()
            stack.callback(kind.leave)
        for _ in range(admission.WAITING_PER_WORKING):
            clients(server, LS)
        until(lambda: server.load.requests.counts()["waiting"] == admission.WAITING_PER_WORKING)
        assert said(clients(server, LS))[0] == 503
        for path in ("/healthz", "/readyz"):
            assert said(clients(server, request("GET", path)))[0] == 200


@pytest.mark.parametrize("beginning", [b"", b"G", b"GET /healthz HTTP/1.1\r\nHost: local"])
def test_probes_are_answered_while_other_requests_wait_for_a_permit(
    start: Start, clients: Clients, beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "PROVISIONAL_SECONDS", 600.0)
    server = start()
    all_taken(server, clients, HELLO_POST[:-5], "127.0.0.1")
    silent = [clients(server, beginning) for _ in range(3 * load.MAX_PROVISIONAL)]
    assert said(clients(server, request("GET", "/healthz")))[0] == 200
    assert is_over(silent[0])  # the oldest makes room
    assert len(server.load._provisional) <= load.MAX_PROVISIONAL


def test_a_probe_by_tls_is_answered_when_all_connections_are_taken(
    start: Start, clients: Clients, certificate: tuple[str, str]
) -> None:
    import ssl

    server = start(max_connections=2, tls_cert=certificate[0], tls_key=certificate[1])
    context = ssl.create_default_context(cafile=certificate[0])

    def by_tls(data: bytes) -> ssl.SSLSocket:
        connection = context.wrap_socket(clients(server), server_hostname="localhost")
        connection.sendall(data)
        return connection

    with contextlib.ExitStack() as stack:
        for number in range(2):
            stack.enter_context(by_tls(HELLO_POST[:-5]))
            until(lambda number=number: len(server.load._at_work) == number + 1)  # type: ignore[misc]
        assert said(stack.enter_context(by_tls(request("GET", "/healthz"))))[0] == 200
        assert said(stack.enter_context(by_tls(LS)))[0] == 503


def test_refused_requests_leave_no_trace(start: Start, clients: Clients) -> None:
    server = start()
    taken = all_taken(server, clients, HELLO_POST[:-5], "127.0.0.1")
    for data in (LS, b"junk\r\n\r\n", request("GET", "/nothing"), b"", request("OPTIONS", "/")):
        assert said(clients(server, data))[0] in (400, 404, 405, 503)
    until(lambda: not server.load._provisional)
    assert server.load._open == server.load._holders.keys()
    for connection in taken:
        connection.sendall(HELLO_POST[-5:])
        assert said(connection)[0] == 200


# shares


def test_an_address_that_holds_all_connections_makes_room_for_another(start: Start, clients: Clients) -> None:
    server = start()
    taken = all_taken(server, clients, HELLO_POST[:-5], "127.0.0.2")
    assert said(clients(server, HELLO_POST, "127.0.0.2"))[0] == 503  # no room for itself
    begun = clients(server, HELLO_POST[:-5], "127.0.0.3")
    assert is_over(taken[0])  # the one that began first
    assert all(map(is_open, taken[1:]))
    assert said(clients(server, HELLO_POST, "127.0.0.4"))[0] == 200
    assert is_over(taken[1])
    for connection in (*taken[2:], begun):
        connection.sendall(HELLO_POST[-5:])
        assert said(connection)[0] == 200


def test_no_address_takes_more_than_its_share_from_another(start: Start, clients: Clients) -> None:
    server = start()
    taken = all_taken(server, clients, HELLO_POST[:-5], "127.0.0.2")
    others = [clients(server, HELLO_POST[:-5], "127.0.0.3") for _ in range(2)]
    assert is_over(taken[0])
    assert is_over(taken[1])
    assert said(clients(server, HELLO_POST, "127.0.0.3"))[0] == 503
    assert all(map(is_open, (*taken[2:], *others)))


def test_a_token_that_holds_all_connections_of_a_proxy_makes_room_for_another(
    start: Start, clients: Clients
) -> None:
    server = start(guarded=True)

    def hello(name: str) -> bytes:
        return post(json.dumps(HELLO), bearer(name))

    taken = all_taken(server, clients, hello("eve")[:-5], "127.0.0.1")
    assert said(clients(server, hello("eve")))[0] == 503
    assert said(clients(server, hello("ann")))[0] == 200
    assert is_over(taken[0])
    assert said(clients(server, post("{}", "Authorization: Bearer nobody")))[0] == 401
    assert all(map(is_open, taken[1:]))


def test_a_request_that_works_with_the_store_is_never_ended(
    start: Start, clients: Clients, tmp_path: Path
) -> None:
    storage = Held()
    storage.put("x", io.BytesIO(b"1"), 1)
    server = start(storage)
    get = request("GET", "/api/v1/objects/x", "Connection: close")
    try:
        taken = all_taken(server, clients, get, "127.0.0.2")
        until(lambda: server.load.transfers.counts()["busy"] == 4)
        assert said(clients(server, HELLO_POST, "127.0.0.3"))[0] == 503
        assert all(map(is_open, taken))
    finally:
        storage.release.set()
    assert [rest_of(each)[-1:] for each in taken] == [b"1"] * 4


def test_a_request_that_waits_for_a_permit_makes_room_for_another_address(
    start: Start, clients: Clients
) -> None:
    server = start(max_requests=1)
    server.load.requests.enter()
    taken = all_taken(server, clients, LS, "127.0.0.2")
    until(lambda: server.load.requests.counts()["waiting"] == 4)
    assert said(clients(server, HELLO_POST, "127.0.0.3"))[0] == 200
    assert is_over(taken[0])
    server.load.requests.leave()
    assert [said(each)[0] for each in taken[1:]] == [404] * 3


def test_a_slow_reader_makes_room_when_a_request_finds_none(
    start: Start, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.server.http1.timed.CHECK_SECONDS", 0.02)
    server = start(max_connections=1, head_seconds=0.3)
    content = bytes(1 << 24)
    server.handler.storage.put("big", io.BytesIO(content), len(content))
    slow = clients(server, request("GET", "/api/v1/objects/big"))
    assert slow.recv(12) == b"HTTP/1.1 200"

    def is_answered() -> bool:
        with contextlib.suppress(ConnectionError):
            return said(clients(server, HELLO_POST))[0] == 200
        return False

    until(is_answered)
    with contextlib.suppress(ConnectionError):
        assert len(rest_of(slow)) < len(content)


def test_only_the_address_with_most_connections_must_hurry_when_a_request_finds_no_place(
    start: Start, clients: Clients
) -> None:
    server = start()
    for number, address in enumerate(("127.0.0.3", "127.0.0.2", "127.0.0.2", "127.0.0.2")):
        clients(server, HELLO_POST[:-5], address)
        until(lambda number=number: len(server.load._at_work) == number + 1)  # type: ignore[misc]

    def hurried() -> set[str]:
        held = server.load._holders.items()
        return {holder.address for connection, holder in held if server.load.is_in_the_way(connection)}

    assert hurried() == set()
    assert said(clients(server, HELLO_POST, "127.0.0.2"))[0] == 503
    assert hurried() == {"127.0.0.2"}


# clients that follow jobs


@pytest.fixture
def followed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[ThreadedHTTPServer, str]]]:
    """Start a server with a job of ann's that does not end."""
    monkeypatch.setattr(scheduler, "HEARTBEAT", 0.02)
    storage = Held()
    storage.put("x/a", io.BytesIO(b"1"), 1)

    def started(**options: Any) -> tuple[ThreadedHTTPServer, str]:
        server = start(storage, **options)
        pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out", "async": True}}
        named = {"Authorization": bearer("ann").partition(": ")[2]} if options.get("guarded") else {}
        return server, ask(server, pull, **named)[1]["job"]

    try:
        yield started
    finally:
        storage.release.set()


def events_of(job: str, *headers: str) -> bytes:
    return request("GET", f"/api/v1/jobs/{job}/events", *headers)


def test_the_jobs_that_one_token_follows_are_limited(
    followed: Callable[..., tuple[ThreadedHTTPServer, str]], clients: Clients
) -> None:
    server, job = followed(guarded=True, max_connections=64, max_streams=3)
    waits = post(message("jobStatus", job=job, wait=60), bearer("ann"), "Connection: close")
    streams = [clients(server, events_of(job, bearer("ann"))) for _ in range(2)] + [clients(server, waits)]
    until(lambda: server.load.followers.counts()["busy"] == 3)
    for data in (events_of(job, bearer("ann"), "Connection: close"), waits):
        [received] = answers(rest_of(clients(server, data)))
        assert (received.status, received.json["error"]["type"]) == (503, "BusyError")
    assert said_head(clients(server, events_of(job, bearer("bob")))) == 200
    streams[0].close()
    until(lambda: server.load.followers.counts()["busy"] == 3)
    assert said_head(clients(server, events_of(job, bearer("ann")))) == 200


def said_head(connection: socket.socket) -> int:
    return int(connection.recv(12)[9:])


def test_one_token_uses_at_most_half_of_the_places_to_follow_jobs(
    followed: Callable[..., tuple[ThreadedHTTPServer, str]], clients: Clients
) -> None:
    server, job = followed(guarded=True, max_connections=16)
    for _ in range(4):
        assert said_head(clients(server, events_of(job, bearer("ann")))) == 200
    assert said_head(clients(server, events_of(job, bearer("ann")))) == 503
    for _ in range(4):
        assert said_head(clients(server, events_of(job, bearer("bob")))) == 200
    assert said_head(clients(server, events_of(job, bearer("eve")))) == 503  # half of all connections


def test_clients_that_follow_a_job_make_room_first(
    followed: Callable[..., tuple[ThreadedHTTPServer, str]], clients: Clients
) -> None:
    server, job = followed()
    others = [clients(server, HELLO_POST[:-5], "127.0.0.2") for _ in range(2)]
    until(lambda: server.load.at_work == 2)
    streams = [clients(server, events_of(job), "127.0.0.2") for _ in range(2)]
    assert [said_head(each) for each in streams] == [200, 200]
    until(lambda: server.load.at_work == 4)
    assert said(clients(server, HELLO_POST, "127.0.0.3"))[0] == 200
    rest_of(streams[0])  # it ends
    assert all(map(is_open, (*others, streams[1])))


def test_a_stream_of_events_ends_after_its_time_and_has_the_client_ask_again(
    followed: Callable[..., tuple[ThreadedHTTPServer, str]],
) -> None:
    server, job = followed(stream_seconds=0.1)
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        for _ in range(2):  # by the same connection
            connection.request("GET", f"/api/v1/jobs/{job}/events")
            *events, last, nothing = connection.getresponse().read().decode().split("\n\n")
            assert all(json.loads(each.removeprefix("data: "))["job"] == job for each in events)
            assert (last, nothing) == ("retry: 1000", "")
    until(lambda: server.load.followers.counts()["busy"] == 0)


def test_a_stream_of_events_that_ends_with_its_job_asks_for_nothing(
    followed: Callable[..., tuple[ThreadedHTTPServer, str]],
) -> None:
    server, job = followed()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", f"/api/v1/jobs/{job}/events")
        answer = connection.getresponse()
        assert answer.readline().startswith(b"data: ")
        ask(server, {"action": "jobCancel", "meta": {"job": job}})
        server.handler.storage.release.set()  # type: ignore[attr-defined]
        assert b"retry" not in answer.read()


# the order of owners


def entered(queue: AdmissionQueue, order: list[str], owner: str) -> threading.Thread:
    """Start a thread in which *owner* enters *queue* and leaves it at once."""

    def enter() -> None:
        try:
            queue.enter(owner)
        except BusyError:
            order.append(f"{owner} is sent away")
        else:
            order.append(owner)
            queue.leave(owner)

    before = queue.counts()["waiting"]
    thread = threading.Thread(target=enter)
    thread.start()
    until(lambda: queue.counts()["waiting"] > before or not thread.is_alive() or bool(order))
    return thread


def test_a_client_with_many_requests_waits_only_for_its_own() -> None:
    queue, order = AdmissionQueue(1), []
    queue.enter("eve")
    threads = [entered(queue, order, owner) for owner in ("eve", "eve", "eve", "ann", "bob")]
    queue.leave("eve")
    for thread in threads:
        thread.join()
    assert order == ["eve", "ann", "bob", "eve", "eve"]
    assert queue.counts() == {"busy": 0, "waiting": 0}


def test_the_address_with_most_connections_gives_up_a_place() -> None:
    queue, order = AdmissionQueue(3), []
    for owner in ("eve", "eve", "ann"):
        queue.enter(owner)
    assert [queue.is_wanted_of(owner) for owner in ("eve", "ann")] == [False, False]
    thread = entered(queue, order, "eve")
    assert [queue.is_wanted_of(owner) for owner in ("eve", "ann")] == [True, False]
    queue.leave("eve")
    thread.join()
    assert order == ["eve"]


def test_when_too_many_wait_the_last_request_of_the_address_with_most_is_refused() -> None:
    queue, order = AdmissionQueue(1, waiting=3), []
    queue.enter("eve")
    threads = [entered(queue, order, "eve") for _ in range(3)]
    threads.append(entered(queue, order, "ann"))
    until(lambda: order == ["eve is sent away"])
    assert queue.counts() == {"busy": 1, "waiting": 3}
    with pytest.raises(BusyError):
        queue.enter("eve")
    with pytest.raises(BusyError):  # one more than it has: nobody is sent away for that
        queue.enter("ann")
    queue.leave("eve")
    for thread in threads:
        thread.join()
    assert order[1:] == ["eve", "ann", "eve"]


# the processor


@pytest.mark.parametrize(("guarded", "owner"), [(True, "ann"), (False, "127.0.0.2")])
def test_a_request_counts_for_its_token_or_its_address_until_its_reply_is_sent(
    start: Start, clients: Clients, monkeypatch: pytest.MonkeyPatch, guarded: bool, owner: str
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(FAIR_SHARE.requests, "set_owner", lambda _, owner: calls.append(f"owner {owner}"))
    monkeypatch.setattr(FAIR_SHARE.requests, "end", lambda _: calls.append("end"))
    server = start(guarded=guarded)
    data = post(json.dumps(HELLO), bearer("ann")) if guarded else HELLO_POST
    assert said(clients(server, data, "127.0.0.2"))[0] == 200
    until(lambda: len(calls) == 2)
    assert calls == [f"owner {owner}", "end"]


def test_nobody_waits_for_a_request_whose_client_reads_nothing(
    start: Start, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(FAIR_SHARE.requests, "begin_waiting", lambda _: waiting.set())
    server = start()
    short = clients(server, HELLO_POST)
    assert said(short)[0] == 200
    assert not waiting.is_set()
    echo = {"action": "hello", "meta": {"askAbout": "echoBack", "echoBack": "x" * 900_000}}
    reader, data = clients(server), memoryview(post(json.dumps(echo)) * 20)
    reader.settimeout(0.1)
    while not waiting.is_set():  # the system holds some replies for a reader
        with contextlib.suppress(TimeoutError):
            data = data[reader.send(data) :]
    reader.close()


def test_a_broken_reply_ends_its_request(
    start: Start, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends: list[None] = []
    monkeypatch.setattr(FAIR_SHARE.requests, "end", lambda _: ends.append(None))
    clients(start(), b"nonsense\r\n\r\n")
    until(lambda: len(ends) == 1)
