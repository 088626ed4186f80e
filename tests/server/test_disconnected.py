"""Requests of disconnected clients and cancelled jobs release their permits, also while they select no file."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import Leftovers, RunAll
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import StoppedError
from pfstorage.runtime.cancellation import LOOK_SECONDS, CancellationToken
from pfstorage.settings.model import Settings
from tests.conftest import ask, serving, swift_options
from tests.support.exchange import answers, message, multipart, post, request
from tests.support.faults import Fault, Proxy
from tests.support.waiting import settle, until


class Endless(MemoryStorage):
    """A store with endless listings of missing objects. `is_listed` is set after the start of the first listing."""

    def __init__(self) -> None:
        super().__init__(Settings(type="memory"))
        self.is_listed = threading.Event()
        self.open = 0

    def list(self, prefix: str = "", *_: Any, limit: int | None = None, **__: Any) -> Iterator[ObjectInfo]:
        self.open += 1
        try:
            for number in itertools.count():
                yield ObjectInfo(f"{prefix}{number:09}", 1, f"{number:032x}")
                if number > 1000:
                    self.is_listed.set()
                if limit == 1:
                    return
        finally:
            self.open -= 1

    def leftovers(self, takes: Callable[[str], bool], _: float, __: RunAll) -> Leftovers:
        for row in self.list():
            takes(row.key)
        raise AssertionError("the listing has no end")

    def part_size(self, *_: Any) -> Any:
        raise AssertionError("nothing is moved")

    start_multipart_upload = list_parts = remove_leftover = multipart_etag = part_size


@contextlib.contextmanager
def served(**options: Any) -> Iterator[tuple[ThreadedHTTPServer, Endless]]:
    storage = Endless()
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler, **options) as server:
        yield server, storage


def is_free(server: ThreadedHTTPServer) -> bool:
    """Return whether no request has a permit, and no thread reads a plan."""
    gates = (server.load.requests, server.load.transfers)
    plans = [each for each in threading.enumerate() if each.name == "plan"]
    return not plans and all(admission.counts()["busy"] == 0 for admission in gates)


NOTHING_OF_IT = {"include": ["*.dcm"]}
UNSELECTIVE: list[tuple[str, dict[str, Any]]] = [
    ("ls", {"substr": "dcm"}),
    ("ls", {"substr": "dcm", "retSpec": []}),
    ("ls", {"path": "a/", "delimiter": "/", "substr": "dcm"}),
    ("ls", {"sure": True}),
    ("ls", {"sure": True, "limit": 3}),
    ("objPull", NOTHING_OF_IT),
    ("objPull", {"path": "a", "substr": "dcm", "dryRun": True}),
    ("objPull", {"fileList": ["a/"], **NOTHING_OF_IT}),
    ("objPull", {"fileList": [{"from": "a/", "to": "b"}], "shard": "1/999999999"}),
    ("objVerify", {"exclude": ["*"]}),
    ("objVerify", {"fileList": ["a/"], **NOTHING_OF_IT}),
    ("objPut", {"fileList": ["file"]}),  # which the store is asked for by a listing
    ("objSweep", {"path": "b"}),
]


@pytest.mark.parametrize(("action", "meta"), UNSELECTIVE)
def test_a_disconnected_client_releases_its_permit(action: str, meta: dict[str, Any]) -> None:
    Path("file").write_bytes(b"x")
    with served() as (server, storage):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            connection.sendall(post(message(action, **meta)))
            assert storage.is_listed.wait(30)
        until(lambda: is_free(server) and storage.open == 0)
        assert ask(server, {"action": "hello", "meta": {}})[0] == 200


@pytest.mark.parametrize(("action", "meta"), [each for each in UNSELECTIVE if each[0] != "ls"])
def test_a_cancelled_job_releases_its_permit(action: str, meta: dict[str, Any], tmp_path: Path) -> None:
    Path("file").write_bytes(b"x")
    with served() as (server, storage):
        job = ask(server, {"action": action, "meta": {**meta, "async": True}})[1]["job"]
        assert storage.is_listed.wait(30)
        ask(server, {"action": "jobCancel", "meta": {"job": job}})

        def is_cancelled() -> bool:
            received = ask(server, {"action": "jobStatus", "meta": {"job": job}})[1]
            return bool(received["state"] == "cancelled")

        until(is_cancelled)
        until(lambda: is_free(server) and storage.open == 0)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_client_that_disconnects_during_an_answer_releases_its_permit(method: str) -> None:
    """The first rows are there, and no further one is selected."""
    with served() as (server, storage):
        meta = {"substr": "00000"}  # of the first few thousand
        asked = post(message("ls", **meta))
        if method == "GET":
            asked = request("GET", f"/api/v1/cmd?action=ls&meta={json.dumps(meta).replace(' ', '')}")
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            connection.sendall(asked)
            assert connection.recv(12) == b"HTTP/1.1 200"
        until(lambda: is_free(server) and storage.open == 0)


@pytest.mark.parametrize("selection", [{"include": ["*.dcm"]}, {"exclude": ["*.jpg"]}])
def test_a_push_that_finds_no_file_ends_when_its_client_disconnects(selection: dict[str, Any]) -> None:
    for level in range(12):  # a walk of ten to the power of twelve directories
        below = Path(f"level-{level}")
        below.mkdir()
        for number in range(10):
            (below / f"{number}").symlink_to(f"../level-{level + 1}")
    Path("level-12").mkdir()
    with served() as (server, _):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            meta = {"putSpec": "level-0", "followSymlinks": True, **selection}
            connection.sendall(post(message("objPut", **meta)))
            until(lambda: server.load.transfers.counts()["busy"] == 1)
        until(lambda: is_free(server))


def test_a_listing_of_nothing_ends_with_the_server() -> None:
    with contextlib.ExitStack() as stack:
        server, storage = stack.enter_context(served())
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=60)
        stack.enter_context(connection)
        connection.sendall(post(message("ls", substr="dcm")))
        assert storage.is_listed.wait(30)
        server.cancellation.cancel("the server ends")
        assert b"stopped before the end: the server ends" in connection.recv(65536)


def test_a_complete_upload_is_stored_after_its_client_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    storage = MemoryStorage(Settings(type="memory"))
    begun, has_gone = threading.Semaphore(0), threading.Semaphore(0)
    put, stored = storage.put, []

    def put_late(*given: Any, **options: Any) -> ObjectInfo:
        begun.release()
        assert has_gone.acquire(timeout=30)
        stored.append(put(*given, **options))
        return stored[-1]

    monkeypatch.setattr(storage, "put", put_late)
    form = multipart(("d_msg", message("objPut", toObject="form").encode()), ("local", b"whole"))
    uploads = {
        "put": request("PUT", "/api/v1/objects/put", "Content-Length: 5", body=b"whole"),
        "form": post(form, "Content-Type: multipart/form-data; boundary=limit"),
    }
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler) as server:
        for key, data in uploads.items():
            with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
                connection.sendall(data)
                assert begun.acquire(timeout=30)
            settle(2 * LOOK_SECONDS)
            has_gone.release()
            until(lambda key=key: [info.key for info in stored][-1:] == [key])  # type: ignore[misc]
            until(lambda: is_free(server))


def test_a_client_that_has_ended_its_own_side_alone_is_answered() -> None:
    """A client may end its request and then read to the end, as ``nc -N`` does."""
    may_go_on = threading.Event()

    class Late(MemoryStorage):
        def list(self, *_: Any, **__: Any) -> Iterator[ObjectInfo]:
            while not may_go_on.is_set():
                time.sleep(0.01)
                yield ObjectInfo("no")
            yield ObjectInfo("yes")

    with contextlib.ExitStack() as stack:
        handler = stack.enter_context(contextlib.closing(StoreHandler(Late(Settings(type="memory")))))
        server = stack.enter_context(serving(handler))
        connection = socket.create_connection(("127.0.0.1", server.server_port), timeout=60)
        stack.enter_context(connection)
        connection.sendall(post(message("ls", substr="yes")) * 2)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b"H"  # by which it shows that it is there
        settle(3 * LOOK_SECONDS)
        may_go_on.set()
        found = answers(b"H" + b"".join(iter(lambda: connection.recv(65536), b"")))
        assert [each.json["ls"] for each in found] == [[{"name": "yes"}]] * 2


def test_a_token_checks_its_client_a_few_times_a_second_until_it_is_cancelled() -> None:
    asked = []

    def is_abandoned() -> bool:
        asked.append(True)
        return len(asked) > 1

    cancellation = CancellationToken(is_abandoned=is_abandoned)
    child = CancellationToken(parent=cancellation)
    assert not any(cancellation.is_cancelled for _ in range(1000))
    assert len(asked) == 1
    until(lambda: child.is_cancelled)
    assert cancellation.is_cancelled
    assert len(asked) == 2
    assert "nobody waits" in child.reason


def test_rows_pass_until_the_stop_is_requested() -> None:
    cancellation = CancellationToken()
    assert list(cancellation.checked(range(10_000))) == list(range(10_000))
    cancellation.cancel()
    with pytest.raises(StoppedError):
        for _ in cancellation.checked(itertools.count()):
            pass
    with contextlib.closing(StoreHandler(Endless())) as handler:
        reply = handler.answer(
            {"action": "ls", "meta": {"substr": "x"}}, RequestContext(cancellation=cancellation)
        )
        assert isinstance(reply.error, StoppedError)


# a store that is silent


@pytest.fixture
def silent(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A Swift that answers logins, and no other request."""
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        storage.put("a", io.BytesIO(b"x"), 1)
        assert [row.key for row in storage.list()] == ["a"]
        proxy.forget()
        proxy.fault(Fault("stall", seconds=600), where=lambda _: True)
        yield storage


TIMEOUT_ERRORS: list[tuple[str, dict[str, Any]]] = [
    ("ls", {}),
    ("ls", {"path": "x//y"}),
    ("ls", {"sure": True}),
    ("objExists", {"obj": "a"}),
    ("objStat", {"obj": "a"}),
    ("objPull", {"fromLocation": "x//y", "mapLocationOver": "out"}),
    ("objPull", {"fileList": ["a"], "mapLocationOver": "out"}),
    ("objVerify", {"fromLocation": "x", "mapLocationOver": "out"}),
    ("objPut", {"file": "file"}),
    ("objSweep", {}),
]


@pytest.mark.parametrize(("action", "meta"), TIMEOUT_ERRORS)
def test_a_request_to_a_silent_store_ends_when_its_client_disconnects(
    silent: Storage, proxy: Proxy, action: str, meta: dict[str, Any]
) -> None:
    Path("file").write_bytes(b"x")
    with contextlib.closing(StoreHandler(silent)) as handler, serving(handler) as server:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as connection:
            connection.sendall(post(message(action, **meta)))
            until(lambda: proxy.exchanges != [])
        until(lambda: is_free(server))


def test_a_cancelled_job_waits_for_no_silent_store(silent: Storage, proxy: Proxy) -> None:
    with contextlib.closing(StoreHandler(silent)) as handler, serving(handler) as server:
        meta = {"fromLocation": "x//y", "mapLocationOver": "out", "async": True}
        job = ask(server, {"action": "objPull", "meta": meta})[1]["job"]
        until(lambda: proxy.exchanges != [])
        ask(server, {"action": "jobCancel", "meta": {"job": job}})
        until(
            lambda: bool(
                ask(server, {"action": "jobStatus", "meta": {"job": job}})[1]["state"] == "cancelled"
            )
        )
