"""Globs, matched in time that is bounded by the length of the path alone, as far as anybody may notice. Pure.

`pfstorage.keys.selection.Selection` tells what they mean.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Callable

Step = Callable[[str], object] | None
"""What matches one component; None is ``**``."""

MOST_STEPS = 16
LONGEST_STEP = 64
"""Components of a glob, and characters of one that has ``?`` or ``[``, that are matched one by one.

That is the quickest for a glob that a person writes. Its time is the product of both lengths, though.
"""

MOST_KNOWN = 128
"""Characters of paths whose places an automaton keeps."""

_ANY = "\0"
"""No name has it: it stands for all names that there may be."""


class Glob:
    """A pattern; to call it with a path tells whether that matches."""

    def __init__(self, pattern: str) -> None:
        parts = pattern.split("/")
        self._is_anywhere = len(parts) == 1
        self._takes_all = self._is_anywhere and not pattern.strip("*")
        self._ends_in_any = parts[-1] == "**"
        # only then that of a marker counts
        self._wants_slash = not self._is_anywhere and parts[-1] in ("", "**")
        is_short = len(parts) <= MOST_STEPS and all(
            len(part) <= LONGEST_STEP for part in parts if "?" in part or "[" in part
        )
        self._matches = Steps(parts).match if is_short else Automaton(parts).match

    def __call__(self, path: str) -> bool:
        whole = path if self._wants_slash else path.removesuffix("/")
        return self._matches(whole.rpartition("/")[2] if self._is_anywhere else whole)

    def covers(self, directory: str) -> bool:
        """Tell whether each path below *directory*, which ends in a slash, matches: ``**`` at the end takes all."""
        if self._is_anywhere or not self._ends_in_any:
            return self._takes_all
        return self._matches(f"{directory.rstrip('/')}/{_ANY}")


class Steps:
    """The components *parts* of a glob, each matched by itself."""

    def __init__(self, parts: list[str]) -> None:
        self._steps = [_step(part) for part in parts]

    def match(self, path: str) -> bool:
        """Tell whether they match all of *path*.

        What follows a ``**`` is tried at each name in turn. Once it has matched up to the next
        ``**``, it need never be tried again: that one takes whatever a later match would leave.
        A ``**`` at the end counts only where a name is left for it, so it takes one at least.
        """
        steps, names = self._steps, path.split("/")
        at = step = 0
        retry: tuple[int, int] | None = None
        while at < len(names):
            fits = steps[step] if step < len(steps) else _nothing
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
    """Tell whether *name* is *first*, *between* and *last* in this order, with anything between them."""
    at, end = len(first), len(name) - len(last)
    if at > end or not (name.startswith(first) and name.endswith(last)):
        return False
    for text in between:
        at = name.find(text, at, end)
        if at < 0:
            return False
        at += len(text)
    return True


def _nothing(_: str) -> bool:
    return False


class Automaton:
    """The components *parts* of any glob. It looks at each character of a path once, at all places of the glob at once.

    A bit of a number is a place; that it is set tells that what is before that place matches the path so far
    (shift-and, Baeza-Yates and Gonnet 1992). Places are characters, ``?`` and sets, which a path may go on from by one
    character; stars, ``**/``, and ``**`` at the end, which it may also stay at.
    """

    def __init__(self, parts: list[str]) -> None:
        self._places = 0
        self._stars = self._levels = self._rests = self._marks = 0
        self._characters: dict[str, int] = {}
        self._sets: dict[str, int] = {}
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            if part == "**" and is_last:
                self._rests |= self._new_place()
            elif part == "**":
                if number == 0 or parts[number - 1] != "**":
                    self._levels |= self._new_place()
            else:
                self._add(part if is_last else f"{part}/")
        tests = ((re.compile(fnmatch.translate(text)).match, places) for text, places in self._sets.items())
        self._tests = [*tests]
        self._of_character = {"/": self._characters.get("/", 0), _ANY: 0}

    def _new_place(self) -> int:
        self._places += 1
        return 1 << (self._places - 1)

    def _add(self, text: str) -> None:
        for symbol in re.findall(r"\*+|\[(?:!|(?!!))(?:\]|(?!\]))[^\]]*\]|.", text, re.DOTALL):
            place = self._new_place()
            if symbol[0] == "*":
                self._stars |= place
            elif symbol == "?":
                self._marks |= place
            else:
                known = self._sets if len(symbol) > 1 else self._characters
                known[symbol] = known.get(symbol, 0) | place

    def match(self, path: str) -> bool:
        """Tell whether they match all of *path*."""
        stars, levels, rests = self._stars, self._levels, self._rests
        found = 1 | (levels & 1) << 1
        found |= (found & stars) << 1
        found |= (found & rests) << 1
        for character in path:
            places = self._of_character.get(character)
            if places is None:
                places = self._places_of(character)
            stays = levels | rests if character in ("/", _ANY) else levels | rests | stars
            found = (found & places) << 1 | found & stays
            if character == "/":
                found |= (found & levels) << 1
            found |= (found & stars) << 1
            found |= (found & rests) << 1
            if not found:
                return False
        return bool(found >> self._places & 1)

    def _places_of(self, character: str) -> int:
        """Return the places that *character* goes on from."""
        places = self._characters.get(character, 0) | self._marks
        for fits, of_set in self._tests:
            if fits(character):
                places |= of_set
        if len(self._of_character) < MOST_KNOWN:
            self._of_character[character] = places
        return places
