"""Replacement of a file by a new one: the mode of the new file, and file systems that refuse some calls."""

from __future__ import annotations

import errno
import io
import json
import os
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from pfstorage.errors import InvalidKeyError, SettingsError
from pfstorage.jobs.directory import locked_directory
from pfstorage.local import LocalTree
from tests.conftest import ROOT, Command, open_backend, read_tree, run, swift_options, write_tree
from tests.support.faults import Fault, proxy_to
from tests.support.local import mounted, parts_in, refuse
from tests.support.objects import get

PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}
LARGE = bytes(range(256)) * 1000


def put(storage: Storage, key: str, content: bytes, **more: Any) -> None:
    storage.put(key, io.BytesIO(content), len(content), **more)


@pytest.fixture
def filesystem(tmp_path: Path) -> Iterator[Storage]:
    with open_backend("filesystem", None, tmp_path) as storage:  # type: ignore[arg-type]
        yield storage


def is_special(path: Path) -> bool:
    mode = path.stat().st_mode
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(path))  # a path of more than 107 bytes can't be


def make_link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def make_link_to_device(path: Path) -> None:
    path.symlink_to("/dev/null")


SPECIAL = [make_pipe, make_socket, make_link_to_pipe, make_link_to_device]


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("meta", [{}, {"overwrite": "always"}, {"overwrite": "never"}, {"dryRun": True}])
def test_a_pull_replaces_no_pipe_device_or_socket(
    storage: Storage, tmp_path: Path, make: Callable[[Path], None], meta: dict[str, Any]
) -> None:
    put(storage, "s/a", b"content")
    put(storage, "s/b", b"content")
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "a")
    reply = run(storage, "objPull", **PULL, **meta)
    assert reply["status"] is False
    assert reply["localFileList"] == ["out/b"]
    [failed] = reply["failed"]
    assert failed["local"] == "out/a"
    assert "it is no regular file, and is not replaced" in failed["msg"]
    assert is_special(tmp_path / "out" / "a")
    assert parts_in("out") == []
    reply = run(storage, "objVerify", **PULL)
    assert (
        reply["status"],
        "s/a" in [*reply["changed"], *(row["object"] for row in reply.get("failed", []))],
    ) == (
        False,
        True,
    )


def test_a_pipe_that_appears_during_a_pull_stays(swift: DevSwift, tmp_path: Path) -> None:
    with (
        proxy_to(swift.port) as proxy,
        open_storage(**swift_options(swift, auth_url=proxy.auth_url)) as storage,
    ):
        put(storage, "s/a", b"content")

        def make(_: object) -> bool:
            if not (tmp_path / "out" / "a").exists():
                os.mkfifo("out/a")
            return False

        proxy.fault(Fault("answer"), "GET", where=lambda exchange: bool(exchange.key) and make(exchange))
        reply = run(storage, "objPull", **PULL)
    assert reply["status"] is False
    assert is_special(tmp_path / "out" / "a")


DEVICE = """
import json, sys
from pfstorage import StoreHandler, open_storage
import io
storage = open_storage(type="memory")
storage.put("s/a", io.BytesIO(b"content"), 7)
meta = {"path": "s/a", "fromLocation": "s/a", "mapLocationOver": "/dev/stdout"}
print(json.dumps(StoreHandler(storage).run({"action": "objPull", "meta": meta})))
"""


@pytest.mark.parametrize("into", ["pipe", "file"])
def test_the_output_of_a_program_is_no_file_to_be_replaced(tmp_path: Path, into: str) -> None:
    """This also holds for a link to a file: the pull would remove ``/dev/stdout`` itself."""
    before = os.readlink("/dev/stdout")
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-c", DEVICE], env=environ, stdout=output if into == "file" else subprocess.PIPE
        )
    reply = json.loads((tmp_path / "output").read_bytes() if into == "file" else done.stdout)
    assert os.readlink("/dev/stdout") == before
    assert (reply["status"], reply["failed"][0]["local"]) == (False, "/dev/stdout")
    assert "it is no regular file, and is not replaced" in reply["msg"]


def test_the_settings_are_not_saved_over_the_output(command: Command) -> None:
    before = os.readlink("/dev/stdout")
    done = command("--type", "memory", "--configFileSave", "/dev/stdout", "--msg", '{"action": "hello"}')
    assert os.readlink("/dev/stdout") == before
    assert done.returncode != 0
    assert "'/dev/stdout'" in done.stderr
    os.mkfifo("pipe")
    done = command("--type", "memory", "--configFileSave", "pipe", "--msg", '{"action": "hello"}')
    assert (done.returncode != 0, is_special(Path("pipe"))) == (True, True)


@pytest.mark.parametrize("make", SPECIAL)
@pytest.mark.parametrize("if_absent", [False, True])
def test_a_store_of_files_replaces_no_pipe_device_or_socket(
    filesystem: Storage, tmp_path: Path, make: Callable[[Path], None], if_absent: bool
) -> None:
    put(filesystem, "other", b"x")
    make(tmp_path / "store" / "a")
    with pytest.raises(InvalidKeyError):
        put(filesystem, "a", b"content", if_absent=if_absent)
    with pytest.raises(InvalidKeyError):
        filesystem.copy("other", "a")
    assert is_special(tmp_path / "store" / "a")
    assert parts_in("store") == []


def test_a_link_to_a_file_is_replaced_as_before(storage: Storage, tmp_path: Path) -> None:
    put(storage, "s/a", b"content")
    write_tree(tmp_path, {"out/theirs": b"theirs"})
    Path("out/a").symlink_to("theirs")
    assert run(storage, "objPull", **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"a": b"content", "theirs": b"theirs"}
    assert not Path("out/a").is_symlink()


# rights


def mode(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.mark.parametrize(
    ("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o444, 0o444), (0o755, 0o644)]
)
def test_a_file_that_is_replaced_keeps_its_mode(
    storage: Storage, tmp_path: Path, before: int, after: int
) -> None:
    put(storage, "s/a", b"content")
    put(storage, "s/large", LARGE)
    write_tree(tmp_path, {"out/a": b"before", "out/large": b"before"})
    for name in ("a", "large"):
        (tmp_path / "out" / name).chmod(before)
    reply = run(storage, "objPull", {"rangeSize": "100000"}, **PULL)
    assert reply["status"] is True
    assert [mode(f"out/{name}") for name in ("a", "large")] == [after, after]
    assert read_tree(tmp_path / "out") == {"a": b"content", "large": LARGE}


def test_a_new_file_is_made_as_the_umask_has_it(storage: Storage) -> None:
    put(storage, "s/a", b"content")
    before = os.umask(0o027)
    try:
        run(storage, "objPull", **PULL)
    finally:
        os.umask(before)
    assert mode("out/a") == 0o640


def test_an_unfinished_replacement_has_no_more_permissions_than_the_file(tmp_path: Path) -> None:
    write_tree(tmp_path, {"out/a": b"before"})
    Path("out/a").chmod(0o640)
    with LocalTree("out").new_file(("a",)) as file:
        file.write(b"content")
        assert mode(f"out/{parts_in('out')[0]}") == 0o600
        Path("out/a").chmod(0o600)  # by somebody, meanwhile
        file.commit()
    assert mode("out/a") == 0o600


def test_a_file_for_its_owner_alone_replaces_one_that_is_for_all(tmp_path: Path) -> None:
    write_tree(tmp_path, {"out/a": b"before"})
    Path("out/a").chmod(0o644)
    with LocalTree("out").atomic_file(("a",), 0o600):
        pass
    assert mode("out/a") == 0o600


def test_the_target_of_a_link_that_is_replaced_counts(tmp_path: Path) -> None:
    write_tree(tmp_path, {"out/theirs": b"theirs"})
    Path("out/theirs").chmod(0o600)
    Path("out/a").symlink_to("theirs")
    with LocalTree("out").atomic_file(("a",)):
        pass
    assert mode("out/a") == 0o600


def test_an_object_of_a_store_of_files_keeps_its_mode(filesystem: Storage, tmp_path: Path) -> None:
    put(filesystem, "a", b"before")
    (tmp_path / "store" / "a").chmod(0o600)
    put(filesystem, "a", b"content")
    assert (mode("store/a"), get(filesystem, "a")) == (0o600, b"content")


def acl(*entries: tuple[int, int, int]) -> bytes:
    """Return an access list as the system keeps it (linux/posix_acl_xattr.h): tag, rights and id of each entry."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
FOR_ONE_MORE = acl((1, 6, NOBODY), (2, 4, 12345), (4, 0, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY))
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A directory whose file system knows access lists: ext4, XFS, Btrfs and tmpfs do."""
    write_tree(tmp_path, {"out/a": b"before"})
    os.setxattr("out/a", ACCESS, FOR_ONE_MORE)
    return tmp_path / "out"


def test_an_access_list_is_kept(lists: Path) -> None:
    """Without the access list, the permissions of its mask would be those of the group, which has none."""
    assert mode("out/a") == 0o640
    with LocalTree("out").atomic_file(("a",)):
        pass
    assert os.getxattr("out/a", ACCESS) == FOR_ONE_MORE


def test_an_access_list_that_the_directory_gives_to_new_files_is_not_had(lists: Path) -> None:
    os.setxattr("out", DEFAULT, FOR_ONE_MORE)
    os.removexattr("out/a", ACCESS)
    Path("out/a").chmod(0o640)
    with LocalTree("out").atomic_file(("a",)):
        pass
    assert mode("out/a") == 0o640
    with pytest.raises(OSError, match=os.strerror(errno.ENODATA)):
        os.getxattr("out/a", ACCESS)


def test_where_an_access_list_cannot_be_kept_the_file_is_for_its_owner(
    lists: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "setxattr", refuse(errno.EPERM))
    with LocalTree("out").atomic_file(("a",)):
        pass
    assert mode("out/a") == 0o600


@pytest.mark.parametrize("may", [True, False], ids=["may give away", "may not"])
def test_a_file_of_others_stays_theirs_or_becomes_the_owners_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, may: bool
) -> None:
    """Only the superuser may change the owner of a file. For others, a patched `os.stat` reports another owner."""
    write_tree(tmp_path, {"out/a": b"before"})
    Path("out/a").chmod(0o664)
    if os.geteuid() == 0:
        os.chown("out/a", 12345, 23456)
    if not may or os.geteuid() != 0:
        of_others = list(os.stat("out/a"))
        of_others[4:6] = 12345, 23456
        system_stat, name = os.stat, "a"

        def fake_stat(path: Any, **options: Any) -> os.stat_result:
            return os.stat_result(of_others) if path == name else system_stat(path, **options)

        monkeypatch.setattr(os, "stat", fake_stat)
        monkeypatch.setattr(os, "fchown", refuse(errno.EPERM))
        may = False
    with LocalTree("out").atomic_file(("a",)):
        pass
    monkeypatch.undo()
    os.chdir(tmp_path)
    status = os.stat("out/a")
    if may:
        assert (status.st_uid, status.st_gid, mode("out/a")) == (12345, 23456, 0o664)
    else:
        assert (status.st_uid, mode("out/a")) == (os.geteuid(), 0o600)


def test_a_mode_that_cannot_be_kept_is_an_error_if_others_would_gain_access(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {"out/a": b"before"})
    Path("out/a").chmod(0o400)
    monkeypatch.setattr(os, "fchmod", refuse(errno.EPERM))

    def write() -> None:
        with LocalTree("out").atomic_file(("a",)):
            pass

    with pytest.raises(OSError, match="can't have the permissions of the old one"):
        write()
    assert read_tree(tmp_path / "out") == {"a": b"before"}
    Path("out/a").chmod(0o644)  # to have less is no fault
    write()
    assert mode("out/a") == 0o600


# operations that a file system refuses


def mtime(path: Path | str) -> int:
    return os.stat(path).st_mtime_ns


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EACCES])
@pytest.mark.parametrize("durable", ["none", "file", "batch"])
def test_a_time_that_cannot_be_set_is_one_warning(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, durable: str
) -> None:
    tree = {f"{number}": b"content" for number in range(20)} | {"large": LARGE}
    write_tree(tmp_path / "data", tree)
    for name in tree:
        os.utime(tmp_path / "data" / name, ns=(10**18, 10**18))
    run(storage, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
    with monkeypatch.context() as patched:
        patched.setattr(os, "utime", refuse(number))
        reply = run(storage, "objPull", {"durable": durable, "rangeSize": "100000"}, **PULL, audit=True)
    assert (reply["status"], reply["failed"], reply["audit"]["same"]) == (True, [], 21)
    [warning] = reply["warnings"]
    assert os.strerror(number) in warning
    assert "'out/" in warning
    assert read_tree(tmp_path / "out") == tree
    assert mtime("out/1") != 10**18


def test_a_time_that_the_disk_fails_to_keep_is_an_error(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "s/a", b"content")
    run(storage, "objPut", file=__file__, inLocation="s", mapLocationOver=str(Path(__file__).parent))
    monkeypatch.setattr(os, "utime", refuse(errno.EIO))
    reply = run(storage, "objPull", **PULL)
    assert "s/test_replacing.py" in [row["object"] for row in reply["failed"]]
    assert "test_replacing.py" not in os.listdir("out")


def test_a_store_of_files_keeps_a_file_whose_time_it_cannot_set(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path / "data", {"a": b"aaa", "b": b"bbb"})
    for name in "ab":
        os.utime(tmp_path / "data" / name, ns=(10**18, 10**18))
    monkeypatch.setattr(os, "utime", refuse(errno.EPERM))
    reply = run(filesystem, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
    assert (reply["status"], reply["failed"]) == (True, [])
    [warning] = reply["warnings"]
    assert warning.startswith("the store did not take the time of files; the first was 's/")
    assert read_tree(tmp_path / "store") == {"s/a": b"aaa", "s/b": b"bbb"}


@pytest.mark.parametrize("durable", ["file", "batch"])
@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_where_nothing_can_be_brought_to_the_disk_files_are_kept_with_one_warning(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: str, number: int
) -> None:
    from pfstorage.local import disk

    for name in "abc":
        put(storage, f"s/{name}", b"content")
    libc_call = disk._libc_call
    monkeypatch.setattr(os, "fsync", refuse(number))
    monkeypatch.setattr(
        disk, "_libc_call", lambda name, kinds: refuse(number) if name == "syncfs" else libc_call(name, kinds)
    )
    reply = run(storage, "objPull", {"durable": durable}, **PULL)
    assert (reply["status"], len(reply["localFileList"])) == (True, 3)
    [warning] = reply["warnings"]
    assert "--durable" in warning
    assert os.strerror(number) in warning


def test_a_write_error_of_the_disk_is_an_error_at_the_sync(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "s/a", b"content")
    monkeypatch.setattr(os, "fsync", refuse(errno.EIO))
    reply = run(storage, "objPull", {"durable": "file"}, **PULL)
    assert (reply["status"], os.listdir("out")) == (False, [])


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY])
def test_room_need_not_be_had_in_advance(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from pfstorage.local import disk

    put(storage, "s/a", LARGE)
    libc_call = disk._libc_call
    monkeypatch.setattr(
        disk,
        "_libc_call",
        lambda name, kinds: refuse(number) if name.startswith("fallocate") else libc_call(name, kinds),
    )
    assert run(storage, "objPull", {"rangeSize": "100000"}, **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"a": LARGE}


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EBUSY, errno.ENOSYS])
def test_a_failed_rename_is_reported_and_loses_nothing(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(storage, "s/a", b"content")
    write_tree(tmp_path, {"out/a": b"before"})
    monkeypatch.setattr(os, "replace", refuse(number))
    reply = run(storage, "objPull", **PULL)
    assert reply["status"] is False
    assert "'out/a': can't rename a file to it" in reply["failed"][0]["msg"]
    assert read_tree(tmp_path / "out") == {"a": b"before"}


def test_a_file_that_can_be_removed_only_when_it_is_closed_is_removed_and_hides_no_reason(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def refused_if_open(name: str, *, dir_fd: int | None = None) -> None:
        at = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}") if dir_fd else "", name)
        for number in os.listdir("/proc/self/fd"):
            if os.path.realpath(f"/proc/self/fd/{number}") == at:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        unlink(name, dir_fd=dir_fd)

    put(storage, "s/a", b"content")
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSYS))
    monkeypatch.setattr(os, "unlink", refused_if_open)
    reply = run(storage, "objPull", **PULL)
    assert "'out/a': can't rename a file to it" in reply["failed"][0]["msg"]
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EPERM])
def test_a_file_system_without_locks_and_attributes_serves_both_ways(
    tmp_path: Path, filesystem: Storage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    import fcntl

    monkeypatch.setattr(fcntl, "flock", refuse(number))
    for name in ("setxattr", "getxattr", "removexattr"):
        monkeypatch.setattr(os, name, refuse(errno.ENOTSUP))
    write_tree(tmp_path / "data", {"a": b"aaa", "large": LARGE})
    meta = {"inLocation": "s", "mapLocationOver": "data", "audit": True}
    assert run(filesystem, "objPut", putSpec="data", **meta)["audit"]["status"] is True
    write_tree(tmp_path, {"out/a": b"before"})
    Path("out/a").chmod(0o640)
    assert run(filesystem, "objPull", **PULL, audit=True)["audit"]["status"] is True
    assert mode("out/a") == 0o640


# free space


def unknown_room(*values: int) -> Callable[[object], os.statvfs_result]:
    return lambda _: os.statvfs_result((*values, *([0] * (10 - len(values)))))


STATVFS: dict[str, Callable[[object], object]] = {
    "nothing is told": unknown_room(),
    "no blocks": unknown_room(4096, 4096),
    "blocks without a size": unknown_room(0, 0, 100, 50, 50),
    "not implemented": refuse(errno.ENOSYS),
    "not allowed": refuse(errno.EPERM),
    "not supported": refuse(errno.ENOTSUP),
}


@pytest.mark.parametrize("reported", STATVFS)
def test_unknown_space_counts_as_enough(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: str
) -> None:
    put(storage, "s/a", LARGE)
    monkeypatch.setattr(os, "statvfs", STATVFS[reported])
    assert run(storage, "objPull", {"rangeSize": "100000"}, **PULL)["status"] is True
    assert read_tree(tmp_path / "out") == {"a": LARGE}


def test_a_file_system_that_reports_one_block_size_counts_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", unknown_room(512, 0, 100, 60, 50))
    assert LocalTree("out").free_bytes() == 50 * 512


def test_a_full_disk_is_reported_before_the_first_byte(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(storage, "s/a", LARGE)
    monkeypatch.setattr(os, "statvfs", unknown_room(4096, 4096, 100, 50, 0))
    assert run(storage, "objPull", **PULL)["error"]["type"] == "FullDiskError"


@pytest.mark.parametrize(("kind", "options"), [("ramfs", ()), ("tmpfs", ("-o", "size=0"))])
def test_file_systems_of_no_size_take_files(
    storage: Storage, tmp_path: Path, kind: str, options: tuple[str, ...]
) -> None:
    put(storage, "s/a", LARGE)
    with mounted(tmp_path / "disk", kind, *options):
        assert os.statvfs("disk").f_blocks == 0
        reply = run(
            storage,
            "objPull",
            {"rangeSize": "100000"},
            fromLocation="s",
            mapLocationOver="disk/out",
            audit=True,
        )
        assert (reply["status"], read_tree(tmp_path / "disk")) == (True, {"out/a": LARGE})


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.ENOSPC])
def test_an_exhausted_quota_is_reported_as_a_full_disk(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """No quota shows in the room that a file system has."""
    put(storage, "s/a", b"content")
    write_tree(tmp_path, {"out/a": b"before"})
    monkeypatch.setattr(os, "write", refuse(number))
    reply = run(storage, "objPull", **PULL)
    assert reply["error"]["type"] == "FullDiskError"
    monkeypatch.undo()
    assert read_tree(tmp_path / "out") == {"a": b"before"}


# holes

MIB = 1024 * 1024


def sparse(path: Path, size: int) -> bytes:
    """Make a file of zeros, but for a few bytes in the middle and at the end; return its content."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        file.seek(size // 2)
        file.write(b"middle")
        file.seek(size - 3)
        file.write(b"end")
    return path.read_bytes()


def room(path: Path | str) -> int:
    return os.stat(path).st_blocks * 512


@pytest.mark.parametrize("range_size", ["1G", "1M"], ids=["at once", "ranges"])
def test_zeros_take_no_space(storage: Storage, tmp_path: Path, range_size: str) -> None:
    content = sparse(tmp_path / "data" / "a", 32 * MIB)
    assert room("data/a") < MIB
    run(storage, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
    reply = run(storage, "objPull", {"rangeSize": range_size}, **PULL, audit=True)
    assert (reply["status"], Path("out/a").read_bytes() == content) == (True, True)
    assert room("out/a") < 4 * MIB


def test_segments_of_zeros_take_no_room(swift: DevSwift, tmp_path: Path) -> None:
    content = sparse(tmp_path / "data" / "a", 32 * MIB)
    with open_storage(**swift_options(swift, segment_size=4 * MIB)) as storage:
        run(storage, "objPut", putSpec="data", inLocation="s", mapLocationOver="data")
        assert run(storage, "objPull", **PULL)["status"] is True
    assert Path("out/a").read_bytes() == content
    assert room("out/a") < 4 * MIB


def test_an_object_of_zeros_takes_no_room_in_a_store_of_files(filesystem: Storage, tmp_path: Path) -> None:
    content = sparse(tmp_path / "data" / "a", 8 * MIB)
    run(filesystem, "objPut", putSpec="data", inLocation="s", mapLocationOver="data", audit=True)
    assert get(filesystem, "s/a") == content
    assert room("store/s/a") < MIB


@pytest.mark.parametrize("size", [4095, 4096, 300_000, 262_144])
@pytest.mark.parametrize("where", ["all", "first", "last"])
def test_zeros_are_zeros_with_holes_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, where: str
) -> None:
    from pfstorage.local import disk

    content = {"all": bytes(size), "first": bytes(size) + b"x", "last": b"x" + bytes(size)}[where]
    parts = [content[:1], content[1:]] if where == "last" else [content[:size], content[size:]]
    for holes in (True, False):
        if not holes:
            monkeypatch.setattr(disk, "_libc_call", lambda *_: None)
            monkeypatch.setattr(os, "ftruncate", refuse(errno.EPERM))
        with LocalTree("out").atomic_file(("a",)) as file:
            for part in parts:
                file.write(part)
            assert file.read_at(size + 2, 0) == content
            assert file.size == len(content)
        assert Path("out/a").read_bytes() == content


def test_zeros_replace_the_bytes_of_a_failed_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pfstorage.local import disk

    for holes in (True, False):
        if not holes:
            monkeypatch.setattr(disk, "punch_hole", lambda *_: False)
        with LocalTree("out").atomic_file(("a",)) as file:
            file.preallocate(3 * 8192)
            file.write_at(b"damaged " * 1024, 8192)
            file.write_at(bytes(8192), 8192)
            file.write(b"x" * 8192)
            file.write(bytes(8192))
        assert Path("out/a").read_bytes() == b"x" * 8192 + bytes(2 * 8192)


def test_a_small_file_has_the_room_that_it_may_need(storage: Storage, tmp_path: Path) -> None:
    put(storage, "s/a", bytes(300_000))
    run(storage, "objPull", **PULL)
    assert room("out/a") >= 300_000


@pytest.mark.parametrize("name", ["jobs.lock", "jobs.sqlite"])
def test_the_state_of_jobs_is_not_kept_in_a_pipe(tmp_path: Path, name: str) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "state" / name, 0o644)
    with (
        pytest.raises(SettingsError, match="it is no regular file"),
        locked_directory(str(tmp_path / "state")),
    ):
        pass
    assert (is_special(tmp_path / "state" / name), mode(tmp_path / "state" / name)) == (True, 0o644)
