"""Matching of globs, in a time that is practically linear in the length of the path. This module is pure.

`pfstorage.keys.selection.Selection` defines the syntax.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable

# Matches one component; None means ``**``.
Step = Callable[[str], object] | None

# Limits for `Steps`, which is the fastest for short globs, but needs a time of the product of both lengths: the number
# of components of a glob, and the length of a component with ``?`` or ``[``.
MAX_STEPS = 16
MAX_STEP_LENGTH = 64

# The number of characters that an automaton caches.
MAX_CACHED = 128

# The mark for any name. No name contains it.
_ANY = "\0"


class Glob:
    """A compiled pattern. Call it with a path to test whether the path matches."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        self._is_anywhere = len(parts) == 1
        self._takes_all = self._is_anywhere and not pattern.strip("*")
        self._ends_in_any = parts[-1] == "**"
        # the slash at the end of a directory marker counts only then
        self._wants_slash = not self._is_anywhere and parts[-1] in ("", "**")
        is_short = len(parts) <= MAX_STEPS and all(
            len(part) <= MAX_STEP_LENGTH for part in parts if "?" in part or "[" in part
        )
        self._matches = Steps(parts).match if is_short else Automaton(parts).match

    def __call__(self, path: str) -> bool:
        whole = path if self._wants_slash else path.removesuffix("/")
        return self._matches(whole.rpartition("/")[2] if self._is_anywhere else whole)

    def covers(self, directory: str) -> bool:
        """Return whether every path below *directory*, which ends in a slash, matches, as with ``**`` at the end."""
        if self._is_anywhere or not self._ends_in_any:
            return self._takes_all
        return self._matches(f"{directory.rstrip('/')}/{_ANY}")


class Steps:
    """A matcher that compares the components of a glob one by one."""

    def __init__(self, parts: list[str]) -> None:
        self._steps = [_step(part) for part in parts]

    def match(self, path: str) -> bool:
        """Return whether the glob matches all of *path*.

        The components after a ``**`` are tried at each name in turn. After a match up to the next ``**``, they need
        not be tried again: the next ``**`` absorbs any difference. A ``**`` at the end matches at least one name.
        """
        steps, names = self._steps, path.split("/")
        at = step = 0
        retry: tuple[int, int] | None = None
        while at < len(names):
            fits = steps[step] if step < len(steps) else _matches_nothing
            if fits is None:
                step += 1
                retry = at + 1, step
            elif names[at] != _ANY and fits(names[at]):
                at, step = at + 1, step + 1
            elif retry:
                at, step = retry
                retry = at + 1, step
            else:
                return False
        return step == len(steps)


def _step(part: str) -> Step:
    if part == "**":
        return None
    if "?" in part or "[" in part:
        return re.compile(fnmatch.translate(part)).match
    if "*" not in part:
        return part.__eq__
    first, *between, last = part.split("*")
    return functools.partial(_fits, first, [text for text in between if text], last)


def _fits(first: str, between: list[str], last: str, name: str) -> bool:
    """Return whether *name* has the texts *first*, *between* and *last* in this order, with any text between them."""
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for text in between:
        at = name.find(text, at, end)
        if at < 0:
            return False
        at += len(text)
    return True


def _matches_nothing(_: str) -> bool:
    return False


class Automaton:
    """A matcher that reads each character of a path once and tracks all positions in the glob in parallel.

    Each bit of an integer is a position; it is set if the glob before this position matches the path so far
    (shift-and, Baeza-Yates and Gonnet 1992). A character, a ``?`` or a set advances by one character. A star, ``**/``
    and ``**`` at the end may also stay at their position.
    """

    def __init__(self, parts: list[str]) -> None:
        self._count = 0
        self._star_positions = self._level_positions = self._rest_positions = self._any_character = 0
        self._characters: dict[str, int] = {}
        self._sets: dict[str, int] = {}
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            if part == "**" and is_last:
                self._rest_positions |= self._new_position()
            elif part == "**":
                if number == 0 or parts[number - 1] != "**":
                    self._level_positions |= self._new_position()
            else:
                self._add(part if is_last else f"{part}/")
        tests = (
            (re.compile(fnmatch.translate(text)).match, positions) for text, positions in self._sets.items()
        )
        self._tests = [*tests]
        self._of_character = {"/": self._characters.get("/", 0), _ANY: 0}

    def _new_position(self) -> int:
        self._count += 1
        return 1 << (self._count - 1)

    def _add(self, text: str) -> None:
        for symbol in re.findall(r"\*+|\[(?:!|(?!!))(?:\]|(?!\]))[^\]]*\]|.", text, re.DOTALL):
            position = self._new_position()
            if symbol[0] == "*":
                self._star_positions |= position
            elif symbol == "?":
                self._any_character |= position
            else:
                known = self._sets if len(symbol) > 1 else self._characters
                known[symbol] = known.get(symbol, 0) | position

    def match(self, path: str) -> bool:
        """Return whether the glob matches all of *path*."""
        stars, levels, rests = self._star_positions, self._level_positions, self._rest_positions
        found = 1 | (levels & 1) << 1
        found |= (found & stars) << 1
        found |= (found & rests) << 1
        for character in path:
            positions = self._of_character.get(character)
            if positions is None:
                positions = self._positions_of(character)
            stays = levels | rests if character in ("/", _ANY) else levels | rests | stars
            found = (found & positions) << 1 | found & stays
            if character == "/":
                found |= (found & levels) << 1
            found |= (found & stars) << 1
            found |= (found & rests) << 1
            if not found:
                return False
        return bool(found >> self._count & 1)

    def _positions_of(self, character: str) -> int:
        """Return the positions that *character* advances."""
        positions = self._characters.get(character, 0) | self._any_character
        for fits, of_set in self._tests:
            if fits(character):
                positions |= of_set
        if len(self._of_character) < MAX_CACHED:
            self._of_character[character] = positions
        return positions
