"""States of a store: a temporary failure is retried, a full store ends a run, and a move is followed."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import io
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.backends.errors import OverloadedError
from pfstorage.backends.http.errors import Refusal
from pfstorage.backends.swift.errors import RequestSubject, error_from_answer, error_from_login
from pfstorage.backends.swift.login import DOUBT_SECONDS, Login
from pfstorage.devswift import DevSwift
from pfstorage.errors import (
    ConflictError,
    MisconfiguredError,
    NoSpaceError,
    ObjectTooLargeError,
    PfstorageError,
    RejectedError,
    StorageError,
)
from tests.conftest import read_tree, run, swift_options, write_tree
from tests.support.clone import Clone
from tests.support.faults import Exchange, Fault, Proxy, is_object, proxy_to

PUT = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL = {"fromLocation": "s", "mapLocationOver": "out"}
FILES = {f"{number:03}": b"x" * (number + 1) for number in range(200)}
BY_PARTS = {"segment_size": 64 * 1024, "range_size": 64 * 1024}


@pytest.fixture
def storage(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as made:
        yield made


@pytest.fixture
def raw(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    with contextlib.closing(swiftclient.Connection(swift.auth_url, swift.user, swift.key)) as made:
        yield made


def container_of(storage: Storage) -> str:
    return str(storage.settings.swift.container_name)


def is_container(exchange: Exchange) -> bool:
    return exchange.kind == "container"


def is_manifest(exchange: Exchange) -> bool:
    return "multipart-manifest=put" in exchange.query


# 409


@pytest.mark.parametrize("options", [{}, BY_PARTS], ids=["whole", "segments"])
def test_a_conflict_of_an_upload_is_tried_again(
    storage: Storage, proxy: Proxy, tmp_path: Path, options: dict[str, Any]
) -> None:
    write_tree(tmp_path / "data", {"a": b"x" * 200_000})
    settings = {"segmentSize": options["segment_size"]} if options else {}
    proxy.fault(Fault("answer", status=409), "PUT", [1], is_object)
    reply = run(storage, "objPut", settings, **PUT)
    assert (reply["status"], len(proxy.struck)) == (True, 1)
    assert storage.head("s/a").size == 200_000


def test_a_conflict_of_a_manifest_a_container_and_a_delete_is_tried_again(
    storage: Storage, proxy: Proxy, tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", {"a": b"x" * 200_000})
    proxy.fault(Fault("answer", status=409), "PUT", [1], is_manifest)
    proxy.fault(Fault("answer", status=409), "PUT", [1], is_container)
    proxy.fault(Fault("answer", status=409), "DELETE", [1], is_object)
    assert run(storage, "objPut", {"segmentSize": 64 * 1024}, **PUT)["status"] is True
    storage.delete("s/a")
    assert len(proxy.struck) == 3


def test_a_conflict_that_stays_is_bounded_and_no_outage(storage: Storage, proxy: Proxy) -> None:
    storage.put("a", io.BytesIO(b"x"), 1)
    proxy.fault(Fault("answer", status=409), "PUT", where=is_object)
    with pytest.raises(ConflictError, match="409"):
        storage.put("a", io.BytesIO(b"x"), 1)
    assert len(proxy.struck) == 2  # retries=1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_conflict_of_reading_is_no_passing_one(storage: Storage, proxy: Proxy, method: str) -> None:
    storage.put("a", io.BytesIO(b"x"), 1)
    proxy.fault(Fault("answer", status=409), method, where=is_object)
    with pytest.raises(RejectedError, match="one of its segments is missing") as caught:
        storage.get("a", io.BytesIO()) if method == "GET" else storage.head("a")
    assert not isinstance(caught.value, ConflictError)
    assert len(proxy.struck) == 1


def test_a_large_object_that_lost_its_segments_is_asked_for_once(
    storage: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    container = container_of(storage)
    raw.put_container(container)
    raw.put_object(container, "part", b"x")
    rows = f'[{{"path": "/{container}/part", "size_bytes": 1}}]'
    raw.put_object(container, "slo", rows, query_string="multipart-manifest=put")
    raw.delete_object(container, "part")
    with pytest.raises(RejectedError, match=r"409 .*one of its segments is missing"):
        storage.get("slo", io.BytesIO())
    assert len(proxy.made("GET")) == 1


def test_a_container_that_somebody_made_of_another_policy_is_one(
    storage: Storage, raw: swiftclient.Connection
) -> None:
    """A Swift answers 409 to the policy of the other container."""
    container = container_of(storage)
    raw.put_container(container, {"X-Storage-Policy": "silver"})
    raw.put_container(f"{container}_segments", {"X-Storage-Policy": "gold"})
    objects = storage._objects  # type: ignore[attr-defined]
    objects._make(f"{container}_segments", 1e18, container)
    with pytest.raises(StorageError, match="409"):
        objects.session.ask("PUT", f"{container}_segments", headers={"X-Storage-Policy": "silver"})


# Retry-After


def retry_after(reported: str, date: str = "") -> object:
    headers = {"retry-after": reported, "date": date, "x-trans-id": "t"}
    e = Refusal(503, "Busy", headers, method="GET", path="/v1/a/c/k")
    return error_from_answer(e, RequestSubject("host", "object", "GET", "c", "k"), lambda: True).facts.get(
        "retry_after"
    )


def test_a_date_to_come_back_at_is_kept_to() -> None:
    now = datetime.now(timezone.utc)
    later = format_datetime(now + timedelta(seconds=30), usegmt=True)
    assert retry_after(later, format_datetime(now, usegmt=True)) == 30
    there = now - timedelta(hours=3)  # the clock of the store
    reported = format_datetime(there + timedelta(seconds=7), usegmt=True)
    assert retry_after(reported, format_datetime(there, usegmt=True)) == 7
    assert 20 < int(str(retry_after(later))) <= 31
    assert retry_after("Saturday, 01-Jan-00 00:00:02 GMT", "Fri, 31 Dec 1999 23:59:50 GMT") == 12  # RFC 850
    assert retry_after("Sat Jan  1 00:00:02 2000", "Fri Dec 31 23:59:50 1999") == 12  # asctime


@pytest.mark.parametrize("reported", ["", "soon", "-1", "1.5", "9" * 5000, "Fri, 31 Dec 1999 23:59:50 GMT",
                                  "Fri, 99 Dec 1999 23:59:50 GMT", "\u0663"])  # fmt: skip
def test_an_invalid_or_past_retry_time_is_not_waited_for(reported: str) -> None:
    assert retry_after(reported) is None


def test_a_login_may_say_when_to_come_back() -> None:
    e = Refusal(429, "Slow down", {"retry-after": "3"})
    error = error_from_login(e, "host", "http://host/auth", "me")
    assert (type(error), error.retry_after) == (OverloadedError, 3)


# a full store


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (413, b"Upload exceeds quota."),
        (413, b""),
        (507, b"<html><h1>Insufficient Storage</h1><p>There was not enough space to save it.</p></html>"),
    ],
)
def test_a_store_without_room_ends_the_run_with_its_own_words(
    clone: Clone, tmp_path: Path, status: int, body: bytes
) -> None:
    write_tree(tmp_path / "data", FILES)
    clone.headers, clone.body = {"X-Trans-Id": "t"}, body
    clone.status = {f"/s/{name}": status for name in FILES}
    with open_storage(**clone.options, workers=4) as storage:
        reply = run(storage, "objPut", overwrite="always", **PUT)
    assert (reply["status"], reply["error"]["type"]) == (False, "NoSpaceError")
    words = {b"": "Request Entity Too Large"}.get(
        body, body.decode().rpartition("<p>")[2].partition("</p>")[0]
    )
    assert words in reply["msg"]
    assert sum(line.startswith("PUT") for line in clone.asked) < 20
    assert sum("not tried" in row["msg"] for row in reply["failed"]) > 150


def test_a_quota_of_a_real_swift_ends_the_run(
    storage: Storage, proxy: Proxy, raw: swiftclient.Connection, tmp_path: Path
) -> None:
    raw.put_container(container_of(storage), {"X-Container-Meta-Quota-Bytes": "3"})
    write_tree(tmp_path / "data", dict.fromkeys(FILES, b"12345"))
    reply = run(storage, "objPut", {"workers": 4}, **PUT)
    assert "Upload exceeds quota." in reply["msg"]
    assert reply["error"]["type"] == "NoSpaceError"
    assert len(proxy.made("PUT")) < 20


def test_one_object_that_is_too_large_does_not_end_the_run(clone: Clone, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", FILES)
    clone.headers = {"X-Trans-Id": "t"}
    clone.body = (
        b"<html><h1>Request Entity Too Large</h1><p>The body of your request was too large for this server."
    )
    clone.status = {f"/s/{name}": 413 for name in FILES if name < "100"}
    with open_storage(**clone.options, workers=4) as storage:
        reply = run(storage, "objPut", overwrite="always", **PUT)
    assert [row["object"] for row in reply["failed"]] == [f"s/{name}" for name in FILES if name < "100"]
    assert all("--segmentSize" in row["msg"] for row in reply["failed"])
    assert (reply["error"]["type"], len(reply["objectFileList"])) == ("ObjectTooLargeError", 100)


def test_words_of_a_store_are_one_line_without_a_secret(clone: Clone) -> None:
    clone.headers = {"X-Trans-Id": "t"}
    clone.status = {"/x": 413}
    clone.body = (
        b"<html><head><title>T</title></head>Upload exceeds quota\r\n of token and \x1b[31msecret-key</html>"
        + b"y" * 9999
    )
    options = {**clone.options, "key": "secret-key"}
    with open_storage(**options) as storage, pytest.raises(NoSpaceError) as caught:
        storage.put("x", io.BytesIO(b""), 0)
    text = str(caught.value)
    assert "(Upload exceeds quota of ******** and [31m********" in text
    assert len(text) < 400


# the address of the store


@pytest.mark.parametrize("slashes", ["/", "//"])
def test_a_storage_url_with_a_final_slash_is_one(swift: DevSwift, slashes: str) -> None:
    url = f"http://127.0.0.1:{swift.port}/v1/AUTH_chris{slashes}"
    with open_storage(**swift_options(swift, os_options={"object_storage_url": url})) as storage:
        storage.put("s/a", io.BytesIO(b"abc"), 3)
        assert [row.key for row in storage.list()] == ["s/a"]
        storage.copy("s/a", "s/b")
        storage.delete("s/a")
        assert storage.head("s/b").size == 3
        assert storage.part_size(10**6, 10**5) == 10**5  # type: ignore[attr-defined]


class Moving:
    """Run the login of a Swift that reports *port* for its storage."""

    def __init__(self, swift: DevSwift) -> None:
        self.port = 0
        self.logins = 0
        moving = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                moving.logins += 1
                connection = http.client.HTTPConnection("127.0.0.1", swift.port)
                with contextlib.closing(connection):
                    login = {"X-Auth-User": swift.user, "X-Auth-Key": swift.key}
                    connection.request("GET", "/auth/v1.0", headers=login)
                    token = connection.getresponse().headers["X-Auth-Token"]
                self.send_response(200)
                self.send_header("X-Storage-Url", f"http://127.0.0.1:{moving.port}/v1/AUTH_chris")
                self.send_header("X-Auth-Token", token)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.auth_url = f"http://127.0.0.1:{self.server.server_port}/auth/v1.0"


@pytest.fixture
def moving(swift: DevSwift) -> Iterator[Moving]:
    made = Moving(swift)
    with made.server:
        threading.Thread(target=made.server.serve_forever, daemon=True).start()
        yield made
        made.server.shutdown()


def test_a_login_that_moves_the_storage_empties_the_pool(
    swift: DevSwift, moving: Moving, tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", FILES)
    with proxy_to(swift.port) as old, proxy_to(swift.port) as new:
        moving.port = old.port
        with open_storage(**{**swift_options(swift, workers=32), "auth_url": moving.auth_url}) as storage:
            storage.put("first", io.BytesIO(b"x"), 1)
            moving.port = new.port
            old.fault(Fault("expire"), "PUT", [40])
            reply = run(storage, "objPut", {"workers": 32}, **PUT)
            assert (reply["status"], reply["failed"], len(reply["objectFileList"])) == (True, [], len(FILES))
            asked = len(old.exchanges)
            assert run(storage, "objPull", {"workers": 32}, **PULL)["status"] is True
            assert len(old.exchanges) == asked  # nothing goes there any more
        assert new.exchanges
    assert moving.logins == 2
    assert read_tree(tmp_path / "out") == FILES


def test_a_storage_that_has_moved_from_a_stopped_host_is_found(
    swift: DevSwift, moving: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.backends.swift.login.DOUBT_SECONDS", 0.0)
    with proxy_to(swift.port) as new:
        with proxy_to(swift.port) as old:
            moving.port = old.port
            storage = open_storage(**{**swift_options(swift), "auth_url": moving.auth_url})
            storage.put("a", io.BytesIO(b"x"), 1)
        moving.port = new.port
        with storage:
            assert storage.head("a").size == 1
            assert storage.connections == (0, 1)


def test_an_outage_does_not_multiply_logins() -> None:
    logins: list[int] = []

    def log_in() -> tuple[str, str]:
        logins.append(1)
        return "http://host/v1", "token"

    login = Login(log_in)
    for _ in range(50):
        login.forget_unless_new(*login.get())
    assert (len(logins), DOUBT_SECONDS) == (1, 5.0)


def test_the_errors_of_this_page_are_kinds_of_refusals() -> None:
    for kind in (ConflictError, MisconfiguredError, ObjectTooLargeError):
        assert issubclass(kind, RejectedError)
        assert issubclass(kind, PfstorageError)
