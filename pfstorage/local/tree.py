"""A directory tree that no access can leave."""

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
from pfstorage.local.deny_list import DenyList
from pfstorage.local.descriptors import READ, Directory, require_regular
from pfstorage.local.directories import OpenDirectories, Parts
from pfstorage.local.replacing import status_to_replace
from pfstorage.local.syncing import SyncedNames
from pfstorage.local.unfinished import sweep
from pfstorage.local.writing import NewFile

log = logging.getLogger(__name__)

# Errors of readlink(2) if there is no link.
_NO_LINK = {errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_MAX_SWEPT = 100_000
_MAX_KEPT = 32


class LocalTree:
    """A directory to read from and write to, such that no access leaves it.

    A file is named by *parts*: its path components below the directory. Each component is opened without following
    symbolic links, so neither a hostile name nor a link that somebody adds leads out of the tree. The directory
    itself may be a link. It is created, with its parents, for the first new file.

    The first new file in a directory also removes the unfinished files of dead writers there. Methods raise
    `OSError`. Several threads may call them at once.
    """

    def __init__(
        self,
        directory: str,
        *,
        keeps_open: bool = False,
        top: Directory | None = None,
        deny_list: DenyList | None = None,
    ) -> None:
        """Use *directory*. With *keeps_open*, keep the last used directories open; use this for a single transfer.

        If somebody moves such a directory, new files follow it. *top* is the directory if it is open already:
        *directory* is then only its name, and no path is looked up. Files of *deny_list* are not accessed.
        """
        self.directory = directory or "."
        self._has_top = top is not None
        self._names = SyncedNames(remembers=keeps_open)
        self._deny_list = deny_list or DenyList()
        self._directories = OpenDirectories(
            self.directory,
            max_kept=_MAX_KEPT if keeps_open else 0,
            top=top,
            deny_list=self._deny_list,
            on_new_top=self._names.forget,
        )
        self._swept: set[Parts] = set()
        self._lock = threading.Lock()

    def with_deny_list(self, deny_list: DenyList) -> LocalTree:
        """Return this tree without access to the files of *deny_list*."""
        made = copy.copy(self)
        made._deny_list = deny_list
        made._directories = self._directories.with_deny_list(deny_list)
        return made

    def kept_open(self, count: int) -> LocalTree:
        """Return this tree for a single listing or transfer, which keeps the last *count* directories open."""
        made = copy.copy(self)
        made._directories = self._directories.keeping(count)
        return made

    def close_kept(self) -> None:
        """Close the directories that were kept open, each when nothing uses it any more."""
        self._directories.close()

    def make_directory(self, parts: Parts, *, durable: bool = False) -> None:
        """Create the directory *parts* and its missing parents. If *durable*, sync them to the disk."""
        self._directories.open(parts, make=True)
        if durable:
            self.sync_above(parts)

    @contextlib.contextmanager
    def open_file(self, parts: Parts) -> Iterator[BinaryIO]:
        """Open the regular file *parts* for reading, unbuffered."""
        with (
            self.opened_file(parts) as descriptor,
            open(descriptor, "rb", buffering=0, closefd=False) as file,
        ):
            yield file

    @contextlib.contextmanager
    def opened_file(self, parts: Parts) -> Iterator[int]:
        """Open the regular file *parts* for reading, as a descriptor."""
        directory = self._directories.parent_of(parts)
        if parts:  # checked before it is opened, because opening some devices has an effect
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
        """Return a new descriptor for reading *parts*, of any file type, without following a link."""
        directory = self._directories.parent_of(parts)
        if not (parts and self._deny_list.has_any):
            return _open_below(directory, parts)
        # checked before it is opened, too: closing a file of SQLite drops the locks of this process on it
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
        """Return the status of *parts*, as lstat(2)."""
        directory = self._directories.parent_of(parts)
        if not parts:
            return os.fstat(directory.descriptor)
        status = os.stat(parts[-1], dir_fd=directory.descriptor, follow_symlinks=False)
        self._deny_list.require_not_denied(status)
        return status

    def link(self, parts: Parts) -> str | None:
        """Return the target of the symbolic link *parts*; None if it is not a link."""
        try:
            # a denied link may be followed: the deny-list applies to its target
            directory = self._directories.open(parts[:-1])
            return os.readlink(parts[-1], dir_fd=directory.descriptor)
        except OSError as e:
            if e.errno in _NO_LINK:
                return None
            raise

    def require_replaceable(self, parts: Parts) -> None:
        """Raise `IsADirectoryError` if *parts* is a device, a pipe or a socket, which a new file may not replace."""
        directory = self._directories.parent_of(parts)
        if parts:
            status_to_replace(parts[-1], directory.descriptor)

    def new_file(self, parts: Parts, mode: int = 0o666, size: int | None = None) -> NewFile:
        """Start to write the file *parts*, of *size* bytes if this is known. See `NewFile`.

        The umask applies to *mode*, as for any new file.
        """
        if not parts:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        parents, name = parts[:-1], parts[-1]
        directory = self._directories.parent_of(parts, make=True)
        if self._needs_sweep(parents):
            sweep(directory.descriptor)
        sync_above = functools.partial(self.sync_above, parents)
        try:
            return NewFile(directory, name, mode, size, sync_above)
        except FileNotFoundError:  # somebody removed the directory after it was opened
            self._directories.forget(parents)
            self._names.forget()
            return NewFile(self._directories.parent_of(parts, make=True), name, mode, size, sync_above)

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
        """Yield a new file that replaces *parts* atomically at the end of the block.

        If the block raises, the new file is removed and the old one stays. With *if_absent*, an old file stays in
        any case, and the end of the block raises `FileExistsError`. *durable* is passed to `NewFile.commit`.
        """
        with self.new_file(parts, mode, size) as file:
            yield file
            file.commit(durable, if_absent=if_absent)

    def sync_above(self, parts: Parts) -> None:
        """Sync the names of the directory *parts* and of all its parents to the disk.

        If the tree was created with an open directory, the directories above that one are not synced.
        """
        self._names.sync_above(parts, self._directories.open)
        if not self._has_top:
            self._names.sync_above_top(self.directory)

    def sync_directories(self, directories: Iterable[Parts]) -> None:
        """Sync the names of the new files in *directories*, and of their parents, once for each file system."""

        def opened() -> Generator[int, None, None]:
            for each in {parts[:depth] for parts in directories for depth in range(len(parts) + 1)}:
                with self.open_directory(each) as directory:
                    yield directory

        with contextlib.closing(opened()) as descriptors:
            disk.sync(descriptors)
        self.sync_above(())

    def remove(self, parts: Parts, *, durable: bool = False) -> None:
        """Remove the file or the empty directory *parts*, and its empty parents.

        If *durable*, sync each removal, so that no file comes back after a power cut.
        """
        *parents, name = parts
        directory = self._directories.parent_of(parts)  # a reference: it keeps the descriptor open
        is_directory = stat.S_ISDIR(self.status(parts).st_mode)
        (os.rmdir if is_directory else os.unlink)(name, dir_fd=directory.descriptor)
        if durable:
            disk.sync_one(directory.descriptor)
        self.remove_empty(tuple(parents), durable=durable)

    def remove_empty(self, parts: Parts, *, durable: bool = False) -> None:
        """Remove the directory *parts* and its parents, up to the first one that is not empty."""
        names = list(parts)
        while names:
            name = names.pop()
            try:
                parent = self._directories.open(tuple(names))
                os.rmdir(name, dir_fd=parent.descriptor)
            except OSError:  # it is not empty
                return
            if durable:
                disk.sync_one(parent.descriptor)

    @contextlib.contextmanager
    def open_directory(self, parts: Parts) -> Iterator[int]:
        """Open the directory *parts* as a descriptor."""
        directory = self._directories.open(parts)
        yield directory.descriptor

    def free_bytes(self, parts: Parts = ()) -> int | None:
        """Return the number of bytes that this user can still write below *parts*; None if it is unknown.

        *parts* need not exist.
        """
        directory = self._directories.open_nearest(parts)  # a reference: it keeps the descriptor open
        return disk.free_bytes(directory.descriptor)

    def folds_names(self, parts: Parts = (), answers: dict[tuple[int, int], bool] | None = None) -> bool:
        """Return whether the file system ignores the case of names below *parts*, which need not exist.

        Return False if this is unknown. *answers* is a cache by the device and inode of the directory. One thread
        at a time may call this.
        """
        try:
            directory = self._directories.open_nearest(parts)
        except OSError as e:
            log.debug("can't determine whether %r ignores case: %s", os.path.join(self.directory, *parts), e)
            return False
        if answers is None:
            return disk.folds_names(directory.descriptor)
        status = os.fstat(directory.descriptor)
        which = status.st_dev, status.st_ino
        if which not in answers:
            answers[which] = disk.folds_names(directory.descriptor)
        return answers[which]

    def is_new(self, parts: Parts) -> bool:
        """Return whether this tree created the directory *parts*; False if this is unknown."""
        return self._directories.is_new(parts)

    def _needs_sweep(self, directory: Parts) -> bool:
        with self._lock:
            if directory in self._swept:
                return False
            if len(self._swept) >= _MAX_SWEPT:  # a store may have any number of directories
                self._swept.clear()
            self._swept.add(directory)
            return True


def _open_below(directory: Directory, parts: Parts) -> int:
    """Return a new descriptor of the last of *parts* in *directory*, without following a link."""
    if not parts:
        return os.dup(directory.descriptor)
    return os.open(parts[-1], READ | os.O_NOFOLLOW, dir_fd=directory.descriptor)
