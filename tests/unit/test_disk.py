"""Properties of a target directory: its free space, and whether its names are case-insensitive."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from pfstorage.local import LocalTree
from tests.conftest import write_tree
from tests.support.local import mounted, refuse


def test_the_free_space_is_that_of_the_nearest_existing_directory(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert LocalTree("").free_bytes() <= status.f_blocks * status.f_frsize
    with mounted(tmp_path / "disk", "tmpfs", "-o", "size=1m"):
        for tree, parts in ((LocalTree("disk/not/yet/"), ()), (LocalTree(str(tmp_path)), ("disk", "not"))):
            assert tree.free_bytes(parts) == 1024 * 1024
        write_tree(tmp_path, {"disk/a": b"x" * 500_000})
        assert LocalTree("./disk/a/b").free_bytes() < LocalTree("disk").free_bytes(("a", "b")) + 1 < 600_000


def test_unknown_free_space_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", refuse(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        LocalTree("out").free_bytes()


def folding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the system ignore the case of names, as a case-insensitive file system does."""
    stat = os.stat

    def find(path: str, *, dir_fd: int | None = None, **options: Any) -> os.stat_result:
        if dir_fd is None:
            return stat(path, **options)
        same = (each for each in os.listdir(dir_fd) if each.casefold() == path.casefold())
        return stat(next(same, path), dir_fd=dir_fd, **options)

    monkeypatch.setattr(os, "stat", find)


TARGETS: dict[str, dict[str, bytes]] = {
    "names": {"d/1": b"", "d/A": b""},
    "directories": {"d/Name/x": b""},
    "no letters": {"d/1": b"", "d/2/x": b"", "d/\N{LATIN SMALL LETTER DOTLESS I}": b""},
    "empty": {"d/x/y": b""},
    "missing": {},
}


@pytest.mark.parametrize("folds", [False, True])
@pytest.mark.parametrize("target", TARGETS)
def test_a_probe_finds_whether_names_are_case_insensitive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, folds: bool
) -> None:
    write_tree(tmp_path, TARGETS[target])
    if folds:
        folding(monkeypatch)
    before = sorted(tmp_path.rglob("*"))
    rest = "x" if target == "empty" else "new"
    assert LocalTree(f"d/{rest}").folds_names() is folds
    assert LocalTree("d").folds_names((rest,)) is folds
    assert sorted(tmp_path.rglob("*")) == before


def test_two_links_to_one_file_are_not_taken_for_one_name(tmp_path: Path) -> None:
    write_tree(tmp_path, {"d/a": b""})
    os.link("d/a", "d/A")
    assert LocalTree("d").folds_names() is False
    write_tree(tmp_path, {"e/b": b"", "e/B": b""})
    assert LocalTree("e").folds_names() is False


def test_a_target_that_cannot_be_probed_counts_as_case_sensitive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "scandir", refuse(errno.EACCES))
    assert LocalTree(".").folds_names() is False
    monkeypatch.setattr(os, "open", refuse(errno.EROFS))
    assert LocalTree(".").folds_names() is False
