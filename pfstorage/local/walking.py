"""A walk over the files of a directory tree, in the order of the keys that they get in a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pfstorage.errors import ForbiddenError, LocalFileError
from pfstorage.local.deny_list import DeniedFileError
from pfstorage.local.errors import local_error, local_errors
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.sandbox import LocalAccess
from pfstorage.local.unfinished import is_unfinished

# Errors of a broken link, and of a file that was removed during the walk.
_GONE_NUMBERS = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
# The directory of fsck(8), which only the superuser may read.
_LOST_AND_FOUND = "lost+found"


def _selects_nothing(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of a tree. *size* is in bytes, *mtime_ns* in nanoseconds since the epoch.

    *rest* is the path below the root, "" for the root itself.
    """

    resolved: ResolvedPath
    rest: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """The path: the root as the caller spelled it, and *rest*."""
        return self.resolved.path


def find_files(
    root: str,
    *,
    follow_symlinks: bool = False,
    warn: Callable[[str], None],
    local_access: LocalAccess | None = None,
    excludes: Callable[[str], bool] = _selects_nothing,
) -> Iterator[LocalFile | LocalFileError]:
    """Yield every regular file below *root*, or *root* itself, in ascending order of the bytes of `LocalFile.rest`.

    So ``a-b`` comes before ``a/x``, and ``a/x`` before ``a0``: this is the order of a listing, since the bytes of
    names are the UTF-8 of keys. A directory is read when the walk reaches it. Only the names in the directories on
    the way to the present file are in memory.

    Raise `LocalFileError`, at once, if *root* is missing, and `ForbiddenError` if *local_access* does not allow it.
    A file or directory that can't be read later is yielded as an error in its place, with the fact *local*.

    *warn* gets a message about each skipped file: an empty directory, a device, a pipe, a socket, a file that was
    removed during the walk, the store itself, and a link to a directory, out of the tree or nowhere. With
    *follow_symlinks*, links count as their targets, wherever *local_access* allows; only broken links and links to a
    directory that contains them are skipped. Unfinished files of pfstorage are skipped without a message.

    *excludes* skips files without a message. It gets each path below the root. For a directory, it also gets the
    path with a slash: if it returns true, everything below is skipped. If it returns true only for the path without
    the slash, the walk enters the directory, but does not report it if it contains no files.

    Below the roots of *local_access*, the walk opens descriptors, and the trees keep some of them open. Elsewhere
    it opens paths and keeps none open.
    """
    local_access = local_access or LocalAccess()
    top = local_access.resolve(root)
    with local_errors(root):
        status = top.status(follow=True)
        if stat.S_ISDIR(status.st_mode):
            return _Walker(top, local_access, follow_symlinks, warn, excludes).files()
    if stat.S_ISREG(status.st_mode):
        return iter([LocalFile(top, "", status.st_size, status.st_mtime_ns)])
    warn(f"{root!r} is no regular file")
    return iter([])


@dataclass
class _Level:
    """A directory on the way to the present file.

    *rest* is its path below the root, with a slash at the end. *names* are the names still to visit, in descending
    order. The name of a directory ends in a slash, because it sorts in this form.
    """

    resolved: ResolvedPath
    rest: str
    names: list[str]
    identity: tuple[int, int] | None


class _Walker:
    """The state of one walk."""

    def __init__(
        self,
        top: ResolvedPath,
        local_access: LocalAccess,
        follow_symlinks: bool,
        warn: Callable[[str], None],
        excludes: Callable[[str], bool],
    ) -> None:
        self._top = top
        self._base = os.path.join(top.path, "")
        self._local_access = local_access
        self._follow = follow_symlinks
        self._warn = warn
        self._excludes = excludes
        # A stack instead of recursion: a path may be deeper than Python's recursion limit.
        self._levels: list[_Level] = []

    def files(self) -> Iterator[LocalFile | LocalFileError]:
        found = self._visit(self._top, "", is_directory=True)
        while True:
            if found:
                yield found
            while self._levels and not self._levels[-1].names:
                self._levels.pop()
            if not self._levels:
                return
            level = self._levels[-1]
            entry = level.names.pop()
            name, rest = entry.removesuffix("/"), level.rest + entry
            resolved = level.resolved.child(name, self._base + level.rest + name)
            found = self._visit(resolved, rest, is_directory=name != entry)

    def _visit(
        self, resolved: ResolvedPath, rest: str, *, is_directory: bool
    ) -> LocalFile | LocalFileError | None:
        """Return the file at *resolved* or its error; push a directory to the stack and return None."""
        is_excluded = bool(rest) and self._excludes(rest.removesuffix("/"))
        if is_excluded if not is_directory else (rest and self._excludes(rest)):
            return None
        try:
            found = self._enter(resolved, rest) if is_directory else self._file(resolved, rest)
        except OSError as e:
            if not (is_excluded or self._is_skipped(e, rest)):
                return local_error(e, resolved.path)
            found = e.strerror
        except ForbiddenError:
            found = "it is a link that leads out of the directories that messages may name (--fsRoot)"
        if isinstance(found, str):
            if is_excluded:
                return None
            self._warn(f"{resolved.path!r} was left out: {found}")
            return None
        return found

    @staticmethod
    def _is_skipped(error: OSError, rest: str) -> bool:
        """Return whether the walk skips the file with a warning: it is gone, denied, or belongs to the system."""
        is_of_system = error.errno == errno.EACCES and rest.split("/")[-2:] == [_LOST_AND_FOUND, ""]
        return error.errno in _GONE_NUMBERS or isinstance(error, DeniedFileError) or is_of_system

    def _enter(self, resolved: ResolvedPath, rest: str) -> str | None:
        """Read a directory and push it to the stack; return the reason if it is skipped."""
        identity = None
        if self._follow:
            resolved = self._local_access.resolve_link(resolved)
            status = resolved.status(follow=True)
            identity = (status.st_dev, status.st_ino)
            if any(level.identity == identity for level in self._levels):
                return "it leads back to a directory that it is in"
        if self._local_access.is_store(resolved):
            return "it is the store itself (--storeBase)"
        with resolved.entries() as entries:
            names = [
                entry.name + "/" if self._is_directory(entry, resolved) else entry.name for entry in entries
            ]
        names.sort(key=os.fsencode, reverse=True)
        self._levels.append(_Level(resolved, rest, names, identity))
        return "it is empty" if rest and not names else None

    def _is_directory(self, entry: os.DirEntry[str], directory: ResolvedPath) -> bool:
        try:
            if not (self._follow and entry.is_symlink()):
                return entry.is_dir(follow_symlinks=False)
            resolved = directory.child(entry.name, os.path.join(directory.path, entry.name))
            return stat.S_ISDIR(self._local_access.resolve_link(resolved).status(follow=True).st_mode)
        except (OSError, ForbiddenError):
            return False  # a circular, denied or forbidden link: `_file` reports it

    def _file(self, resolved: ResolvedPath, rest: str) -> LocalFile | str | None:
        """Return the file at *resolved*, the reason if it is skipped, or None if it is skipped without a warning."""
        if is_unfinished(rest.rpartition("/")[2]):
            return None
        status = resolved.status()
        if stat.S_ISLNK(status.st_mode):
            resolved = self._local_access.resolve_link(resolved)
            if not self._follow and not resolved.is_below(self._top):
                return "it is a link that leads out of the tree"
            status = resolved.status(follow=True)
            if stat.S_ISDIR(status.st_mode):
                return "it is a link to a directory"
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        return LocalFile(resolved, rest, status.st_size, status.st_mtime_ns)
