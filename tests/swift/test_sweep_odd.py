"""objSweep keeps the segments of unusual manifests, and removes segments without a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import swiftclient

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import run, swift_options
from tests.support.faults import Exchange, Fault, proxy_to
from tests.support.waiting import until

SWEEP: dict[str, Any] = {"olderThan": 0, "dryRun": False}
NAMES = ["a b", "u\u0301\u00fc", "a%2Fb", "100%", "a?b#c", "a\nb", "a\\b'\"", "a+b&c", "\U0001f600", "a//b"]


@pytest.fixture
def account(own_account: DevSwift) -> DevSwift:
    return own_account


@pytest.fixture
def raw(account: DevSwift) -> Iterator[swiftclient.Connection]:
    connection = swiftclient.Connection(account.auth_url, account.user, account.key)
    yield connection
    connection.close()


@pytest.fixture
def store(account: DevSwift) -> Iterator[Storage]:
    with open_storage(**swift_options(account)) as storage:
        yield storage


@pytest.fixture
def container(store: Storage) -> str:
    return store.settings.swift.container_name


@pytest.fixture
def home(raw: swiftclient.Connection, container: str) -> str:
    """The container of the segments."""
    for name in (container, f"{container}_segments"):
        raw.put_container(name)
    return f"{container}_segments"


@pytest.fixture
def last(raw: swiftclient.Connection, container: str) -> str:
    """A container that is read after that of the segments."""
    raw.put_container(f"{container}~")
    return f"{container}~"


def segment(key: str, number: int = 0) -> str:
    return f"{key}/1.5/9/4/{number:08}"


def put_segments(raw: swiftclient.Connection, home: str, *names: str) -> None:
    for name in names:
        raw.put_object(home, name, b"some")


def put_manifest(raw: swiftclient.Connection, container: str, key: str, *paths: str, **headers: str) -> None:
    rows = json.dumps([{"path": path} for path in paths])
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    raw.put_object(container, key, rows, query_string="multipart-manifest=put", headers=fields)


def swept(store: Storage) -> list[str]:
    reply = run(store, "objSweep", **SWEEP)
    assert (reply["status"], reply["removed"]) == (True, len(reply["leftovers"])), reply
    return [row["name"] for row in reply["leftovers"]]


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize("how", ["static", "dynamic", "link"])
def test_a_name_may_have_any_characters(
    store: Storage, raw: swiftclient.Connection, container: str, home: str, key: str, how: str
) -> None:
    used, left = segment(key), segment(f"{key}x")
    put_segments(raw, home, used, left)
    if how == "static":
        put_manifest(raw, container, key, f"/{home}/{used}")
    elif how == "dynamic":
        raw.put_object(container, key, b"", headers={"X-Object-Manifest": quote(f"{home}/{key}/")})
    else:
        raw.put_object(container, key, b"", headers={"X-Symlink-Target": quote(f"{home}/{used}")})
    assert swept(store) == [left]
    assert [row["name"] for row in raw.get_container(home)[1]] == [used]


@pytest.mark.parametrize("top", ["static", "link"])
def test_manifests_named_as_segments_keep_their_segments(
    store: Storage, raw: swiftclient.Connection, home: str, last: str, top: str
) -> None:
    """A sweep finds each manifest only after it has read the one before."""
    used = [segment("a", number) for number in range(3)]
    put_segments(raw, home, *used)
    put_manifest(raw, home, segment("d"), *(f"/{home}/{name}" for name in used))
    put_manifest(raw, home, segment("c"), f"/{home}/{segment('d')}")
    put_manifest(raw, home, segment("b"), f"/{home}/{segment('c')}")
    if top == "static":
        put_manifest(raw, last, "top", f"/{home}/{segment('b')}")
    else:
        raw.put_object(last, "top", b"", headers={"X-Symlink-Target": f"{home}/{segment('b')}"})
    assert swept(store) == []
    raw.delete_object(last, "top")
    assert len(swept(store)) == 6


def test_a_dynamic_manifest_that_is_named_as_a_segment_counts(
    store: Storage, raw: swiftclient.Connection, home: str, last: str
) -> None:
    put_segments(raw, home, segment("a"))
    raw.put_object(home, segment("d"), b"", headers={"X-Object-Manifest": f"{home}/a/"})
    raw.put_object(last, "link", b"", headers={"X-Symlink-Target": f"{home}/{segment('d')}"})
    assert swept(store) == []


def test_a_range_of_a_segment_next_to_inline_bytes_keeps_it(
    store: Storage, raw: swiftclient.Connection, home: str, last: str
) -> None:
    put_segments(raw, home, segment("a"))
    rows = [{"data": "aGVsbG8="}, {"path": f"/{home}/{segment('a')}", "range": "1-2"}]
    raw.put_object(last, "top", json.dumps(rows), query_string="multipart-manifest=put")
    assert swept(store) == []


@pytest.mark.parametrize("goes_on", [True, False])
def test_versions_from_before_and_after_count(
    store: Storage, raw: swiftclient.Connection, container: str, home: str, goes_on: bool
) -> None:
    paths = [f"/{home}/{segment('a', number)}" for number in range(4)]
    put_segments(raw, home, *(segment("a", number) for number in range(4)))
    put_manifest(raw, container, "k", paths[0])
    raw.post_container(container, {"X-Versions-Enabled": "true"})
    put_manifest(raw, container, "k", paths[1])
    put_manifest(raw, container, "k", paths[2])
    raw.delete_object(container, "k")
    raw.put_object(container, "k", b"small")
    raw.post_container(container, {"X-Versions-Enabled": "true" if goes_on else "false"})
    put_manifest(raw, container, "j", paths[3])
    raw.put_object(container, "j", b"small")
    assert swept(store) == ([] if goes_on else [segment("a", 3)])


def test_versions_may_be_dynamic_manifests_and_links(
    store: Storage, raw: swiftclient.Connection, container: str, home: str
) -> None:
    put_segments(raw, home, segment("a"), segment("b"))
    raw.post_container(container, {"X-Versions-Enabled": "true"})
    raw.put_object(container, "k", b"", headers={"X-Object-Manifest": f"{home}/a/"})
    raw.put_object(container, "k", b"", headers={"X-Symlink-Target": f"{home}/{segment('b')}"})
    raw.put_object(container, "k", b"small")
    assert swept(store) == []


def test_segments_may_have_versions_themselves(
    store: Storage, raw: swiftclient.Connection, container: str, home: str
) -> None:
    raw.post_container(home, {"X-Versions-Enabled": "true"})
    put_segments(raw, home, segment("a"), segment("a"), segment("b"))
    put_manifest(raw, container, "k", f"/{home}/{segment('a')}")
    assert swept(store) == [segment("b")]


def test_an_expired_manifest_keeps_no_segments(
    store: Storage, raw: swiftclient.Connection, container: str, home: str
) -> None:
    put_segments(raw, home, segment("a"))
    put_manifest(raw, container, "k", f"/{home}/{segment('a')}", X_Delete_After="1")

    def is_gone() -> bool:
        try:
            raw.head_object(container, "k")
        except swiftclient.ClientException as e:
            return bool(e.http_status == 404)
        return False

    until(is_gone)
    assert [row["name"] for row in raw.get_container(container)[1]] == ["k"]
    assert swept(store) == [segment("a")]


def test_a_manifest_on_one_replica_keeps_its_segments(
    account: DevSwift, raw: swiftclient.Connection, container: str, home: str
) -> None:
    put_segments(raw, home, segment("a"))
    put_manifest(raw, container, "k", f"/{home}/{segment('a')}")

    def is_it(exchange: Exchange) -> bool:
        return (exchange.container, exchange.key) == (container, "k")

    with proxy_to(account.port) as proxy:
        proxy.fault(Fault("answer", status=404, is_signed=True), "GET", where=is_it)
        options = {**swift_options(account), "auth_url": proxy.auth_url, "container_name": container}
        with open_storage(**options) as store:
            reply = run(store, "objSweep", **SWEEP)
        assert (reply["status"], len(reply["unread"])) == (False, 1)
        assert [each.headers["X-Newest"] for each in proxy.made("HEAD", is_it)]
    assert raw.get_object(container, "k")[1] == b"some"
