"""The meta ``stable``: a push skips files that were modified just now, since a program may still write them."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.actions.context import Upload
from pfstorage.backends import Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import ContainerNotFoundError
from pfstorage.local import AllowedRoots
from pfstorage.settings.model import Settings
from tests.conftest import ask, run, serving, write_tree
from tests.support.waiting import until

HOUR = 3600
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data", "stable": HOUR / 2}


def age(name: str, seconds: float) -> None:
    """Set the time of modification of a file to so many *seconds* ago."""
    moment = time.time() - seconds
    os.utime(name, (moment, moment))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three files: two that nobody has modified for an hour, and one that somebody has just written."""
    root = write_tree(tmp_path / "data", {"a": b"old", "d/new": b"new", "e": b"older"})
    age("data/a", HOUR)
    age("data/e", 2 * HOUR)
    return root


def keys(storage: Storage) -> list[str]:
    return [row.key for row in storage.list()]


def keys_if_any(storage: Storage) -> list[str]:
    try:
        return keys(storage)
    except ContainerNotFoundError:
        return []


def test_a_recently_modified_file_is_listed_and_not_pushed(storage: Storage, tree: Path) -> None:
    reply = run(storage, "objPut", **PUT)
    assert reply["status"] is True
    assert reply["unstable"] == ["data/d/new"]
    assert reply["objectFileList"] == ["s/a", "s/e"]
    assert reply["localFileList"] == ["data/a", "data/e"]
    assert (reply["bytes"], reply["skipped"], reply["failed"]) == (8, 0, [])
    assert keys(storage) == ["s/a", "s/e"]
    age("data/d/new", HOUR)
    later = run(storage, "objPush", **PUT)
    assert (later["status"], later["unstable"], later["bytes"], later["skipped"]) == (True, [], 3, 2)
    assert keys(storage) == ["s/a", "s/d/new", "s/e"]


def test_without_the_meta_all_is_pushed_and_the_reply_is_as_before(storage: Storage, tree: Path) -> None:
    for meta in ({"stable": None}, {"stable": 0, "overwrite": "always"}):
        reply = run(storage, "objPut", **{**PUT, **meta})
        assert len(reply["objectFileList"]) == 3
        assert "unstable" not in reply


@pytest.mark.parametrize("meta", [
    {"putSpec": "data/d/new"},
    {"putSpec": "", "file": "data/d/new"},
    {"putSpec": "", "fileList": ["data/d/new"]},
    {"include": ["new"]},
    {"reply": "summary"},
    {"dryRun": True},
    {"audit": True},
    {"audit": True, "sure": True},
    {"overwrite": "never"},
    {"overwrite": "always"},
])  # fmt: skip
def test_a_push_of_recent_files_only_is_not_a_failure(
    storage: Storage, tree: Path, meta: dict[str, Any]
) -> None:
    reply = run(storage, "objPut", **{**PUT, "exclude": ["a", "e"], **meta})
    assert (reply["status"], reply["unstable"], reply["failed"]) == (True, ["data/d/new"], [])
    assert (reply["bytes"], reply["skipped"]) == (0, 0)
    assert reply.get("files", 0) == 0 == len(reply.get("objectFileList", []))
    if meta.get("audit"):
        assert reply["audit"]["status"] is True
    if not meta.get("dryRun"):
        assert run(storage, "objPut", **{**PUT, "stable": 0})["bytes"] == 11


def test_a_summary_names_few_unstable_or_extra_files(storage: Storage, tmp_path: Path) -> None:
    paths = [f"data/{number}" for number in range(10, 50)]
    write_tree(tmp_path, {**dict.fromkeys(paths, b"new"), "data/old": b"old"})
    age("data/old", HOUR)
    full = run(storage, "objPut", **PUT)
    summary = run(storage, "objPut", **PUT, reply="summary")
    assert full["unstable"] == paths
    assert "unstableCount" not in full
    assert (summary["unstable"], summary["unstableCount"], summary["files"]) == (paths[:20], 40, 1)
    verify = {"fromLocation": "s", "mapLocationOver": "data"}
    assert run(storage, "objVerify", **verify)["extra"] == paths
    reply = run(storage, "objVerify", **verify, reply="summary")
    assert (reply["status"], reply["extra"], reply["extraCount"]) == (True, paths[:20], 40)


def test_an_audit_ignores_unstable_files(storage: Storage, tree: Path) -> None:
    reply = run(storage, "objPut", **PUT, audit=True)
    assert reply["status"] is True
    assert (reply["audit"]["same"], reply["audit"]["missing"], reply["audit"]["changed"]) == (2, [], [])


def test_a_recently_modified_file_keeps_its_old_object(storage: Storage, tree: Path) -> None:
    run(storage, "objPut", **{**PUT, "stable": 0})
    for content in (b"new", b"NEWER"):  # a push does not compare an unstable file with its object
        (tree / "d/new").write_bytes(content)
        assert run(storage, "objPut", **PUT)["unstable"] == ["data/d/new"]
    assert {row.key: row.size for row in storage.list()}["s/d/new"] == 3


def test_a_missing_file_and_one_that_may_not_be_read_fail_as_ever(storage: Storage, tree: Path) -> None:
    reply = run(storage, "objPut", **{**PUT, "putSpec": "", "fileList": ["data/missing", "data/d", "data/a"]})
    assert [row["local"] for row in reply["failed"]] == ["data/missing", "data/d"]
    assert (reply["status"], reply["unstable"], reply["objectFileList"]) == (False, [], ["s/a"])


def test_the_time_of_a_links_target_counts(storage: Storage, tree: Path) -> None:
    (tree / "link").symlink_to("a")
    (tree / "other").symlink_to("d/new")
    reply = run(storage, "objPut", **PUT)
    assert reply["unstable"] == ["data/d/new", "data/other"]
    assert reply["objectFileList"] == ["s/a", "s/e", "s/link"]


def test_a_change_of_mode_or_links_does_not_delay_a_file(storage: Storage, tree: Path) -> None:
    (tree / "a").chmod(0o600)
    os.link("data/e", "data/f")
    reply = run(storage, "objPut", **PUT)
    assert reply["objectFileList"] == ["s/a", "s/e", "s/f"]


def test_a_file_with_a_future_time_uses_its_change_time(storage: Storage, tree: Path) -> None:
    age("data/a", -HOUR)
    assert run(storage, "objPut", **PUT)["unstable"] == ["data/a", "data/d/new"]
    age("data/d/new", -HOUR)
    until(lambda: time.time() - max(os.stat(f"data/{name}").st_ctime for name in ("a", "d/new")) > 0.05)
    reply = run(storage, "objPut", **{**PUT, "stable": 0.05})
    assert (reply["unstable"], len(reply["objectFileList"])) == ([], 3)


@pytest.mark.parametrize("value", [-1, -0.001, 366 * 24 * HOUR + 1, float("nan"), float("inf"), 1e300])
def test_a_number_out_of_bounds_is_refused_before_anything_is_done(tree: Path, value: float) -> None:
    storage = MemoryStorage(Settings(type="memory"))
    reply = run(storage, "objPut", **{**PUT, "stable": value})
    assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")
    assert "'stable' takes a number from 0 to 31622400" in reply["msg"]
    assert keys_if_any(storage) == []


@pytest.mark.parametrize("value", ["soon", True, [1], {}])
def test_a_stable_time_must_be_a_number(tree: Path, value: object) -> None:
    reply = run(MemoryStorage(Settings(type="memory")), "objPut", **{**PUT, "stable": value})
    assert (reply["status"], reply["error"]["type"]) == (False, "MessageError")


def test_stable_is_refused_for_an_upload() -> None:
    context = RequestContext(upload=Upload(io.BytesIO(b"new"), 3, "a.txt"))
    with contextlib.closing(StoreHandler(MemoryStorage(Settings(type="memory")))) as handler:
        reply = handler.answer({"action": "objPut", "meta": {"toObject": "a", "stable": 1}}, context)
    assert "'stable' is for local files" in reply.body["msg"]


def test_stable_works_below_a_root_and_in_a_job(storage: Storage, tree: Path) -> None:
    context = RequestContext(Principal(is_trusted=False), roots=AllowedRoots(["data"]))
    meta = {**PUT, "putSpec": str(tree), "mapLocationOver": str(tree)}
    with contextlib.closing(StoreHandler(storage)) as handler:
        reply = handler.answer({"action": "objPut", "meta": meta}, context)
        assert list(reply.body["unstable"]) == [str(tree / "d/new")]
        with serving(handler, fs_roots=("data",)) as server:
            message = {"action": "objPut", "meta": {**meta, "async": True}}
            job = ask(server, message)[1]["job"]

            def status() -> Any:
                return ask(server, {"action": "jobStatus", "meta": {"job": job}})[1]

            until(lambda: status()["state"] == "done")
            reported = status()
    assert reported["reply"]["unstable"] == [str(tree / "d/new")]
    assert reported["progress"]["files"] == reported["progress"]["total"] == 3


def writing(change: Callable[[], object]) -> Storage:
    """Return a store that calls *change* while it reads a file."""

    class Busy(MemoryStorage):
        def put(self, key: str, body: Any, size: int, *more: Any, **named: Any) -> Any:
            body.read(1)
            change()
            return super().put(key, body, size, *more, **named)

    return Busy(Settings(type="memory"))


def test_a_file_written_during_the_push_is_left_out(tree: Path) -> None:
    def append() -> None:
        with (tree / "a").open("ab") as file:
            file.write(b"more")

    reply = run(writing(append), "objPut", **{**PUT, "exclude": ["e"]})
    assert (reply["status"], reply["unstable"], reply["failed"]) == (True, ["data/a", "data/d/new"], [])
