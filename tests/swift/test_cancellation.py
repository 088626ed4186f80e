"""Cancellation: the state of the token. Running work ends soon and tidily, and can be resumed later."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import StoppedError
from pfstorage.local import is_unfinished
from pfstorage.runtime.cancellation import CancellationToken
from tests.conftest import ROOT, read_tree, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy, is_listing
from tests.support.local import parts_in
from tests.support.waiting import ENDS

MOST_SECONDS = 5.0
"""Within so much all ends, whatever the store does."""
TREE = {f"{number:03}": b"x" * (1000 + number) for number in range(120)}
PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL = {"fromLocation": "s", "mapLocationOver": "out"}


@pytest.fixture(scope="module")
def filled(swift: DevSwift, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make a container with the objects of `TREE` below ``s``. No test changes these objects."""
    data = tmp_path_factory.mktemp("filled")
    write_tree(data, TREE)
    put = {"putSpec": str(data), "inLocation": "s", "mapLocationOver": str(data)}
    with open_storage(**swift_options(swift)) as storage:
        assert run(storage, "objPut", CancellationToken(), **put)["status"] is True
        return storage.settings.swift.container_name


@pytest.fixture
def slow(swift: DevSwift, proxy: Proxy, filled: str, tmp_path: Path) -> Iterator[Storage]:
    """Open a Swift behind the proxy that has the files of the directory ``data``."""
    write_tree(tmp_path / "data", TREE)
    options = {**swift_options(swift, auth_url=proxy.auth_url), "container_name": filled}
    with open_storage(**options) as storage:
        yield storage


def options_of(storage: Storage) -> dict[str, str]:
    swift = storage.settings.swift
    return {"auth_url": swift.auth_url, "container_name": swift.container_name}


def run(storage: Storage, action: str, cancellation: CancellationToken, **meta: Any) -> dict[str, Any]:
    return StoreHandler(storage).run(
        {"action": action, "meta": meta}, RequestContext(cancellation=cancellation)
    )


def finished_in(directory: Path) -> list[str]:
    return [name for name in os.listdir(directory) if not is_unfinished(name)] if directory.is_dir() else []


def stopped_when(
    ready: Callable[[], bool], storage: Storage, action: str, **meta: Any
) -> tuple[dict[str, Any], float]:
    """Run *action*, and cancel it when *ready* returns true. Return the reply and the seconds since then."""
    cancellation, replies = CancellationToken(), []
    thread = threading.Thread(target=lambda: replies.append(run(storage, action, cancellation, **meta)))
    thread.start()
    end = time.monotonic() + 30
    while not ready() and time.monotonic() < end and thread.is_alive():
        time.sleep(0.002)
    asked = time.monotonic()
    cancellation.cancel("the test is tired")
    thread.join(30)
    assert not thread.is_alive()
    return replies[0], time.monotonic() - asked


def test_a_cancellation_token_reports_its_state() -> None:
    cancellation = CancellationToken(grace_seconds=60.0)
    assert (
        cancellation.is_cancelled,
        cancellation.is_overdue,
        cancellation.has_listeners,
        cancellation.reason,
    ) == (False, False, False, "")
    cancellation.raise_if_overdue()
    with cancellation.listening(), cancellation.listening():
        assert cancellation.has_listeners
    assert not cancellation.has_listeners
    cancellation.cancel("first")
    cancellation.cancel("second")
    assert (cancellation.is_cancelled, cancellation.reason) == (True, "first")
    cancellation.raise_if_overdue()  # there is time yet
    cancellation = CancellationToken(grace_seconds=0.01)
    cancellation.cancel("first")
    time.sleep(0.02)
    assert cancellation.is_overdue
    with pytest.raises(StoppedError, match="stopped before the end: first"):
        cancellation.raise_if_overdue()


def test_a_request_of_the_parent_is_one_of_the_child_and_not_the_other_way_round() -> None:
    parent = CancellationToken(grace_seconds=0.0)
    child, other = CancellationToken(parent=parent), CancellationToken(parent=parent)
    child.cancel("mine")
    assert (child.is_cancelled, parent.is_cancelled, other.is_cancelled) == (True, False, False)
    with other.listening():
        assert parent.has_listeners
    assert not parent.has_listeners
    parent.cancel("all")
    time.sleep(0.001)
    assert (other.is_cancelled, other.is_overdue, other.reason, child.reason) == (True, True, "all", "mine")


@pytest.mark.parametrize("of_parent", [False, True])
def test_a_sleeping_call_is_woken(of_parent: bool) -> None:
    parent = CancellationToken()
    cancellation = CancellationToken(parent=parent)
    cancellation.sleep(0.001)
    threading.Timer(0.05, (parent if of_parent else cancellation).cancel).start()
    started = time.monotonic()
    with pytest.raises(StoppedError):
        cancellation.sleep(3600)
    assert time.monotonic() - started < MOST_SECONDS
    with pytest.raises(StoppedError):
        cancellation.sleep(0)


def test_a_transfer_cancelled_before_it_begins_moves_nothing(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    run(storage, "objPut", CancellationToken(), **PUT)
    cancellation = CancellationToken()
    cancellation.cancel()
    for action, meta in (("objPut", {**PUT, "inLocation": "t"}), ("objPull", PULL), ("objVerify", PULL)):
        reply = run(storage, action, cancellation, **meta)
        assert (reply["status"], reply["error"]["type"]) == (False, "StoppedError")
        if action != "objVerify":  # clients that read these keys find them
            assert (reply["localFileList"], reply["objectFileList"], reply["failed"]) == ([], [], [])
            assert (reply["bytes"], reply["skipped"]) == (0, 0)
    assert not [row.key for row in storage.list("t")]
    assert read_tree(tmp_path / "out") == {}


@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_a_cancelled_transfer_reports_finished_files_and_the_next_run_moves_the_rest(
    slow: Storage, proxy: Proxy, action: str, tmp_path: Path
) -> None:
    location = tmp_path.name
    meta = {**PUT, "inLocation": location} if action == "objPut" else PULL
    method = "PUT" if action == "objPut" else "GET"
    proxy.fault(Fault("stall", seconds=0.02), method)
    reply, seconds = stopped_when(lambda: len(proxy.made(method)) > 30, slow, action, **meta)
    assert seconds < MOST_SECONDS
    assert (reply["status"], reply["error"]["type"]) == (False, "StoppedError")
    assert "stopped before the end: the test is tired; send the same message again" in reply["msg"]
    done = reply["objectFileList"]
    assert 20 < len(done) < len(TREE)
    assert reply["failed"] == []
    there = (
        [row.key for row in slow.list(f"{location}/")]
        if action == "objPut"
        else [f"s/{name}" for name in read_tree(tmp_path / "out")]
    )
    assert set(done) <= set(there)
    again = run(slow, action, CancellationToken(), **meta)
    assert (again["status"], again["skipped"]) == (True, len(there))


def test_a_listing_that_stalls_does_not_delay_a_stop(slow: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("stall", seconds=60), "GET", where=is_listing)
    for action, meta in (("objPull", PULL), ("objPut", PUT), ("objVerify", PULL)):
        proxy.exchanges.clear()
        reply, seconds = stopped_when(lambda: proxy.listings > 0, slow, action, **meta)
        assert seconds < MOST_SECONDS
        assert reply["error"]["type"] == "StoppedError"


@pytest.mark.parametrize("retries", [0, 3])
def test_a_transfer_cancelled_while_a_later_page_stalls_reports_finished_files(
    slow: Storage, proxy: Proxy, retries: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("backends.swift.listing.ROWS_PER_PAGE", "actions.pull.CHECKED_FIRST"):
        monkeypatch.setattr(f"pfstorage.{name}", 20)
    with open_storage(type="swift", **options_of(slow), retries=retries) as storage:
        for number in range(5):
            proxy.forget()
            proxy.fault(Fault("stall", seconds=60), "GET", on=[3], where=is_listing)
            out = tmp_path / str(number)

            def is_stalled(out: Path = out) -> bool:
                return proxy.listings == 3 and len(finished_in(out)) == 40

            reply, seconds = stopped_when(
                is_stalled, storage, "objPull", fromLocation="s", mapLocationOver=str(out)
            )
            assert seconds < MOST_SECONDS
            assert reply["error"]["type"] == "StoppedError"
            assert len(reply["objectFileList"]) == 40


def test_a_listing_from_the_other_end_that_stalls_does_not_delay_a_stop(
    slow: Storage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.backends.swift.listing.ROWS_PER_PAGE", 5)
    monkeypatch.setattr("pfstorage.backends.swift.pages.FROM_BOTH_ENDS_AFTER", 1)
    proxy.fault(Fault("stall", seconds=0.05), "GET", where=is_listing)

    def is_reverse(exchange: Exchange) -> bool:
        return is_listing(exchange) and "reverse" in exchange.query

    proxy.fault(Fault("stall", seconds=60), "GET", where=is_reverse)
    reply, seconds = stopped_when(lambda: len(proxy.made("GET", is_reverse)) > 0, slow, "objVerify", **PULL)
    assert proxy.made("GET", is_reverse)
    assert seconds < MOST_SECONDS
    assert reply["error"]["type"] == "StoppedError"


@pytest.mark.parametrize("at", [None, 500])
@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_files_that_stall_are_given_up_and_leave_nothing(
    slow: Storage, proxy: Proxy, action: str, at: int | None, tmp_path: Path
) -> None:
    meta = {**PUT, "inLocation": tmp_path.name} if action == "objPut" else PULL
    method = "PUT" if action == "objPut" else "GET"
    side: Any = "request" if action == "objPut" else "answer"
    proxy.fault(Fault("stall", at=at, side=side, seconds=60), method, on=range(40, 1000))
    reply, seconds = stopped_when(lambda: len(proxy.made(method)) >= 47, slow, action, **meta)
    assert seconds < MOST_SECONDS
    assert reply["error"]["type"] == "StoppedError"
    assert len(reply["objectFileList"]) == 39
    if action == "objPull":
        assert parts_in("out") == []
        assert read_tree(tmp_path / "out").items() <= TREE.items()


def test_a_pause_of_the_rate_limiter_does_not_delay_a_cancellation(slow: Storage, tmp_path: Path) -> None:
    handler = StoreHandler(slow)
    handler.state.set("/this/bwLimit", 1000)
    cancellation = CancellationToken()
    threading.Timer(0.3, cancellation.cancel).start()
    started = time.monotonic()
    reply = handler.run({"action": "objPull", "meta": PULL}, RequestContext(cancellation=cancellation))
    assert time.monotonic() - started < MOST_SECONDS
    assert reply["error"]["type"] == "StoppedError"
    assert parts_in("out") == []


def test_an_audit_that_waits_for_the_store_ends_soon(slow: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("stall", seconds=60, side="request"), "HEAD")

    def is_asked() -> bool:
        return bool(proxy.made("HEAD"))

    reply, seconds = stopped_when(is_asked, slow, "objPut", **PUT, audit=True)
    assert seconds < MOST_SECONDS
    assert len(reply["objectFileList"]) == len(TREE)
    assert (reply["status"], reply["audit"]["error"]["type"]) == (False, "StoppedError")


@contextlib.contextmanager
def pulling(slow: Storage, proxy: Proxy, requests: int) -> Iterator[subprocess.Popen[str]]:
    """Start a pull on the command line, and yield its process when it has sent so many GET *requests*."""
    flags = ["--swiftAuthUrl", proxy.auth_url, "--swiftContainer", slow.settings.swift.container_name]
    command = [sys.executable, "-m", "pfstorage", *flags, "--action", "objPull", "--args", json.dumps(PULL)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ
    ) as process:
        while len(proxy.made("GET")) < requests and process.poll() is None:
            time.sleep(0.002)
        yield process


@pytest.mark.parametrize(("number", "status"), ENDS)
def test_a_signal_ends_the_command_with_a_whole_reply(
    slow: Storage, proxy: Proxy, number: int, status: int, tmp_path: Path
) -> None:
    proxy.fault(Fault("stall", seconds=60), "GET", on=range(40, 1000))
    with pulling(slow, proxy, requests=47) as process:
        asked = time.monotonic()
        process.send_signal(number)
        said, complaints = process.communicate(timeout=60)
    assert time.monotonic() - asked < MOST_SECONDS
    assert process.returncode == status
    reply = json.loads(said)
    assert (reply["status"], reply["error"]["type"]) == (False, "StoppedError")
    assert reply["objectFileList"] == [f"s/{name}" for name in sorted(read_tree(tmp_path / "out"))]
    assert "Traceback" not in complaints
    assert parts_in("out") == []


def test_the_second_signal_ends_the_command_at_once(slow: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("stall", seconds=60), "GET")
    with pulling(slow, proxy, requests=8) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in complaints
    assert parts_in("out") == []
