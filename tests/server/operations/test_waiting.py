"""Requests that wait for others, and requests that must not."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer
from pfstorage.backends import ObjectInfo
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server
from tests.support.exchange import message, request
from tests.support.held import Held
from tests.support.operations import CMD, metric

LISTING = {"action": "ls", "meta": {"path": "x"}}


def test_quick_requests_do_not_wait_for_transfers(held: tuple[Held, ThreadedHTTPServer]) -> None:
    storage, server = held
    pull = {"action": "objPull", "meta": {"path": "x", "mapLocationOver": "out"}}
    with ThreadPoolExecutor() as threads:
        pulling = threads.submit(ask, server, pull)
        assert storage.asked.acquire(timeout=60)
        assert metric(server, 'pfstorage_transfers{state="busy"}') == 1
        assert metric(server, 'pfstorage_workers{state="busy"}') == 1
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
        while metric(server, 'pfstorage_transfers{state="waiting"}') < 3:
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
        assert metric(server, 'pfstorage_workers{state="busy"}') == 1  # which it shares with all others
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
