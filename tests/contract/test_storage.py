"""The contract of a storage, kept by every backend."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.contract import CHUNK, Attributes, ByteRange
from pfstorage.backends.errors import PreconditionFailedError, RangeNotSatisfiableError
from pfstorage.backends.filesystem import listing as filesystem_listing
from pfstorage.backends.filesystem.info import ObjectFile
from pfstorage.backends.streams import HashedBody
from pfstorage.errors import (
    ContainerNotFoundError,
    ExistsError,
    InvalidKeyError,
    LocalFileError,
    NotFoundError,
    PermissionDeniedError,
    RejectedError,
    StorageError,
    UnavailableError,
)
from pfstorage.local import LocalTree
from pfstorage.local.unfinished import UNFINISHED_PREFIX, UNFINISHED_SUFFIX
from tests.conftest import BACKENDS, open_backend, write_tree
from tests.support.local import refuse
from tests.support.objects import get, keys, put

ODD_KEYS = [
    "plain",
    "with space/and  two",
    "hash#question?percent%25&amp,;=+",
    "new\nline/tab\t/return\r",
    "Müller/Ünïcödé/日本語/🩻",
    "NFC-\u00e9",
    "NFD-e\u0301",
    ".hidden/..dots/...",
    "quote'double\"back\\slash",
    "-dash/~tilde/$dollar/*star",
    "x" * 250 + "/" + "y" * 250,
]


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_object_with_an_odd_key_comes_back(storage: Storage, key: str) -> None:
    put(storage, key, key.encode())
    assert get(storage, key) == key.encode()
    assert keys(storage) == [key]
    assert storage.head(key).size == len(key.encode())


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3_000_000])
def test_every_size_comes_back_whole(storage: Storage, size: int) -> None:
    content = random.Random(size).randbytes(size)
    etag = put(storage, "object", content)
    assert get(storage, "object") == content
    assert etag == hashlib.md5(content).hexdigest()


def test_put_head_get_and_list_agree_on_size_etag_and_type(storage: Storage) -> None:
    content = b"0123456789"
    put_info = storage.put("a/b.dcm", io.BytesIO(content), len(content))
    infos = [put_info, storage.head("a/b.dcm"), storage.get("a/b.dcm", io.BytesIO()), *storage.list()]
    assert {(info.key, info.size, info.etag, info.content_type) for info in infos} == {
        ("a/b.dcm", 10, hashlib.md5(content).hexdigest(), "application/dicom")
    }
    assert all(info.last_modified[:2] == "20" and info.last_modified[10] == "T" for info in infos)


def test_a_put_replaces_the_object(storage: Storage) -> None:
    put(storage, "a", b"a longer first content")
    put(storage, "a", b"second")
    assert get(storage, "a") == b"second"
    assert [row.size for row in storage.list()] == [6]


def test_a_body_is_read_from_its_current_position(storage: Storage) -> None:
    body = io.BytesIO(b"skipped|kept")
    body.seek(8)
    storage.put("a", body, 4)
    assert get(storage, "a") == b"kept"


@pytest.mark.parametrize("size", [3, 20])
def test_a_body_of_another_size_is_refused_and_nothing_is_replaced(storage: Storage, size: int) -> None:
    put(storage, "a", b"first")
    with pytest.raises(LocalFileError, match="changed its length"):
        storage.put("a", io.BytesIO(b"0123456789"), size)
    assert get(storage, "a") == b"first"
    assert keys(storage) == ["a"]


def test_the_error_of_a_body_passes_through_and_nothing_is_replaced(storage: Storage) -> None:
    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise LocalFileError("the disk of this body is broken")

    put(storage, "a", b"first")
    with pytest.raises(LocalFileError, match="broken"):
        storage.put("a", Broken(b"0123"), 4)
    assert get(storage, "a") == b"first"


def test_the_error_of_a_sink_passes_through(storage: Storage) -> None:
    class Full:
        def write(self, data: bytes, /) -> int:
            raise OSError(28, "No space left on device")

    put(storage, "a")
    with pytest.raises(OSError, match="No space left"):
        storage.get("a", Full())
    assert get(storage, "a") == b"content"


class MetadataSink(io.BytesIO):
    """A sink that receives the metadata before the bytes."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.infos: list[ObjectInfo] = []

    def begin(self, info: ObjectInfo) -> None:
        assert not self.getvalue()
        self.infos.append(info)
        if self.error:
            raise self.error


@pytest.mark.parametrize("content", [b"0123456789", b""])
def test_a_sink_gets_the_metadata_before_the_first_byte(storage: Storage, content: bytes) -> None:
    put(storage, "a", content)
    sink = MetadataSink()
    info = storage.get("a", sink)
    assert (sink.infos, sink.getvalue()) == ([info], content)
    assert info == storage.head("a")


@pytest.mark.parametrize(
    "error", [UnavailableError("it is away"), NotFoundError("there is none"), KeyError("x")]
)
@pytest.mark.parametrize("size", [10, 3 * CHUNK])
def test_an_error_that_a_sink_raises_for_the_metadata_passes_through(
    storage: Storage, error: Exception, size: int
) -> None:
    put(storage, "a", bytes(size))
    sink = MetadataSink(error)
    with pytest.raises(type(error)) as caught:
        storage.get("a", sink)
    assert caught.value is error
    assert (len(sink.infos), sink.getvalue()) == (1, b"")
    assert get(storage, "a") == bytes(size)


@pytest.mark.parametrize(
    ("byte_range", "part"),
    [
        (ByteRange(3), slice(3, None)),
        (ByteRange(0), slice(None)),
        (ByteRange(3, 4), slice(3, 7)),
        (ByteRange(3, 400), slice(3, None)),
        (ByteRange(-3), slice(-3, None)),
        (ByteRange(-300), slice(None)),
    ],
)
def test_a_range_is_cut_to_the_object(storage: Storage, byte_range: ByteRange, part: slice) -> None:
    content = b"0123456789"
    etag = put(storage, "a", content)
    for each in (byte_range, replace(byte_range, etag=etag)):
        sink = MetadataSink()
        storage.get("a", sink, each)
        assert sink.getvalue() == content[part]
        assert [(info.size, info.etag) for info in sink.infos] == [(10, etag)]
    with pytest.raises(RejectedError) as caught:
        storage.get("a", io.BytesIO(), replace(byte_range, etag="0" * 32))
    assert isinstance(caught.value, PreconditionFailedError)


@pytest.mark.parametrize("byte_range", [ByteRange(10), ByteRange(10**18), ByteRange(10, 1), ByteRange(11, 5)])
@pytest.mark.parametrize("content", [b"0123456789", b""])
def test_a_range_without_bytes_is_refused(storage: Storage, byte_range: ByteRange, content: bytes) -> None:
    put(storage, "a", content)
    with pytest.raises(RejectedError) as caught:
        storage.get("a", io.BytesIO(), byte_range)
    assert isinstance(caught.value, RangeNotSatisfiableError)


@pytest.mark.parametrize("operation", ["head", "get", "delete", "copy"])
def test_a_missing_key_is_not_found(storage: Storage, operation: str) -> None:
    put(storage, "there/a")
    calls = {
        "head": lambda: storage.head("there"),
        "get": lambda: storage.get("there", io.BytesIO()),
        "delete": lambda: storage.delete("there"),
        "copy": lambda: storage.copy("there", "elsewhere"),
    }
    with pytest.raises((NotFoundError, InvalidKeyError)):
        calls[operation]()
    assert keys(storage) == ["there/a"]


@pytest.mark.parametrize(
    "key", ["", "a/../b", "..", "a/.", "./a", "nul\0", "x" * 1025, "lone\ud800surrogate"]
)
@pytest.mark.parametrize("operation", ["head", "get", "put", "delete", "copy"])
def test_a_hostile_key_is_refused_by_every_operation(storage: Storage, operation: str, key: str) -> None:
    put(storage, "b", b"untouched")
    calls = {
        "head": lambda: storage.head(key),
        "get": lambda: storage.get(key, io.BytesIO()),
        "put": lambda: storage.put(key, io.BytesIO(b"x"), 1),
        "delete": lambda: storage.delete(key),
        "copy": lambda: storage.copy("b", key),
    }
    with pytest.raises(StorageError) as caught:
        calls[operation]()
    assert isinstance(caught.value, InvalidKeyError | NotFoundError)
    assert get(storage, "b") == b"untouched"
    assert keys(storage) == ["b"]


def test_a_deleted_object_is_gone(storage: Storage) -> None:
    put(storage, "a/b/c")
    put(storage, "a/d")
    storage.delete("a/b/c")
    assert keys(storage) == ["a/d"]
    storage.delete("a/d")
    assert keys(storage) == []


def test_a_copy_holds_the_same_and_the_source_stays(storage: Storage) -> None:
    etag = put(storage, "a b#", b"content")
    assert storage.copy("a b#", "c/d é?").etag == etag
    assert get(storage, "c/d é?") == get(storage, "a b#") == b"content"


def test_a_copy_has_the_type_and_the_time_of_its_source(storage: Storage) -> None:
    own = Attributes("text/x-own", 1_000_000_000_123_456_000)
    storage.put("a.dcm", io.BytesIO(b"content"), 7, own)
    storage.copy("a.dcm", "b.json")
    info = storage.head("b.json")
    assert (info.content_type, info.mtime_ns) == (own.content_type, own.mtime_ns)


@pytest.mark.parametrize("mtime_ns", [2**63, -(2**63) - 1, 2**63 * 10**9])
def test_a_time_may_need_more_than_64_bits(storage: Storage, mtime_ns: int) -> None:
    storage.put("a", io.BytesIO(b"content"), 7, Attributes(mtime_ns=mtime_ns))
    assert get(storage, "a") == b"content"


@pytest.fixture
def listed(storage: Storage) -> Storage:
    for key in ("a", "a-b", "a.txt", "b/a", "b/c/d", "b/c/e", "b0", "ä", "日", "\U0001f600"):
        put(storage, key)
    return storage


def test_a_listing_is_in_the_order_of_the_bytes(listed: Storage) -> None:
    assert keys(listed) == ["a", "a-b", "a.txt", "b/a", "b/c/d", "b/c/e", "b0", "ä", "日", "\U0001f600"]


def test_a_prefix_is_a_plain_string(listed: Storage) -> None:
    assert keys(listed, "a") == ["a", "a-b", "a.txt"]
    assert keys(listed, "b/c") == ["b/c/d", "b/c/e"]
    assert keys(listed, "b/c/d") == ["b/c/d"]
    assert keys(listed, "nothing") == []


def test_a_listing_begins_after_the_marker_and_ends_at_the_limit(listed: Storage) -> None:
    assert keys(listed, start_after="b/c/d", limit=2) == ["b/c/e", "b0"]
    assert keys(listed, "b/", start_after="b/a") == ["b/c/d", "b/c/e"]
    assert keys(listed, start_after="zzz", limit=1) == ["ä"]
    assert keys(listed, limit=1) == ["a"]


@pytest.mark.parametrize("character", ["\x01", "0", "é", "日", "\U0001f600", "\U0010ffff"])
def test_a_marker_may_be_longer_than_a_key(listed: Storage, character: str) -> None:
    for marker in (character * 5000, f"b/c/d{character * 5000}", f"{'a' * 1022}{character * 5000}"):
        assert keys(listed, start_after=marker) == [key for key in keys(listed) if key > marker]


def test_a_long_marker_ends_where_keys_do(storage: Storage) -> None:
    begin = f"{'b' * 200}/" * 5 + "b" * 16
    long = ["a/" * 500 + "c" * 20, *(begin + last for last in ("", "a", "é", "日"))]
    for key in long:
        put(storage, key)
    for key in long:
        for more in ("a", "é", "日", "\U0001f600"):
            marker = key + more * 3000
            assert keys(storage, start_after=marker) == [each for each in long if each > marker]


def test_a_delimiter_that_is_longer_than_a_key_is_in_none(listed: Storage) -> None:
    for delimiter in ("/" * 16_000, "é" * 600):
        assert keys(listed, "b", delimiter=delimiter) == keys(listed, "b")


def test_a_delimiter_rolls_keys_up(listed: Storage) -> None:
    rows = list(listed.list("", delimiter="/", limit=5))
    assert [row.key for row in rows] == ["a", "a-b", "a.txt", "b/", "b0"]
    assert [row.is_subdir for row in rows] == [False, False, False, True, False]
    assert keys(listed, "b/", delimiter="/") == ["b/a", "b/c/"]
    assert keys(listed, "b/", delimiter="/", start_after="b/c/") == []


def test_a_listing_goes_page_by_page(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pfstorage.backends.swift.listing.ROWS_PER_PAGE", 3)
    expected = [f"object-{number}" for number in range(7)]
    for key in expected:
        put(storage, key)
    assert keys(storage) == expected
    assert keys(storage, limit=6) == expected[:6]


def test_a_storage_without_a_container_says_so_and_a_put_makes_one(storage: Storage) -> None:
    with pytest.raises(ContainerNotFoundError):
        keys(storage)
    with pytest.raises(NotFoundError):
        storage.head("a")
    put(storage, "a")
    assert keys(storage) == ["a"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_put_makes_no_container_where_the_settings_forbid_it(
    backend: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with open_backend(backend, request, tmp_path, auto_create_container=False) as storage:
        with pytest.raises(ContainerNotFoundError):
            put(storage, "a")
        with pytest.raises(ContainerNotFoundError):
            keys(storage)


def test_a_directory_marker_comes_back(storage: Storage) -> None:
    put(storage, "empty/directory/", b"")
    put(storage, "other")
    assert keys(storage) == ["empty/directory/", "other"]
    assert storage.head("empty/directory/").size == 0
    assert get(storage, "empty/directory/") == b""


def test_many_threads_may_use_one_storage(storage: Storage) -> None:
    def work(number: int) -> bytes:
        key = f"thread/{number % 10}/{number}"
        put(storage, key, key.encode() * 1000)
        assert storage.head(key).size == len(key) * 1000
        return get(storage, key)

    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(160)))
    assert results == [f"thread/{number % 10}/{number}".encode() * 1000 for number in range(160)]
    assert len(keys(storage, "thread/")) == 160


def test_two_writers_of_one_key_leave_one_whole_object(storage: Storage) -> None:
    contents = [bytes([number]) * 300_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: put(storage, "contended", content), contents))
    assert get(storage, "contended") in contents
    assert keys(storage) == ["contended"]


def test_work_under_way_ends_well_when_a_storage_is_closed(storage: Storage) -> None:
    put(storage, "a", b"x" * 1_000_000)

    class ClosingSink(io.BytesIO):
        def write(self, data: object, /) -> int:
            storage.close()
            return super().write(data)  # type: ignore[arg-type]

    sink = ClosingSink()
    storage.get("a", sink)
    assert sink.getvalue() == b"x" * 1_000_000


@pytest.fixture
def filesystem(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Storage]:
    with open_backend("filesystem", request, tmp_path) as storage:
        yield storage


def test_a_file_put_into_the_directory_by_hand_is_an_object(filesystem: Storage, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "by-hand.txt").write_bytes(b"hello")
    [row] = filesystem.list()
    assert (row.key, row.size, row.etag) == ("by-hand.txt", 5, hashlib.md5(b"hello").hexdigest())


def test_a_file_changed_by_hand_gets_a_new_etag(filesystem: Storage, tmp_path: Path) -> None:
    put(filesystem, "a", b"first")
    (tmp_path / "store" / "a").write_bytes(b"other")
    assert filesystem.head("a").etag == hashlib.md5(b"other").hexdigest()
    assert get(filesystem, "a") == b"other"


@pytest.mark.parametrize("is_unfinished", [True, False], ids=["a part", "the whole"])
def test_an_object_that_is_written_over_while_it_is_read_is_not_given_out(
    filesystem: Storage, tmp_path: Path, is_unfinished: bool
) -> None:
    """Other programs write into existing files, so a reader may get bytes of two objects."""

    class Interrupted(io.BytesIO):
        def write(self, chunk: Any, /) -> int:
            with path.open("r+b") as file:
                file.write(b"y" * size)
            return super().write(chunk)

    size = 3 * CHUNK
    etag = put(filesystem, "a", b"x" * size)
    path = tmp_path / "store" / "a"
    time.sleep(0.02)  # the clock of the file system ticks
    sink = Interrupted()
    with pytest.raises(RejectedError, match="another object by now"):
        filesystem.get("a", sink, ByteRange(0, size - 1, etag) if is_unfinished else None)
    assert sink.getvalue() == b"x" * CHUNK


def test_an_object_that_is_written_over_while_it_is_copied_is_not_copied(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupting(HashedBody):
        def read(self, size: int = -1) -> bytes:
            chunk = super().read(size)
            with (tmp_path / "store" / "a").open("r+b") as file:
                file.write(b"y" * 3 * CHUNK)
            return chunk

    put(filesystem, "a", b"x" * 3 * CHUNK)
    time.sleep(0.02)
    monkeypatch.setattr("pfstorage.backends.filesystem.store.HashedBody", Interrupting)
    with pytest.raises(RejectedError, match="another object by now"):
        filesystem.copy("a", "b")
    assert keys(filesystem) == ["a"]


@pytest.mark.parametrize("content", [b"yyy", b"xxxx"], ids=["other bytes", "more bytes"])
def test_bytes_that_were_just_read_may_be_of_another_object(tmp_path: Path, content: bytes) -> None:
    """The store reads the status of the file after its bytes, which may have changed in between."""
    path = tmp_path / "a"
    path.write_bytes(b"xxx")
    with path.open("rb", buffering=0) as file:

        class Changing:
            def read(self, size: int) -> bytes:
                path.write_bytes(content)
                os.utime(path, ns=(before, before + (content == b"yyy")))
                return file.read(size)

            def fileno(self) -> int:
                return file.fileno()

        opened = ObjectFile("a", Changing())  # type: ignore[arg-type]
        before = opened.info.mtime_ns
        assert before is not None
        with pytest.raises(RejectedError, match="another object by now"):
            opened.read(2)


def test_a_directory_with_objects_is_no_marker(filesystem: Storage) -> None:
    put(filesystem, "d/a")
    with pytest.raises(InvalidKeyError, match="has objects below it"):
        put(filesystem, "d/", b"")
    assert keys(filesystem) == ["d/a"]


def test_a_marker_that_is_not_there_is_not_copied(filesystem: Storage) -> None:
    put(filesystem, "a")
    with pytest.raises(NotFoundError):
        filesystem.copy("d/", "e/")
    assert keys(filesystem) == ["a"]


def test_a_directory_with_the_name_of_an_unfinished_file_spoils_no_listing(
    filesystem: Storage, tmp_path: Path
) -> None:
    put(filesystem, "a")
    directory = tmp_path / "store" / f"{UNFINISHED_PREFIX}0{UNFINISHED_SUFFIX}"
    directory.mkdir()
    (directory / "x").write_bytes(b"")
    assert keys(filesystem) == ["a"]


def test_a_directory_that_may_not_be_read_is_named(
    filesystem: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def scan(directory: int) -> object:
        if os.readlink(f"/proc/self/fd/{directory}").endswith("/d/closed"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return scandir(directory)

    put(filesystem, "a")
    put(filesystem, "d/closed/b")
    put(filesystem, "e")
    scandir = os.scandir
    monkeypatch.setattr("os.scandir", scan)
    for prefix in ("", "d/"):
        with pytest.raises(PermissionDeniedError, match="'d/closed/'") as caught:
            keys(filesystem, prefix)
        assert caught.value.facts["key"] == "d/closed/"
    assert keys(filesystem, "e") == ["e"]


@pytest.mark.parametrize("instead", ["link", "file", "gone"])
@pytest.mark.parametrize("name", ["d", "f"])
def test_a_directory_replaced_during_a_listing_leads_nowhere_and_spoils_nothing(
    filesystem: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, instead: str
) -> None:
    def swap(directory: int) -> Iterable[str] | None:
        names = entries(directory)
        if isinstance(names, tuple) and "z" in names and not (tmp_path / "away").exists():
            path = tmp_path / "store" / name
            path.rename(tmp_path / "away")
            if instead == "link":
                path.symlink_to(tmp_path / "outside")
            elif instead == "file":
                path.mkdir() if name == "f" else path.write_bytes(b"")
        return names

    for key in ("a", "d/x", "f", "z"):
        put(filesystem, key)
    (tmp_path / "outside" / "DOE^JANE").mkdir(parents=True)
    entries = filesystem_listing._sorted_names
    monkeypatch.setattr(filesystem_listing, "_sorted_names", swap)
    assert keys(filesystem) == [key for key in ("a", "d/x", "f", "z") if key[0] != name]
    assert (tmp_path / "away").exists()


def test_a_directory_whose_files_may_not_be_looked_at_is_named(
    filesystem: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names can be read in a directory of the mode 0444, and no more."""

    def refuse_file(_: LocalTree, parts: tuple[str, ...]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    put(filesystem, "d/a")
    monkeypatch.setattr(LocalTree, "open_file", refuse_file)
    monkeypatch.setattr(LocalTree, "status", refuse_file)
    with pytest.raises(PermissionDeniedError, match="'d/a'"):
        keys(filesystem)


def test_a_marker_that_is_there_is_not_new(filesystem: Storage) -> None:
    filesystem.put("d/", io.BytesIO(), 0, if_absent=True)
    with pytest.raises(ExistsError):
        filesystem.put("d/", io.BytesIO(), 0, if_absent=True)
    filesystem.put("d/", io.BytesIO(), 0)


def test_a_link_in_the_directory_leads_nowhere(filesystem: Storage, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file").write_text("secret")
    put(filesystem, "a")
    (tmp_path / "store" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "store" / "file").symlink_to(tmp_path / "secret" / "file")
    assert keys(filesystem) == ["a"]
    for key in ("link/file", "file"):
        with pytest.raises(StorageError):
            get(filesystem, key)
    with pytest.raises(StorageError):
        put(filesystem, "link/new")
    assert [path.name for path in (tmp_path / "secret").iterdir()] == ["file"]


def test_a_key_below_an_object_is_refused(filesystem: Storage) -> None:
    put(filesystem, "a")
    with pytest.raises(InvalidKeyError):
        put(filesystem, "a/b")
    put(filesystem, "c/d")
    with pytest.raises(InvalidKeyError):
        put(filesystem, "c")
    assert keys(filesystem) == ["a", "c/d"]


def test_the_md5_is_computed_where_it_cannot_be_kept(
    filesystem: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("os.setxattr", refuse)
    put(filesystem, "a", b"content")
    assert filesystem.head("a").etag == hashlib.md5(b"content").hexdigest()


def test_a_failed_put_leaves_no_directory(filesystem: Storage) -> None:
    put(filesystem, "other")
    with pytest.raises(LocalFileError):
        filesystem.put("x/y/z", io.BytesIO(b"0123"), 3)
    assert keys(filesystem) == ["other"]


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_of_two_that_store_a_new_object_at_once_one_succeeds(
    filesystem: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, links: bool
) -> None:
    class Racing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if not self.tell():
                filesystem.put("x/y", io.BytesIO(b"first"), 5, if_absent=True)
            return super().read(size)

    if not links:
        monkeypatch.setattr("os.link", refuse(errno.EPERM))
    with pytest.raises(ExistsError):
        filesystem.put("x/y", Racing(b"second"), 6, if_absent=True)
    with pytest.raises(ExistsError):
        filesystem.put("x/y", io.BytesIO(b"third"), 5, if_absent=True)
    assert get(filesystem, "x/y") == b"first"
    [only] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert only.stat().st_nlink == 1


def test_a_file_system_that_refuses_a_new_name_is_reported(
    filesystem: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.link", refuse(errno.EROFS))
    with pytest.raises(PermissionDeniedError):
        filesystem.put("x/y", io.BytesIO(b"new"), 3, if_absent=True)
    assert keys(filesystem) == []


def test_a_file_that_is_being_put_makes_no_marker(filesystem: Storage) -> None:
    class Listing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert keys(filesystem) == ["other"]
            return super().read(size)

    put(filesystem, "other")
    filesystem.put("x/y", Listing(b"0123"), 4)
    assert keys(filesystem) == ["other", "x/y"]


def test_the_md5_that_is_kept_is_used(filesystem: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    put(filesystem, "a", b"content")

    def refuse(*_: object) -> bytes:
        raise AssertionError("the file was read again")

    monkeypatch.setattr("os.pread", refuse)
    [row] = filesystem.list()
    assert row == filesystem.head("a")
    assert row.etag == hashlib.md5(b"content").hexdigest()


def test_a_name_that_can_be_no_key_spoils_no_listing(filesystem: Storage, tmp_path: Path) -> None:
    put(filesystem, "a")
    (tmp_path / "store").joinpath(*["d" * 200] * 6).mkdir(parents=True)
    (tmp_path / "store").joinpath(*["d" * 200] * 6, "f").write_bytes(b"")
    assert keys(filesystem) == ["a"]


def test_a_marker_behind_a_link_is_not_there(filesystem: Storage, tmp_path: Path) -> None:
    put(filesystem, "a")
    (tmp_path / "outside" / "empty").mkdir(parents=True)
    (tmp_path / "store" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError):
        filesystem.head("link/empty/")


def test_puts_and_deletes_in_one_directory_do_not_disturb_each_other(filesystem: Storage) -> None:
    def work(number: int) -> None:
        for permit in range(60):
            put(filesystem, f"d/{number}-{permit}")
            filesystem.delete(f"d/{number}-{permit}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert keys(filesystem) == []


@pytest.mark.parametrize(
    "prefix",
    [
        "b//",
        "b/./",
        "./b/",
        "b/../b/",
        "/b/",
        "b/a/",
        "b/a/x",
        "link/",
        ".pfstorage-x.part/",
        "b\0/",
        "\udc80/",
        "no/",
    ],
)
def test_a_prefix_leads_only_to_objects_whose_keys_begin_with_it(tmp_path: Path, prefix: str) -> None:
    write_tree(tmp_path, {"b/a": b"a", "b/c/d": b"d", ".pfstorage-x.part/a": b"a"})
    (tmp_path / "link").symlink_to("b")
    with open_storage("filesystem", store_base=str(tmp_path)) as storage:
        assert keys(storage) == ["b/a", "b/c/d"]
        assert keys(storage, prefix) == []


def test_a_listing_does_not_read_the_directories_above_its_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tree(tmp_path, {"a": b"a", "b/a": b"a", "b/c/d": b"d", "b/c/e/f": b"f"})
    read: list[int] = []
    scandir = os.scandir

    def noting_scandir(directory: int) -> Any:
        read.append(directory)
        return scandir(directory)

    with open_storage("filesystem", store_base=str(tmp_path)) as storage:
        monkeypatch.setattr(os, "scandir", noting_scandir)
        assert keys(storage, "b/c/") == ["b/c/d", "b/c/e/f"]
        assert len(read) == 2
        assert keys(storage, "b/c/", start_after="b/d") == []
        assert len(read) == 2
