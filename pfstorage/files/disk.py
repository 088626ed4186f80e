"""Facts of file systems, and what they can do that Python's ``os`` doesn't offer."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable

from pfstorage.files.common import local_errors
from pfstorage.files.unfinished import part_name

log = logging.getLogger(__name__)

_NAMES = 1000


def free_bytes(directory: str) -> int:
    """Return how many bytes this user can still write below *directory*, which need not be there yet.

    Raise `LocalFileError`.
    """
    with local_errors(directory):
        status = os.statvfs(_nearest(directory))
    return status.f_bavail * status.f_frsize


def folds_names(directory: str) -> bool:
    """Tell whether names below *directory* that differ in case alone are names of one file.

    *directory* need not be there yet: what it will lie in is asked. A name in it tells,
    or else a file that is made and removed. Where neither can, it is False.
    """
    nearest = _nearest(directory)
    for ask in (_ask_names, _ask_new_file):
        try:
            answer = ask(nearest)
        except OSError as e:
            log.debug("%r did not tell whether it folds names: %s", nearest, e)
        else:
            if answer is not None:
                return answer
    return False


def _nearest(directory: str) -> str:
    """Return *directory*, or the nearest above it that is there."""
    path = directory or "."
    while not os.path.isdir(path) and path != ".":
        path = os.path.dirname(path) or "."
    return path


def _ask_names(directory: str) -> bool | None:
    """Tell by the first names in *directory* whether it folds names, None if they don't tell."""
    with os.scandir(directory) as entries:
        for entry in itertools.islice(entries, _NAMES):
            other = entry.name.swapcase()
            if entry.name.isascii() and other != entry.name:  # how others fold depends on more
                status = os.lstat(entry.path)
                # a file with several links may have the other name as well
                if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
                    return _is_name_of(os.path.join(directory, other), status)
    return None


def _is_name_of(path: str, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.lstat(path), status)
    except FileNotFoundError:
        return False


def _ask_new_file(directory: str) -> bool:
    name = part_name()
    path = os.path.join(directory, name)
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
    try:
        return os.path.lexists(os.path.join(directory, name.swapcase()))
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def allocate(descriptor: int, size: int) -> bool:
    """Take room for the first *size* bytes of a file, which is as long then; tell whether that is possible here.

    Where it is and there is less room, raise `OSError`. ``os.posix_fallocate`` is not
    used: where the file system can't do it, glibc writes to every block instead
    (posix_fallocate(3)).
    """
    call = _libc_call("fallocate64", "iiqq") or _libc_call("fallocate", "iiqq")
    if call is None:
        return False
    try:
        call(descriptor, 0, 0, size)
    except OSError as e:
        if e.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def sync(descriptors: Iterable[int]) -> None:
    """Bring to the disk what was written to the file systems of *descriptors*, once for each: syncfs(2).

    Where there is no such call, as on macOS, it is done for each file alone. A descriptor
    is needed until the next is asked for. Raise `OSError`.
    """
    call = _libc_call("syncfs", "i")
    synced: set[int] = set()
    for descriptor in descriptors:
        device = os.fstat(descriptor).st_dev
        if call is None:
            os.fsync(descriptor)
        elif device not in synced:
            call(descriptor)
            synced.add(device)


@functools.cache
def _libc_call(name: str, kinds: str) -> Callable[..., None] | None:
    """Return a function of the C library that raises `OSError` as those of ``os`` do, None if it has none.

    *kinds* are those of its arguments: ``i`` an int, ``q`` 64 bits.
    """
    import ctypes  # few need it, and it takes long

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None:
        return None
    function.argtypes = [{"i": ctypes.c_int, "q": ctypes.c_int64}[kind] for kind in kinds]

    def call(*arguments: int) -> None:
        while function(*arguments):
            error = ctypes.get_errno()
            if error != errno.EINTR:
                raise OSError(error, os.strerror(error))

    return call
