"""Objects that mark directories: by a slash at the end, or by a content type, as ``swift upload`` makes them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient
import swiftclient.service
from hypothesis import example, given
from hypothesis import strategies as st

from pfstorage import StoreHandler, open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import Attributes
from pfstorage.devswift import DevSwift
from tests.conftest import ask, read_tree, run, serving, swift_options, write_tree
from tests.support.faults import Fault, Proxy
from tests.support.objects import verdict

PUSH: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}
TYPES = ("application/directory", "text/directory", "httpd/unix-directory")
KINDS = Attributes(TYPES[0])


def mark(storage: Storage, key: str, kind: str = TYPES[0]) -> None:
    storage.put(key, io.BytesIO(), 0, Attributes(kind))


def put(storage: Storage, *keys: str) -> None:
    for key in keys:
        storage.put(key, io.BytesIO(b"x"), 1)


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        yield storage


@pytest.mark.parametrize(
    "kind", [*TYPES, "Application/Directory", "application/directory; charset=UTF-8", "TEXT/DIRECTORY ;x=y"]
)
def test_an_empty_object_of_a_directory_type_is_a_directory(kind: str) -> None:
    assert ObjectInfo("d", 0, content_type=kind).is_directory
    assert not ObjectInfo("d", 1, content_type=kind).is_directory


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/directory2", "", "directory"])
def test_an_empty_object_of_another_type_is_a_file(kind: str) -> None:
    assert not ObjectInfo("d", 0, content_type=kind).is_directory
    assert ObjectInfo("d/", content_type=kind).is_directory


@pytest.mark.parametrize("kind", [*TYPES, "Application/Directory; charset=UTF-8"])
def test_a_pull_makes_a_directory_with_its_files(storage: Storage, tmp_path: Path, kind: str) -> None:
    mark(storage, "s/d", kind)
    mark(storage, "s/d/e", kind)
    mark(storage, "s/empty", kind)
    put(storage, "s/d-1", "s/d/e/f", "s/d/g")
    reply = run(storage, "objPull", **PULL, audit=True)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == {"d-1": b"x", "d/e/f": b"x", "d/g": b"x"}
    assert (tmp_path / "out/empty").is_dir()
    assert reply["audit"]["status"] is True
    assert verdict(run(storage, "objVerify", **PULL))[2:] == ([], [], [])


def test_a_tree_of_swift_upload_is_pulled_unchanged(swift: DevSwift, store: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"a": b"a", "d/b": b"b", "d/e/c": b"c"})
    (tmp_path / "data" / "empty").mkdir()
    container = store.settings.swift.container_name
    options = {"auth": swift.auth_url, "user": swift.user, "key": swift.key, "auth_version": "1.0"}
    with swiftclient.service.SwiftService(options) as service:
        names = ["data/empty", "data/d", "data/d/e", "data/a", "data/d/b", "data/d/e/c"]
        assert all(row["success"] for row in service.upload(container, names))
    assert "directory" in store.head("data/empty").content_type
    meta = {"fromLocation": "data", "mapLocationOver": "out"}
    assert run(store, "objPull", **meta)["status"] is True
    assert read_tree(tmp_path / "out") == read_tree(tmp_path / "data")
    assert (tmp_path / "out/empty").is_dir()
    assert run(store, "objVerify", **meta)["status"] is True


def test_an_object_of_that_type_with_content_is_a_file(store: Storage, tmp_path: Path) -> None:
    store.put("s/d", io.BytesIO(b"content"), 7, KINDS)
    assert run(store, "objPull", **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"d": b"content"}
    assert verdict(run(store, "objVerify", **PULL)) == (True, 1, [], [], [])
    put(store, "s/d/f")
    reply = run(store, "objPull", **PULL)
    assert [row["object"] for row in reply["failed"]] == ["s/d/f"]


def test_a_large_object_that_is_listed_as_empty_keeps_its_content(
    swift: DevSwift, store: Storage, tmp_path: Path
) -> None:
    put(store, "parts/1", "parts/2")
    container = store.settings.swift.container_name
    raw = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    headers = {"X-Object-Manifest": f"{container}/parts/", "Content-Type": TYPES[0]}
    raw.put_object(container, "s/d", b"", headers=headers)
    raw.close()
    assert run(store, "objPull", **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"d": b"xx"}


def test_the_marker_of_the_location_itself_is_the_target_directory_of_a_pull(
    storage: Storage, tmp_path: Path
) -> None:
    mark(storage, "s/d")
    put(storage, "s/d/f")
    meta = {"fromLocation": "s/d", "mapLocationOver": "out"}
    assert run(storage, "objPull", **meta, audit=True)["status"] is True
    assert read_tree(tmp_path / "out") == {"f": b"x"}
    assert run(storage, "objVerify", **meta)["status"] is True


def test_both_kinds_of_markers_together_are_one_directory(store: Storage, tmp_path: Path) -> None:
    mark(store, "s/d")
    mark(store, "s/d/")
    put(store, "s/d/f")
    assert run(store, "objPull", **PULL)["failed"] == []
    assert read_tree(tmp_path / "out") == {"d/f": b"x"}


def test_a_comparison_finds_missing_and_blocked_directories(storage: Storage, tmp_path: Path) -> None:
    for name in ("there", "file", "gone"):
        mark(storage, f"s/{name}")
    assert run(storage, "objPull", **PULL)["status"] is True
    (tmp_path / "out/gone").rmdir()
    (tmp_path / "out/file").rmdir()
    (tmp_path / "out/file").write_bytes(b"")
    reply = run(storage, "objVerify", **PULL)
    assert reply["same"] == 1
    assert [key.rstrip("/") for key in (*reply["changed"], *reply["missing"])] == ["s/file", "s/gone"]


def test_a_deleted_marker_makes_no_directory(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    mark(store, "s/d")
    proxy.fault(Fault("answer", status=404), where=lambda exchange: exchange.key == "s/d")
    reply = run(store, "objPull", **PULL)
    assert [row["object"] for row in reply["failed"]] == ["s/d"]
    assert not (tmp_path / "out").exists()


def test_a_dry_run_makes_no_directory(storage: Storage, tmp_path: Path) -> None:
    mark(storage, "s/d")
    put(storage, "s/d/f")
    assert run(storage, "objPull", **PULL, dryRun=True)["bytes"] == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"content"])
@pytest.mark.parametrize("overwrite", ["changed", "always"])
def test_a_push_of_a_file_replaces_a_marker(
    store: Storage, tmp_path: Path, content: bytes, overwrite: str
) -> None:
    mark(store, "s/d")
    write_tree(tmp_path / "data", {"d": content})
    reply = run(store, "objPush", **PUSH, overwrite=overwrite, audit=True)
    assert (reply["status"], reply["audit"]["same"]) == (True, 1)
    assert run(store, "objPull", **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"d": content}


def test_a_push_that_keeps_a_marker_instead_of_a_file_says_so(store: Storage, tmp_path: Path) -> None:
    mark(store, "s/d")
    write_tree(tmp_path / "data", {"d": b""})
    reply = run(store, "objPush", **PUSH, overwrite="never", audit=True)
    assert (reply["status"], reply["audit"]["changed"]) == (False, ["s/d"])


def test_a_push_below_a_marker_keeps_it(storage: Storage, tmp_path: Path) -> None:
    mark(storage, "s/d")
    write_tree(tmp_path / "data", {"d/f": b"x", "a": b"x"})
    assert run(storage, "objPush", **PUSH, audit=True)["audit"]["same"] == 2
    assert run(storage, "objPull", **PULL, audit=True)["status"] is True
    assert read_tree(tmp_path / "out") == {"d/f": b"x", "a": b"x"}


def test_case_folding_treats_markers_as_directories(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.local.LocalTree.folds_names", lambda *_: True)
    mark(storage, "s/d")
    put(storage, "s/d/f", "s/e")
    assert run(storage, "objPull", **PULL)["failed"] == []


# listings by level


def test_a_level_shows_a_directory_once(storage: Storage) -> None:
    mark(storage, "s/d")
    mark(storage, "s/e")
    put(storage, "s/d/f", "s/d-1", "s/g")
    rows = [{"name": "s/d-1"}, {"subdir": "s/d/"}, {"subdir": "s/e/"}, {"name": "s/g"}]
    assert run(storage, "ls", path="s/", delimiter="/")["ls"] == rows
    assert run(storage, "ls", path="s/", delimiter="/", sure=True)["ls"] == rows
    assert run(storage, "ls", path="s/d", delimiter="/")["ls"] == rows[:2]
    names = [row["name"] for row in run(storage, "ls", path="s/")["ls"]]
    assert {"s/d-1", "s/d/f", "s/g"} <= set(names)
    assert any(name.rstrip("/") == "s/e" for name in names)


def test_a_level_by_http_shows_the_same(store: Storage) -> None:
    mark(store, "s/d")
    put(store, "s/d/f", "s/d-1", "s/g")
    with serving(StoreHandler(store)) as server:
        _, reply = ask(server, method="GET", path="/api/v1/objects?prefix=s/&delimiter=/&limit=1")
        assert ([row["name"] for row in reply["objects"]], reply["marker"]) == (["s/d-1"], "s/d-1")
        _, reply = ask(server, method="GET", path="/api/v1/objects?prefix=s/&delimiter=/&marker=s/d-1")
        assert [row.get("subdir") for row in reply["objects"]] == ["s/d/", None]


def test_a_token_with_a_prefix_sees_its_directories(store: Storage) -> None:
    mark(store, "s/d")
    put(store, "s/d-1", "t/x")
    context = RequestContext(Principal(Permissions("read", "s/")))
    for meta in ({"path": "s/"}, {"path": "s/", "marker": "s/d-1"}, {"marker": "t-1"}):
        reply = StoreHandler(store).run({"action": "ls", "meta": {**meta, "delimiter": "/"}}, context)
        assert "error" not in reply


LEVELS = st.sets(st.text("ad-/", min_size=1, max_size=4), max_size=8)


@example(marks={"a", "a-"}, files=set(), limit=1, prefix="a")
@given(marks=LEVELS, files=LEVELS, limit=st.integers(1, 4), prefix=st.sampled_from(["", "a", "a/"]))
def test_pages_of_a_level_are_complete(marks: set[str], files: set[str], limit: int, prefix: str) -> None:
    with open_storage(type="memory") as storage:
        put(storage, "z", *files)
        for key in marks - files:
            mark(storage, key)
        meta: dict[str, Any] = {"path": prefix, "delimiter": "/"}
        whole = run(storage, "ls", **meta)["ls"]
        keys = [row.get("name") or row["subdir"] for row in whole]
        assert keys == sorted(set(keys))
        assert {row["subdir"] for row in whole if "subdir" in row} >= {
            f"{key}/"
            for key in marks - files
            if key.startswith(prefix) and "/" not in key[len(prefix) :] and not key.endswith("/")
        }
        pages: list[Any] = []
        while page := run(storage, "ls", **meta, limit=limit, marker=keys[len(pages) - 1] if pages else "")[
            "ls"
        ]:
            assert len(page) <= limit
            pages += page
        assert pages == whole


def test_a_file_system_stores_a_marker_as_a_directory(tmp_path: Path) -> None:
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        mark(storage, "s/d", "Application/Directory; charset=UTF-8")
        assert (tmp_path / "store/s/d").is_dir()
        assert [row.key for row in storage.list()] == ["s/d/"]
        put(storage, "s/d/f")
        assert [row.key for row in storage.list()] == ["s/d/f"]
