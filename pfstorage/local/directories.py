"""Opening of the directories of a tree: component by component, without following links."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import threading
from collections.abc import Callable

from pfstorage.local.deny_list import DenyList
from pfstorage.local.descriptors import TOP, Directory

# The components of a path below the directory of a tree.
Parts = tuple[str, ...]

_NO_FOLLOW = TOP | os.O_NOFOLLOW
# O_PATH also opens a directory that this user may enter but not list.
_ENTER_ONLY = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC


class OpenDirectories:
    """The directories of the tree at *path*. The most recently opened ones stay open. Methods raise `OSError`.

    Several threads may call the methods at once.
    """

    def __init__(
        self,
        path: str,
        *,
        max_kept: int,
        top: Directory | None,
        deny_list: DenyList,
        on_new_top: Callable[[], None],
    ) -> None:
        """Keep up to *max_kept* directories open. *top* is the directory at *path*, if it is open already.

        Denied directories are not opened. *on_new_top* is called when the directory at *path* has been created.
        """
        self._path = path
        self._max_kept = max_kept
        self._top = top
        self.deny_list = deny_list
        self._on_new_top = on_new_top
        self._kept: dict[Parts, Directory] = {}
        self._lock = threading.Lock()

    def with_deny_list(self, deny_list: DenyList) -> OpenDirectories:
        """Return the same directories with another deny-list."""
        made = copy.copy(self)
        made.deny_list = deny_list
        return made

    def keeping(self, max_kept: int) -> OpenDirectories:
        """Return the same directories, with a new set of up to *max_kept* open ones."""
        made = copy.copy(self)
        made._kept, made._max_kept = {}, max_kept
        return made

    def parent_of(self, parts: Parts, *, make: bool = False) -> Directory:
        """Open the directory that contains *parts*; without parts, the top. Raise an error if *parts* are denied.

        With *make*, missing directories are created.
        """
        directory = self.open(parts[:-1], make=make)
        if parts:
            self.deny_list.require_allowed(directory.descriptor, parts[-1])
        return directory

    def open(self, parts: Parts, *, make: bool = False) -> Directory:
        """Open the directory *parts*. With *make*, missing directories are created."""
        directory = self._kept.get(parts)
        if directory is None:
            directory = self._open(parts, make=make)
            if self._max_kept:
                with self._lock:
                    while len(self._kept) >= self._max_kept:
                        del self._kept[next(iter(self._kept))]
                    kept = self._kept.setdefault(parts, directory)
                    # another thread may have opened the directory after this one created it
                    kept.is_new |= directory.is_new
                    directory = kept
        return directory

    def open_nearest(self, parts: Parts) -> Directory:
        """Open the directory *parts*, or its nearest existing parent."""
        for depth in range(len(parts), -1, -1):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return self._kept.get(parts[:depth]) or self._open(parts[:depth], make=False)
        path = self._path
        while not os.path.isdir(path) and path != ".":
            path = os.path.dirname(path) or "."
        try:
            return Directory(os.open(path, TOP))
        except PermissionError:
            return Directory(os.open(path, _ENTER_ONLY))

    def is_new(self, parts: Parts) -> bool:
        """Return whether this object created the directory *parts*, as far as it is still open."""
        directory = self._kept.get(parts)
        return directory is not None and directory.is_new

    def forget(self, parts: Parts) -> None:
        """Open the directory *parts* again next time, because somebody has removed it."""
        self._kept.pop(parts, None)

    def close(self) -> None:
        """Close the directories that were kept open, each when nothing uses it any more."""
        with self._lock:
            self._kept.clear()

    def _open(self, parts: Parts, *, make: bool) -> Directory:
        current = self._open_top(make)
        for part in parts:
            self.deny_list.require_allowed(current.descriptor, part)
            current = _open_child(part, current.descriptor, make)
            if self.deny_list.has_any:
                self.deny_list.require_not_denied(os.fstat(current.descriptor))
        return current

    def _open_top(self, make: bool) -> Directory:
        if self._top:
            return self._top
        is_new = False
        if make:
            with contextlib.suppress(FileNotFoundError):  # for all files but the first, it exists
                return Directory(os.open(self._path, TOP))
            with contextlib.suppress(FileExistsError):  # another thread was faster
                os.makedirs(self._path)
                is_new = True
                self._on_new_top()
        return Directory(os.open(self._path, TOP), is_new=is_new)


def _open_child(name: str, parent: int, make: bool) -> Directory:
    is_new = False
    try:
        if make:
            with contextlib.suppress(FileNotFoundError):
                return Directory(os.open(name, _NO_FOLLOW, dir_fd=parent))
            with contextlib.suppress(FileExistsError):  # another thread was faster
                os.mkdir(name, dir_fd=parent)
                is_new = True
        return Directory(os.open(name, _NO_FOLLOW, dir_fd=parent), is_new=is_new)
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, f"{name!r} in it is a file or a link, not a directory"
        ) from None
