"""The end of a server: running requests finish or get a reply, and no client delays the end."""

from __future__ import annotations

import contextlib
import io
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import StoppedError
from pfstorage.logs.batches import MAX_LINES
from pfstorage.server import server as server_module
from pfstorage.settings.model import Settings
from tests.conftest import make_certificate, running_server, swift_options, write_tree
from tests.support.exchange import answer, answered, client, connected, message, post, request, server_process
from tests.support.waiting import settle, until

CMD = "/api/v1/cmd"
STORE = ("--type", "filesystem", "--storeBase", "store")


def test_the_second_signal_ends_a_server_at_once(tmp_path: Path) -> None:
    with (
        server_process(tmp_path, *STORE, "--forever", "--graceSeconds", "60") as served,
        socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection,
    ):
        connection.sendall(request("POST", CMD, "Content-Length: 100", "Expect: 100-continue"))
        assert b"100 Continue" in connection.recv(1000)  # it is at work
        served.process.send_signal(signal.SIGTERM)
        served.wait_for_output("no more requests are accepted; 1 are at work")
        settle()
        assert served.process.poll() is None
        served.process.send_signal(signal.SIGTERM)
        status, _ = served.ends()
    assert status != 0


def test_the_end_reports_interrupted_requests_and_lost_jobs(tmp_path: Path) -> None:
    write_tree(tmp_path, {f"data/{number:02}": b"x" * 20_000 for number in range(40)})
    meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data"}
    flags = ("--type", "memory", "--forever", "--bwLimit", "200K", "--graceSeconds", "1")
    with server_process(tmp_path, *flags) as served, ThreadPoolExecutor(1) as pool:
        job = answered(served.port, "objPut", **{**meta, "inLocation": "y", "async": True})[1]["job"]
        pushed = pool.submit(answer, served.port, post(message("objPut", **meta)))
        while answered(served.port, "ls", path="x")[1].get("ls", []) == []:
            time.sleep(0.05)
        served.process.send_signal(signal.SIGTERM)
        received = pushed.result(60)
        assert (received.status, received.json["error"]["type"]) == (503, "StoppedError")
        assert received.headers["retry-after"]
        assert 0 < len(received.json["objectFileList"]) < 40
        _, said = served.ends()
    assert f"job {job} is lost, since there is no --stateDir" in said
    assert re.search("WARNING .*action=objPut status=503 error=StoppedError", said)
    assert f"status=202 job={job}" in said


@pytest.mark.parametrize("most", [2_000, MAX_LINES + 2_000])
def test_the_end_does_not_wait_for_a_log_that_is_not_read(tmp_path: Path, most: int) -> None:
    with server_process(tmp_path, *STORE, "--forever", "--graceSeconds", "1") as served:
        with contextlib.closing(client(served.port)) as connection:
            for _ in range(most):
                connection.request("GET", "/healthz", headers={"X-Request-Id": "a" * 60})
                assert connection.getresponse().read()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(40) == 0


def metrics(port: int) -> list[str]:
    with contextlib.closing(client(port)) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode().splitlines()


@contextlib.contextmanager
def silent_store() -> Iterator[tuple[str, threading.Semaphore]]:
    """A silent store: it accepts connections, and the semaphore counts them."""
    asked, held = threading.Semaphore(0), []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):  # closed
                while True:
                    held.append(listener.accept()[0])
                    asked.release()

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/auth/v1.0", asked
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in held:
            each.close()


@pytest.mark.parametrize("retries", ["3", "0"])
def test_requests_that_wait_for_a_permit_or_the_store_are_answered_at_the_end(
    tmp_path: Path, retries: str
) -> None:
    flags = (
        "--forever",
        "--graceSeconds",
        "1",
        "--maxRequests",
        "1",
        "--retries",
        retries,
        "--timeout",
        "30",
    )
    with (
        silent_store() as (url, asked),
        server_process(tmp_path, *flags, SWIFT_AUTH_URL=url) as served,
        ThreadPoolExecutor(8) as threads,
    ):
        pending = [threads.submit(answered, served.port, "ls", path=f"{n}") for n in range(4)]
        assert asked.acquire(timeout=30)
        pull = {"fromLocation": "x", "mapLocationOver": "out"}
        pending += [threads.submit(answered, served.port, "objPull", **pull) for _ in range(3)]
        waiting = [
            f'pfstorage_{kind}{{state="waiting"}} {n}.0' for kind, n in (("requests", 3), ("transfers", 2))
        ]
        until(lambda: all(line in metrics(served.port) for line in waiting))
        served.process.send_signal(signal.SIGTERM)
        for each in pending:
            status, reply = each.result(30)
            assert (status, reply["error"]["type"]) == (503, "StoppedError")
        status, said = served.ends()
    assert (status, "hung up" in said) == (0, False)


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "TLS"])
def test_clients_that_neither_send_nor_read_do_not_delay_the_end(tmp_path: Path, is_tls: bool) -> None:
    write_tree(tmp_path, {"store/large": bytes(64_000_000)})
    cert, key = make_certificate(tmp_path)
    tls = ("--tlsCert", cert, "--tlsKey", key) if is_tls else ()
    with (
        server_process(tmp_path, *STORE, "--forever", "--graceSeconds", "1", *tls) as served,
        contextlib.ExitStack() as stack,
    ):
        context = ssl.create_default_context(cafile=cert)
        context.check_hostname = False

        def sends(data: bytes) -> socket.socket:
            plain = stack.enter_context(socket.create_connection(("127.0.0.1", served.port), 30))
            connection = stack.enter_context(context.wrap_socket(plain)) if is_tls else plain
            connection.sendall(data)
            return connection

        sends(f"GET {CMD} HTTP/1.1\r\nHost: x\r\n".encode())
        half = sends(request("PUT", "/api/v1/objects/half", "Content-Length: 100", "Expect: 100-continue"))
        assert b"100 Continue" in half.recv(1000)
        half.sendall(b"x" * 50)
        sends(request("GET", "/api/v1/objects/large")).recv(100)
        sends(request("GET", CMD))  # an answer that nobody reads, and then an idle connection
        time.sleep(0.5)
        served.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        status, said = served.ends()
        assert time.monotonic() - started < 15
    assert status == 0
    assert "3 requests are aborted, because their clients" in said
    assert not (tmp_path / "store" / "half").exists()


def test_the_end_reports_a_request_that_does_not_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIVE_UP_AFTER", "HANG_UP_AFTER", "HANGING_UP_SECONDS"):
        monkeypatch.setattr(server_module, name, 0.05)
    entered, release = threading.Event(), threading.Event()

    class Stuck(MemoryStorage):
        def head(self, key: str) -> ObjectInfo:
            entered.set()
            assert release.wait(60)
            return super().head(key)

    server = ThreadedHTTPServer(("127.0.0.1", 0), StoreHandler(Stuck(Settings(type="memory"))))
    with running_server(server), connected(server.server_port) as connection:
        connection.sendall(request("HEAD", "/api/v1/objects/a"))
        assert entered.wait(30)
        assert not server.end_requests(0.05)
        release.set()
        assert server.load.wait_until_idle(30)


def test_a_storage_that_the_caller_owns_is_not_closed(swift: DevSwift) -> None:
    with open_storage(**swift_options(swift)) as storage:
        storage.put("a", io.BytesIO(b"x"), 1)
        StoreHandler(storage).abort("the server ends")
        assert [row.key for row in storage.list()] == ["a"]
        with contextlib.closing(StoreHandler(settings=storage.settings)) as handler:
            given_up = handler.storage
            handler.abort("the server ends")
            with pytest.raises(StoppedError):
                list(given_up.list())
            assert [row.key for row in handler.storage.list()] == ["a"]
