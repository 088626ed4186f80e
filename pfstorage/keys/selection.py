"""Which keys of a plan are taken: by a text, by globs, by shard. Pure."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass

from pfstorage.errors import MessageError
from pfstorage.keys.globs import Glob

MAX_GLOBS = 1000
MAX_GLOB_LENGTH = 1024
MAX_GLOBS_LENGTH = 64 * 1024
"""Characters of all globs of one meta."""
_SHARD = re.compile("([0-9]{1,9})/([0-9]{1,9})")


@dataclass(frozen=True)
class Selection:
    """What is taken: the keys that pass each of four tests. An empty one is passed by all.

    *substr* is in the key. One of the globs of *include* matches, and none of *exclude*; each
    list has at most `MAX_GLOBS` of at most `MAX_GLOB_LENGTH` characters.

    A glob without a slash is matched with the last component of the path below the location;
    one with a slash with the whole of it. ``*`` is any text and ``?`` any character, but no
    slash; ``[a-z]`` and ``[!a-z]`` are one character; ``**`` as a component is any number of
    components, at the end at least one. Case matters, names that begin with a dot are names
    like others, and no other character means anything but itself. The slash at the end of a
    marker need not be in the glob.

    *shard* is ``K/N``: the K-th of N shares, from 1 on, as many machines divide a plan. A key
    belongs to the share that the first 8 bytes of the MD5 of its UTF-8, as a big-endian number,
    leave modulo N, plus 1. That is the same in each version and on each machine.

    Raise `MessageError` for what is malformed.

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
        _ = self._included, self._excluded, self._share  # what is malformed is told at once

    def selects(self, key: str, rest: str) -> bool:
        """Tell whether *key* is taken. *rest* is its path below the location, "" for the location itself.

        The latter is matched by its own name, the last component of *key*.
        """
        path = rest or key.removesuffix("/").rpartition("/")[2]
        return (
            self.substr in key
            and (not self._included or any(glob(path) for glob in self._included))
            and not any(glob(path) for glob in self._excluded)
            and self.is_in_shard(key)
        )

    def excludes(self, rest: str) -> bool:
        """Tell whether *exclude* matches *rest*, a path below the location, or all below it if that ends in a slash.

        >>> selection = Selection(exclude=("tmp/**", "old"))
        >>> [selection.excludes(rest) for rest in ("tmp/", "tmp/a", "old/", "old", "a")]
        [True, True, False, True, False]
        """
        if not rest.endswith("/"):
            return any(glob(rest) for glob in self._excluded)
        return any(glob.covers(rest) for glob in self._excluded)

    def is_in_shard(self, key: str) -> bool:
        """Tell whether *shard* takes *key*."""
        if self._share is None:
            return True
        number, count = self._share
        # a local name that is not UTF-8 has lone surrogates
        digest = hashlib.md5(key.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
        return int.from_bytes(digest[:8], "big") % count == number - 1

    @functools.cached_property
    def _included(self) -> list[Glob]:
        return _globs("include", self.include)

    @functools.cached_property
    def _excluded(self) -> list[Glob]:
        return _globs("exclude", self.exclude)

    @functools.cached_property
    def _share(self) -> tuple[int, int] | None:
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
