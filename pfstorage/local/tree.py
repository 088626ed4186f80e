"""A directory that is read from and written into, and nothing outside of it."""

from __future__ import annotations

import contextlib
import copy
import errno
import functools
import logging
import os
import stat
import threading
from collections.abc import Generator, Iterable, Iterator
from typing import BinaryIO

from pfstorage.local import disk
from pfstorage.local.common import READ, TOP, Directory, require_regular
from pfstorage.local.deny_list import DenyList
from pfstorage.local.replacing import status_to_replace
from pfstorage.local.syncing import SyncedNames
from pfstorage.local.unfinished import sweep
from pfstorage.local.writing import NewFile

log = logging.getLogger(__name__)

Parts = tuple[str, ...]

_DIRECTORY = TOP | os.O_NOFOLLOW
# what is above a directory that is to be made may be closed to a listing
_ABOVE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_NO_LINK = {errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_MOST_SWEPT = 100_000
_MOST_KEPT = 32


class LocalTree:
    """A directory to read from and write into. Nothing outside of it is touched, whatever lies in it.

    A file is named by *parts*, its components below the directory. Each is opened
    without following symbolic links, so neither a hostile name nor a link that is put
    there meanwhile leads out. The directory itself may be a link; it is made, with
    its parents, when something is first written. Methods raise `OSError`; several
    threads may call them.

    The first new file in a directory sweeps it: what killed writers left there is removed.
    """

    def __init__(
        self,
        directory: str,
        *,
        keeps_open: bool = False,
        top: Directory | None = None,
        deny_list: DenyList | None = None,
    ) -> None:
        """With *keeps_open*, the directories used last stay open, which is for one piece of work.

        If somebody moves one away meanwhile, the files go with it. *top* is the directory
        where it is open already: then *directory* is but its name, and no path is looked up.
        What is *deny_list* is not touched.
        """
        self.directory = directory or "."
        self._top = top
        self._deny_list = deny_list or DenyList()
        self._most_kept = _MOST_KEPT if keeps_open else 0
        self._kept: dict[Parts, Directory] = {}
        self._swept: set[Parts] = set()
        self._names = SyncedNames(remembers=keeps_open)
        self._lock = threading.Lock()

    def with_deny_list(self, deny_list: DenyList) -> LocalTree:
        """Return this tree, of which what is *deny_list* is not touched."""
        made = copy.copy(self)
        made._deny_list = deny_list
        return made

    def path(self, parts: Parts) -> str:
        """Return the path of *parts*, spelled as the directory is."""
        return os.path.join(self.directory, *parts)

    def make_directory(self, parts: Parts, *, durable: bool = False) -> None:
        """Make the directory *parts* and its parents, where they are missing.

        If *durable*, they are on the disk when this returns.
        """
        self._opened(parts, make=True)
        if durable:
            self.sync_above(parts)

    def kept_open(self, most: int) -> LocalTree:
        """Return this tree for one piece of work, which keeps *most* directories open: those opened last."""
        made = copy.copy(self)
        made._kept, made._most_kept = {}, most
        return made

    @contextlib.contextmanager
    def open_file(self, parts: Parts) -> Iterator[BinaryIO]:
        """Yield the regular file *parts*, unbuffered, for reading."""
        with (
            self.opened_file(parts) as descriptor,
            open(descriptor, "rb", buffering=0, closefd=False) as file,
        ):
            yield file

    @contextlib.contextmanager
    def opened_file(self, parts: Parts) -> Iterator[int]:
        """Yield a descriptor of the regular file *parts*, for reading."""
        directory = self._around(parts)
        if parts:  # before it is opened, which some devices take for more than a look
            before = os.stat(parts[-1], dir_fd=directory.descriptor, follow_symlinks=False)
            require_regular(before, links=True)
            self._deny_list.require_not_denied(before)
        descriptor = _open_below(directory, parts)
        try:
            status = os.fstat(descriptor)
            require_regular(status)
            self._deny_list.require_not_denied(status)
            yield descriptor
        finally:
            os.close(descriptor)

    def open(self, parts: Parts) -> int:
        """Return a descriptor of *parts* for reading, whatever that is, and never of what a link leads to."""
        directory = self._around(parts)
        if not (parts and self._deny_list.has_any):
            return _open_below(directory, parts)
        # before it is opened, too: to close a file of SQLite drops its locks in this process
        self._deny_list.require_not_denied(
            os.stat(parts[-1], dir_fd=directory.descriptor, follow_symlinks=False)
        )
        descriptor = _open_below(directory, parts)
        try:
            self._deny_list.require_not_denied(os.fstat(descriptor))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def status(self, parts: Parts) -> os.stat_result:
        """Return the status of *parts*, as lstat(2) does."""
        directory = self._around(parts)
        if not parts:
            return os.fstat(directory.descriptor)
        status = os.stat(parts[-1], dir_fd=directory.descriptor, follow_symlinks=False)
        self._deny_list.require_not_denied(status)
        return status

    def link(self, parts: Parts) -> str | None:
        """Return where the symbolic link *parts* leads, None if there is none of this name."""
        try:
            # one that is closed may be followed: where it leads is judged
            directory = self._opened(parts[:-1])
            return os.readlink(parts[-1], dir_fd=directory.descriptor)
        except OSError as e:
            if e.errno in _NO_LINK:
                return None
            raise

    def require_replaceable(self, parts: Parts) -> None:
        """Raise `IsADirectoryError` if there is something at *parts* that no file is to replace."""
        directory = self._around(parts)
        if parts:
            status_to_replace(parts[-1], directory.descriptor)

    def new_file(self, parts: Parts, mode: int = 0o666, size: int | None = None) -> NewFile:
        """Begin a file that is to be *parts*, and of *size* bytes if that is known.

        *mode* is lessened by the umask, as for any new file.
        """
        if not parts:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        parents, name = parts[:-1], parts[-1]
        directory = self._around(parts, make=True)
        if self._is_first_in(parents):
            sweep(directory.descriptor)
        sync_above = functools.partial(self.sync_above, parents)
        try:
            return NewFile(directory, name, mode, size, sync_above)
        except FileNotFoundError:  # somebody has removed the directory since it was opened
            self._kept.pop(parents, None)
            self._names.forget()
            return NewFile(self._around(parts, make=True), name, mode, size, sync_above)

    @contextlib.contextmanager
    def atomic_file(
        self,
        parts: Parts,
        mode: int = 0o666,
        *,
        size: int | None = None,
        if_absent: bool = False,
        durable: bool = False,
    ) -> Iterator[NewFile]:
        """Yield a new file that appears as *parts* when the block ends, and not before.

        It replaces what was there at once; with *if_absent*, that stays, and the end of the
        block raises `FileExistsError`. If the block raises, nothing is left of it and what
        was there stays. *durable* is that of `NewFile.commit`.
        """
        with self.new_file(parts, mode, size) as file:
            yield file
            file.commit(durable, if_absent=if_absent)

    def sync_above(self, parts: Parts) -> None:
        """Bring the name of the directory *parts* to the disk, and those of all directories that it is in.

        Of those above a tree that was opened already, that is left to whoever made them.
        """
        self._names.sync_above(parts, self._opened)
        if not self._top:
            self._names.sync_above_top(self.directory)

    def sync_directories(self, directories: Iterable[Parts]) -> None:
        """Bring the names of what was committed in *directories* to the disk, at once for each file system.

        So are those of the directories that they are in.
        """

        def opened() -> Generator[int, None, None]:
            for each in {parts[:depth] for parts in directories for depth in range(len(parts) + 1)}:
                with self.open_directory(each) as directory:
                    yield directory

        with contextlib.closing(opened()) as descriptors:
            disk.sync(descriptors)
        self.sync_above(())

    def remove(self, parts: Parts, *, durable: bool = False) -> None:
        """Remove the file or the empty directory *parts*, and its parents as far as they are empty.

        If *durable*, they don't come back after a power cut.
        """
        *parents, name = parts
        directory = self._around(parts)  # which is open for as long as it is named here
        is_directory = stat.S_ISDIR(self.status(parts).st_mode)
        (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory.descriptor)
        if durable:
            disk.sync_one(directory.descriptor)
        self.remove_empty(tuple(parents), durable=durable)

    def remove_empty(self, parts: Parts, *, durable: bool = False) -> None:
        """Remove the directory *parts* and its parents, as far as they are empty."""
        names = list(parts)
        while names:
            name = names.pop()
            try:
                parent = self._opened(tuple(names))
                os.rmdir(name, dir_fd=parent.descriptor)
            except OSError:  # the first that is not empty ends it
                return
            if durable:
                disk.sync_one(parent.descriptor)

    @contextlib.contextmanager
    def open_directory(self, parts: Parts) -> Iterator[int]:
        """Yield a descriptor of the directory *parts*."""
        directory = self._opened(parts)
        yield directory.descriptor

    def free_bytes(self, parts: Parts = ()) -> int | None:
        """Return how many bytes this user can still write below *parts*, None if that can't be told.

        *parts* need not be there yet.
        """
        directory = self._nearest(parts)  # which is open for as long as it is named here
        return disk.free_bytes(directory.descriptor)

    def folds_names(self, parts: Parts = (), answers: dict[tuple[int, int], bool] | None = None) -> bool:
        """Tell whether names below *parts*, which need not be there yet, that differ in case alone are one.

        One thread at a time may ask. False is also that it can't be told. *answers* has the answers of
        directories, by their devices and inodes, and takes new ones.
        """
        try:
            directory = self._nearest(parts)
        except OSError as e:
            log.debug("%r did not tell whether it folds names: %s", self.path(parts), e)
            return False
        if answers is None:
            return disk.folds_names(directory.descriptor)
        status = os.fstat(directory.descriptor)
        which = status.st_dev, status.st_ino
        if which not in answers:
            answers[which] = disk.folds_names(directory.descriptor)
        return answers[which]

    def is_new(self, parts: Parts) -> bool:
        """Tell whether there was nothing when this tree made the directory *parts*; False if that is not known."""
        directory = self._kept.get(parts)
        return directory is not None and directory.is_new

    def close_kept(self) -> None:
        """Close the directories that were kept open, each when nobody uses it any more."""
        with self._lock:
            self._kept.clear()

    def _is_first_in(self, directory: Parts) -> bool:
        with self._lock:
            if directory in self._swept:
                return False
            if len(self._swept) >= _MOST_SWEPT:  # a store may have more directories than this needs to know
                self._swept.clear()
            self._swept.add(directory)
            return True

    def _around(self, parts: Parts, *, make: bool = False) -> Directory:
        """Return the directory that *parts* are in, if they are not closed; of no parts, it is the tree's own."""
        directory = self._opened(parts[:-1], make=make)
        if parts:
            self._deny_list.require_allowed(directory.descriptor, parts[-1])
        return directory

    def _opened(self, parts: Parts, *, make: bool = False) -> Directory:
        directory = self._kept.get(parts)
        if directory is None:
            directory = self._open(parts, make=make)
            if self._most_kept:
                with self._lock:
                    while len(self._kept) >= self._most_kept:
                        del self._kept[next(iter(self._kept))]
                    kept = self._kept.setdefault(parts, directory)
                    kept.is_new |= (
                        directory.is_new
                    )  # another worker may have opened it when this one had made it
                    directory = kept
        return directory

    def _open(self, parts: Parts, *, make: bool) -> Directory:
        current = self._open_top(make)
        for part in parts:
            self._deny_list.require_allowed(current.descriptor, part)
            current = _open_directory(part, current.descriptor, make)
            if self._deny_list.has_any:
                self._deny_list.require_not_denied(os.fstat(current.descriptor))
        return current

    def _open_top(self, make: bool) -> Directory:
        if self._top:
            return self._top
        is_new = False
        if make:
            with contextlib.suppress(FileNotFoundError):  # for all files but the first it is there
                return Directory(os.open(self.directory, TOP))
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.makedirs(self.directory)
                is_new = True
                self._names.forget()
        return Directory(os.open(self.directory, TOP), is_new=is_new)

    def _nearest(self, parts: Parts) -> Directory:
        """Open the directory *parts*, or the nearest above it that is there."""
        for depth in range(len(parts), -1, -1):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                return self._kept.get(parts[:depth]) or self._open(parts[:depth], make=False)
        path = self.directory
        while not os.path.isdir(path) and path != ".":
            path = os.path.dirname(path) or "."
        try:
            return Directory(os.open(path, TOP))
        except PermissionError:
            return Directory(os.open(path, _ABOVE))


def _open_below(directory: Directory, parts: Parts) -> int:
    """Return a descriptor of the last of *parts* in *directory*, never of what a link leads to."""
    if not parts:
        return os.dup(directory.descriptor)
    return os.open(parts[-1], READ | os.O_NOFOLLOW, dir_fd=directory.descriptor)


def _open_directory(name: str, parent: int, make: bool) -> Directory:
    is_new = False
    try:
        if make:
            with contextlib.suppress(FileNotFoundError):
                return Directory(os.open(name, _DIRECTORY, dir_fd=parent))
            with contextlib.suppress(FileExistsError):  # another worker was faster
                os.mkdir(name, dir_fd=parent)
                is_new = True
        return Directory(os.open(name, _DIRECTORY, dir_fd=parent), is_new=is_new)
    except NotADirectoryError:
        raise NotADirectoryError(
            errno.ENOTDIR, f"{name!r} in it is a file or a link, not a directory"
        ) from None
