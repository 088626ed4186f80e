"""The working directory: by the name that the shell has for it, and when it is not there any more."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.local import AllowedRoots
from tests.conftest import ROOT, read_tree, run, write_tree


@pytest.fixture
def linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, by the path of a shell that has come to it through a link."""
    write_tree(tmp_path, {"real/data/a": b"aaa", "real/data/d/b": b"b"})
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path / "link")
    monkeypatch.setenv("PWD", f"{tmp_path}/link")
    return tmp_path / "link"


NAMES = ["data", "./data/", "{pwd}/data", "{cwd}/data", "{pwd}/./data/"]


@pytest.mark.parametrize("over", NAMES)
@pytest.mark.parametrize("spec", NAMES)
def test_a_directory_is_the_same_by_all_its_names(linked: Path, spec: str, over: str) -> None:
    names = {"pwd": linked, "cwd": os.getcwd()}
    assert str(linked) != os.getcwd()
    meta = {"putSpec": spec.format(**names), "inLocation": "s", "mapLocationOver": over.format(**names)}
    with open_storage(type="memory") as storage:
        reply = run(storage, "objPut", **meta, audit=True)
        assert (reply["status"], reply["objectFileList"]) == (True, ["s/a", "s/d/b"])
        assert reply["localFileList"][0] == os.path.join(meta["putSpec"], "a")
        files = {"fileList": [os.path.join(meta["putSpec"], "a")], "mapLocationOver": meta["mapLocationOver"]}
        assert run(storage, "objPut", **files, inLocation="t")["objectFileList"] == ["t/a"]
        back = {"fromLocation": "s", "mapLocationOver": meta["mapLocationOver"]}
        assert run(storage, "objPull", **back)["skipped"] == 2
        assert run(storage, "objVerify", **back)["status"] is True


@pytest.mark.parametrize("spec", ["data", ".", "{pwd}/data"])
@pytest.mark.parametrize("link", ["links/link", "link/study"])
def test_what_is_above_the_name_of_the_shell_is_above_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, link: str
) -> None:
    """The link is the last name of the path of the shell, or the one before."""
    write_tree(tmp_path, {"real/study/data/a": b"aaa", "links/b": b"b"})
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "links/link").symlink_to("../real/study")
    monkeypatch.chdir(tmp_path / link)
    monkeypatch.setenv("PWD", f"{tmp_path}/{link}")
    above, name = os.path.split(f"{tmp_path}/{link}")
    with open_storage(type="memory") as storage:
        meta = {"putSpec": spec.format(pwd=f"{tmp_path}/{link}"), "inLocation": "s", "mapLocationOver": above}
        assert run(storage, "objPut", **meta)["objectFileList"] == [f"s/{name}/data/a"]
        elsewhere = {**meta, "mapLocationOver": f"{tmp_path}/lin"}
        assert run(storage, "objPut", **elsewhere)["status"] is False


@pytest.mark.parametrize("pwd", ["{top}/other", "{top}/gone", "link", "{top}/link/../link", "", "\0"])
def test_another_directory_is_never_taken_for_it(
    linked: Path, monkeypatch: pytest.MonkeyPatch, pwd: str
) -> None:
    """Who starts a program elsewhere may leave an old PWD behind."""
    top = linked.parent
    (top / "other").mkdir()
    if "\0" not in pwd:
        monkeypatch.setenv("PWD", pwd.format(top=top))
    with open_storage(type="memory") as storage:
        meta = {"putSpec": "data", "inLocation": "s", "mapLocationOver": f"{top}/other/data"}
        assert run(storage, "objPut", **meta)["status"] is False
        assert run(storage, "objPut", **{**meta, "mapLocationOver": "data"})["status"] is True


@pytest.mark.parametrize("spec", ["data", "{link}/data", "{real}/data"])
@pytest.mark.parametrize("over", ["data", "{link}/data", "{real}/data"])
def test_roots_have_their_names_too(linked: Path, spec: str, over: str) -> None:
    names = {"link": linked, "real": os.path.realpath(linked)}
    meta = {"putSpec": spec.format(**names), "inLocation": "s", "mapLocationOver": over.format(**names)}
    with open_storage(type="memory") as storage:
        context = RequestContext(roots=AllowedRoots([str(linked)]))
        reply = StoreHandler(storage).run({"action": "objPut", "meta": meta}, context)
        assert (reply["status"], reply["objectFileList"]) == (True, ["s/a", "s/d/b"])


def run_in(directory: Path, *flags: str, removed: bool = False, **environ: str) -> dict[str, Any]:
    """Run the command in *directory*, *removed* before it starts; return its reply, or what it says on stderr."""
    script = f'cd {directory}; {f"rmdir {directory};" if removed else ""} exec "$@"'
    # not -m, for which Python looks into the working directory
    program = [sys.executable, "-c", "from pfstorage.cli.main import main; import sys; sys.exit(main())"]
    done = subprocess.run(
        ["sh", "-c", script, "sh", *program, *flags],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
    )
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout) if done.stdout else {"status": False, "msg": done.stderr}


def test_a_script_may_use_the_path_of_its_shell(linked: Path) -> None:
    meta = {"putSpec": "data", "inLocation": "s", "mapLocationOver": f"{linked}/data"}
    store = ("--type", "filesystem", "--storeBase", f"{linked.parent}/store")
    reply = run_in(linked, *store, "--msg", json.dumps({"action": "objPut", "meta": meta}))
    assert reply["objectFileList"] == ["s/a", "s/d/b"]


@pytest.fixture
def gone(tmp_path: Path) -> Path:
    write_tree(tmp_path, {"data/a": b"aaa"})
    (tmp_path / "gone").mkdir()
    return tmp_path / "gone"


def test_absolute_paths_work_where_the_working_directory_was_removed(gone: Path, tmp_path: Path) -> None:
    store = ("--type", "filesystem", "--storeBase", f"{tmp_path}/store")
    put = {
        "putSpec": f"{tmp_path}/data",
        "inLocation": "s",
        "mapLocationOver": f"{tmp_path}/data",
        "audit": True,
    }
    pull = {"fromLocation": "s", "mapLocationOver": f"{tmp_path}/out", "audit": True}
    listed = {"fileList": [f"{tmp_path}/data/a"], "inLocation": "t", "mapLocationOver": f"{tmp_path}/data"}
    for action, meta in (("objPut", put), ("objPut", listed), ("objPull", pull), ("objVerify", pull)):
        gone.mkdir(exist_ok=True)
        message = json.dumps({"action": action, "meta": meta})
        reply = run_in(gone, *store, "--msg", message, removed=True)
        assert reply["status"] is True, reply
    assert read_tree(tmp_path / "out") == {"a": b"aaa"}
    assert sorted(read_tree(tmp_path / "store")) == ["s/a", "t/a"]


@pytest.mark.parametrize(
    ("action", "meta"),
    [
        ("objPut", {"putSpec": "data", "inLocation": "s"}),
        ("objPut", {"fileList": ["data/a"], "inLocation": "s"}),
        ("objPull", {"fromLocation": "s"}),
        ("objPull", {"fromLocation": "s", "mapLocationOver": "out"}),
    ],
)
def test_relative_paths_are_told_as_what_is_missing(
    gone: Path, tmp_path: Path, action: str, meta: dict[str, Any]
) -> None:
    with open_storage(type="filesystem", store_base=str(tmp_path / "store")) as storage:
        storage.put("s/a", io.BytesIO(b"aaa"), 3)
    store = ("--type", "filesystem", "--storeBase", f"{tmp_path}/store")
    reply = run_in(gone, *store, "--msg", json.dumps({"action": action, "meta": meta}), removed=True)
    assert reply["status"] is False
    assert "No such file or directory" in reply["msg"]


def test_a_relative_store_is_told_as_what_is_missing(gone: Path) -> None:
    message = json.dumps({"action": "ls", "meta": {}})
    reply = run_in(gone, "--type", "filesystem", "--storeBase", "store", "--msg", message, removed=True)
    assert "use absolute paths" in reply["msg"]


def test_a_server_is_not_started_where_there_is_no_directory(gone: Path) -> None:
    reply = run_in(gone, "--server", "--portSelf", "0", "--type", "memory", removed=True)
    assert "can't find the working directory" in reply["msg"]
