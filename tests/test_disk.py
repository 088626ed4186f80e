"""What a target is told by: room, and whether names of another case are the same."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pfstorage.errors import LocalFileError
from pfstorage.files import folds_names, free_bytes
from tests.conftest import write_tree
from tests.local import mounted, refuse


def test_the_room_is_that_of_what_is_there(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert free_bytes("") <= status.f_blocks * status.f_frsize
    with mounted(tmp_path / "disk", "tmpfs", "-o", "size=1m"):
        assert free_bytes("disk/not/yet/") == free_bytes(str(tmp_path / "disk")) == 1024 * 1024
        write_tree(tmp_path, {"disk/a": b"x" * 500_000})
        assert free_bytes("./disk/a/b") < 600_000


def test_room_that_cannot_be_told_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", refuse(errno.EIO))
    with pytest.raises(LocalFileError, match="'out'") as raised:
        free_bytes("out")
    assert raised.value.facts["local"] == "out"


def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the system find names whatever their case, as a file system does that folds them."""
    lstat = os.lstat

    def find(path: str, **_: Any) -> os.stat_result:
        directory, name = os.path.split(path)
        same = (each for each in os.listdir(directory) if each.casefold() == name.casefold())
        return lstat(os.path.join(directory, next(same, name)))

    monkeypatch.setattr(os, "lstat", find)


TARGETS: dict[str, dict[str, bytes]] = {
    "names": {"d/1": b"", "d/A": b""},
    "directories": {"d/Name/x": b""},
    "no letters": {"d/1": b"", "d/2/x": b"", "d/\N{LATIN SMALL LETTER DOTLESS I}": b""},
    "empty": {"d/x/y": b""},
    "missing": {},
}


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_it_is_found_whether_names_of_another_case_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, folds: bool
) -> None:
    write_tree(tmp_path, TARGETS[target])
    if folds:
        folding(monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    assert folds_names("d/x" if target == "empty" else "d/new") is folds
    assert sorted(tmp_path.rglob("*")) == before


def test_two_links_to_one_file_are_not_taken_for_one_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"d/a": b""})
    os.link("d/a", "d/A")
    assert folds_names("d") is False
    write_tree(tmp_path, {"e/b": b"", "e/B": b""})
    assert folds_names("e") is False


def test_a_target_that_cannot_be_asked_is_taken_not_to_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", refuse(errno.EACCES))
    assert folds_names(".") is False
    monkeypatch.setattr(os, "open", refuse(errno.EROFS))
    assert folds_names(".") is False
