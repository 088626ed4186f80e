"""Existence of objects: a reply that certifies it asks for the objects, and does not trust a listing."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.runtime.cancellation import CancellationToken
from tests.conftest import ask, read_tree, run, serving, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy
from tests.support.objects import verdict
from tests.support.waiting import until

PUSH: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "data"}
TREE = {"a": b"aaa", "d/b": b"bb", "d/c": b"c", "e": b""}


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    """A container of the real Swift, by way of the proxy."""
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        yield storage


@pytest.fixture
def raw(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    connection = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    yield connection
    connection.close()


@pytest.fixture
def expire(store: Storage, raw: swiftclient.Connection) -> Callable[[str], None]:
    """Make an object expire, and return after that. Swift still lists it."""

    def let_expire(key: str) -> None:
        container = store.settings.swift.container_name
        headers = raw.head_object(container, key)
        raw.post_object(container, key, {"X-Delete-After": "1", "Content-Type": headers["content-type"]})

        def is_gone() -> bool:
            try:
                raw.head_object(container, key)
            except swiftclient.ClientException as e:
                return bool(e.http_status == 404)
            return False

        until(is_gone)
        assert key in [row.key for row in store.list(key)]

    return let_expire


def requests(proxy: Proxy) -> Counter[tuple[str, str]]:
    return Counter((each.method, each.kind) for each in proxy.exchanges)


ADD_ROWS = """
import sys
from pathlib import Path
from swift.common.utils import Timestamp, md5
from swift.container.backend import ContainerBroker
directory, container, first, last = sys.argv[1:]
brokers = [ContainerBroker(str(path)) for path in Path(directory).glob("devices/*/containers/**/*.db")]
[broker] = [broker for broker in brokers if broker.get_info()["container"] == container]
row = {"created_at": Timestamp.now().internal, "size": 1, "content_type": "text/plain", "deleted": 0}
row |= {"etag": md5(b"x", usedforsecurity=False).hexdigest(), "storage_policy_index": 0}
row |= {"ctype_timestamp": None, "meta_timestamp": None}
broker.merge_items([{**row, "name": f"s/{number:05}"} for number in range(int(first), int(last))])
"""


@pytest.fixture
def list_more(swift: DevSwift, store: Storage, raw: swiftclient.Connection) -> Callable[[int, int], None]:
    """Make Swift list objects that it never had: ``s/00000`` and so on, with the content ``x``."""

    def add_rows(first: int, last: int) -> None:
        container = store.settings.swift.container_name
        raw.put_container(container)
        arguments = [str(swift.directory), container, str(first), str(last)]
        subprocess.run([sys.executable, "-W", "ignore", "-c", ADD_ROWS, *arguments], check=True)

    return add_rows


# objects in the listing that the store does not have


def test_an_expired_object_is_missing_for_verify_and_audits(
    store: Storage, expire: Callable[[str], None], tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    expire("s/d/b")
    assert run(store, "objPush", **PUSH)["skipped"] == 3  # the empty one is never the same
    assert verdict(run(store, "objVerify", **PULL)) == (False, 3, [], ["s/d/b"], [])
    pulled = run(store, "objPull", **PULL, audit=True)
    assert (pulled["status"], pulled["failed"]) == (False, [])
    assert verdict(pulled["audit"]) == (False, 3, [], ["s/d/b"], [])


def test_a_push_stores_missing_objects_again(
    store: Storage, expire: Callable[[str], None], tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    expire("s/d/b")
    reply = run(store, "objPush", **PUSH, audit=True)
    assert (reply["status"], reply["bytes"], reply["skipped"]) == (True, 2, 2)
    assert verdict(reply["audit"]) == (True, 4, [], [], [])
    assert reply["warnings"] == [
        "1 files were not in the store, though it may list them: they were stored again"
    ]
    assert run(store, "objExists", obj="s/d/b")["status"] is True
    assert verdict(run(store, "objVerify", **PULL)) == (True, 4, [], [], [])


@pytest.mark.parametrize("meta", [{"overwrite": "never"}, {"reply": "summary"}, {"shard": "1/1"}])
def test_missing_objects_are_stored_again_with_all_metas(
    store: Storage, expire: Callable[[str], None], tmp_path: Path, meta: dict[str, Any]
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    expire("s/a")
    reply = run(store, "objPush", **PUSH, **meta, audit=True)
    assert (reply["status"], reply["bytes"], reply["audit"]["same"]) == (True, 3, 4)
    assert run(store, "objExists", obj="s/a")["status"] is True


def test_a_failed_second_push_is_a_failure_and_not_missing(
    store: Storage, proxy: Proxy, expire: Callable[[str], None], tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    expire("s/a")
    proxy.fault(Fault("answer", status=403), "PUT", where=lambda exchange: exchange.key == "s/a")
    reply = run(store, "objPush", **PUSH, audit=True)
    assert (reply["status"], [row["object"] for row in reply["failed"]]) == (False, ["s/a"])
    assert "s/a" not in reply["objectFileList"]
    assert "data/a" not in reply["localFileList"]
    assert len(reply["objectFileList"]) == 3
    assert verdict(reply["audit"]) == (False, 3, [], ["s/a"], [])


def test_a_message_with_a_list_of_files_is_audited_the_same_way(
    store: Storage, expire: Callable[[str], None], tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", TREE)
    meta = {"fileList": ["data/d/c", "data/a"], "inLocation": "s", "mapLocationOver": "data"}
    run(store, "objPush", **meta)
    expire("s/a")
    reply = run(store, "objPush", **meta, audit=True)
    assert (reply["status"], reply["audit"]["same"], reply["skipped"]) == (True, 2, 1)


def test_a_deleted_object_that_is_still_listed_is_missing_behind_a_token(
    store: Storage, proxy: Proxy, list_more: Callable[[int, int], None], tmp_path: Path
) -> None:
    list_more(1, 3)
    store.put("s/00000", io.BytesIO(b"x"), 1)
    write_tree(tmp_path / "data", {f"0000{number}": b"x" for number in range(3)})
    context = RequestContext(Principal(Permissions("write", "s/")))
    reply = StoreHandler(store).run({"action": "objVerify", "meta": PULL}, context)
    assert verdict(reply) == (False, 1, [], ["s/00001", "s/00002"], [])


def test_a_deleted_marker_is_missing(store: Storage, expire: Callable[[str], None], tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"a": b"a"})
    (tmp_path / "data" / "d").mkdir()
    store.put("s/d/", io.BytesIO(), 0)
    run(store, "objPush", **PUSH)
    expire("s/d/")
    assert verdict(run(store, "objVerify", **PULL)) == (False, 1, [], ["s/d/"], [])


def test_a_large_object_without_one_of_its_segments_is_missing_and_stored_again(
    store: Storage, raw: swiftclient.Connection, tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", {"large": os.urandom(200_000), "other": os.urandom(200_000)})
    settings = {"segmentSize": "64K"}
    run(store, "objPush", settings, **PUSH)
    container = f"{store.settings.swift.container_name}_segments"
    segments = [row["name"] for row in raw.get_container(container, prefix="s/large/")[1]]
    assert len(segments) == 4
    raw.delete_object(container, segments[2])
    assert run(store, "objExists", obj="s/large")["status"] is True
    assert verdict(run(store, "objVerify", settings, **PULL)) == (False, 1, [], ["s/large"], [])
    reply = run(store, "objPush", settings, **PUSH, audit=True)
    assert (reply["status"], reply["bytes"]) == (True, 65_536)
    assert verdict(run(store, "objVerify", settings, **PULL)) == (True, 2, [], [], [])


def test_a_large_object_that_expired_is_replaced_and_stored_again(
    store: Storage, expire: Callable[[str], None], tmp_path: Path
) -> None:
    settings = {"segmentSize": "64K"}
    write_tree(tmp_path / "data", {"changed": os.urandom(200_000), "same": os.urandom(200_000)})
    run(store, "objPush", settings, **PUSH)
    for key in ("s/changed", "s/same"):
        expire(key)
    write_tree(tmp_path / "data", {"changed": os.urandom(150_000)})
    reply = run(store, "objPush", settings, **PUSH, audit=True)
    assert (reply["status"], reply["audit"]["same"], reply["skipped"]) == (True, 2, 0)
    assert verdict(run(store, "objVerify", settings, **PULL, sure=True)) == (True, 2, [], [], [])
    assert run(store, "objPull", settings, **{**PULL, "mapLocationOver": "out"})["status"] is True
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "data")


# a listing of replaced objects


def test_the_store_outranks_a_stale_listing(tmp_path: Path) -> None:
    class Stale(MemoryStorage):
        """A store whose listing shows the first object of each key."""

        def __init__(self) -> None:
            super().__init__()
            self.first: dict[str, ObjectInfo] = {}

        def put(self, key: str, *arguments: Any, **options: Any) -> ObjectInfo:
            info = super().put(key, *arguments, **options)
            self.first.setdefault(key, info)
            return info

        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            for row in super().list(prefix, **options):
                yield self.first[row.key]

    storage = Stale()
    write_tree(tmp_path / "data", {"a": b"old", "b": b"old"})
    run(storage, "objPush", **PUSH)
    storage.put("s/a", io.BytesIO(b"new"), 3)
    assert verdict(run(storage, "objVerify", **PULL)) == (False, 1, ["s/a"], [], [])
    write_tree(tmp_path / "data", {"a": b"new"})
    assert verdict(run(storage, "objVerify", **PULL)) == (True, 2, [], [], [])
    assert run(storage, "ls", path="s/a", retSpec=["hash"], sure=True)["ls"] == [
        {"hash": storage.head("s/a").etag}
    ]


def test_a_head_without_an_etag_contradicts_no_listing(store: Storage, tmp_path: Path) -> None:
    from pfstorage.transfer.existence import reconcile

    row = ObjectInfo("a", 3, "0cc175b9c0f1b6a831c399e269772661")
    assert reconcile(row, ObjectInfo("a", 3)) is row
    assert reconcile(row, ObjectInfo("a", 3, 'W/"0cc175b9c0f1b6a831c399e269772661')) is row
    assert reconcile(row, reported := ObjectInfo("a", 4)) is reported
    assert reconcile(row, reported := ObjectInfo("a", 3, "92eb5ffee6ae2fec3ad71c777531578f")) is reported


# the number of requests


@pytest.mark.parametrize("action", ["objVerify", "objPush", "objPull"])
def test_each_of_a_thousand_objects_gets_one_head(
    store: Storage, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr("pfstorage.transfer.existence.HEAD_SAMPLE", 40)
    write_tree(tmp_path / "data", {f"{number:05}": b"x" for number in range(40)})
    run(store, "objPush", **PUSH)
    proxy.forget()
    meta = {**(PUSH if action == "objPush" else PULL), **({} if action == "objVerify" else {"audit": True})}
    assert run(store, action, **meta)["status"] is True
    listings = 1 if action == "objVerify" else 2
    assert requests(proxy) == {("GET", "container"): listings, ("HEAD", "object"): 40}


@pytest.mark.parametrize(("sure", "heads"), [(False, 20), (True, 55)])
def test_a_random_sample_of_the_rest_gets_a_head(
    store: Storage, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sure: bool, heads: int
) -> None:
    monkeypatch.setattr("pfstorage.transfer.existence.HEAD_SAMPLE", 10)
    write_tree(tmp_path / "data", {f"{number:05}": b"x" for number in range(55)})
    run(store, "objPush", **PUSH)
    for action, meta in (("objVerify", PULL), ("objPush", {**PUSH, "audit": True})):
        proxy.forget()
        assert run(store, action, **meta, sure=sure)["status"] is True
        assert requests(proxy)["HEAD", "object"] == heads
        asked = [each.key for each in proxy.exchanges if each.kind == "object"]
        assert {f"s/{number:05}" for number in range(10)} < set(asked)


def test_after_a_missing_object_all_get_a_head(
    store: Storage, proxy: Proxy, list_more: Callable[[int, int], None], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One of the first is found at once; of the others, some are found by the sample, and then all."""
    monkeypatch.setattr("pfstorage.transfer.existence.HEAD_SAMPLE", 10)
    write_tree(tmp_path / "data", {f"{number:05}": b"x" for number in range(40)})
    run(store, "objPush", **PUSH)
    write_tree(tmp_path / "data", {f"{number:05}": b"x" for number in range(40, 100)})
    list_more(40, 100)  # the chance that none of 10 of 90 is of these 60 is 1 in 190 000
    proxy.forget()
    reply = run(store, "objVerify", **PULL)
    assert verdict(reply) == (False, 40, [], [f"s/{number:05}" for number in range(40, 100)], [])
    asked = Counter(each.key for each in proxy.exchanges if each.method == "HEAD")
    assert len(asked) == 100
    reply = run(store, "objPush", **PUSH, audit=True, reply="summary")
    assert (reply["status"], reply["bytes"], reply["audit"]["same"]) == (True, 60, 100)


def test_unchanged_files_cause_no_request_for_an_object(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {f"{number:05}": b"x" for number in range(150)})
    run(store, "objPush", **PUSH)
    for action, meta in (("objPush", PUSH), ("objPull", PULL)):
        proxy.forget()
        assert run(store, action, **meta)["skipped"] == 150
        assert requests(proxy) == {("GET", "container"): 1}
    proxy.forget()
    assert run(store, "objVerify", **PULL)["same"] == 150
    assert requests(proxy) == {("GET", "container"): 1, ("HEAD", "object"): 150}


# objects that are not missing


@pytest.mark.parametrize(("status", "error"), [(403, "RejectedError"), (503, "UnavailableError")])
def test_an_unavailable_object_is_not_missing(
    store: Storage, proxy: Proxy, tmp_path: Path, status: int, error: str
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)

    proxy.fault(Fault("answer", status=status), "HEAD", where=lambda exchange: exchange.key == "s/a")
    for action, meta in (("objVerify", PULL), ("objPush", {**PUSH, "audit": True})):
        reply = run(store, action, **meta)
        compared = reply.get("audit", reply)
        assert (reply["status"], compared["same"], compared["missing"]) == (False, 3, [])
        assert [row["object"] for row in compared["failed"]] == ["s/a"]
        assert compared["error"]["type"] == error


def test_a_head_that_fails_once_is_repeated(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    proxy.fault(Fault("answer", status=503), "HEAD", on=[1])
    assert verdict(run(store, "objVerify", **PULL)) == (True, 4, [], [], [])


# ls


def test_a_sure_ls_reports_missing_objects(
    store: Storage, expire: Callable[[str], None], tmp_path: Path
) -> None:
    write_tree(tmp_path / "data", TREE)
    run(store, "objPush", **PUSH)
    expire("s/d/b")
    assert len(run(store, "ls", path="s/")["ls"]) == 4
    reply = run(store, "ls", path="s/", sure=True)
    assert ([row["name"] for row in reply["ls"]], reply["missing"]) == (["s/a", "s/d/c", "s/e"], ["s/d/b"])
    reply = run(store, "ls", path="s/d/b", sure=True)
    assert (reply["status"], reply["ls"], reply["missing"]) == (False, [], ["s/d/b"])
    reply = run(store, "ls", path="s/d", retSpec=[], sure=True)
    assert (reply["ls"]["lsList"], reply["missing"]) == (["s/d/c"], ["s/d/b"])
    reply = run(store, "ls", path="s/", delimiter="/", sure=True)
    assert reply["ls"] == [{"name": "s/a"}, {"subdir": "s/d/"}, {"name": "s/e"}]


@pytest.mark.parametrize("limit", [1, 2, 3, 100, None])
def test_the_limit_counts_existing_objects(
    store: Storage, list_more: Callable[[int, int], None], limit: int | None
) -> None:
    list_more(0, 60)
    for number in range(0, 60, 7):
        store.put(f"s/{number:05}", io.BytesIO(b"x"), 1)
    reply = run(store, "ls", path="s", sure=True, limit=limit)
    assert [row["name"] for row in reply["ls"]] == [f"s/{number:05}" for number in range(0, 60, 7)][:limit]


def test_sure_ls_is_the_same_by_http(store: Storage, list_more: Callable[[int, int], None]) -> None:
    list_more(0, 3)
    store.put("s/00001", io.BytesIO(b"x"), 1)
    with serving(StoreHandler(store)) as server:
        _, reply = ask(server, {"action": "ls", "meta": {"path": "s", "sure": True}})
    assert (reply["status"], reply["ls"], reply["missing"]) == (
        True,
        [{"name": "s/00001"}],
        ["s/00000", "s/00002"],
    )


def test_sure_ls_fails_if_a_head_fails(store: Storage, proxy: Proxy) -> None:
    store.put("s/a", io.BytesIO(b"x"), 1)
    proxy.fault(Fault("answer", status=403), "HEAD")
    reply = run(store, "ls", path="s", sure=True)
    assert (reply["status"], reply["error"]["type"]) == (False, "RejectedError")


def test_a_sure_ls_can_be_cancelled(store: Storage, proxy: Proxy) -> None:
    for number in range(3):
        store.put(f"s/{number}", io.BytesIO(b"x"), 1)
    cancellation = CancellationToken()

    def asks(_: Exchange) -> bool:
        cancellation.cancel()
        return True

    proxy.fault(Fault("stall", seconds=30, side="request"), "HEAD", where=asks)
    reply = StoreHandler(store).run(
        {"action": "ls", "meta": {"path": "s", "sure": True}}, RequestContext(cancellation=cancellation)
    )
    assert reply["error"]["type"] == "StoppedError"


def test_every_backend_supports_sure(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    assert run(storage, "objPush", **PUSH, audit=True, sure=True)["audit"]["same"] == 4
    assert run(storage, "objPull", **{**PULL, "mapLocationOver": "out"}, audit=True)["audit"]["same"] == 4
    assert read_tree(tmp_path / "out") == TREE
    assert [row["name"] for row in run(storage, "ls", path="s", sure=True)["ls"]] == [
        f"s/{name}" for name in TREE
    ]
