"""Keys that collide as local files, in a real file system and in a case-insensitive one."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstorage.keys.collisions import Collisions

PARTS = st.text("aAb!0", min_size=1, max_size=2)
KEYS = st.builds(
    lambda parts, slash: "/".join(parts) + slash,
    st.lists(PARTS, min_size=1, max_size=4),
    st.sampled_from(["", "", "/"]),
)
PLANS = st.sets(KEYS, max_size=30).map(lambda keys: sorted(keys, key=str.encode))


def clashes(keys: list[str], *, folds: bool) -> list[str]:
    """Return those of *keys* that collide with one before them."""
    collisions = Collisions(folds)
    return [key for key in keys if collisions.check(key) is not None]


@pytest.mark.parametrize(
    ("keys", "clashing"),
    [
        (["a", "a/b"], ["a/b"]),
        (["a", "a!x", "a/b"], ["a/b"]),
        (["a", "a!", "a!/x", "a-", "a/b/c/d", "a0"], ["a!/x", "a/b/c/d"]),
        (["a", "a/"], ["a/"]),
        (["a", "a!", "a/", "a/b"], ["a/", "a/b"]),
        (["a/", "a/b"], []),
        (["a/", "a/b", "a/b/"], ["a/b/"]),
        (["a/", "a/b/", "a/b/c", "ab", "b"], []),
        (["a", "ab", "abc", "abc/d", "b"], ["abc/d"]),
        (["A", "a", "a/b"], ["a/b"]),
        (["a", "a/b", "a/b/c", "a/d"], ["a/b", "a/b/c", "a/d"]),
        (["", "a", "b/c"], ["a", "b/c"]),
        (["é", "é/x"], ["é/x"]),
        (["\udcff", "\udcff/x"], ["\udcff/x"]),
        ([], []),
    ],
)
@pytest.mark.parametrize("folds", [False, True])
def test_a_file_and_the_names_below_it_collide(keys: list[str], clashing: list[str], folds: bool) -> None:
    if not (folds and "A" in keys):
        assert clashes(keys, folds=folds) == clashing


@pytest.mark.parametrize(
    ("keys", "clashing"),
    [
        (["A", "a"], ["a"]),
        (["A/b", "a"], ["a"]),
        (["A/b", "a/B"], ["a/B"]),
        (["A/b", "a/c", "a/d/"], []),
        (["A/", "a/", "a/b"], []),
        (["A/b/c", "a/B"], ["a/B"]),
        (["A/b/c", "b", "a/B/"], []),
        (["A", "a/b/c"], ["a/b/c"]),
        (["A/x", "B", "C/y", "b/z", "c"], ["b/z", "c"]),
        (["É", "é"], ["é"]),
        (["e\u0301", "é"], ["é"]),
        (["E\u0301/a", "é/A"], ["é/A"]),
        (["STRASSE", "straße"], ["straße"]),
        (["a", "b", "c/d", "c/e"], []),
        (["\udcff", "\udcfe"], []),
    ],
)
def test_where_names_are_folded_more_collide(keys: list[str], clashing: list[str]) -> None:
    assert clashes(keys, folds=True) == clashing


@given(PLANS)
def test_names_collide_if_a_file_system_refuses_them(keys: list[str]) -> None:
    refused = []
    with tempfile.TemporaryDirectory() as target:
        for key in keys:
            path = os.path.join(target, key)
            try:
                os.makedirs(path if key.endswith("/") else os.path.dirname(path), exist_ok=True)
                if not key.endswith("/"):
                    open(path, "xb").close()
            except OSError:
                refused.append(key)
    assert clashes(keys, folds=False) == refused


@given(PLANS)
def test_case_folded_collisions_equal_those_found_pair_by_pair(keys: list[str]) -> None:
    taken: list[str] = []
    for key in keys:
        folded = unicodedata.normalize("NFC", key).casefold()
        if not any(_clash(folded, each) or _clash(each, folded) for each in taken):
            taken.append(folded)
    assert len(clashes(keys, folds=True)) == len(keys) - len(taken)


def _clash(one: str, other: str) -> bool:
    """Return whether the file *one* is *other*, or is above it."""
    return not one.endswith("/") and (other == one or other.startswith(one + "/"))


def test_a_directory_may_be_given_without_its_slash() -> None:
    collisions = Collisions(folds=False)
    assert collisions.check("a", is_directory=True) is None
    assert collisions.check("a/b") is None
    assert collisions.check("b") is None
    assert collisions.check("b", is_directory=True) is not None


def test_the_target_itself_may_be_a_directory_or_a_file() -> None:
    directory, file = Collisions(folds=False), Collisions(folds=True)
    assert [directory.check("", is_directory=True), directory.check("a")] == [None, None]
    assert [file.check(""), file.check("a")] == [None, "'a' would be below '.', which is a file"]


def test_the_reason_names_the_other_key() -> None:
    for folds in (False, True):
        collisions = Collisions(folds)
        assert collisions.check("a") is None
        assert collisions.check("a/b/c") == "'a/b/c' would be below 'a', which is a file"
        assert collisions.check("a/") == "'a' would be both a file and a directory"
        assert collisions.check("a") == "another key has the same local name as 'a'"


def test_a_colliding_name_is_not_remembered() -> None:
    collisions = Collisions(folds=True)
    assert [collisions.check(key) is None for key in ("a", "a/b", "A/B/c")] == [True, False, False]
    assert collisions.check("a/b") == "'a/b' would be below 'a', which is a file"


@pytest.mark.parametrize(("folds", "most"), [(False, 10_000), (True, 150 * 5_000)])
def test_few_keys_are_remembered_unless_names_are_folded(folds: bool, most: int) -> None:
    collisions = Collisions(folds)
    tracemalloc.start()
    for number in range(5_000):
        assert collisions.check(f"chris/feed_{number // 100:05}/{number:0100}.dcm") is None
    used = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert used < most
