"""Keys and local paths: no key leaves the target, and push then pull is the identity."""

from __future__ import annotations

import os.path
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pfstorage import StoreHandler, open_storage
from pfstorage.errors import InvalidKeyError
from pfstorage.keys.mapping import check_key, join, local_parts, local_to_key, relative_to, without_dot
from tests.conftest import read_tree, write_tree

NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40),
    st.sampled_from(
        [" ", "a b", "#?%&,", "\n", "é", "e\u0301", "日本", "...", ".hidden", "~", "-", "\\", "n" * 255]
    ),
).filter(lambda name: name not in (".", "..") and len(name.encode()) <= 255)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ANYTHING = st.one_of(
    st.text(),
    st.lists(st.sampled_from(["..", ".", "", "a", "b", "\0", "chris", "é"]), max_size=8).map("/".join),
)


@given(ANYTHING, ANYTHING)
@example("a/../../etc/passwd", "")
@example("/etc/passwd", "")
@example("a//b", "a")
def test_no_key_leaves_the_target(key: str, location: str) -> None:
    rest = relative_to(key, location)
    if rest is None:
        return
    try:
        parts = local_parts(rest, key)
    except InvalidKeyError:
        return
    target = "/some/target"
    path = os.path.join(target, *parts)
    assert os.path.normpath(path) == path
    assert os.path.commonpath([target, path]) == target
    assert path != target
    assert "\0" not in path


@given(PATHS, PATHS, PATHS)
def test_a_path_becomes_a_key_and_comes_back(path: str, over: str, location: str) -> None:
    try:
        key = local_to_key(f"./{over}/{path}", over, location, "/home/user")
    except InvalidKeyError:
        assert len(join(location, path).encode()) > 1024
        return
    assert key == f"{location}/{path}"
    rest = relative_to(key, location)
    assert rest is not None
    assert "/".join(local_parts(rest, key)) == path


@given(st.dictionaries(PATHS, st.binary(max_size=50), min_size=1, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_push_then_pull_gives_back_any_tree(tree: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name, open_storage(type="memory") as storage:
        root = Path(name)
        written: dict[str, bytes] = {}
        for path, content in tree.items():
            try:
                write_tree(root / "data", {path: content})
            except OSError:  # a name is both a file and a directory here, or the path is too long
                continue
            written[path] = content
        handler = StoreHandler(storage)
        over = str(root / "data")
        put = {"putSpec": over, "inLocation": "in", "mapLocationOver": over}
        if not written or any(len(f"in/{path}".encode()) > 1024 for path in written):
            return
        assert handler.run({"action": "objPut", "meta": put})["status"] is True
        pull = {"fromLocation": "in", "mapLocationOver": str(root / "back")}
        assert handler.run({"action": "objPull", "meta": pull})["status"] is True
        assert read_tree(root / "back") == read_tree(root / "data") == written


@given(ANYTHING, ANYTHING)
def test_below_and_join_undo_each_other(location: str, rest: str) -> None:
    joined = join(location, rest)
    if location.strip("/") and rest and not rest.startswith("/"):
        assert relative_to(joined, location) == rest


@pytest.mark.parametrize(
    ("name", "location", "rest"),
    [
        ("chris/DICOM/a", "chris/DICOM", "a"),
        ("chris/DICOM/a", "chris/DICOM/", "a"),
        ("chris/DICOM2/a", "chris/DICOM", None),
        ("xchris/DICOM/a", "chris/DICOM", None),
        ("a/chris/DICOM/b", "chris/DICOM", None),
        ("chris", "chris/", ""),
        ("chris/", "chris", ""),
        ("/abs/a", "/abs", "a"),
        ("/abs/a", "/", "abs/a"),
        ("abs/a", "/", None),
        ("a", "", "a"),
    ],
)
def test_a_location_is_left_by_whole_components(name: str, location: str, rest: str | None) -> None:
    assert relative_to(name, location) == rest


@pytest.mark.parametrize("key", ["", "a\0b", "..", "../a", "a/..", "a/./b", ".", "é" * 513, "x\ud800"])
def test_a_key_that_no_store_gives_back_is_refused(key: str) -> None:
    with pytest.raises(InvalidKeyError):
        check_key(key)


@pytest.mark.parametrize(
    "key", ["a", "a..b", "...", ".a", "a/b c/é", "x" * 1024, "/leading", "double//slash", "a/"]
)
def test_other_keys_are_taken(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize(
    ("location", "plain"), [("./a", "a"), (".//a", "a"), ("./", ""), ("..", ".."), (".a", ".a")]
)
def test_only_a_leading_dot_slash_is_dropped(location: str, plain: str) -> None:
    assert without_dot(location) == plain
