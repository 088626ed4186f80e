"""Roots: messages reach local files below the allowed directories, and no others."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler
from pfstorage.actions import RequestContext
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.errors import ForbiddenError, LocalFileError, SettingsError
from pfstorage.local import AllowedRoots, LocalAccess, LocalFile, find_files, open_body
from tests.conftest import read_tree, write_tree
from tests.support.local import Answer, answers_below, descriptors, everything, mounted

FILES = {
    "root/data/a": b"a",
    "root/data/d/b": b"b",
    "second/data/c": b"c",
    "outside/a": b"precious",
    "outside/d/b": b"precious",
    "root2/a": b"precious",
}
LINKS = {
    "root/out": "../outside",
    "root/out-absolute": "{tmp}/outside",
    "root/out-file": "../outside/a",
    "root/chain": "./out",
    "root/nowhere": "../missing",
    "root/up": "data/../../outside",
    "root/magic": "/proc/self/root/{tmp}/outside",
    "root/data/inside": "d/../a",
    "root/elsewhere": "{tmp}/second/data",
    "root/again": "data/d/..",
    "root/circle": "circle",
    "named": "root",
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with two roots and something outside of them, which is not the current directory."""
    site = write_tree(tmp_path / "site", FILES)
    for link, target in LINKS.items():
        (site / link).symlink_to(target.format(tmp=site))
    return site


@pytest.fixture
def answer(site: Path, small_storage: Storage) -> Answer:
    """Return a function that answers a message, which may name files below the roots."""
    return answers_below(AllowedRoots([str(site / "root"), str(site / "second")]), small_storage)


def objects(storage: Storage) -> dict[str, bytes]:
    def content(key: str) -> bytes:
        storage.get(key, sink := io.BytesIO())
        return sink.getvalue()

    return {row.key: content(row.key) for row in storage.list()}


HOSTILE = (
    "../outside",
    "../missing",
    "..",
    "data/../../outside",
    "data/..",
    "./../outside/a",
    "{tmp}/outside",
    "{tmp}/missing",
    "{tmp}/root2",
    "{tmp}/root/../outside",
    "{tmp}",
    "//{tmp}/outside",
    "/",
    "/etc/passwd",
    "/proc/self/root",
    "/proc/self/cwd",
    "/dev/stdin",
    "data\0",
    "\0",
    "out",
    "out/a",
    "out/.",
    "out-absolute/d",
    "out-file",
    "chain",
    "nowhere",
    "nowhere/deep",
    "up/a",
    "magic",
    "{tmp}/root/out/a",
    "{tmp}/named/out",
)
MESSAGES: dict[str, Callable[[str], dict[str, Any]]] = {
    "push": lambda path: {"action": "objPush", "meta": {"putSpec": path, "inLocation": "new"}},
    "push, following": lambda path: {
        "action": "objPush",
        "meta": {"putSpec": path, "inLocation": "new", "followSymlinks": True},
    },
    "push a file": lambda path: {"action": "objPut", "meta": {"file": path, "inLocation": "new"}},
    "push a list": lambda path: {"action": "objPut", "meta": {"fileList": [path], "inLocation": "new"}},
    "push by another name": lambda path: {"action": "objPut", "args": {"localpath": path}},
    "pull": lambda path: {"action": "objPull", "meta": {"fromLocation": "s", "mapLocationOver": path}},
    "pull one": lambda path: {"action": "objPull", "meta": {"fromLocation": "s/a", "mapLocationOver": path}},
    "pull by another name": lambda path: {
        "action": "objPull",
        "meta": {"fromLocation": "s", "toLocation": path},
    },
    "dry run": lambda path: {
        "action": "objPull",
        "meta": {"fromLocation": "s", "mapLocationOver": path, "dryRun": True},
    },
    "verify": lambda path: {"action": "objVerify", "meta": {"fromLocation": "s", "mapLocationOver": path}},
}


@pytest.mark.parametrize("kind", MESSAGES)
@pytest.mark.parametrize("spelling", HOSTILE)
def test_a_path_out_of_the_roots_is_refused(
    site: Path, small_storage: Storage, spelling: str, kind: str
) -> None:
    path = spelling.format(tmp=site)
    before = everything(site), objects(small_storage)
    context = RequestContext(roots=AllowedRoots([str(site / "root"), str(site / "second")]))
    reply = StoreHandler(small_storage).run(MESSAGES[kind](path), context)
    assert (reply["status"], reply["error"]["type"]) == (False, "ForbiddenError")
    assert repr(path) in reply["msg"]
    assert "--fsRoot" in reply["msg"]
    assert (everything(site), objects(small_storage)) == before


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_refusal_does_not_reveal_whether_a_file_exists(
    site: Path, small_storage: Storage, kind: str
) -> None:
    context = RequestContext(roots=AllowedRoots([str(site / "root")]))
    replies = []
    for path in (
        f"{site}/outside",
        f"{site}/outside/a",
        f"{site}/missing",
        f"{site}/outside/a/b",
        "out",
        "nowhere",
    ):
        reply = StoreHandler(small_storage).run(MESSAGES[kind](path), context)
        reply |= {"localpath": "", "seconds": 0}  # as it is spelled, and as fast as it goes
        replies.append(repr(reply).replace(path, "PATH"))
    assert len(set(replies)) == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    {
        "data": {"a": b"a", "d/b": b"b", "inside": b"a"},
        "./data//.": {"a": b"a", "d/b": b"b", "inside": b"a"},
        "{tmp}/root/data/": {"a": b"a", "d/b": b"b", "inside": b"a"},
        "{tmp}/named/data": {"a": b"a", "d/b": b"b", "inside": b"a"},
        "{tmp}/second": {"data/c": b"c"},
        "{tmp}/second/data": {"c": b"c"},
        "elsewhere": {"c": b"c"},
        "again": {"a": b"a", "d/b": b"b", "inside": b"a"},
        "data/inside": {"": b"a"},
    }.items(),
)
def test_files_below_a_root_are_stored(
    site: Path, small_storage: Storage, path: str, expected: dict[str, bytes]
) -> None:
    path = path.format(tmp=site)
    context = RequestContext(roots=AllowedRoots([str(site / "named"), str(site / "second")]))
    meta = {"putSpec": path, "inLocation": "new", "mapLocationOver": path, "audit": True}
    if list(expected) == [""]:
        meta["inLocation"] = "new/"
        meta["mapLocationOver"] = os.path.dirname(path)
        expected = {os.path.basename(path): b"a"}
    reply = StoreHandler(small_storage).run({"action": "objPush", "meta": meta}, context)
    assert reply["status"] is True, reply
    assert reply["localFileList"] == sorted(os.path.join(meta["mapLocationOver"], rest) for rest in expected)
    stored = {key[4:]: content for key, content in objects(small_storage).items() if key.startswith("new/")}
    assert stored == expected


@pytest.mark.parametrize(
    ("over", "place"),
    {
        "data": "root/data",
        "new/deep": "root/new/deep",
        "{tmp}/second/new/": "second/new",
        "elsewhere/new": "second/data/new",
        "again": "root/data",
        ".": "root",
    }.items(),
)
def test_objects_go_below_a_root_and_are_found_there(
    site: Path, answer: Answer, over: str, place: str
) -> None:
    over = over.format(tmp=site)
    meta = {"fromLocation": "s", "mapLocationOver": over}
    reply = answer("objPull", **meta, audit=True)
    assert reply["status"] is True, reply
    assert reply["localFileList"] == [os.path.join(over, rest) for rest in ("a", "d/b")]
    assert reply["localpath"] == over
    assert reply["currentWorkingDir"] == str(site / "root")
    assert {name: (site / place / name).read_bytes() for name in ("a", "d/b")} == {"a": b"new", "d/b": b"new"}
    assert answer("objPull", **meta)["skipped"] == 2
    verified = answer("objVerify", **meta)
    assert (verified["status"], verified["same"]) == (True, 2)
    assert {"outside/a", "outside/d/b"} <= everything(site).keys()
    assert (site / "outside" / "a").read_bytes() == b"precious"


def test_one_object_becomes_the_file_it_is_mapped_to(site: Path, answer: Answer) -> None:
    meta = {"fromLocation": "s/a", "mapLocationOver": "data/inside"}
    assert answer("objPull", **meta)["localFileList"] == ["data/inside"]
    assert not (
        site / "root/data/inside"
    ).is_symlink()  # the pull replaces the link, and not the target of the link
    assert (site / "root/data/a").read_bytes() == b"a"
    assert answer("objVerify", **meta)["same"] == 1


@pytest.mark.parametrize("overwrite", ["changed", "always", "never"])
def test_a_root_is_no_file_to_write(site: Path, answer: Answer, overwrite: str) -> None:
    before = everything(site)
    reply = answer("objPull", fromLocation="s/a", mapLocationOver=str(site / "second"), overwrite=overwrite)
    assert (reply["status"], reply["error"]["type"]) == (False, "LocalFileError")
    assert "directory" in reply["msg"]
    assert everything(site) == before


def test_without_a_mapping_objects_go_below_the_first_root(
    site: Path, answer: Answer, tmp_path: Path
) -> None:
    reply = answer("objPull", fromLocation="s")
    assert reply["localFileList"] == [f"{site}/root/s/a", f"{site}/root/s/d/b"]
    assert (reply["localpath"], reply["currentWorkingDir"]) == (f"{site}/root/s", f"{site}/root")
    assert read_tree(site / "root/s") == {"a": b"new", "d/b": b"new"}
    (site / "root/s/more").touch()
    assert answer("objVerify", fromLocation="s")["extra"] == [f"{site}/root/s/more"]
    assert os.listdir(tmp_path) == ["site"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_tree_is_stored_without_the_targets_of_links_to_the_outside(
    site: Path, small_storage: Storage, answer: Answer, follow: bool
) -> None:
    reply = answer("objPush", putSpec=".", inLocation="new", followSymlinks=follow)
    names = {"data/a", "data/d/b", "data/inside"}
    if follow:
        names |= {f"again/{name.removeprefix('data/')}" for name in names} | {"elsewhere/c"}
    assert {key for key in objects(small_storage) if key.startswith("new/")} == {
        f"new/{name}" for name in names
    }
    assert b"precious" not in objects(small_storage).values()
    out = [
        text for text in reply["warnings"] if "leads out of the directories that messages may name" in text
    ]
    assert [text.split("'")[1] for text in out] == [
        f"./{name}" for name in ("chain", "magic", "nowhere", "out", "out-absolute", "out-file", "up")
    ]
    assert any(
        "'./circle' was left out: Too many levels of symbolic links" in text for text in reply["warnings"]
    )


def test_files_of_a_list_are_judged_one_by_one(site: Path, small_storage: Storage, answer: Answer) -> None:
    names = [
        "data/a",
        "out-file",
        "data/d/b",
        "out/a",
        "data/missing",
        "circle",
        "",
        "data/inside",
        "elsewhere/c",
    ]
    reply = answer("objPush", fileList=names, inLocation="new")
    assert reply["localFileList"] == ["data/a", "data/d/b", "data/inside", "elsewhere/c"]
    assert {item["local"] for item in reply["failed"]} == {"out-file", "out/a", "data/missing", "circle", ""}
    assert b"precious" not in objects(small_storage).values()


def test_directories_with_one_name_in_two_roots_are_distinguished(
    site: Path, small_storage: Storage, answer: Answer
) -> None:
    names = ["data/a", f"{site}/second/data/c", f"{site}/root/data/a", "data/d/b"]
    reply = answer("objPush", fileList=names, inLocation="new")
    assert reply["localFileList"] == names
    (site / "root/data/other").symlink_to(site / "second/data/c")
    reply = answer("objPush", putSpec="data", inLocation="tree")
    assert "tree/data/other" not in objects(small_storage)
    assert reply["warnings"] == ["'data/other' was left out: it is a link that leads out of the tree"]


def test_surplus_files_below_a_root_are_extra(answer: Answer) -> None:
    verified = answer("objVerify", fromLocation="s", mapLocationOver="data")
    assert (verified["changed"], verified["extra"]) == (["s/a", "s/d/b"], ["data/inside"])


def test_the_room_is_that_where_the_objects_go(site: Path, small_storage: Storage, answer: Answer) -> None:
    small_storage.put("large/a", io.BytesIO(bytes(2_000_000)), 2_000_000)
    with mounted(site / "root/disk", "tmpfs", "-o", "size=1m"):
        reply = answer("objPull", fromLocation="large", mapLocationOver="disk/new")
        assert reply["error"]["type"] == "FullDiskError"
        assert "has room for 1048576 bytes" in reply["msg"]
        assert os.listdir(site / "root/disk") == []


def test_an_audit_reads_late_files_of_a_listing_below_the_root(site: Path) -> None:
    class Late(MemoryStorage):
        calls = 0

        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            self.calls += 1
            return super().list(prefix, **options) if self.calls > 2 else iter(())

    meta = {"putSpec": "data", "inLocation": "new", "audit": True}
    with Late() as storage:
        context = RequestContext(roots=AllowedRoots([str(site / "root")]))
        reply = StoreHandler(storage).run({"action": "objPush", "meta": meta}, context)
    assert reply["audit"] == {"status": True, "same": 3, "changed": [], "missing": []}


def test_a_marker_becomes_the_directory_it_is_mapped_to(
    site: Path, small_storage: Storage, answer: Answer
) -> None:
    small_storage.put("m/", io.BytesIO(), 0)
    meta = {"fromLocation": "m", "mapLocationOver": "data/made"}
    assert answer("objVerify", **meta)["missing"] == ["m/"]
    assert answer("objPull", **meta)["status"] is True
    assert (site / "root/data/made").is_dir()
    assert answer("objVerify", **meta)["same"] == 1


# changes during a transfer


def swap(site: Path, name: str) -> None:
    """Replace the directory or file *name* of the first root by a link to the outside."""
    path = site / "root" / name
    path.rename(site / "root" / "moved")
    path.symlink_to(site / "outside" / Path(name).relative_to("data"))


@pytest.mark.parametrize("name", ["data/d", "data/a"])
def test_a_file_replaced_by_a_link_after_it_was_found_is_not_read(site: Path, name: str) -> None:
    found = list(find_files("data", warn=print, local_access=LocalAccess(AllowedRoots([str(site / "root")]))))
    swap(site, name)
    read = []
    for file in found:
        assert isinstance(file, LocalFile)
        try:
            with open_body(*file.resolved) as (body, _):
                read.append(body.read())
        except LocalFileError:
            pass
    assert b"precious" not in read
    assert read


@pytest.mark.parametrize("follow", [False, True])
def test_a_file_replaced_by_a_link_before_the_walk_reaches_it_is_left_out(site: Path, follow: bool) -> None:
    local_access, warnings = LocalAccess(AllowedRoots([str(site / "root")])), list[str]()
    files = find_files("data", follow_symlinks=follow, warn=warnings.append, local_access=local_access)
    first = next(files)
    swap(site, "data/d")
    found = [first, *files]
    assert [file.rest for file in found if isinstance(file, LocalFile)] == ["a"]
    assert [text.split("'")[1] for text in warnings] == ["data/d", "data/inside"]


def test_a_target_replaced_by_a_link_after_it_was_resolved_is_not_written_to(site: Path) -> None:
    local_access = LocalAccess(AllowedRoots([str(site / "root")]))
    tree, parts = local_access.directory("data/d")
    swap(site, "data/d")
    with pytest.raises(NotADirectoryError), tree.atomic_file((*parts, "b")):
        pass
    assert read_tree(site / "outside") == {"a": b"precious", "d/b": b"precious"}


def test_a_root_stays_the_directory_that_it_was_when_the_server_started(
    site: Path, answer: Answer, small_storage: Storage
) -> None:
    (site / "root").rename(site / "moved")
    (site / "root").symlink_to("outside")
    assert answer("objPull", fromLocation="s", mapLocationOver="new")["status"] is True
    assert read_tree(site / "moved/new") == {"a": b"new", "d/b": b"new"}
    answer("objPush", putSpec=".", inLocation="pushed")
    assert objects(small_storage)["pushed/data/a"] == b"a"
    assert read_tree(site / "outside") == {"a": b"precious", "d/b": b"precious"}


EXCHANGE = """
import ctypes, os, random, sys, time
libc, turns = ctypes.CDLL(None), 0
while not os.path.exists("stop"):
    if libc.renameat2(-100, b"data", -100, b"link", 2):  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)
        sys.exit("two names can't be exchanged here")
    turns += 1
    time.sleep(random.random() * 0.004)
print(turns)
"""


@pytest.fixture
def swapping(site: Path) -> Iterator[None]:
    """Keep replacing ``data`` of the first root: by a link to the outside, and by a directory."""
    (site / "root/link").symlink_to("../outside")
    command = [sys.executable, "-c", EXCHANGE]
    with subprocess.Popen(command, cwd=site / "root", stdout=subprocess.PIPE) as process:
        while process.poll() is None and not (site / "root/data").is_symlink():
            pass
        yield
        (site / "root/stop").touch()
        assert process.stdout is not None
        assert int(process.stdout.read()) > 5


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("kind", ["tree", "following", "list", "whole root"])
def test_nothing_from_outside_is_stored_while_links_come_and_go(
    site: Path, small_storage: Storage, answer: Answer, kind: str
) -> None:
    meta: dict[str, Any] = {
        "tree": {"putSpec": "data"},
        "following": {"putSpec": "data", "followSymlinks": True},
        "list": {"fileList": ["data/a", "data/d/b"]},
        "whole root": {"putSpec": ".", "followSymlinks": True},
    }[kind]
    for _ in range(400):
        answer("objPush", **meta, inLocation="new", overwrite="always")
        assert b"precious" not in objects(small_storage).values()
    assert any(key.startswith("new/") for key in objects(small_storage))


@pytest.mark.usefixtures("swapping")
@pytest.mark.parametrize("over", ["data", "data/d", "data/new"])
def test_nothing_outside_changes_while_links_come_and_go(site: Path, answer: Answer, over: str) -> None:
    done = 0
    for _ in range(400):
        reply = answer("objPull", fromLocation="s", mapLocationOver=over, overwrite="always")
        done += len(reply.get("localFileList", ()))
        assert read_tree(site / "outside") == {"a": b"precious", "d/b": b"precious"}
    assert done


# the roots themselves


def test_a_message_leaves_no_descriptor_open(site: Path, answer: Answer) -> None:
    before = descriptors(site)
    answer("objPush", putSpec=".", inLocation="new", followSymlinks=True)
    answer("objPull", fromLocation="s", mapLocationOver="new")
    answer("objVerify", fromLocation="s", mapLocationOver="new")
    assert descriptors(site) == before


def test_roots_may_be_nested(site: Path) -> None:
    (site / "root/data/up").symlink_to("../again")
    local_access = LocalAccess(AllowedRoots([str(site / "root/data"), str(site / "root")]))
    assert local_access.resolve(f"{site}/root/again/a").parts == ("data", "a")
    with open_body(*local_access.resolve("up/a")) as (body, _):
        assert body.read() == b"a"


def test_all_files_may_be_allowed(site: Path) -> None:
    with open_body(*LocalAccess(AllowedRoots(["/"])).resolve(f"{site}/root/out/a")) as (body, _):
        assert body.read() == b"precious"


@pytest.mark.parametrize("directories", [[], [""], ["missing"], ["a\0"], ["file"]])
def test_roots_are_directories_that_are_there(tmp_path: Path, directories: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="--fsRoot"):
        AllowedRoots(directories)


def test_a_path_that_the_system_cannot_spell_is_an_error(site: Path) -> None:
    with pytest.raises(LocalFileError):
        LocalAccess(AllowedRoots([str(site)])).resolve("\ud800")
    with pytest.raises(LocalFileError, match="Too many levels"):
        LocalAccess(AllowedRoots([str(site)])).resolve("root/circle/a")
    with pytest.raises(ForbiddenError) as raised:
        LocalAccess(AllowedRoots([str(site)])).resolve("../a")
    assert raised.value.facts["local"] == "../a"


def test_without_roots_all_files_are_allowed(site: Path, small_storage: Storage) -> None:
    reply = StoreHandler(small_storage).run(
        {"action": "objPush", "meta": {"putSpec": str(site / "root" / "out"), "inLocation": "new"}}
    )
    assert reply["status"] is True
    assert list(objects(small_storage).values()).count(b"precious") == 2


@pytest.mark.parametrize("action", ["objPull", "objPut", "objVerify"])
def test_a_path_that_the_system_does_not_take_is_not_walked_step_by_step(
    action: str, site: Path, small_storage: Storage
) -> None:
    before = sorted(site.rglob("*"))
    run = answers_below(AllowedRoots((str(site / "root"),)), small_storage)
    key = next(small_storage.list()).key
    meta: dict[str, dict[str, Any]] = {
        "objPull": {"fileList": [{"from": key, "to": "d/" * 2047 + "xx"}]},
        "objPut": {"putSpec": "d/" * 8000, "inLocation": "a"},
        "objVerify": {"fromLocation": "", "mapLocationOver": "d/" * 8000},
    }

    reply = run(action, **meta[action])

    assert "File name too long" in reply["msg"]
    assert reply["error"]["type"] == "LocalFileError"
    assert sorted(site.rglob("*")) == before


def test_the_longest_path_that_the_system_takes_is_pulled_to(site: Path, small_storage: Storage) -> None:
    run = answers_below(AllowedRoots((str(site / "root"),)), small_storage)
    key = next(small_storage.list()).key
    longest = f"{'d' * 200}/" * 20 + "x" * 75  # of few levels: more of them are hard to remove
    assert len(longest) == 4095
    assert run("objPull", fileList=[{"from": key, "to": longest}])["status"]
