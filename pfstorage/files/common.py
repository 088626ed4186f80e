"""What reading and writing share: errors that name the file, and how a file is opened and read."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator

from pfstorage.errors import FullDiskError, LocalFileError

READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe would wait for its writer without end
_FULL = {errno.ENOSPC, errno.EDQUOT}


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


def local_error(error: OSError, path: str) -> LocalFileError:
    """Return *error* about *path* as the error that names it."""
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
