"""Owners of segments: no push removes segments of other objects, and objSweep none of existing objects."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import swiftclient

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.access.scoped import scoped
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.backends.swift.names import home_of, key_of, segment_container
from pfstorage.devswift import DevSwift
from tests.conftest import Command, ask, run, serving, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy, is_listing
from tests.support.large import container_of, content_of, is_manifest, is_segment, raw_connection, segments

PIECE = 64 * 1024
FIRST = random.Random(1).randbytes(2 * PIECE + 1)
SECOND = random.Random(2).randbytes(2 * PIECE + 2)
MTIME = 1_700_000_000_000_000_000
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
SWEEP: dict[str, Any] = {"olderThan": 0, "dryRun": False}


@pytest.fixture
def swift(own_account: DevSwift) -> DevSwift:
    return own_account


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    options = swift_options(swift, segment_size=PIECE, range_size=PIECE, auth_url=proxy.auth_url)
    with open_storage(**options) as storage:
        yield storage


@pytest.fixture
def raw(swift: DevSwift) -> Iterator[swiftclient.Connection]:
    with raw_connection(swift) as raw:
        raw.url, raw.token = raw.get_auth()
        yield raw


def push(store: Storage, content: bytes, **settings: Any) -> dict[str, Any]:
    write_tree(Path.cwd(), {"data/large": content})
    os.utime("data/large", ns=(MTIME, MTIME))
    return run(store, "objPut", settings, **PUT)


def copy_manifest(raw: swiftclient.Connection, source: str, target: str) -> None:
    """Copy a manifest instead of its content. python-swiftclient has no such call."""
    address = urlsplit(raw.url)
    connection = http.client.HTTPConnection(address.netloc)
    with contextlib.closing(connection):
        headers = {"X-Auth-Token": raw.token, "Destination": quote(target)}
        connection.request("COPY", f"{address.path}/{quote(source)}?multipart-manifest=get", headers=headers)
        assert connection.getresponse().status == 201


def bytes_of(raw: swiftclient.Connection, container: str, key: str, query: str = "") -> bytes:
    content: bytes = raw.get_object(container, key, query_string=query or None)[1]
    return content


# segments after a push


VERSIONS = ["X-Versions-Enabled", "X-History-Location", "X-Versions-Location"]


def versioned(raw: swiftclient.Connection, container: str, header: str) -> Callable[[], list[bytes]]:
    """Make *container* keep versions. Return a function that reads the content of the old versions."""
    archive = f"{container}-old"
    if header == "X-Versions-Enabled":
        raw.put_container(container, {header: "true"})

        def old() -> list[bytes]:
            rows = raw.get_container(container, query_string="versions=true")[1]
            return [
                bytes_of(raw, container, row["name"], f"version-id={row['version_id']}")
                for row in rows
                if not row["is_latest"]
            ]
    else:
        raw.put_container(archive)
        raw.put_container(container, {header: archive})

        def old() -> list[bytes]:
            return [bytes_of(raw, archive, row["name"]) for row in raw.get_container(archive)[1]]

    return old


@pytest.mark.parametrize("header", VERSIONS)
@pytest.mark.parametrize("after", [SECOND, b"small"], ids=["large", "small"])
def test_old_versions_stay_complete(
    store: Storage, raw: swiftclient.Connection, header: str, after: bytes
) -> None:
    old = versioned(raw, container_of(store), header)
    assert push(store, FIRST)["status"] is True
    assert push(store, after)["status"] is True
    assert old() == [FIRST]
    assert run(store, "objSweep", **SWEEP)["removed"] == 0
    assert (old(), content_of(store)) == ([FIRST], after)


@pytest.mark.parametrize("header", VERSIONS)
def test_a_deleted_object_stays_as_an_old_version(
    store: Storage, raw: swiftclient.Connection, header: str
) -> None:
    old = versioned(raw, container_of(store), header)
    push(store, FIRST)
    push(store, SECOND)
    store.delete("s/large")
    assert run(store, "objSweep", **SWEEP)["status"] is True
    if header == "X-Versions-Location":  # so a version comes back
        assert (old(), content_of(store)) == ([], FIRST)
    else:
        assert FIRST in old()
        assert SECOND in old()


@pytest.mark.parametrize("target", ["{}/archive/vol.nii", "{}-other/vol.nii"])
@pytest.mark.parametrize("after", [SECOND, FIRST, b"small"], ids=["other", "same", "small"])
@pytest.mark.parametrize("deleted", [True, False])
def test_a_copy_of_a_manifest_stays_complete(
    store: Storage, raw: swiftclient.Connection, target: str, after: bytes, deleted: bool
) -> None:
    container = container_of(store)
    push(store, FIRST)
    target = target.format(container)
    copied = target.partition("/")
    raw.put_container(copied[0])
    copy_manifest(raw, f"{container}/s/large", target)
    if deleted:
        store.delete("s/large")
    assert push(store, after)["status"] is True
    assert bytes_of(raw, copied[0], copied[2]) == FIRST
    assert run(store, "objSweep", **SWEEP)["status"] is True
    assert (bytes_of(raw, copied[0], copied[2]), content_of(store)) == (FIRST, after)
    raw.delete_object(copied[0], copied[2])
    run(store, "objSweep", **SWEEP)
    assert len(segments_of(raw, container)) == (0 if after == b"small" else 3)
    assert content_of(store) == after


def segments_of(raw: swiftclient.Connection, container: str) -> list[str]:
    return [row["name"] for row in raw.get_container(f"{container}_segments")[1]]


def test_http_put_and_delete_leave_the_segments_of_a_copy(
    store: Storage, raw: swiftclient.Connection
) -> None:
    push(store, FIRST)
    copy_manifest(raw, f"{container_of(store)}/s/large", f"{container_of(store)}/copy")
    with serving(StoreHandler(store)) as server:
        status, _ = ask(server, "small", "PUT", "/api/v1/objects/s/large")
    assert status == 201
    assert content_of(store, "copy") == FIRST
    store.delete("s/large")
    assert content_of(store, "copy") == FIRST


def test_two_pushes_of_one_file_share_segments(store: Storage, proxy: Proxy, swift: DevSwift) -> None:
    """The store refuses the manifest of the first push permanently, after the second has used its segments."""
    write_tree(Path.cwd(), {"data/large": FIRST})
    options = {**swift_options(swift, segment_size=PIECE), "container_name": container_of(store)}
    replies: list[dict[str, Any]] = []

    def push_as_well(exchange: Exchange) -> bool:
        if is_manifest(exchange) and not replies:
            replies.append({})
            with open_storage(**options) as second:
                replies[0] = run(second, "objPut", **PUT)
            return True
        return False

    proxy.fault(Fault("answer", status=403), "PUT", where=push_as_well)
    assert run(store, "objPut", **PUT)["status"] is False
    assert (replies[0]["status"], replies[0]["bytes"]) == (True, 0)
    assert content_of(store) == FIRST


@pytest.mark.parametrize("both_at_once", range(3))
def test_of_two_pushes_to_one_key_one_is_complete(store: Storage, swift: DevSwift, both_at_once: int) -> None:
    """The two files have the same size and time, so only unique names distinguish their segments."""
    contents = [random.Random(number).randbytes(3 * PIECE) for number in (1, 2)]
    for number, content in enumerate(contents):
        write_tree(Path.cwd(), {f"{number}/large": content})
        os.utime(f"{number}/large", ns=(MTIME, MTIME))
    replies: dict[int, dict[str, Any]] = {}

    def put(number: int) -> None:
        replies[number] = run(
            store, "objPut", putSpec=str(number), inLocation="s", mapLocationOver=str(number)
        )

    threads = [threading.Thread(target=put, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [replies[number]["status"] for number in (0, 1)] == [True, True]
    assert content_of(store) in contents
    assert run(store, "objSweep", **SWEEP)["removed"] == 3
    assert content_of(store) in contents


@pytest.mark.parametrize("fault", [Fault("close"), Fault("answer", status=503), Fault("answer", status=500)])
def test_segments_stay_that_a_lost_manifest_may_name(
    store: Storage, proxy: Proxy, swift: DevSwift, fault: Fault
) -> None:
    """The response to the first request is lost or leaves its result open. The second request is refused."""
    proxy.fault(fault, "PUT", [1], is_manifest)
    proxy.fault(Fault("answer", status=403), "PUT", [2], is_manifest)
    reply = push(store, FIRST)
    assert reply["status"] is False
    assert len(segments(swift, container_of(store))) == 3
    if fault.kind == "close":
        assert content_of(store) == FIRST


def test_a_new_push_repairs_a_damaged_object(
    store: Storage, raw: swiftclient.Connection, proxy: Proxy
) -> None:
    """Segments of the object that is there are not taken for those of an earlier try."""
    push(store, FIRST)
    before = set(segments_of(raw, container_of(store)))
    proxy.forget()
    write_tree(Path.cwd(), {"data/large": FIRST})
    os.utime("data/large", ns=(MTIME, MTIME))
    assert run(store, "objPut", **PUT, overwrite="always")["bytes"] == len(FIRST)
    for name in before:
        raw.delete_object(f"{container_of(store)}_segments", name)
    assert content_of(store) == FIRST


# the sweep


def leave_some(store: Storage, proxy: Proxy) -> list[str]:
    """Interrupt a push. Return the names of the segments that it leaves."""
    proxy.fault(Fault("answer", status=503), "PUT", range(3, 100), is_segment)
    assert push(store, FIRST, workers=1, retries=0)["status"] is False
    proxy.forget()
    return [row["name"] for row in run(store, "objSweep", olderThan=0)["leftovers"]]


def test_a_sweep_lists_leftovers_and_removes_them_on_request(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    push(store, SECOND)
    used = segments_of(raw, container_of(store))
    left = leave_some(store, proxy)
    assert len(left) == 2
    assert sorted(segments_of(raw, container_of(store))) == sorted([*used, *left])
    reply = run(store, "objSweep", **SWEEP)
    assert (reply["status"], reply["removed"], reply["failed"], reply["bytes"]) == (True, 2, [], 2 * PIECE)
    assert segments_of(raw, container_of(store)) == used
    assert content_of(store) == SECOND


def test_young_and_foreign_segments_stay(store: Storage, proxy: Proxy, raw: swiftclient.Connection) -> None:
    left = leave_some(store, proxy)
    home = f"{container_of(store)}_segments"
    others = ["notes", "s/large/notes", "s/large/1.5/9/9/x/00000000", "s/large/1.5/9/00000000"]
    for name in others:
        raw.put_object(home, name, b"x")
    raw.put_object(home, "t/large/1.5/9/9/00000000", b"of a try of an earlier release")
    for meta in ({"dryRun": False}, {**SWEEP, "olderThan": 3600}, {**SWEEP, "path": "s/l"}):
        assert run(store, "objSweep", **meta)["removed"] == 0
    assert run(store, "objSweep", **SWEEP, path="t")["removed"] == 1
    assert run(store, "objSweep", **SWEEP, path="s/large")["removed"] == len(left)
    assert sorted(segments_of(raw, container_of(store))) == sorted(others)


def test_a_running_upload_keeps_its_old_segments(
    swift: DevSwift, store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    """A push that uses the segments of an earlier try has not named them yet: the use makes them new."""
    leave_some(store, proxy)
    options = {**swift_options(swift), "container_name": container_of(store)}
    seen: list[dict[str, Any]] = []

    def sweep_meanwhile(exchange: Exchange) -> bool:
        if is_manifest(exchange) and not seen:
            with open_storage(**options) as other:  # the proxy waits for this
                seen.append(run(other, "objSweep", olderThan=3600))
        return False

    proxy.fault(Fault("close"), "PUT", where=sweep_meanwhile)
    taken = raw.get_container(f"{container_of(store)}_segments")[1]
    reply = push(store, FIRST)
    assert (reply["status"], reply["bytes"]) == (True, len(FIRST) - 2 * PIECE), reply
    assert seen[0]["leftovers"] == []
    after = {
        row["name"]: row["last_modified"] for row in raw.get_container(f"{container_of(store)}_segments")[1]
    }
    assert all(after[row["name"]] > row["last_modified"] for row in taken)
    assert content_of(store) == FIRST


@pytest.mark.parametrize("how", ["nested", "nested elsewhere", "dynamic", "dynamic with content", "link"])
def test_each_kind_of_manifest_keeps_its_segments(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, how: str
) -> None:
    left = leave_some(store, proxy)
    home, other = f"{container_of(store)}_segments", f"{container_of(store)}-other"
    for container in (other, container_of(store)):
        raw.put_container(container)
    paths = [{"path": f"/{home}/{name}"} for name in left]
    if how.startswith("nested"):
        inner = other if "elsewhere" in how else home
        raw.put_object(inner, "inner", json.dumps(paths), query_string="multipart-manifest=put")
        outer = json.dumps([{"path": f"/{inner}/inner"}])
        raw.put_object(container_of(store), "outer", outer, query_string="multipart-manifest=put")
    elif how.startswith("dynamic"):
        content = b"x" if "content" in how else b""
        raw.put_object(other, "dlo", content, headers={"X-Object-Manifest": f"{home}/s/"})
    else:
        for number, name in enumerate(left):
            raw.put_object(other, f"l{number}", b"", headers={"X-Symlink-Target": quote(f"{home}/{name}")})
    reply = run(store, "objSweep", **SWEEP)
    assert (reply["status"], reply["leftovers"]) == (True, [])
    assert set(left) <= set(segments_of(raw, container_of(store)))


def is_account(exchange: Exchange) -> bool:
    return exchange.method == "GET" and exchange.kind == "account"


def is_versions(exchange: Exchange) -> bool:
    return is_listing(exchange) and exchange.container.endswith("-other")


def is_other(exchange: Exchange) -> bool:
    return exchange.container.endswith("-other") and exchange.key == "copy"


@pytest.mark.parametrize("status", [403, 404])
@pytest.mark.parametrize("where", [is_account, is_versions, is_other])
def test_a_sweep_removes_nothing_while_a_manifest_can_not_be_read(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection, status: int, where: Callable[[Exchange], bool]
) -> None:
    push(store, FIRST)
    other = f"{container_of(store)}-other"
    raw.put_container(other)
    copy_manifest(raw, f"{container_of(store)}/s/large", f"{other}/copy")
    store.delete("s/large")
    proxy.fault(Fault("answer", status=status), where=where)
    reply = run(store, "objSweep", {"retries": 0}, **SWEEP)
    assert reply["status"] is False
    if status == 403:
        assert reply["error"]["type"] == "RejectedError"
        assert "nothing is removed" in reply["msg"]
        assert reply["unread"]
    else:  # it is not the store that answers so
        assert reply["error"]["type"] == "UnavailableError"
    assert bytes_of(raw, other, "copy") == FIRST
    proxy.forget()
    assert run(store, "objSweep", **SWEEP)["leftovers"] == []


def test_a_store_that_goes_away_is_an_error(store: Storage, proxy: Proxy) -> None:
    left = leave_some(store, proxy)
    proxy.fault(Fault("answer", status=503), where=lambda exchange: exchange.method != "DELETE")
    reply = run(store, "objSweep", {"retries": 0}, **SWEEP)
    assert reply["error"]["type"] == "UnavailableError"
    proxy.forget()
    proxy.fault(Fault("answer", status=403), "DELETE")
    reply = run(store, "objSweep", **SWEEP)
    assert (reply["status"], reply["removed"], len(reply["failed"])) == (False, 0, len(left))


def test_versions_are_read_page_by_page(
    store: Storage, raw: swiftclient.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page may end between two versions of one key."""
    old = versioned(raw, container_of(store), "X-Versions-Enabled")
    for number in range(4):
        push(store, random.Random(number).randbytes(2 * PIECE))

    monkeypatch.setattr("pfstorage.backends.swift.listing.ROWS_PER_PAGE", 1)
    assert run(store, "objSweep", **SWEEP)["removed"] == 0
    assert [len(content) for content in old()] == [2 * PIECE] * 3


@pytest.mark.parametrize("storage", ["filesystem", "memory"], indirect=True)
def test_a_store_without_segments_says_so(storage: Storage) -> None:
    storage.put("a", io.BytesIO(b"x"), 1)
    for meta in ({}, SWEEP):
        reply = run(storage, "objSweep", **meta)
        assert (reply["status"], reply["leftovers"]) == (True, [])
        assert "no segments" in reply["msg"]


def test_a_container_that_is_not_there_has_no_leftovers(store: Storage) -> None:
    assert run(store, "objSweep", **SWEEP)["leftovers"] == []


@pytest.mark.parametrize(
    "meta", [{"olderThan": -1}, {"olderThan": 10**400}, {"olderThan": "soon"}, {"dryrun": False}]
)
def test_invalid_metas_are_refused(store: Storage, meta: dict[str, Any]) -> None:
    assert run(store, "objSweep", **meta)["error"]["type"] == "MessageError"


def test_each_interface_offers_the_sweep(
    swift: DevSwift, store: Storage, proxy: Proxy, raw: swiftclient.Connection, command: Command
) -> None:
    left = leave_some(store, proxy)
    flags = (
        "--swiftAuthUrl",
        swift.auth_url,
        "--swiftContainer",
        container_of(store),
        "--action",
        "objSweep",
    )
    shown = json.loads(command(*flags, "--args", '{"olderThan": 0}').stdout)
    assert [row["name"] for row in shown["leftovers"]] == left
    with serving(StoreHandler(store)) as server:
        status, reply = ask(server, {"action": "objSweep", "meta": {"olderThan": 0}})
        assert (status, [row["name"] for row in reply["leftovers"]]) == (200, left)
        assert ask(server, method="GET", path="/api/v1/cmd?action=objSweep")[0] == 405
        status, reply = ask(server, {"action": "objSweep", "meta": {**SWEEP, "async": True}})
        assert status == 202
        done = ask(server, {"action": "jobStatus", "meta": {"job": reply["job"], "wait": 60}})[1]
        assert done["reply"]["removed"] == len(left)
    with contextlib.closing(StoreHandler(store)) as handler:
        message = {"action": "objSweep", "meta": SWEEP}
        assert (
            handler.run(message, RequestContext(Principal(Permissions("read"))))["error"]["type"]
            == "ForbiddenError"
        )


def test_a_token_with_a_prefix_does_not_see_other_leftovers(
    store: Storage, proxy: Proxy, raw: swiftclient.Connection
) -> None:
    leave_some(store, proxy)
    push(store, SECOND)
    raw.put_container("anna")
    copy_manifest(raw, f"{container_of(store)}/s/large", "anna/patient")
    proxy.fault(Fault("answer", status=403), "GET", where=lambda exchange: exchange.container == "anna")
    mine = scoped(store, Permissions("write", "s/"))
    reply = run(mine, "objSweep", olderThan=0)
    assert reply["status"] is False
    assert "anna" not in json.dumps(reply)
    theirs = scoped(store, Permissions("write", "t/"))
    assert run(theirs, "objSweep", olderThan=0)["leftovers"] == []
    raw.delete_object("anna", "patient")


# names


def test_the_names_of_segments_fit_and_contain_their_key() -> None:
    for key in ("a", "ä" * 512, "x" * 1024, "é" * 100 + "/" * 800, "dir/" * 255 + "abc"):
        home = home_of(key, 1024)
        name = f"{home}/-9999999999.999999999/{2**63}/{2**40}/{'0' * 32}/{99999999:08}"
        assert len(name.encode()) <= 1024
        reported = key_of(name)
        assert reported is not None
        assert key.startswith(reported)
        assert reported == key or len(key.encode()) > 900
    assert home_of("x" * 1000 + "a", 1024) != home_of("x" * 1000 + "b", 1024)
    for container in ("users", "ä" * 128, "c" * 256, "c" * 247, "c" * 248):
        assert len(segment_container(container, 256).encode()) <= 256
    assert segment_container("c" * 247, 256) == "c" * 247 + "_segments"
    assert segment_container("c" * 255 + "a", 256) != segment_container("c" * 255 + "b", 256)
