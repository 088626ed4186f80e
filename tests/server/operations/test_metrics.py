"""The metrics of a server."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.devswift import DevSwift
from pfstorage.server.options import ServerOptions
from tests.conftest import ask, running_server, serving, swift_options, write_tree
from tests.support.faults import Fault, proxy_to
from tests.support.operations import get, metric


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
        before = metric(server, "pfstorage_retries_total")
        proxy.fault(Fault("answer", status=503, retry_after=0), method="PUT", on={1})
        meta = {"putSpec": "data", "inLocation": "x", "mapLocationOver": "data", "async": True}
        job = ask(server, {"action": "objPut", "meta": meta})[1]["job"]
        reply = ask(server, {"action": "jobStatus", "meta": {"job": job, "wait": 30}})[1]
        assert reply["state"] == "done"
        assert metric(server, "pfstorage_retries_total") == before + 1
        assert metric(server, 'pfstorage_jobs{state="done"}') == 1
        assert metric(server, 'pfstorage_store_connections{state="idle"}') > 0
        assert metric(server, 'pfstorage_store_connections{state="busy"}') == 0


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
