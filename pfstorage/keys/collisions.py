"""Keys that can't be local side by side: pure, and the only place that judges one key by others.

A store takes both ``a`` and ``a/b``; locally, ``a`` is either a file or a directory. Where the
file system folds names, ``A`` and ``a`` are the same one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from typing import Protocol


class Collisions:
    """Tells of each key of a pull whether it can be local beside those before it.

    Keys come in ascending order of their UTF-8 bytes, as a store lists them, unless *is_sorted* says otherwise.
    *folds* says that the file system takes two names for one that differ only in case, or in whether
    accents are composed with their letters.

    Where keys are sorted and names don't fold, the keys that are a prefix of the present one are all that is
    remembered. Else, that is every key and every directory, as a hash of 8 bytes. Two of *n* names
    have the same hash with a probability of n * n / 2 ** 65, and then the second is wrongly said
    to collide: for 200 000 names, once in a thousand million pulls.

    >>> keys = Collisions(folds=False)
    >>> [keys.check(key) for key in ("a", "a!", "a/b", "b/", "b/c")]
    [None, None, "'a/b' would be below 'a', which is a file", None, None]
    >>> keys = Collisions(folds=True)
    >>> [keys.check(key) for key in ("A", "B/c", "a", "b/d")]
    [None, None, "another key has the same local name as 'a'", None]
    """

    def __init__(self, folds: bool, *, is_sorted: bool = True) -> None:
        self._taken: _Taken = _Prefixes() if is_sorted and not folds else _All(fold if folds else str)

    def check(self, rest: str, is_directory: bool = False) -> str | None:
        """Return in words why *rest* can't be local beside those before it, else remember it.

        *rest* is the path below the target of the pull, "" for the target itself. It is a
        directory, too, if it is a marker, which ends in a slash.
        """
        path, is_directory = rest.removesuffix("/"), is_directory or rest.endswith("/")
        reason = self._reason(path, is_directory)
        if reason is None:
            self._taken.add(path, is_directory)
        return reason

    def _reason(self, path: str, is_directory: bool) -> str | None:
        for directory in _above(path):
            known = self._taken.is_directory(directory)
            if known is False:
                return f"{path!r} would be below {directory or '.'!r}, which is a file"
            if known:
                break  # and no file is above it, or it would not have been taken
        known = self._taken.is_directory(path)
        if known is None or (known and is_directory):
            return None
        if known == is_directory:
            return f"another key has the same local name as {path!r}"
        return f"{path or '.'!r} would be both a file and a directory"


def _above(path: str) -> Iterator[str]:
    """Yield the directories that *path* is in, the innermost first, the target, "", last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


class _Taken(Protocol):
    def add(self, path: str, is_directory: bool) -> None: ...

    def is_directory(self, path: str) -> bool | None:
        """Tell whether *path* is known to be a directory, or a file. None is neither."""
        ...


class _Prefixes:
    """The paths that one to come can have a part in common with: since keys ascend, a stack.

    A path that the present one doesn't begin with is none that a later one begins with. A file
    comes before what is below it, so the directories that a path is in need not be remembered.
    """

    def __init__(self) -> None:
        self._stack: dict[str, bool] = {}

    def add(self, path: str, is_directory: bool) -> None:
        while self._stack and not path.startswith(next(reversed(self._stack))):
            self._stack.popitem()
        self._stack[path] = is_directory

    def is_directory(self, path: str) -> bool | None:
        return self._stack.get(path)


class _All:
    """All paths, as *fold* returns them, and the directories that they are in: ``a`` comes after ``A/b``."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._files: set[int] = set()
        self._directories: set[int] = set()

    def add(self, path: str, is_directory: bool) -> None:
        (self._directories if is_directory else self._files).add(self._hash(path))
        for directory in map(self._hash, _above(path)):
            if directory in self._directories:
                break
            self._directories.add(directory)

    def is_directory(self, path: str) -> bool | None:
        hashed = self._hash(path)
        return hashed in self._directories or (False if hashed in self._files else None)

    def _hash(self, path: str) -> int:
        folded = self._fold(path).encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "big")


def fold(path: str) -> str:
    """Return *path* as a file system may take it: in one case, with accents composed.

    Its components can be folded together: nothing is composed with a slash. To decompose
    first is what Unicode asks for (definition D145, "canonical caseless match").

    >>> fold("Stra\\u00dfe/E\\u0301") == fold("STRASSE/\\u00e9")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
