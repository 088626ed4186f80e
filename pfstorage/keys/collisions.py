"""Detection of keys that conflict as local paths. This module is pure.

A store can have both ``a`` and ``a/b``; locally, ``a`` is either a file or a directory. If the file system ignores
case, ``A`` and ``a`` are the same file.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterator
from typing import Protocol


class Collisions:
    """A check whether each key of a pull conflicts with the keys before it.

    With *is_sorted*, keys are checked in ascending order of their UTF-8 bytes, as a store lists them. *folds* means
    that the file system ignores differences of case and of composed or decomposed accents.

    With sorted keys and without *folds*, only the prefixes of the present key are in memory. Otherwise, each key and
    each directory is in memory, as a hash of 8 bytes. Two of *n* names have the same hash with a probability of
    n * n / 2 ** 65, and the second is then reported as a conflict by mistake: for 200 000 names, this happens once
    in 10 ** 9 pulls.

    >>> keys = Collisions(folds=False)
    >>> [keys.check(key) for key in ("a", "a!", "a/b", "b/", "b/c")]
    [None, None, "'a/b' would be below 'a', which is a file", None, None]
    >>> keys = Collisions(folds=True)
    >>> [keys.check(key) for key in ("A", "B/c", "a", "b/d")]
    [None, None, "another key has the same local name as 'a'", None]
    """

    def __init__(self, folds: bool, *, is_sorted: bool = True) -> None:
        self._known: _KnownPaths = (
            _PrefixStack() if is_sorted and not folds else _HashedPaths(fold if folds else str)
        )

    def check(self, rest: str, is_directory: bool = False) -> str | None:
        """Return a text about the conflict of *rest* with an earlier key; without a conflict, record *rest*.

        *rest* is the path below the target of the pull, "" for the target itself. It is a directory if it ends in a
        slash, or if *is_directory* is set.
        """
        path, is_directory = rest.removesuffix("/"), is_directory or rest.endswith("/")
        reason = self._reason(path, is_directory)
        if reason is None:
            self._known.add(path, is_directory)
        return reason

    def _reason(self, path: str, is_directory: bool) -> str | None:
        for directory in _parents(path):
            known = self._known.is_directory(directory)
            if known is False:
                return f"{path!r} would be below {directory or '.'!r}, which is a file"
            if known:
                break  # and no parent of it is a file, or it would not have been recorded
        known = self._known.is_directory(path)
        if known is None or (known and is_directory):
            return None
        if known == is_directory:
            return f"another key has the same local name as {path!r}"
        return f"{path or '.'!r} would be both a file and a directory"


def _parents(path: str) -> Iterator[str]:
    """Yield the parent directories of *path*, the innermost first, and the target, "", last."""
    while path:
        path = path.rpartition("/")[0]
        yield path


class _KnownPaths(Protocol):
    def add(self, path: str, is_directory: bool) -> None: ...

    def is_directory(self, path: str) -> bool | None:
        """Return True if *path* is a known directory, False for a known file, None otherwise."""
        ...


class _PrefixStack:
    """A stack of the known paths that are prefixes of the present one.

    Keys ascend, so if the present path does not start with a known path, no later one does. A file comes before the
    paths below it, so the parent directories of a path need not be known.
    """

    def __init__(self) -> None:
        self._stack: dict[str, bool] = {}

    def add(self, path: str, is_directory: bool) -> None:
        while self._stack and not path.startswith(next(reversed(self._stack))):
            self._stack.popitem()
        self._stack[path] = is_directory

    def is_directory(self, path: str) -> bool | None:
        return self._stack.get(path)


class _HashedPaths:
    """Hashes of all known paths, folded by *fold*, and of their parent directories."""

    def __init__(self, fold: Callable[[str], str]) -> None:
        self._fold = fold
        self._files: set[int] = set()
        self._directories: set[int] = set()

    def add(self, path: str, is_directory: bool) -> None:
        (self._directories if is_directory else self._files).add(self._hash(path))
        for directory in map(self._hash, _parents(path)):
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
    """Return *path* in one case and with composed accents, as a file system may compare it.

    This folds all components together, since nothing composes with a slash. Unicode requires decomposition first
    (definition D145, "canonical caseless match").

    >>> fold("Stra\\u00dfe/E\\u0301") == fold("STRASSE/\\u00e9")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
