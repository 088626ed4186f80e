"""``fileList`` of a pull: objects by their names, without a listing."""

from __future__ import annotations

import io
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import swiftclient
from hypothesis import given
from hypothesis import strategies as st

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import Storage
from pfstorage.backends.contract import Attributes
from pfstorage.devswift import READER, DevSwift
from pfstorage.jobs.scheduler import JobScheduler
from pfstorage.local import AllowedRoots, disk
from pfstorage.local import tree as tree_module
from pfstorage.runtime.cancellation import CancellationToken
from tests.conftest import Command, ask, read_tree, run, serving, swift_options, write_tree
from tests.support.faults import Fault, Proxy, is_listing
from tests.support.objects import put_raw
from tests.support.waiting import until

KEYS = ("k/s1/a", "k/s1/b", "k/s10/c", "k/s2/d/e", "k/one", "other")
MARK = Attributes("application/directory")


def put(storage: Storage, *keys: str) -> None:
    for key in keys:
        storage.put(key, io.BytesIO(key.encode()), len(key.encode()))


@pytest.fixture
def filled(storage: Storage) -> Storage:
    put(storage, *KEYS)
    return storage


@pytest.fixture
def store(swift: DevSwift, proxy: Proxy) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage:
        yield storage


@pytest.fixture
def unlisted(swift: DevSwift, proxy: Proxy, store: Storage) -> Iterator[Storage]:
    """The container of `store` for a user who may read its objects in Swift, and list nothing."""
    put(store, *KEYS)
    container = store.settings.swift.container_name
    raw = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    raw.post_container(container, {"X-Container-Read": f".r:*,{READER}"})
    raw.post_container(container, {"X-Container-Read": ".r:*"})
    raw.close()
    options = {**swift_options(swift), "auth_url": proxy.auth_url, "container_name": container}
    with open_storage(**options, username=READER) as storage:
        assert run(storage, "ls")["error"]["type"] == "PermissionDeniedError"
        proxy.forget()
        yield storage


def requests(proxy: Proxy) -> Counter[tuple[str, str, int]]:
    return Counter((each.method, each.kind, each.status) for each in proxy.exchanges)


def tree(*keys: str, under: str = "") -> dict[str, bytes]:
    return {key[len(under) :]: key.encode() for key in keys}


# keys and locations


def test_names_are_keys_or_locations(filled: Storage, tmp_path: Path) -> None:
    meta: dict[str, Any] = {"fromLocation": "k", "mapLocationOver": "out"}
    reply = run(filled, "objPull", **meta, fileList=["k/s1", "k/one", "k/s2/"], audit=True)
    assert (reply["status"], reply["failed"]) == (True, [])
    assert read_tree(tmp_path / "out") == tree("k/s1/a", "k/s1/b", "k/s2/d/e", "k/one", under="k/")
    assert sorted(reply["objectFileList"]) == ["k/one", "k/s1/a", "k/s1/b", "k/s2/d/e"]
    assert reply["localFileList"] == [f"out/{key[2:]}" for key in reply["objectFileList"]]
    assert reply["audit"] == {"status": True, "same": 4, "changed": [], "missing": []}
    assert (reply["localpath"], reply["currentWorkingDir"]) == ("out", str(tmp_path))


def test_each_pair_goes_where_it_says(filled: Storage, tmp_path: Path) -> None:
    pairs = [
        {"from": "k/s1", "to": "first"},
        {"from": "k/s2/", "to": str(tmp_path / "second")},
        {"from": "k/one", "to": "third/named"},
        {"from": "other", "to": "third/"},
        {"from": "k/s1/a", "to": "copy"},
    ]
    reply = run(filled, "objPull", fileList=pairs, audit=True)
    assert (reply["status"], reply["audit"]["same"]) == (True, 6)
    assert read_tree(tmp_path / "first") == tree("k/s1/a", "k/s1/b", under="k/s1/")
    assert read_tree(tmp_path / "second") == tree("k/s2/d/e", under="k/s2/")
    assert read_tree(tmp_path / "third") == {"named": b"k/one", "other": b"other"}
    assert (tmp_path / "copy").read_bytes() == b"k/s1/a"
    assert reply["localpath"] == str(tmp_path)


@pytest.mark.parametrize("overwrite", ["changed", "always", "never"])
def test_a_location_is_one_again_where_its_directory_is_there(
    filled: Storage, tmp_path: Path, overwrite: str
) -> None:
    meta: dict[str, Any] = {"fileList": [{"from": "k/s1", "to": "out"}, "k/s2"], "overwrite": overwrite}
    for skipped in (0, 0 if overwrite == "always" else 3):
        reply = run(filled, "objPull", **meta, audit=True)
        assert (reply["status"], reply["skipped"], reply["audit"]["same"]) == (True, skipped, 3)
    (tmp_path / "x").mkdir()
    assert run(filled, "objPull", fileList=[{"from": "k/one", "to": "x"}])["status"] is False


def test_a_name_without_a_path_keeps_its_whole_key(filled: Storage, tmp_path: Path) -> None:
    assert run(filled, "objPull", fileList=["k/one", "k/s2"])["status"] is True
    assert read_tree(tmp_path / "k") == {"one": b"k/one", "s2/d/e": b"k/s2/d/e"}


def test_names_and_pairs_go_together_and_a_text_is_a_list_of_one(filled: Storage, tmp_path: Path) -> None:
    run(filled, "objPull", fileList=["k/one", {"from": "k/s1", "to": "x"}])
    assert (tmp_path / "k/one").is_file()
    assert sorted(read_tree(tmp_path / "x")) == ["a", "b"]
    assert run(filled, "objPull", fileList="other")["objectFileList"] == ["other"]
    assert run(filled, "objPull", fileList={"from": "other", "to": "y"})["localFileList"] == ["y"]


def test_prepend_bucket_path_applies_to_names(filled: Storage, tmp_path: Path) -> None:
    reply = run(filled, "objPull", fileList=["s1", {"from": "one", "to": "x"}], prependBucketPath="k")
    assert sorted(reply["objectFileList"]) == ["k/one", "k/s1/a", "k/s1/b"]


@pytest.mark.parametrize("name", ["k//s1", "/k/s1", "./k/s1", "k/s1//", "k/./s1"])
def test_spellings_of_a_location(filled: Storage, tmp_path: Path, name: str) -> None:
    reply = run(filled, "objPull", fileList=[{"from": name, "to": "out"}])
    assert read_tree(tmp_path / "out") == tree("k/s1/a", "k/s1/b", under="k/s1/")
    assert reply["failed"] == []


def test_spellings_of_a_key(filled: Storage, tmp_path: Path) -> None:
    reply = run(filled, "objPull", fileList=["k//one", {"from": "/k//s1/a", "to": "out"}])
    assert sorted(reply["objectFileList"]) == ["k/one", "k/s1/a"]
    assert (tmp_path / "out").read_bytes() == b"k/s1/a"


def test_a_key_of_others_is_named_as_it_is(swift_storage: Storage, tmp_path: Path) -> None:
    put(swift_storage, "other")
    put_raw(swift_storage, ["k//f"])
    assert run(swift_storage, "objPull", fileList=[{"from": "k//f", "to": "out"}])["status"] is True
    assert (tmp_path / "out").read_bytes() == b"hostile"


def test_a_marked_directory_is_pulled_with_its_objects(storage: Storage, tmp_path: Path) -> None:
    for key in ("k/d", "k/empty"):
        storage.put(key, io.BytesIO(), 0, MARK)
    put(storage, "k/d/f", "k/d2")
    for number, names in enumerate((["k/d", "k/empty"], ["k/d/", "k/empty/"])):
        over = {"fromLocation": "k", "mapLocationOver": str(number)}
        for more in ({}, {"reply": "summary"}):
            reply = run(storage, "objPull", fileList=names, **over, **more, audit=True)
            assert (reply["status"], reply["failed"]) == (True, [])
        assert read_tree(tmp_path / str(number)) == {"d/f": b"k/d/f"}
        assert (tmp_path / str(number) / "empty").is_dir()


def test_a_large_object_is_verified_by_its_segments(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    content = random.Random(5).randbytes(200_000)
    write_tree(tmp_path / "data", {"large": content})
    settings = {"segmentSize": "64K", "rangeSize": "64K"}
    run(store, "objPush", settings, putSpec="data", mapLocationOver="data")
    pull: dict[str, Any] = {"fileList": [{"from": "large", "to": "out"}], "audit": True}
    assert run(store, "objPull", settings, **pull)["audit"]["same"] == 1
    assert (tmp_path / "out").read_bytes() == content
    assert run(store, "objPull", settings, **pull)["skipped"] == 1


NAMES = st.sets(st.text("ab/-", min_size=1, max_size=5), min_size=1, max_size=8)


@given(keys=NAMES, location=st.text("ab/-", min_size=1, max_size=3).filter(lambda text: text[-1] != "/"))
def test_a_location_is_the_same_by_its_name_as_without(keys: set[str], location: str) -> None:
    with (
        tempfile.TemporaryDirectory() as directory,
        open_storage(type="memory") as storage,
    ):
        put(storage, "other", *(key for key in keys if not key.endswith("/")))
        listed = run(storage, "objPull", fromLocation=location, mapLocationOver=f"{directory}/listed")
        pair = {"from": location, "to": f"{directory}/named"}
        named = None if not location.strip("/") else run(storage, "objPull", fileList=[pair])
        if named and listed["objectFileList"]:
            failed = {row["object"] for row in listed["failed"]} - {row["object"] for row in named["failed"]}
            # the name of an object excludes the objects below it
            assert all(key.startswith(location.rstrip("/") + "/") for key in failed)
            assert sorted(named["objectFileList"]) == listed["objectFileList"]
            trees = [Path(directory) / name for name in ("listed", "named")]
            assert read_tree(trees[0]) == read_tree(trees[1])


# number of requests


def test_a_name_is_one_get_and_no_listing(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    put(store, *KEYS)
    for names in (["k/one"], ["k/one", "k/s1/a", "other"], [{"from": "k/one", "to": "x"}]):
        proxy.forget()
        assert run(store, "objPull", fileList=names, overwrite="always")["status"] is True
        assert requests(proxy) == {("GET", "object", 200): len(names)}


def test_existing_files_are_checked_by_head(store: Storage, proxy: Proxy, tmp_path: Path) -> None:
    put(store, *KEYS)
    run(store, "objPull", fileList=["k/one", "other"])
    write_tree(tmp_path, {"other": b"changed"})
    proxy.forget()
    reply = run(store, "objPull", fileList=["k/one", "other"])
    assert (reply["skipped"], reply["bytes"]) == (1, 5)
    assert requests(proxy) == {("HEAD", "object", 200): 2, ("GET", "object", 200): 1}
    proxy.forget()
    assert run(store, "objPull", fileList=["k/one", "other"], overwrite="never")["skipped"] == 2
    assert requests(proxy) == {}


def test_a_location_is_a_get_and_a_listing(store: Storage, proxy: Proxy) -> None:
    put(store, *KEYS)
    proxy.forget()
    assert run(store, "objPull", fileList=["k/s1", "k/s2/"])["status"] is True
    assert requests(proxy) == {
        ("GET", "object", 404): 1,
        ("GET", "container", 200): 2,
        ("GET", "object", 200): 3,
    }


@pytest.mark.parametrize("action", ["objVerify", "objPull"])
def test_a_comparison_and_an_audit_ask_for_each_key_once(store: Storage, proxy: Proxy, action: str) -> None:
    put(store, *KEYS)
    names = ["k/one", "k/s1/a", "other"]
    run(store, "objPull", fileList=names)
    proxy.forget()
    audit = {"audit": True, "overwrite": "always"} if action == "objPull" else {}
    assert run(store, action, fileList=names, **audit)["status"] is True
    gets = {("GET", "object", 200): 3} if audit else {}
    assert requests(proxy) == {("HEAD", "object", 200): 3, **gets}


def test_fifty_series_are_one_message(store: Storage, tmp_path: Path) -> None:
    keys = [f"k/{number:03}/{name}" for number in range(50) for name in "ab"]
    put(store, *keys)
    pairs = [{"from": f"k/{number:03}", "to": f"out/{number * 7 % 50}/x"} for number in range(50)]
    reply = run(store, "objPull", fileList=pairs, reply="summary", audit=True)
    assert (reply["status"], reply["files"], reply["audit"]["same"]) == (True, 100, 100)
    assert (tmp_path / "out/7/x/a").read_bytes() == b"k/001/a"


# permission to read but not to list


def test_pull_by_name_without_permission_to_list(unlisted: Storage, proxy: Proxy, tmp_path: Path) -> None:
    meta: dict[str, Any] = {"fileList": ["k/one", {"from": "k/s1/a", "to": "x"}]}
    reply = run(unlisted, "objPull", **meta)
    assert (reply["status"], reply["objectFileList"]) == (True, ["k/one", "k/s1/a"])
    assert requests(proxy) == {("GET", "object", 200): 2}
    assert run(unlisted, "objPull", **meta, audit=True)["audit"]["same"] == 2
    assert run(unlisted, "objVerify", **meta)["same"] == 2
    assert run(unlisted, "objPull", **meta, dryRun=True)["skipped"] == 2
    assert proxy.listings == 0


@pytest.mark.parametrize(
    "meta",
    [
        {"fromLocation": "k/s1/a", "mapLocationOver": "x"},
        {"path": "k/s1/a", "fromLocation": "k/s1/a", "mapLocationOver": "x"},
        {"path": "k/s1/a", "fromLocation": "k/s1", "mapLocationOver": "d"},
        {"path": "k/s1/a"},
        {"fromLocation": "k/s1/a"},
        {"path": "/k//s1/a"},
        {"fromLocation": "/k/s1//a"},
        {"path": "/k/s1/a", "fromLocation": "/k/s1/", "mapLocationOver": "d"},
        {"path": "s1/a", "prependBucketPath": "/k/"},
        {"fileList": ["/k/s1/a"]},
        {"fileList": [{"from": "k//s1/a", "to": "x"}]},
    ],
)
def test_a_message_of_one_key_goes_on_where_its_listing_is_refused(
    unlisted: Storage, tmp_path: Path, meta: dict[str, Any]
) -> None:
    reply = run(unlisted, "objPull", **meta, audit=True)
    assert (reply["status"], reply["objectFileList"], reply["audit"]["same"]) == (True, ["k/s1/a"], 1)
    pairs = [pair for pair in meta.get("fileList", []) if isinstance(pair, dict)]
    over = pairs[0]["to"] if pairs else meta.get("mapLocationOver", "")
    expected = {"x": "x", "d": "d/a"}.get(over, "k/s1/a")
    assert read_tree(tmp_path) == {expected: b"k/s1/a"}
    reply = run(unlisted, "objVerify", **meta)
    assert (reply["status"], reply["same"]) == (True, 1)


@pytest.mark.parametrize("status", [401, 403])
def test_a_listing_may_be_refused_by_either_status(
    store: Storage, proxy: Proxy, tmp_path: Path, status: int
) -> None:
    put(store, *KEYS)
    proxy.fault(Fault("answer", status=status), where=is_listing)
    meta = {"fromLocation": "k/one", "mapLocationOver": "x"}
    assert run(store, "objPull", **meta)["status"] is True
    assert read_tree(tmp_path) == {"x": b"k/one"}


@pytest.mark.parametrize(
    "meta",
    [
        {"fileList": ["k/s1"]},
        {"fileList": ["/k/s1"]},
        {"fileList": ["k/s1/"]},
        {"fromLocation": "k/s1"},
        {"fromLocation": "/k/s1/"},
        {"path": "k/s"},
        {},
    ],
)
def test_a_location_that_is_not_listed_is_an_error_that_says_so(
    unlisted: Storage, tmp_path: Path, meta: dict[str, Any]
) -> None:
    for action in ("objPull", "objVerify"):
        reply = run(unlisted, action, **meta)
        assert (reply["status"], reply["error"]["type"]) == (False, "PermissionDeniedError")
    assert read_tree(tmp_path) == {}


def test_one_location_that_is_not_listed_keeps_no_other_name_back(unlisted: Storage, tmp_path: Path) -> None:
    reply = run(unlisted, "objPull", fileList=["k/s1", "k/one"])
    assert (reply["status"], reply["objectFileList"]) == (False, ["k/one"])
    assert [row["object"] for row in reply["failed"]] == ["k/s1"]


# refused names


@pytest.mark.parametrize(
    ("meta", "reported"),
    [
        ({"fileList": []}, "empty"),
        ({"fileList": [""]}, "empty name"),
        ({"fileList": ["k", "/"]}, "empty name"),
        ({"fileList": ["."]}, "empty name"),
        ({"fileList": [{"from": "", "to": "x"}]}, "empty name"),
        ({"fileList": [{"from": "k", "to": ""}]}, "empty name"),
        ({"fileList": [{"from": "k"}]}, "'to'"),
        ({"fileList": [{"to": "k"}]}, "'from'"),
        ({"fileList": [{"from": "k", "to": "x", "over": "y"}]}, "'over'"),
        ({"fileList": [{"from": "k", "to": 1}]}, "'to'"),
        ({"fileList": [1]}, "'from'"),
        ({"fileList": [["k"]]}, "'from'"),
        ({"fileList": 1}, "fileList"),
        ({"fileList": ["k"], "path": "k"}, "'path'"),
        ({"fileList": ["k"], "path": ""}, "'path'"),
    ],
)
@pytest.mark.parametrize("action", ["objPull", "objVerify"])
def test_a_list_that_can_not_be_meant_is_refused_and_nothing_is_pulled(
    filled: Storage, tmp_path: Path, action: str, meta: dict[str, Any], reported: str
) -> None:
    before = read_tree(tmp_path / "k")
    reply = run(filled, action, **meta)
    assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")
    assert reported in reply["msg"]
    assert read_tree(tmp_path / "k") == before


def test_a_missing_object_fails_alone(filled: Storage, tmp_path: Path) -> None:
    names = ["k/one", "k/nothing", "k/s", {"from": "k/s1/a/x", "to": "x"}]
    for meta in ({}, {"dryRun": True}):
        reply = run(filled, "objPull", fileList=names, **meta)
        assert (reply["status"], reply["objectFileList"]) == (False, ["k/one"])
        assert [row["object"] for row in reply["failed"]] == ["k/nothing", "k/s", "k/s1/a/x"]
        assert "none below it" in reply["failed"][0]["msg"]
        assert reply["error"]["type"] == "NotFoundError"
    reply = run(filled, "objVerify", fileList=names)
    assert (reply["same"], reply["missing"]) == (1, ["k/nothing", "k/s", "k/s1/a/x"])


def test_a_duplicate_name_is_pulled_once(filled: Storage, tmp_path: Path) -> None:
    names = ["k/s1", "k/s1", "./k/s1", "k/s1/", "k/s1/a", "k//s1", "k"]
    reply = run(filled, "objPull", fileList=names, audit=True)
    assert (reply["status"], sorted(reply["objectFileList"])) == (True, sorted(KEYS[:-1]))
    assert reply["audit"]["same"] == 5


@pytest.mark.parametrize(
    "pairs",
    [
        [{"from": "k/one", "to": "x"}, {"from": "other", "to": "x"}],
        [{"from": "k/one", "to": "x"}, {"from": "other", "to": "./y/../x"}],
        [{"from": "k/one", "to": "x"}, {"from": "other", "to": "{cwd}/x"}],
        [{"from": "k/one", "to": "d/x"}, {"from": "other", "to": "link/x"}],
        [{"from": "k/one", "to": "x"}, {"from": "other", "to": "x/y"}],
        [{"from": "k/s1/a", "to": "x/b"}, {"from": "k/s1", "to": "x"}],
        [{"from": "k/s1", "to": "x"}, {"from": "k/one", "to": "x/a"}],
    ],
)
def test_two_objects_never_become_one_file(
    filled: Storage, tmp_path: Path, pairs: list[dict[str, str]]
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    named = [{**pair, "to": pair["to"].replace("{cwd}", str(tmp_path))} for pair in pairs]
    planned = run(filled, "objPull", fileList=named, dryRun=True)
    reply = run(filled, "objPull", fileList=named)
    assert (reply["status"], len(reply["failed"])) == (False, 1)
    assert reply["error"]["type"] == "InvalidKeyError"
    assert planned["failed"] == reply["failed"]
    written = [content for name, content in read_tree(tmp_path).items() if not name.startswith("store/")]
    assert all(row["object"].encode() not in written for row in reply["failed"])


def test_two_series_may_share_a_directory(storage: Storage, tmp_path: Path) -> None:
    put(storage, "k/1/a", "k/1/z", "k/2/b", "k/2/z")
    pairs = [{"from": "k/2", "to": "out"}, {"from": "k/1", "to": "out"}]
    reply = run(storage, "objPull", fileList=pairs)
    assert [row["object"] for row in reply["failed"]] == ["k/1/z"]
    assert read_tree(tmp_path / "out") == {"a": b"k/1/a", "b": b"k/2/b", "z": b"k/2/z"}


def test_names_that_fold_collide_across_the_list(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pfstorage.local.LocalTree.folds_names", lambda *_: True)
    put(storage, "k/one", "k/other", "k/s/z")
    pairs = [{"from": "k/one", "to": "d/x"}, {"from": "k/other", "to": "d/X"}, {"from": "k/s", "to": "D"}]
    reply = run(storage, "objPull", fileList=pairs)
    assert [row["object"] for row in reply["failed"]] == ["k/other"]


@pytest.mark.parametrize("to", ["out/", "out/{}/{}", "out/{1}"])
def test_a_target_directory_is_probed_once_for_any_number_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    """A probe file shows whether the file system folds names. Unfinished files are found by all spellings."""
    reported, folds_names = [], disk.folds_names
    swept, sweep = [], tree_module.sweep

    def noted(directory: int) -> bool:
        reported.append(directory)
        return folds_names(directory)

    def noted_sweep(directory: int) -> None:
        swept.append(directory)
        sweep(directory)

    monkeypatch.setattr(disk, "folds_names", noted)
    monkeypatch.setattr(tree_module, "sweep", noted_sweep)
    keys = [f"{number % 3}/{number}" for number in range(100)]
    pairs = [{"from": key, "to": to.format(*key.split("/"))} for key in keys]
    with open_storage(type="memory") as storage:
        put(storage, *keys)
        assert run(storage, "objPull", fileList=pairs)["status"] is True
    assert len(reported) == 1
    assert len(swept) <= 3
    assert len(list((tmp_path / "out").rglob("*"))) in (100, 103)


def test_a_hostile_name_leads_nowhere(swift_storage: Storage, tmp_path: Path) -> None:
    put(swift_storage, "k/good")
    put_raw(swift_storage, ["k/../../escape", "k/.."])
    over = {"fromLocation": "k", "mapLocationOver": "deep/out"}
    names = ["k/../../escape", "k/..", "k/good"]
    reply = run(swift_storage, "objPull", fileList=names, **over)
    assert reply["objectFileList"] == ["k/good"]
    assert read_tree(tmp_path) == {"deep/out/good": b"k/good"}


@pytest.mark.parametrize("to", ["../x", "/etc/x", "d/../../x", "out-link/x"])
def test_a_path_outside_the_roots_fails_the_whole_pull(filled: Storage, tmp_path: Path, to: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "out-link").symlink_to(tmp_path)
    context = RequestContext(roots=AllowedRoots([str(root)]))
    meta = {"fileList": [{"from": "k/one", "to": "fine"}, {"from": "other", "to": to}]}
    reply = StoreHandler(filled).run({"action": "objPull", "meta": meta}, context)
    assert reply["error"]["type"] == "ForbiddenError"
    assert read_tree(root) == {}


# with the other metas


def test_the_other_metas_filter_named_objects(filled: Storage, tmp_path: Path) -> None:
    names = ["k/s1", "k/one", "k/s2"]

    def keys(**meta: Any) -> list[str]:
        reply = run(filled, "objPull", fileList=names, **meta, overwrite="always")
        assert reply["failed"] == []
        return sorted(reply.get("objectFileList", []))

    assert keys(include=["a", "e"]) == ["k/s1/a", "k/s2/d/e"]
    assert keys(exclude=["one", "b"]) == ["k/s1/a", "k/s2/d/e"]
    assert keys(substr="s2") == ["k/s2/d/e"]
    assert keys(exclude=["*"]) == []
    parts = [key for number in (1, 2, 3) for key in keys(shard=f"{number}/3")]
    assert sorted(parts) == ["k/one", "k/s1/a", "k/s1/b", "k/s2/d/e"]


def test_one_shard_reports_a_missing_name(filled: Storage) -> None:
    replies = [run(filled, "objPull", fileList=["k/nothing"], shard=f"{number}/3") for number in (1, 2, 3)]
    assert sorted(reply["status"] for reply in replies) == [False, True, True]


def test_a_dry_run_lists_the_objects(filled: Storage, tmp_path: Path) -> None:
    names = ["k/one", "k/s1"]
    reply = run(filled, "objPull", fileList=names, dryRun=True)
    assert (reply["bytes"], reply["dryRun"], read_tree(tmp_path / "k")) == (5 + 6 + 6, True, {})
    assert run(filled, "objPull", fileList=names)["objectFileList"] == reply["objectFileList"]


def test_a_comparison_finds_extra_files_in_named_directories_only(filled: Storage, tmp_path: Path) -> None:
    over = {"fromLocation": "k", "mapLocationOver": "out"}
    names = ["k/s1", "k/one", {"from": "k/s2", "to": "pair"}]
    run(filled, "objPull", fileList=names, **over)
    more = {"out/s1/more": b"", "out/more": b"", "pair/d/more": b"", "out/s1/b": b"other"}
    write_tree(tmp_path, more)
    (tmp_path / "out/one").unlink()
    reply = run(filled, "objVerify", fileList=names, **over)
    assert (reply["same"], reply["changed"], reply["missing"]) == (2, ["k/s1/b"], ["k/one"])
    assert reply["extra"] == ["out/s1/more", "pair/d/more"]


def test_a_link_within_its_directory_is_followed(filled: Storage, tmp_path: Path) -> None:
    names = [{"from": "k/s1", "to": "pair"}]
    run(filled, "objPull", fileList=names)
    (tmp_path / "pair/a").rename(tmp_path / "pair/real")
    (tmp_path / "pair/a").symlink_to("real")
    reply = run(filled, "objVerify", fileList=names)
    assert (reply["same"], reply["extra"]) == (2, ["pair/real"])
    (tmp_path / "pair/real").rename(tmp_path / "real")
    (tmp_path / "pair/a").unlink()
    (tmp_path / "pair/a").symlink_to("../real")
    assert [row["object"] for row in run(filled, "objVerify", fileList=names)["failed"]] == ["k/s1/a"]


def test_a_store_failure_is_not_a_missing_name(store: Storage, proxy: Proxy) -> None:
    put(store, "k/one", "k/two")
    proxy.fault(Fault("answer", status=503), where=lambda exchange: exchange.key == "k/one")
    for action in ("objPull", "objVerify"):
        reply = run(store, action, fileList=["k/one", "k/two"])
        assert [row["object"] for row in reply["failed"]] == ["k/one"]
        assert reply["error"]["type"] == "UnavailableError"


def test_a_stop_ends_it(store: Storage, proxy: Proxy) -> None:
    put(store, "k/one", "k/two")
    cancellation = CancellationToken()

    def asks(_: object) -> bool:
        cancellation.cancel()
        return True

    proxy.fault(Fault("stall", seconds=30), where=asks)
    message = {"action": "objPull", "meta": {"fileList": ["k/one", "k/two"]}}
    reply = StoreHandler(store).run(message, RequestContext(cancellation=cancellation))
    assert reply["error"]["type"] == "StoppedError"


# each interface


def test_the_command_line_takes_names(filled: Storage, command: Command, tmp_path: Path) -> None:
    if filled.settings.type != "filesystem":
        return
    flags = ("--type", "filesystem", "--storeBase", filled.settings.filesystem.store_base)
    args = '{"fileList": ["k/one", {"from": "k/s1", "to": "x"}], "reply": "summary"}'
    assert '"files": 3' in command(*flags, "--action", "objPull", "--args", args).stdout


def test_a_server_and_its_jobs_take_names_below_its_roots(store: Storage, tmp_path: Path) -> None:
    put(store, *KEYS)
    root = tmp_path / "root"
    root.mkdir()
    meta: dict[str, Any] = {
        "fileList": [{"from": "k/s1", "to": "x"}, {"from": "k/one", "to": str(root / "y")}]
    }
    handler = StoreHandler(store)
    context = RequestContext(roots=AllowedRoots([str(root)]))
    jobs = JobScheduler(handler.job_runner(context), "")
    jobs.start()
    try:
        context.jobs = jobs
        bad = {"action": "objPull", "meta": {"fileList": [], "async": True}}
        assert handler.run(bad, context)["error"]["type"] == "MessageError"
        job = handler.run({"action": "objPull", "meta": {**meta, "async": True}}, context)["job"]
        status = {"action": "jobStatus", "meta": {"job": job}}
        until(lambda: handler.run(status, context)["state"] not in ("queued", "running"))
        assert handler.run(status, context)["state"] == "done"
    finally:
        jobs.close(30.0)
    assert read_tree(root) == {"x/a": b"k/s1/a", "x/b": b"k/s1/b", "y": b"k/one"}


def test_a_form_takes_pairs(store: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, *KEYS)
    fields = {"action": "objPull", "meta[fileList][0][from]": "k/one", "meta[fileList][0][to]": "x"}
    with serving(StoreHandler(store)) as server:
        _, reply = ask(server, urlencode(fields))
    assert (reply["status"], reply["localFileList"]) == (True, ["x"])
