"""Files that messages must not touch although they lie where messages may: those of the server itself."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterable, Iterator

MOST_LINKS = 40  # on the way to one file, as on Linux (path_resolution(7))
_SECONDS = 1.0
"""How long it is taken for granted that the ways to them have not changed."""


class DeniedFileError(PermissionError):
    """What was asked for is the server's own."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "it is the server's own, and not for messages")


class DenyList:
    """Files and directories that nobody may read, replace or go into, whatever bears their names at the time.

    So are the links on the way to one, but to follow them, and what is not there yet. They may be changed to lead
    elsewhere: the ways are gone again each second. Case counts for nothing, as on some file
    systems. Nor may anybody read one, or go into one, by another name: a hard link, or a place where it is mounted a
    second time. Several threads may ask.
    """

    def __init__(self, paths: Iterable[str] = (), *, everything: bool = False) -> None:
        """Relative *paths* begin at the working directory. Or *everything* is closed."""
        self._everything = everything
        self._paths = [_absolute(path) for path in paths]
        self._look()

    def _look(self) -> None:
        """Go the way to each, and note the names and, by each, the directories where it is closed."""
        found: dict[str, set[str]] = {}
        identities: set[tuple[int, int]] = set()
        for path in self._paths:
            for directory, name in steps(path):
                found.setdefault(name.casefold(), set()).add(directory)
            with contextlib.suppress(OSError, ValueError):  # it is not there, or can't be a path
                identities.add(_identity(os.stat(path)))
        self._directories, self._identities = found, identities
        self._looked_at = time.monotonic()

    def require_allowed(self, directory: int, name: str) -> None:
        """Raise `DeniedFileError` if *name* in *directory*, a descriptor, is closed."""
        if self._everything:
            raise DeniedFileError
        self._look_again()
        for closed in self._directories.get(name.casefold(), ()):
            if is_same(closed, directory):
                raise DeniedFileError

    @property
    def has_any(self) -> bool:
        """Whether anything is closed."""
        return self._everything or bool(self._paths)

    def require_not_denied(self, status: os.stat_result) -> None:
        """Raise `DeniedFileError` if *status* is that of a closed file, whatever the name that it was found by.

        `require_allowed` was asked for that name just before, so the ways to the files are known.
        """
        if _identity(status) in self._identities:
            self._look()  # a file that has gone since may have left its number to another
            if _identity(status) in self._identities:
                raise DeniedFileError

    def _look_again(self) -> None:
        if self._paths and time.monotonic() - self._looked_at > _SECONDS:
            self._look()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_same(path: str, descriptor: int) -> bool:
    """Tell whether *path* leads to what *descriptor* is of."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except (OSError, ValueError):  # it leads nowhere, or can't be a path
        return False


def passes_through(directory: str, path: str) -> bool:
    """Tell whether *path*, or a link on the way to it, lies below *directory*, which has no links."""
    places = (os.path.join(*step, "") for step in steps(_absolute(path)))
    return any(place.startswith(os.path.join(directory, "")) for place in places)


def _absolute(path: str) -> str:
    """Return *path* from the root on, with ``..`` where a link may be before it."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield the name of the absolute *path* and of each link on the way to it, each after its directory.

    The directory has no links. Where the way ends before, since there is nothing yet, the last
    name is that of what is missing.
    """
    here, to_go, links = "/", path.split("/")[::-1], 0
    while to_go:
        name = to_go.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        step = os.path.join(here, name)
        target = _target(step) if links < MOST_LINKS else None
        if target is not None:
            links += 1
            yield here, name
            here = "/" if target.startswith("/") else here
            to_go += target.split("/")[::-1]
        elif os.path.isdir(step):
            here = step
        else:
            yield here, name
            return
    yield os.path.dirname(here), os.path.basename(here)


def _target(link: str) -> str | None:
    try:
        return os.readlink(link)
    except (OSError, ValueError):  # it is none
        return None
