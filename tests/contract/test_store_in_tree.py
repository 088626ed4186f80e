"""A tree that contains the filesystem store itself: the store is no part of a push."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from tests.conftest import Command, read_tree, run, write_tree

PUT = {"inLocation": "s", "putSpec": ".", "mapLocationOver": "."}


@pytest.mark.parametrize("base", ["d/store", "./d/store/", "{tmp}/d/store", "link/store"])
@pytest.mark.parametrize("meta", [{}, {"followSymlinks": True}, {"putSpec": "d", "mapLocationOver": "d"}])
def test_a_push_skips_its_own_store(tmp_path: Path, base: str, meta: dict[str, Any]) -> None:
    write_tree(tmp_path, {"a": b"a", "d/b": b"b"})
    (tmp_path / "link").symlink_to("d")
    there = base.format(tmp=tmp_path)
    with open_storage("filesystem", store_base=there) as storage:
        first = run(storage, "objPut", **{**PUT, **meta})
        again = run(storage, "objPut", **{**PUT, **meta}, audit=True)
        compared = run(storage, "objVerify", fromLocation="s", mapLocationOver=meta.get("putSpec", "."))
    assert (first["status"], again["status"]) == (True, True)
    assert compared["status"] is not ("followSymlinks" in meta)  # it follows no link to a directory
    assert first["objectFileList"] == again["objectFileList"]
    assert (again["bytes"], compared["extra"]) == (0, [])
    assert any("was left out: it is the store itself" in each for each in again["warnings"])
    assert "s/store" not in str(read_tree(tmp_path / "d" / "store").keys())


def test_a_store_that_is_the_tree_is_not_pushed(tmp_path: Path) -> None:
    write_tree(tmp_path / "store", {"a": b"a"})
    with open_storage("filesystem", store_base="store") as storage:
        reply = run(storage, "objPut", putSpec="store", inLocation="s")
        assert (reply["status"], "error" in reply) == (False, False)
        assert reply["warnings"] == ["'store' was left out: it is the store itself (--storeBase)"]
        assert run(storage, "objPut", putSpec="store/a", inLocation="s")["objectFileList"] == ["s/store/a"]


def test_another_store_is_a_tree_like_any_other(tmp_path: Path) -> None:
    write_tree(tmp_path, {"store/a": b"a"})
    for kind in ("memory", "filesystem"):
        with open_storage(kind, **({"store_base": "other"} if kind == "filesystem" else {})) as storage:
            reply = run(storage, "objPut", putSpec="store")
            assert (reply["objectFileList"], "warnings" in reply) == (["store/a"], False)


def test_the_command_line_skips_its_store(command: Command, tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"a"})
    args = '{"putSpec": ".", "inLocation": "s", "mapLocationOver": "."}'
    for _ in range(2):
        done = command(
            "--type",
            "filesystem",
            "--storeBase",
            "./store",
            "--action",
            "objPut",
            "--args",
            args,
            cwd=tmp_path,
        )
        assert done.returncode == 0
    assert read_tree(tmp_path / "store") == {"s/a": b"a"}
