"""Random trees: a tree that is pushed, changed and pushed again comes back unchanged, without leftovers."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pfstorage import StoreHandler, open_storage
from pfstorage.backends import Storage
from pfstorage.devswift import DevSwift
from tests.conftest import read_tree, swift_options, write_tree
from tests.support.large import orphans, segments
from tests.support.stores import empty_account

SEGMENT = 64 * 1024
ODD_NAMES = [
    "e\N{COMBINING ACUTE ACCENT}",  # two spellings of one letter are two names
    "\N{LATIN SMALL LETTER E WITH ACUTE}",
    " ",
    "a b",
    " a ",
    "-rf",
    "a+b&c=d?e#f%20",
    "q\"'\\",
    "~",
    ".hidden",
    "...",
    "\N{SNOWMAN}\N{PILE OF POO}",
    "line\nbreak",
    "_segments",
    "00000000",
    "n" * 200,
]
Sizes = Mapping[str, tuple[int, int]]
"""The size and the seed of each file's content, by path."""

names = st.sampled_from(ODD_NAMES) | st.text(
    "ab\N{LATIN SMALL LETTER O WITH DIAERESIS}.1", min_size=1, max_size=6
)
paths = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=3).map("/".join)
sizes = st.sampled_from([0, 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT, 3 * SEGMENT]) | st.integers(
    0, 3 * SEGMENT
)
contents = st.tuples(sizes, st.integers(0, 3))
trees = st.dictionaries(paths, contents, min_size=1, max_size=8)


@pytest.fixture(scope="module")
def swift(own_swift: DevSwift) -> DevSwift:
    return own_swift


def possible(tree: Sizes) -> bool:
    """Return whether no file is a directory of another."""
    return not any(other.startswith(f"{path}/") for path in tree for other in tree)


@st.composite
def changed_trees(draw: st.DrawFn) -> tuple[Sizes, Sizes]:
    """A tree, and changes and additions to it."""
    tree = draw(trees.filter(possible))
    changes = draw(st.dictionaries(st.sampled_from(sorted(tree)), contents, max_size=len(tree)))
    added = draw(st.dictionaries(paths, contents, max_size=3))
    changes = {**added, **changes}
    assume(possible({**tree, **changes}))
    return tree, changes


def write(root: Path, tree: Sizes) -> dict[str, bytes]:
    files = {path: random.Random(seed).randbytes(size) for path, (size, seed) in tree.items()}
    write_tree(root, files)
    return files


def run(storage: Storage, action: str, **meta: Any) -> dict[str, Any]:
    reply = StoreHandler(storage).run({"action": action, "meta": meta})
    assert reply["status"] is True, reply
    return reply


@settings(max_examples=8)
@given(trees=changed_trees())
def test_a_tree_that_is_changed_between_two_pushes_comes_back_as_it_is(
    swift: DevSwift, trees: tuple[Sizes, Sizes]
) -> None:
    before, changes = trees
    options = swift_options(swift, segment_size=SEGMENT, range_size=SEGMENT)
    with (
        empty_account(swift),
        tempfile.TemporaryDirectory() as temporary,
        open_storage(**options) as storage,
    ):
        data, pulled, anew = (Path(temporary, name) for name in ("data", "pulled", "anew"))
        push = {"putSpec": str(data), "inLocation": "s", "mapLocationOver": str(data)}
        files = write(data, before)
        run(storage, "objPush", **push)
        run(storage, "objPull", fromLocation="s", mapLocationOver=str(pulled))
        assert read_tree(pulled) == files
        files |= write(data, changes)
        run(storage, "objPush", **push)
        for directory in (pulled, anew):
            run(storage, "objPull", fromLocation="s", mapLocationOver=str(directory))
            assert read_tree(directory) == files
        assert_tidy(swift, storage, files)


@pytest.mark.parametrize(
    ("before", "after"),
    [((3 * SEGMENT, 0), (10, 0)), ((3 * SEGMENT, 0), (2 * SEGMENT, 0)), ((3 * SEGMENT, 0), (3 * SEGMENT, 1))],
    ids=["small", "another-large-one", "one-of-the-same-size"],
)
def test_the_segments_of_an_overwritten_large_object_are_swept(
    swift: DevSwift, before: tuple[int, int], after: tuple[int, int]
) -> None:
    push = {"putSpec": "data", "inLocation": "s", "mapLocationOver": "data"}
    with open_storage(**swift_options(swift, segment_size=SEGMENT, range_size=SEGMENT)) as storage:
        for content in (before, after):
            files = write(Path("data"), {"large": content})
            assert run(storage, "objPush", **push)["skipped"] == 0
            assert_tidy(swift, storage, files)
        run(storage, "objPull", fromLocation="s", mapLocationOver="out")
    assert read_tree(Path("out")) == files


def assert_tidy(swift: DevSwift, storage: Storage, files: Mapping[str, bytes]) -> None:
    """Assert that, once swept, there is just one segment for each part of each large file."""
    run(storage, "objSweep", olderThan=0, dryRun=False)
    container = storage.settings.swift.container_name
    assert orphans(swift, container) == set()
    large = [len(content) for content in files.values() if len(content) > SEGMENT]
    assert len(segments(swift, container)) == sum(-(-size // SEGMENT) for size in large)
