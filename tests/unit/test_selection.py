"""Selection of keys: globs match as documented, none of them hangs, and shards divide a plan."""

from __future__ import annotations

import dataclasses
import hashlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pfstorage.errors import MessageError
from pfstorage.keys.globs import Automaton, Steps
from pfstorage.keys.selection import MAX_GLOB_LENGTH, MAX_GLOBS, Selection

NAMES = st.text("ab.*[", min_size=1, max_size=4).filter(lambda name: name not in (".", ".."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ANY_TEXT = st.text(st.characters(exclude_categories=[]), min_size=1)


def matches(pattern: str, rest: str) -> bool:
    return Selection(include=(pattern,)).selects("location/" + rest, rest)


def test_an_empty_selection_takes_all() -> None:
    assert Selection().selects("a/b", "b")
    assert Selection().selects("a", "")
    assert Selection().selects("", "")


def test_substr_matches_the_whole_key_literally() -> None:
    assert Selection(substr="loc").selects("location/a", "a")
    assert Selection(substr="n/a").selects("location/a", "a")
    for text in ("*", "LOC", "a/"):
        assert not Selection(substr=text).selects("location/a", "a")


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.dcm", "a.dcm .dcm d/a.dcm d/e/.a.dcm", "a.DCM a.dcm.gz d.dcm/a"),
        ("a", "a b/a a/", "a/b ab b/ab A"),
        ("?", "a b/. é", "ab b/ab"),
        ("*", "a .a a/b a/b/ *", ""),
        ("**", "a .a a/b a/b/", ""),
        ("a**b", "ab axb d/axxb", "a/b ax/b"),
        ("*/a", "b/a .b/a b/a/", "a c/b/a b/ab"),
        ("d/*.dcm", "d/a.dcm d/.dcm", "d/e/a.dcm e/d/a.dcm a.dcm"),
        ("d/?", "d/a", "d/ab d/a/b d/"),
        ("**/a", "a d/a d/e/a .d/a a/", "ab d/ab a/d"),
        ("a/**", "a/b a/.b a/b/c a/", "a ab b/a/b"),
        ("a/**/b", "a/b a/c/b a/c/d/b a/c/b/", "ab a/bb a/b/c c/a/b"),
        ("**/a/**", "a/b d/a/b d/a/b/c a/", "a d/a d/ab/c"),
        ("**/a/**/b/**/c", "a/b/c a/b/b/c x/a/a/x/b/x/c", "b/a/c a/c a/b/c/d"),
        ("a/**/**/b", "a/b a/c/b", "a/c"),
        ("a/b/", "a/b/", "a/b a/b/c"),
        ("[a-c]x", "ax bx d/cx", "dx Ax x -x"),
        ("[!a-c]x", "dx !x Ax", "ax x"),
        ("[]-]x", "]x -x", "ax"),
        ("[c-a]x", "", "ax bx cx"),
        ("a[", "a[", "a"),
        ("a[/]b", "a[/]b", "a/b"),
        ("é", "é", "e\u0301"),
    ],
)
def test_globs_match_as_documented(pattern: str, taken: str, left: str) -> None:
    assert {rest: matches(pattern, rest) for rest in (taken + " " + left).split()} == {
        **dict.fromkeys(taken.split(), True),
        **dict.fromkeys(left.split(), False),
    }


@pytest.mark.parametrize(
    ("pattern", "no_other"),
    [
        ("!a", "a b"),
        ("{a,b}", "a b"),
        ("a|b", "a b"),
        ("~", "root /root"),
        ("-a", "a b"),
        ("@(a)", "a"),
        ("$HOME", "root"),
        ("a.c", "abc"),
        ("a+", "aa"),
        ("\\*", "* a"),
        ("(?i)a", "A a"),
        ("[^a]", "b"),
        ("a\n", "a"),
        ("#a", "a"),
    ],
)
def test_no_other_character_of_a_glob_means_anything(pattern: str, no_other: str) -> None:
    assert not any(matches(pattern, rest) for rest in no_other.split())
    own = "^" if pattern == "[^a]" else pattern.replace("*", "x").replace("?", "x")
    assert matches(pattern, own)
    assert matches("d/" + pattern, "d/" + own)


def test_a_name_with_a_newline_is_one_name() -> None:
    assert matches("*.dcm", "a\nb.dcm")
    assert not matches("*.dcm", "a.dcm\n")


@given(PATHS, PATHS)
def test_each_way_to_widen_a_glob_matches_still(path: str, other: str) -> None:
    pattern = path.replace("[", "[[]").replace("*", "[*]")
    name = pattern.rpartition("/")[2]
    for wider in (pattern, f"**/{pattern}", name, f"*{name}*", "?" * len(path.rpartition("/")[2])):
        assert matches(wider, path)
    assert matches(f"**/{pattern}", f"{other}/{path}")
    assert matches(f"{pattern}/**", f"{path}/{other}")
    if "/" in path:
        assert matches(pattern, other) is (path == other)


@given(st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=2, max_size=6), st.text("ab", max_size=5))
def test_two_stars_match_any_number_of_components(parts: list[str], names: str) -> None:
    """Compared with a matcher that tries every number."""

    def tries(parts: list[str], names: str) -> bool:
        if not parts:
            return not names
        if parts[0] == "**":
            least = len(parts) == 1
            return any(tries(parts[1:], names[skip:]) for skip in range(least, len(names) + 1))
        return bool(names) and parts[0] in ("*", names[0]) and tries(parts[1:], names[1:])

    if names:
        assert matches("/".join(parts), "/".join(names)) is tries(parts, names)


def test_exclude_has_priority_over_include() -> None:
    chosen = Selection(include=("*.dcm", "*.json"), exclude=("tmp/**", "*.part.*"))
    names = ("a.dcm", "b/a.json", "tmp/a.dcm", "a.part.dcm", "a.txt")
    assert [name for name in names if chosen.selects(name, name)] == ["a.dcm", "b/a.json"]


def test_exclude_alone_keeps_the_other_keys() -> None:
    assert Selection(exclude=("*.tmp",)).selects("a", "a")
    assert not Selection(exclude=("*.tmp",)).selects("a.tmp", "a.tmp")


def test_a_glob_sees_nothing_of_the_location() -> None:
    assert not Selection(include=("location/*",)).selects("location/a", "a")
    assert Selection(include=("a",)).selects("location/a", "a")


def test_the_location_itself_goes_by_its_own_name() -> None:
    assert Selection(include=("*.dcm",)).selects("chris/a.dcm", "")
    assert not Selection(exclude=("study",)).selects("chris/study/", "")


@pytest.mark.parametrize(
    ("pattern", "rest"),
    [
        ("*a*a*a*a*a*a*a*a*a*b", "a" * 1024),
        ("*a" * 500 + "*b", "a" * 1024),
        ("*?" * 500 + "*b", "a" * 1024),
        ("*[a-z]" * 150 + "*b", "a" * 1024),
        ("*" + "?" * 1000 + "*b", "a" * 1024),
        ("**/a/**/a/**/a/**/a/**/b", "a/" * 500 + "c"),
        ("**/a/" * 200 + "b", "a/" * 500 + "c"),
        ("**/*a*a*a*a/" * 80 + "b", "aaaaaaaa/" * 100 + "c"),
        ("**/" * 100 + "*/" * 300 + "b", "a/" * 500 + "c"),
    ],
)
def test_no_glob_takes_long(pattern: str, rest: str) -> None:
    chosen = Selection(include=(pattern,), exclude=(pattern,))
    started = time.process_time()
    assert not chosen.selects(rest, rest)
    assert not matches(pattern, rest[:-1] + "d")
    assert time.process_time() - started < 1


GLOB_PARTS = st.sampled_from(["**", "*", "a", "?", "[ab]", "[!a]", "a*", "*b*a", "[]", "[!]", "[", ""])


@given(
    st.one_of(st.text("ab*?[]!-/", min_size=1, max_size=9), st.lists(GLOB_PARTS, min_size=1).map("/".join)),
    st.one_of(
        st.text("ab/[!", max_size=9), st.lists(st.sampled_from(["a", "b", "ab", "", "["])).map("/".join)
    ),
)
def test_both_ways_to_match_a_glob_agree(pattern: str, path: str) -> None:
    parts = pattern.split("/")
    if len(parts) > 1 or "/" not in path:
        assert Automaton(parts).match(path) is Steps(parts).match(path)


@pytest.mark.parametrize(
    ("pattern", "rest"),
    [
        ("*" + "a" * 500 + "b", "a" * 1024),
        ("*" + "?" * 500 + "b", "a" * 1024),
        ("**/" + "a/" * 500 + "b", "a/" * 511 + "c"),
        ("**/" + "[ab]/" * 200 + "b", "a/" * 511 + "c"),
        ("**/" + "?*/" * 300 + "b", "a/" * 511 + "c"),
        ("*[a-z]" * 170, "é" * 1024),
    ],
)
def test_as_many_of_the_worst_globs_as_there_may_be_take_no_second_for_a_key(pattern: str, rest: str) -> None:
    """A plan is stopped between two keys."""
    chosen = Selection(include=(pattern,) * 64)  # as many as a message may have of this length
    started = time.process_time()
    assert not chosen.selects(rest, rest)
    assert time.process_time() - started < 1


@given(st.text("*?[]!-a/^&|~\\", min_size=1, max_size=20), ANY_TEXT)
def test_any_text_is_a_glob(pattern: str, rest: str) -> None:
    assert matches(pattern, rest) in (True, False)
    assert matches(rest[:100], pattern) in (True, False)


@pytest.mark.parametrize("meta", ["include", "exclude"])
def test_globs_are_bounded_in_number_and_length(meta: str) -> None:
    Selection(**{meta: ("a" * MAX_GLOB_LENGTH,) * MAX_GLOBS})
    for patterns in (("a",) * (MAX_GLOBS + 1), ("a" * (MAX_GLOB_LENGTH + 1),), ("a", "")):
        with pytest.raises(MessageError, match=f"^meta '{meta}' takes "):
            Selection(**{meta: patterns})


# shards


@given(ANY_TEXT, st.integers(1, 20))
def test_each_key_is_in_exactly_one_share(key: str, count: int) -> None:
    shares = [f"{number}/{count}" for number in range(1, count + 1)]
    assert sum(Selection(shard=share).selects(key, key) for share in shares) == 1


@pytest.mark.parametrize(
    ("key", "share"), [("chris/a.dcm", 15), ("chris/b.dcm", 7), ("é", 3), ("", 5), ("\udcff", 9)]
)
def test_the_share_of_a_key_is_the_same_for_ever(key: str, share: int) -> None:
    shares = [number for number in range(1, 17) if Selection(shard=f"{number}/16").selects(key, key)]
    digest = hashlib.md5(key.encode("utf-8", "surrogatepass")).digest()
    assert shares == [int.from_bytes(digest[:8], "big") % 16 + 1] == [share]


def test_shares_are_of_about_the_same_size() -> None:
    keys = [f"chris/{number:05}.dcm" for number in range(4000)]
    for number in range(1, 5):
        chosen = Selection(shard=f"{number}/4")
        assert 900 < sum(chosen.selects(key, key) for key in keys) < 1100


@pytest.mark.parametrize(
    "shard",
    [
        *("0/2", "3/2", "1", "/", "1/", "/2", "0/0", "-1/2", "1/-2", "+1/2", "1/2/3", "a/b", " 1/2", "1/2\n"),
        *("1.0/2", "1/" + "9" * 5000, "\u0663/\u0664"),
    ],
)
def test_a_shard_is_k_of_n(shard: str) -> None:
    with pytest.raises(MessageError) as caught:
        Selection(shard=shard)
    assert str(caught.value) == "meta 'shard' takes K/N with 1 <= K <= N, like 3/16"


def test_all_tests_must_be_passed() -> None:
    whole = Selection(substr="chris", include=("*.dcm",), exclude=("b*",), shard="1/1")
    assert whole.selects("chris/a.dcm", "a.dcm")
    for name, value in (("substr", "x"), ("include", ("x",)), ("exclude", ("a*",))):
        assert not dataclasses.replace(whole, **{name: value}).selects("chris/a.dcm", "a.dcm")
    halves = [dataclasses.replace(whole, shard=f"{number}/2") for number in (1, 2)]
    assert sorted(half.selects("chris/a.dcm", "a.dcm") for half in halves) == [False, True]


def test_a_selection_is_one_value() -> None:
    assert Selection(include=("a",)) == Selection(include=("a",)) != Selection(exclude=("a",))
    with pytest.raises(dataclasses.FrozenInstanceError):
        Selection().substr = "a"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("glob", "covered", "not_covered"),
    [
        ("d/**", ["d/", "d/e/", "d/e/f/"], ["e/", "dd/", "x/d/"]),
        ("**/d/**", ["d/", "x/d/", "x/d/y/"], ["x/", "dd/"]),
        ("d/*/**", ["d/e/", "d/e/f/"], ["d/", "e/"]),
        ("d?/**", ["d1/", "d1/x/"], ["d/", "d12/"]),
        ("**", ["d/", "d/e/"], []),
        ("*", ["d/", "d/e/"], []),
        ("**/**", ["d/", "d/e/"], []),
        ("?", [], ["d/"]),
        ("[!a]", [], ["d/"]),
        ("*.dcm", [], ["d/", "x.dcm/"]),
        ("d/*", [], ["d/", "d/e/"]),
        ("d/?", [], ["d/"]),
        ("d/**/e", [], ["d/", "d/e/"]),
        ("d", [], ["d/"]),
        ("d/", [], ["d/"]),
    ],
)
def test_an_excluded_directory_is_skipped_as_a_whole(
    glob: str, covered: list[str], not_covered: list[str]
) -> None:
    selection = Selection(exclude=(glob,))
    assert [path for path in covered + not_covered if selection.excludes(path)] == covered
    for directory in covered:  # and nothing else is
        for rest in ("x", "x/y", "x/", "\N{SNOWMAN}/z.dcm"):
            assert not selection.selects(directory + rest, directory + rest)
