"""Errors of local files: `OSError` mapped to errors that name the file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pfstorage.errors import FullDiskError, LocalFileError, NoDescriptorError
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors

_FULL = {errno.ENOSPC, errno.EDQUOT}
_DISK_ERRORS = {*_FULL, errno.EFBIG, errno.EIO, errno.EBADF, errno.ESTALE, errno.EROFS}


def is_disk_error(error: OSError) -> bool:
    """Return whether *error* is about the disk or the file, and not about a missing feature of its file system."""
    return error.errno in _DISK_ERRORS


def local_error(error: OSError, path: str) -> LocalFileError:
    """Return the `LocalFileError` for *error*, with the name of the file *path*."""
    if is_out_of_descriptors(error):
        return NoDescriptorError(f"{path!r}: {NO_DESCRIPTORS}", local=path)
    kind = FullDiskError if error.errno in _FULL else LocalFileError
    return kind(f"{path!r}: {error.strerror or error}", local=path)


@contextlib.contextmanager
def local_errors(path: str) -> Iterator[None]:
    """Map each `OSError` in the block to a `LocalFileError` about *path*, and also errors of an invalid *path*."""
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
