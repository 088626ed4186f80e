"""Open files and directories: flags, owned descriptors, and positioned reads."""

from __future__ import annotations

import errno
import os
import stat

TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Without O_NONBLOCK, opening a pipe would wait for its writer forever.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Directory:
    """An open directory. Its *descriptor* is closed when the last reference to this object is gone.

    *is_new* means that it was just created, so nothing was in it before.
    """

    __slots__ = ("descriptor", "is_new")

    def __init__(self, descriptor: int, *, is_new: bool = False) -> None:
        self.descriptor = descriptor
        self.is_new = is_new

    def __del__(self) -> None:
        os.close(self.descriptor)


def require_regular(status: os.stat_result, *, links: bool = False) -> None:
    """Raise `IsADirectoryError` unless *status* is of a regular file or, with *links*, of a symbolic link."""
    if not (stat.S_ISREG(status.st_mode) or (links and stat.S_ISLNK(status.st_mode))):
        raise IsADirectoryError(errno.EISDIR, "it is no regular file")


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Read *size* bytes at *offset*; return fewer only at the end of the file.

    The file offset of the descriptor does not change, so several threads may read at once.
    """
    chunks = []
    while size > 0:
        chunk = os.pread(descriptor, size, offset)  # may be shorter: Linux reads at most 2 GiB (read(2))
        if not chunk:
            break
        chunks.append(chunk)
        offset += len(chunk)
        size -= len(chunk)
    return b"".join(chunks)  # for a single chunk, join returns the chunk itself without a copy
