"""Writing of a local file under a temporary name, which is then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from pfstorage.local import disk
from pfstorage.local.descriptors import Directory, read_at
from pfstorage.local.errors import is_disk_error
from pfstorage.local.replacing import copy_permissions, status_to_replace
from pfstorage.local.unfinished import create_unfinished, remove_unfinished

Data = bytes | bytearray | memoryview

# Errors of link(2) on a file system without hard links, such as exFAT and some FUSE file systems.
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
# Errors of rename(2) where no file can be renamed, such as a mount point, or an object store as a file system.
_NO_RENAME = {errno.EXDEV, errno.EBUSY, errno.ENOTSUP, errno.ENOSYS}
_PRIVATE = 0o600
_ZEROS = bytes(256 * 1024)
_MIN_HOLE = 4096
_MIN_SIZE_WITH_HOLES = 2 * len(_ZEROS)


class NewFile:
    """A new file, written under a temporary name in the target directory. `commit` renames it atomically.

    Without `commit`, the end of the ``with`` block removes the file. Nothing is buffered. *size* is the present
    length in bytes. Several threads may call `write_at` and `read_at` at once; while they do, call nothing else.
    The descriptor and the directory stay open until `commit` or `discard`. Methods raise `OSError`.

    A new file gets at most the permissions of the file that it replaces. It never replaces a device, a pipe, a
    socket or a directory. In a large file, blocks of zeros become holes, if the file system supports that.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        mode: int,
        size: int | None = None,
        sync_above: Callable[[], None] = lambda: None,
    ) -> None:
        """Create the temporary file for *name* in *directory*. *size* is the expected size, if it is known.

        *sync_above* syncs the names of *directory* and of its parents to the disk.
        """
        # until `commit` copies the permissions of the old file, only the owner may access the new one
        is_first = directory.is_new or status_to_replace(name, directory.descriptor) is None
        made_with = mode if is_first else mode & _PRIVATE
        self._part, self._descriptor, status = create_unfinished(directory.descriptor, made_with)
        self._mode = mode
        self._has_holes = size is None or size >= _MIN_SIZE_WITH_HOLES
        # The error of fsync, if the file system does not support it.
        self.unsynced: OSError | None = None
        self._directory: Directory | None = directory
        self._sync_above = sync_above
        self._name = name
        self.size = 0
        # NFS and other file systems without a block device report some write errors only at close(2)
        self._may_fail_at_close = os.major(status.st_dev) == 0

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Data, /) -> int:
        """Write all of *data* at the present position; return its length in bytes."""
        view = memoryview(data).cast("B")
        done = len(view) if self._is_hole(view) and self._skip(len(view)) else 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:] if done else view)
        self.size += done
        return done

    def _is_hole(self, view: memoryview) -> bool:
        """Return whether *view* is all zeros, and long enough for a hole."""
        if not self._has_holes or len(view) < _MIN_HOLE:
            return False
        return all(_ZEROS.startswith(view[at : at + len(_ZEROS)]) for at in range(0, len(view), len(_ZEROS)))

    def _skip(self, size: int) -> bool:
        """Append a hole of *size* bytes at the end of the file; return whether that was possible."""
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size > position:
            return False  # the file may have data there
        try:
            os.ftruncate(self._descriptor, position + size)
        except OSError as e:
            if is_disk_error(e):
                raise
            return False
        os.lseek(self._descriptor, size, os.SEEK_CUR)
        return True

    def write_at(self, data: Data, offset: int) -> int:
        """Write all of *data* at *offset*, in the space from `preallocate`; return its length in bytes.

        The position of `write` does not change.
        """
        view = memoryview(data).cast("B")
        done = (
            len(view) if self._is_hole(view) and disk.punch_hole(self._descriptor, offset, len(view)) else 0
        )
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], offset + done)
        return done

    def read_at(self, size: int, offset: int) -> bytes:
        """Read *size* bytes at *offset*; return fewer only at the end of the file."""
        return read_at(self._descriptor, size, offset)

    def flush(self) -> None:
        """Do nothing: there is no buffer. Code that writes to any kind of file calls this."""

    def preallocate(self, size: int) -> None:
        """Make the file *size* bytes long and reserve disk space, if the file system supports that.

        Raise `OSError` with ``ENOSPC`` if there is not enough space. Bytes that are not written stay zeros: call
        `truncate` if the file becomes shorter.
        """
        if size and not disk.allocate(self._descriptor, size):
            os.ftruncate(self._descriptor, size)
        self.size = size

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes, and move the position of `write` to the end."""
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self.size = size

    def set_mtime(self, ns: int) -> None:
        """Set the modification time, in nanoseconds since the epoch. A later write changes it again."""
        try:
            # the access time is now: programs that clean temporary directories remove files with an old one
            os.utime(self._descriptor, ns=(time.time_ns(), ns))
        except OverflowError as e:
            raise OSError(errno.EOVERFLOW, f"{ns} is no time that a file can have") from e

    def commit(self, durable: bool = False, *, if_absent: bool = False) -> None:
        """Rename the file to its final name, and close it.

        If *durable*, the content is synced before the rename, and the name and its parent directories before this
        returns. With *if_absent*, an existing file stays, and this raises `FileExistsError`. If the rename fails,
        `discard` still removes the file.
        """
        if self._directory is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        directory = self._directory.descriptor
        old = status_to_replace(self._name, directory)
        if old and not if_absent:
            copy_permissions(self._descriptor, old, self._name, directory, self._mode)
        if durable:
            self._sync(self._descriptor)
        elif self._may_fail_at_close:
            os.close(
                os.dup(self._descriptor)
            )  # the file itself stays open until the rename, to keep its lock
        (_name_new if if_absent else _rename)(self._part, self._name, directory)
        self._part = ""
        try:
            if durable:
                self._sync(directory)
                self._sync_above()
        finally:
            self._close()

    def _sync(self, descriptor: int) -> None:
        self.unsynced = disk.sync_one(descriptor) or self.unsynced

    def discard(self) -> None:
        """Remove the file, unless it was committed or is gone already, and close it."""
        (part, self._part), directory = (self._part, ""), self._directory
        try:
            if part and directory:
                remove_unfinished(part, directory.descriptor)
        except OSError:
            self._close()
            assert directory is not None
            remove_unfinished(part, directory.descriptor)  # some FUSE file systems can't remove an open file
        finally:
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1  # another file may get this number
        self._directory = None
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> NewFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.discard()


def _rename(part: str, name: str, directory: int) -> None:
    try:
        os.replace(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError as e:
        if e.errno not in _NO_RENAME:
            raise
        text = (
            f"can't rename a file to it ({e.strerror}): use another directory, and move the file afterwards"
        )
        raise OSError(e.errno, text) from e


def _name_new(part: str, name: str, directory: int) -> None:
    """Rename *part* to *name*, unless this name exists. If several processes do this at once, one succeeds.

    Raise `FileExistsError`, or `IsADirectoryError` as `_rename`.
    """
    try:
        os.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        _require_free(name, directory)
        raise
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        _require_free(name, directory)  # not atomic: a file that is created after this check is replaced
        _rename(part, name, directory)
    else:
        remove_unfinished(part, directory)


def _require_free(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EEXIST
        raise OSError(number, os.strerror(number))


def sync_file_systems(files: Iterable[NewFile]) -> OSError | None:
    """Sync the file systems of *files* to the disk, once each, to commit the files afterwards.

    If a file system does not support this, return its error. This also syncs other files of these file systems.
    Raise `OSError` for a failed write; Linux reports those since 5.8 (syncfs(2)). After the commits,
    `LocalTree.sync_directories` syncs the names.
    """
    return disk.sync(file.fileno() for file in files)
