"""Long replies over HTTP: the server streams their rows, and a client recognises a reply that was cut."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import shutil
import subprocess
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import ObjectInfo
from pfstorage.backends.memory import MemoryStorage
from pfstorage.backends.swift.rows import rows_coming, rows_of
from pfstorage.devswift import DevSwift
from pfstorage.errors import UnavailableError
from pfstorage.server.exchange import MAX_UNPACKED
from pfstorage.settings.model import Settings
from pfstorage.wire.json_text import ROWS_AT_ONCE
from pfstorage.wire.reply import Reply
from tests.conftest import serving, swift_options
from tests.support.exchange import exchange, message, post, request
from tests.support.faults import Fault, is_listing, proxy_to

LONG = 20 * ROWS_AT_ONCE


class Listed(MemoryStorage):
    """A store whose listing has *count* rows and then, if it *breaks*, an error; there are no objects."""

    def __init__(self, count: int, breaks: bool = False) -> None:
        super().__init__(Settings(type="memory"))
        self.count = count
        self.breaks = breaks
        self.is_closed = threading.Event()

    def list(self, *_: Any, **__: Any) -> Iterator[ObjectInfo]:
        try:
            for number in range(self.count):
                yield ObjectInfo(
                    f"s/{number:07}<&>", number, f"{number:032x}", "2026-11-30T10:00:00", "text/plain"
                )
            if self.breaks:
                raise UnavailableError("the store has gone")
        finally:
            self.is_closed.set()


@contextlib.contextmanager
def served(count: int, breaks: bool = False, **settings: Any) -> Iterator[tuple[ThreadedHTTPServer, Listed]]:
    storage = Listed(count, breaks)
    with contextlib.closing(StoreHandler(storage)) as handler:
        for name, value in settings.items():
            handler.state.set(f"/this/{name}", value)
        with serving(handler) as server:
            yield server, storage


def ask(server: ThreadedHTTPServer, method: str = "POST", **meta: Any) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    with contextlib.closing(connection):
        path = (
            "/api/v1/cmd"
            if method == "POST"
            else f"/api/v1/cmd?action=ls&meta={json.dumps(meta).replace(' ', '')}"
        )
        connection.request(method, path, message("ls", **meta) if method == "POST" else None)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


def metrics_of(server: ThreadedHTTPServer) -> str:
    with contextlib.closing(
        http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    ) as connection:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("ret_spec", [["name"], ["name", "bytes", "hash"], []])
@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, LONG])
def test_a_reply_is_the_same_text_in_each_form(count: int, ret_spec: list[str], method: str) -> None:
    with served(count) as (server, storage), contextlib.closing(StoreHandler(storage)) as handler:
        status, headers, content = ask(server, method, retSpec=ret_spec)
        whole = Reply(handler.run({"action": "ls", "meta": {"retSpec": ret_spec}}))
        assert content.decode() == whole.to_json()
        assert next(iter(json.loads(content))) == "status"
        assert (status, headers["Content-Type"]) == (200, "application/json")
        assert ("Content-Length" in headers) == (count <= ROWS_AT_ONCE)


def test_a_long_reply_is_a_chunked_one_and_the_connection_is_kept() -> None:
    with served(LONG) as (server, _):
        asked = post(message("ls"))
        found = exchange(server.server_port, asked + post(message("ls", limit=1)))
        assert found.count(b"HTTP/1.1 200 OK") == 2
        assert found.count(b"Transfer-Encoding: chunked") == 1
        assert b"\r\n0\r\n\r\nHTTP/1.1 200" in found


def test_a_client_of_http_1_0_gets_a_long_reply_without_chunks() -> None:
    with served(LONG) as (server, _):
        content = message("ls")
        asked = request(
            "POST", "/api/v1/cmd", f"Content-Length: {len(content)}", body=content, version="HTTP/1.0"
        )
        head, _, body = exchange(server.server_port, asked).partition(b"\r\n\r\n")
        assert b"chunked" not in head.lower()
        assert b"Connection: close" in head
        assert len(json.loads(body)["ls"]) == LONG


def test_common_clients_take_a_long_reply() -> None:
    with served(LONG) as (server, _):
        address = f"http://127.0.0.1:{server.server_port}/api/v1/cmd"
        assert len(requests.post(address, message("ls"), timeout=60).json()["ls"]) == LONG
        curl = shutil.which("curl")
        assert curl, "the tests need curl"
        for version in ("--http1.0", "--http1.1"):
            done = subprocess.run(
                [curl, "--silent", "--show-error", "--fail", version, "--data", message("ls"), address],
                capture_output=True, check=True,
            )  # fmt: skip
            assert len(json.loads(done.stdout)["ls"]) == LONG


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_ONCE])
@pytest.mark.parametrize("ret_spec", [["name"], []])
def test_a_listing_that_breaks_off_soon_is_an_error_as_any_other(count: int, ret_spec: list[str]) -> None:
    with served(count, breaks=True) as (server, _):
        status, _, content = ask(server, retSpec=ret_spec)
        assert (status, json.loads(content)["error"]["type"]) == (503, "UnavailableError")
        assert 'pfstorage_messages_total{action="ls",status="503"} 1.0' in metrics_of(server)


@pytest.mark.parametrize("ret_spec", [["name"], []])
def test_a_listing_that_breaks_off_late_is_never_taken_for_whole(ret_spec: list[str]) -> None:
    with served(LONG, breaks=True) as (server, _):
        with pytest.raises(http.client.IncompleteRead) as caught:
            ask(server, retSpec=ret_spec)
        with pytest.raises(json.JSONDecodeError):
            json.loads(caught.value.partial)
        content = message("ls", retSpec=ret_spec)
        asked = request(
            "POST", "/api/v1/cmd", f"Content-Length: {len(content)}", body=content, version="HTTP/1.0"
        )
        with pytest.raises(ConnectionResetError):
            exchange(server.server_port, asked)
        assert 'pfstorage_messages_total{action="ls",status="503"} 2.0' in metrics_of(server)


def test_the_head_of_a_long_reply_lists_nothing_more() -> None:
    with served(LONG) as (server, storage):
        status, headers, content = ask(server, "HEAD")
        assert (status, content, headers["Content-Type"]) == (200, b"", "application/json")
        assert storage.is_closed.wait(30)
        assert 'pfstorage_messages_total{action="ls",status="200"} 1.0' in metrics_of(server)


def test_a_client_that_goes_away_ends_the_listing() -> None:
    with served(10**9) as (server, storage):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        connection.request("POST", "/api/v1/cmd", message("ls"))
        answer = connection.getresponse()
        answer.read(1000)
        answer.close()
        connection.close()
        assert storage.is_closed.wait(30)


def test_a_long_reply_that_passes_for_html_has_no_markup() -> None:
    with served(LONG, httpResponse=True) as (server, _):
        _, headers, content = ask(server)
        assert headers["Content-Type"].startswith("text/html")
        assert not set(b"<&>") & set(content)
        assert json.loads(content)["ls"][1] == {"name": "s/0000001<&>"}


def test_a_record_of_a_long_reply_is_whole(tmp_path_factory: pytest.TempPathFactory) -> None:
    records = tmp_path_factory.mktemp("records")
    with served(LONG, debugToDir=str(records)) as (server, _):
        assert len(json.loads(ask(server)[2])["ls"]) == LONG
        [record] = records.iterdir()
        assert len(json.loads(record.read_text())["reply"]["ls"]) == LONG


@pytest.mark.parametrize("ret_spec", [["name", "bytes"], []])
def test_a_listing_of_many_rows_takes_little_memory(ret_spec: list[str]) -> None:
    with served(60_000) as (server, _):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        with contextlib.closing(connection):
            tracemalloc.start()
            try:
                connection.request("POST", "/api/v1/cmd", message("ls", retSpec=ret_spec))
                answer = connection.getresponse()
                size = 0
                while block := answer.read(65536):
                    size += len(block)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    assert size > 4_000_000
    assert peak < (
        1_000_000 if ret_spec else 4_000_000
    )  # the long form repeats the names, which wait, packed


ROWS = [
    {"name": f'ä"{number}\\], {{', "bytes": number, "hash": "x", "last_modified": "", "content_type": ""}
    for number in range(50)
]


@pytest.mark.parametrize("size", [1, 2, 7, 100, 10**6])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_are_the_same_in_chunks_of_any_size(size: int, indent: int | None) -> None:
    for rows in (ROWS, [{"subdir": "a/"}], []):
        content = b" \n" + json.dumps(rows, indent=indent, ensure_ascii=False).encode() + b"\n"
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        found = rows_coming(chunks)
        assert list(found) == rows_of(content)
        assert len(found) == len(rows)
        for broken in (content[:-2], content + b"x", b"x" + content, content.replace(b"[", b"{", 1)):
            with pytest.raises(ValueError, match=r"must be|cut off|Expecting|Extra"):
                rows_coming([broken[start : start + size] for start in range(0, len(broken), size)])


def test_a_listing_in_chunks_of_http_is_read_to_its_end(swift: DevSwift) -> None:
    with proxy_to(swift.port) as proxy, contextlib.ExitStack() as stack:
        options = swift_options(swift, auth_url=proxy.auth_url)
        storage = stack.enter_context(open_storage(**options))
        for name in "abc":
            storage.put(name, io.BytesIO(b""), 0)
        proxy.fault(Fault("omit", header="Content-Length"), "GET", where=is_listing)
        for _ in range(3):
            assert [row.key for row in storage.list()] == ["a", "b", "c"]
        assert sum(storage.connections) == 1


# limits of the server


@pytest.fixture
def bounded() -> Iterator[ThreadedHTTPServer]:
    """A server that lists three rows at most, of five."""
    storage = MemoryStorage(Settings(type="memory"))
    for key in ("a", "b/c", "b/d", "e", "f"):
        storage.put(key, io.BytesIO(), 0)
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler, max_rows=3) as server:
        yield server


def listed(
    server: ThreadedHTTPServer, method: str = "POST", **meta: Any
) -> tuple[list[str], int | None, list[str]]:
    """Return the keys of a listing, the bound that it names, and its warnings."""
    reply = json.loads(ask(server, method, **meta)[2])
    rows = reply["ls"]["objectDict"] if meta.get("retSpec") == [] else reply["ls"]
    keys = [row.get("name") or row["subdir"] for row in rows]
    return keys, reply.get("maxRows"), reply.get("warnings", [])


@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("meta", [{}, {"retSpec": []}, {"sure": True}, {"limit": 4}, {"limit": 10**9}])
def test_a_bounded_listing_says_so_and_how_to_go_on(
    bounded: ThreadedHTTPServer, method: str, meta: dict[str, Any]
) -> None:
    keys, most, [warning] = listed(bounded, method, **meta)
    assert (keys, most) == (["a", "b/c", "b/d"], 3)
    assert warning.endswith("than the 3 rows that the server lists: go on with the meta 'marker': 'b/d'")
    assert listed(bounded, method, **meta, marker="b/d") == (["e", "f"], 3, [])


@pytest.mark.parametrize("meta", [{"limit": 3}, {"limit": 2}])
def test_a_limit_within_the_bound_causes_no_warning(
    bounded: ThreadedHTTPServer, meta: dict[str, Any]
) -> None:
    assert listed(bounded, **meta) == (["a", "b/c", "b/d"][: meta["limit"]], None, [])


def test_directories_and_selected_objects_are_counted_as_rows(bounded: ThreadedHTTPServer) -> None:
    keys, _, [warning] = listed(bounded, delimiter="/")
    assert keys == ["a", "b/", "e"]
    assert listed(bounded, delimiter="/", marker="e") == (["f"], 3, [])
    assert "'marker': 'e'" in warning
    assert listed(bounded, substr="/") == (["b/c", "b/d"], 3, [])
    assert listed(bounded, path="x") == ([], 3, [])


def test_a_page_of_objects_has_no_more_rows_and_the_marker_of_the_next(bounded: ThreadedHTTPServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bounded.server_port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/api/v1/objects")
        page = json.loads(connection.getresponse().read())
    assert ([row["name"] for row in page["objects"]], page["marker"]) == (["a", "b/c", "b/d"], "b/d")


def test_a_long_listing_that_is_bounded_leaves_row_by_row_and_ends_there() -> None:
    storage = Listed(10**9)
    with contextlib.closing(StoreHandler(storage)) as handler, serving(handler, max_rows=LONG) as server:
        keys, most, warnings = listed(server)
    assert (len(keys), most, len(warnings)) == (LONG, LONG, 1)
    assert storage.is_closed.is_set()


def test_without_a_bound_a_listing_has_all_rows() -> None:
    with served(LONG) as (server, _):
        keys, most, warnings = listed(server)
    assert (len(keys), most, warnings) == (LONG, None, [])


# large replies that are not streamed


@pytest.mark.parametrize("as_html", [False, True])
@pytest.mark.parametrize("length", [MAX_UNPACKED // 2, 3 * MAX_UNPACKED])
def test_a_large_reply_that_is_whole_is_the_same_text_as_ever(length: int, as_html: bool) -> None:
    echo = "<&>" * (length // 3)
    with served(0, httpResponse=as_html) as (server, _):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        with contextlib.closing(connection):
            for method in ("POST", "POST"):  # the connection is kept
                connection.request(
                    method, "/api/v1/cmd", message("hello", askAbout="echoBack", echoBack=echo)
                )
                answer = connection.getresponse()
                content = answer.read()
                assert json.loads(content)["d_ret"]["echoBack"]["msg"] == echo
                assert (b"<" in content) is not as_html
                is_chunked = as_html and length > MAX_UNPACKED
                assert answer.headers["Content-Length"] == (None if is_chunked else str(len(content)))


@pytest.mark.parametrize(
    ("count", "limit"), [(9999, 10_000), (10_000, 10_000), (600, 500), (100, 100), (0, 100)]
)
def test_a_page_of_objects_is_sent_row_by_row_and_ends_with_its_marker(count: int, limit: int) -> None:
    with served(count) as (server, storage):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
        with contextlib.closing(connection):
            contents = []
            for method in ("GET", "HEAD"):
                connection.request(method, f"/api/v1/objects?limit={limit}")
                answer = connection.getresponse()
                contents.append(answer.read())
                assert answer.status == 200
                assert storage.is_closed.wait(30)
    content, nothing = contents
    assert nothing == b""
    page = json.loads(content)
    assert [*page] == ["status", "objects", "marker", "writable"]
    assert len(page["objects"]) == min(count, limit)
    assert page["marker"] == (page["objects"][-1]["name"] if count >= limit else None)
