"""Local files: whole or not at all, and nothing outside the tree."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from pfstorage.errors import LocalFileError
from pfstorage.files import LocalTree, open_body, walk
from tests.conftest import read_tree, write_tree


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "new" / "target"))
    with tree.whole_file(("sub", "a")) as file:
        file.write(b"first ")
        assert "a" not in read_tree(tmp_path / "new" / "target" / "sub")
        file.write(b"second")
    assert read_tree(tmp_path / "new") == {"target/sub/a": b"first second"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    write_tree(tmp_path, {"a": b"before"})

    def write_half() -> None:
        with LocalTree(str(tmp_path)).whole_file(("a",)) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        write_half()
    assert read_tree(tmp_path) == {"a": b"before"}


def test_directories_that_several_threads_need_at_once_are_made_once(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "target"))
    barrier = threading.Barrier(8)
    failures: list[BaseException] = []

    def write(number: int) -> None:
        barrier.wait()
        try:
            for depth in range(20):
                with tree.whole_file((*(["d"] * depth), f"{number}")) as file:
                    file.write(b"x")
        except OSError as e:
            failures.append(e)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(read_tree(tmp_path)) == 160


@pytest.mark.parametrize("operation", ["write", "read", "remove", "make"])
def test_a_link_below_the_directory_is_not_followed(tmp_path: Path, operation: str) -> None:
    write_tree(tmp_path, {"outside/a": b"precious", "target/x": b""})
    (tmp_path / "target" / "link").symlink_to(tmp_path / "outside")
    tree = LocalTree(str(tmp_path / "target"))

    def do() -> None:
        if operation == "write":
            with tree.whole_file(("link", "b")):
                pass
        elif operation == "read":
            with tree.open_file(("link", "a")):
                pass
        elif operation == "remove":
            tree.remove(("link", "a"))
        else:
            tree.make_directory(("link", "c"))

    with pytest.raises(NotADirectoryError):
        do()
    assert read_tree(tmp_path / "outside") == {"a": b"precious"}
    assert os.listdir(tmp_path / "outside") == ["a"]


def test_the_directory_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "target").symlink_to(tmp_path / "disk")
    with LocalTree(str(tmp_path / "target")).whole_file(("a",)) as file:
        file.write(b"x")
    assert read_tree(tmp_path / "disk") == {"a": b"x"}


def test_opening_a_pipe_does_not_wait_for_its_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(LocalFileError, match="no regular file"), open_body(str(tmp_path / "pipe")):
        pass
    with pytest.raises(OSError, match="no regular file"), LocalTree(str(tmp_path)).open_file(("pipe",)):
        pass


def test_removing_takes_parents_that_are_left_empty(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a/b/c/file": b"", "a/other": b""})
    LocalTree(str(tmp_path)).remove(("a", "b", "c", "file"))
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["a", "a/other"]


def test_a_walk_is_in_order_and_leaves_out_unfinished_files(tmp_path: Path) -> None:
    write_tree(tmp_path / "d", {"b": b"", "a/z": b"", "a.txt": b"", ".pfstorage-0123.part": b"half"})
    os.chdir(tmp_path)
    assert walk("./d").paths == ["./d/a.txt", "./d/a/z", "./d/b"]
    assert walk("d/b").paths == ["d/b"]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "t"))
    with tree.whole_file(("a", "b", "c")) as file:
        file.write(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with tree.whole_file(("a", "b", "c")) as file:
            file.write(b"x")
        with tree.open_file(("a", "b", "c")):
            pass
        with pytest.raises(OSError, match="directory"), tree.whole_file(("a", "b", "c", "d")):
            pass
        with pytest.raises(IsADirectoryError), tree.whole_file(("a", "b")) as file:
            file.write(b"x")
    assert len(os.listdir("/proc/self/fd")) == before
