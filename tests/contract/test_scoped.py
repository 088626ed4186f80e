"""`ScopedStorage`: a storage that is limited to the permissions of its caller."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import open_storage
from pfstorage.access.permissions import Permissions
from pfstorage.access.scoped import scoped
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import Leftover, SupportsMultipart, SupportsRetryPolicy
from pfstorage.backends.contract import NO_ATTRIBUTES, ByteRange
from pfstorage.backends.memory import MemoryStorage
from pfstorage.backends.retry import RetryPolicy
from pfstorage.devswift import DevSwift
from pfstorage.errors import InvalidKeyError, PermissionDeniedError, StorageError
from pfstorage.settings.model import Settings
from tests.conftest import read_tree, run, swift_options, write_tree
from tests.support.large import segments
from tests.support.objects import get, keys, put

MINE = "chris/feed_12/"
KEYS = [
    "anna/a",
    "chris/feed_1/a",
    "chris/feed_11/a",
    "chris/feed_12/a",
    "chris/feed_12/b/a",
    "chris/feed_12/b/c",
    "chris/feed_123/x",
    "chris/g",
]
INSIDE = [key for key in KEYS if key.startswith(MINE)]
OUTSIDE = [key for key in KEYS if not key.startswith(MINE)]
HOSTILE = [
    *OUTSIDE,
    "chris/feed_12",  # without the slash
    "",
    "/chris/feed_12/a",
    "./chris/feed_12/a",
    "chris//feed_12/a",
    "Chris/feed_12/a",
    "chris/feed_12\0/a",
    "chris/feed_1",
    "../users/chris/feed_12/a",
]
INSIDE_BY_NAME = [  # only by name: as paths they have another meaning
    "chris/feed_12/..",
    "chris/feed_12/../x",
    "chris/feed_12/../feed_123/x",
    "chris/feed_12/./a",
    "chris/feed_12/b/../../../anna/a",
    "chris/feed_12/a\0/../../g",
]


@pytest.fixture
def swift(own_account: DevSwift) -> DevSwift:
    return own_account


@pytest.fixture
def full(storage: Storage) -> Storage:
    """A storage with keys of several owners."""
    for key in KEYS:
        put(storage, key, key.encode())
    return storage


@pytest.fixture
def mine(full: Storage) -> Storage:
    return scoped(full, Permissions("write", MINE))


@pytest.fixture
def reader(full: Storage) -> Storage:
    return scoped(full, Permissions("read"))


READS: dict[str, Callable[[Storage, str], object]] = {
    "head": lambda storage, key: storage.head(key),
    "get": get,
    "get a span": lambda storage, key: storage.get(key, io.BytesIO(), ByteRange(0, 1, "etag")),
}
CHANGES: dict[str, Callable[[Storage, str], object]] = {
    "put": put,
    "put a new one": lambda storage, key: storage.put(key, io.BytesIO(b"x"), 1, if_absent=True),
    "delete": lambda storage, key: storage.delete(key),
    "copy to": lambda storage, key: storage.copy(INSIDE[0], key),
}
COPY_FROM: dict[str, Callable[[Storage, str], object]] = {
    "copy from": lambda storage, key: storage.copy(key, f"{MINE}copy")
}


@pytest.mark.parametrize("operation", [*READS, *CHANGES, *COPY_FROM])
@pytest.mark.parametrize("level", ["read", "write", "admin"])
def test_other_keys_are_neither_shown_nor_touched(full: Storage, operation: str, level: str) -> None:
    mine = scoped(full, Permissions(level, MINE))
    for key in HOSTILE:
        with pytest.raises(PermissionDeniedError) as caught:
            {**READS, **CHANGES, **COPY_FROM}[operation](mine, key)
        if level != "read":
            assert "for the keys that begin with 'chris/feed_12/'" in str(caught.value)
    assert {key: get(full, key) for key in keys(full)} == {key: key.encode() for key in KEYS}


@pytest.mark.parametrize("operation", [*READS, *CHANGES, *COPY_FROM])
def test_a_key_that_is_a_path_out_is_refused(full: Storage, mine: Storage, operation: str) -> None:
    for key in INSIDE_BY_NAME:
        with pytest.raises(InvalidKeyError):
            {**READS, **CHANGES, **COPY_FROM}[operation](mine, key)
    assert keys(full) == KEYS


def test_the_existence_of_a_key_outside_is_not_revealed(mine: Storage) -> None:
    texts = set()
    for key in ("anna/a", "anna/z"):
        with pytest.raises(PermissionDeniedError) as caught:
            mine.head(key)
        texts.add(str(caught.value).replace(key, "KEY"))
    assert len(texts) == 1


def test_a_scoped_storage_works_as_usual_within_its_prefix(full: Storage, mine: Storage) -> None:
    assert mine.settings is full.settings
    put(mine, f"{MINE}new", b"new")
    assert (get(mine, f"{MINE}new"), mine.head(f"{MINE}new").size) == (b"new", 3)
    mine.copy(f"{MINE}new", f"{MINE}copy")
    mine.delete(f"{MINE}new")
    assert keys(full, MINE) == [*INSIDE, f"{MINE}copy"]
    with pytest.raises(StorageError, match="already"):
        mine.put(f"{MINE}copy", io.BytesIO(b"x"), 1, if_absent=True)


@pytest.mark.parametrize("prefix", ["", "c", "chris", "chris/", "chris/feed_1", "chris/feed_12", MINE])
def test_a_listing_of_a_shorter_prefix_shows_the_permitted_keys(mine: Storage, prefix: str) -> None:
    assert keys(mine, prefix) == INSIDE
    assert keys(mine, prefix, delimiter="/") == [f"{MINE}a", f"{MINE}b/"]
    assert keys(mine, prefix, limit=1) == INSIDE[:1]
    assert keys(mine, prefix, start_after="chris/feed_1/") == INSIDE
    assert keys(mine, prefix, start_after=INSIDE[0]) == INSIDE[1:]
    assert keys(mine, prefix, stop_before=INSIDE[1]) == INSIDE[:1]
    assert keys(mine, prefix, start_after="chris/feed_123/") == []


def test_a_listing_below_its_prefix_is_that_which_is_asked_for(mine: Storage) -> None:
    assert keys(mine, f"{MINE}b") == INSIDE[1:]
    assert keys(mine, f"{MINE}b/", delimiter="/") == INSIDE[1:]
    assert keys(mine, f"{MINE}..") == []


@pytest.mark.parametrize(
    "prefix", ["anna", "chris/feed_123", "chris/feed_2", "/", "/chris", "chris/g", "../"]
)
def test_a_listing_outside_the_prefix_is_refused(mine: Storage, prefix: str) -> None:
    for delimiter in ("", "/"):
        with pytest.raises(PermissionDeniedError, match="begin with 'chris/feed_12/'"):
            keys(mine, prefix, delimiter=delimiter)


def test_a_store_that_drops_the_prefix_shows_nothing_more(tmp_path: Path) -> None:
    class Deaf(MemoryStorage):
        def list(self, prefix: str = "", **options: Any) -> Iterator[ObjectInfo]:
            return super().list("", **options)

    storage = Deaf(Settings(type="memory"))
    for key in KEYS:
        put(storage, key, key.encode())
    assert keys(scoped(storage, Permissions("read", MINE))) == INSIDE


def test_a_prefix_without_a_slash_is_a_plain_text(full: Storage) -> None:
    mine = scoped(full, Permissions("write", "chris/feed_12"))
    assert keys(mine) == [key for key in KEYS if key.startswith("chris/feed_12")]
    assert keys(mine, delimiter="/") == ["chris/feed_12/", "chris/feed_123/"]
    with pytest.raises(PermissionDeniedError):
        mine.head("chris/feed_11/a")


@pytest.mark.parametrize("prefix", ["", MINE])
@pytest.mark.parametrize("operation", [*CHANGES, *COPY_FROM])
def test_a_reader_changes_nothing(full: Storage, operation: str, prefix: str) -> None:
    reader = scoped(full, Permissions("read", prefix))
    with pytest.raises(PermissionDeniedError, match="may only read"):
        {**CHANGES, **COPY_FROM}[operation](reader, INSIDE[0])
    assert {key: get(full, key) for key in keys(full)} == {key: key.encode() for key in KEYS}


def test_a_reader_of_all_keys_reads_all(reader: Storage) -> None:
    assert {key: get(reader, key) for key in keys(reader)} == {key: key.encode() for key in KEYS}
    assert keys(reader, "anna") == ["anna/a"]
    assert keys(reader, delimiter="/") == ["anna/", "chris/"]


@pytest.mark.parametrize("level", ["write", "admin"])
def test_a_writer_of_all_keys_gets_the_storage_itself(storage: Storage, level: str) -> None:
    assert scoped(storage, Permissions(level)) is storage


def test_a_scoped_storage_has_the_capabilities_of_its_storage(mine: Storage, full: Storage) -> None:
    assert isinstance(mine, SupportsRetryPolicy) is isinstance(full, SupportsRetryPolicy)
    assert isinstance(mine, SupportsMultipart) is isinstance(full, SupportsMultipart)


def test_closing_a_scoped_storage_keeps_its_storage_open(mine: Storage, full: Storage) -> None:
    with mine as same:
        assert same is mine
    assert keys(full) == KEYS


def test_a_push_and_a_pull_respect_the_scope(full: Storage, mine: Storage, tmp_path: Path) -> None:
    write_tree(tmp_path / "data", {"a": b"new", "d/e": b"e"})
    put_spec = {"putSpec": "data", "mapLocationOver": "data"}
    assert run(mine, "objPut", **put_spec, inLocation="chris/feed_12")["status"] is True
    assert get(full, f"{MINE}a") == b"new"
    for location in ("chris/feed_123", "chris/feed_12/../x", "", "chris"):
        assert run(mine, "objPut", **put_spec, inLocation=location)["status"] is False
    assert keys(full) == sorted([*KEYS, f"{MINE}d/e"])
    assert run(mine, "objPull", path="chris", fromLocation="chris", mapLocationOver="out")["status"] is True
    assert sorted(read_tree(tmp_path / "out")) == sorted(
        f"feed_12/{name}" for name in ("a", "b/a", "b/c", "d/e")
    )
    refused = run(mine, "objPull", fromLocation="chris/feed_123", mapLocationOver="no")
    assert refused["error"]["type"] == "PermissionDeniedError"
    assert not os.path.exists("no/x")


# a storage that fails, and one with segments

KIB = 1024
PIECE = 64 * KIB
CONTENT = random.Random(1).randbytes(3 * PIECE + 1)
OTHER = random.Random(2).randbytes(3 * PIECE + 1)
LARGE = f"{MINE}large"
THEIRS = "chris/feed_123/large"


@pytest.fixture
def large(swift: DevSwift) -> Iterator[Storage]:
    """A Swift where all above 64 KiB is in segments, with a large object inside of the prefix and one outside."""
    with open_storage(**swift_options(swift, segment_size=PIECE, range_size=PIECE)) as storage:
        for key in (LARGE, THEIRS):
            store_large(storage, key, CONTENT)
        yield storage


def store_large(storage: Any, key: str, content: bytes, replaced: ObjectInfo | None = None) -> None:
    upload = storage.start_multipart_upload(key, len(content), PIECE, NO_ATTRIBUTES, replaced)
    upload.stored()
    cuts = range(0, len(content), PIECE)
    parts = [(offset, content[offset : offset + PIECE]) for offset in cuts]
    upload.finish([upload.put(io.BytesIO(part), offset, len(part)) for offset, part in parts])


def info_of(storage: Storage, key: str) -> ObjectInfo:
    return next(storage.list(key))


def container_of(storage: Storage) -> str:
    return storage.settings.swift.container_name


def test_another_retry_policy_keeps_the_scope(large: Storage) -> None:
    mine: Any = scoped(large, Permissions("read", MINE))
    for _ in range(2):
        mine = mine.with_retry_policy(RetryPolicy(1))
        assert isinstance(mine, SupportsRetryPolicy)
        assert isinstance(mine, SupportsMultipart)
        assert keys(mine) == [LARGE]
        with pytest.raises(PermissionDeniedError):
            mine.head(THEIRS)
        with pytest.raises(PermissionDeniedError):
            put(mine, LARGE)


def test_large_objects_are_moved_within_the_prefix(swift: DevSwift, large: Storage, tmp_path: Path) -> None:
    mine = scoped(large, Permissions("write", MINE))
    write_tree(tmp_path / "data", {"large": OTHER, "second": CONTENT})
    reply = run(mine, "objPut", putSpec="data", mapLocationOver="data", inLocation="chris/feed_12")
    assert (reply["status"], reply["bytes"]) == (True, 2 * len(OTHER))
    assert run(mine, "objPull", fromLocation="chris/feed_12", mapLocationOver="out")["status"] is True
    assert read_tree(tmp_path / "out") == {"large": OTHER, "second": CONTENT}
    assert len(info_of(mine, f"{MINE}second").segments_etag) == 32
    assert get(large, THEIRS) == CONTENT


def test_the_segments_of_others_are_neither_shown_nor_touched(swift: DevSwift, large: Storage) -> None:
    mine: Any = scoped(large, Permissions("write", MINE))
    theirs, before = info_of(large, THEIRS), segments(swift, container_of(large))
    size = len(OTHER)
    refused: list[Callable[[], object]] = [
        lambda: mine.list_parts(theirs),
        lambda: mine.remove_leftover(Leftover("x", THEIRS, 1, "")),
        lambda: mine.start_multipart_upload(THEIRS, size, PIECE, NO_ATTRIBUTES, None),
        lambda: mine.start_multipart_upload("chris/feed_12", size, PIECE, NO_ATTRIBUTES, None),
        lambda: mine.start_multipart_upload(LARGE, size, PIECE, NO_ATTRIBUTES, theirs),
    ]
    for call in refused:
        with pytest.raises(PermissionDeniedError, match="begin with"):
            call()
    with pytest.raises(InvalidKeyError):
        mine.start_multipart_upload(f"{MINE}../feed_123/large", size, PIECE, NO_ATTRIBUTES, None)
    assert segments(swift, container_of(large)) == before


def test_own_leftovers_are_swept_and_those_of_others_are_kept(swift: DevSwift, large: Storage) -> None:
    """This also holds for an object with a key that is a prefix of its own keys, as in the names of segments."""
    above = MINE.rstrip("/")
    store_large(large, above, CONTENT)
    for key in (above, THEIRS):
        store_large(large, key, CONTENT)  # the segments of the first object are left over
    theirs = {name for name in segments(swift, container_of(large)) if not name.startswith(LARGE)}
    mine: Any = scoped(large, Permissions("write", MINE))
    for key in (LARGE, f"{MINE}0.000000000", f"{MINE}0.000000000/{len(CONTENT)}/{PIECE}/00000000"):
        store_large(mine, key, OTHER, info_of(mine, LARGE) if key == LARGE else None)
        upload = mine.start_multipart_upload(key, 1, PIECE, NO_ATTRIBUTES, None)
        upload.put(io.BytesIO(b"x"), 0, 1)
        upload.discard()
        put(mine, key, b"small")
        mine.delete(key)
    seen = run(mine, "objSweep", olderThan=0)
    assert {row["name"] for row in seen["leftovers"]} == segments(swift, container_of(large)) - theirs
    assert run(mine, "objSweep", olderThan=0, dryRun=False)["removed"] == len(seen["leftovers"])
    assert run(mine, "objSweep", path="chris/feed_123", olderThan=0, dryRun=False)["removed"] == 0
    assert segments(swift, container_of(large)) == theirs
    assert (get(large, above), get(large, THEIRS)) == (CONTENT, CONTENT)
    assert keys(mine) == []


def test_a_reader_neither_begins_nor_completes_a_large_object(swift: DevSwift, large: Storage) -> None:
    before = segments(swift, container_of(large))
    for prefix in ("", MINE):
        reader: Any = scoped(large, Permissions("read", prefix))
        info = info_of(reader, LARGE)
        assert [piece.size for piece in reader.list_parts(info)] == [PIECE, PIECE, PIECE, 1]
        assert reader.part_size(10**6, PIECE) == PIECE
        for replaced in (info, None):
            with pytest.raises(PermissionDeniedError, match="may only read"):
                reader.start_multipart_upload(LARGE, len(OTHER), PIECE, NO_ATTRIBUTES, replaced)
        with pytest.raises(PermissionDeniedError, match="may only read"):
            reader.remove_leftover(Leftover("x", LARGE, 1, ""))
    assert segments(swift, container_of(large)) == before
