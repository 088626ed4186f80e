"""Pulls of large objects by ranges, and objects that are replaced meanwhile."""

from __future__ import annotations

import hashlib
import io
import threading
from pathlib import Path

import pytest
import swiftclient

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.local import LocalTree
from pfstorage.transfer import Options, Transfer, TransferContext, pull
from tests.conftest import open_backend, read_tree, run, swift_options
from tests.support.faults import Exchange, Fault, Proxy, is_object
from tests.support.large import CONTENT, MTIME, OTHER, PULL, PUT, SEGMENT_SIZE, container_of, write_large


@pytest.mark.parametrize("backend", ["swift", "filesystem", "memory"])
def test_a_plain_object_is_pulled_by_ranges(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_backend(backend, request, tmp_path, range_size=SEGMENT_SIZE) as storage:
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
    first = [number * SEGMENT_SIZE for number in range(6)]
    assert sorted(exchange.headers["Range"] for exchange in gets) == sorted(
        f"bytes={start}-{min(start + SEGMENT_SIZE, len(CONTENT)) - 1}" for start in first
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
    options = swift_options(swift, segment_size=SEGMENT_SIZE, container_name=container_of(store))
    replaced = threading.Event()

    def replace(exchange: Exchange) -> bool:
        if "multipart-manifest=get" in exchange.query and not replaced.is_set():
            replaced.set()
            write_large(OTHER)
            with open_storage(**options) as other:
                assert run(other, "objPut", **PUT)["status"] is True
        return False

    proxy.fault(Fault("close"), "GET", where=replace)
    return replaced


@pytest.mark.parametrize("is_there", [False, True])
def test_a_large_object_that_is_replaced_by_another_before_its_manifest_is_read_is_pulled(
    swift: DevSwift, store: Storage, proxy: Proxy, is_there: bool
) -> None:
    write_large(CONTENT)
    assert run(store, "objPut", **PUT)["status"] is True
    if is_there:  # a file of the same size is compared first, by the segments that it would have here
        write_large(OTHER[::-1], name="out/large")
    replaced = replaced_at_its_manifest(swift, store, proxy)
    reply = run(store, "objPull", {"segmentSize": "100K"} if is_there else {}, **PULL)
    assert replaced.is_set()
    assert (reply["status"], reply["bytes"]) == (True, len(OTHER)), reply
    assert read_tree(Path("out")) == {"large": OTHER}


def test_a_large_object_that_is_named_and_replaced_by_another_is_pulled(
    swift: DevSwift, store: Storage, proxy: Proxy
) -> None:
    """The first version can't be verified any more, which does not mean that the key is missing."""
    write_large(CONTENT)
    assert run(store, "objPut", **PUT)["status"] is True
    replaced = replaced_at_its_manifest(swift, store, proxy)
    reply = run(store, "objPull", fileList=[{"from": "s/large", "to": "out/large"}])
    assert replaced.is_set()
    assert (reply["status"], reply["bytes"]) == (True, len(OTHER)), reply
    assert read_tree(Path("out")) == {"large": OTHER}


def test_an_object_changed_since_its_listing_is_pulled_as_it_is_now(
    store: Storage, raw: swiftclient.Connection
) -> None:
    write_large(CONTENT)
    run(store, "objPut", **PUT)
    [row] = store.list("s/")
    write_large(OTHER, MTIME + 1)
    run(store, "objPut", **PUT)
    tree = LocalTree("out")
    transfer_context = TransferContext(store, Options(workers=2, retries=0, range_size=SEGMENT_SIZE))
    report = pull([Transfer("s/large", "out/large", row, tree, ("large",))], transfer_context)
    assert (report.failed, report.count, report.size) == ([], 1, len(OTHER))
    assert read_tree(Path("out")) == {"large": OTHER}
