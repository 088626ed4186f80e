"""The probes of a server: whether it is alive, and whether its store answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import PermissionDeniedError, StorageError, UnavailableError
from pfstorage.server.endpoints import health
from pfstorage.server.options import ServerOptions
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import Settings
from tests.conftest import ask, running_server, serving
from tests.support.exchange import HELLO
from tests.support.operations import get


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
