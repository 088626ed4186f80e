"""A file that is written beside its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable

from pfstorage.local import disk
from pfstorage.local.common import Directory, is_disk_error, read_at
from pfstorage.local.replacing import copy_permissions, status_to_replace
from pfstorage.local.unfinished import create_unfinished, remove_unfinished

Data = bytes | bytearray | memoryview

# what link(2) says of a file system without hard links, such as exFAT or some of FUSE
_NO_HARD_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
# what rename(2) says where a file can't get another name, such as a mount point or on an object store
_NO_RENAME = {errno.EXDEV, errno.EBUSY, errno.ENOTSUP, errno.ENOSYS}
_PRIVATE = 0o600
_ZEROS = bytes(256 * 1024)
_SHORTEST_HOLE = 4096
_LEAST_WITH_HOLES = 2 * len(_ZEROS)


class NewFile:
    """A file that is written beside its final name, and gets it, whole, by `commit`.

    What had the name until then is replaced at once. Nothing is buffered. `write_at`
    and `read_at` may be called from several threads at once, and nothing else
    meanwhile. It holds its descriptor and its directory until it is committed or
    discarded; at the end of a ``with`` it is discarded, unless it was committed. *size*
    is how long it is, in bytes. Methods raise `OSError`.

    Where it replaces a file, it has no more rights than that one; it never replaces what is no file.
    In one that is to be large, what is written as zeros takes no room, as far as the file system knows of holes.
    """

    def __init__(
        self,
        directory: Directory,
        name: str,
        mode: int,
        size: int | None = None,
        sync_above: Callable[[], None] = lambda: None,
    ) -> None:
        """Make it in *directory*, to be *name*; it is to have *size* bytes, as far as that is known.

        *sync_above* brings the name of *directory* to the disk, and those of the directories above.
        """
        # until it has the rights of what it replaces, it is for nobody else
        is_first = directory.is_new or status_to_replace(name, directory.descriptor) is None
        made_with = mode if is_first else mode & _PRIVATE
        self._part, self._descriptor, status = create_unfinished(directory.descriptor, made_with)
        self._mode = mode
        self._has_holes = size is None or size >= _LEAST_WITH_HOLES
        self.refusal: OSError | None = None
        """Why it was not brought to the disk, where its file system knows of no such thing."""
        self._directory: Directory | None = directory
        self._sync_above = sync_above
        self._name = name
        self.size = 0
        # NFS and others, which have no device of their own, tell what could not be written only when a
        # descriptor is closed (close(2)); what lies on a disk here tells at once
        self._tells_at_close = os.major(status.st_dev) == 0

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Data, /) -> int:
        """Write all of *data* after what was last written so; return its length in bytes."""
        view = memoryview(data).cast("B")
        done = len(view) if self._is_hole(view) and self._skip(len(view)) else 0
        while done < len(view):
            done += os.write(self._descriptor, view[done:] if done else view)
        self.size += done
        return done

    def _is_hole(self, view: memoryview) -> bool:
        """Tell whether *view* is so many zeros that they are worth a hole."""
        if not self._has_holes or len(view) < _SHORTEST_HOLE:
            return False
        return all(_ZEROS.startswith(view[at : at + len(_ZEROS)]) for at in range(0, len(view), len(_ZEROS)))

    def _skip(self, size: int) -> bool:
        """Leave a hole of *size* bytes at the end of the file; tell whether that is possible here."""
        position = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        if os.fstat(self._descriptor).st_size > position:
            return False  # there may be something there
        try:
            os.ftruncate(self._descriptor, position + size)
        except OSError as e:
            if is_disk_error(e):
                raise
            return False
        os.lseek(self._descriptor, size, os.SEEK_CUR)
        return True

    def write_at(self, data: Data, offset: int) -> int:
        """Write all of *data* from *offset* on, in what was preallocated; return its length in bytes.

        `write` goes on where it was.
        """
        view = memoryview(data).cast("B")
        done = (
            len(view) if self._is_hole(view) and disk.punch_hole(self._descriptor, offset, len(view)) else 0
        )
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], offset + done)
        return done

    def read_at(self, size: int, offset: int) -> bytes:
        """Return the *size* bytes from *offset* on, fewer only where the file ends before."""
        return read_at(self._descriptor, size, offset)

    def flush(self) -> None:
        """Do nothing, for nothing is held back. Those who write to any file call it."""

    def preallocate(self, size: int) -> None:
        """Make the file *size* bytes long, and take the room for them where the file system can.

        Raise `OSError` with ``ENOSPC`` where it can and has not so much. What is not
        written afterwards is zeros: `truncate` a file that becomes shorter.
        """
        if size and not disk.allocate(self._descriptor, size):
            os.ftruncate(self._descriptor, size)
        self.size = size

    def truncate(self, size: int) -> None:
        """Keep the first *size* bytes; `write` goes on after them."""
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self.size = size

    def set_mtime(self, ns: int) -> None:
        """Set the time of modification, in nanoseconds since 1970. Writing afterwards changes it again."""
        try:
            # an old time of access would tell the cleaners of temporary directories to remove it
            os.utime(self._descriptor, ns=(time.time_ns(), ns))
        except OverflowError as e:
            raise OSError(errno.EOVERFLOW, f"{ns} is no time that a file can have") from e

    def commit(self, durable: bool = False, *, if_absent: bool = False) -> None:
        """Give the file its name, and close it.

        If *durable*, its content is on the disk before that, and its name when this
        returns, with those of the directories that it is in. With *if_absent*, a file that has
        the name stays: raise `FileExistsError`. If the name can't be given, it can still be discarded.
        """
        if self._directory is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        directory = self._directory.descriptor
        there = status_to_replace(self._name, directory)
        if there and not if_absent:
            copy_permissions(self._descriptor, there, self._name, directory, self._mode)
        if durable:
            self._sync(self._descriptor)
        elif self._tells_at_close:
            os.close(
                os.dup(self._descriptor)
            )  # the file itself stays open till it has its name, for its lock
        (_name_new if if_absent else _rename)(self._part, self._name, directory)
        self._part = ""
        try:
            if durable:
                self._sync(directory)
                self._sync_above()
        finally:
            self._close()

    def _sync(self, descriptor: int) -> None:
        self.refusal = disk.sync_one(descriptor) or self.refusal

    def discard(self) -> None:
        """Remove the file, unless it was committed or something else removed it, and close it."""
        (part, self._part), directory = (self._part, ""), self._directory
        try:
            if part and directory:
                remove_unfinished(part, directory.descriptor)
        except OSError:
            self._close()
            assert directory is not None
            remove_unfinished(part, directory.descriptor)  # some of FUSE remove no file that is open
        finally:
            self._close()

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1  # another file may get the number
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
        text = f"a file can't be renamed to it ({e.strerror}): take a directory in which files can be, and move it then"
        raise OSError(e.errno, text) from e


def _name_new(part: str, name: str, directory: int) -> None:
    """Rename *part* to *name*, unless something has that name; of several who do so at once, one succeeds.

    Raise `FileExistsError`, or `IsADirectoryError`, as `_rename` does.
    """
    try:
        os.link(part, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
    except FileExistsError:
        _require_free(name, directory)
        raise
    except OSError as e:
        if e.errno not in _NO_HARD_LINKS:
            raise
        _require_free(name, directory)  # only a look before can tell here: who comes between is replaced
        _rename(part, name, directory)
    else:
        remove_unfinished(part, directory)


def _require_free(name: str, directory: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EEXIST
        raise OSError(number, os.strerror(number))


def sync_file_systems(files: Iterable[NewFile]) -> OSError | None:
    """Bring what was written to *files* to the disk, at once for each file system: then commit them.

    Return why one was not, if its file system knows of no such thing. Other files of those
    file systems go with them. Raise `OSError` where one could not be written; Linux tells
    only since 5.8 (syncfs(2)). The names that `NewFile.commit` gives are on the disk after
    `LocalTree.sync_directories`.
    """
    return disk.sync(file.fileno() for file in files)
