"""objPut and objPull: keys and paths, failures, and replies."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import swiftclient

from pfstorage import StoreHandler
from pfstorage.actions import ActionContext, RequestContext
from pfstorage.actions.options import MoveMeta, transfer_reply
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.memory import MemoryStorage
from pfstorage.devswift import DevSwift
from pfstorage.errors import LocalFileError, PermissionDeniedError, PfstorageError, UnavailableError
from pfstorage.local import AllowedRoots
from pfstorage.settings.loading import load_settings
from pfstorage.transfer import Failure, TransferReport
from tests.conftest import ROOT, read_tree, write_tree
from tests.support.objects import keys, put_raw

TREE = {
    "a.dcm": b"a" * 1000,
    "sub/b.dcm": b"b",
    "sub/deep/ü ber#?%&,.txt": b"c" * 70_000,
    "empty": b"",
    "new\nline": b"d",
}


def run(storage: Storage, action: str, **meta: Any) -> dict[str, Any]:
    return StoreHandler(storage).run({"action": action, "meta": meta})


def put(storage: Storage, *keys: str) -> None:
    for key in keys:
        storage.put(key, io.BytesIO(key.encode()), len(key.encode()))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "data", TREE)


def test_push_then_pull_is_the_identity(storage: Storage, data: Path, tmp_path: Path) -> None:
    pushed = run(storage, "objPut", putSpec="./data", inLocation="storage", mapLocationOver="./data")
    assert pushed["status"] is True
    assert pushed["localpath"] == "./data"
    assert sorted(pushed["localFileList"]) == sorted(f"./data/{name}" for name in TREE)
    assert (
        sorted(pushed["objectFileList"])
        == sorted(f"storage/{name}" for name in TREE)
        == sorted(keys(storage))
    )
    assert (pushed["bytes"], pushed["skipped"], pushed["failed"]) == (sum(map(len, TREE.values())), 0, [])
    pulled = run(storage, "objPull", fromLocation="storage", mapLocationOver="./back")
    assert pulled["status"] is True
    assert pulled["localpath"] == "./back"
    assert pulled["currentWorkingDir"] == str(tmp_path)
    assert read_tree(tmp_path / "back") == TREE


@pytest.mark.parametrize("spec", ["./data", "data", "data/", "././data//"])
@pytest.mark.parametrize("over", ["./data", "data", "data/", "{cwd}/data"])
def test_the_spelling_of_a_directory_does_not_matter(
    storage: Storage, data: Path, tmp_path: Path, spec: str, over: str
) -> None:
    reply = run(storage, "objPut", putSpec=spec, inLocation="s", mapLocationOver=over.format(cwd=tmp_path))
    assert sorted(reply["objectFileList"]) == sorted(f"s/{name}" for name in TREE)


@pytest.mark.parametrize(
    ("meta", "key"),
    [
        ({"putSpec": "data/a.dcm", "inLocation": "s", "mapLocationOver": "data"}, "s/a.dcm"),
        ({"putSpec": "data/a.dcm", "inLocation": "s/new.dcm", "mapLocationOver": "data/a.dcm"}, "s/new.dcm"),
        ({"putSpec": "data/a.dcm", "inLocation": "s"}, "s/data/a.dcm"),
        ({"putSpec": "./data/a.dcm", "inLocation": "s/"}, "s/data/a.dcm"),
        ({"putSpec": "data/a.dcm", "mapLocationOver": "data"}, "a.dcm"),
        ({"putSpec": "data/a.dcm"}, "data/a.dcm"),
        ({"file": "data/a.dcm", "inLocation": "s", "mapLocationOver": "data"}, "s/a.dcm"),
        ({"fileList": ["data/a.dcm"], "inLocation": "./s", "mapLocationOver": "./data"}, "s/a.dcm"),
        ({"localpath": "data/a.dcm", "toLocation": "s", "mapLocationOver": "data"}, "s/a.dcm"),
        ({"putSpec": "data/a.dcm", "inLocation": "/s", "mapLocationOver": "data"}, "s/a.dcm"),
        (
            {
                "putSpec": "data/a.dcm",
                "inLocation": "s",
                "mapLocationOver": "data",
                "prependBucketPath": "chris",
            },
            "chris/s/a.dcm",
        ),
    ],
)
def test_a_path_is_mapped_by_whole_leading_components(
    swift_storage: Storage, data: Path, meta: dict[str, Any], key: str
) -> None:
    reply = run(swift_storage, "objPut", **meta)
    assert reply["objectFileList"] == [key] == keys(swift_storage)


def test_a_path_that_is_not_below_the_location_fails_and_the_others_go(storage: Storage, data: Path) -> None:
    meta = {"fileList": ["data/a.dcm", "data/sub/b.dcm"], "inLocation": "s", "mapLocationOver": "data/sub"}
    reply = run(storage, "objPut", **meta)
    assert reply["status"] is False
    assert reply["objectFileList"] == ["s/b.dcm"] == keys(storage)
    assert [row["local"] for row in reply["failed"]] == ["data/a.dcm"]
    assert "1 of 2 files failed" in reply["msg"]


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({}, "give putSpec, file or fileList"),
        ({"putSpec": "", "fileList": []}, "give putSpec, file or fileList"),
        ({"putSpec": "empty"}, "'empty' has no file to push"),
        ({"putSpec": "full", "include": ["*.dcm"]}, "'full' has no file that passes include and exclude"),
        ({"fileList": ["full/a"], "exclude": ["a"]}, "fileList has no file that passes include and exclude"),
    ],
)
def test_nothing_to_put_has_the_words_of_2_x_and_a_reason(
    storage: Storage, tmp_path: Path, meta: dict[str, Any], reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    write_tree(tmp_path / "full", {"a": b"a"})
    msg = f"No valid file list generated: {reason}"
    assert run(storage, "objPut", **meta) == {"status": False, "msg": msg}


def test_a_directory_in_a_list_fails_alone(storage: Storage, data: Path) -> None:
    reply = run(storage, "objPut", fileList=["data/sub", "data/a.dcm"], inLocation="s")
    assert reply["objectFileList"] == ["s/data/a.dcm"]
    [failed] = reply["failed"]
    assert failed["msg"] == "'data/sub' is a directory: push it by putSpec, or name its files"
    assert failed["object"] == "s/data/sub"


def test_a_path_above_the_current_directory_needs_a_mapping(
    storage: Storage, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data / "sub")
    reply = run(storage, "objPut", putSpec="../a.dcm", inLocation="s")
    assert "'../a.dcm' is above the current directory: give mapLocationOver" in reply["msg"]
    reply = run(storage, "objPut", putSpec="../a.dcm", inLocation="s", mapLocationOver="..")
    assert reply["objectFileList"] == ["s/a.dcm"]


def test_a_missing_directory_is_named(storage: Storage) -> None:
    reply = run(storage, "objPut", putSpec="./nothing", inLocation="s")
    assert reply["status"] is False
    assert reply["msg"] == "No valid file list generated: './nothing': No such file or directory"
    assert reply["error"] == {"type": "LocalFileError", "local": "./nothing"}


def test_a_vanished_file_fails_alone(storage: Storage, data: Path) -> None:
    reply = run(
        storage, "objPut", fileList=["data/gone", "data/a.dcm"], inLocation="s", mapLocationOver="data"
    )
    assert reply["objectFileList"] == ["s/a.dcm"]
    assert reply["failed"] == [
        {"object": "s/gone", "local": "data/gone", "msg": "'data/gone': No such file or directory"}
    ]


def test_a_pipe_and_a_link_that_leads_out_are_left_out_with_a_warning(
    storage: Storage, data: Path, tmp_path: Path
) -> None:
    os.mkfifo(data / "pipe")
    (tmp_path / "secret").write_text("secret")
    (data / "out").symlink_to(tmp_path / "secret")
    (data / "broken").symlink_to("nowhere")
    (data / "inside").symlink_to("a.dcm")
    (data / "directory").symlink_to("sub")
    reply = run(storage, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
    assert reply["status"] is True
    assert sorted(reply["objectFileList"]) == sorted([*(f"s/{name}" for name in TREE), "s/inside"])
    assert len(reply["warnings"]) == 4
    assert all("was left out" in warning for warning in reply["warnings"])


def test_a_local_name_outside_unicode_fails_alone(storage: Storage, data: Path) -> None:
    (data / os.fsdecode(b"bad-\xff")).write_bytes(b"x")
    reply = run(storage, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
    assert len(reply["objectFileList"]) == len(TREE)
    assert "not valid Unicode" in reply["failed"][0]["msg"]


UNREADABLE = """
import json, os
from pfstorage import StoreHandler, open_storage
handler = StoreHandler(open_storage(type="memory"))
os.setegid(65534)
os.seteuid(65534)
print(json.dumps(handler.run({"action": "objPut", "meta": {"putSpec": "data", "mapLocationOver": "data"}})))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not read")
def test_unreadable_files_are_reported_and_the_rest_is_put(data: Path, tmp_path: Path) -> None:
    (data / "closed").mkdir()
    (data / "closed" / "file").write_bytes(b"x")
    (data / "closed").chmod(0)
    (data / "a.dcm").chmod(0)
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(0o755)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", UNREADABLE]
    reported = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=tmp_path, check=True)
    reply = json.loads(reported.stdout)
    assert reply["status"] is False
    assert len(reply["objectFileList"]) == len(TREE) - 1
    assert {row["local"] for row in reply["failed"]} == {"data/closed", "data/a.dcm"}


@pytest.fixture
def pacs(swift_storage: Storage) -> Storage:
    put(
        swift_storage,
        "chris/uploads/DICOM/0180.dcm",
        "chris/uploads/DICOM/0181.dcm",
        "chris/uploads/DICOM/0200.dcm",
        "chris/uploads/DICOM2/0182.dcm",
        "chris/uploads/other/0183.dcm",
    )
    return swift_storage


def test_the_documented_pull_selects_by_prefix_and_substring(pacs: Storage, tmp_path: Path) -> None:
    meta = {
        "path": "chris",
        "substr": "DICOM/018",
        "fromLocation": "chris/uploads/DICOM",
        "mapLocationOver": "./data",
    }
    reply = run(pacs, "objPull", **meta)
    assert reply["status"] is True
    assert reply["localFileList"] == ["./data/0180.dcm", "./data/0181.dcm"]
    assert reply["objectFileList"] == ["chris/uploads/DICOM/0180.dcm", "chris/uploads/DICOM/0181.dcm"]
    assert sorted(read_tree(tmp_path / "data")) == ["0180.dcm", "0181.dcm"]


def test_a_pull_without_a_path_takes_the_location_only(pacs: Storage) -> None:
    reply = run(pacs, "objPull", fromLocation="chris/uploads/DICOM", mapLocationOver="out")
    assert len(reply["objectFileList"]) == 3
    assert reply["failed"] == []


def test_a_selected_key_that_is_not_below_the_location_fails_and_the_others_come(pacs: Storage) -> None:
    meta = {"path": "chris/uploads/DICOM", "fromLocation": "chris/uploads/DICOM", "mapLocationOver": "out"}
    reply = run(pacs, "objPull", **meta)
    assert len(reply["objectFileList"]) == 3
    assert [row["object"] for row in reply["failed"]] == ["chris/uploads/DICOM2/0182.dcm"]


def test_without_a_target_keys_go_below_the_current_directory(pacs: Storage, tmp_path: Path) -> None:
    reply = run(pacs, "objPull", path="chris/uploads/other", fromLocation="chris/uploads")
    assert reply["localpath"] == f"{tmp_path}/chris/uploads"
    assert reply["localFileList"] == [f"{tmp_path}/chris/uploads/other/0183.dcm"]
    assert list(read_tree(tmp_path)) == ["chris/uploads/other/0183.dcm"]


def test_one_object_is_pulled_to_one_file(pacs: Storage, tmp_path: Path) -> None:
    key = "chris/uploads/DICOM/0180.dcm"
    reply = run(pacs, "objPull", path=key, fromLocation=key, mapLocationOver="./here/mine.dcm")
    assert reply["localFileList"] == ["./here/mine.dcm"]
    assert read_tree(tmp_path) == {"here/mine.dcm": key.encode()}


@pytest.mark.parametrize("more", [{}, {"path": "k/a.dcm"}, {"fileList": ["k/a.dcm"]}, {"audit": True}])
@pytest.mark.parametrize("over", ["here/", "./here//", "new/here/"])
def test_a_target_with_a_final_slash_is_a_directory(
    storage: Storage, tmp_path: Path, over: str, more: dict[str, Any]
) -> None:
    put(storage, "k/a.dcm", "k/b/a.dcm", "k/c")
    (tmp_path / "here").mkdir()
    meta = {"fromLocation": "k/a.dcm", "mapLocationOver": over, **more}
    for action in ("objPull", "objVerify"):
        assert run(storage, action, **meta)["status"] is True
    directory = over.rstrip("/")
    assert read_tree(tmp_path / directory) == {"a.dcm": b"k/a.dcm"}
    (tmp_path / directory / "more").write_bytes(b"x")
    assert run(storage, "objVerify", **meta)["missing"] == []
    # a location is mapped as without the slash
    run(storage, "objPull", fromLocation="k/b", mapLocationOver=over)
    assert (tmp_path / directory / "a.dcm").read_bytes() == b"k/b/a.dcm"


def test_the_dialect_of_pypx_pulls_too(pacs: Storage, tmp_path: Path) -> None:
    message = {"action": "objPull", "args": {"fromLocation": "chris/uploads/other", "toLocation": "./px"}}
    assert StoreHandler(pacs).run(message)["localFileList"] == ["./px/0183.dcm"]


def test_nothing_selected_is_status_false_and_says_so(pacs: Storage) -> None:
    reply = run(pacs, "objPull", fromLocation="nothing/here", mapLocationOver="out")
    assert (reply["status"], reply["localFileList"], reply["objectFileList"]) == (False, [], [])
    assert reply["msg"] == "no object is selected: none is below fromLocation 'nothing/here'"
    assert "error" not in reply


@pytest.mark.parametrize("action", ["objPull", "objVerify"])
@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"path": "nobody/"}, "none begins with path 'nobody/'"),
        ({"path": "a", "prependBucketPath": "x"}, "none begins with path 'x/a'"),
        ({"fromLocation": "chris", "include": ["*.txt"]}, "none is below fromLocation 'chris' that passes"),
        ({"substr": "zzz"}, "the store has none that passes substr, include and exclude"),
        ({"fileList": ["chris/g"], "exclude": ["*"]}, "fileList names none that passes"),
    ],
)
def test_nothing_selected_names_the_place(
    storage: Storage, action: str, meta: dict[str, Any], reason: str
) -> None:
    put(storage, "chris/g")
    reply = run(storage, action, mapLocationOver="out", **meta)
    assert reply["status"] is False
    assert reply["msg"].startswith(f"no object is selected: {reason}")


def test_a_marker_makes_a_directory(storage: Storage, tmp_path: Path) -> None:
    storage.put("s/empty/", io.BytesIO(b""), 0)
    storage.put("s/a", io.BytesIO(b"x"), 1)
    reply = run(storage, "objPull", fromLocation="s", mapLocationOver="out")
    assert reply["status"] is True
    assert (tmp_path / "out" / "empty").is_dir()
    assert read_tree(tmp_path / "out") == {"a": b"x"}


HOSTILE = ["t/../../escape", "t/./dot", "t//double", "t/" + "n" * 300, "t/..", "t/a/../../../b"]


def test_a_hostile_key_leads_nowhere_and_the_others_come(swift_storage: Storage, tmp_path: Path) -> None:
    """Swift stores such keys; a client that normalises its URLs can't, so they are put there raw."""
    put(swift_storage, "t/good")
    put_raw(swift_storage, HOSTILE)
    assert len(keys(swift_storage)) == len(HOSTILE) + 1
    target = tmp_path / "deep" / "target"
    reply = run(swift_storage, "objPull", fromLocation="t", mapLocationOver=str(target))
    assert reply["status"] is False
    assert reply["objectFileList"] == ["t/good"]
    assert sorted(row["object"] for row in reply["failed"]) == sorted(HOSTILE)
    assert read_tree(tmp_path) == {"deep/target/good": b"t/good"}


def test_a_link_in_the_target_is_not_followed(storage: Storage, tmp_path: Path) -> None:
    put(storage, "t/link/a", "t/b")
    (tmp_path / "outside").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "link").symlink_to(tmp_path / "outside")
    reply = run(storage, "objPull", fromLocation="t", mapLocationOver="target")
    assert reply["objectFileList"] == ["t/b"]
    assert "link" in reply["failed"][0]["msg"]
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_link_under_the_final_name_is_replaced_not_followed(storage: Storage, tmp_path: Path) -> None:
    put(storage, "t/a")
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "a").symlink_to(tmp_path / "precious")
    assert run(storage, "objPull", fromLocation="t", mapLocationOver="target")["status"] is True
    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert (tmp_path / "target" / "a").read_bytes() == b"t/a"


def test_keys_that_collide_on_disk_fail(swift_storage: Storage, tmp_path: Path) -> None:
    put(swift_storage, "t/a", "t/a/b", "t/c")
    reply = run(swift_storage, "objPull", fromLocation="t", mapLocationOver="out")
    assert len(reply["objectFileList"]) == 2
    assert "t/c" in reply["objectFileList"]
    [failed] = reply["failed"]
    assert failed["object"] == "t/a/b"
    assert "would be below 'a', which is a file" in failed["msg"]
    assert not list((tmp_path / "out").rglob("*.part"))


def test_unchanged_files_are_skipped(storage: Storage, data: Path, tmp_path: Path) -> None:
    meta = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
    run(storage, "objPut", **meta)
    (data / "a.dcm").write_bytes(b"A" * 1000)
    again = run(storage, "objPut", **meta)
    assert (again["status"], again["skipped"], again["bytes"]) == (True, len(TREE) - 2, 1000)  # empty ones go
    assert len(again["objectFileList"]) == len(TREE)
    run(storage, "objPull", fromLocation="s", mapLocationOver="out")
    (tmp_path / "out" / "empty").write_bytes(b"no longer")
    (tmp_path / "out" / "sub" / "b.dcm").unlink()
    pulled = run(storage, "objPull", fromLocation="s", mapLocationOver="out")
    assert (pulled["skipped"], pulled["bytes"]) == (len(TREE) - 2, 1)
    assert read_tree(tmp_path / "out") == read_tree(data)


def test_a_few_files_are_not_looked_for_among_millions(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(MemoryStorage):
        listed = 0

        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            for row in super().list(prefix, **options):
                self.listed += 1
                yield row

    monkeypatch.setattr("pfstorage.actions.known.LOOK_AHEAD", 20)
    storage = Counted()
    put(storage, "a", *(f"b/{number:04}" for number in range(500)), "z")
    write_tree(data, {"only/a": b"a", "only/z": b"z"})
    reply = run(storage, "objPut", putSpec="data/only", mapLocationOver="data/only")
    assert (reply["status"], reply["skipped"], len(reply["objectFileList"])) == (True, 1, 2)
    assert storage.listed <= 41


def test_files_that_the_umask_would_make_are_made(storage: Storage, tmp_path: Path) -> None:
    put(storage, "t/a")
    run(storage, "objPull", fromLocation="t", mapLocationOver="out")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "out" / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_target_that_is_a_file_fails_each_and_loses_nothing(storage: Storage, tmp_path: Path) -> None:
    put(storage, "t/a", "t/b")
    (tmp_path / "target").write_bytes(b"precious")
    reply = run(storage, "objPull", fromLocation="t", mapLocationOver="target")
    assert (reply["status"], reply["objectFileList"]) == (False, [])
    assert len(reply["failed"]) == 2
    assert (tmp_path / "target").read_bytes() == b"precious"


def test_a_full_disk_is_said_to_be_full_and_leaves_nothing_partial(storage: Storage, tmp_path: Path) -> None:
    """The disk is a file system of 1 MiB, where the system lets one be mounted."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mount.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        storage.put("t/a", io.BytesIO(b"a" * 400_000), 400_000)
        storage.put("t/b", io.BytesIO(b"b" * 4_000_000), 4_000_000)
        storage.put("t/c", io.BytesIO(b"c"), 1)
        reply = run(storage, "objPull", fromLocation="t", mapLocationOver=str(disk))
        assert reply["error"]["type"] == "FullDiskError"
        assert "has room for 1048576 bytes, and the pull needs 4400001" in reply["msg"]
        assert read_tree(disk) == {}
    finally:
        subprocess.run(["umount", disk], check=True)


def test_two_pulls_into_one_directory_do_not_disturb_each_other(storage: Storage, tmp_path: Path) -> None:
    put(storage, *(f"t/{number}" for number in range(50)))
    replies: list[dict[str, Any]] = []

    def pull() -> None:
        replies.append(run(storage, "objPull", fromLocation="t", mapLocationOver=str(tmp_path / "out")))

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reply["status"] for reply in replies] == [True] * 4
    assert len(read_tree(tmp_path / "out")) == 50


def test_an_action_works_with_one_store_though_the_settings_change(tmp_path: Path) -> None:
    """Known objects of one store must not prevent a push to another store."""
    write_tree(tmp_path, {"data/a": b"content", "one/a": b"content"})
    settings = load_settings({"this": {"type": "filesystem"}, "filesystem": {"store_base": "one"}})[0]
    handler = StoreHandler(settings=settings)
    context = ActionContext(handler, RequestContext())
    before = context.storage
    handler.state.set("/filesystem/store_base", "two")
    assert context.storage is before
    reply = handler.run({"action": "objPut", "meta": {"putSpec": "data", "mapLocationOver": "data"}})
    assert reply["skipped"] == 0
    assert read_tree(tmp_path / "two") == {"a": b"content"}


def test_a_key_that_ends_in_a_slash_is_not_a_file(swift_storage: Storage, data: Path, tmp_path: Path) -> None:
    meta = {"putSpec": "data/a.dcm", "mapLocationOver": "data/a.dcm", "inLocation": "s/"}
    reply = run(swift_storage, "objPut", **meta)
    assert "marks a directory" in reply["msg"]
    swift_storage.put("t/d/", io.BytesIO(b"content"), 7)
    pulled = run(swift_storage, "objPull", fromLocation="t", mapLocationOver="out")
    assert pulled["status"] is False
    assert "no local name can have both" in pulled["failed"][0]["msg"]


def test_an_empty_file_does_not_prove_equality(swift: DevSwift, swift_storage: Storage) -> None:
    """Swift lists a dynamic large object as one of no bytes, with the MD5 of nothing."""
    put(swift_storage, "parts/1", "parts/2")
    container = swift_storage.settings.swift.container_name
    raw = swiftclient.Connection(swift.auth_url, swift.user, swift.key)
    raw.put_object(container, "s/dlo", b"", headers={"X-Object-Manifest": f"{container}/parts/"})
    raw.close()
    write_tree(Path.cwd(), {"out/dlo": b""})
    reply = run(swift_storage, "objPull", fromLocation="s", mapLocationOver="out")
    assert reply["skipped"] == 0
    assert read_tree(Path("out")) == {"dlo": b"parts/1parts/2"}


def test_of_two_files_for_one_key_the_second_fails(storage: Storage, tmp_path: Path) -> None:
    first, second = f"{tmp_path}/a".lstrip("/"), f"{tmp_path}/a"
    write_tree(tmp_path, {first: b"first", "a": b"second"})
    reply = run(storage, "objPut", fileList=[first, second], inLocation="s")
    assert reply["objectFileList"] == [f"s/{first}"] == keys(storage)
    [failed] = reply["failed"]
    assert (failed["local"], reply["bytes"]) == (second, 5)
    assert failed["msg"].startswith(f"{first!r} goes to 's/{first}' as well")


@pytest.mark.parametrize("has_roots", [False, True])
def test_a_file_that_is_listed_twice_is_pushed_once(
    storage: Storage, data: Path, tmp_path: Path, has_roots: bool
) -> None:
    context = RequestContext(roots=AllowedRoots([str(tmp_path)]) if has_roots else None)
    files = ["data/a.dcm", "data/empty", "./data/a.dcm", "data/a.dcm", f"{tmp_path}/data/a.dcm"]
    meta = {"file": "data/empty", "fileList": files, "inLocation": "s", "mapLocationOver": "data"}
    reply = StoreHandler(storage).run({"action": "objPut", "meta": meta}, context)
    assert (reply["status"], reply["failed"], reply["bytes"]) == (True, [], 1000)
    assert reply["objectFileList"] == ["s/empty", "s/a.dcm"]
    assert reply["localFileList"] == ["data/empty", "data/a.dcm"]


@pytest.mark.parametrize("over", ["m", "m/", "./", ".", "../here"])
def test_a_marker_of_the_location_itself_is_its_directory(storage: Storage, over: str) -> None:
    storage.put("s/", io.BytesIO(b""), 0)
    reply = run(storage, "objPull", path="s", fromLocation="s", mapLocationOver=over)
    assert (reply["status"], reply["objectFileList"]) == (True, ["s/"])
    assert Path(over).is_dir()


def test_an_empty_directory_is_left_out_with_a_warning(storage: Storage, data: Path) -> None:
    (data / "sub" / "empty-one").mkdir()
    reply = run(storage, "objPut", putSpec="data", inLocation="s")
    assert reply["warnings"] == ["'data/sub/empty-one' was left out: it is empty"]


def test_push_without_permission_to_list(data: Path) -> None:
    class WriteOnly(MemoryStorage):
        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            raise PermissionDeniedError("403")

    assert run(WriteOnly(), "objPut", putSpec="data", inLocation="s")["status"] is True


@pytest.mark.parametrize("is_away", [False, True])
def test_a_store_outage_is_reported_before_other_failures(is_away: bool) -> None:
    errors: list[PfstorageError] = [LocalFileError("no file"), PermissionDeniedError("forbidden")]
    if is_away:
        errors.append(UnavailableError("gone"))
    report = TransferReport()
    for number, error in enumerate(errors):
        report.note_failure(Failure(f"{number}", f"{number}", error))
    body = transfer_reply(report, MoveMeta(), {}).body
    assert body["error"]["type"] == ("UnavailableError" if is_away else "LocalFileError")
