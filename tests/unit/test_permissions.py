"""Parsing and meaning of permissions."""

from __future__ import annotations

import pytest

from pfstorage.access.permissions import LEVELS, Permissions


@pytest.mark.parametrize(
    ("text", "permissions"),
    [
        ("read", Permissions("read")),
        ("write", Permissions("write")),
        ("admin", Permissions()),
        ("  write   chris/feed_12/ ", Permissions("write", "chris/feed_12/")),
        ("read\tchris/feed_12", Permissions("read", "chris/feed_12")),
        ("read My Files/of  2026", Permissions("read", "My Files/of  2026")),
        ("read read", Permissions("read", "read")),
        ("admin Müller/%(x)s/日本/", Permissions("admin", "Müller/%(x)s/日本/")),
    ],
)
def test_permissions_are_a_level_and_a_prefix(text: str, permissions: Permissions) -> None:
    assert Permissions.parse(text) == permissions


@pytest.mark.parametrize(
    "text", ["", " ", "READ", "reading", "chris/ read", "secret-0123456789", "read,write"]
)
def test_invalid_permissions_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match="rights are one of read, write, admin") as caught:
        Permissions.parse(text)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "prefix",
    [
        "/",
        "/chris/",
        "//",
        "a//b",
        "a//",
        "./a",
        "a/./b",
        "../a",
        "a/..",
        "a/../b",
        ".",
        "..",
        "*",
        "a/*",
        "a\x07",
    ],
)
def test_a_prefix_that_no_key_has_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="a key prefix is a plain text like 'chris/feed_12/'"):
        Permissions.parse(f"read {prefix}")


@pytest.mark.parametrize("prefix", ["a", "a/", ".a", "a/.b", "..a/b", "a*b/", "a b/", "a/b/c"])
def test_any_other_prefix_is_taken(prefix: str) -> None:
    assert Permissions.parse(f"read {prefix}") == Permissions("read", prefix)


def test_each_level_includes_the_lower_levels() -> None:
    allowed = {level: [asked for asked in LEVELS if Permissions(level).allows(asked)] for level in LEVELS}
    assert allowed == {"read": ["read"], "write": ["read", "write"], "admin": ["read", "write", "admin"]}


@pytest.mark.parametrize(
    ("key", "inside", "loosely"),
    [
        ("chris/feed_12/a", True, True),
        ("chris/feed_12/", True, True),
        ("chris/feed_12", False, True),
        ("chris/feed_123/x", False, True),
        ("chris/feed_1", False, False),
        ("/chris/feed_12/a", False, False),
        ("Chris/feed_12/a", False, False),
        ("./chris/feed_12/a", False, False),
        ("", False, False),
    ],
)
def test_a_prefix_is_for_the_keys_that_begin_with_it(key: str, inside: bool, loosely: bool) -> None:
    assert Permissions("write", "chris/feed_12/").allows_key(key) is inside
    assert Permissions("write", "chris/feed_12").allows_key(key) is loosely
    assert Permissions("read").allows_key(key)
