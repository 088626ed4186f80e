"""Pushes of large objects: their segments, and replacements of objects."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage.backends import Storage
from pfstorage.backends.swift.store import SwiftStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import NoSpaceError
from pfstorage.transfer import Options, Transfer, TransferContext, push
from tests.conftest import read_tree, run
from tests.support.faults import Exchange, Fault, Proxy, is_object
from tests.support.large import (
    CONTENT,
    MTIME,
    NAMES,
    OTHER,
    PULL,
    PUT,
    SEGMENT_SIZE,
    STAMP,
    container_of,
    content_of,
    is_manifest,
    is_segment,
    keys,
    orphans,
    segments,
    write_large,
)


@pytest.fixture(scope="module")
def swift(own_swift: DevSwift) -> DevSwift:
    return own_swift


def test_the_segments_of_a_large_file_name_their_object(
    swift: DevSwift, store: Storage, raw: swiftclient.Connection
) -> None:
    write_large(CONTENT)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["bytes"], reply["skipped"]) == (True, len(CONTENT), 0)
    container = container_of(store)
    names = sorted(segments(swift, container))
    assert [re.sub("/[0-9a-f]{32}/", "/", name) for name in names] == NAMES
    assert len({os.path.dirname(name) for name in names}) == 1
    for number, name in enumerate(names):
        stored = raw.get_object(f"{container}_segments", name)[1]
        assert stored == CONTENT[number * SEGMENT_SIZE : (number + 1) * SEGMENT_SIZE]
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
    write_large(head + CONTENT, name=f"data/{name}")
    assert run(store, "objPut", **PUT)["status"] is True
    assert raw.head_object(container_of(store), f"s/{name}")["content-type"] == kind


def test_a_file_no_larger_than_a_segment_is_stored_as_one_object(swift: DevSwift, store: Storage) -> None:
    write_large(CONTENT[:SEGMENT_SIZE])
    assert run(store, "objPut", **PUT)["status"] is True
    assert store.head("s/large").segments_etag == ""
    assert segments(swift, container_of(store)) == set()


def test_segments_of_many_chunks_are_stored_and_fetched(store: Storage, tmp_path: Path) -> None:
    content = random.Random(7).randbytes(1_500_000)
    write_large(content)
    settings = {"segmentSize": "600K", "rangeSize": "512K"}
    assert run(store, "objPut", settings, **PUT)["bytes"] == len(content)
    assert len(next(store.list("s/")).segments_etag) == 32
    assert run(store, "objPull", settings, **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"large": content}


@pytest.mark.parametrize(
    "after",
    [b"small", b"", OTHER, OTHER[: 3 * SEGMENT_SIZE], OTHER + OTHER],
    ids=["small", "empty", "other", "shorter", "longer"],
)
@pytest.mark.parametrize("mtime", [MTIME, MTIME + 1])
def test_a_replacement_of_a_large_object_leaves_its_segments_to_be_swept(
    swift: DevSwift, store: Storage, after: bytes, mtime: int
) -> None:
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    replaced = segments(swift, container_of(store))
    write_large(after, mtime)
    assert run(store, "objPut", **PUT)["status"] is True
    assert content_of(store) == after
    assert orphans(swift, container_of(store)) == replaced
    assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == len(replaced)
    assert orphans(swift, container_of(store)) == set()
    assert content_of(store) == after


@pytest.mark.parametrize("size", ["64K", "128K", "96K"])
def test_a_large_file_that_is_there_is_not_asked_for_again(store: Storage, proxy: Proxy, size: str) -> None:
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    proxy.forget()
    os.utime("data/large")  # only the bytes count
    reply = run(store, "objPut", {"segmentSize": size}, **PUT)
    assert (reply["skipped"], reply["bytes"]) == (1, 0)
    asked = [exchange for exchange in proxy.exchanges if exchange.kind == "object"]
    assert len(asked) == (0 if size == "64K" else 1)  # the request for its segments
    assert all(exchange.method == "GET" and exchange.sent < 5000 for exchange in asked)


def test_a_byte_that_differs_is_seen(store: Storage) -> None:
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    changed = bytearray(CONTENT)
    changed[3 * SEGMENT_SIZE] ^= 1
    write_large(bytes(changed), MTIME + 1)
    reply = run(store, "objPut", **PUT)
    assert (reply["skipped"], reply["bytes"]) == (0, len(CONTENT))
    assert content_of(store) == bytes(changed)


def test_limits_come_from_the_cluster_or_are_swifts_own(store: SwiftStorage, proxy: Proxy) -> None:
    for _ in range(2):
        assert store.part_size(10**6, SEGMENT_SIZE) == SEGMENT_SIZE
        assert store.part_size(10**9, SEGMENT_SIZE) == 10**6  # of 1000 segments
        assert store.part_size(10**12, 2**40) in (5 * 2**30, 5 * 2**30 + 2)
        with pytest.raises(NoSpaceError, match="too large"):
            store.part_size(10**13, 2**40)
        proxy.fault(Fault("answer", status=404), "GET", where=lambda exchange: exchange.path == "/info")
        store = store.with_retry_policy(TransferContext(store, Options()).retry_policy)


@pytest.mark.parametrize("mtime", [MTIME, MTIME + 1])
@pytest.mark.parametrize("content", [CONTENT, OTHER], ids=["same", "other"])
@pytest.mark.parametrize("where", [is_manifest, is_segment], ids=["manifest", "segment"])
def test_an_object_stays_whole_if_its_replacement_is_refused(
    swift: DevSwift, store: Storage, proxy: Proxy, content: bytes, mtime: int, where: Any
) -> None:
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    write_large(content, mtime)
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
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    write_large(OTHER)
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
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    transfer_context = TransferContext(
        store, Options(workers=2, overwrite="never", segment_size=SEGMENT_SIZE)
    )
    report = push([Transfer("s/large", "data/large")], transfer_context)
    assert (report.skipped, report.failed) == (1, [])
    assert content_of(store) == CONTENT
    write_large(OTHER, MTIME + 1)
    transfer_context = TransferContext(
        store, Options(workers=2, overwrite="never", segment_size=SEGMENT_SIZE)
    )
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
    write_large(CONTENT)
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
    write_large(CONTENT)
    rewriting(proxy, change, at=(3,))
    reply = run(store, "objPut", {"workers": 1}, **PUT)
    assert (reply["status"], content_of(store)) == (True, change)
    assert len(segments(swift, container_of(store))) == (6 if change == OTHER else 0)


@pytest.mark.parametrize("slo", [True, False])
def test_a_large_object_of_swiftclient_is_recognised_and_replaced(
    swift: DevSwift, store: Storage, proxy: Proxy, slo: bool
) -> None:
    write_large(CONTENT)
    container = container_of(store)
    login = ["-A", swift.auth_url, "-U", swift.user, "-K", swift.key]
    how = ["-S", str(SEGMENT_SIZE), "--object-name", "s/large", "--use-slo" if slo else "--use-dlo"]
    command = [sys.executable, "-m", "swiftclient.shell", *login, "upload", *how, container, "data/large"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert len(segments(swift, container)) == len(NAMES)
    reply = run(store, "objPut", **PUT)
    assert (reply["status"], reply["skipped"]) == (True, 1)
    assert not proxy.made("PUT", is_segment)
    write_large(OTHER, MTIME + 1)
    assert run(store, "objPut", **PUT)["status"] is True
    assert content_of(store) == OTHER
    assert len(orphans(swift, container)) == len(NAMES)
    assert run(store, "objSweep", olderThan=0, dryRun=False)["removed"] == len(NAMES)
    assert content_of(store) == OTHER


def test_two_writers_that_replace_the_same_object_leave_one_of_both_whole(
    swift: DevSwift, store: Storage
) -> None:
    write_large(CONTENT, MTIME, "one/large")
    write_large(OTHER, MTIME + 1, "two/large")

    def put(directory: str) -> None:
        run(store, "objPut", putSpec=directory, inLocation="s", mapLocationOver=directory)

    for _ in range(5):
        threads = [threading.Thread(target=put, args=(directory,)) for directory in ("one", "two")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert content_of(store) in (CONTENT, OTHER)
