"""Files that messages must not touch although they lie where messages may: those of the server itself."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

_MOST_LINKS = 40  # on the way to one file, as on Linux (path_resolution(7))


class ClosedFileError(PermissionError):
    """What was asked for is the server's own."""


class Closed:
    """Files and directories that nobody may read, replace or go into, whatever bears their names at the time.

    So are the links on the way to one, and what is not there yet. Case counts for
    nothing, as on some file systems. Several threads may ask.
    """

    def __init__(self, paths: Iterable[str] = ()) -> None:
        """Relative *paths* begin at the working directory."""
        self._directories: dict[str, set[str]] = {}
        for path in paths:
            for directory, name in _names_on_the_way(os.path.abspath(path)):
                self._directories.setdefault(name.casefold(), set()).add(directory)

    def require_open(self, directory: int, name: str) -> None:
        """Raise `ClosedFileError` if *name* in *directory*, a descriptor, is closed."""
        for closed in self._directories.get(name.casefold(), ()):
            if is_same(closed, directory):
                raise ClosedFileError(errno.EACCES, "it is the server's own, and not for messages")


def is_same(path: str, descriptor: int) -> bool:
    """Tell whether *path* leads to what *descriptor* is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _names_on_the_way(path: str) -> Iterator[tuple[str, str]]:
    """Yield the name of *path* and of each link on the way to it, each after its directory, which has no links.

    Where the way ends before, since there is nothing yet, that is the name of what is missing.
    """
    here, to_go, links = "/", path.split("/")[::-1], 0
    while to_go:
        name = to_go.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        step = os.path.join(here, name)
        target = os.readlink(step) if os.path.islink(step) else None
        if target is not None and links < _MOST_LINKS:
            links += 1
            yield here, name
            here = "/" if target.startswith("/") else here
            to_go += target.split("/")[::-1]
        elif not any(to_go) or not os.path.isdir(step):
            yield here, name
            return
        else:
            here = step
