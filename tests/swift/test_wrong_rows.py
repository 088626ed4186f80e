"""Malformed answers of a store: each is one clear error, which names the store."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import NO_ATTRIBUTES, Attributes, ObjectInfo
from pfstorage.backends.swift.limits import SwiftLimits, fetch_limits
from pfstorage.backends.swift.rows import LONGEST_ROW, rows_coming
from pfstorage.backends.swift.store import SwiftStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import MisconfiguredError, RejectedError, UnavailableError
from tests.conftest import ask, run, swift_options, write_tree
from tests.conftest import serving as our_server
from tests.support.faults import Exchange, Fault, Proxy, is_listing
from tests.support.peer import Peer, Serving

ROW = {
    "name": "a",
    "bytes": 1,
    "hash": "0" * 32,
    "last_modified": "2026-01-01T00:00:00.0",
    "content_type": "a/b",
}
LARGE_ROW = {**ROW, "slo_etag": '"0"'}
DEEP = "[" * 100_000

WRONG_ROWS = [
    *([each] for each in (1, "subdir", "name", [ROW], True, None)),
    *([{**ROW, name: wrong}] for name in ROW for wrong in ([1], {"a": 1})),
    *([{**ROW, name: wrong}] for name in ROW if name != "bytes" for wrong in (5, True, 1.5)),
    [{**ROW, "bytes": "many"}],
    [{**ROW, "name": None}],
    [{**ROW, "name": ""}],
    [{**ROW, "name": "a\ud800"}],
    [{**ROW, "content_type": "\udfff"}],
    [{**LARGE_ROW, "slo_etag": 5}],
    [{"subdir": 5}],
    [{"subdir": ["a/"]}],
    [{"subdir": ""}],
    [{}],
    [{**ROW, "name": "0"}, {**ROW, "hash": 5}],
]


def is_container(exchange: Exchange) -> bool:
    return exchange.method == "GET" and exchange.kind == "account" and "format=json" in exchange.query


def is_manifest(exchange: Exchange) -> bool:
    return "multipart-manifest=get" in exchange.query


def open_at(proxy: Proxy, swift: DevSwift, **more: Any) -> Storage:
    return open_storage(**{**swift_options(swift), "auth_url": proxy.auth_url, **more})


def answer(proxy: Proxy, content: Any, where: Callable[[Exchange], bool]) -> None:
    data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    proxy.fault(Fault("change", change=lambda _: data), "GET", where=where)


@pytest.mark.parametrize("rows", WRONG_ROWS, ids=lambda rows: json.dumps(rows)[:60])
def test_a_wrong_row_of_a_listing_is_one_error_that_names_the_store(
    swift: DevSwift, proxy: Proxy, rows: list[Any]
) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, rows, is_listing)
        with pytest.raises(UnavailableError) as caught:
            list(storage.list())
        container = storage.settings.swift.container_name
        reported = f"the store at 127.0.0.1:{proxy.port} lists the container {container!r} wrongly: "
        assert str(caught.value).startswith(reported)
        assert caught.value.facts["address"] == f"127.0.0.1:{proxy.port}"
        reply = run(storage, "ls")
    assert (reply["status"], reply["error"]["type"]) == (False, "UnavailableError")


def test_a_wrong_row_that_passes_is_asked_for_again(swift: DevSwift, proxy: Proxy) -> None:
    with open_at(proxy, swift) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        proxy.fault(Fault("change", change=lambda _: b"[5]"), "GET", on=[1], where=is_listing)
        assert [row.key for row in storage.list()] == ["a"]


def test_a_wrong_row_is_the_same_error_in_a_streamed_page(swift: DevSwift, proxy: Proxy) -> None:
    rows = [{**ROW, "name": f"{number:06}"} for number in range(5000)] + [{**ROW, "name": "z", "hash": [5]}]
    with open_at(proxy, swift, retries=0) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, rows, is_listing)
        with pytest.raises(UnavailableError, match="'hash' of a row is a list, not a text"):
            list(storage.list())


@pytest.mark.parametrize("size", [0, 2**62, 2**70, -1, None])
def test_a_size_that_no_object_has_is_unknown(swift: DevSwift, proxy: Proxy, size: int | None) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, [{**ROW, "bytes": size}], is_listing)
        expected = size if size is not None and 0 <= size < 2**63 else None
        assert [row.size for row in storage.list()] == [expected]


@pytest.mark.parametrize("content", [DEEP, f"[{DEEP}"])
def test_a_listing_that_is_nested_without_end_is_refused(swift: DevSwift, proxy: Proxy, content: str) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, content, is_listing)
        reply = run(storage, "ls")
    assert (reply["status"], reply["error"]["type"]) == (False, "RejectedError")
    assert f"127.0.0.1:{proxy.port}" in reply["msg"]


def test_a_row_without_end_is_not_waited_for() -> None:
    taken = 0

    def chunks() -> Any:
        nonlocal taken
        yield b'[{"name": "'
        while True:
            taken += 1
            yield b"a" * 100_000

    with pytest.raises(ValueError, match="JSON array"):
        rows_coming(chunks())
    assert taken * 100_000 < 2 * LONGEST_ROW


# manifests


SEGMENT = {"name": "/c/a", "bytes": 1, "hash": "0" * 32}
WRONG_SEGMENTS = [
    {**SEGMENT, "bytes": [1]},
    {**SEGMENT, "bytes": "many"},
    {**SEGMENT, "hash": 5},
    {**SEGMENT, "hash": {}},
    {**SEGMENT, "name": 5},
]


@pytest.mark.parametrize("segment", WRONG_SEGMENTS, ids=json.dumps)
def test_a_wrong_row_of_a_manifest_is_one_error_that_names_the_store(
    swift: DevSwift, proxy: Proxy, segment: dict[str, Any]
) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        assert isinstance(storage, SwiftStorage)
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, [segment], is_manifest)
        with pytest.raises(
            UnavailableError, match=rf"127.0.0.1:{proxy.port} lists the segments of 'a' wrongly"
        ):
            storage.list_parts(ObjectInfo("a", 1, "0", segments_etag="0"))


@pytest.mark.parametrize(
    "content", [DEEP, '[{"name": "/c/a", "bytes": Infinity, "hash": "0"}]', "[5]", '[{"data": 5}]', "{}"]
)
def test_an_invalid_manifest_makes_the_object_one_segment(
    swift: DevSwift, proxy: Proxy, content: str
) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        assert isinstance(storage, SwiftStorage)
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, content, is_manifest)
        assert len(storage.list_parts(ObjectInfo("a", 1, "0", segments_etag="0"))) == 1


# other answers


@pytest.mark.parametrize("rows", [[5], [{"name": 5}], [{"name": ["a"]}], [{}], ["name"]], ids=json.dumps)
def test_a_wrong_row_of_an_account_ends_a_sweep(swift: DevSwift, proxy: Proxy, rows: list[Any]) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        storage.put("a", io.BytesIO(b"a"), 1)
        answer(proxy, rows, is_container)
        reply = run(storage, "objSweep", olderThan=0)
    assert (reply["status"], reply["error"]["type"]) == (False, "UnavailableError")
    assert f"the store at 127.0.0.1:{proxy.port} lists the account wrongly" in reply["msg"]


@pytest.mark.parametrize(
    "reported",
    [
        DEEP,
        {"slo": {"max_manifest_segments": 0}},
        {"slo": {"max_manifest_segments": -5}},
        {"slo": {"max_manifest_segments": "many"}},
        {"slo": {"max_manifest_segments": True}},
        '{"swift": {"max_file_size": Infinity}}',
        {"swift": [5]},
        [5],
    ],
    ids=lambda reported: str(reported)[:50],
)
def test_a_limit_that_is_none_is_not_believed(swift: DevSwift, proxy: Proxy, reported: Any) -> None:
    with open_at(proxy, swift, retries=0) as storage:
        answer(proxy, reported, lambda exchange: exchange.path == "/info")
        assert fetch_limits(storage._session) == SwiftLimits()  # type: ignore[attr-defined]
        assert storage.start_multipart_upload("a", 2, 1, NO_ATTRIBUTES, None)  # type: ignore[attr-defined]


@pytest.mark.parametrize("url", [5, None, ["http://127.0.0.1:1"]], ids=str)
def test_a_keystone_without_a_url_is_named(serve_peers: Serving, url: Any) -> None:
    endpoint = {"interface": "public", "region": "r", "region_id": "r", "id": "1", "url": url}
    catalog = [{"type": "object-store", "name": "swift", "id": "2", "endpoints": [endpoint]}]
    times = {"issued_at": "2026-01-01T00:00:00Z", "expires_at": "2036-01-01T00:00:00Z"}
    content = json.dumps({"token": {"catalog": catalog, "methods": ["password"], **times}}).encode()

    def grant(peer: Peer) -> None:
        peer.head()
        head = b"HTTP/1.1 201 Yes\r\nX-Subject-Token: t\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        peer.send(head % len(content) + content)

    address = f"http://127.0.0.1:{serve_peers(grant).port}/v3"
    scope = {"project_name": "p"}
    with (
        open_storage(
            type="swift", auth_url=address, auth_version="3", os_options=scope, retries=0
        ) as storage,
        pytest.raises(MisconfiguredError, match="Keystone"),
    ):
        storage.head("a")


# extended attributes

WRONG_TYPES = [
    b"text/html\r\nX-Evil: 1",
    b"text/html\n",
    b"a\rb",
    b"a/b\0c",
    b"\x1b[2J",
    b"\x7f",
    b"\xff\xfe",
]


@pytest.mark.parametrize("kept", WRONG_TYPES)
def test_a_kept_type_that_is_none_is_one_error_that_names_the_object_and_the_store(
    tmp_path: Path, kept: bytes
) -> None:
    write_tree(tmp_path / "store", {"s/bad": b"hello", "s/good": b"hello"})
    os.setxattr(tmp_path / "store/s/bad", "user.mime_type", kept)
    reported = (
        f"the object 's/bad' in {str(tmp_path / 'store')!r}: the extended attribute user.mime_type is no"
    )
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        uses: list[Callable[[], object]] = [
            lambda: storage.head("s/bad"),
            lambda: storage.get("s/bad", io.BytesIO()),
            lambda: storage.copy("s/bad", "s/copy"),
            lambda: list(storage.list()),
        ]
        for use in uses:
            with pytest.raises(UnavailableError) as caught:
                use()
            assert str(caught.value).startswith(reported)
        with our_server(StoreHandler(storage)) as server:
            status, reply = ask(server, None, "GET", "/api/v1/objects/s/bad")
            assert (status, reply["error"]["type"]) == (503, "UnavailableError")
            assert ask(server, {"action": "ls"})[0] == 503
        assert storage.head("s/good").size == 5
        os.removexattr(tmp_path / "store/s/bad", "user.mime_type")
        assert [row.key for row in storage.list()] == ["s/bad", "s/good"]


@pytest.mark.parametrize("kept", [b"\r\n", b"\xff", b"0" * 32 + b" 5:1:1\r\nX: y", b""])
def test_an_invalid_stored_md5_is_computed_again(tmp_path: Path, kept: bytes) -> None:
    write_tree(tmp_path / "store", {"a": b"hello"})
    os.setxattr(tmp_path / "store/a", "user.pfstorage.md5", kept)
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        assert storage.head("a").md5 == hashlib.md5(b"hello").hexdigest()


@pytest.mark.parametrize("kind", ["a/b\r\nX-Evil: 1", "a\0b", "a\x7f"])
def test_a_type_that_no_header_can_have_is_not_kept(tmp_path: Path, kind: str) -> None:
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        storage.put("a", io.BytesIO(b"old"), 3, Attributes("text/plain"))
        with pytest.raises(RejectedError, match="'a': the content type has a line break"):
            storage.put("a", io.BytesIO(b"new"), 3, Attributes(kind))
        assert storage.head("a").content_type == "text/plain"
