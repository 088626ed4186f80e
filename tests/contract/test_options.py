"""The metas and settings of transfers, by messages on every store."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions.context import MAX_WARNINGS
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import ByteRange, Sink
from pfstorage.backends.errors import object_changed_error
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import ContainerNotFoundError, RejectedError
from pfstorage.settings.model import Settings
from pfstorage.transfer import Options, Transfer, TransferContext, push
from pfstorage.transfer.batch import BATCH_SIZE
from tests.conftest import read_tree, run, swift_options, write_tree
from tests.support.faults import proxy_to
from tests.support.local import mounted, parts_in

TREE = {
    "a.dcm": b"a" * 1000,
    "b.txt": b"b" * 2000,
    "sub/c.dcm": b"c" * 3000,
    "sub/deep/d.dcm": b"d" * 4000,
    "sub/deep/e": b"e" * 5000,
}
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}


def contents(storage: Storage) -> dict[str, bytes]:
    """Return the contents of the objects in *storage*, by key."""
    found = {}
    try:
        for row in storage.list():
            sink = io.BytesIO()
            storage.get(row.key, sink)
            found[row.key] = sink.getvalue()
    except ContainerNotFoundError:
        return {}
    return found


def moved(reply: dict[str, Any]) -> tuple[bool, int, int]:
    return reply["status"], reply["bytes"], reply["skipped"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", TREE)


SIZE = sum(map(len, TREE.values()))


# overwrite


def test_overwrite_changed_is_the_default(storage: Storage, data: Path) -> None:
    assert moved(run(storage, "objPut", **PUT)) == (True, SIZE, 0)
    write_tree(data, {"a.dcm": b"A" * 1000})
    assert moved(run(storage, "objPut", **PUT)) == (True, 1000, 4)
    assert contents(storage)["s/a.dcm"] == b"A" * 1000


def test_overwrite_always_moves_unchanged_files(storage: Storage, data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert moved(run(storage, "objPut", **PUT, overwrite="always")) == (True, SIZE, 0)
        assert moved(run(storage, "objPull", **PULL, overwrite="always")) == (True, SIZE, 0)
    assert read_tree(tmp_path / "out") == TREE


def test_overwrite_never_keeps_objects(storage: Storage, data: Path) -> None:
    storage.put("s/a.dcm", io.BytesIO(b"precious"), 8)
    assert moved(run(storage, "objPut", **PUT, overwrite="never")) == (True, SIZE - 1000, 1)
    assert contents(storage) == {f"s/{name}": content for name, content in TREE.items()} | {
        "s/a.dcm": b"precious"
    }


def test_overwrite_never_keeps_files_and_directories(storage: Storage, data: Path, tmp_path: Path) -> None:
    run(storage, "objPut", **PUT)
    write_tree(tmp_path / "out", {"a.dcm": b"precious", "sub/c.dcm": b""})
    (tmp_path / "out" / "b.txt").symlink_to("nowhere")
    reply = run(storage, "objPull", **PULL, overwrite="never")
    assert moved(reply) == (True, 9000, 3)
    assert (tmp_path / "out" / "b.txt").readlink() == Path("nowhere")
    assert read_tree(tmp_path / "out") == {
        "a.dcm": b"precious",
        "sub/c.dcm": b"",
        "sub/deep/d.dcm": TREE["sub/deep/d.dcm"],
        "sub/deep/e": TREE["sub/deep/e"],
    }


@pytest.mark.parametrize("durable", ["none", "file", "batch"])
def test_overwrite_never_keeps_files_made_meanwhile(tmp_path: Path, durable: str) -> None:
    class Racing(MemoryStorage):
        def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
            local = tmp_path / "out" / key.removeprefix("s/")
            if local.name == "a":
                local.write_bytes(b"precious")
            elif local.name == "b":
                local.mkdir()
            return super().get(key, sink, byte_range)

    storage = Racing(Settings(type="memory", durable=durable))
    for key in ("s/a", "s/b", "s/c"):
        storage.put(key, io.BytesIO(b"new"), 3)
    reply = run(storage, "objPull", **PULL, overwrite="never")
    assert (reply["status"], reply["skipped"], reply["bytes"]) == (False, 1, 3)
    [failed] = reply["failed"]
    assert (failed["object"], "directory" in failed["msg"]) == ("s/b", True)
    assert (tmp_path / "out" / "b").is_dir()
    assert read_tree(tmp_path / "out") == {"a": b"precious", "c": b"new"}
    assert parts_in(tmp_path / "out") == []


@pytest.mark.parametrize("got", [b"new", b"odd"])
def test_bytes_that_come_without_an_etag_are_held_against_the_listing(tmp_path: Path, got: bytes) -> None:
    class Mute(MemoryStorage):
        def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
            sink.write(got)
            return ObjectInfo(key, 3)

    storage = Mute(Settings(type="memory"))
    storage.put("s/a", io.BytesIO(b"new"), 3)
    reply = run(storage, "objPull", **PULL)
    if got == b"new":
        assert read_tree(tmp_path / "out") == {"a": b"new"}
    else:
        assert "don't have the MD5 of the listing" in reply["failed"][0]["msg"]
        assert list((tmp_path / "out").iterdir()) == []


def test_an_object_that_is_refused_is_asked_for_once(tmp_path: Path) -> None:
    asked = []

    class Refusing(MemoryStorage):
        def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
            asked.append(key)
            raise RejectedError("416", status=416)

    storage = Refusing(Settings(type="memory"))
    storage.put("s/a", io.BytesIO(b"new"), 3)
    [failed] = run(storage, "objPull", **PULL)["failed"]
    assert (failed["msg"], asked) == ("416", ["s/a"])


@pytest.mark.parametrize("times", [1, 9])
def test_an_object_replaced_during_its_pull_is_pulled_again(tmp_path: Path, times: int) -> None:
    tries = []

    class Replaced(MemoryStorage):
        def get(self, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
            tries.append(key)
            if len(tries) <= times:
                sink.write(b"half")
                raise object_changed_error(key)
            return super().get(key, sink, byte_range)

    storage = Replaced(Settings(type="memory", retries=0))
    storage.put("s/a", io.BytesIO(b"new"), 3)
    reply = run(storage, "objPull", **PULL)
    assert (reply["status"], len(tries)) == ((True, 2) if times == 1 else (False, 3))
    if times == 1:
        assert read_tree(tmp_path / "out") == {"a": b"new"}
    else:
        assert list((tmp_path / "out").iterdir()) == []
        assert "another object by now: try again" in reply["failed"][0]["msg"]


@pytest.mark.parametrize("size", [0, 10, 300_000])
def test_overwrite_never_keeps_unlisted_objects(storage: Storage, tmp_path: Path, size: int) -> None:
    write_tree(tmp_path, {"a": b"x" * size, "b": b"y"})
    storage.put("a", io.BytesIO(b"precious"), 8)
    plan = [Transfer("a", "a"), Transfer("b", "b")]
    report = push(plan, TransferContext(storage, Options(overwrite="never")))
    assert (report.count, report.skipped, report.size, report.failed) == (2, 1, 1, [])
    assert contents(storage) == {"a": b"precious", "b": b"y"}


def test_never_asks_swift_to_see_to_it(swift: DevSwift, data: Path) -> None:
    with (
        proxy_to(swift.port) as proxy,
        open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage,
    ):
        run(storage, "objPut", **PUT, overwrite="never")
        assert {exchange.headers["If-None-Match"] for exchange in proxy.made("PUT")} == {"*"}
        proxy.forget()
        assert run(storage, "objPut", **PUT, overwrite="never", dryRun=True)["skipped"] == len(TREE)
        assert run(storage, "objPut", **PUT, overwrite="never")["skipped"] == len(TREE)
        assert proxy.puts == 0
        run(storage, "objPut", **PUT, overwrite="always")
        assert {exchange.headers["If-None-Match"] for exchange in proxy.made("PUT")} == {None}


@pytest.mark.parametrize("meta", [{"overwrite": "sometimes"}, {"reply": "short"}, {"shard": "5/3"}])
@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_a_word_that_is_not_known_is_refused(
    storage: Storage, data: Path, action: str, meta: dict[str, Any]
) -> None:
    reply = run(storage, action, **(PUT if action == "objPut" else PULL), **meta)
    assert reply["error"]["type"] == "MessageError"
    assert contents(storage) == {}


# selection


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"include": ["*.dcm"]}, {"a.dcm", "sub/c.dcm", "sub/deep/d.dcm"}),
        ({"include": "*.dcm", "exclude": "sub/deep/**"}, {"a.dcm", "sub/c.dcm"}),
        ({"exclude": ["?.*"]}, {"sub/deep/e"}),
        ({"include": ["sub/*"]}, {"sub/c.dcm"}),
    ],
)
def test_globs_select_files_in_both_directions(
    storage: Storage, data: Path, tmp_path: Path, meta: dict[str, Any], names: set[str]
) -> None:
    assert run(storage, "objPut", **PUT, **meta)["status"] is True
    assert contents(storage).keys() == {f"s/{name}" for name in names}
    run(storage, "objPut", **PUT)
    assert run(storage, "objPull", **PULL, **meta)["status"] is True
    assert read_tree(tmp_path / "out").keys() == names
    verified = run(storage, "objVerify", **PULL, **meta)
    assert (verified["status"], verified["same"], verified["extra"]) == (True, len(names), [])


def test_shards_are_everything_and_each_only_once(storage: Storage, data: Path, tmp_path: Path) -> None:
    shards = [f"{number}/3" for number in (1, 2, 3)]
    pushed = [run(storage, "objPut", **PUT, shard=shard) for shard in shards]
    assert sorted(key for reply in pushed for key in reply["objectFileList"]) == sorted(contents(storage))
    assert len(contents(storage)) == len(TREE)
    pulled = [run(storage, "objPull", **PULL, shard=shard) for shard in shards]
    assert [reply["objectFileList"] for reply in pulled] == [reply["objectFileList"] for reply in pushed]
    assert all(reply["status"] for reply in (*pushed, *pulled))
    assert read_tree(tmp_path / "out") == TREE


def test_a_text_and_globs_and_a_shard_all_hold(storage: Storage, data: Path, tmp_path: Path) -> None:
    run(storage, "objPut", **PUT)
    for shard in ("1/2", "2/2"):
        meta: dict[str, Any] = {"substr": "deep", "include": ["*.dcm"], "shard": shard}
        assert run(storage, "objPull", **PULL, **meta)["status"] is True
    assert read_tree(tmp_path / "out").keys() == {"sub/deep/d.dcm"}


def test_links_are_followed_only_if_that_is_asked_for(storage: Storage, data: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "other", {"one": b"1", "two": b"2"})
    (data / "sub" / "link").symlink_to(tmp_path / "other")
    (data / "file").symlink_to(tmp_path / "other" / "one")
    (data / "circle").symlink_to(data)
    (data / "broken").symlink_to("nowhere")
    reply = run(storage, "objPut", **PUT)
    assert len(reply["objectFileList"]) == len(TREE)
    assert len(reply["warnings"]) == 4
    reply = run(storage, "objPut", **PUT, followSymlinks=True)
    assert reply["status"] is True
    assert {key.removeprefix("s/") for key in reply["objectFileList"]} == {
        *TREE,
        "file",
        "sub/link/one",
        "sub/link/two",
    }
    assert len(reply["warnings"]) == 2


# dry runs and summaries


@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_a_dry_run_lists_files_and_moves_nothing(
    storage: Storage, data: Path, tmp_path: Path, action: str
) -> None:
    storage.put("s/a.dcm", io.BytesIO(TREE["a.dcm"]), 1000)
    if action == "objPull":
        run(storage, "objPut", **PUT)
        write_tree(tmp_path / "out", {"a.dcm": TREE["a.dcm"]})
    before = contents(storage), read_tree(tmp_path)
    meta = PUT if action == "objPut" else PULL
    reply = run(storage, action, **meta, dryRun=True)
    assert (contents(storage), read_tree(tmp_path)) == before
    assert reply["dryRun"] is True
    done = run(storage, action, **meta)
    assert moved(done) == (True, SIZE - 1000, 1)
    assert {**done, "dryRun": True, "seconds": 0} == {**reply, "seconds": 0}
    assert list(reply["objectFileList"]) == [f"s/{name}" for name in sorted(TREE)]


def test_a_dry_run_reports_failures(swift_storage: Storage, tmp_path: Path) -> None:
    for key in ("s/a", "s/a/b", "s/empty/"):
        swift_storage.put(key, io.BytesIO(b"" if key.endswith("/") else b"x"), 0 if key.endswith("/") else 1)
    reply = run(swift_storage, "objPull", **PULL, dryRun=True)
    assert [row["object"] for row in reply["failed"]] == ["s/a/b"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("action", ["objPut", "objPull"])
def test_a_summary_has_numbers_instead_of_names(storage: Storage, data: Path, action: str) -> None:
    run(storage, "objPut", **PUT)
    reply = run(storage, action, **(PUT if action == "objPut" else PULL), reply="summary", overwrite="always")
    assert (reply["files"], *moved(reply), reply["failed"]) == (len(TREE), True, SIZE, 0, [])
    assert not {"localFileList", "objectFileList"} & reply.keys()


def test_a_summary_lists_failures(storage: Storage, data: Path) -> None:
    reply = run(storage, "objPut", fileList=["data/a.dcm", "data/gone"], reply="summary")
    assert (reply["status"], reply["files"], reply["failed"][0]["local"]) == (False, 1, "data/gone")


def test_failures_beyond_a_bound_are_counted(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstorage.transfer.plan.MAX_FAILURES", 3)
    reply = run(storage, "objPut", fileList=[f"gone-{number}" for number in range(8)])
    assert (len(reply["failed"]), reply["failedCount"]) == (3, 8)
    assert reply["msg"].startswith("8 of 8 files failed: ")


def test_warnings_are_bounded(data: Path) -> None:
    for number in range(MAX_WARNINGS + 234):
        (data / f"empty-{number}").mkdir()
    with open_storage(type="memory") as storage:
        warnings = run(storage, "objPut", **PUT)["warnings"]
    assert len(warnings) == MAX_WARNINGS + 1
    assert warnings[-1] == "and 234 more of the kind"


# type and time of a file


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("slice", bytes(128) + b"DICM" + bytes(100), "application/dicom"),
        ("1.2.840.113619", bytes(128) + b"DICM", "application/dicom"),
        ("slice.DCM", b"whatever", "application/dicom"),
        ("picture.png", bytes(128) + b"DICM", "image/png"),
        ("almost", bytes(127) + b"DICM" + bytes(100), "application/octet-stream"),
        ("short", b"DICM", "application/octet-stream"),
        ("empty", b"", "application/octet-stream"),
    ],
)
def test_dicom_is_recognized_by_its_magic_bytes(
    storage: Storage, tmp_path: Path, name: str, content: bytes, kind: str
) -> None:
    write_tree(tmp_path / "data", {name: content})
    assert run(storage, "objPut", **PUT)["status"] is True
    assert storage.head(f"s/{name}").content_type == kind


TIMES = [1_700_000_000_123_456_789, 1, 0, -1, -86_400_000_000_001, 4_102_444_800_999_999_999]


@pytest.mark.parametrize("settings", [{}, {"segmentSize": "64K", "rangeSize": "64K"}, {"durable": "batch"}])
def test_a_file_keeps_its_time_to_the_nanosecond(
    storage: Storage, tmp_path: Path, settings: dict[str, str]
) -> None:
    for number, moment in enumerate(TIMES):
        write_tree(tmp_path / "data", {f"{number}": b"x" * 150_000})
        os.utime(tmp_path / "data" / f"{number}", ns=(0, moment))
    assert run(storage, "objPut", settings, **PUT)["status"] is True
    assert [storage.head(f"s/{number}").mtime_ns for number in range(len(TIMES))] == TIMES
    assert run(storage, "objPull", settings, **PULL)["status"] is True
    restored = [(tmp_path / "out" / f"{number}").stat().st_mtime_ns for number in range(len(TIMES))]
    assert restored == TIMES


def test_an_object_without_a_time_gets_the_time_of_its_upload(swift_storage: Storage, tmp_path: Path) -> None:
    swift_storage.put("s/a", io.BytesIO(b"x"), 1)
    before = time.time()
    run(swift_storage, "objPull", **PULL)
    assert before - 5 < (tmp_path / "out" / "a").stat().st_mtime < time.time() + 5


# disk space


def test_a_full_disk_stops_a_pull_before_it_begins(storage: Storage, tmp_path: Path) -> None:
    for name in "abc":  # of no zeros: those may take no room
        storage.put(f"s/{name}", io.BytesIO(b"x" * 300_000), 300_000)
    with mounted(tmp_path / "disk", "tmpfs", "-o", "size=700k") as disk:
        reply = run(storage, "objPull", fromLocation="s", mapLocationOver=str(disk / "deep" / "er"))
        assert reply["error"]["type"] == "FullDiskError"
        assert "has room for 716800 bytes, and the pull needs 900000" in reply["msg"]
        assert not list(disk.iterdir())
        assert run(storage, "objPull", path="s/a", fromLocation="s", mapLocationOver=str(disk))["status"]
        again = run(storage, "objPull", fromLocation="s", mapLocationOver=str(disk))
        assert "the pull needs 600000" in again["msg"]


def test_only_growth_needs_disk_space(storage: Storage, tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(30)]
    with mounted(tmp_path / "disk", "tmpfs", "-o", "size=800k") as disk:
        meta: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": str(disk)}
        for size in (20_000, 20_400):
            for name in names:
                storage.put(f"s/{name}", io.BytesIO(b"x" * size), size)
            assert run(storage, "objPull", {"workers": 1}, **meta)["status"] is True
        for name in names:
            storage.put(f"s/{name}", io.BytesIO(b"x" * 40_000), 40_000)
        assert run(storage, "objPull", **meta)["error"]["type"] == "FullDiskError"
        assert moved(run(storage, "objPull", **meta, overwrite="never")) == (True, 0, 30)


def test_names_that_no_store_or_disk_takes_fail_alone(swift_storage: Storage, tmp_path: Path) -> None:
    deep = "/".join(["d" * 200] * 6)
    write_tree(tmp_path / "data", {deep: b"x", "good": b"x"})
    (tmp_path / "data" / os.fsdecode(b"\xff")).write_bytes(b"x")
    reply = run(swift_storage, "objPut", **PUT)
    assert reply["objectFileList"] == ["s/good"]
    assert ["1024 bytes" in row["msg"] or "not valid Unicode" in row["msg"] for row in reply["failed"]] == [
        True,
        True,
    ]
    swift_storage.put("s/" + "n" * 256, io.BytesIO(b"x"), 1)
    swift_storage.put("s/" + "n" * 255, io.BytesIO(b"x"), 1)
    pulled = run(swift_storage, "objPull", **PULL)
    assert [row["object"] for row in pulled["failed"]] == ["s/" + "n" * 256]
    assert read_tree(tmp_path / "out") == {"good": b"x", "n" * 255: b"x"}


# durable


@pytest.mark.parametrize(("durable", "synced"), [("none", 0), ("file", 3)])
def test_each_file_is_brought_to_the_disk_where_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: str, synced: int
) -> None:
    found: list[str] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    with open_storage(type="memory", durable=durable) as storage:
        for key in ("s/a", "s/b", "s/c"):
            storage.put(key, io.BytesIO(b"new"), 3)
        monkeypatch.setattr("os.fsync", counted)
        assert moved(run(storage, "objPull", **PULL)) == (True, 9, 0)
    assert len([name for name in found if "/.pfstorage-" in name]) == synced


@pytest.mark.parametrize("durable", ["none", "file", "batch"])
def test_durable_pulls_write_the_same_tree(tmp_path: Path, durable: str) -> None:
    tree = {f"{number % 7}/{number}": b"x" * number for number in range(2 * BATCH_SIZE + 20)}
    write_tree(tmp_path / "data", tree)
    with open_storage(type="memory") as storage:
        run(storage, "objPut", **PUT)
        reply = run(storage, "objPull", {"durable": durable}, **PULL)
        assert moved(reply) == (True, sum(map(len, tree.values())), 0)
        assert sorted(reply["objectFileList"]) == sorted(f"s/{name}" for name in tree)
        assert read_tree(tmp_path / "out") == tree
        assert [name for number in range(7) for name in parts_in(f"out/{number}")] == []
        assert (
            run(storage, "objPull", {"durable": durable}, **PULL)["skipped"] == len(tree) - 1
        )  # one is empty


@pytest.mark.parametrize("durable", ["none", "file", "batch"])
def test_a_name_that_is_taken_by_a_directory_fails_alone(tmp_path: Path, durable: str) -> None:
    names = [f"{number:03}" for number in range(BATCH_SIZE + 50)]
    write_tree(tmp_path / "data", dict.fromkeys(names, b"x"))
    for name in names[::3]:
        (tmp_path / "out" / name / "full").mkdir(parents=True)
    with open_storage(type="memory") as storage:
        run(storage, "objPut", **PUT)
        reply = run(storage, "objPull", {"durable": durable}, **PULL)
    assert [row["object"] for row in reply["failed"]] == [f"s/{name}" for name in names[::3]]
    done = [name for name in names if name not in names[::3]]
    assert reply["objectFileList"] == [f"s/{name}" for name in done]
    assert sorted(read_tree(tmp_path / "out")) == done
    assert parts_in("out") == []


# bwLimit


@pytest.mark.parametrize("action", ["objPut", "objPull"])
@pytest.mark.parametrize("files", [1, 30])
def test_no_more_than_so_many_bytes_a_second_are_moved(
    storage: Storage, tmp_path: Path, action: str, files: int
) -> None:
    size = 3_000_000 // files
    write_tree(tmp_path / "data", {f"{number}": b"x" * size for number in range(files)})
    if action == "objPull":
        run(storage, "objPut", **PUT)
    started = time.monotonic()
    reply = run(storage, action, {"bwLimit": "2M"}, **(PUT if action == "objPut" else PULL))
    assert moved(reply) == (True, size * files, 0)
    assert time.monotonic() - started >= 1.0


def test_all_messages_share_the_limit(data: Path) -> None:
    write_tree(data, {"large": b"x" * 1_000_000})
    handler = StoreHandler(MemoryStorage())
    handler.state.set("/this/bwLimit", 1_000_000)
    started = time.monotonic()
    for location in ("s", "t"):
        handler.run({"action": "objPut", "meta": {**PUT, "inLocation": location}})
    assert time.monotonic() - started >= 1.5


def test_an_empty_listing_is_not_a_failure(data: Path) -> None:
    """A large cluster lists new objects after some time."""

    class Lagging(MemoryStorage):
        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            return iter(())

    storage = Lagging()
    for _ in range(2):
        assert moved(run(storage, "objPut", **PUT)) == (True, SIZE, 0)
    assert moved(run(storage, "objPut", **PUT, overwrite="never")) == (True, 0, len(TREE))
