"""A store that does not return manifests, like Ceph's gateway: large objects are moved, and verified if possible."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, run, serving, swift_options, write_tree
from tests.support.exchange import send
from tests.support.faults import Exchange, Fault, Proxy, is_listing, is_object
from tests.support.large import content_of, is_manifest, is_segment

PIECE = 64 * 1024
FIRST = random.Random(1).randbytes(5 * PIECE + 1)
SECOND = random.Random(2).randbytes(3 * PIECE)
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}
OTHER_SIZE = {"segmentSize": "128K"}
EMPTY = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.fixture
def swift(own_account: DevSwift) -> DevSwift:
    return own_account


def is_manifest_read(exchange: Exchange) -> bool:
    return "multipart-manifest=get" in exchange.query


def nothing(_: bytes) -> bytes:
    return b""


def without_hash(content: bytes) -> bytes:
    return json.dumps(
        [{name: row[name] for name in ("name", "bytes")} for row in json.loads(content)]
    ).encode()


def without_manifest_sizes(content: bytes) -> bytes:
    """List large objects as Ceph does: the MD5 of nothing, and the size of the manifest."""
    rows = json.loads(content or b"[]")
    for row in rows:
        if row.pop("slo_etag", None):
            row |= {"hash": EMPTY, "bytes": 285}
    return json.dumps(rows).encode()


def act_like_ceph(proxy: Proxy, reported: Callable[[bytes], bytes] = nothing) -> None:
    """Make *proxy* behave as Ceph 16.2 does. A real one was measured."""
    large: set[str] = set()

    def is_refused(exchange: Exchange) -> bool:
        if exchange.method == "PUT" and is_manifest(exchange):
            large.add(exchange.path)
        return is_manifest(exchange) and "ETag" in exchange.headers

    def is_unknown(exchange: Exchange) -> bool:
        return exchange.path in large and "If-Match" in exchange.headers

    proxy.fault(Fault("answer", status=422, is_signed=True), "PUT", where=is_refused)
    proxy.fault(Fault("answer", status=412, is_signed=True), "GET", where=is_unknown)
    proxy.fault(Fault("change", change=reported), "GET", where=is_manifest_read)
    proxy.fault(Fault("change", change=without_manifest_sizes), "GET", where=is_listing)


def opened(swift: DevSwift, proxy: Proxy) -> Storage:
    options = swift_options(swift, segment_size=PIECE, range_size=PIECE)
    return open_storage(**{**options, "auth_url": proxy.auth_url})


@pytest.fixture
def ceph(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    act_like_ceph(proxy)
    with opened(swift, proxy) as storage:
        yield storage


def put(
    store: Storage, content: bytes, settings: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    write_tree(Path.cwd(), {"data/large": content})
    os.utime("data/large")
    return run(store, "objPut", settings, **PUT, **more)


def test_a_large_file_goes_there_and_comes_back(ceph: Storage, proxy: Proxy) -> None:
    reply = put(ceph, FIRST, audit=True)
    assert (reply["status"], reply["bytes"]) == (True, len(FIRST))
    assert not any("ETag" in exchange.headers for exchange in proxy.made("PUT", is_manifest))
    assert put(ceph, FIRST)["skipped"] == 1
    reply = run(ceph, "objPull", **PULL, audit=True)
    assert (reply["status"], reply["bytes"], reply.get("warnings")) == (True, len(FIRST), None)
    assert read_tree(Path("out")) == {"large": FIRST}
    assert run(ceph, "objPull", **PULL)["skipped"] == 1
    assert run(ceph, "objVerify", **PULL)["same"] == 1
    changed = bytearray(FIRST)
    changed[-1] ^= 1
    write_tree(Path("out"), {"large": bytes(changed)})
    assert run(ceph, "objVerify", **PULL)["changed"] == ["s/large"]


def test_an_object_that_can_not_be_verified_is_pulled_with_a_warning(ceph: Storage) -> None:
    put(ceph, FIRST)
    reply = run(ceph, "objPull", OTHER_SIZE, **PULL)
    assert (reply["status"], read_tree(Path("out"))) == (True, {"large": FIRST})
    assert len(reply["warnings"]) == 1
    assert "not verified" in reply["warnings"][0]
    assert "'s/large'" in reply["warnings"][0]
    reply = run(ceph, "objVerify", OTHER_SIZE, **PULL)  # no answer shows that the content is the same
    assert (reply["status"], reply["changed"]) == (False, ["s/large"])


@pytest.mark.parametrize("after", [SECOND, FIRST, b"small", b""], ids=["other", "same", "small", "empty"])
@pytest.mark.parametrize("settings", [{}, OTHER_SIZE], ids=["as-before", "other-size"])
def test_a_push_replaces_an_object_that_can_not_be_verified(
    ceph: Storage, after: bytes, settings: dict[str, Any]
) -> None:
    put(ceph, FIRST)
    reply = put(ceph, after, settings)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert content_of(ceph) == after


def test_a_push_that_breaks_off_goes_on(ceph: Storage, proxy: Proxy) -> None:
    proxy.fault(Fault("answer", status=503), "PUT", range(4, 100), is_segment)
    assert put(ceph, FIRST, {"workers": 1, "retries": 0})["status"] is False
    proxy.forget()
    act_like_ceph(proxy)
    reply = run(ceph, "objPut", **PUT)
    assert reply["status"] is True
    assert reply["bytes"] < len(FIRST)
    assert content_of(ceph) == FIRST


@pytest.mark.parametrize(
    "reported", [nothing, without_hash, lambda _: b"[]", lambda _: b'{"a": 1}', lambda _: b"<html>"]
)
def test_a_swift_that_does_not_mark_manifests_is_read_too(
    swift: DevSwift, proxy: Proxy, reported: Callable[[bytes], bytes]
) -> None:
    """Here the listing marks the large object, and If-Match works."""
    with opened(swift, proxy) as store:
        put(store, FIRST)
        proxy.fault(Fault("change", change=reported), "GET", where=is_manifest_read)
        reply = run(store, "objPull", **PULL)
        assert (reply["status"], reply.get("warnings")) == (True, None)
        again = run(store, "objPull", OTHER_SIZE, **{**PULL, "mapLocationOver": "again"})
        assert (again["status"], len(again["warnings"])) == (True, 1)
        assert read_tree(Path("out")) == read_tree(Path("again")) == {"large": FIRST}
        assert put(store, SECOND)["status"] is True
        assert content_of(store) == SECOND


def test_a_download_that_breaks_off_goes_on(ceph: Storage, proxy: Proxy) -> None:
    """The client asks for the current object, since If-Match does not work."""
    put(ceph, FIRST)
    proxy.fault(Fault("close", at=3 * PIECE), "GET", [1], lambda each: is_object(each) and not each.query)
    reply = run(ceph, "objPull", **PULL)
    assert (reply["status"], read_tree(Path("out"))) == (True, {"large": FIRST})
    assert proxy.made("GET", lambda each: "Range" in each.headers and "If-Match" not in each.headers)


def test_bytes_that_come_too_few_are_no_object(ceph: Storage, proxy: Proxy) -> None:
    put(ceph, FIRST)
    proxy.fault(Fault("shorten", at=3 * PIECE), "GET", where=lambda each: is_object(each) and not each.query)
    reply = run(ceph, "objPull", {"retries": 0}, **PULL)
    assert (reply["status"], reply["error"]["type"]) == (False, "IntegrityError")
    assert read_tree(Path("out")) == {}


def test_http_serves_the_large_object_and_ranges_of_it(ceph: Storage) -> None:
    put(ceph, FIRST)
    with serving(StoreHandler(ceph)) as server:
        assert send(server, "GET", "/api/v1/objects/s/large")[2] == FIRST
        start, end = PIECE - 10, 2 * PIECE + 9
        assert (
            send(server, "GET", "/api/v1/objects/s/large", Range=f"bytes={start}-{end}")[2]
            == FIRST[start : end + 1]
        )
        etag = send(server, "HEAD", "/api/v1/objects/s/large")[1]["ETag"]
        answer = send(
            server, "GET", "/api/v1/objects/s/large", Range=f"bytes={start}-{end}", **{"If-Range": etag}
        )
        assert (answer[0], answer[2]) == (206, FIRST[start : end + 1])


def test_nothing_is_swept_where_manifests_are_not_given_out(ceph: Storage) -> None:
    put(ceph, FIRST)
    put(ceph, SECOND)
    reply = run(ceph, "objSweep", olderThan=0, dryRun=False)
    assert (reply["status"], reply["error"]["type"]) == (False, "RejectedError")
    assert content_of(ceph) == SECOND
