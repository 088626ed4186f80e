"""A real Swift behind a network that cuts, changes or delays bytes, with counts of logins and connections."""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import http.server
import io
import json
import os
import random
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import swiftclient

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage, open_settings
from pfstorage.backends.contract import ByteRange
from pfstorage.devswift import DevSwift, running
from pfstorage.errors import (
    IntegrityError,
    NoSpaceError,
    PermissionDeniedError,
    RejectedError,
    UnauthenticatedError,
    UnavailableError,
)
from tests.conftest import read_tree, swift_options, write_tree
from tests.support.wire import Wire, cut_after, replaced, wire_to

CONTENT = random.Random(7).randbytes(3_000_000)


@pytest.fixture
def wire(swift: DevSwift) -> Iterator[Wire]:
    with wire_to(swift.port) as wire:
        yield wire


@pytest.fixture
def wired(swift: DevSwift, wire: Wire) -> Iterator[Storage]:
    """A Swift storage whose every byte passes the wire."""
    address = f"http://127.0.0.1:{wire.port}"
    options = swift_options(swift, retries=3)
    options["auth_url"] = f"{address}/auth/v1.0"
    account = "AUTH_chris"
    options["os_options"] = {"object_storage_url": f"{address}/v1/{account}"}
    with open_storage(**options) as storage:
        storage.put("object", io.BytesIO(CONTENT), len(CONTENT))
        yield storage


def get(storage: Storage, key: str = "object") -> bytes:
    sink = io.BytesIO()
    storage.get(key, sink)
    return sink.getvalue()


def test_a_download_that_breaks_goes_on_where_it_was(wired: Storage, wire: Wire) -> None:
    passed = 0
    cut = cut_after(1_000_000, times=2)

    def count(data: bytes) -> bytes | None:
        nonlocal passed
        passed += len(data)
        return cut(data)

    wire.to_client = count
    assert get(wired) == CONTENT
    assert passed < len(CONTENT) + 1_000_000


def test_a_download_does_not_go_on_with_another_object(wired: Storage, wire: Wire, swift: DevSwift) -> None:
    """The object is replaced at the moment of the break: two halves must not be joined."""
    container = wired.settings.swift.container_name
    other = swiftclient.Connection(swift.auth_url, "chris:chris1234", "testing")
    cut = cut_after(1_000_000)

    def replace_and_cut(data: bytes) -> bytes | None:
        passed = cut(data)
        if passed is None:
            other.put_object(container, "object", b"x" * len(CONTENT))
        return passed

    wire.to_client = replace_and_cut
    with pytest.raises(RejectedError, match="another object by now"):
        get(wired)
    other.close()


def test_a_download_goes_on_for_as_long_as_each_try_gets_it_further(wired: Storage, wire: Wire) -> None:
    wire.to_client = cut_after(400_000, times=100)
    assert get(wired) == CONTENT


def test_a_download_that_gets_no_further_fails(wired: Storage, wire: Wire) -> None:
    wire.to_client = cut_after(0, times=100)
    with pytest.raises(UnavailableError, match="the connection broke"):
        get(wired)


@pytest.mark.parametrize("byte_range", [(0, 10), (1_000_000, 600_000), (2_999_990, 10), (0, 3_000_000)])
def test_a_part_comes_right_from_a_store_that_sends_the_whole(
    wired: Storage, wire: Wire, byte_range: tuple[int, int]
) -> None:
    offset, size = byte_range
    passed, is_waited_for = 0, False
    is_done = threading.Event()

    def hold(data: bytes) -> bytes:
        nonlocal passed, is_waited_for
        passed += len(data)
        if byte_range == (0, 10) and passed > 1_000_000:
            is_waited_for = is_waited_for or not is_done.wait(5)
        return data

    wire.to_server = replaced(b"Range: ", b"Ringe: ")
    wire.to_client = hold
    sink = io.BytesIO()
    wired.get("object", sink, ByteRange(offset, size, hashlib.md5(CONTENT).hexdigest()))
    assert sink.getvalue() == CONTENT[offset : offset + size]
    is_done.set()
    assert not is_waited_for  # the rest is not waited for
    assert get(wired) == CONTENT


def test_a_part_of_another_object_is_refused_where_the_condition_is_lost(wired: Storage, wire: Wire) -> None:
    """A proxy between client and store may ignore If-Match."""
    wire.to_server = replaced(b"If-Match: ", b"If-Motch: ", times=3)
    with pytest.raises(RejectedError, match="another object by now"):
        wired.get("object", io.BytesIO(), ByteRange(1000, 10, hashlib.md5(b"before").hexdigest()))
    assert get(wired) == CONTENT


def test_a_wrong_content_range_is_refused(wired: Storage, wire: Wire) -> None:
    wire.to_client = replaced(b"Content-Range: bytes 1000-", b"Content-Range: bytes 1001-", times=3)
    with pytest.raises(RejectedError, match="another object by now"):
        wired.get("object", io.BytesIO(), ByteRange(1000, 10, hashlib.md5(CONTENT).hexdigest()))
    assert get(wired) == CONTENT


@pytest.mark.parametrize(
    ("header", "instead"),
    [
        (b"X-Timestamp: ", b"X-Timestamp: x"),
        (b"X-Timestamp: ", b"X-Timestamp: 9999999999999999"),
        (b"Content-Length: 3", b"Content-Length: -3"),
        (b"Content-Length: 3", b"Content-Length: x3"),
    ],
)
def test_an_answer_of_no_swift_is_reported(wired: Storage, wire: Wire, header: bytes, instead: bytes) -> None:
    wire.to_client = replaced(header, instead)
    with pytest.raises((RejectedError, UnavailableError), match=r"not those of a Swift|does not answer"):
        wired.head("object")
    assert wired.head("object").size == len(CONTENT)


def test_a_byte_that_changes_on_the_way_is_noticed_and_nothing_wrong_appears(
    wired: Storage, wire: Wire, tmp_path: Path
) -> None:
    wire.to_client = replaced(CONTENT[5000:5020], bytes(20), times=3)
    reply = StoreHandler(wired).run(
        {"action": "objPull", "meta": {"path": "object", "mapLocationOver": "out"}}
    )
    assert reply["status"] is False
    assert reply["error"]["type"] == "IntegrityError"
    assert list((tmp_path / "out").iterdir()) == []


def test_a_byte_that_changed_once_on_the_way_is_asked_for_again(
    wired: Storage, wire: Wire, tmp_path: Path
) -> None:
    wire.to_client = replaced(CONTENT[5000:5020], bytes(20), times=1)
    reply = StoreHandler(wired).run(
        {"action": "objPull", "meta": {"path": "object", "mapLocationOver": "out"}}
    )
    assert reply["status"] is True
    assert read_tree(tmp_path / "out") == {"object": CONTENT}


def test_a_byte_that_changes_on_the_way_up_is_noticed_and_sent_again(wired: Storage, wire: Wire) -> None:
    wire.to_server = replaced(CONTENT[5000:5020], bytes(20), times=1)
    wired.put("second", io.BytesIO(CONTENT), len(CONTENT))
    assert get(wired, "second") == CONTENT
    wire.to_server = replaced(CONTENT[5000:5020], bytes(20), times=100)
    with pytest.raises(IntegrityError):
        wired.put("third", io.BytesIO(CONTENT), len(CONTENT))


def test_an_upload_that_breaks_is_sent_again_from_its_beginning(wired: Storage, wire: Wire) -> None:
    wire.to_server = cut_after(1_000_000, times=2)
    wired.put("second", io.BytesIO(CONTENT), len(CONTENT))
    assert get(wired, "second") == CONTENT


def test_connections_are_kept_and_one_is_enough_for_one_caller(wired: Storage, wire: Wire) -> None:
    before = wire.connections
    for number in range(20):
        wired.put(f"a/{number}", io.BytesIO(b"x"), 1)
        get(wired, f"a/{number}")
        wired.head(f"a/{number}")
        assert len(list(wired.list("a/"))) == number + 1
    assert wire.connections == before


def test_a_kept_connection_that_the_store_has_closed_is_replaced(wired: Storage, wire: Wire) -> None:
    wire.to_server = cut_after(0)
    assert get(wired) == CONTENT


def test_a_silent_store_is_given_up(swift: DevSwift, wire: Wire) -> None:
    options = swift_options(swift, timeout=0.3, retries=0)
    options["auth_url"] = f"http://127.0.0.1:{wire.port}/auth/v1.0"
    wire.to_client = lambda data: b""
    with open_storage(**options) as storage, pytest.raises(UnavailableError, match="it fell silent"):
        list(storage.list())


def test_a_store_that_is_down_is_named(swift: DevSwift) -> None:
    options = {**swift_options(swift), "auth_url": "http://127.0.0.1:9/auth/v1.0"}
    with open_storage(**options) as storage, pytest.raises(UnavailableError) as caught:
        list(storage.list())
    assert str(caught.value) == "the store at 127.0.0.1:9 does not answer: nothing listens there"
    assert caught.value.facts["address"] == "127.0.0.1:9"


@pytest.mark.parametrize("body", [b"", b"<html>hello</html>", b"{}"])
def test_a_server_that_is_no_swift_is_recognised(swift: DevSwift, body: bytes) -> None:
    class Web(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Web) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {**swift_options(swift), "auth_url": f"http://127.0.0.1:{server.server_port}/auth/v1.0"}
        with open_storage(**options) as storage, pytest.raises(RejectedError, match="is no Swift"):
            list(storage.list())
        server.shutdown()


def test_a_wrong_key_is_reported_with_the_user_and_without_the_key(swift: DevSwift) -> None:
    with open_storage(**swift_options(swift, key="wrong-secret")) as storage:
        with pytest.raises(
            UnauthenticatedError,
            match="the key of 'chris:chris1234': see --swiftUsername and --swiftKey",
        ) as caught:
            list(storage.list())
        assert "wrong-secret" not in f"{caught.value!r} {caught.value.facts} {storage.settings!r}"


def test_another_account_is_a_permission_denied(swift: DevSwift) -> None:
    address = f"http://127.0.0.1:{swift.port}/v1/AUTH_other"
    options = swift_options(swift, os_options={"object_storage_url": address})
    with open_storage(**options) as storage, pytest.raises(PermissionDeniedError, match="403"):
        list(storage.list())


def test_a_store_without_room_refuses_for_good(swift: DevSwift, swift_storage: Storage) -> None:
    swift_storage.put("a", io.BytesIO(b"x"), 1)
    raw = swiftclient.Connection(swift.auth_url, "chris:chris1234", "testing")
    raw.post_container(swift_storage.settings.swift.container_name, {"X-Container-Meta-Quota-Count": "1"})
    raw.close()
    with pytest.raises(NoSpaceError, match="413"):
        swift_storage.put("b", io.BytesIO(b"x"), 1)


def count_logins(log: Path) -> int:
    return sum("/auth/" in line for line in log.read_text().splitlines())


def test_a_transfer_of_many_files_logs_in_once(tmp_path: Path) -> None:
    files = {f"{number:03}": b"x" * number for number in range(60)}
    write_tree(tmp_path / "data", files)
    log = tmp_path / "log"
    with running(log=log) as swift, open_storage(**swift_options(swift)) as storage:
        handler = StoreHandler(storage)
        put = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
        assert handler.run({"action": "objPut", "meta": put})["status"] is True
        pull = {"fromLocation": "s", "mapLocationOver": "out"}
        assert handler.run({"action": "objPull", "meta": pull})["status"] is True
    assert read_tree(tmp_path / "out") == files
    assert count_logins(log) == 1


def test_a_token_that_runs_out_is_renewed_once_for_all(tmp_path: Path) -> None:
    """A Swift that was restarted knows no token of before; its files are the same."""
    log = tmp_path / "log"
    with running(directory=tmp_path / "swift") as swift:
        options = swift_options(swift, workers=8)
        port = swift.port
        storage = open_storage(**options)
        for number in range(40):
            storage.put(f"s/{number}", io.BytesIO(b"x"), 1)
    with running(directory=tmp_path / "swift", port=port, log=log), storage:
        pull = {"fromLocation": "s", "mapLocationOver": "out"}
        assert StoreHandler(storage).run({"action": "objPull", "meta": pull})["status"] is True
    assert len(read_tree(tmp_path / "out")) == 40
    assert count_logins(log) == 1


def test_a_store_that_dies_in_the_middle_leaves_a_reply_that_lists_finished_files(tmp_path: Path) -> None:
    files = {f"{number:03}": random.Random(number).randbytes(20_000) for number in range(200)}
    write_tree(tmp_path / "data", files)
    with running() as swift, open_storage(**swift_options(swift, retries=0, workers=4)) as storage:
        handler = StoreHandler(storage)
        put = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
        assert handler.run({"action": "objPut", "meta": put})["status"] is True
        killer = threading.Thread(
            target=kill_when, args=(swift, lambda: len(list(tmp_path.glob("out/*"))) > 50)
        )
        killer.start()
        reply = handler.run({"action": "objPull", "meta": {"fromLocation": "s", "mapLocationOver": "out"}})
        killer.join()
    assert reply["status"] is False
    assert len(reply["objectFileList"]) + len(reply["failed"]) == 200
    assert 20 < len(reply["objectFileList"]) < 200
    assert "does not answer" in reply["msg"]
    assert sum("not tried" in row["msg"] for row in reply["failed"]) > 0
    written = read_tree(tmp_path / "out")
    assert sorted(f"s/{name}" for name in written) == reply["objectFileList"]
    assert all(content == files[name] for name, content in written.items())


def kill_when(swift: DevSwift, ready: Callable[[], bool]) -> None:
    while not ready():
        pass
    swift.process.kill()


def test_a_large_object_made_of_segments_comes_back_whole(swift: DevSwift, swift_storage: Storage) -> None:
    swift_storage.put("small", io.BytesIO(b"x"), 1)
    container = swift_storage.settings.swift.container_name
    raw = swiftclient.Connection(swift.auth_url, "chris:chris1234", "testing")
    parts = [CONTENT[:1_500_000], CONTENT[1_500_000:]]
    manifest = []
    for number, part in enumerate(parts):
        etag = raw.put_object(container, f"segments/{number}", part)
        manifest.append({"path": f"/{container}/segments/{number}", "etag": etag, "size_bytes": len(part)})
    raw.put_object(container, "slo", json.dumps(manifest), query_string="multipart-manifest=put")
    raw.put_object(container, "dlo", b"", headers={"X-Object-Manifest": f"{container}/segments/"})
    raw.close()
    assert get(swift_storage, "slo") == CONTENT
    assert get(swift_storage, "dlo") == CONTENT


def test_no_object_is_ever_whole_in_memory(swift_storage: Storage) -> None:
    size = 64 * 2**20

    class Zeros(io.RawIOBase):
        at = 0

        def read(self, wanted: int = -1, /) -> bytes:
            chunk = bytes(min(wanted, size - self.at))
            self.at += len(chunk)
            return chunk

        def seek(self, offset: int, whence: int = 0, /) -> int:
            self.at = offset
            return offset

        def tell(self) -> int:
            return self.at

    class Nothing:
        def write(self, data: bytes, /) -> int:
            return len(data)

    tracemalloc.start()
    try:
        swift_storage.put("zeros", Zeros(), size)
        assert swift_storage.get("zeros", Nothing()).size == size
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


def test_the_proxy_that_is_set_is_used_for_the_login_and_for_the_data(swift: DevSwift) -> None:
    seen: list[str] = []

    class Proxy(http.server.BaseHTTPRequestHandler):
        def forward(self) -> None:
            seen.append(f"{self.command} {urlsplit(self.path).path}")
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            target = urlsplit(self.path)
            connection = http.client.HTTPConnection(target.netloc)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, target._replace(scheme="", netloc="").geturl(), body, headers)
            answer = connection.getresponse()
            content = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
            connection.close()

        do_GET = do_PUT = do_HEAD = forward

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        options = swift_options(swift, http_proxy=f"127.0.0.1:{proxy.server_port}")
        with open_storage(**options) as storage:
            storage.put("a", io.BytesIO(b"content"), 7)
            assert get(storage, "a") == b"content"
        proxy.shutdown()
    assert seen[0] == "GET /auth/v1.0"
    assert sum(line.endswith("/a") for line in seen) == 3  # PUT finds no container, PUT, GET


def test_a_store_that_dies_after_the_login_is_named_alike_by_every_operation(swift: DevSwift) -> None:
    with wire_to(swift.port) as wire:
        address = f"http://127.0.0.1:{wire.port}"
        options = swift_options(
            swift, retries=0, os_options={"object_storage_url": f"{address}/v1/AUTH_chris"}
        )
        storage = open_storage(**{**options, "auth_url": f"{address}/auth/v1.0"})
        storage.put("a", io.BytesIO(b"x"), 1)
    operations: list[Callable[[], Any]] = [
        lambda: storage.get("a", io.BytesIO()),
        lambda: storage.put("a", io.BytesIO(b"x"), 1),
        lambda: storage.head("a"),
        lambda: list(storage.list()),
    ]
    for operation in operations * 2:  # the first may still meet a connection that was cut
        with pytest.raises(UnavailableError) as caught:
            operation()
    assert caught.value.facts["connecting"] is True
    for operation in operations:
        with pytest.raises(UnavailableError, match="nothing listens there"):
            operation()
    storage.close()


def test_a_failing_sink_leaves_no_connection_open(swift_storage: Storage) -> None:
    class Full:
        def write(self, data: bytes, /) -> int:
            raise OSError(28, "No space left on device")

    swift_storage.put("a", io.BytesIO(CONTENT), len(CONTENT))
    kept = []
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        with pytest.raises(OSError, match="No space") as caught:
            swift_storage.get("a", Full())
        kept.append(caught.value)
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_store_that_reads_slowly_is_waited_for(wired: Storage, wire: Wire) -> None:
    """The time for connecting must not bound the sending of a body."""
    paused = threading.Event()

    def pause_once(data: bytes) -> bytes:
        if not paused.is_set():
            paused.set()
            threading.Event().wait(1.0)
        return data

    options = dataclasses.replace(wired.settings, connect_timeout=0.3, retries=0)
    with open_settings(options) as storage:
        storage.head("object")  # the login is done; the next connection is new
        storage.close()
    content = bytes(20_000_000)
    with open_settings(options) as storage:
        wire.to_server = pause_once
        storage.put("large", io.BytesIO(content), len(content))
        assert storage.head("large").size == len(content)


@pytest.mark.parametrize(
    "listing",
    [
        "<html>",
        '{"a": 1}',
        "{}",
        "[1]",
        '[{"nme": "x"}]',
        json.dumps([{"name": "a", "bytes": 1, "hash": "", "last_modified": "", "content_type": ""}]),
    ],
)
def test_a_listing_that_is_none_or_never_ends_is_refused(
    swift: DevSwift, monkeypatch: pytest.MonkeyPatch, listing: str
) -> None:
    class Liar(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = b"" if self.path.startswith("/auth") else listing.encode()
            self.send_response(200)
            self.send_header("X-Storage-Url", f"http://{self.headers['Host']}/v1/a")
            self.send_header("X-Auth-Token", "token")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    monkeypatch.setattr("pfstorage.backends.swift.listing.ROWS_PER_PAGE", 1)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = {**swift_options(swift), "auth_url": f"http://127.0.0.1:{server.server_port}/auth/v1.0"}
        kind, reported = (RejectedError, "no listing|same page")
        if listing.startswith("[") and "bytes" not in listing:  # its rows are wrong
            kind, reported = (
                UnavailableError,
                f"the store at 127.0.0.1:{server.server_port} lists the container",
            )
        with open_storage(**options) as storage, pytest.raises(kind, match=reported):
            list(storage.list())
        server.shutdown()
