"""objVerify, and the audit of a transfer: equal, changed, missing and extra files."""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import PermissionDeniedError, StorageError, UnavailableError
from pfstorage.local import AllowedRoots
from tests.conftest import Command, read_tree, run, swift_options, write_tree
from tests.support.faults import proxy_to
from tests.support.large import raw_connection
from tests.support.objects import verdict

PIECE = 64 * 1024
LARGE = random.Random(8).randbytes(4 * PIECE + 5)
TREE = {"a": b"aaa", "a-b": b"b", "d/c": b"ccc", "d/e/f": b"f", "empty": b"", "new\nline ü": b"n"}
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}


@pytest.fixture
def pulled(storage: Storage, tmp_path: Path) -> Storage:
    """A storage whose objects are below ``s``, and in the directory ``out``."""
    write_tree(tmp_path / "data", TREE)
    assert run(storage, "objPut", **PUT)["status"] is True
    assert run(storage, "objPull", **PULL)["status"] is True
    return storage


def test_equal_files_are_counted_and_nothing_is_moved(pulled: Storage, tmp_path: Path) -> None:
    reply = run(pulled, "objVerify", **PULL)
    assert verdict(reply) == (True, len(TREE), [], [], [])
    assert reply["localpath"] == "out"
    assert reply["currentWorkingDir"] == str(tmp_path)
    assert "msg" not in reply
    assert read_tree(tmp_path / "out") == TREE


def test_differences_are_listed_in_order(pulled: Storage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_tree(
        out, {"a": b"aab", "d/c": b"cc", "empty": b"not", "!": b"", "!!": b"", "d/e/new": b"x", "z/z": b"z"}
    )
    (out / "a-b").unlink()
    (out / "d" / "e" / "f").write_bytes(b"")
    reply = run(pulled, "objVerify", **PULL)
    assert verdict(reply) == (
        False,
        1,
        ["s/a", "s/d/c", "s/d/e/f", "s/empty"],
        ["s/a-b"],
        ["out/!", "out/!!", "out/d/e/new", "out/z/z"],
    )
    assert reply["msg"] == "4 files differ and 1 are missing"
    assert "error" not in reply


def test_extra_files_are_not_a_failure(pulled: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "out", {"more": b"x"})
    assert verdict(run(pulled, "objVerify", **PULL)) == (True, len(TREE), [], [], ["out/more"])


def test_files_that_a_push_left_out_are_extra(storage: Storage, tmp_path: Path) -> None:
    long_path = "/".join(["long" * 20] * 13)
    root = write_tree(tmp_path / "data", {"a": b"old", "new": b"new", "x.tmp": b"x", long_path: b"l"})
    os.utime(root / "a", (1, 1))
    (root / os.fsdecode(b"\xff")).write_bytes(b"?")
    reply = run(storage, "objPut", **PUT, stable=1800, exclude=["*.tmp"], audit=True)
    assert reply["audit"]["same"] == 1
    reply = run(storage, "objVerify", fromLocation="s", mapLocationOver="data", sure=True)
    assert (reply["status"], reply["same"]) == (True, 1)
    left_out = (long_path, "new", "x.tmp", os.fsdecode(b"\xff"))
    assert list(reply["extra"]) == [f"data/{name}" for name in left_out]


def test_all_files_of_a_missing_directory_are_missing(pulled: Storage) -> None:
    reply = run(pulled, "objVerify", fromLocation="s", mapLocationOver="nowhere")
    assert verdict(reply) == (False, 0, [], [f"s/{name}" for name in sorted(TREE)], [])
    assert not Path("nowhere").exists()


def test_another_kind_of_file_is_a_change(pulled: Storage, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "a").unlink()
    (out / "a").mkdir()
    (out / "a-b").unlink()
    (out / "a-b").symlink_to("d/c")
    (out / "d" / "e" / "f").unlink()
    (out / "d" / "e").rmdir()
    (out / "d" / "e").write_bytes(b"a file")
    reply = run(pulled, "objVerify", **PULL)
    assert reply["status"] is False
    reported = {*reply["changed"], *reply["missing"], *(row["object"] for row in reply.get("failed", []))}
    assert reported == {"s/a", "s/a-b", "s/d/e/f"}
    assert reply["same"] == len(TREE) - 3


def test_an_audit_reads_links_as_a_comparison_does(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path, {"data/a": b"aaa"})
    (tmp_path / "data" / "link").symlink_to("a")
    assert run(storage, "objPut", **PUT)["status"] is True
    reply = run(storage, "objPull", fromLocation="s", mapLocationOver="data", overwrite="never", audit=True)
    assert verdict(reply["audit"]) == (True, 2, [], [], [])


@pytest.mark.parametrize("has_roots", [False, True])
def test_a_link_within_the_tree_is_followed(storage: Storage, tmp_path: Path, has_roots: bool) -> None:
    write_tree(tmp_path, {"data/a": b"aaa", "data/d/b": b"b", "outside": b"aaa"})
    for name, target in {"link": "a", "d/up": "../a", "absolute": f"{tmp_path}/data/d/b"}.items():
        (tmp_path / "data" / name).symlink_to(target)
    roots = AllowedRoots([str(tmp_path)]) if has_roots else None

    def answer(action: str, **meta: Any) -> dict[str, Any]:
        return StoreHandler(storage).run({"action": action, "meta": meta}, RequestContext(roots=roots))

    assert answer("objPut", **PUT, audit=True)["audit"]["same"] == 5
    there = {"fromLocation": "s", "mapLocationOver": "data"}
    assert verdict(answer("objVerify", **there)) == (True, 5, [], [], [])
    (tmp_path / "data" / "absolute").unlink()
    (tmp_path / "data" / "absolute").symlink_to("a")
    (tmp_path / "data" / "d" / "up").unlink()
    (tmp_path / "data" / "d" / "up").symlink_to("../../outside")
    (tmp_path / "data" / "link").unlink()
    (tmp_path / "data" / "link").symlink_to("gone")
    reply = answer("objVerify", **there)
    assert (reply["status"], reply["same"], reply["changed"]) == (False, 2, ["s/absolute"])
    assert reply["missing"] == ["s/link"]
    assert [(row["object"], "out of the tree" in row["msg"]) for row in reply["failed"]] == [("s/d/up", True)]


@pytest.mark.parametrize("over", ["out", "./out", "out/", "out//", "{cwd}/out", ".", ""])
def test_the_spelling_of_the_directory_does_not_matter(
    pulled: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: str
) -> None:
    if over in ("", "."):
        (tmp_path / "out").rename(tmp_path / "s")
        monkeypatch.chdir(tmp_path if not over else tmp_path / "s")
    reply = run(pulled, "objVerify", fromLocation="s", mapLocationOver=over.format(cwd=tmp_path))
    assert verdict(reply) == (True, len(TREE), [], [], [])


def test_one_object_and_its_file_are_verified(pulled: Storage) -> None:
    meta: dict[str, Any] = {"path": "s/d/c", "fromLocation": "s/d/c", "mapLocationOver": "out/d/c"}
    assert verdict(run(pulled, "objVerify", **meta)) == (True, 1, [], [], [])


def test_markers_are_directories(storage: Storage, tmp_path: Path) -> None:
    for key in ("s/full/", "s/empty/", "s/gone/", "s/file/"):
        storage.put(key, io.BytesIO(), 0)
    storage.put("s/full/a", io.BytesIO(b"x"), 1)
    assert run(storage, "objPull", **PULL)["status"] is True
    out = tmp_path / "out"
    (out / "gone").rmdir()
    (out / "file").rmdir()
    (out / "file").write_bytes(b"x")
    reply = run(storage, "objVerify", **PULL)
    assert (reply["status"], reply["changed"], reply["missing"]) == (False, ["s/file/"], ["s/gone/"])


def test_keys_that_cannot_be_files_are_reported(swift_storage: Storage) -> None:
    for key in ("s/a", "s/a/b", "s/" + "n" * 300):
        swift_storage.put(key, io.BytesIO(b"x"), 1)
    run(swift_storage, "objPull", **PULL)
    reply = run(swift_storage, "objVerify", **PULL)
    assert (reply["status"], reply["same"]) == (False, 1)
    assert [row["object"] for row in reply["failed"]] == ["s/a/b", "s/" + "n" * 300]


def test_a_store_that_fails_is_an_error(swift: DevSwift) -> None:
    with open_storage(**swift_options(swift)) as storage:
        assert run(storage, "objVerify", **PULL)["error"]["type"] == "ContainerNotFoundError"


def test_an_impossible_local_name_does_not_end_the_comparison(
    swift: DevSwift, swift_storage: Storage, command: Command, tmp_path: Path
) -> None:
    for key in ("s/a", "s/\u00fc", "s/z"):
        swift_storage.put(key, io.BytesIO(b"x"), 1)
    write_tree(tmp_path / "out", {"a": b"x", "z": b"x", "\u00e4": b"x"})
    environ = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    container = swift_storage.settings.swift.container_name
    flags = ("--swiftAuthUrl", swift.auth_url, "--swiftContainer", container, "--action", "objVerify")
    reply = json.loads(command(*flags, "--args", json.dumps(PULL), **environ).stdout)
    assert (reply["status"], reply["same"], len(reply["extra"])) == (False, 2, 1)
    assert [row["object"] for row in reply["failed"]] == ["s/\u00fc"]


@pytest.mark.parametrize("made", ["64K", "100K", "128K"])
def test_segments_do_not_matter_for_equality(swift_storage: Storage, tmp_path: Path, made: str) -> None:
    write_tree(tmp_path / "data", {"large": LARGE})
    assert run(swift_storage, "objPut", {"segmentSize": made}, **PUT)["status"] is True
    settings = {"segmentSize": "64K", "rangeSize": "64K"}
    assert run(swift_storage, "objPull", settings, **PULL)["status"] is True
    assert verdict(run(swift_storage, "objVerify", settings, **PULL)) == (True, 1, [], [], [])
    (tmp_path / "out" / "large").write_bytes(LARGE[:-1] + b"x")
    assert verdict(run(swift_storage, "objVerify", settings, **PULL)) == (False, 0, ["s/large"], [], [])


def test_an_object_listed_as_empty_is_compared_by_its_bytes(
    swift: DevSwift, swift_storage: Storage, tmp_path: Path
) -> None:
    """Swift lists a dynamic large object with a size of 0."""
    for number in range(3):
        swift_storage.put(f"parts/{number}", io.BytesIO(b"x" * 1000), 1000)
    container = swift_storage.settings.swift.container_name
    with raw_connection(swift) as raw:
        raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": f"{container}/parts/"})
    swift_storage.put("s/empty", io.BytesIO(), 0)
    assert run(swift_storage, "objPull", **PULL)["status"] is True
    assert verdict(run(swift_storage, "objVerify", **PULL)) == (True, 2, [], [], [])
    (tmp_path / "out" / "dlo").write_bytes(b"")
    assert verdict(run(swift_storage, "objVerify", **PULL)) == (False, 1, ["s/dlo"], [], [])


def test_no_object_is_fetched(swift: DevSwift, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {name: content for name, content in TREE.items() if content})
    write_tree(tmp_path / "data", {"large": LARGE})
    with (
        proxy_to(swift.port) as proxy,
        open_storage(**swift_options(swift, segment_size=PIECE, auth_url=proxy.auth_url)) as storage,
    ):
        run(storage, "objPut", **PUT)
        run(storage, "objPull", **PULL)
        proxy.forget()
        assert run(storage, "objVerify", **PULL)["same"] == len(TREE)
        heads = [exchange.key for exchange in proxy.made("HEAD")]
        assert (proxy.listings, len(heads), len(set(heads))) == (1, len(TREE), len(TREE))
        fetched = [each for each in proxy.made("GET") if "multipart-manifest=get" not in each.query]
        assert [(each.key, each.sent) for each in fetched] == [("s/large", 1)] * 5  # a byte of each segment


# audits


@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_an_audit_without_differences(storage: Storage, tmp_path: Path, action: str) -> None:
    write_tree(tmp_path / "data", TREE)
    if action == "objPull":
        run(storage, "objPut", **PUT)
    reply = run(storage, action, **(PUT if action == "objPut" else PULL), audit=True)
    assert reply["status"] is True
    assert verdict(reply["audit"]) == (True, len(TREE), [], [], [])
    again = run(storage, action, **(PUT if action == "objPut" else PULL), audit=True)
    assert (again["status"], again["audit"]["same"]) == (True, len(TREE))


def test_an_audit_of_a_list_of_files(storage: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    meta: dict[str, Any] = {"fileList": ["data/d/c", "data/a"], "inLocation": "s", "mapLocationOver": "data"}
    assert run(storage, "objPut", **meta, audit=True)["audit"]["same"] == 2


@pytest.mark.parametrize("meta", [{"dryRun": True}, {}])
def test_no_audit_by_default_or_in_a_dry_run(storage: Storage, tmp_path: Path, meta: dict[str, Any]) -> None:
    write_tree(tmp_path / "data", TREE)
    assert "audit" not in run(storage, "objPut", **PUT, **meta, audit="dryRun" in meta)


class Lying(MemoryStorage):
    """A store that silently keeps other bytes than the client sent, for the key ``s/a``."""

    def put(self, key: str, body: Any, size: int, *arguments: Any, **options: Any) -> ObjectInfo:
        if key == "s/a":
            return super().put(key, io.BytesIO(b"x" * size), size, *arguments, **options)
        return super().put(key, body, size, *arguments, **options)


def test_an_audit_finds_changed_objects(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", TREE)
    reply = run(Lying(), "objPut", **PUT, audit=True)
    assert (reply["status"], reply["failed"]) == (False, [])
    assert verdict(reply["audit"]) == (False, len(TREE) - 1, ["s/a"], [], [])
    assert reply["msg"] == "the audit found files that differ"


class Losing(MemoryStorage):
    def put(self, key: str, *arguments: Any, **options: Any) -> ObjectInfo:
        info = super().put(key, *arguments, **options)
        if key == "s/a":
            self.delete(key)
        return info


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstorage.backends.retry.FIRST_PAUSE", 0.01)


def test_an_audit_finds_lost_objects(tmp_path: Path, short_pauses: None) -> None:
    write_tree(tmp_path / "data", TREE)
    reply = run(Losing(), "objPut", **PUT, audit=True)
    assert verdict(reply["audit"]) == (False, len(TREE) - 1, [], ["s/a"], [])


class Lagging(MemoryStorage):
    """A store whose listings show a key only when it has been looked for *lag* times."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        self.lag = lag
        self.looked: dict[str, int] = {}
        self.heads: list[str] = []

    def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
        for row in super().list(prefix, **options):
            self.looked[row.key] = self.looked.get(row.key, 0) + 1
            if self.looked[row.key] > self.lag:
                yield row

    def head(self, key: str) -> ObjectInfo:
        self.heads.append(key)
        return super().head(key)


@pytest.mark.parametrize("lag", [0, 1, 1000])
def test_an_audit_sends_one_head_for_each_object(tmp_path: Path, lag: int) -> None:
    tree = {name: content for name, content in TREE.items() if content}
    write_tree(tmp_path / "data", tree)
    storage = Lagging(lag)
    reply = run(storage, "objPut", **PUT, audit=True)
    assert (reply["status"], reply["audit"]["same"]) == (True, len(tree))
    assert sorted(storage.heads) == sorted(f"s/{name}" for name in tree)


class Unlisted(MemoryStorage):
    """A store that lists nothing after the first put."""

    error: StorageError = UnavailableError("gone")
    heads = 0
    is_filled = False

    def put(self, *arguments: Any, **options: Any) -> ObjectInfo:
        self.is_filled = True
        return super().put(*arguments, **options)

    def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
        if self.is_filled:
            raise self.error
        return super().list(prefix, **options)

    def head(self, key: str) -> ObjectInfo:
        self.heads += 1
        return super().head(key)


def test_a_failed_audit_is_reported(tmp_path: Path, short_pauses: None) -> None:
    write_tree(tmp_path / "data", TREE)
    reply = run(Unlisted(), "objPut", **PUT, audit=True)
    assert len(reply["objectFileList"]) == len(TREE)
    assert (reply["status"], reply["audit"]["status"]) == (False, False)
    assert reply["audit"]["error"]["type"] == "UnavailableError"


def test_an_audit_without_permission_to_list_asks_for_each_object(tmp_path: Path, short_pauses: None) -> None:
    write_tree(tmp_path / "data", TREE)
    storage = Unlisted()
    storage.error = PermissionDeniedError("403")
    reply = run(storage, "objPut", **PUT, audit=True)
    assert (reply["status"], reply["audit"]["same"]) == (True, len(TREE))
    assert storage.heads >= len(TREE)


def test_an_audit_of_a_pull_finds_changed_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Meddling(MemoryStorage):
        """Between the pull and the audit, somebody writes into the directory."""

        lists = 0

        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            self.lists += 1
            if self.lists == 3:
                (tmp_path / "out" / "a").write_bytes(b"xxx")
                os.unlink(tmp_path / "out" / "a-b")
            return super().list(prefix, **options)

    write_tree(tmp_path / "data", TREE)
    storage = Meddling()
    run(storage, "objPut", **PUT)
    reply = run(storage, "objPull", **PULL, audit=True)
    assert reply["failed"] == []
    assert verdict(reply["audit"]) == (False, len(TREE) - 2, ["s/a"], ["s/a-b"], [])
