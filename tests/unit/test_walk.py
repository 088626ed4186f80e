"""The files of a tree, their order, and the warnings about other entries."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfstorage.errors import LocalFileError
from pfstorage.local import LocalFile, ResolvedPath, find_files
from tests.conftest import write_tree


class Found:
    """The results of a walk."""

    def __init__(self, root: str | Path, *, follow_symlinks: bool = False) -> None:
        self.warnings: list[str] = []
        self.items = list(find_files(str(root), follow_symlinks=follow_symlinks, warn=self.warnings.append))

    @property
    def rests(self) -> list[str]:
        """The paths below the root, with errors as the paths that they name."""
        return [
            item.rest if isinstance(item, LocalFile) else f"error: {item.facts['local']}"
            for item in self.items
        ]


def test_files_come_in_the_order_of_their_keys(tmp_path: Path) -> None:
    write_tree(tmp_path, dict.fromkeys(("a0", "a/x", "a-b", "a/b/c", "a/b.d", "B", "é", "z"), b""))
    assert Found(tmp_path).rests == ["B", "a-b", "a/b.d", "a/b/c", "a/x", "a0", "z", "é"]


NAMES = st.binary(min_size=1, max_size=3).map(
    lambda name: name.translate(None, b"/\0").replace(b".", b"-") or b"n"
)


@given(st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=25))
@settings(max_examples=50)
def test_the_order_is_that_of_the_bytes_whatever_the_names(paths: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        for path in paths:
            try:
                os.makedirs(os.path.join(os.fsencode(root), *path[:-1]), exist_ok=True)
                os.close(os.open(os.path.join(os.fsencode(root), *path), os.O_CREAT | os.O_WRONLY))
            except OSError:
                continue  # a file is in the way of a directory, or a directory of a file
        expected = sorted(
            os.path.relpath(os.path.join(parent, name), os.fsencode(root))
            for parent, _, names in os.walk(os.fsencode(root))
            for name in names
        )
        found = Found(root)
        assert [os.fsencode(rest) for rest in found.rests] == expected
        assert [item.path for item in found.items if isinstance(item, LocalFile)] == [
            os.path.join(root, os.fsdecode(rest)) for rest in expected
        ]


@pytest.mark.parametrize("root", ["d", "./d", "d/", "././d//"])
def test_a_path_begins_with_the_root_as_it_is_spelled(tmp_path: Path, root: str) -> None:
    write_tree(tmp_path, {"d/sub/a": b"12345"})
    os.utime("d/sub/a", ns=(1, 1_234_567_891))
    assert Found(root).items == [
        LocalFile(ResolvedPath(os.path.join(root, "sub/a")), "sub/a", 5, 1_234_567_891)
    ]


def test_a_root_that_is_a_file_is_the_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": b"123"})
    Path("link").symlink_to("a")
    for root in ("a", "./link"):
        [item] = Found(root).items
        assert isinstance(item, LocalFile)
        assert (item.path, item.rest, item.size) == (root, "", 3)


@pytest.mark.parametrize("root", ["missing", "", "nul\0", "a/b"])
def test_a_missing_root_is_an_error_before_the_first_file(tmp_path: Path, root: str) -> None:
    write_tree(tmp_path, {"a": b""})
    with pytest.raises(LocalFileError):
        find_files(root, warn=print)


def test_a_root_that_is_no_file_is_reported(tmp_path: Path) -> None:
    os.mkfifo("pipe")
    found = Found("pipe")
    assert (found.items, found.warnings) == ([], ["'pipe' is no regular file"])


def test_left_out_entries_are_reported_except_unfinished_files(tmp_path: Path) -> None:
    part = ".pfstorage-0123456789abcdef.part"
    write_tree(tmp_path, {"d/a": b"", f"d/{part}": b"", f"d/only/{part}": b"", "outside": b""})
    os.mkfifo("d/pipe")
    os.mkfifo("d/.pfstorage-1.part")
    for link, target in {
        "d/broken": "nowhere",
        "d/circle": "circle",
        "d/inside": "a",
        "d/out": "../outside",
        "d/sub/up": "..",
    }.items():
        Path(link).parent.mkdir(exist_ok=True)
        Path(link).symlink_to(target)
    Path("d/empty").mkdir()
    found = Found("d")
    assert found.rests == ["a", "inside"]
    assert [warning.replace(" was left out:", "") for warning in found.warnings] == [
        "'d/broken' No such file or directory",
        "'d/circle' Too many levels of symbolic links",
        "'d/empty' it is empty",
        "'d/out' it is a link that leads out of the tree",
        "'d/pipe' it is no regular file",
        "'d/sub/up' it is a link to a directory",
    ]


def test_a_link_counts_as_its_file_also_where_the_root_is_one(tmp_path: Path) -> None:
    write_tree(tmp_path, {"real/a": b"12", "real2/b": b""})
    Path("real/z").symlink_to(tmp_path / "real" / "a")
    Path("real/y").symlink_to(tmp_path / "real2" / "b")  # begins like the root, and is outside
    Path("root").symlink_to("real")
    found = Found("root")
    assert [(item.path, item.size) for item in found.items if isinstance(item, LocalFile)] == [
        ("root/a", 2),
        ("root/z", 2),
    ]
    assert len(found.warnings) == 1


def test_links_are_followed_anywhere_if_asked(tmp_path: Path) -> None:
    write_tree(tmp_path, {"d/b": b"", "outside/file": b"123", "outside/sub/deep": b""})
    Path("d/a").symlink_to("../outside/file")
    Path("d/link").symlink_to("../outside")
    Path("d/link-").symlink_to("../outside/sub")
    Path("d/broken").symlink_to("nowhere")
    os.mkfifo("pipe")
    Path("d/pipe").symlink_to("../pipe")
    found = Found("d", follow_symlinks=True)
    assert found.rests == ["a", "b", "link-/deep", "link/file", "link/sub/deep"]
    assert isinstance(found.items[0], LocalFile)
    assert found.items[0].size == 3
    assert [warning.partition(" was left out: ")[::2] for warning in found.warnings] == [
        ("'d/broken'", "No such file or directory"),
        ("'d/pipe'", "it is no regular file"),
    ]


def test_a_link_that_leads_back_is_left_out_with_a_warning(tmp_path: Path) -> None:
    write_tree(tmp_path, {"top/d/a": b"", "top/d/sub/b": b"", "top/other/c": b""})
    Path("top/d/sub/self").symlink_to(".")
    Path("top/d/sub/up").symlink_to("..")
    Path("top/d/sub/above").symlink_to("../..")
    Path("top/d/sub/circle").symlink_to("circle")
    Path("top/d/twice").symlink_to("../other")
    Path("top/d/once").symlink_to("../other")
    found = Found("top/d", follow_symlinks=True)
    assert found.rests == ["a", "once/c", "sub/above/other/c", "sub/b", "twice/c"]
    back = "it leads back to a directory that it is in"
    assert [warning.partition(" was left out: ")[::2] for warning in found.warnings] == [
        ("'top/d/sub/above/d'", back),
        ("'top/d/sub/circle'", "Too many levels of symbolic links"),
        ("'top/d/sub/self'", back),
        ("'top/d/sub/up'", back),
    ]


def nested(name: str, depth: int) -> None:
    """Make *depth* directories below the current one, each in the other, and a file in the last."""
    current = os.open(".", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=current)
        inner = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = inner
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)


def test_a_tree_may_be_deeper_than_python_lets_functions_call_each_other(tmp_path: Path) -> None:
    nested("d", 400)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(300)
    try:
        assert Found(".").rests == ["d/" * 400 + "file"]
    finally:
        sys.setrecursionlimit(limit)


def test_an_unreadable_entry_is_reported_in_order_and_the_walk_continues(tmp_path: Path) -> None:
    """Here it is a directory whose path is too long, since the superuser may read all others."""
    write_tree(tmp_path, {"a": b"", "z": b"", "n": b""})
    nested("m" * 250, 20)
    found = Found(".")
    assert [item.rest for item in found.items if isinstance(item, LocalFile)] == ["a", "n", "z"]
    assert isinstance(found.items[1], LocalFileError)
    assert os.strerror(errno.ENAMETOOLONG) in str(found.items[1])
    assert str(found.items[1].facts["local"]).startswith("./mmm")
    assert found.warnings == []


def test_a_directory_is_read_when_it_is_reached(tmp_path: Path) -> None:
    """So a walk needs no memory for later directories."""
    write_tree(tmp_path, {"a": b"", "b/c": b"", "d/e": b"", "f": b""})
    warnings: list[str] = []
    files: Iterator[LocalFile | LocalFileError] = find_files(".", warn=warnings.append)
    assert next(files) == LocalFile(ResolvedPath("./a"), "a", 0, Path("a").stat().st_mtime_ns)
    write_tree(tmp_path, {"b/new": b""})
    Path("f").unlink()
    assert [file.rest for file in files if isinstance(file, LocalFile)] == ["b/c", "b/new", "d/e"]
    assert warnings == ["'./f' was left out: No such file or directory"]


def test_a_walk_holds_no_descriptor(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/b/c": b"", "a/b/d": b""})
    before = len(os.listdir("/proc/self/fd"))
    files = find_files(".", warn=print)
    next(files)
    assert len(os.listdir("/proc/self/fd")) == before
