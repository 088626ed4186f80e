"""The cache of rows: a second listing does not read unchanged files again, and shows each change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pfstorage
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.filesystem import row_cache as filesystem_rows
from pfstorage.backends.filesystem import store as filesystem
from tests.support.waiting import settle

OLD_NS = 1_600_000_000_000_000_000


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], dict[str, ObjectInfo]]:
    """Return a function that lists a store with ``d/file``, which is cached. All files count as settled."""
    monkeypatch.setattr(filesystem_rows, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(
        filesystem_rows, "shows_changes_at_once", lambda status: True
    )  # wherever the tests run
    path = tmp_path / "d" / "file"
    path.parent.mkdir()
    path.write_bytes(b"old")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    storage = pfstorage.open_storage(type="filesystem", store_base=str(tmp_path))
    list(storage.list())  # which keeps the MD5 with the file, and so changes it
    return lambda: {row.key: row for row in storage.list()}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the files that are opened and looked into."""
    seen: list[str] = []

    def read_info(key: str, descriptor: int) -> ObjectInfo:
        seen.append(key)
        return original(key, descriptor)

    original = filesystem.read_info
    monkeypatch.setattr(filesystem, "read_info", read_info)
    return seen


Store = Callable[[], dict[str, ObjectInfo]]


def test_a_file_that_is_the_same_is_looked_into_once(store: Store, reads: list[str]) -> None:
    first = store()
    assert (store(), store(), reads) == (first, first, ["d/file"])


def test_other_bytes_of_the_same_size_and_time_are_another_row(store: Store, tmp_path: Path) -> None:
    path, before = tmp_path / "d" / "file", store()["d/file"]
    settle()  # a kept MD5 takes changes of the next milliseconds for those of its keeping
    path.write_bytes(b"new")
    os.utime(path, ns=(OLD_NS, OLD_NS))
    after = store()["d/file"]
    assert (after.size, after.mtime_ns) == (before.size, before.mtime_ns)
    assert after.etag != before.etag


def test_a_file_in_the_place_of_another_is_another_row(store: Store, tmp_path: Path) -> None:
    path, before = tmp_path / "d" / "file", store()["d/file"]
    new = tmp_path / "new"
    new.write_bytes(b"new")
    os.utime(new, ns=(OLD_NS, OLD_NS))
    new.rename(path)
    assert store()["d/file"].etag != before.etag


def test_a_second_name_of_a_file_has_a_row_of_its_own(store: Store, tmp_path: Path) -> None:
    store()
    os.link(tmp_path / "d" / "file", tmp_path / "d" / "same.json")
    for _ in range(2):
        assert [(row.key, row.content_type) for row in store().values()] == [
            ("d/file", "application/octet-stream"),
            ("d/same.json", "application/json"),
        ]


def test_a_file_that_may_not_be_read_any_more_shows_no_etag(store: Store, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads all files")
    assert store()["d/file"].etag
    (tmp_path / "d" / "file").chmod(0)
    assert store()["d/file"].etag == ""


def test_a_file_that_was_removed_is_not_listed(store: Store, tmp_path: Path) -> None:
    assert list(store()) == ["d/file"]
    (tmp_path / "d" / "file").unlink()
    (tmp_path / "d" / "file").symlink_to("/etc/passwd")
    assert list(store()) == []


def test_a_file_that_has_just_changed_is_read_again(
    store: Store, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem_rows, "SETTLED_SECONDS", 3600.0)
    store()
    store()
    assert reads == ["d/file"] * 2


def test_a_file_that_changes_while_it_is_looked_into_is_not_kept(
    store: Store, reads: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, original = tmp_path / "d" / "file", filesystem.read_info

    def read_info(key: str, descriptor: int) -> ObjectInfo:
        found = original(key, descriptor)
        if len(reads) == 1:
            path.write_bytes(b"longer")
        return found

    monkeypatch.setattr(filesystem, "read_info", read_info)
    assert [store()["d/file"].size, store()["d/file"].size] == [3, 6]


@pytest.mark.parametrize(("device", "is_kept"), [(os.makedev(253, 0), True), (os.makedev(0, 47), False)])
def test_only_rows_of_file_systems_that_never_show_an_old_status_are_kept(device: int, is_kept: bool) -> None:
    status: Any = SimpleNamespace(st_dev=device, st_ino=1, st_size=0, st_mtime_ns=OLD_NS, st_ctime_ns=OLD_NS)
    rows = filesystem_rows.RowCache()
    rows.keep(ObjectInfo("file"), status, status)
    assert bool(rows.find("file", status)) == is_kept


def test_the_least_recently_used_rows_are_dropped_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem_rows, "MAX_CACHED_ROWS", 3)
    monkeypatch.setattr(filesystem_rows, "SETTLED_SECONDS", -1.0)
    monkeypatch.setattr(filesystem_rows, "shows_changes_at_once", lambda status: True)
    rows, statuses = filesystem_rows.RowCache(), {}
    for name in "abcd":
        (tmp_path / name).write_bytes(b"")
        statuses[name] = status = (tmp_path / name).stat()
        rows.keep(ObjectInfo(name), status, status)
        assert rows.find("a", statuses["a"])
    assert [name for name in "abcd" if rows.find(name, statuses[name])] == ["a", "c", "d"]
