"""Unfinished files of killed writers are removed, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import time
from pathlib import Path

import pytest

from pfstorage import open_storage
from pfstorage.local import LocalTree
from pfstorage.local.unfinished import sweep
from tests.conftest import read_tree, run, write_tree
from tests.support.local import begin_and_discard, descriptors, in_threads, parts_in, refuse


def test_an_object_with_the_name_of_an_unfinished_file_is_not_pulled() -> None:
    """The next pull into the directory would remove it as an unfinished file."""
    with open_storage("memory") as storage:
        for key in ("s/a", "s/.pfstorage-0123456789abcdef.part", "s/.pfstorage-0123.part/b"):
            storage.put(key, io.BytesIO(b"x"), 1)
        reply = run(storage, "objPull", fromLocation="s", mapLocationOver="out")
        assert (reply["status"], reply["objectFileList"]) == (False, ["s/a"])
        assert ["reserved for unfinished files" in each["msg"] for each in reply["failed"]] == [True, True]
        one = run(storage, "objPull", fromLocation="s/a", mapLocationOver="out/.pfstorage-0.part")
        assert one["error"]["type"] == "InvalidKeyError"
        assert read_tree(Path("out")) == {"a": b"x"}


def test_only_regular_files_of_such_a_name_are_removed(tmp_path: Path) -> None:
    write_tree(
        tmp_path,
        {
            "out/d/.pfstorage-notes.part": b"",
            "out/d/.pfstorage-0a.part.txt": b"",
            "out/d/.pfstorage-.part": b"",
            "out/d/x.pfstorage-0a.part": b"",
            "out/d/.pfstorage-0d.part/file": b"",
            "precious": b"",
        },
    )
    Path("out/d/.pfstorage-0b.part").symlink_to(tmp_path / "precious")
    os.mkfifo("out/d/.pfstorage-0c.part")
    before = sorted(os.listdir("out/d"))
    begin_and_discard("d")
    assert sorted(os.listdir("out/d")) == before
    assert Path("precious").exists()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK])
def test_without_locks_only_old_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    write_tree(tmp_path, {"out/d/.pfstorage-0a.part": b""})
    os.utime("out/d/.pfstorage-0a.part", (0, 0))  # as a writer may set it
    begin_and_discard("d")
    assert parts_in("out/d") == [".pfstorage-0a.part"]
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 25 * 3600)
    begin_and_discard("d")
    assert parts_in("out/d") == []


@pytest.mark.parametrize("failing", ["scandir", "unlink", "fstat"])
def test_a_sweep_that_fails_is_no_reason_not_to_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_tree(tmp_path, {"out/d/.pfstorage-0a.part": b""})
    tree = LocalTree("out")

    def hampered(directory: int) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, failing, refuse(errno.EIO))
            sweep(directory)

    monkeypatch.setattr("pfstorage.local.tree.sweep", hampered)
    with tree.atomic_file(("d", "a")) as file:
        file.write(b"x")
    assert read_tree(tmp_path / "out" / "d") == {"a": b"x", ".pfstorage-0a.part": b""}


@pytest.mark.parametrize("taken", ["before the lock", "while it is locked"])
def test_a_file_that_is_swept_before_its_writer_has_the_lock_is_created_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str
) -> None:
    flock = fcntl.flock
    calls: list[int] = []

    def race(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) > 1:
            return flock(descriptor, operation)
        if taken == "while it is locked":
            raise BlockingIOError(errno.EWOULDBLOCK, "somebody has it")
        os.unlink(f"out/{parts_in('out')[0]}")
        return flock(descriptor, operation)

    Path("out").mkdir()
    monkeypatch.setattr(fcntl, "flock", race)
    before = descriptors(tmp_path)
    with LocalTree("out").atomic_file(("a",)) as file:
        file.write(b"x")
    assert (read_tree(tmp_path), len(calls)) == ({"out/a": b"x"}, 2)
    assert descriptors(tmp_path) == before


def test_a_file_that_nobody_lets_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(errno.EWOULDBLOCK))
    before = descriptors(tmp_path)
    with pytest.raises(OSError, match="removed or locked by another process"):
        LocalTree("out").new_file(("a",))
    assert (os.listdir("out"), descriptors(tmp_path)) == ([], before)


def test_sweeps_and_writers_at_the_same_time_do_not_disturb_each_other(tmp_path: Path) -> None:
    def write(number: int) -> None:
        for permit in range(60):
            with LocalTree("out").atomic_file((f"{number}-{permit}",)) as file:
                file.write(b"x" * 100)

    assert in_threads([lambda number=number: write(number) for number in range(8)]) == []  # type: ignore[misc]
    assert list(read_tree(tmp_path / "out").values()) == [b"x" * 100] * 480
