"""Empty components of a location: each interface and each store ignores them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage, swiftStorage
from pfstorage.access.permissions import Permissions
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.actions.context import Upload
from pfstorage.backends import Storage
from tests.conftest import ask, read_tree, run, serving, write_tree
from tests.support.objects import put_raw

TREE = {"a": b"a", "d/b": b"b"}
SPELLINGS = ["k/w", "k//w", "/k/w", "k/w/", "//k///w//", "./k/w", "k/./w", "./k//./w/."]


def keys(storage: Storage) -> list[str]:
    return [row.key for row in storage.list()]


@pytest.mark.parametrize("pushed", SPELLINGS)
def test_every_spelling_of_a_location_is_the_same(storage: Storage, tmp_path: Path, pushed: str) -> None:
    write_tree(tmp_path / "data", TREE)
    reply = run(storage, "objPush", putSpec="data", inLocation=pushed, mapLocationOver="data", audit=True)
    assert (reply["status"], reply["objectFileList"]) == (True, ["k/w/a", "k/w/d/b"])
    assert keys(storage) == ["k/w/a", "k/w/d/b"]
    for number, pulled in enumerate(SPELLINGS):
        there = {"fromLocation": pulled, "mapLocationOver": f"out/{number}"}
        assert run(storage, "objPull", **there, audit=True)["status"] is True
        assert read_tree(tmp_path / "out" / str(number)) == TREE
        assert run(storage, "objVerify", **there)["same"] == 2


@pytest.mark.parametrize(
    ("bucket", "location"), [("k/", "/w"), ("/k", "w//"), ("k//w", ""), ("", "k//w"), ("./k", "./w")]
)
def test_prepend_bucket_path_follows_the_rule(
    storage: Storage, tmp_path: Path, bucket: str, location: str
) -> None:
    write_tree(tmp_path / "data", TREE)
    meta = {"prependBucketPath": bucket}
    run(storage, "objPush", putSpec="data", inLocation=location, mapLocationOver="data", **meta)
    assert keys(storage) == ["k/w/a", "k/w/d/b"]
    run(storage, "objPull", fromLocation=location, mapLocationOver="out", **meta)
    assert read_tree(tmp_path / "out") == TREE


@pytest.mark.parametrize("path", ["k//w", "/k/w/", "k//w/d", "k//", "//k", "/"])
def test_a_prefix_follows_the_rule(storage: Storage, tmp_path: Path, path: str) -> None:
    write_tree(tmp_path / "data", TREE)
    run(storage, "objPush", putSpec="data", inLocation="k/w", mapLocationOver="data")
    expected = ["k/w/d/b"] if path == "k//w/d" else ["k/w/a", "k/w/d/b"]
    assert [row["name"] for row in run(storage, "ls", path=path)["ls"]] == expected
    reply = run(storage, "objPull", path=path, fromLocation="k//w", mapLocationOver="out")
    assert reply["objectFileList"] == expected


@pytest.mark.parametrize("location", ["/", "//", ".", "./", ""])
def test_the_whole_store_is_a_location_too(storage: Storage, tmp_path: Path, location: str) -> None:
    write_tree(tmp_path / "data", TREE)
    run(storage, "objPush", putSpec="data", inLocation=location, mapLocationOver="data")
    assert keys(storage) == ["a", "d/b"]
    run(storage, "objPull", fromLocation=location, mapLocationOver="out")
    assert read_tree(tmp_path / "out") == TREE


def test_a_location_is_no_part_of_another(storage: Storage, tmp_path: Path) -> None:
    for key in ("k/w/a", "k/w2/b", "k2/w/c"):
        storage.put(key, io.BytesIO(b"x"), 1)
    run(storage, "objPull", fromLocation="k//w", mapLocationOver="out")
    assert read_tree(tmp_path / "out") == {"a": b"x"}


def test_dots_that_lead_up_are_still_refused(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    reply = run(storage, "objPush", putSpec="data", inLocation="k/../w", mapLocationOver="data")
    assert (reply["status"], reply["objectFileList"]) == (False, [])


@pytest.mark.parametrize("key", ["k//f", "/k/f", "./k//f", "k/f"])
def test_one_object_is_named_by_the_same_rule(storage: Storage, key: str) -> None:
    upload = Upload(io.BytesIO(b"content"), 7, "f")
    message = {"action": "objPut", "meta": {"toObject": key}}
    reply = StoreHandler(storage).run(message, RequestContext(upload=upload))
    assert (reply["status"], keys(storage)) == (True, ["k/f"])
    for action in ("objExists", "objStat"):
        found = run(storage, action, obj=key)
        assert (found["status"], found["objPath"]) == (True, "k/f")
    assert run(storage, "objExists", obj="k//g")["status"] is False


def test_an_upload_still_names_a_file(storage: Storage) -> None:
    upload = Upload(io.BytesIO(b"content"), 7, "f")
    message = {"action": "objPut", "meta": {"toObject": "k//f//"}}
    reply = StoreHandler(storage).run(message, RequestContext(upload=upload))
    assert reply["error"]["type"] == "InvalidKeyError"


def test_objects_of_http_are_named_exactly_and_none_is_made_with_an_empty_component(
    storage: Storage,
) -> None:
    storage.put("k/f", io.BytesIO(b"x"), 1)
    with serving(StoreHandler(storage)) as server:
        for key in ("k//f", "/k/f", "k/f//", "//"):
            status, reply = ask(server, "x", "PUT", f"/api/v1/objects/{key}")
            assert (status, reply["error"]["type"]) == (400, "InvalidKeyError")
        status, _ = ask(server, method="GET", path="/api/v1/objects/k//f")
        assert status in (400, 404)
    assert keys(storage) == ["k/f"]


def test_a_token_with_a_prefix_accepts_all_spellings(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    context = RequestContext(Principal(Permissions("write", "k/w/")))
    for location, is_done in (("/k//w", True), ("k//w2", False), ("k/w/../w2", False)):
        meta = {"putSpec": "data", "inLocation": location, "mapLocationOver": "data"}
        reply = StoreHandler(storage).run({"action": "objPush", "meta": meta}, context)
        assert reply["status"] is is_done
    assert keys(storage) == ["k/w/a", "k/w/d/b"]


@pytest.mark.parametrize("action", ["objExists", "objStat"])
def test_a_token_with_a_prefix_names_an_object_in_all_spellings(storage: Storage, action: str) -> None:
    for key in ("k/w/a", "k/w2/a"):
        storage.put(key, io.BytesIO(b"x"), 1)
    context = RequestContext(Principal(Permissions("read", "k/w/")))

    def ask_for(key: str) -> dict[str, Any]:
        return StoreHandler(storage).run({"action": action, "meta": {"obj": key}}, context)

    for key in ("k/w/a", "/k/w/a", "k//w/a", "./k/w/a", "//k/./w//a"):
        assert (ask_for(key)["status"], ask_for(key)["objPath"]) == (True, "k/w/a")
    for key in ("/k/w2/a", "k/w2/a", "/", "/k/w2/nothing"):
        assert ask_for(key)["error"]["type"] == "PermissionDeniedError", key
    assert ask_for("/k/w/../w2/a")["error"]["type"] == "InvalidKeyError"


def test_callers_of_2_x_follow_the_rule(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    args = {"str_type": "filesystem", "storeBase": str(tmp_path / "store")}
    storage = swiftStorage(args=args)
    files = [str(tmp_path / "data" / name) for name in TREE]
    storage.objPut(fileList=files, inLocation="k//w", mapLocationOver=str(tmp_path / "data"))
    storage.objPull(fromLocation="/k/w", mapLocationOver=str(tmp_path / "out"))
    assert read_tree(tmp_path / "out") == TREE


# objects of other programs


@pytest.mark.parametrize("location", ["k//w", "/k/w"])
def test_keys_of_others_are_still_found_by_their_spelling(
    swift_storage: Storage, tmp_path: Path, location: str
) -> None:
    swift_storage.put("other", io.BytesIO(b"x"), 1)
    put_raw(swift_storage, [f"{location}/a", f"{location}/d/b"])
    meta: dict[str, Any] = {"fromLocation": location, "mapLocationOver": "out"}
    assert run(swift_storage, "objPull", **meta, audit=True)["status"] is True
    assert sorted(read_tree(tmp_path / "out")) == ["a", "d/b"]
    assert run(swift_storage, "objVerify", **meta)["extra"] == []
    assert len(run(swift_storage, "ls", path=location)["ls"]) == 2
    assert run(swift_storage, "objExists", obj=f"{location}/a")["objPath"] == f"{location}/a"


def test_below_a_location_such_a_key_fails_alone(swift_storage: Storage, tmp_path: Path) -> None:
    swift_storage.put("k/w/a", io.BytesIO(b"x"), 1)
    put_raw(swift_storage, ["k//w/a", "k/w//b"])
    reply = run(swift_storage, "objPull", fromLocation="k", mapLocationOver="out")
    assert [row["object"] for row in reply["failed"]] == ["k//w/a", "k/w//b"]
    assert read_tree(tmp_path / "out") == {"w/a": b"x"}


def test_a_key_without_empty_components_is_meant_first(swift_storage: Storage, tmp_path: Path) -> None:
    swift_storage.put("k/w/a", io.BytesIO(b"x"), 1)
    put_raw(swift_storage, ["k//w/a"])
    run(swift_storage, "objPull", fromLocation="k//w", mapLocationOver="out")
    assert read_tree(tmp_path / "out") == {"a": b"x"}


def test_a_missing_container_is_reported_for_all_spellings() -> None:
    with open_storage(type="memory") as storage:
        assert run(storage, "objPull", fromLocation="k//w")["error"]["type"] == "ContainerNotFoundError"
