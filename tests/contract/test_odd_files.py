"""Odd files: the system reports a wrong size for them, they change, or they are no regular files."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import mmap
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import ByteRange
from pfstorage.devswift import DevSwift
from pfstorage.errors import IntegrityError, LocalFileError, RejectedError
from pfstorage.local import disk, open_body
from tests.conftest import open_backend, run, swift_options, write_tree
from tests.support.faults import Exchange, Fault, Proxy, is_object
from tests.support.local import in_threads, refuse
from tests.support.objects import get

VERSION = Path("/proc/version")
SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")
LARGE = random.Random(5).randbytes(2_000_000)
PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "data"}


def test_the_odd_files_of_these_tests_are_odd() -> None:
    assert VERSION.stat().st_size == 0 < len(VERSION.read_bytes())
    assert SYSTEM.stat().st_size == 4096 > len(SYSTEM.read_bytes()) > 0


# files with another size than the system reports


@pytest.mark.parametrize("path", [VERSION, SYSTEM])
@pytest.mark.parametrize("how", ["file", "fileList", "putSpec", "tree"])
def test_a_file_is_stored_to_its_end_for_each_reported_size(
    storage: Storage, tmp_path: Path, path: Path, how: str
) -> None:
    content = path.read_bytes()
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / path.name).symlink_to(path)
    meta: dict[str, Any] = {
        "file": {"file": str(path)},
        "fileList": {"fileList": [str(path)]},
        "putSpec": {"putSpec": str(path)},
        "tree": {"putSpec": "tree", "followSymlinks": True},
    }[how]
    over = "tree" if how == "tree" else str(path.parent)
    reply = run(storage, "objPut", inLocation="s", mapLocationOver=over, audit=True, **meta)
    assert (reply["status"], reply["audit"]["same"], reply["bytes"]) == (True, 1, len(content))
    assert get(storage, f"s/{path.name}") == content
    # and it is known again
    assert run(storage, "objPut", inLocation="s", mapLocationOver=over, **meta)["skipped"] == 1


@pytest.mark.parametrize("path", [VERSION, SYSTEM])
def test_an_object_without_the_bytes_of_a_file_is_never_certified(storage: Storage, path: Path) -> None:
    """Version 3.0.0 stored an empty object for such a file."""
    storage.put(f"s/{path.name}", io.BytesIO(), 0)
    meta = {"fromLocation": f"s/{path.name}", "mapLocationOver": str(path)}
    reply = run(storage, "objVerify", **meta)
    assert (reply["status"], reply["changed"]) == (False, [f"s/{path.name}"])
    content = path.read_bytes()
    storage.put(f"s/{path.name}", io.BytesIO(content), len(content))
    assert run(storage, "objVerify", **meta)["status"] is True
    # a pull that finds the same leaves it as it is, and need not be let write there
    assert run(storage, "objPull", **meta)["skipped"] == 1


def test_the_bytes_of_a_file_are_sent_again_when_the_line_breaks(proxy: Proxy, swift: DevSwift) -> None:
    with behind(proxy, swift) as storage:
        proxy.fault(Fault("reset", at=10, side="request"), "PUT", on={1})
        reply = run(storage, "objPut", file=str(VERSION), inLocation="s", mapLocationOver="/proc")
        assert (reply["status"], get(storage, "s/version")) == (True, VERSION.read_bytes())


def test_a_body_has_the_size_that_was_read(tmp_path: Path) -> None:
    for path in (VERSION, SYSTEM):
        content = path.read_bytes()
        with open_body(str(path)) as (body, size):
            assert (size, body.size, body.mtime_ns) == (len(content), len(content), path.stat().st_mtime_ns)
            assert body.part(1, 3).read() == content[1:4]
            assert body.read() == content


@pytest.mark.parametrize("reported", [0, 1, 4096, 299_999, 300_001, 10**12])
@pytest.mark.parametrize("seeks", [True, False], ids=["seeks", "goes on alone"])
def test_a_large_file_is_read_to_its_end_for_each_reported_size(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: int, seeks: bool
) -> None:
    """A gateway may report a wrong size. Here, a patched `os.fstat` does."""
    content = LARGE[:300_000]
    inode = os.stat(write_tree(tmp_path, {"data/a": content}) / "data" / "a").st_ino
    fstat, pread = os.fstat, os.pread

    def fake_fstat(descriptor: int) -> os.stat_result:
        status = fstat(descriptor)
        if status.st_ino != inode:
            return status
        # fields that have only a name must be given by their names
        return os.stat_result(
            (*status[:6], reported, *status[7:10]),
            {name: getattr(status, name) for name in ("st_mtime_ns", "st_ctime_ns", "st_atime_ns")},
        )

    def fake_pread(descriptor: int, size: int, offset: int) -> bytes:
        if not seeks and fstat(descriptor).st_ino == inode:
            raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))
        return pread(descriptor, size, offset)

    monkeypatch.setattr(os, "fstat", fake_fstat)
    monkeypatch.setattr(os, "pread", fake_pread)
    assert run(storage, "objPut", **PUT, audit=True)["audit"]["status"] is True
    assert get(storage, "s/a") == content
    assert run(storage, "objPull", **PULL)["skipped"] == 1


def test_a_store_of_files_on_such_a_file_system_reports_the_bytes_read(tmp_path: Path) -> None:
    with open_storage(type="filesystem", store_base="/proc/sys/kernel/random") as storage:
        row = storage.head("boot_id")
        content = get(storage, "boot_id")
        assert (len(content), row.size, row.etag) == (37, 37, hashlib.md5(content).hexdigest())
        reply = run(storage, "objPull", path="boot_id", fromLocation="boot_id", mapLocationOver="out")
        assert (reply["status"], Path("out").read_bytes()) == (True, content)


# files that change


def change_in_place(path: Path, offset: int = 0) -> None:
    """Write into the file and restore its time, as ``exiftool -P`` does."""
    status = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns


@pytest.mark.parametrize("size", [1000, 2_000_000])
@pytest.mark.parametrize("of", ["whole", "part"])
def test_a_change_with_the_old_time_is_found(tmp_path: Path, size: int, of: str) -> None:
    path = write_tree(tmp_path, {"a": LARGE[:size]}) / "a"
    with open_body("a") as (whole, _):
        body = whole if of == "whole" else whole.part(100, size - 100)
        assert len(body.read(500)) == 500
        change_in_place(path)
        with pytest.raises(LocalFileError, match="changed while it was read"):
            body.read()


def sets_time_for_mappings(directory: Path) -> bool:
    """Return whether a write through a mapping sets the time here, after the page went to the disk.

    It does on ext4, XFS and Btrfs, and not where the pages of a file are others than those of its disk: tmpfs, overlay.
    """
    path = write_tree(directory, {"mapped": b"x"}) / "mapped"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[0] ^= 1
        disk.write_back(file.fileno())
        before = os.fstat(file.fileno()).st_ctime_ns
        mapping[0] ^= 1
        return os.fstat(file.fileno()).st_ctime_ns != before


@pytest.mark.parametrize("size", [1000, 2_000_000])
def test_a_write_through_a_mapping_is_found(tmp_path: Path, size: int) -> None:
    """One to a page that was written before sets no time, until the page is on its way to the disk."""
    path = write_tree(tmp_path, {"a": LARGE[:size]}) / "a"
    if size > 1000 and not sets_time_for_mappings(tmp_path):
        pytest.skip("the file system of the temporary directory sets no time for writes through a mapping")
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        mapping[size - 1] ^= 1
        with open_body("a") as (body, _):
            assert len(body.read(500)) == 500
            mapping[size - 1] ^= 1
            with pytest.raises(LocalFileError, match="changed while it was read"):
                body.read()


def test_a_write_through_a_mapping_is_found_also_after_others_while_the_file_is_yet_to_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_tree(tmp_path, {"a": LARGE}) / "a"
    if not sets_time_for_mappings(tmp_path):
        pytest.skip("the file system of the temporary directory sets no time for writes through a mapping")
    sleep, slept = time.sleep, []

    def write_and_sleep(seconds: float) -> None:
        slept.append(seconds)
        mapping[0] ^= 1
        sleep(seconds)

    with (
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
        contextlib.ExitStack() as opened,
    ):
        monkeypatch.setattr(time, "sleep", write_and_sleep)
        while not slept:
            os.utime(path)  # the file was changed just now, unless this machine pauses
            body, _ = opened.enter_context(open_body("a"))
        body.read(500)
        mapping[0] ^= 1
        with pytest.raises(LocalFileError, match="changed while it was read"):
            body.read()


@pytest.mark.parametrize("directory", ["/dev/shm", "."])
def test_a_file_that_was_written_just_now_is_read_when_its_next_change_will_be_visible(
    directory: str, tmp_path: Path
) -> None:
    path = Path(directory) / f"pfstorage-test-{os.getpid()}"
    try:
        for permit in range(30):
            path.write_bytes(LARGE[:1_000_000])
            with open_body(str(path)) as (body, _):
                body.read(10)
                with path.open("r+b") as file:
                    os.pwrite(file.fileno(), b"other", 500_000 + permit)
                with pytest.raises(LocalFileError, match="changed while it was read"):
                    body.read()
    finally:
        path.unlink(missing_ok=True)


def test_a_file_that_is_begun_while_it_is_stored_is_not_stored_empty(
    storage: Storage, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"a": b""})
    with open_body("a") as (body, size):
        (tmp_path / "a").write_bytes(b"begun")
        with pytest.raises(LocalFileError, match="changed"):
            storage.put("a", body, size)
    assert run(storage, "objExists", obj="a")["status"] is False


@contextlib.contextmanager
def behind(proxy: Proxy, swift: DevSwift, **options: Any) -> Iterator[Storage]:
    with open_storage(**swift_options(swift, workers=1, **options, auth_url=proxy.auth_url)) as storage:
        yield storage


def at_the_first(method: str, proxy: Proxy, call: Callable[[], None], count: int = 1) -> None:
    """Make *call* when each of the first *count* requests of *method* for an object reaches the proxy."""
    calls = [call] * count

    def strike(exchange: Exchange) -> bool:
        if is_object(exchange) and calls:
            calls.pop()()
        return False

    proxy.fault(Fault("answer"), method, where=strike)


@pytest.mark.parametrize("segment_size", [4_000_000, 10**9], ids=["segments", "streamed"])
@pytest.mark.parametrize("change", ["in place", "mapping"])
@pytest.mark.parametrize("changes", [1, 2])
def test_no_store_gets_a_mixture_of_a_file_whose_time_is_set_back(
    proxy: Proxy, swift: DevSwift, tmp_path: Path, segment_size: int, change: str, changes: int
) -> None:
    if change == "mapping" and not sets_time_for_mappings(tmp_path):
        pytest.skip("the file system of the temporary directory sets no time for writes through a mapping")
    content = LARGE * 8  # more than the network and the buffers hold at once
    path = write_tree(tmp_path, {"data/a": content}) / "data" / "a"

    def write() -> None:
        if change == "in place":
            change_in_place(path, len(content) - 1)
        else:
            mapping[0] ^= 1
            mapping[len(content) - 1] ^= 1

    with (
        behind(proxy, swift, segment_size=segment_size) as storage,
        path.open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as mapping,
    ):
        mapping[0] ^= 0
        put(storage, "other", b"x")
        at_the_first("PUT", proxy, write, changes)
        reply = run(storage, "objPut", **PUT)
        assert reply["status"] is (changes == 1)  # it is read twice
        if changes == 2:
            assert [row.key for row in storage.list()] == ["other"]
            assert reply["error"]["type"] == "FileChangedError"
            assert "changed while it was read" in reply["failed"][0]["msg"]
            assert run(storage, "objPut", **PUT)["status"] is True
        assert get(storage, "s/a") == path.read_bytes()


def make_link(path: Path) -> None:
    (path.parent.parent / "link").hardlink_to(path)


def rename_over(path: Path) -> None:
    other = path.parent.parent / "other"
    other.write_bytes(b"another")
    other.rename(path)


def change_rights(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("segment_size", [4_000_000, 10**9], ids=["segments", "streamed"])
@pytest.mark.parametrize("change", [make_link, rename_over, change_rights])
def test_a_file_whose_status_alone_changes_while_it_is_pushed_is_stored(
    proxy: Proxy, swift: DevSwift, tmp_path: Path, segment_size: int, change: Callable[[Path], None]
) -> None:
    path = write_tree(tmp_path, {"data/a": LARGE * 8}) / "data" / "a"
    with behind(proxy, swift, segment_size=segment_size) as storage:
        put(storage, "other", b"x")
        at_the_first("PUT", proxy, lambda: change(path))
        assert run(storage, "objPut", **PUT)["status"] is True
        assert get(storage, "s/a") == path.read_bytes()


@pytest.mark.parametrize("size", [1000, 600_000])
def test_a_stored_file_is_compared_by_its_bytes_for_each_time(
    storage: Storage, tmp_path: Path, size: int
) -> None:
    path = write_tree(tmp_path, {"data/a": LARGE[:size]}) / "data" / "a"
    assert run(storage, "objPut", **PUT)["status"] is True
    change_in_place(path)
    assert run(storage, "objVerify", **PULL)["changed"] == ["s/a"]
    assert run(storage, "objPut", **PUT, audit=True)["audit"]["status"] is True
    assert get(storage, "s/a") == path.read_bytes()
    change_in_place(path)
    assert run(storage, "objPull", **PULL)["skipped"] == 0
    assert path.read_bytes() == get(storage, "s/a")


@pytest.fixture
def filesystem(tmp_path: Path) -> Iterator[Storage]:
    with open_backend("filesystem", None, tmp_path) as storage:  # type: ignore[arg-type]
        yield storage


def put(storage: Storage, key: str, content: bytes) -> None:
    storage.put(key, io.BytesIO(content), len(content))


def etags(storage: Storage) -> dict[str, str]:
    return {row.key: row.etag for row in storage.list()}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def wait_for_a_tick(path: Path) -> None:
    """Wait until the next change of a file gets another time than the last one."""
    while time.time_ns() - path.stat().st_ctime_ns < 20_000_000:
        time.sleep(0.001)


@pytest.mark.parametrize("size", [0, 20, 2_000_000])
def test_a_file_written_into_a_store_with_its_old_time_is_no_valid_object(
    filesystem: Storage, tmp_path: Path, size: int
) -> None:
    """The change may be intended or damage by the disk. No reader may take the content for the stored object."""
    content = LARGE[:size] or b"x"
    path = tmp_path / "store" / "s" / "a"
    write_tree(tmp_path, {"data/a": content})
    assert run(filesystem, "objPut", **PUT)["status"] is True
    wait_for_a_tick(path)
    change_in_place(path)
    assert etags(filesystem) == {"s/a": f"{md5(content)}-{md5(path.read_bytes())}"}
    assert filesystem.head("s/a").md5 == ""
    for _ in range(2):
        with pytest.raises(IntegrityError):
            get(filesystem, "s/a")
        with pytest.raises(IntegrityError, match="push it again"):
            filesystem.copy("s/a", "b")
    assert run(filesystem, "objVerify", **PULL)["status"] is False
    assert run(filesystem, "objPull", fromLocation="s", mapLocationOver="out")["failed"][0]["object"] == "s/a"
    assert run(filesystem, "objPut", **PUT, audit=True)["audit"]["status"] is True
    assert get(filesystem, "s/a") == content
    wait_for_a_tick(path)
    change_in_place(path)
    path.touch()  # as a person who intends the change does
    assert etags(filesystem) == {"s/a": md5(path.read_bytes())}
    assert get(filesystem, "s/a") == path.read_bytes() != content


def test_the_records_of_an_older_version_are_read_once(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store" / "a"
    put(filesystem, "a", b"content")
    status = path.stat()
    stamp = f"{status.st_size}:{status.st_mtime_ns}:{status.st_ino}"
    os.setxattr(path, "user.pfstorage.md5", f"{md5(b'content')} {stamp}".encode())
    assert etags(filesystem) == {"a": md5(b"content")}
    monkeypatch.setattr(os, "pread", refuse(errno.EIO))
    assert etags(filesystem) == {"a": md5(b"content")}


def test_the_md5_that_is_kept_outlives_its_keeping(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test a stored object, and an MD5 that was computed for a file that another program wrote long ago."""
    put(filesystem, "a", b"content")
    write_tree(tmp_path / "store", {"old": b"old"})
    os.utime(tmp_path / "store" / "old", ns=(10**9, 10**9))
    expected = {"a": md5(b"content"), "old": md5(b"old")}
    assert etags(filesystem) == expected
    monkeypatch.setattr(os, "pread", refuse(errno.EIO))
    assert etags(filesystem) == expected


def test_a_changed_mode_changes_no_object(filesystem: Storage, tmp_path: Path) -> None:
    put(filesystem, "a", b"content")
    wait_for_a_tick(tmp_path / "store" / "a")
    (tmp_path / "store" / "a").chmod(0o640)
    assert (etags(filesystem), get(filesystem, "a")) == ({"a": md5(b"content")}, b"content")


@pytest.mark.parametrize("change", ["content", "time", "rights"])
@pytest.mark.parametrize("of", ["whole", "part"])
def test_an_object_is_given_out_if_it_is_not_written_into_meanwhile(
    filesystem: Storage, tmp_path: Path, change: str, of: str
) -> None:
    path = tmp_path / "store" / "a"
    put(filesystem, "a", LARGE)
    wait_for_a_tick(path)
    calls = {
        "content": lambda: change_in_place(path, 1_999_999),
        "time": lambda: path.write_bytes(LARGE),
        "rights": lambda: path.chmod(0o640),
    }

    class Sink:
        def __init__(self) -> None:
            self.size = 0

        def write(self, data: bytes | memoryview) -> None:
            if not self.size:
                calls[change]()
            self.size += len(data)

    sink = Sink()
    byte_range = ByteRange(1, 1_999_998, md5(LARGE)) if of == "part" else None
    if change == "rights":
        filesystem.get("a", sink, byte_range)
    else:
        with pytest.raises(RejectedError, match="another object by now"):
            filesystem.get("a", sink, byte_range)


def test_simultaneous_md5_computations_disturb_nobody(filesystem: Storage, tmp_path: Path) -> None:
    for permit in range(5):
        name = f"a{permit}"
        write_tree(tmp_path / "store", {name: LARGE})

        def look(name: str = name) -> None:
            for _ in range(3):
                assert filesystem.head(name).etag == md5(LARGE)
                assert get(filesystem, name) == LARGE

        assert in_threads([look] * 4) == []


def test_a_file_that_is_written_all_the_time_spoils_no_listing(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(filesystem, "z", b"z")
    path = write_tree(tmp_path / "store", {"log": b""}) / "log"
    pread = os.pread

    def then_write(descriptor: int, size: int, offset: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"more")
        return pread(descriptor, size, offset) if offset < 40 else b""

    monkeypatch.setattr(os, "pread", then_write)
    assert etags(filesystem) == {"log": "", "z": md5(b"z")}
