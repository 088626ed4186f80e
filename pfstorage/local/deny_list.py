"""The deny-list: files of the server itself, which messages may not access even where they may access other files."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator

# The number of links on the way to one file, as on Linux (path_resolution(7)).
MAX_LINKS = 40
# Seconds between two resolutions of the denied paths.
_REFRESH_SECONDS = 1.0


class DeniedFileError(PermissionError):
    """A message wants to access a file of the server itself."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "it is the server's own, and not for messages")


class DenyList:
    """Files and directories that nobody may read, replace or enter.

    An entry denies its name, even if no file has this name yet, and each link on the way to it: a link may be
    followed, but not read or replaced, since somebody could redirect it. The paths are resolved again every second.
    Names are compared without case, as some file systems do. An entry also denies the same file under another name:
    a hard link, or a second mount. Several threads may use a deny-list at once.
    """

    def __init__(self, paths: Iterable[str] = (), *, everything: bool = False) -> None:
        """Deny *paths*, which are relative to the working directory, or *everything*."""
        self._everything = everything
        self._paths = [_absolute(path) for path in paths]
        self._refreshing = threading.Lock()
        self._resolve()

    def _resolve(self) -> None:
        """Resolve all paths: collect the denied names with their directories, and the identities of the files."""
        directories: dict[str, set[str]] = {}
        identities: set[tuple[int, int]] = set()
        look = functools.cache(_look)  # most paths are in one directory
        for path in self._paths:
            for directory, name in steps(path, look):
                directories.setdefault(name.casefold(), set()).add(directory)
            with contextlib.suppress(OSError, ValueError):  # the file is missing, or the path is invalid
                identities.add(_identity(os.stat(path)))
        self._directories, self._identities = directories, identities
        self._resolved_at = time.monotonic()

    def require_allowed(self, directory: int, name: str) -> None:
        """Raise `DeniedFileError` if *name* in *directory*, a descriptor, is denied."""
        if self._everything:
            raise DeniedFileError
        if self._paths and time.monotonic() - self._resolved_at > _REFRESH_SECONDS:
            self._refresh()
        for denied in self._directories.get(name.casefold(), ()):
            if is_same(denied, directory):
                raise DeniedFileError

    def _refresh(self) -> None:
        """Resolve all paths, unless another thread does so: then the present list lasts a little longer."""
        if self._refreshing.acquire(blocking=False):
            try:
                self._resolve()
            finally:
                self._refreshing.release()

    @property
    def has_any(self) -> bool:
        """Whether the list denies anything."""
        return self._everything or bool(self._paths)

    def require_not_denied(self, status: os.stat_result) -> None:
        """Raise `DeniedFileError` if *status* is of a denied file, under any name.

        Call `require_allowed` for the name first: it refreshes the list.
        """
        if _identity(status) in self._identities:
            self._resolve()  # the file may be gone, and another file may have its inode number
            if _identity(status) in self._identities:
                raise DeniedFileError


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def is_same(path: str, descriptor: int) -> bool:
    """Return whether *path* leads to the file of *descriptor*."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except (OSError, ValueError):  # the path leads nowhere, or is invalid
        return False


def passes_through(directory: str, path: str) -> bool:
    """Return whether *path*, or a link on the way to it, is below *directory*, which has no links."""
    resolved = (os.path.join(*step, "") for step in steps(_absolute(path)))
    return any(each.startswith(os.path.join(directory, "")) for each in resolved)


def _absolute(path: str) -> str:
    """Return the absolute *path*, and keep ``..``: the component before it may be a link."""
    return path if os.path.isabs(path) else os.path.join(os.getcwd(), path)


def _look(path: str) -> tuple[str | None, bool]:
    """Return the target of *path* if it is a link, otherwise None, and whether it is a directory itself."""
    try:
        mode = os.lstat(path).st_mode
        target = os.readlink(path) if stat.S_ISLNK(mode) else None
    except (OSError, ValueError):  # it is missing or invalid
        return None, False
    return target, stat.S_ISDIR(mode)


def steps(path: str, look: Callable[[str], tuple[str | None, bool]] = _look) -> Iterator[tuple[str, str]]:
    """Resolve the absolute *path*; yield (directory, name) of each link on the way, and of the file itself.

    The directories have no links. If a directory on the way is missing, the last name is the missing one. *look* is
    `_look`, or remembers its results.
    """
    here, remaining, links = "/", path.split("/")[::-1], 0
    while remaining:
        name = remaining.pop()
        if name in ("", ".", ".."):
            here = os.path.dirname(here) if name == ".." else here
            continue
        step = os.path.join(here, name)
        target, is_directory = look(step)
        if target is not None and links < MAX_LINKS:
            links += 1
            yield here, name
            here = "/" if target.startswith("/") else here
            remaining += target.split("/")[::-1]
        elif is_directory:
            here = step
        else:
            yield here, name
            return
    yield os.path.dirname(here), os.path.basename(here)
