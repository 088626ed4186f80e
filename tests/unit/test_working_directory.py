"""The working directory: by the name of the shell, and after its removal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.actions import RequestContext
from pfstorage.local import AllowedRoots
from tests.conftest import run, write_tree

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
def test_the_parent_of_the_name_of_the_shell_is_the_parent_of_its_files(
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
    """A program that starts another one in another directory may leave an old PWD behind."""
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
