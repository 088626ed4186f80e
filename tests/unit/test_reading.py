"""A local file as the body of an upload."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pfstorage.errors import LocalFileError
from pfstorage.local import Body, open_body
from tests.conftest import write_tree
from tests.support.local import in_threads


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """The content of the file ``a``."""
    content = bytes(range(256)) * 40
    write_tree(tmp_path, {"a": content})
    return content


def test_a_body_is_a_seekable_view_of_the_file(content: bytes) -> None:
    with open_body("a") as (body, size):
        assert (size, body.size, body.mtime_ns) == (10240, 10240, Path("a").stat().st_mtime_ns)
        assert body.read(10) + body.read(0) + body.read(5) == content[:15]
        assert (body.seek(-5, os.SEEK_CUR), body.tell(), body.read(3)) == (10, 10, content[10:13])
        assert body.seek(-4, os.SEEK_END) == 10236
        assert body.read(100) == content[-4:]
        assert body.read(1) == body.read() == b""
        assert body.seek(20_000) == 20_000
        assert body.read() == b""
        assert body.seek(0) == 0
        assert body.read() == content
        with pytest.raises(ValueError, match="before the beginning"):
            body.seek(-1)


def test_parts_are_read_by_several_threads_at_once(content: bytes) -> None:
    def read(body: Body, start: int) -> Callable[[], None]:
        def call() -> None:
            part = body.part(start, 1024)
            assert part.mtime_ns == body.mtime_ns
            for _ in range(20):
                part.seek(0)
                assert b"".join(iter(lambda: part.read(100), b"")) == content[start : start + 1024]

        return call

    with open_body("a") as (body, size):
        assert in_threads([read(body, start) for start in range(0, size, 1024)]) == []
        inner = body.part(100, 50).part(10, 5)
        assert (inner.size, inner.read()) == (5, content[110:115])
        assert body.part(size, 0).read() == b""
        for offset, wrong in ((-1, 5), (0, -1), (10_000, 241)):
            with pytest.raises(ValueError, match="does not have"):
                body.part(offset, wrong)


def change_time() -> None:
    os.utime("a", ns=(0, 0))


def change_content() -> None:
    with open("a", "r+b") as file:
        file.write(b"another")
    change_time()  # which may be that of the last change, so soon after it


def grow() -> None:
    with open("a", "ab") as file:
        file.write(b"more")


def shrink() -> None:
    os.truncate("a", 9000)


@pytest.mark.parametrize("change", [change_time, change_content, grow, shrink])
@pytest.mark.parametrize("of", ["whole", "part"])
def test_a_file_that_changes_while_it_is_read_gives_no_last_bytes(
    content: bytes, change: Callable[[], None], of: str
) -> None:
    given: list[bytes] = []
    with open_body("a") as (whole, _):
        body = whole if of == "whole" else whole.part(8000, 1500)
        body.read()
        body.seek(0)
        given.append(body.read(500))
        change()
        with pytest.raises(LocalFileError, match="'a' changed while it was read: push it again") as raised:
            given.extend(iter(lambda: body.read(400), b""))
        assert 500 < sum(map(len, given)) < body.size
        assert ("changed its length" in str(raised.value)) is (change in (grow, shrink))
        assert raised.value.facts["local"] == "a"


def test_a_body_that_outlives_its_file_reads_no_other(tmp_path: Path, content: bytes) -> None:
    with open_body("a") as (body, _):
        part = body.part(0, 10)
    with open_body("a"), pytest.raises(ValueError, match="closed"):
        part.read()
