"""Large objects on a real Swift: parallel segments, leftovers of failures, and objects of other programs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.swift.store import SwiftStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ContainerNotFoundError, NoSpaceError
from pfstorage.local import LocalTree
from pfstorage.transfer import Options, Transfer, TransferContext, pull, push
from tests.conftest import ROOT, open_backend, read_tree, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy, is_object
from tests.support.large import (
    container_of,
    content_of,
    is_manifest,
    is_segment,
    orphans,
    raw_connection,
    segments,
)
from tests.support.local import parts_in

KIB = 1024
PIECE = 64 * KIB
CONTENT = random.Random(5).randbytes(5 * PIECE + 1000)
OTHER = random.Random(6).randbytes(len(CONTENT))
MTIME = 1_700_000_000_123_456_789
STAMP = "1700000000.123456789"
STEM = f"s/large/{STAMP}/{len(CONTENT)}/{PIECE}"
NAMES = [f"{STEM}/{number:08}" for number in range(6)]
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}


@pytest.fixture(scope="module")
def swift(own_swift: DevSwift) -> DevSwift:
    return own_swift


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


def write(content: bytes, mtime: int = MTIME, name: str = "data/large") -> None:
    write_tree(Path.cwd(), {name: content})
    os.utime(name, ns=(mtime, mtime))


def run(storage: Storage, action: str, settings: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    with contextlib.closing(StoreHandler(storage)) as handler:  # with other settings it opens another storage
        for name, value in (settings or {}).items():
            handler.state.set(f"/this/{name}", value)
        return handler.run({"action": action, "meta": meta})


def keys(storage: Storage) -> list[str]:
    try:
        return [row.key for row in storage.list()]
    except ContainerNotFoundError:
        return []


# pushed


def test_the_segments_of_a_large_file_name_their_object(
    swift: DevSwift, store: Storage, raw: swiftclient.Connection
) -> None:
    write(CONTENT)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"], reply["skipped"]) == (True, len(CONTENT), 0)
    container = container_of(store)
    names = sorted(segments(swift, container))
    assert [re.sub("/[0-9a-f]{32}/", "/", name) for name in names] == NAMES
    assert len({os.path.dirname(name) for name in names}) == 1
    for number, name in enumerate(names):
        stored = raw.get_object(f"{container}_segments", name)[1]
        assert stored == CONTENT[number * PIECE : (number + 1) * PIECE]
    headers, content = raw.get_object(container, "s/large")
    assert content == CONTENT
    assert headers["x-static-large-object"] == "True"
    assert headers["x-object-meta-mtime"] == STAMP
    assert headers["content-type"] == "application/octet-stream"
    [row] = store.list("s/")
    assert (row.size, row.segments_etag) == (len(CONTENT), headers["etag"].strip('"'))


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("scan", bytes(128) + b"DICM", "application/dicom"),
        ("scan.dcm", b"", "application/dicom"),
        ("notes.txt", b"", "text/plain"),
    ],
)
def test_the_content_type_of_a_large_file_is_sent(
    store: Storage, raw: swiftclient.Connection, name: str, head: bytes, kind: str
) -> None:
    write(head + CONTENT, name=f"data/{name}")
    assert run(store, "objPut", **PUT)["status"] is True
    assert raw.head_object(container_of(store), f"s/{name}")["content-type"] == kind


def test_a_file_no_larger_than_a_segment_is_stored_as_one_object(swift: DevSwift, store: Storage) -> None:
    write(CONTENT[:PIECE])
    assert run(store, "objPut", **PUT)["status"] is True
    assert store.head("s/large").segments_etag == ""
    assert segments(swift, container_of(store)) == set()


def test_segments_of_many_chunks_are_stored_and_fetched(store: Storage, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(1_500_000)
    write(content)
    settings = {"segmentSize": "600K", "rangeSize": "512K"}
    assert run(store, "objPut", settings, **PUT)["bytes"] == len(content)
    assert len(next(store.list("s/")).segments_etag) == 32
    assert run(store, "objPull", settings, **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"large": content}


@pytest.mark.parametrize(
    "after",
    [b"small", b"", OTHER, OTHER[: 3 * PIECE], OTHER + OTHER],
    ids=["small", "empty", "other", "shorter", "longer"],
)
@pytest.mark.parametrize("mtime", [MTIME, MTIME + 1])
def test_a_replacement_of_a_large_object_leaves_its_segments_to_be_swept(
    swift: DevSwift, store: Storage, after: bytes, mtime: int
) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    replaced = segments(swift, container_of(store))
    write(after, mtime)
    assert run(store, "objPut", **PUT)["status"] is True
    assert content_of(store) == after
    assert orphans(swift, container_of(store)) == replaced
    assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == len(replaced)
    assert orphans(swift, container_of(store)) == set()
    assert content_of(store) == after


@pytest.mark.parametrize("size", ["64K", "128K", "96K"])
def test_a_large_file_that_is_there_is_not_asked_for_again(store: Storage, proxy: Proxy, size: str) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    proxy.forget()
    os.utime("data/large")  # only the bytes count
    reply = run(store, "objPut", {"segmentSize": size}, **PUT)
    assert (reply["skipped"], reply["bytes"]) == (1, 0)
    asked = [exchange for exchange in proxy.exchanges if exchange.kind == "object"]
    assert len(asked) == (0 if size == "64K" else 1)  # the request for its segments
    assert all(exchange.method == "GET" and exchange.sent < 5000 for exchange in asked)


def test_a_byte_that_differs_is_seen(store: Storage) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    changed = bytearray(CONTENT)
    changed[3 * PIECE] ^= 1
    write(bytes(changed), MTIME + 1)
    reply = run(store, "objPut", **PUT)
    assert (reply["skipped"], reply["bytes"]) == (0, len(CONTENT))
    assert content_of(store) == bytes(changed)


def test_limits_come_from_the_cluster_or_are_swifts_own(store: SwiftStorage, proxy: Proxy) -> None:
    for _ in range(2):
        assert store.part_size(10**6, PIECE) == PIECE
        assert store.part_size(10**9, PIECE) == 10**6  # of 1000 segments
        assert store.part_size(10**12, 2**40) in (5 * 2**30, 5 * 2**30 + 2)
        with pytest.raises(NoSpaceError, match="too large"):
            store.part_size(10**13, 2**40)
        proxy.fault(Fault("answer", status=404), "GET", where=lambda exchange: exchange.path == "/info")
        store = store.with_retry_policy(TransferContext(store, Options()).retry_policy)


# resumed and aborted pushes


def test_segments_that_an_earlier_try_left_are_used(
    swift: DevSwift, store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    container = container_of(store)
    raw.put_container(f"{container}_segments")
    for number in (0, 2, 3):
        raw.put_object(f"{container}_segments", NAMES[number], CONTENT[number * PIECE : (number + 1) * PIECE])
    raw.put_object(f"{container}_segments", NAMES[4], OTHER[:PIECE])  # of another file
    raw.put_object(f"{container}_segments", NAMES[5], CONTENT[5 * PIECE : -1])  # broken off
    raw.put_object(f"{container}_segments", "s/large/1.5/9/9/00000000", b"of a try with another file")
    raw.put_object(f"{container}_segments", "s/large/more/1.5/9/9/00000000", b"of another object")
    write(CONTENT)
    before = segments(swift, container)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"]) == (True, len(CONTENT) - 3 * PIECE)
    sent = {exchange.key for exchange in proxy.made("PUT", is_segment)}
    assert {name[-8:] for name in sent} == {"00000001", "00000004", "00000005"}
    assert not sent & before
    assert content_of(store) == CONTENT
    assert segments(swift, container) == before | sent


def test_a_push_that_breaks_off_goes_on_where_it_was(swift: DevSwift, store: Storage, proxy: Proxy) -> None:
    write(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    reply = run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    assert reply["error"]["type"] == "UnavailableError"
    left = segments(swift, container_of(store))
    assert 1 <= len(left) <= 3
    assert {re.sub("/[0-9a-f]{32}/", "/", name) for name in left} < set(NAMES)
    assert keys(store) == []
    proxy.forget()
    again = run(store, "objPut", **PUT)
    assert (again["status"], len(proxy.made("PUT", is_segment))) == (True, 6 - len(left))
    assert content_of(store) == CONTENT


@pytest.mark.parametrize("is_signed", [True, False], ids=["by the store", "by a proxy"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_segments_of_an_earlier_try_that_are_not_accessible_are_sent_again(
    store: Storage, proxy: Proxy, method: str, is_signed: bool
) -> None:
    write(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    proxy.forget()
    proxy.fault(
        Fault("answer", status=403, is_signed=is_signed),
        method,
        where=lambda exchange: exchange.container.endswith("_segments"),
    )
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"]) == (True, len(CONTENT))
    assert content_of(store) == CONTENT


def test_segments_of_an_earlier_try_that_disappear_are_sent_again(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    write(CONTENT)
    proxy.fault(Fault("answer", status=503), "PUT", on=range(4, 100), where=is_segment)
    run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)
    proxy.forget()
    home = f"{container_of(store)}_segments"
    gone: list[str] = []

    def remove_first(exchange: Exchange) -> bool:
        if not gone:
            gone.append(exchange.key)
            raw.delete_object(home, exchange.key)
        return False

    proxy.fault(Fault("close"), "POST", where=remove_first)
    assert run(store, "objPut", {"workers": 1}, **PUT)["status"] is True
    assert gone
    assert content_of(store) == CONTENT


@pytest.mark.parametrize("status", [403, 413])
def test_a_push_that_is_refused_for_good_leaves_nothing(
    swift: DevSwift, store: Storage, proxy: Proxy, status: int
) -> None:
    write(CONTENT)
    proxy.fault(Fault("answer", status=status), "PUT", where=is_manifest)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["objectFileList"], len(reply["failed"])) == (False, [], 1)
    assert segments(swift, container_of(store)) == set()
    assert keys(store) == []


@pytest.mark.parametrize("mtime", [MTIME, MTIME + 1])
@pytest.mark.parametrize("content", [CONTENT, OTHER], ids=["same", "other"])
@pytest.mark.parametrize("where", [is_manifest, is_segment], ids=["manifest", "segment"])
def test_an_object_stays_whole_if_its_replacement_is_refused(
    swift: DevSwift, store: Storage, proxy: Proxy, content: bytes, mtime: int, where: Any
) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    write(content, mtime)
    proxy.fault(
        Fault("answer", status=403), "PUT", on=range(1 if where is is_manifest else 3, 100), where=where
    )
    reply = run(store, "objPut", {"workers": 1}, **PUT, overwrite="always")
    if where is is_manifest or content is OTHER:
        assert reply["status"] is False
    assert content_of(store) == CONTENT
    assert orphans(swift, container_of(store)) == set()


@pytest.mark.parametrize("status", [503, 0])
def test_an_object_stays_whole_while_its_replacement_is_being_sent(
    store: Storage, proxy: Proxy, status: int
) -> None:
    """The file has other bytes, and the size and the time that it had: its segments would have the same names."""
    write(CONTENT)
    run(store, "objPut", **PUT)
    write(OTHER)
    fault = Fault("answer", status=status) if status else Fault("reset")
    proxy.fault(fault, "PUT", on=range(3, 100), where=is_object)
    assert run(store, "objPut", {"workers": 1, "retries": 0}, **PUT)["status"] is False
    assert content_of(store) == CONTENT
    proxy.forget()
    assert run(store, "objPut", **PUT)["status"] is True
    assert content_of(store) == OTHER


def test_an_object_that_no_listing_showed_and_was_not_to_be_replaced_stays_whole(
    swift: DevSwift, store: Storage
) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    transfer_context = TransferContext(store, Options(workers=2, overwrite="never", segment_size=PIECE))
    report = push([Transfer("s/large", "data/large")], transfer_context)
    assert (report.skipped, report.failed) == (1, [])
    assert content_of(store) == CONTENT
    write(OTHER, MTIME + 1)
    transfer_context = TransferContext(store, Options(workers=2, overwrite="never", segment_size=PIECE))
    assert push([Transfer("s/large", "data/large")], transfer_context).skipped == 1
    assert content_of(store) == CONTENT
    assert orphans(swift, container_of(store)) == set()


def rewriting(proxy: Proxy, change: bytes, at: tuple[int, ...]) -> None:
    """Write *change* into the file when the given segments reach the proxy, by their count."""
    left = set(at)

    def rewrite(exchange: Exchange) -> bool:
        if is_segment(exchange) and len(proxy.made("PUT", is_segment)) in left:
            left.discard(len(proxy.made("PUT", is_segment)))
            with open("data/large", "r+b") as file:  # the very file, not another of its name
                file.truncate(len(change))
                file.write(change)
        return False

    proxy.fault(Fault("close"), "PUT", where=rewrite)


def test_a_large_file_that_changes_each_time_it_is_pushed_fails_and_leaves_nothing(
    swift: DevSwift, store: Storage, proxy: Proxy
) -> None:
    write(CONTENT)
    rewriting(proxy, OTHER, at=(3, 6))
    reply = run(store, "objPut", {"workers": 1}, **PUT)
    assert reply["error"]["type"] == "FileChangedError"
    assert "changed while it was read" in reply["msg"]
    assert keys(store) == []
    assert segments(swift, container_of(store)) == set()


@pytest.mark.parametrize("change", [b"", b"x", OTHER])
def test_a_large_file_that_changes_once_while_it_is_pushed_is_pushed_again(
    swift: DevSwift, store: Storage, proxy: Proxy, change: bytes
) -> None:
    write(CONTENT)
    rewriting(proxy, change, at=(3,))
    reply = run(store, "objPut", {"workers": 1}, **PUT)
    assert (reply["status"], content_of(store)) == (True, change)
    assert len(segments(swift, container_of(store))) == (6 if change == OTHER else 0)


# pulled


@pytest.mark.parametrize("backend", ["swift", "filesystem", "memory"])
def test_a_plain_object_is_pulled_by_ranges(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_backend(backend, request, tmp_path, range_size=PIECE) as storage:
        storage.put("s/large", io.BytesIO(CONTENT), len(CONTENT))
        reply = run(storage, "objPull", **PULL)
        assert (reply["status"], reply["bytes"]) == (True, len(CONTENT))
        assert read_tree(tmp_path / "out") == {"large": CONTENT}
        assert run(storage, "objPull", **PULL)["skipped"] == 1
        assert run(storage, "objVerify", **PULL)["same"] == 1


def test_ranges_are_asked_for_side_by_side_and_only_of_the_object_that_was_listed(
    store: Storage, proxy: Proxy, tmp_path: Path
) -> None:
    store.put("s/large", io.BytesIO(CONTENT), len(CONTENT))
    proxy.forget()
    assert run(store, "objPull", **PULL)["status"] is True
    gets = proxy.made("GET")
    first = [number * PIECE for number in range(6)]
    assert sorted(exchange.headers["Range"] for exchange in gets) == sorted(
        f"bytes={start}-{min(start + PIECE, len(CONTENT)) - 1}" for start in first
    )
    etag = hashlib.md5(CONTENT).hexdigest()
    assert {exchange.headers["If-Match"] for exchange in gets} == {f'"{etag}"'}
    assert read_tree(tmp_path / "out") == {"large": CONTENT}


def test_an_object_that_is_replaced_meanwhile_is_no_mixture(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    store.put("s/large", io.BytesIO(CONTENT), len(CONTENT))
    replaced = threading.Event()

    def replace(exchange: Exchange) -> bool:
        if is_object(exchange) and len(proxy.made("GET")) == 3 and not replaced.is_set():
            replaced.set()
            raw.put_object(container_of(store), "s/large", OTHER)
        return False

    proxy.fault(Fault("close"), "GET", where=replace)
    reply = run(store, "objPull", {"workers": 1}, **PULL)
    assert replaced.is_set()
    assert (reply["status"], reply["bytes"]) == (True, len(OTHER))
    assert read_tree(Path("out")) == {"large": OTHER}


def replaced_at_its_manifest(swift: DevSwift, store: Storage, proxy: Proxy) -> threading.Event:
    """Replace the large object once its manifest is first asked for; return the event of that."""
    options = swift_options(swift, segment_size=PIECE, container_name=container_of(store))
    replaced = threading.Event()

    def replace(exchange: Exchange) -> bool:
        if "multipart-manifest=get" in exchange.query and not replaced.is_set():
            replaced.set()
            write(OTHER)
            with open_storage(**options) as other:
                assert run(other, "objPut", **PUT)["status"] is True
        return False

    proxy.fault(Fault("close"), "GET", where=replace)
    return replaced


@pytest.mark.parametrize("is_there", [False, True])
def test_a_large_object_that_is_replaced_by_another_before_its_manifest_is_read_is_pulled(
    swift: DevSwift, store: Storage, proxy: Proxy, is_there: bool
) -> None:
    write(CONTENT)
    assert run(store, "objPut", **PUT)["status"] is True
    if is_there:  # a file of the same size is compared first, by the segments that it would have here
        write(OTHER[::-1], name="out/large")
    replaced = replaced_at_its_manifest(swift, store, proxy)
    reply = run(store, "objPull", {"segmentSize": "100K"} if is_there else {}, **PULL)
    assert replaced.is_set()
    assert (reply["status"], reply["bytes"]) == (True, len(OTHER)), reply
    assert read_tree(Path("out")) == {"large": OTHER}


def test_a_large_object_that_is_named_and_replaced_by_another_is_pulled(
    swift: DevSwift, store: Storage, proxy: Proxy
) -> None:
    """The first version can't be verified any more, which does not mean that the key is missing."""
    write(CONTENT)
    assert run(store, "objPut", **PUT)["status"] is True
    replaced = replaced_at_its_manifest(swift, store, proxy)
    reply = run(store, "objPull", fileList=[{"from": "s/large", "to": "out/large"}])
    assert replaced.is_set()
    assert (reply["status"], reply["bytes"]) == (True, len(OTHER)), reply
    assert read_tree(Path("out")) == {"large": OTHER}


def put_manifest(raw: swiftclient.Connection, container: str, key: str, rows: list[dict[str, Any]]) -> None:
    raw.put_object(container, key, json.dumps(rows), query_string="multipart-manifest=put")


@pytest.fixture
def parts(store: Storage, raw: swiftclient.Connection) -> str:
    """The container of the parts 0 to 3, of 100 000 bytes each."""
    container = f"{container_of(store)}-parts"
    raw.put_container(container)
    raw.put_container(container_of(store))
    for number in range(4):
        raw.put_object(container, f"p{number}", bytes([number]) * 100_000)
    return container


def part(number: int) -> bytes:
    return bytes([number]) * 100_000


def path_of(container: str, key: int | str, **more: Any) -> dict[str, Any]:
    return {"path": f"/{container}/{f'p{key}' if isinstance(key, int) else key}", **more}


def test_a_large_object_of_others_is_pulled_and_verified(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    container = container_of(store)
    put_manifest(raw, container, "s/plain", [path_of(parts, 0), path_of(parts, 1)])
    put_manifest(raw, container, "inner", [path_of(parts, 1), path_of(parts, 2)])
    put_manifest(raw, container, "middle", [path_of(container, "inner"), path_of(parts, 3)])
    nested = [path_of(parts, 0), path_of(container, "middle"), path_of(container, "inner")]
    put_manifest(raw, container, "s/nested", nested)
    put_manifest(raw, container, "deep", [path_of(container, "s/nested"), path_of(parts, 0)])
    put_manifest(raw, container, "s/deeper", [path_of(container, "deep"), path_of(parts, 0)])
    ranges = [path_of(parts, 0, range="10-89999"), path_of(parts, 1), path_of(parts, 2, range="-70000")]
    put_manifest(raw, container, "s/ranges", ranges)
    put_manifest(raw, container, "s/range-of-large", [path_of(container, "inner", range="50000-149999")])
    expected = {
        "plain": part(0) + part(1),
        "nested": part(0) + part(1) + part(2) + part(3) + part(1) + part(2),
        "deeper": part(0) + part(1) + part(2) + part(3) + part(1) + part(2) + part(0) + part(0),
        "ranges": bytes(89_990) + part(1) + b"\2" * 70_000,
        "range-of-large": b"\1" * 50_000 + b"\2" * 50_000,
    }
    reply = run(store, "objPull", **PULL)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == expected


def test_bytes_within_a_manifest_are_pulled_too(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    """Swift takes small pieces inline, in base64 (its documentation, "Static Large Objects")."""
    rows = [path_of(parts, 0), {"data": "aGVsbG8="}, path_of(parts, 1)]
    put_manifest(raw, container_of(store), "s/inline", rows)
    reply = run(store, "objPull", **PULL)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == {"inline": part(0) + b"hello" + part(1)}
    again = run(store, "objPut", **{**PUT, "putSpec": "out", "mapLocationOver": "out"})
    assert (again["status"], again["skipped"]) == (True, 1)


def test_a_dynamic_large_object_is_pulled_verified_and_not_taken_for_empty(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    raw.put_object(container_of(store), "s/dlo", b"", headers={"X-Object-Manifest": f"{parts}/p"})
    content = b"".join(part(number) for number in range(4))
    for _ in range(2):
        assert run(store, "objPull", **PULL)["status"] is True
        assert read_tree(tmp_path / "out") == {"dlo": content}
    assert run(store, "objVerify", **PULL)["same"] == 1
    (tmp_path / "out" / "dlo").write_bytes(content[:-1] + b"x")
    assert run(store, "objVerify", **PULL)["changed"] == ["s/dlo"]
    (tmp_path / "out" / "dlo").write_bytes(b"")
    assert run(store, "objVerify", **PULL)["changed"] == ["s/dlo"]


@pytest.mark.parametrize("size", [100_000, 50_000])
def test_a_large_object_with_a_segment_that_was_overwritten_fails_and_makes_no_file(
    store: Storage, raw: swiftclient.Connection, parts: str, size: int
) -> None:
    put_manifest(raw, container_of(store), "s/broken", [path_of(parts, number) for number in range(4)])
    put_manifest(raw, container_of(store), "s/whole", [path_of(parts, 0), path_of(parts, 1)])
    raw.put_object(parts, "p2", b"x" * size)
    reply = run(store, "objPull", {"retries": 0}, **PULL)
    assert (reply["status"], [row["object"] for row in reply["failed"]]) == (False, ["s/broken"])
    assert read_tree(Path("out")) == {"whole": part(0) + part(1)}
    assert parts_in("out") == []


def test_a_missing_segment_fails_the_object(store: Storage, raw: swiftclient.Connection, parts: str) -> None:
    put_manifest(raw, container_of(store), "s/broken", [path_of(parts, number) for number in range(4)])
    raw.delete_object(parts, "p3")
    reply = run(store, "objPull", {"retries": 0}, **PULL)
    assert (reply["status"], [row["object"] for row in reply["failed"]]) == (False, ["s/broken"])
    assert read_tree(Path("out")) == {}


def test_an_object_changed_since_its_listing_is_pulled_as_it_is_now(
    store: Storage, raw: swiftclient.Connection
) -> None:
    write(CONTENT)
    run(store, "objPut", **PUT)
    [row] = store.list("s/")
    write(OTHER, MTIME + 1)
    run(store, "objPut", **PUT)
    tree = LocalTree("out")
    transfer_context = TransferContext(store, Options(workers=2, retries=0, range_size=PIECE))
    report = pull([Transfer("s/large", "out/large", row, tree, ("large",))], transfer_context)
    assert (report.failed, report.count, report.size) == ([], 1, len(OTHER))
    assert read_tree(Path("out")) == {"large": OTHER}


@pytest.mark.parametrize("slo", [True, False])
def test_a_large_object_of_swiftclient_is_recognised_and_replaced(
    swift: DevSwift, store: Storage, proxy: Proxy, slo: bool
) -> None:
    write(CONTENT)
    container = container_of(store)
    login = ["-A", swift.auth_url, "-U", swift.user, "-K", swift.key]
    how = ["-S", str(PIECE), "--object-name", "s/large", "--use-slo" if slo else "--use-dlo"]
    command = [sys.executable, "-m", "swiftclient.shell", *login, "upload", *how, container, "data/large"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert len(segments(swift, container)) == len(NAMES)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["skipped"]) == (True, 1)
    assert not proxy.made("PUT", is_segment)
    write(OTHER, MTIME + 1)
    assert run(store, "objPut", **PUT)["status"] is True
    assert content_of(store) == OTHER
    assert len(orphans(swift, container)) == len(NAMES)
    assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == len(NAMES)
    assert content_of(store) == OTHER


# resources


MEASURED = """
import sys
from pfstorage.cli.main import main
status = main(sys.argv[1:])
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1], file=sys.stderr)
sys.exit(status)
"""


def test_memory_is_bounded_for_a_file_of_any_size(swift: DevSwift, store: Storage, tmp_path: Path) -> None:
    size = 200 * KIB**2
    (tmp_path / "data").mkdir()
    with (tmp_path / "data" / "large").open("wb") as file:
        file.truncate(size)
    flags = ["--swiftAuthUrl", swift.auth_url, "--swiftContainer", container_of(store), "--verbosity", "0"]
    flags += ["--segmentSize", "24M", "--rangeSize", "24M"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for action, meta in (("objPut", PUT), ("objPut", PUT), ("objPull", PULL), ("objPull", PULL)):
        command = [sys.executable, "-c", MEASURED, *flags, "--action", action, "--args", json.dumps(meta)]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120)
        assert done.returncode == 0, done
        assert int(done.stderr) < 100_000  # KiB
    assert (tmp_path / "out" / "large").stat().st_size == size


def test_two_writers_that_replace_the_same_object_leave_one_of_both_whole(
    swift: DevSwift, store: Storage
) -> None:
    write(CONTENT, MTIME, "one/large")
    write(OTHER, MTIME + 1, "two/large")

    def put(directory: str) -> None:
        run(store, "objPut", putSpec=directory, inLocation="s", mapLocationOver=directory)

    for _ in range(5):
        threads = [threading.Thread(target=put, args=(directory,)) for directory in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert content_of(store) in (CONTENT, OTHER)


# a missing part of a large object does not make the object missing


def test_a_large_object_that_lacks_an_inner_manifest_is_not_reported_as_missing(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path
) -> None:
    container = container_of(store)
    put_manifest(raw, container, "inner", [{"path": f"/{parts}/p0"}])
    put_manifest(raw, container, "s/outer", [{"path": f"/{container}/inner"}, {"path": f"/{parts}/p1"}])
    raw.delete_object(container, "inner")
    reply = run(store, "objPull", fromLocation="s", mapLocationOver=str(tmp_path / "out"))
    [failed] = reply["failed"]
    assert failed["object"] == "s/outer"
    assert "'s/outer' is damaged: the manifest 'inner' in it is missing" in failed["msg"]
    assert reply["error"]["type"] == "IntegrityError"
    assert run(store, "objExists", obj="s/outer")["status"] is True


def test_a_dynamic_object_without_its_container_does_not_end_a_run(
    store: Storage, raw: swiftclient.Connection, tmp_path: Path
) -> None:
    container = container_of(store)
    raw.put_container(container)
    raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": "no-such-container/p"})
    for number in range(8):
        raw.put_object(container, f"s/{number}", b"x")
    reply = run(store, "objPull", {"workers": 1}, fromLocation="s", mapLocationOver=str(tmp_path / "out"))
    assert len(reply["objectFileList"]) >= 8
    assert not any("not tried" in row["msg"] for row in reply["failed"])


@pytest.mark.parametrize("prefix", ["pä", "p%C3%A4"])
def test_the_prefix_of_a_dynamic_object_may_be_utf_8(
    store: Storage, raw: swiftclient.Connection, parts: str, tmp_path: Path, prefix: str
) -> None:
    container = container_of(store)
    raw.put_object(parts, "pä1", b"abc")
    raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": f"{parts}/{prefix}"})
    assert store.list_parts(store.head("s/dlo"))[0].size == 3  # type: ignore[attr-defined]
    assert run(store, "objPull", fromLocation="s", mapLocationOver=str(tmp_path / "out"))["status"] is True
    assert (tmp_path / "out" / "dlo").read_bytes() == b"abc"
