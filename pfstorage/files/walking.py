"""The files of a tree, in the order of the keys that they get in a store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pfstorage.errors import LocalFileError
from pfstorage.files.common import local_error, local_errors
from pfstorage.files.unfinished import is_part

_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}  # of a link, or of what has gone meanwhile


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A regular file of a tree. *size* is in bytes, *mtime_ns* in nanoseconds since 1970.

    *path* begins with the root as it was spelled. *rest* is what lies below the root,
    "" for the root itself.
    """

    path: str
    rest: str
    size: int
    mtime_ns: int


def find_files(
    root: str, *, follow_symlinks: bool = False, warn: Callable[[str], None]
) -> Iterator[LocalFile | LocalFileError]:
    """Yield every regular file below *root*, or *root* itself, in ascending order of the bytes of its `LocalFile.rest`.

    So ``a-b`` comes before ``a/x``, and that before ``a0``: the order of a listing, since
    the bytes of names are the UTF-8 of keys. One directory is read at a time, when it is
    reached; names of those on the way to a file are held. What can't be read is yielded
    as an error in its place, with the fact *local*. Raise `LocalFileError`, at once, if
    *root* is missing.

    *warn* is told what is left out: an empty directory, a device, a pipe, a socket, what
    has gone meanwhile, and a link to a directory, out of the tree or nowhere. With
    *follow_symlinks*, links count as what they lead to, wherever that is; only one that
    leads back to a directory that it is in, or nowhere, is left out. Files that pfstorage
    has not finished are left out as if they were not there.
    """
    with local_errors(root):
        status = os.stat(root)
        if stat.S_ISDIR(status.st_mode):
            return _Walker(root, follow_symlinks, warn).files()
    if stat.S_ISREG(status.st_mode):
        return iter([LocalFile(root, "", status.st_size, status.st_mtime_ns)])
    warn(f"{root!r} is no regular file")
    return iter([])


@dataclass
class _Level:
    """A directory on the way: what is before its names in a `LocalFile.rest`, and those to come, the last first.

    The name of a directory ends in a slash, which is how it sorts.
    """

    rest: bytes
    names: list[bytes]
    identity: tuple[int, int] | None


class _Walker:
    """A walk under way. What is sorted are bytes; what is given out is text."""

    def __init__(self, root: str, follow_symlinks: bool, warn: Callable[[str], None]) -> None:
        self._root = root
        self._base = os.path.join(root, "")
        self._top = os.path.join(os.path.realpath(root), "")
        self._follow = follow_symlinks
        self._warn = warn
        self._levels: list[_Level] = []  # no recursion: Python ends that before a path ends

    def files(self) -> Iterator[LocalFile | LocalFileError]:
        rest: bytes | None = b""
        while rest is not None:
            if found := self._visit(rest):
                yield found
            rest = self._next()

    def _next(self) -> bytes | None:
        while self._levels and not self._levels[-1].names:
            self._levels.pop()
        return self._levels[-1].rest + self._levels[-1].names.pop() if self._levels else None

    def _visit(self, rest: bytes) -> LocalFile | LocalFileError | None:
        """Return the file *rest*, or what keeps it from being read; go down into a directory."""
        is_directory = not rest or rest.endswith(b"/")
        path = self._base + os.fsdecode(rest.removesuffix(b"/")) if rest else self._root
        try:
            found = self._enter(path, rest) if is_directory else self._file(path)
        except OSError as e:
            if e.errno not in _NOWHERE:
                return local_error(e, path)
            found = e.strerror
        if isinstance(found, str):
            self._warn(f"{path!r} was left out: {found}")
            return None
        return found

    def _enter(self, path: str, rest: bytes) -> str | None:
        """Read a directory, to go on in it; return why it is left out, if it is."""
        identity = None
        if self._follow:
            status = os.stat(path)
            identity = (status.st_dev, status.st_ino)
            if any(level.identity == identity for level in self._levels):
                return "it leads back to a directory that it is in"
        with os.scandir(os.fsencode(path)) as entries:
            names = [entry.name + b"/" if self._is_directory(entry) else entry.name for entry in entries]
        names.sort(reverse=True)
        self._levels.append(_Level(rest, names, identity))
        return "it is empty" if rest and not names else None

    def _is_directory(self, entry: os.DirEntry[bytes]) -> bool:
        try:
            return entry.is_dir(follow_symlinks=self._follow)
        except OSError:
            return False  # a link that leads in a circle, or to what is closed: as a file it tells

    def _file(self, path: str) -> LocalFile | str | None:
        """Return the file *path*, or why it is left out: None is not worth a word."""
        if is_part(os.path.basename(path)):
            return None
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            if not self._follow and not os.path.join(os.path.realpath(path), "").startswith(self._top):
                return "it is a link that leads out of the tree"
            status = os.stat(path)
            if stat.S_ISDIR(status.st_mode):
                return "it is a link to a directory"
        if not stat.S_ISREG(status.st_mode):
            return "it is no regular file"
        return LocalFile(path, path[len(self._base) :], status.st_size, status.st_mtime_ns)


@dataclass
class Walk:
    """The files below a root, what was left out of them, and what could not be read."""

    paths: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unreadable: list[LocalFileError] = field(default_factory=list)


def walk(root: str) -> Walk:
    """Find what `find_files` yields for *root*, all at once: its paths, in their order."""
    found = Walk()
    for file in find_files(root, warn=found.warnings.append):
        if isinstance(file, LocalFile):
            found.paths.append(file.path)
        else:
            found.unreadable.append(file)
    return found
