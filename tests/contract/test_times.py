"""Times of files: before the year 1, after the year 9999, and all times that a store may report."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.backends.contract import Attributes
from pfstorage.backends.times import format_mtime, parse_mtime
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, run, serving, swift_options, write_tree
from tests.support.exchange import client
from tests.support.faults import proxy_to
from tests.support.local import refuse
from tests.support.objects import get

SECOND = 10**9
TIMES = {
    "before 1": -99_999_999_999 * SECOND,
    "in the first": -62_135_596_801 * SECOND,
    "before 1970": -SECOND - 1,
    "of 11 digits": 99_999_999_999 * SECOND + 123_456_789,
    "after 9999": 253_402_300_800 * SECOND,
    "far after": 10**15 * SECOND,
}
BOUNDS = {
    "before 1": "0001-01-01T00:00:00",
    "after 9999": "9999-12-31T23:59:59",
    "far after": "9999-12-31T23:59:59",
}


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in memory, where files may have any time: those of most disks end in 2446 or before."""
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    monkeypatch.chdir(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def write(path: Path, content: bytes, ns: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, ns=(0, ns))
    assert path.stat().st_mtime_ns == ns


def mtimes(top: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in top.iterdir()}


PUT: dict[str, Any] = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
PULL: dict[str, Any] = {"fromLocation": "s", "mapLocationOver": "out"}


def test_a_store_of_files_lists_a_file_of_any_time(memory: Path) -> None:
    for name, ns in TIMES.items():
        write(memory / "store" / name, b"content", ns)
    (memory / "store" / "z").mkdir()
    os.utime("store/z", ns=(0, TIMES["far after"]))
    with open_storage(type="filesystem", store_base="store") as storage:
        reply = run(storage, "ls", path="", retSpec=["name", "last_modified"])
        assert reply["status"] is True
        rows = {row["name"]: row["last_modified"] for row in reply["ls"]}
        assert list(rows) == sorted([*TIMES, "z/"])
        assert {name: rows[name][:19] for name in BOUNDS} == BOUNDS
        assert rows["z/"][:19] == "9999-12-31T23:59:59"
        assert rows["of 11 digits"] == "5138-11-16T09:46:39.123459"[:23] + rows["of 11 digits"][23:]
        for name, ns in TIMES.items():
            assert storage.head(name).mtime_ns == ns
            assert get(storage, name) == b"content"
        assert (
            run(storage, "objPull", fromLocation="", path="", mapLocationOver="out", audit=True)["status"]
            is True
        )
        assert {name: ns for name, ns in mtimes(memory / "out").items() if name != "z"} == TIMES


def test_an_object_with_an_odd_time_is_served_over_http(memory: Path) -> None:
    for name, ns in TIMES.items():
        write(memory / "store" / name.replace(" ", "-"), b"content", ns)
    with (
        open_storage(type="filesystem", store_base="store") as storage,
        contextlib.closing(StoreHandler(storage)) as handler,
        serving(handler) as server,
        contextlib.closing(client(server.server_port)) as connection,
    ):
        for name in TIMES:
            for headers in ({}, {"If-Modified-Since": "Sun, 06 Nov 1994 08:49:37 GMT"}):
                for method in ("HEAD", "GET"):
                    connection.request(method, f"/api/v1/objects/{name.replace(' ', '-')}", headers=headers)
                    answer = connection.getresponse()
                    content = answer.read()
                    assert (answer.status, content) in ((200, b"content" * (method == "GET")), (304, b""))


@pytest.mark.parametrize("through", ["nothing", "proxy"])
def test_a_swift_keeps_the_time_both_ways(swift: DevSwift, memory: Path, through: str) -> None:
    tree = dict.fromkeys(TIMES, b"content") | {"large": bytes(range(256)) * 1000}
    times = {**TIMES, "large": TIMES["of 11 digits"]}
    for name, content in tree.items():
        write(memory / "data" / name, content, times[name])
    with proxy_to(swift.port) as proxy:
        options = swift_options(swift, segment_size=100_000)
        if through == "proxy":
            options["auth_url"] = proxy.auth_url
        with open_storage(**options) as storage:
            assert run(storage, "objPut", **PUT, audit=True)["status"] is True
            assert storage.head("s/of 11 digits").mtime_ns == TIMES["of 11 digits"]
            assert run(storage, "objPull", **PULL, audit=True)["status"] is True
            assert (read_tree(memory / "out"), mtimes(memory / "out")) == (tree, times)
            # a push recognises the large object by the time in the names of its segments
            (memory / "data" / "large").touch()
            os.utime("data/large", ns=(0, TIMES["before 1"]))
            assert run(storage, "objPut", **PUT)["skipped"] == len(tree)


def test_a_time_that_no_file_can_have_is_a_warning(storage: Storage, tmp_path: Path) -> None:
    if storage.settings.type == "filesystem":  # its files have times that files can have
        return
    most = 2**63 * SECOND
    storage.put("s/a", io.BytesIO(b"content"), 7, Attributes("", most - SECOND))
    storage.put("s/b", io.BytesIO(b"content"), 7, Attributes("", most * 10))
    reply = run(storage, "objPull", **PULL)
    assert (reply["status"], read_tree(tmp_path / "out")) == (True, {"a": b"content", "b": b"content"})


@pytest.mark.parametrize("ns", [2**63 * SECOND, 10**40, -(10**40)])
def test_a_store_of_files_takes_an_object_of_any_time(tmp_path: Path, ns: int) -> None:
    with open_storage(type="filesystem", store_base="store") as storage:
        storage.put("a", io.BytesIO(b"content"), 7, Attributes("", ns))
        assert [row.key for row in storage.list()] == ["a"]
        assert get(storage, "a") == b"content"


def test_the_reported_time_is_that_of_the_file(storage: Storage, tmp_path: Path) -> None:
    """Only a different time causes a warning, not a less exact one."""
    write_tree(tmp_path, {"data/a": b"content"})
    assert "warnings" not in run(storage, "objPut", **PUT)


@pytest.mark.parametrize("ns", [*TIMES.values(), 0, 1, -1, (2**63 - 1) * SECOND])
def test_a_time_comes_back_from_its_text(ns: int) -> None:
    assert parse_mtime(format_mtime(ns)) == ns


@pytest.mark.parametrize(
    "text", ["9223372036854775808", "1" * 20, "1e5", "nan", "inf", "", "-", "--1", "1.", "\u0663"]
)
def test_an_invalid_time_is_none(text: str) -> None:
    assert parse_mtime(text) is None


def test_each_time_that_the_system_refuses_is_a_warning(
    storage: Storage, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(memory / "data" / "a", b"content", TIMES["far after"])
    run(storage, "objPut", **PUT)
    monkeypatch.setattr(os, "utime", refuse(errno.EINVAL))
    assert len(run(storage, "objPull", **PULL)["warnings"]) == 1
