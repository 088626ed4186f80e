"""Many simultaneous clients and a store that goes away: the replies, and the resources of the server."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from benchmarks.store import running_store
from pfstorage.devswift import DevSwift, running
from tests.conftest import read_tree, write_tree
from tests.support.exchange import Answer, Served, answer, message, post, server_process

LONG = 60


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="the test reads the resources of the server from Linux's /proc"
)
def test_200_clients_see_no_error_for_a_minute_and_the_server_does_not_grow(
    tmp_path: Path, record_property: Any
) -> None:
    with running_store(tmp_path / "swift", processes=1) as store:
        soak.fill(store, tmp_path)
        with soak.serving(tmp_path, *soak.flags_of(store)) as (port, pid):
            result = soak.soak(port, pid, clients=200, seconds=60, report=print)
    record_property("p99", result.p99)
    print(f"{result.requests} requests, p50 {result.p50:.3f} s, p99 {result.p99:.3f} s")
    assert result.complaints == []
    assert result.requests > 1200  # each client has done each thing


def complaints_of(memory: Sequence[float], descriptors: Sequence[int] = (300,) * 4) -> list[str]:
    """Return the report of a soak about a server with these megabytes and descriptors in its second half."""
    samples = [
        soak.Resources(int(megabytes * 1e6), count, 207)
        for megabytes, count in zip(memory, descriptors, strict=True)
    ]
    return soak.Result(5000, Counter(), 0.1, 0.5, samples).complaints


def test_a_soak_takes_threads_that_get_warm_for_no_leak() -> None:
    assert complaints_of([74.6, 75.3, 75.6, 76.3]) == []  # of a slow machine, after 68.0 and 73.4
    assert complaints_of([74.6, 79.5, 74.9, 74.7], [300, 290, 320, 302]) == []  # one that is high by chance


def test_a_soak_reports_a_leak() -> None:
    [memory] = complaints_of([71.3, 73.0, 74.6, 76.3])  # the same growth in a minute, steadily
    assert memory.startswith("memory grew from 71")
    [descriptors] = complaints_of([74.6, 75.3, 75.6, 76.3], [300, 307, 315, 321])
    assert descriptors.startswith("descriptors grew from 300")


@pytest.mark.parametrize(
    ("growing", "is_leak", "most"), [(0, False, 6), (6, False, 20), (1000, True, 21)], ids=str
)
def test_a_soak_goes_on_until_it_is_known_whether_a_server_leaks(
    monkeypatch: pytest.MonkeyPatch, growing: int, is_leak: bool, most: int
) -> None:
    taken = itertools.count()

    def sample(pid: int) -> soak.Resources:
        return soak.Resources(50_000_000 + 10_000_000 * min(next(taken), growing), 300, 207)

    monkeypatch.setattr(soak.Resources, "of", sample)
    result = soak.soak(0, 0, clients=0, seconds=0.05, report=len, every=0.01)
    assert bool(result.complaints) is is_leak
    assert next(taken) <= most


@contextlib.contextmanager
def served(directory: Path, swift: DevSwift, *flags: str) -> Iterator[Served]:
    flags = ("--forever", "--portSwift", str(swift.port), "--ipSwift", "127.0.0.1", *flags)
    with server_process(directory, *flags) as server:
        drain = threading.Thread(target=server.process.stderr.read)  # type: ignore[union-attr]
        drain.start()
        try:
            yield server
        finally:
            server.process.kill()
            drain.join()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The files of a store, which remain after it."""
    with running(directory=tmp_path / "swift") as swift, served(tmp_path, swift) as server:
        write_tree(tmp_path, {f"data/{number:02}": b"%04d" % number * 512 for number in range(40)})
        push = message("objPush", putSpec="data", inLocation="chris", mapLocationOver="data")
        assert answer(server.port, post(push)).status == 200
    return tmp_path / "swift"


def kill(swift: DevSwift) -> None:
    os.kill(swift.pid, signal.SIGKILL)
    swift.process.wait()


class Clients:
    """Clients that list, one message after the other, and note the status and the seconds of each answer."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self.answers: list[tuple[int, float]] = []
        self.errors: list[BaseException] = []
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONG)
        try:
            while not self._is_over.is_set():
                started = time.monotonic()
                connection.request("POST", "/api/v1/cmd", message("ls", path="chris"))
                reply = connection.getresponse()
                received = json.loads(reply.read())
                if reply.status != 200:
                    assert (reply.status, received["error"]["type"]) == (503, "UnavailableError"), received
                    assert int(reply.headers["Retry-After"]) > 0
                self.answers.append((reply.status, time.monotonic() - started))
        except BaseException as e:  # noqa: BLE001 - it is looked at in the end
            self.errors.append(e)
        finally:
            connection.close()

    def see(self, status: int, times: int = 20) -> None:
        """Wait until so many more answers have had *status*."""
        begin, deadline = len(self.answers), time.monotonic() + LONG
        while sum(each == status for each, _ in self.answers[begin:]) < times:
            assert not self.errors
            assert time.monotonic() < deadline, self.answers[-5:]
            threading.Event().wait(0.01)

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def readiness(port: int) -> Answer:
    return answer(port, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def wait_until_readiness_is(port: int, status: int) -> None:
    deadline = time.monotonic() + LONG
    while (found := readiness(port)).status != status:
        assert time.monotonic() < deadline, found
        threading.Event().wait(0.2)


def test_a_store_that_restarts_under_load_is_reported_soon_and_found_again(
    home: Path, tmp_path: Path
) -> None:
    with running(directory=home) as swift, served(tmp_path, swift) as server:
        clients = Clients(server.port, 20)
        try:
            clients.see(200)
            wait_until_readiness_is(server.port, 200)
            kill(swift)
            clients.see(503, 40)
            wait_until_readiness_is(server.port, 503)
            hello = answer(server.port, post(message("hello", askAbout="timestamp")))
            with running(swift.port, home):
                clients.see(200)
                wait_until_readiness_is(server.port, 200)
        finally:
            clients.end()
    assert clients.errors == []
    assert hello.status == 200
    waited = [seconds for status, seconds in clients.answers if status == 503]
    assert max(waited) < 10  # nobody hangs: a store that is down is given up after 3 s
    assert statistics.median(waited) < 1  # and no caller waits for a known outage


@pytest.mark.parametrize("moment", ["before", "within"])
def test_a_job_waits_for_a_store_that_restarts(home: Path, tmp_path: Path, moment: str) -> None:
    pull = message(
        "objPull", fromLocation="chris", mapLocationOver="pulled", **{"async": True, "jid": "feed 1"}
    )
    with running(directory=home) as swift, served(tmp_path, swift, "--bwLimit", "20K") as server:
        if moment == "before":
            kill(swift)
        job = answer(server.port, post(pull)).json["job"]
        if moment == "within":
            wait_for_job(server.port, job, lambda received: received["progress"]["files"] > 2)
            kill(swift)
        received = wait_for_job(server.port, job, lambda received: "waiting" in received["progress"])
        assert "does not answer" in received["progress"]["waiting"]
        assert received["state"] == "running"
        with running(swift.port, home):
            received = wait_for_job(server.port, job, lambda received: "reply" in received)
    assert (received["state"], received["reply"]["status"], received["reply"]["failed"]) == ("done", True, [])
    assert read_tree(tmp_path / "pulled") == read_tree(tmp_path / "data")


def wait_for_job(port: int, job: str, is_so: Any) -> Any:
    deadline = time.monotonic() + LONG
    while not is_so(received := answer(port, post(message("jobStatus", job=job))).json):
        assert time.monotonic() < deadline, received
        assert received["state"] in ("queued", "running"), received
        threading.Event().wait(0.05)
    return received
