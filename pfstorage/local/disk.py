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

from pfstorage.local.common import is_disk_error
from pfstorage.local.unfinished import remove_unfinished, unfinished_name

log = logging.getLogger(__name__)

_NAMES = 1000
_WAIT_AND_WRITE = 1 | 2  # SYNC_FILE_RANGE_WAIT_BEFORE and SYNC_FILE_RANGE_WRITE
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # FALLOC_FL_...


def folds_names(directory: int) -> bool:
    """Tell whether names in *directory*, a descriptor, that differ in case alone are names of one file.

    A name in it tells, or else a file that is made and removed. Where neither can, it is False.
    """
    for ask in (_ask_names, _ask_new_file):
        try:
            answer = ask(directory)
        except OSError as e:
            log.debug("a directory did not tell whether it folds names: %s", e)
        else:
            if answer is not None:
                return answer
    return False


def _ask_names(directory: int) -> bool | None:
    """Tell by the first names in *directory* whether it folds names, None if they don't tell."""
    with os.scandir(directory) as entries:
        for entry in itertools.islice(entries, _NAMES):
            other = entry.name.swapcase()
            if entry.name.isascii() and other != entry.name:  # how others fold depends on more
                status = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                # a file with several links may have the other name as well
                if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
                    return _is_name_of(other, directory, status)
    return None


def _is_name_of(name: str, directory: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), status)
    except FileNotFoundError:
        return False


def _ask_new_file(directory: int) -> bool:
    name = unfinished_name()
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, dir_fd=directory))
    try:
        os.stat(name.swapcase(), dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    finally:
        remove_unfinished(name, directory)
    return True


def free_bytes(descriptor: int) -> int | None:
    """Return how many bytes this user can still write to the file system of *descriptor*, None where it doesn't tell.

    One that has no blocks at all counts none: ramfs, a tmpfs without a limit, and many of FUSE (statvfs(3)).
    """
    try:
        status = os.statvfs(descriptor)
    except OSError as e:
        if is_disk_error(e):
            raise
        log.debug("a file system did not tell how much room it has: %s", e)
        return None
    unit = status.f_frsize or status.f_bsize
    return status.f_bavail * unit if status.f_blocks and unit else None


def allocate(descriptor: int, size: int) -> bool:
    """Take room for the first *size* bytes of a file, which is as long then; tell whether that is possible here.

    Where it is and there is less room, raise `OSError`. ``os.posix_fallocate`` is not
    used: where the file system can't do it, glibc writes to every block instead
    (posix_fallocate(3)).
    """
    return _allocate(descriptor, 0, 0, size)


def punch_hole(descriptor: int, offset: int, size: int) -> bool:
    """Make *size* bytes of a file from *offset* on zeros that take no room; tell whether that is possible here."""
    return _allocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, offset, size)


def _allocate(descriptor: int, mode: int, offset: int, size: int) -> bool:
    call = _libc_call("fallocate64", "iiqq") or _libc_call("fallocate", "iiqq")
    if call is None:
        return False
    try:
        call(descriptor, mode, offset, size)
    except OSError as e:
        if is_disk_error(e):
            raise
        return False  # by its file system, that is EOPNOTSUPP, ENOSYS, EPERM, EINVAL or another
    return True


def write_back(descriptor: int) -> None:
    """Begin to bring to the disk what was written to a file, once what is on its way there already has arrived.

    The next write through a mapping (mmap(2)) sets the time of the file again then. One to a page that is on
    its way would not, and that page would not be taken along.
    """
    call = _libc_call("sync_file_range", "iqqi")
    if call is not None:
        with contextlib.suppress(OSError):  # where there is no such thing, the times tell less
            call(descriptor, 0, 0, _WAIT_AND_WRITE)


def sync_one(descriptor: int) -> OSError | None:
    """Bring what was written to a file to the disk, or the names in a directory: fsync(2).

    Return the refusal of a file system that knows of no such thing. Raise `OSError`.
    """
    try:
        os.fsync(descriptor)
    except OSError as e:
        if is_disk_error(e):
            raise
        return e
    return None


def sync(descriptors: Iterable[int]) -> OSError | None:
    """Bring to the disk what was written to the file systems of *descriptors*, once for each: syncfs(2).

    Where there is no such call, as on macOS, it is done for each file alone. A descriptor
    is needed until the next is asked for. Return the last refusal of a file system that
    knows of no such thing. Raise `OSError`.
    """
    call = _libc_call("syncfs", "i")
    synced: set[int] = set()
    refusal = None
    for descriptor in descriptors:
        device = os.fstat(descriptor).st_dev
        if call is not None and device in synced:
            continue
        synced.add(device)
        try:
            (call or os.fsync)(descriptor)
        except OSError as e:
            if is_disk_error(e):
                raise
            refusal = e
    return refusal


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
