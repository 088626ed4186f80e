"""Selection of keys by a substring, by globs and by shard. This module is pure."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass

from pfstorage.errors import MessageError
from pfstorage.keys.globs import Glob

MAX_GLOBS = 1000
MAX_GLOB_LENGTH = 1024
# Characters of all globs of one meta.
MAX_GLOBS_LENGTH = 64 * 1024
_SHARD = re.compile("([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Selection:
    """Four conditions on keys, all of which a selected key fulfils. An empty condition is always fulfilled.

    The key contains *substr*. At least one glob of *include* matches, and no glob of *exclude*. Each list has at most
    `MAX_GLOBS` globs of at most `MAX_GLOB_LENGTH` characters.

    A glob without a slash is compared with the last component of the path below the location, a glob with a slash
    with the whole path. ``*`` matches any text and ``?`` any character, but no slash. ``[a-z]`` and ``[!a-z]`` match
    one character. ``**`` as a component matches any number of components, at the end at least one. Other characters
    match themselves, with their case. Names that start with a dot have no special meaning. The slash at the end of
    a directory marker need not be in the glob.

    *shard* is ``K/N``: the K-th of N shards, starting with 1, for N machines that share the work. The shard of a key
    is 1 plus the remainder, modulo N, of the first 8 bytes of the MD5 of its UTF-8, as a big-endian number. This is
    the same in each version and on each machine.

    Raise `MessageError` for a malformed condition.

    >>> Selection(include=("*.dcm",), exclude=("tmp/**",)).selects("chris/a/b.dcm", "a/b.dcm")
    True
    >>> [shard for shard in ("1/3", "2/3", "3/3") if Selection(shard=shard).selects("a", "a")]
    ['1/3']
    """

    substr: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    shard: str = ""

    def __post_init__(self) -> None:
        _ = self._included, self._excluded, self._shard_numbers  # raises an error for a malformed condition

    def selects(self, key: str, rest: str) -> bool:
        """Return whether *key* is selected. *rest* is its path below the location, "" for the location itself.

        For the location itself, globs are compared with the last component of *key*.
        """
        path = rest or key.removesuffix("/").rpartition("/")[2]
        return (
            self.substr in key
            and (not self._included or any(glob(path) for glob in self._included))
            and not any(glob(path) for glob in self._excluded)
            and self.is_in_shard(key)
        )

    def excludes(self, rest: str) -> bool:
        """Return whether *exclude* matches the path *rest* or, if it ends in a slash, every path below it.

        >>> selection = Selection(exclude=("tmp/**", "old"))
        >>> [selection.excludes(rest) for rest in ("tmp/", "tmp/a", "old/", "old", "a")]
        [True, True, False, True, False]
        """
        if not rest.endswith("/"):
            return any(glob(rest) for glob in self._excluded)
        return any(glob.covers(rest) for glob in self._excluded)

    def is_in_shard(self, key: str) -> bool:
        """Return whether *key* belongs to *shard*."""
        if self._shard_numbers is None:
            return True
        number, count = self._shard_numbers
        # a local name that is not UTF-8 contains lone surrogates
        digest = hashlib.md5(key.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        return int.from_bytes(digest[:8], "big") % count == number - 1

    @functools.cached_property
    def _included(self) -> list[Glob]:
        return _globs("include", self.include)

    @functools.cached_property
    def _excluded(self) -> list[Glob]:
        return _globs("exclude", self.exclude)

    @functools.cached_property
    def _shard_numbers(self) -> tuple[int, int] | None:
        if not self.shard:
            return None
        match = _SHARD.fullmatch(self.shard)
        number, count = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= count:
            raise MessageError("meta 'shard' takes K/N with 1 <= K <= N, like 3/16")
        return number, count


def _globs(meta: str, patterns: tuple[str, ...]) -> list[Glob]:
    if len(patterns) > MAX_GLOBS:
        raise MessageError(f"meta {meta!r} takes at most {MAX_GLOBS} globs, not {len(patterns)}")
    for pattern in patterns:
        if not 1 <= len(pattern) <= MAX_GLOB_LENGTH:
            raise MessageError(f"meta {meta!r} takes globs of 1 to {MAX_GLOB_LENGTH} characters")
    return [Glob(pattern) for pattern in patterns]
