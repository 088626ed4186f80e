"""The files of a tree, in the order of the keys that they get in a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pfstorage.errors import ForbiddenError, LocalFileError
from pfstorage.local.common import local_error, local_errors
from pfstorage.local.deny_list import DeniedFileError
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.sandbox import LocalAccess
from pfstorage.local.unfinished import is_unfinished

_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # of a link, or of what has gone meanwhile

_OF_FSCK = "lost+found"  # what a check of the file system has found (fsck(8)), for the superuser


def _nothing(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of a tree. *size* is in bytes, *mtime_ns* in nanoseconds since 1970.

    *rest* is what lies below the root, "" for the root itself.
    """

    resolved: ResolvedPath
    rest: str
    size: int
    mtime_ns: int

    @property
    def path(self) -> str:
        """Its path, which begins with the root as it was spelled."""
        return self.resolved.path


def find_files(
    root: str,
    *,
    follow_symlinks: bool = False,
    warn: Callable[[str], None],
    local_access: LocalAccess | None = None,
    excludes: Callable[[str], bool] = _nothing,
) -> Iterator[LocalFile | LocalFileError]:
    """Yield every regular file below *root*, or *root* itself, in ascending order of the bytes of its `LocalFile.rest`.

    So ``a-b`` comes before ``a/x``, and that before ``a0``: the order of a listing, since
    the bytes of names are the UTF-8 of keys. One directory is read at a time, when it is
    reached; names of those on the way to a file are held. What can't be read is yielded
    as an error in its place, with the fact *local*. Raise `LocalFileError`, at once, if
    *root* is missing, and `ForbiddenError` if the *local_access* does not allow it.

    *warn* is told what is left out: an empty directory, a device, a pipe, a socket, what
    has gone meanwhile, and a link to a directory, out of the tree or nowhere. With
    *follow_symlinks*, links count as what they lead to, wherever that is on the *local_access*;
    only one that leads back to a directory that it is in, or nowhere, is left out. Files
    that pfstorage has not finished are left out as if they were not there. So is what *excludes* is true of: it is
    asked for each path below the root, and for each directory, with a slash, whether that holds for all below it.
    Where it holds for the directory itself alone, nothing is told if there is nothing in it to yield.

    Below the roots of a *local_access* the walk goes by descriptors, of which its trees keep some
    open; elsewhere it goes by paths and holds none.
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
    """A directory on the way: what is before its names in a `LocalFile.rest`, and those to come, the last first.

    The name of a directory ends in a slash, which is how it sorts.
    """

    resolved: ResolvedPath
    rest: str
    names: list[str]
    identity: tuple[int, int] | None


class _Walker:
    """A walk under way."""

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
        self._leaves_out = excludes
        self._levels: list[_Level] = []  # no recursion: Python ends that before a path ends

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
        """Return the file at *resolved*, or what keeps it from being read; go down into a directory."""
        is_named = bool(rest) and self._leaves_out(rest.removesuffix("/"))
        if is_named if not is_directory else (rest and self._leaves_out(rest)):
            return None
        try:
            found = self._enter(resolved, rest) if is_directory else self._file(resolved, rest)
        except OSError as e:
            if not (is_named or self._is_skipped(e, rest)):
                return local_error(e, resolved.path)
            found = e.strerror
        except ForbiddenError:
            found = "it is a link that leads out of the directories that messages may name (--fsRoot)"
        if isinstance(found, str):
            if is_named:
                return None
            self._warn(f"{resolved.path!r} was left out: {found}")
            return None
        return found

    @staticmethod
    def _is_skipped(error: OSError, rest: str) -> bool:
        """Tell whether *error* is no failure: what can't be read has gone, or holds no user's files."""
        is_of_system = error.errno == errno.EACCES and rest.split("/")[-2:] == [_OF_FSCK, ""]
        return error.errno in _NOWHERE or isinstance(error, DeniedFileError) or is_of_system

    def _enter(self, resolved: ResolvedPath, rest: str) -> str | None:
        """Read a directory, to go on in it; return why it is left out, if it is."""
        identity = None
        if self._follow:
            resolved = self._local_access.resolve_link(resolved)
            status = resolved.status(follow=True)
            identity = (status.st_dev, status.st_ino)
            if any(level.identity == identity for level in self._levels):
                return "it leads back to a directory that it is in"
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
            return False  # a link in a circle, to what is closed or out of the roots: as a file it tells

    def _file(self, resolved: ResolvedPath, rest: str) -> LocalFile | str | None:
        """Return the file at *resolved*, or why it is left out: None is not worth a word."""
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
