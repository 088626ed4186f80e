"""What reading and writing share: errors that name the file, how a file is opened and read, and when it has changed."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator

from pfstorage.errors import FullDiskError, LocalFileError, NoDescriptorError
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors

TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for its writer without end
_FULL = {errno.ENOSPC, errno.EDQUOT}
_OF_THE_DISK = {*_FULL, errno.EFBIG, errno.EIO, errno.EBADF, errno.ESTALE, errno.EROFS}

_TICK_NS = 10_000_000
"""How long two changes of a file may get the same time, at most: the clock of Linux goes on 100 times a second or more.

Linux has had finer times since 6.13, for files that somebody looks at.
"""
_MOST_TICKS = 3


class Directory:
    """An open directory, by its *descriptor*: whoever holds one of these may use it, and it is closed with the last.

    *is_new* tells that it was made for this one: nothing was in it before.
    """

    __slots__ = ("descriptor", "is_new")

    def __init__(self, descriptor: int, *, is_new: bool = False) -> None:
        self.descriptor = descriptor
        self.is_new = is_new

    def __del__(self) -> None:
        os.close(self.descriptor)


def require_regular(status: os.stat_result, *, links: bool = False) -> None:
    """Raise `IsADirectoryError` unless *status* is that of a regular file or, with *links*, a symbolic link."""
    if not (stat.S_ISREG(status.st_mode) or (links and stat.S_ISLNK(status.st_mode))):
        raise IsADirectoryError(errno.EISDIR, "it is no regular file")


def file_version(status: os.stat_result) -> tuple[int, int, int]:
    """Return what is another when the bytes of a file are.

    Tools set back the time of modification of what they write into, as ``exiftool -P`` does. No
    tool can set the time of change (st_ctime), which a change of the rights alters as well.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_stable(status: os.stat_result, seconds: float) -> bool:
    """Tell whether a file was last modified *seconds* ago or more, as *status* has it.

    That is its time of modification: a tool that sets it does so when it has finished with the file, while a change
    of rights, or a further link, sets the time of change alone. A time that is yet to come tells
    nothing; the time of change does then, which no tool can set.
    """
    now, moment = time.time_ns(), status.st_mtime_ns
    if moment > now:
        moment = status.st_ctime_ns
    return now - moment >= seconds * 1e9


def settled_status(
    descriptor: int, status: os.stat_result | None = None, look: Callable[[int], os.stat_result] = os.fstat
) -> os.stat_result:
    """Return the status of an open file, once the next change will give it another time than the last one did.

    That is at once, but for a file that was changed just now. One that changes all the time is not waited for.
    *status* is what it is now, if the caller knows it; *look* finds out.
    """
    status = status or look(descriptor)
    for _ in range(_MOST_TICKS):
        age = time.time_ns() - status.st_ctime_ns
        if not 0 <= age < _TICK_NS:  # less than 0 is the clock of another machine
            break
        time.sleep((_TICK_NS - age) / 1e9)
        status = look(descriptor)
    return status


def is_disk_error(error: OSError) -> bool:
    """Tell whether *error* is about the disk or the file, and not about what its file system can do."""
    return error.errno in _OF_THE_DISK


def local_error(error: OSError, path: str) -> LocalFileError:
    """Return *error* about *path* as the error that names it."""
    if is_out_of_descriptors(error):
        return NoDescriptorError(f"{path!r}: {NO_DESCRIPTORS}", local=path)
    kind = FullDiskError if error.errno in _FULL else LocalFileError
    return kind(f"{path!r}: {error.strerror or error}", local=path)


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Turn an `OSError` about *path* into a `LocalFileError` that names it."""
    try:
        yield
    except OSError as e:
        raise local_error(e, path) from e
    except UnicodeEncodeError as e:
        raise LocalFileError(
            f"{path!a} can't be a path in the encoding of this system", local=ascii(path)
        ) from e
    except ValueError as e:
        if "\0" not in path:
            raise
        raise LocalFileError(f"{path!r} has a NUL and can't be a path", local=path) from e


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return the *size* bytes from *offset* on, fewer only where the file ends before.

    The offset of the descriptor itself stays: several threads may do so at once.
    """
    chunks = []
    while size > 0:
        chunk = os.pread(descriptor, size, offset)  # it may give less: at most 2 GiB on Linux (read(2))
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
        size -= len(chunk)
    return b"".join(chunks)  # of one chunk, that is the chunk and no copy
