"""Missing headers and missing fields of a store: their values are unknown, and neither zero nor empty."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.actions import sweep as sweeping
from pfstorage.backends import Storage
from pfstorage.backends.capabilities import Leftover, Leftovers
from pfstorage.backends.contract import ByteRange
from pfstorage.devswift import DevSwift
from pfstorage.errors import IntegrityError
from tests.conftest import read_tree, run, serving, swift_options, write_tree
from tests.support.exchange import exchange, request
from tests.support.faults import Fault, Proxy
from tests.support.large import content_of, is_manifest

OBJECTS = "/api/v1/objects"
CONTENT = bytes(range(256)) * 3000
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def storage(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A Swift behind *proxy* that holds the object ``x/a``."""
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        storage.put("x/a", io.BytesIO(CONTENT), len(CONTENT))
        proxy.forget()
        yield storage


@pytest.fixture
def server(storage: Storage) -> Iterator[ThreadedHTTPServer]:
    with serving(StoreHandler(storage)) as server:
        yield server


def ask(
    server: ThreadedHTTPServer, method: str, path: str = "/x/a", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    ) as client:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        client.request(method, f"{OBJECTS}{path}", body, given)
        answer = client.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def without(*headers: str, until_end: bool = False) -> list[Fault]:
    return [Fault("omit", header=header, until_end=until_end) for header in headers]


@pytest.mark.parametrize(
    ("header", "field"),
    [("Content-Length", "bytes"), ("Etag", "hash"), ("Content-Type", "content_type")],
)
def test_values_that_a_head_omits_are_null(storage: Storage, proxy: Proxy, header: str, field: str) -> None:
    reported = run(storage, "objStat", obj="x/a")["objStat"]
    proxy.fault(*without(header), "HEAD")
    assert run(storage, "objStat", obj="x/a")["objStat"] == {**reported, field: None}
    assert run(storage, "objExists", obj="x/a")["status"] is True


def test_a_time_that_a_head_omits_is_null(storage: Storage, proxy: Proxy) -> None:
    for fault in without("Last-Modified", "X-Timestamp"):
        proxy.fault(fault, "HEAD")
    assert run(storage, "objStat", obj="x/a")["objStat"]["last_modified"] is None


def test_an_empty_object_has_0_bytes(storage: Storage) -> None:
    storage.put("x/empty", io.BytesIO(), 0)
    assert run(storage, "objStat", obj="x/empty")["objStat"]["bytes"] == 0


@pytest.mark.parametrize("until_end", [False, True])
@pytest.mark.parametrize(
    "headers", [("Content-Length",), ("Content-Length", "Etag"), ("Etag",), ("Last-Modified",)]
)
def test_an_object_with_missing_headers_is_served_whole(
    server: ThreadedHTTPServer, proxy: Proxy, headers: tuple[str, ...], until_end: bool
) -> None:
    for fault in without(*headers, until_end=until_end):
        proxy.fault(fault)
    if until_end and len(headers) == 2:  # nothing shows that this is all
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            ask(server, "GET")
        return
    status, reported, content = ask(server, "GET")
    assert (status, content) == (200, CONTENT)
    assert ("ETag" in reported) == ("Etag" not in headers)
    assert ("Content-Length" in reported) == ("Content-Length" not in headers)
    status, reported, content = ask(server, "HEAD")
    assert (status, content, "Content-Length" in reported) == (200, b"", "Content-Length" not in headers)


def test_the_end_of_the_connection_shows_an_unknown_length_to_an_old_client(
    server: ThreadedHTTPServer, proxy: Proxy
) -> None:
    proxy.fault(*without("Content-Length"), "GET")
    found = exchange(server.server_port, request("GET", f"{OBJECTS}/x/a", version="HTTP/1.0"))
    head, _, content = found.partition(b"\r\n\r\n")
    assert content == CONTENT
    assert b"chunked" not in head.lower()


def test_an_old_client_sees_that_its_download_is_cut(server: ThreadedHTTPServer, proxy: Proxy) -> None:
    """Only the end shows such a client how long the content is, so a cut download must not end cleanly."""
    for fault in [*without("Content-Length", "Etag", until_end=True), Fault("close", at=300_000)]:
        proxy.fault(fault, "GET")
    with pytest.raises(ConnectionResetError):
        exchange(server.server_port, request("GET", f"{OBJECTS}/x/a", version="HTTP/1.0"))


@pytest.mark.parametrize("asked", ["bytes=5-9", "bytes=767000-", "bytes=-5"])
@pytest.mark.parametrize("header", ["Content-Length", "Etag", "Last-Modified"])
def test_a_range_with_missing_headers_is_served(
    server: ThreadedHTTPServer, proxy: Proxy, header: str, asked: str
) -> None:
    proxy.fault(*without(header))
    first, _, last = asked.removeprefix("bytes=").partition("-")
    part = CONTENT[int(first) : int(last) + 1 if last else None] if first else CONTENT[-int(last) :]
    status, reported, content = ask(server, "GET", Range=asked)
    assert (status, content) == (206, part)
    assert reported["Content-Range"].endswith(f"/{len(CONTENT)}")


def test_a_range_without_a_position_is_not_taken_for_the_requested_one(
    server: ThreadedHTTPServer, storage: Storage, proxy: Proxy
) -> None:
    proxy.fault(*without("Content-Range"), "GET")
    status, _, text = ask(server, "GET", Range="bytes=5-9")
    assert (status, json.loads(text)["error"]["type"]) == (502, "IntegrityError")
    with pytest.raises(IntegrityError, match="no valid Content-Range"):
        storage.get("x/a", io.BytesIO(), ByteRange(5, 5, MD5))


def test_no_condition_is_true_for_an_unknown_etag(server: ThreadedHTTPServer, proxy: Proxy) -> None:
    proxy.fault(*without("Etag"))
    for etag in (f'"{MD5}"', '""'):
        assert ask(server, "GET", If_Match=etag)[0] == 412
        assert ask(server, "GET", If_None_Match=etag)[::2] == (200, CONTENT)


@pytest.mark.parametrize("until_end", [False, True])
@pytest.mark.parametrize("headers", [("Content-Length",), ("Content-Length", "Etag"), ("Etag",)])
@pytest.mark.parametrize("segment_size", ["1G", "256K"])
def test_a_pulled_object_with_missing_headers_is_whole(
    storage: Storage,
    proxy: Proxy,
    tmp_path: Path,
    headers: tuple[str, ...],
    until_end: bool,
    segment_size: str,
) -> None:
    sizes = {"segmentSize": segment_size}
    write_tree(tmp_path, {"data/a": CONTENT, "data/empty": b""})
    assert run(storage, "objPut", sizes, putSpec="data", inLocation="y", mapLocationOver="data")["status"]
    for fault in without(*headers, until_end=until_end):
        proxy.fault(fault)
    pull = {"path": "y/", "fromLocation": "y", "mapLocationOver": "out"}
    assert run(storage, "objPull", sizes, **pull)["objectFileList"] == ["y/a", "y/empty"]
    assert read_tree(tmp_path / "out") == {"a": CONTENT, "empty": b""}
    verified = run(storage, "objVerify", sizes, **pull)
    assert (verified["status"], verified["same"]) == (True, 2)
    again = run(storage, "objPull", sizes, **pull)
    assert (again["status"], again["skipped"] > 0) == (True, True)


@pytest.mark.parametrize("at", [0, 300_000])
def test_a_cut_pull_of_unknown_length_is_not_taken_for_whole(
    storage: Storage, proxy: Proxy, tmp_path: Path, at: int
) -> None:
    pull = {"path": "x/a", "fromLocation": "x", "mapLocationOver": "out"}
    for fault in [*without("Content-Length", "Etag", until_end=True), Fault("close", at=at)]:
        proxy.fault(fault, "GET")
    reply = run(storage, "objPull", **pull)
    assert (reply["status"], reply["error"]["type"]) == (False, "IntegrityError")
    assert not (tmp_path / "out" / "a").exists()
    proxy.forget()
    for fault in [*without("Content-Length", "Etag", until_end=True), Fault("close", at=at)]:
        proxy.fault(fault, "GET", on={1})
    assert run(storage, "objPull", **pull)["status"] is True
    assert (tmp_path / "out" / "a").read_bytes() == CONTENT


def test_an_interrupted_download_is_not_joined_to_bytes_of_another_object(
    storage: Storage, proxy: Proxy
) -> None:
    for fault in [*without("Etag"), Fault("close", at=300_000)]:
        proxy.fault(fault, "GET", on={1})
    with pytest.raises(IntegrityError, match="no ETag to continue it safely"):
        storage.get("x/a", io.BytesIO())
    assert len(proxy.made("GET")) == 1


def test_a_put_whose_answer_has_no_etag_is_verified_by_another_request(
    storage: Storage, proxy: Proxy
) -> None:
    proxy.fault(*without("Etag"), "PUT")
    assert storage.put("x/b", io.BytesIO(CONTENT), len(CONTENT)).etag == MD5
    assert [len(proxy.made(method)) for method in ("PUT", "HEAD")] == [1, 1]
    proxy.fault(*without("Etag"), "HEAD")
    with pytest.raises(IntegrityError, match="sent no ETag"):
        storage.put("x/b", io.BytesIO(CONTENT), len(CONTENT))


def test_a_large_object_whose_answer_has_no_etag_is_verified_by_another_request(
    storage: Storage, proxy: Proxy
) -> None:
    def without_etag(content: bytes) -> bytes:
        return json.dumps({**json.loads(content), "Etag": None}).encode()

    write_tree(Path.cwd(), {"data/large": CONTENT})
    proxy.fault(Fault("change", change=without_etag), "PUT", where=is_manifest)
    pushed = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
    reply = run(storage, "objPut", {"segmentSize": "256K"}, **pushed)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert len(proxy.struck) == len(proxy.made("HEAD")) == 1
    assert content_of(storage) == CONTENT
    proxy.fault(*without("Etag"), "HEAD")
    reply = run(storage, "objPut", {"segmentSize": "256K"}, **pushed, overwrite="always")
    assert "the store has other segments" in reply["failed"][0]["msg"]


ROW = {
    "name": "a",
    "bytes": len(CONTENT),
    "hash": MD5,
    "last_modified": "2026-11-30T10:00:00.000000",
    "content_type": "text/plain",
}


@contextlib.contextmanager
def listing(swift: DevSwift, *rows: dict[str, Any]) -> Iterator[Storage]:
    """Open a storage whose listing has just *rows*; nothing else is answered."""

    class Lister(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"" if self.path.startswith("/auth") else json.dumps(rows).encode()
            found = self.path.startswith("/auth") or "format=json" in self.path
            self.send_response(200 if found else 404)
            self.send_header("X-Storage-Url", f"http://{self.headers['Host']}/v1/a")
            self.send_header("X-Auth-Token", "token")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Lister) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/auth/v1.0"
        try:
            with open_storage(**{**swift_options(swift), "auth_url": address}) as storage:
                yield storage
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("field", ["bytes", "hash", "last_modified", "content_type"])
@pytest.mark.parametrize("is_null", [False, True])
def test_values_that_a_row_of_a_listing_omits_are_null(swift: DevSwift, field: str, is_null: bool) -> None:
    row = {**ROW, field: None} if is_null else {name: each for name, each in ROW.items() if name != field}
    with listing(swift, row) as storage:
        assert run(storage, "ls", retSpec=list(ROW))["ls"] == [{**ROW, field: None}]
        assert run(storage, "ls", retSpec=[])["ls"]["objectDict"] == [{**ROW, field: None}]
        with serving(StoreHandler(storage)) as server:
            assert json.loads(ask(server, "GET", "?limit=10")[2])["objects"] == [{**ROW, field: None}]


@pytest.mark.parametrize("size", [-1, "12", 1.5, True])
def test_an_invalid_number_of_bytes_is_unknown(swift: DevSwift, size: object) -> None:
    with listing(swift, {**ROW, "bytes": size}) as storage:
        assert [row.size for row in storage.list()] == [None]


@pytest.mark.parametrize("meta", [{}, {"reply": "summary"}, {"overwrite": "always"}])
def test_a_dry_run_reports_no_sum_if_a_size_is_unknown(swift: DevSwift, meta: dict[str, Any]) -> None:
    pulled = {"path": "", "mapLocationOver": "out", "dryRun": True, **meta}
    with listing(swift, ROW) as storage:
        assert run(storage, "objPull", **pulled)["bytes"] == ROW["bytes"]
    with listing(swift, {**ROW, "bytes": None}) as storage:
        reply = run(storage, "objPull", **pulled)
        assert (reply["status"], reply["bytes"]) == (True, None)


def test_leftovers_have_no_sum_if_a_size_is_unknown() -> None:
    segments = [Leftover("a/1", "a", 1, ""), Leftover("a/2", "a", None, "")]
    assert sweeping._leftovers_body(Leftovers(segments, 1, ()), dry_run=True)["bytes"] is None
    assert sweeping._leftovers_body(Leftovers(segments[:1], 1, ()), dry_run=True)["bytes"] == 1


def test_a_file_is_compared_by_its_md5_if_no_size_is_known(swift: DevSwift, tmp_path: Path) -> None:
    row = {name: each for name, each in ROW.items() if name != "bytes"}
    verify = {"path": "", "mapLocationOver": "out"}
    for content, status in ((CONTENT, True), (b"", False), (CONTENT[:-1] + b"x", False)):
        write_tree(tmp_path, {"out/a": content})
        with listing(swift, row) as storage:
            assert run(storage, "objVerify", **verify)["status"] is status
    del row["hash"]
    write_tree(tmp_path, {"out/a": b""})
    with listing(swift, row) as storage:
        assert run(storage, "objVerify", **verify)["status"] is False
    with listing(swift, {**row, "name": "d/"}) as storage:
        reply = run(storage, "objPull", path="", mapLocationOver="out")
        assert "may have content" in reply["failed"][0]["msg"]
