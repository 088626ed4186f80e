"""Operation of a server: its probes, metrics and logs, and the load that it accepts."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import PermissionDeniedError, StorageError, UnavailableError
from pfstorage.jobs import scheduler
from pfstorage.server import admission
from pfstorage.server.endpoints import health
from pfstorage.server.options import ServerOptions
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import Settings
from tests.conftest import Command, ask, running_server, serving, swift_options, write_tree
from tests.support.exchange import HELLO, answer, answered, exchange, message, post, request, server_process
from tests.support.faults import Fault, proxy_to
from tests.support.held import Held
from tests.support.waiting import until

CMD = "/api/v1/cmd"
STORE = ("--type", "filesystem", "--storeBase", "store")


@pytest.fixture
def server() -> Iterator[ThreadedHTTPServer]:
    with contextlib.closing(open_storage("memory")) as storage, serving(StoreHandler(storage)) as server:
        yield server


def get(server: ThreadedHTTPServer, path: str, **headers: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read().decode()


# health


def test_a_running_server_is_alive(server: ThreadedHTTPServer) -> None:
    assert get(server, "/healthz")[0] == 200
    assert get(server, "/readyz")[0] == 200
    assert ask(server, "{}", path="/healthz")[0] == 405


def test_a_server_whose_store_is_away_is_alive_and_not_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(health, "CACHE_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    settings, _ = load_settings(
        {"this": {"retries": 0}, "swift": {"auth_url": f"http://127.0.0.1:{port}/auth/v1.0"}}
    )
    with (
        contextlib.closing(StoreHandler(settings=settings)) as handler,
        serving(handler) as server,
        caplog.at_level("INFO"),
    ):
        for _ in range(2):
            status, headers, text = get(server, "/readyz")
            assert (status, headers["Retry-After"]) == (503, "5")
            assert json.loads(text)["status"] is False
        assert get(server, "/healthz")[0] == 200
        handler.state.set("/this/type", "memory")
        assert get(server, "/readyz")[0] == 200
    said = [each.getMessage() for each in caplog.records if each.name.endswith("health")]
    assert len(said) == 2
    assert said[0].startswith("not ready: ")
    assert f"127.0.0.1:{port}" in said[0]
    assert said[1] == "ready: the store answers again"


@pytest.mark.parametrize(
    ("error", "ready", "listed"), [(PermissionDeniedError, 200, 403), (UnavailableError, 503, 503)]
)
def test_the_log_of_readiness_names_no_object(
    caplog: pytest.LogCaptureFixture, error: type[StorageError], ready: int, listed: int
) -> None:
    class Closed(MemoryStorage):
        def list(self, *_: Any, **__: Any) -> Iterator[ObjectInfo]:
            raise error("the object 'Doe^Jane/': it can't be", key="Doe^Jane/")

    with serving(StoreHandler(Closed(Settings(type="memory")))) as server, caplog.at_level("INFO"):
        assert get(server, "/readyz")[0] == ready
        assert ask(server, {"action": "ls"})[0] == listed
    assert "Doe" not in caplog.text
    assert ("not ready: UnavailableError" in caplog.text) == (ready == 503)


def test_a_silent_store_is_not_ready_and_delays_no_other_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/auth/v1.0"
        settings, _ = load_settings({"this": {"retries": 0, "timeout": 3}, "swift": {"auth_url": url}})
        options = ServerOptions(max_requests=1)
        server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(settings=settings), options)
        with running_server(server), ThreadPoolExecutor() as threads:
            listing = threads.submit(ask, server, {"action": "ls"})
            started = time.monotonic()
            assert [get(server, "/readyz")[0] for _ in range(5)] == [503] * 5
            assert ask(server, HELLO)[0] == 200
            assert time.monotonic() - started < 2.5
            assert listing.result()[0] == 503


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


# metrics


def test_metrics_count_messages_bytes_and_objects(server: ThreadedHTTPServer, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"12345", "data/b": b"678"})
    put = {"action": "objPut", "meta": {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data"}}
    for _ in range(2):
        assert ask(server, put)[0] == 200
    for name in ("fly", "swim"):
        assert ask(server, {"action": name})[0] == 404
    status, headers, text = get(server, "/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain")
    lines = text.splitlines()
    assert 'pfstorage_messages_total{action="objPut",status="200"} 2.0' in lines
    assert 'pfstorage_messages_total{action="other",status="404"} 2.0' in lines
    assert 'pfstorage_moved_bytes_total{to="store"} 8.0' in lines
    assert 'pfstorage_moved_objects_total{to="store"} 2.0' in lines
    assert any(line.startswith("pfstorage_connections ") and not line.endswith(" 0.0") for line in lines)
    assert 'pfstorage_requests{state="busy"} 0.0' in lines
    assert 'pfstorage_workers{state="idle"} 64.0' in lines


def test_metrics_count_failed_transfers(server: ThreadedHTTPServer, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"12345"})
    put = {"action": "objPut", "meta": {"fileList": ["data/a", "data/b", "data/c"], "inLocation": "x"}}
    assert ask(server, put)[0] == 200
    text = get(server, "/metrics")[2]
    assert 'pfstorage_failed_objects_total{to="store"} 2.0' in text
    assert 'pfstorage_moved_objects_total{to="store"} 1.0' in text


def test_metrics_of_a_dry_run_count_no_bytes(server: ThreadedHTTPServer, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"12345"})
    meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data", "dryRun": True}
    assert ask(server, {"action": "objPut", "meta": meta})[1]["bytes"] == 5
    text = get(server, "/metrics")[2]
    assert 'pfstorage_messages_total{action="objPut",status="200"} 1.0' in text
    assert "pfstorage_moved_bytes_total{" not in text


def test_metrics_count_objects_without_messages(server: ThreadedHTTPServer) -> None:
    for path in ("/api/v1/objects/a%20name", "/api/v1/objects/another"):
        assert ask(server, b"12345", "PUT", path)[0] == 201
    assert get(server, "/api/v1/objects/another", Range="bytes=1-2")[2] == "23"
    assert get(server, "/api/v1/objects/none")[0] == 404
    assert get(server, "/none/such")[0] == 404
    lines = get(server, "/metrics")[2].splitlines()
    assert 'pfstorage_messages_total{action="/api/v1/objects/",status="201"} 2.0' in lines
    assert 'pfstorage_messages_total{action="/api/v1/objects/",status="206"} 1.0' in lines
    assert 'pfstorage_messages_total{action="/api/v1/objects/",status="404"} 1.0' in lines
    assert 'pfstorage_messages_total{action="other",status="404"} 1.0' in lines
    assert 'pfstorage_moved_bytes_total{to="store"} 10.0' in lines
    assert 'pfstorage_moved_bytes_total{to="files"} 2.0' in lines
    assert "another" not in "".join(lines)


def test_metrics_count_jobs_transfers_and_retries(swift: DevSwift, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"12345"})
    with (
        proxy_to(swift.port) as proxy,
        open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage,
        serving(StoreHandler(storage)) as server,
    ):
        before = _metric(server, "pfstorage_retries_total")
        proxy.fault(Fault("answer", status=503, retry_after=0), method="PUT", on={1})
        meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data", "async": True}
        job = ask(server, {"action": "objPut", "meta": meta})[1]["job"]
        reply = ask(server, {"action": "jobStatus", "meta": {"job": job, "wait": 30}})[1]
        assert reply["state"] == "done"
        assert _metric(server, "pfstorage_retries_total") == before + 1
        assert _metric(server, 'pfstorage_jobs{state="done"}') == 1
        assert _metric(server, 'pfstorage_store_connections{state="idle"}') > 0
        assert _metric(server, 'pfstorage_store_connections{state="busy"}') == 0


def test_an_unexpected_error_does_not_end_the_checks_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHE_SECONDS", 0.0)
    with contextlib.closing(open_storage("memory")) as storage, serving(StoreHandler(storage)) as server:
        plain = storage.list
        storage.list = lambda *_, **__: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        assert get(server, "/readyz")[0] == 503
        storage.list = plain  # type: ignore[method-assign]
        assert get(server, "/readyz")[0] == 200


def test_one_look_at_the_store_answers_simultaneous_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHE_SECONDS", -1.0)
    asked, release = [], threading.Event()
    with contextlib.closing(open_storage("memory")) as storage, serving(StoreHandler(storage)) as server:

        def held_list(*_: object, **__: object) -> Iterator[ObjectInfo]:
            asked.append(1)
            assert release.wait(60)
            return iter(())

        monkeypatch.setattr(storage, "list", held_list)
        with ThreadPoolExecutor(8) as threads:
            probes = [threads.submit(get, server, "/readyz") for _ in range(8)]
            while server.load.at_work < 8:
                time.sleep(0.001)
            time.sleep(0.1)  # a thread that has not got so far by now makes the test only easier
            monkeypatch.setattr(health, "CACHE_SECONDS", 60.0)
            release.set()
            assert [each.result()[0] for each in probes] == [200] * 8
        assert get(server, "/readyz")[0] == 200
    assert len(asked) == 1


def test_metrics_omit_unknown_values(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ServerOptions(state_dir=str(tmp_path / "state"))
    with (
        contextlib.closing(open_storage("memory")) as storage,
        running_server(ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)) as server,
    ):
        assert "pfstorage_jobs" in get(server, "/metrics")[2]
        with contextlib.closing(sqlite3.connect(tmp_path / "state" / "jobs.sqlite")) as other:
            other.execute("DROP TABLE job")
        status, _, text = get(server, "/metrics")
        assert (status, "pfstorage_jobs" in text, "pfstorage_workers" in text) == (200, False, True)
        assert "the metric jobs is missing in /metrics: the jobs can't be read" in caplog.text


def _metric(server: ThreadedHTTPServer, name: str) -> float:
    lines = get(server, "/metrics")[2].splitlines()
    return next(float(line.removeprefix(f"{name} ")) for line in lines if line.startswith(f"{name} "))


# requests that wait for others


LISTING = {"action": "ls", "meta": {"path": "x"}}


@pytest.fixture
def held() -> Iterator[tuple[Held, ThreadedHTTPServer]]:
    """A server that works on one request at a time, and moves one file."""
    storage = Held()
    storage.put("x/a", io.BytesIO(b"12345"), 5)
    options = ServerOptions(max_requests=1, max_workers=1)
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
    with running_server(server):
        yield storage, server
        storage.release.set()


def test_quick_requests_do_not_wait_for_transfers(held: tuple[Held, ThreadedHTTPServer]) -> None:
    storage, server = held
    pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out"}}
    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(ask, server, pull)
        assert storage.asked.acquire(timeout=60)
        assert _metric(server, 'pfstorage_transfers{state="busy"}') == 1
        assert _metric(server, 'pfstorage_workers{state="busy"}') == 1
        assert ask(server, LISTING)[0] == 200
        storage.release.set()
        assert pulling.result()[0] == 200


def test_a_waiting_request_is_answered_as_soon_as_it_gets_a_permit(
    held: tuple[Held, ThreadedHTTPServer],
) -> None:
    storage, server = held
    pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out", "overwrite": "always"}}
    started = time.monotonic()
    with ThreadPoolExecutor() as threads:
        pulls = [threads.submit(ask, server, pull) for _ in range(4)]
        assert storage.asked.acquire(timeout=60)
        while _metric(server, 'pfstorage_transfers{state="waiting"}') < 3:
            time.sleep(0.01)
        storage.release.set()
        assert [each.result()[0] for each in pulls] == [200] * 4
    assert time.monotonic() - started < 20  # less than a connection may lie idle: nobody waited for its end


def test_a_request_that_waits_for_a_permit_delays_no_other() -> None:
    first, second = (
        ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(Held()), ServerOptions(max_requests=1))
        for _ in "ab"
    )
    with running_server(first), running_server(second), ThreadPoolExecutor() as threads:
        first.load.requests.enter()
        waiting = threads.submit(ask, first, {"action": "ls"})
        while first.load.requests.counts()["waiting"] == 0:
            time.sleep(0.01)
        assert ask(second, {"action": "ls"})[0] == 404  # it has no container
        assert not waiting.done()
        first.load.requests.leave()
        assert waiting.result()[0] == 404


def test_quick_requests_do_not_wait_for_clients_that_wait_for_a_job(
    held: tuple[Held, ThreadedHTTPServer],
) -> None:
    storage, server = held
    pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out", "async": True}}
    job = ask(server, pull)[1]["job"]
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(ask, server, {"action": "jobStatus", "meta": {"job": job, "wait": 60}})
        assert storage.asked.acquire(timeout=60)
        assert _metric(server, 'pfstorage_workers{state="busy"}') == 1  # which it shares with all others
        time.sleep(0.1)  # it may wait by now; if not, the test is only easier
        assert ask(server, LISTING)[0] == 200
        assert not waiting.done()
        storage.release.set()
        assert waiting.result()[1]["state"] == "done"


def test_quick_requests_do_not_wait_for_an_upload(
    held: tuple[Held, ThreadedHTTPServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, server = held
    store = storage.put

    def held_put(*content: Any, **more: Any) -> ObjectInfo:
        storage.asked.release()
        assert storage.release.wait(60)
        return store(*content, **more)

    monkeypatch.setattr(storage, "put", held_put)
    with ThreadPoolExecutor() as threads:
        storing = threads.submit(ask, server, b"12345", "PUT", "/api/v1/objects/new")
        assert storage.asked.acquire(timeout=60)
        assert ask(server, LISTING)[0] == 200
        storage.release.set()
        assert storing.result()[0] == 201


def test_quick_requests_do_not_wait_for_a_slow_body(held: tuple[Held, ThreadedHTTPServer]) -> None:
    _, server = held
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(request("POST", CMD, "Content-Length: 100", "Expect: 100-continue"))
        assert b"100 Continue" in connection.recv(1000)
        assert ask(server, LISTING)[0] == 200
        body = message("hello", askAbout="timestamp").ljust(100)
        connection.sendall(body.encode())
        assert b"200 OK" in connection.recv(10_000)


# the log


def test_each_request_is_a_line_without_a_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/DOE^JANE.dcm": b"1"})
    meta = {"putSpec": "data", "inLocation": "DOE-JANE", "mapLocationOver": "data"}
    with server_process(tmp_path, *STORE, "--forever", "--logFormat", "json") as served:
        some = message("objPut", fileList=["data/DOE^JANE.dcm", "data/none"], inLocation="DOE-JANE")
        quit_ = message("quit", ctl={"serverCmd": "fly"})
        # a connection each, to its end, which comes after the line: so they are in this order
        for body in (message("objPut", **meta), message("ls", path="DOE-JANE"), "{", some, quit_):
            assert answer(served.port, post(body, "X-Request-Id: abc/1")).headers["x-request-id"] == "abc/1"
        for method, path in (("GET", "/DOE-JANE"), ("DOE-JANE", CMD), ("PATCH", CMD)):
            exchange(served.port, request(method, path))
        assert exchange(served.port, b"DOE JANE HTTP/2.0\r\n\r\n").startswith(b"HTTP/1.1 505 ")
        served.process.send_signal(signal.SIGTERM)
        status, said = served.ends()
    assert status == 0
    assert "DOE" not in said
    lines = [json.loads(line) for line in said.splitlines()]
    shown = [(each["action"], each["status"]) for each in lines if "action" in each]
    assert shown == [
        ("objPut", 200),
        ("ls", 200),
        ("/api/v1/cmd", 400),
        ("objPut", 200),
        ("quit", 400),
        ("", 404),
        ("/api/v1/cmd", 405),
        ("/api/v1/cmd", 405),
        ("", 505),
    ]
    assert [each["method"] for each in lines if "action" in each] == ["POST"] * 5 + [
        "GET",
        "other",
        "PATCH",
        "",
    ]
    assert [each["id"] for each in lines if "action" in each][:5] == ["abc/1"] * 5
    errors = [(each["error"], each["level"]) for each in lines if "action" in each]
    assert errors == [
        ("", "INFO"),
        ("", "INFO"),
        ("MessageError", "INFO"),
        ("LocalFileError", "WARNING"),  # half of the files
        ("MessageError", "INFO"),
        ("UnknownPathError", "INFO"),
        ("MethodNotAllowedError", "INFO"),
        ("MethodNotAllowedError", "INFO"),
        ("MessageError", "INFO"),
    ]


@pytest.mark.parametrize("name", ["", "a b", "x" * 129, "a\tb", "\xe4"])
def test_an_id_that_could_confuse_the_log_is_not_taken_over(server: ThreadedHTTPServer, name: str) -> None:
    _, headers, _ = get(server, "/healthz", **{"X-Request-Id": name})
    assert headers["X-Request-Id"] != name
    assert len(headers["X-Request-Id"]) == 16


# bounds


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


# the start


def test_a_start_that_may_succeed_later_fails_with_its_own_exit_status(
    tmp_path: Path, command: Command
) -> None:
    flags = (*STORE, "--forever", "--stateDir", "state")
    with server_process(tmp_path, *flags):
        done = command("--server", "--portSelf", "0", *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "--stateDir: another pfstorage uses the state directory" in done.stderr


def test_the_tokens_are_read_again_on_sighup(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef-one\n")
    tokens.chmod(0o600)
    flags = ("--forever", "--enableTokenAuth", "--tokenPath", str(tokens))
    with server_process(tmp_path, *STORE, *flags) as served:

        def status(token: str) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", CMD, json.dumps(HELLO), {"Authorization": f"Bearer {token}"})
                return connection.getresponse().status

        assert (status("0123456789abcdef-one"), status("0123456789abcdef-two")) == (200, 401)
        tokens.write_text("0123456789abcdef-two\n")
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the tokens have changed: 1 are known")
        assert (status("0123456789abcdef-one"), status("0123456789abcdef-two")) == (401, 200)


@pytest.mark.parametrize("title", ["[TOKEN RIGHT]", "[token rights]"])
def test_a_typo_in_the_tokens_gives_nobody_more_rights(tmp_path: Path, command: Command, title: str) -> None:
    tokens, token = tmp_path / "tokens.cfg", "0123456789abcdef-one"
    good = f"[AUTH TOKENS]\nann = {token}\n[TOKEN RIGHTS]\nann = read\n"
    tokens.touch(0o600)
    tokens.write_text(good)
    flags = (*STORE, "--forever", "--enableTokenAuth", "--tokenPath", str(tokens))
    with server_process(tmp_path, *flags) as served:

        def status(action: str, **meta: Any) -> int:
            connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
            with contextlib.closing(connection):
                connection.request("POST", CMD, message(action, **meta), {"Authorization": f"Bearer {token}"})
                return connection.getresponse().status

        tokens.write_text(good.replace("[TOKEN RIGHTS]", title))
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the previous tokens stay valid: ")
        for _ in range(3):
            assert status("objExists", obj="a") in (200, 404)
            assert status("objPut", putSpec="tokens.cfg") == 403
            assert status("internalctl", var="/this/workers", set=3) == 403
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    warnings = [line for line in said.splitlines() if "the previous tokens stay valid" in line]
    assert len(warnings) == 1
    assert "line 3: an unknown section: use [AUTH TOKENS] and [TOKEN RIGHTS], in capitals" in warnings[0]
    assert token not in said
    done = command("--server", "--portSelf", "0", *flags)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "line 3: an unknown section" in done.stderr
    assert token not in done.stderr


def test_a_store_that_does_not_exist_yet_is_reported(tmp_path: Path) -> None:
    with server_process(tmp_path, *STORE, "--forever") as served:
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("serves store (which the first upload creates)")


@pytest.mark.parametrize(("key", "is_reported"), [("a-key-of-ours", True), (None, False)])
def test_a_world_readable_configuration_with_a_key_is_reported(
    tmp_path: Path, key: str | None, is_reported: bool
) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"swift": {"key": key} if key else {}}))
    (tmp_path / "settings.json").chmod(0o644)
    with server_process(tmp_path, "--forever", "--configFileLoad", "settings.json") as served:
        served.process.send_signal(signal.SIGTERM)
        said = served.ends()[1]
    assert ("any user of this host can read --configFileLoad" in said) is is_reported


def test_sighup_loads_valid_settings(tmp_path: Path) -> None:
    settings, key = tmp_path / "settings.json", tmp_path / "key"
    settings.write_text('{"swift": {"container_name": "first"}}')
    key.touch(0o600)
    key.write_text("one")
    flags = ("--forever", "--configFileLoad", str(settings), "--swiftKey", f"@{key}")
    with server_process(tmp_path, *flags) as served:

        def state(var: str) -> Any:
            return answered(served.port, "internalctl", var=f"/swift/{var}", get="value")[1]["d_ret"][
                f"/swift/{var}"
            ]

        def hung_up(then: str) -> None:
            served.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 20
            while state("container_name") != then and time.monotonic() < deadline:
                time.sleep(0.01)

        assert state("container_name") == "first"
        key.chmod(0o644)
        settings.write_text('{"swift": {"container_name": "second"}, "this": {"portSelf": "7777"}}')
        hung_up("second")
        assert state("container_name") == "second"
        settings.write_text('{"swift": {"container_name": 7')
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("is not JSON")
        settings.write_text('{"swift": {"container_name": "third"}}')
        key.write_text(" \n")
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("the old settings stay in use: --swiftKey: the secret is empty")
        key.unlink()
        served.process.send_signal(signal.SIGHUP)
        served.wait_for_output("No such file")
        assert state("container_name") == "second"
        served.process.send_signal(signal.SIGTERM)
        _, said = served.ends()
    assert "reloaded the settings" in said
    assert "serves the container 'second' of" in said
    assert f"any user of this host can read --swiftKey '{key}'" in said
    assert "no more requests are accepted" in said
    assert re.search("the old settings stay in use: --swiftKey: .* No such file", said)


# jobs


def test_a_job_is_taken_on_at_once_and_its_events_lead_to_its_reply(
    server: ThreadedHTTPServer, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"data/a": b"12345"})
    meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data", "async": True, "jid": "feed-12"}
    status, reply = answered(server.server_port, "objPut", **meta)
    assert (status, reply["status"]) == (202, True)
    assert answered(server.server_port, "objPut", **meta)[1]["job"] == reply["job"]
    status, headers, text = get(server, f"/api/v1/jobs/{reply['job']}/events")
    assert (status, headers["Content-Type"]) == (200, "text/event-stream")
    events = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line]
    assert events[-1]["state"] == "done"
    assert events[-1]["reply"]["objectFileList"] == ["x/a"]
    assert get(server, "/api/v1/jobs/none/events")[0] == 404
    assert get(server, "/api/v1/jobs/none")[0] == 404


@pytest.mark.parametrize(
    ("permissions", "end", "status"),
    [("write chris/x/other/", "", 403), (None, "", 401), ("write chris/x/", " expires=2020-01-01", 401)],
    ids=["narrowed", "revoked", "expired"],
)
def test_events_end_with_the_right_to_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, permissions: str | None, end: str, status: int
) -> None:
    monkeypatch.setattr(scheduler, "HEARTBEAT", 0.02)
    token, path = "w-0123456789abcdef", tmp_path / "tokens.cfg"

    def write(permissions: str | None, end: str = "") -> None:
        names = {"boss": "admin", **({"ann": permissions} if permissions else {})}
        tokens = "".join(f"{name} = {token + end if name == 'ann' else token[::-1]}\n" for name in names)
        grants = "".join(f"{name} = {grant}\n" for name, grant in names.items())
        path.write_text(f"[AUTH TOKENS]\n{tokens}[TOKEN RIGHTS]\n{grants}")
        path.chmod(0o600)

    write("write chris/x/")
    storage = Held()
    storage.put("chris/x/patient", io.BytesIO(b"12345"), 5)
    options = ServerOptions(token_path=str(path))
    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(storage), options)
    bearer = {"Authorization": f"Bearer {token}"}
    pull = {"path": "chris/x", "mapLocationOver": "out", "async": True}
    with running_server(server):
        job = ask(server, {"action": "objPull", "meta": pull}, **bearer)[1]["job"]
        assert storage.asked.acquire(timeout=60)
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/jobs/{job}/events", headers=bearer)
            events = connection.getresponse()
            assert events.readline().startswith(b"data: ")
            write(permissions, end)
            with pytest.raises(http.client.IncompleteRead):
                sum(len(events.read(200)) for _ in range(1000))  # they would come for ever
        assert get(server, f"/api/v1/jobs/{job}/events", **bearer)[0] == status
        storage.release.set()


def test_a_killed_server_goes_on_with_its_jobs(tmp_path: Path) -> None:
    trees = {f"data{n}/{i}": bytes([n, i]) * 5000 for n in range(10) for i in range(30)}
    write_tree(tmp_path, trees)
    flags = (*STORE, "--forever", "--stateDir", "state", "--bwLimit", "2M")
    with server_process(tmp_path, *flags) as served:
        for n in range(10):
            meta = {
                "putSpec": f"data{n}",
                "inLocation": f"x{n}",
                "mapLocationOver": f"data{n}",
                "async": True,
            }
            assert answered(served.port, "objPut", **meta, jid=f"job-{n}")[0] == 202
        time.sleep(0.3)
        served.process.kill()
        served.ends()
    with server_process(tmp_path, *flags) as served:
        for n in range(10):
            _, reply = answered(served.port, "jobStatus", jid=f"job-{n}", wait=60)
            assert (reply["state"], reply["reply"]["status"]) == ("done", True)
        _, listed = answered(served.port, "ls")
        assert len(listed["ls"]) == len(trees)
        for n in range(10):
            meta = {"fromLocation": f"x{n}", "mapLocationOver": f"data{n}"}
            assert answered(served.port, "objVerify", **meta)[1]["same"] == 30
        served.process.send_signal(signal.SIGTERM)
        assert served.ends()[0] == 0
