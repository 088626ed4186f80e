"""The mapping of `OSError` to errors of a store."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from pfstorage.errors import (
    InvalidKeyError,
    NoSpaceError,
    NotFoundError,
    ObjectTooLargeError,
    PermissionDeniedError,
    StorageError,
    UnavailableError,
)
from pfstorage.runtime.unexpected import NO_DESCRIPTORS, is_out_of_descriptors

ERROR_BY_ERRNO: dict[int | None, type[StorageError]] = {
    errno.ENOENT: NotFoundError,
    errno.ENOTDIR: InvalidKeyError,
    errno.EISDIR: InvalidKeyError,
    errno.ENOTEMPTY: InvalidKeyError,
    errno.ELOOP: InvalidKeyError,
    errno.ENAMETOOLONG: InvalidKeyError,
    errno.EACCES: PermissionDeniedError,
    errno.EPERM: PermissionDeniedError,
    errno.EROFS: PermissionDeniedError,
    errno.ENOSPC: NoSpaceError,
    errno.EDQUOT: NoSpaceError,
    errno.EFBIG: ObjectTooLargeError,
}


@contextlib.contextmanager
def store_errors(directory: str, key: str) -> Iterator[None]:
    """Map each `OSError` in the block to a `StorageError` about *key* in the store *directory*; "" is the store."""
    try:
        yield
    except OSError as e:
        kind = ERROR_BY_ERRNO.get(e.errno, UnavailableError)
        text = "it isn't there" if kind is NotFoundError else e.strerror or str(e)
        if is_out_of_descriptors(e):
            text = NO_DESCRIPTORS
        what = f"the object {key!r} in" if key else "the store"
        raise kind(f"{what} {directory!r}: {text}", key=key) from e
