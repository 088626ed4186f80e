"""Objects that another writer replaces during a download: the client gets the whole new object."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import StoreHandler, ThreadedHTTPServer, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import ByteRange, ObjectInfo, Sink
from pfstorage.backends.errors import SegmentsMissingError, object_changed_error
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import IntegrityError
from pfstorage.settings.model import Settings
from pfstorage.transfer.replaced import MAX_DOWNLOADS
from tests.conftest import read_tree, run, serving, swift_options, write_tree
from tests.support.exchange import client
from tests.support.faults import Exchange, Fault, Proxy, is_object
from tests.support.large import raw_connection

PIECE = 64 * 1024
LARGE = random.Random(1).randbytes(3 * PIECE + 7)
OTHERS = {
    "empty": b"",
    "smaller": random.Random(2).randbytes(100),
    "as long": random.Random(3).randbytes(len(LARGE)),
    "longer": random.Random(4).randbytes(5 * PIECE),
}
KEY = "s/d/large"
PULLS: dict[str, dict[str, Any]] = {
    "a tree": {"path": "s", "fromLocation": "s", "mapLocationOver": "out"},
    "a key": {"path": KEY, "fromLocation": "s", "mapLocationOver": "out"},
    "a name": {"fileList": [{"from": KEY, "to": "out/d/large"}]},
}


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A Swift behind the proxy, where all above 64 KiB is large."""
    options = swift_options(swift, segment_size=PIECE, range_size=PIECE, auth_url=proxy.auth_url)
    with open_storage(**options) as storage:
        yield storage


@pytest.fixture
def raw(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    with raw_connection(swift) as raw:
        yield raw


def push_large(store: Storage, content: bytes = LARGE) -> None:
    write_tree(Path.cwd(), {"large": content})
    assert run(store, "objPut", file="large", mapLocationOver="large", inLocation=KEY)["status"] is True


def of_key(exchange: Exchange) -> bool:
    return is_object(exchange) and exchange.key == KEY


def when(proxy: Proxy, numbers: set[int], change: Callable[[], object]) -> None:
    """Call *change* before the store gets the GETs of the object with these *numbers*, from 1 on."""

    numbered = itertools.count(1)

    def changed(exchange: Exchange) -> bool:
        if of_key(exchange) and "multipart" not in exchange.query and next(numbered) in numbers:
            change()
        return False

    proxy.fault(Fault("close"), "GET", where=changed)


@pytest.mark.parametrize("pull", PULLS)
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("other", OTHERS)
def test_a_replaced_large_object_is_pulled_completely(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, pull: str, number: int, other: str
) -> None:
    push_large(store)

    def replace() -> None:
        raw.put_object(store.settings.swift.container_name, KEY, OTHERS[other])

    proxy.forget()
    when(proxy, {number}, replace)
    reply = run(store, "objPull", {"workers": 1}, **PULLS[pull])
    assert reply["status"] is True, reply
    is_late = pull == "a name" and number == 3  # it came by one request
    assert read_tree(Path("out")) == {"d/large": LARGE if is_late else OTHERS[other]}


def test_an_object_that_is_replaced_again_and_again_is_pulled_once_it_stays(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    container = store.settings.swift.container_name
    contents = [random.Random(number).randbytes(2 * PIECE + number) for number in range(6)]
    push_large(store, contents[0])
    left = contents[1:]
    proxy.forget()
    # the second range of each try, and the request for the whole that follows
    when(proxy, {2, 3, 5, 6, 8}, lambda: left and raw.put_object(container, KEY, left.pop(0)))
    reply = run(store, "objPull", {"workers": 1}, **PULLS["a tree"])
    assert reply["status"] is True, reply
    assert read_tree(Path("out")) in [{"d/large": content} for content in contents]


@pytest.mark.parametrize("pull", PULLS)
def test_missing_segments_of_a_replaced_object_are_no_failure(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, pull: str
) -> None:
    """Another client may upload the same file again, and remove the segments of the first upload."""
    push_large(store)
    proxy.forget()
    proxy.fault(Fault("answer", status=409, is_signed=True), "GET", on={1}, where=of_key)
    assert run(store, "objPull", {"workers": 1}, **PULLS[pull])["status"] is True
    assert read_tree(Path("out")) == {"d/large": LARGE}
    assert proxy.struck


@pytest.mark.parametrize("pull", PULLS)
def test_an_object_that_lacks_a_segment_for_good_fails_after_few_tries(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, pull: str
) -> None:
    push_large(store)
    home = f"{store.settings.swift.container_name}_segments"
    for row in raw.get_container(home)[1]:
        raw.delete_object(home, row["name"])
    proxy.forget()
    reply = run(store, "objPull", {"workers": 1}, **PULLS[pull])
    assert reply["status"] is False
    assert "one of its segments is missing" in reply["msg"]
    assert len(proxy.made("GET", of_key)) <= 4
    assert not Path("out/d/large").exists()


@pytest.mark.parametrize("pull", ["a tree", "a key"])
def test_a_removed_object_is_reported_as_missing(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, pull: str
) -> None:
    push_large(store)
    when(proxy, {2}, lambda: raw.delete_object(store.settings.swift.container_name, KEY))
    reply = run(store, "objPull", {"workers": 1}, **PULLS[pull])
    assert reply["error"]["type"] == "NotFoundError", reply
    assert not Path("out/d/large").exists()


# over HTTP


def test_a_replaced_manifest_gives_the_new_object(swift: DevSwift, store: Storage, proxy: Proxy) -> None:
    push_large(store)
    left = [OTHERS["longer"]]
    name = store.settings.swift.container_name

    def replace(exchange: Exchange) -> bool:
        if "multipart-manifest=get" in exchange.query and left:
            with open_storage(**swift_options(swift, segment_size=PIECE, container_name=name)) as other:
                push_large(other, left.pop())
        return False

    proxy.fault(Fault("close"), "GET", where=replace)
    with serving(StoreHandler(store)) as server:
        assert get(server, KEY)[:2] == (200, OTHERS["longer"])
    assert not left


class Changing(MemoryStorage):
    """A store where another writer replaces the object during each GET that should fail."""

    def __init__(self, content: bytes) -> None:
        super().__init__(Settings(type="memory"))
        self.failures: list[tuple[int, Exception]] = []
        self.gets = 0
        self.store(content)

    def store(self, content: bytes) -> None:
        self.put("a", io.BytesIO(content), len(content))

    def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        self.gets += 1
        if not self.failures:
            return super().get(key, sink, byte_range)
        size, error = self.failures.pop(0)
        whole = io.BytesIO()
        info = super().get(key, whole)
        sink.begin(info)  # type: ignore[attr-defined]
        if size:
            sink.write(whole.getvalue()[:size])
        self.store(bytes(reversed(whole.getvalue())) + b"!")
        raise error


def get(
    server: ThreadedHTTPServer, key: str = "a", **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    with contextlib.closing(client(server.server_port)) as connection:
        connection.request("GET", f"/api/v1/objects/{key}", headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers


GONE = SegmentsMissingError("a segment is missing", key="a", status=409)


@pytest.mark.parametrize("sent", [0, 6])
@pytest.mark.parametrize(
    "error", [object_changed_error("a"), GONE, IntegrityError("5 bytes came of 6", key="a")]
)
def test_a_download_restarts_before_its_first_byte(error: Exception, sent: int) -> None:
    storage = Changing(b"abcdef")
    storage.failures = [(sent, error)]
    with serving(StoreHandler(storage)) as server:
        status, content, headers = get(server)
        assert (status, content) == (200, b"fedcba!")
        assert headers["Content-Length"] == "7"
        assert headers["ETag"] == f'"{storage.head("a").etag}"'


def test_a_range_of_a_replaced_object_is_one_of_the_new_object() -> None:
    storage = Changing(b"abcdef")
    storage.failures = [(0, object_changed_error("a"))]
    with serving(StoreHandler(storage)) as server:
        status, content, headers = get(server, Range="bytes=1-2")
        assert (status, content, headers["Content-Range"]) == (206, b"ed", "bytes 1-2/7")


def test_a_started_download_is_aborted_and_never_mixed() -> None:
    storage = Changing(bytes(3_000_000))
    storage.failures = [(2_000_000, object_changed_error("a"))]
    with serving(StoreHandler(storage)) as server, pytest.raises(http.client.IncompleteRead) as broken:
        get(server)
    assert storage.gets == 1
    assert len(broken.value.partial) <= 2_000_000


def test_a_client_of_an_object_replaced_without_end_must_retry() -> None:
    storage = Changing(b"abcdef")
    storage.failures = [(0, object_changed_error("a"))] * (MAX_DOWNLOADS + 5)
    with serving(StoreHandler(storage)) as server:
        status, _, headers = get(server)
        assert (status, "Retry-After" in headers) == (503, True)
    assert storage.gets == MAX_DOWNLOADS
