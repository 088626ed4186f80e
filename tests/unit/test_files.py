"""Local files: atomic writes, and none outside the tree."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pfstorage.errors import FullDiskError, LocalFileError
from pfstorage.local import LocalTree, is_unfinished, local_errors, open_body, sync_file_systems
from tests.conftest import read_tree, write_tree
from tests.support.local import descriptors, in_threads, mounted, parts_in


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "new" / "target"))
    with tree.atomic_file(("sub", "a")) as file:
        file.write(b"first ")
        assert "a" not in read_tree(tmp_path / "new" / "target" / "sub")
        file.write(b"second")
    assert read_tree(tmp_path / "new") == {"target/sub/a": b"first second"}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    write_tree(tmp_path, {"a": b"before"})

    def write_half() -> None:
        with LocalTree(str(tmp_path)).atomic_file(("a",)) as file:
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
                with tree.atomic_file((*(["d"] * depth), f"{number}")) as file:
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
            with tree.atomic_file(("link", "b")):
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
    with LocalTree(str(tmp_path / "target")).atomic_file(("a",)) as file:
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


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "t"))
    with tree.atomic_file(("a", "b", "c")) as file:
        file.write(b"x")
    before = descriptors(tmp_path)
    for _ in range(50):
        with tree.atomic_file(("a", "b", "c")) as file:
            file.write(b"x")
        with tree.open_file(("a", "b", "c")):
            pass
        with pytest.raises(OSError, match="directory"), tree.atomic_file(("a", "b", "c", "d")):
            pass
        with pytest.raises(IsADirectoryError), tree.atomic_file(("a", "b")) as file:
            file.write(b"x")
    assert descriptors(tmp_path) == before


# a new file


def test_sequential_writes_and_writes_at_an_offset_do_not_mix(tmp_path: Path) -> None:
    with LocalTree("out").new_file(("a",)) as file:
        assert file.write(b"01") == 2
        assert file.write_at(memoryview(b"xyz!"), 6) == 4
        assert file.write(bytearray(b"2345")) == 4
        assert file.write(b"") == file.write_at(b"", 3) == 0
        assert file.read_at(3, 4) == b"45x"
        assert file.read_at(100, 8) == b"z!"
        assert file.read_at(1, 10) == b""
        file.commit()
    assert read_tree(tmp_path) == {"out/a": b"012345xyz!"}


def test_several_threads_write_one_file(tmp_path: Path) -> None:
    def write(number: int) -> Callable[[], int]:
        return lambda: file.write_at(bytes([number]) * 100_000, number * 100_000)

    with LocalTree("out").new_file(("a",)) as file:
        file.preallocate(800_000)
        assert in_threads([write(number) for number in range(8)]) == []
        file.commit()
    assert read_tree(tmp_path / "out")["a"] == b"".join(bytes([n]) * 100_000 for n in range(8))


@pytest.mark.parametrize("at_once", [False, True])
def test_a_write_that_the_system_cuts_short_is_no_success(tmp_path: Path, at_once: bool) -> None:
    """A limit for the size of a file lets the first bytes of a write through, and fails the next."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with LocalTree("out").new_file(("a",)) as file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6, hard))
        try:
            with pytest.raises(OSError, match="large"):
                file.write_at(b"0123456789", 0) if at_once else file.write(b"0123456789")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert file.read_at(100, 0) == b"012345"


def test_a_file_can_be_restarted(tmp_path: Path) -> None:
    with LocalTree("out").new_file(("a",)) as file:
        file.write(b"damaged bytes")
        file.truncate(3)
        file.write(b"ger")
        file.commit()
    assert read_tree(tmp_path) == {"out/a": b"damger"}


def test_room_is_taken_before_it_is_needed(tmp_path: Path) -> None:
    with LocalTree("out").new_file(("a",)) as file:
        file.preallocate(0)
        file.preallocate(1_000_000)
        status = os.fstat(file.fileno())
        assert (status.st_size, status.st_blocks * 512 >= 1_000_000) == (1_000_000, True)
        file.write(b"x")
        assert file.read_at(2, 0) == b"x\0"


def test_room_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "tmpfs", "-o", "size=1m") as disk,
        LocalTree(str(disk)).new_file(("a",)) as file,
        pytest.raises(FullDiskError),
        local_errors("a"),
    ):
        file.preallocate(2_000_000)


def test_a_file_system_that_takes_no_room_gets_the_length_alone(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "ramfs") as disk,
        LocalTree(str(disk)).new_file(("a",)) as file,
    ):
        file.preallocate(1_000_000)
        status = os.fstat(file.fileno())
        assert (status.st_size, status.st_blocks) == (1_000_000, 0)


def test_a_file_gets_the_time_that_it_is_given(tmp_path: Path) -> None:
    with LocalTree("out").new_file(("a",)) as file:
        file.write(b"x")
        file.set_mtime(1_234_567_890_123_456_789)
        with pytest.raises(OSError, match="no time"):
            file.set_mtime(10**40)
        file.commit(durable=True)
    assert Path("out/a").stat().st_mtime_ns == 1_234_567_890_123_456_789
    assert time.time() - Path("out/a").stat().st_atime < 1000


def test_a_file_that_is_not_committed_leaves_nothing(tmp_path: Path) -> None:
    write_tree(tmp_path, {"out/a": b"before"})
    tree = LocalTree("out")
    before = descriptors(tmp_path)
    file = tree.new_file(("a",))
    file.write(b"x")
    assert len(parts_in("out")) == 1
    file.discard()
    file.discard()
    with tree.new_file(("a",)):
        pass
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(b"x")
    with pytest.raises(OSError, match="descriptor"):
        file.commit()
    assert read_tree(tmp_path) == {"out/a": b"before"}
    assert descriptors(tmp_path) == before


def test_discarding_a_missing_file_is_no_error_and_spares_a_committed_one(tmp_path: Path) -> None:
    tree = LocalTree("out")
    committed, gone, lost = (tree.new_file((name,)) for name in ("a", "b", "c"))
    committed.commit()
    committed.discard()
    for name in parts_in("out"):
        os.unlink(f"out/{name}")
    gone.discard()
    with pytest.raises(FileNotFoundError):
        lost.commit()
    lost.discard()
    assert os.listdir("out") == ["a"]


def test_a_file_that_cannot_get_its_name_can_be_discarded(tmp_path: Path) -> None:
    write_tree(tmp_path, {"out/d/file": b""})
    before = descriptors(tmp_path)
    with LocalTree("out").new_file(("d",)) as file, pytest.raises(OSError, match="directory"):
        file.commit()
    assert (os.listdir("out"), descriptors(tmp_path)) == (["d"], before)


def test_a_durable_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append((os.readlink(f"/proc/self/fd/{descriptor}"), Path("out/d/a").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    tree = LocalTree("out")
    with tree.new_file(("d", "other")) as file:
        file.commit()
    assert synced == []
    with tree.new_file(("d", "a")) as file:
        file.commit(durable=True)
    [(content, before), *directories] = synced
    assert is_unfinished(os.path.basename(content))
    assert before is False
    device = tmp_path.stat().st_dev
    above = [each for each in (tmp_path / "out" / "d" / "a").parents if each.stat().st_dev == device]
    assert directories == [(str(directory), True) for directory in above]


def test_the_names_above_a_durable_file_are_on_the_disk_as_far_as_its_file_system_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    with mounted(tmp_path / "disk", "tmpfs"):
        monkeypatch.setattr(os, "fsync", lambda each: synced.append(os.readlink(f"/proc/self/fd/{each}")))
        with LocalTree("disk/in/out").atomic_file(("a",), durable=True) as file:
            file.write(b"x")
    names = [os.path.relpath(path, tmp_path) for path in synced]
    assert is_unfinished(os.path.basename(names.pop(0)))
    assert names == ["disk/in/out", "disk/in", "disk"]


def test_an_error_at_close_keeps_the_file_from_its_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS reports a full disk at close. Here, a patched `os.close` fails for every second descriptor."""
    write_tree(tmp_path, {"out/a": b"before"})
    close, dup = os.close, os.dup
    copies: list[int] = []

    def note(descriptor: int) -> int:
        copies.append(dup(descriptor))
        return copies[-1]

    def fail(descriptor: int) -> None:
        close(descriptor)
        if descriptor in copies:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "major", lambda _: 0)  # as of a file system without a device
        file = LocalTree("out").new_file(("a",))
        patched.setattr(os, "dup", note)
        patched.setattr(os, "close", fail)
        with pytest.raises(OSError, match="No space"):
            file.commit()
    file.discard()
    assert read_tree(tmp_path) == {"out/a": b"before"}


def calls_of_syncfs(monkeypatch: pytest.MonkeyPatch, *, there: bool = True) -> list[int]:
    from pfstorage.local import disk

    calls: list[int] = []
    monkeypatch.setattr(disk, "_libc_call", lambda *_: calls.append if there else None)
    return calls


def test_many_files_are_brought_to_the_disk_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with mounted(tmp_path / "disk", "tmpfs"):
        tree = LocalTree(".")
        names = [(directory, str(number)) for number in range(5) for directory in ("disk", "here")]
        files = [tree.new_file(name) for name in names]
        with monkeypatch.context() as patched:
            calls = calls_of_syncfs(patched)
            sync_file_systems(files)
            assert len(calls) == 2
        sync_file_systems(files)
        for file in files:
            file.commit()
        tree.sync_directories(name[:-1] for name in names)
        assert len(read_tree(tmp_path)) == 10
        with pytest.raises(FileNotFoundError):
            tree.sync_directories([("gone",)])


def test_where_many_can_not_be_synced_at_once_each_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = LocalTree("out")
    with tree.new_file(("a",)) as a, tree.new_file(("b",)) as b:
        calls_of_syncfs(monkeypatch, there=False)
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        sync_file_systems([a, b])
        assert synced == [a.fileno(), b.fileno()]


def test_a_sync_that_fails_raises(tmp_path: Path) -> None:
    file = LocalTree("out").new_file(("a",))
    file.commit()
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_file_systems([file])


def test_directories_that_stay_open_are_made_again_when_they_were_removed(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path / "out"), keeps_open=True)
    before = descriptors(tmp_path)
    for content in (b"1", b"2"):
        with tree.atomic_file(("a", "b", "file")) as file:
            file.write(content)
        assert read_tree(tmp_path) == {"out/a/b/file": content}
        shutil.rmtree(tmp_path / "out")
    del tree, file
    assert descriptors(tmp_path) == before


def test_a_directory_that_stays_open_is_not_left_by_a_link_that_takes_its_place(tmp_path: Path) -> None:
    write_tree(tmp_path, {"elsewhere/file": b"theirs"})
    tree = LocalTree(str(tmp_path / "out"), keeps_open=True)
    with tree.atomic_file(("a", "file")) as file:
        file.write(b"ours")
    (tmp_path / "out" / "a").rename(tmp_path / "moved")
    (tmp_path / "out" / "a").symlink_to(tmp_path / "elsewhere")
    with tree.atomic_file(("a", "file")) as file:
        file.write(b"ours, too")
    assert read_tree(tmp_path) == {"elsewhere/file": b"theirs", "moved/file": b"ours, too"}


def test_few_directories_stay_open(tmp_path: Path) -> None:
    tree = LocalTree(str(tmp_path), keeps_open=True)
    before = descriptors(tmp_path)
    for number in range(100):
        with tree.atomic_file((f"{number}", "file")):
            pass
    assert descriptors(tmp_path) - before <= 32


@pytest.mark.parametrize("parts", [(), ("d",)])
def test_a_directory_stays_new_if_another_worker_opens_it_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    tree = LocalTree(str(tmp_path / "top"), keeps_open=True)
    (tmp_path / "top").mkdir() if parts else None
    make = "mkdir" if parts else "makedirs"
    made = getattr(os, make)

    def made_and_opened(*arguments: object, **more: object) -> None:
        made(*arguments, **more)
        monkeypatch.setattr(os, make, made)
        tree.make_directory(parts)  # as another thread would

    monkeypatch.setattr(os, make, made_and_opened)
    tree.make_directory(parts)
    assert tree.is_new(parts)
    with tree.atomic_file((*parts, "a")) as file:
        os.mkfifo(tmp_path.joinpath("top", *parts, "b"))
        file.write(b"a")
    with pytest.raises(IsADirectoryError), tree.atomic_file((*parts, "b")) as file:
        file.write(b"b")
    assert sorted(os.listdir(tmp_path.joinpath("top", *parts))) == ["a", "b"]


def test_a_directory_is_new_only_to_its_creator(tmp_path: Path) -> None:
    write_tree(tmp_path, {"old/file": b""})
    tree = LocalTree(str(tmp_path), keeps_open=True)
    for name in ("old", "new"):
        with tree.atomic_file((name, "other")):
            pass
    assert [tree.is_new((name,)) for name in ("old", "new", "none")] == [False, True, False]
