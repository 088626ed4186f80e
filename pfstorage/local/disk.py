"""Properties of file systems, and system calls that Python's ``os`` does not offer."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import stat
from collections.abc import Callable, Iterable

from pfstorage.local.errors import is_disk_error
from pfstorage.local.unfinished import remove_unfinished, unfinished_name

log = logging.getLogger(__name__)

# The number of names in a directory to look at.
_MAX_NAMES = 1000
_WAIT_AND_WRITE = 1 | 2  # SYNC_FILE_RANGE_WAIT_BEFORE and SYNC_FILE_RANGE_WRITE
_KEEP_SIZE, _PUNCH_HOLE = 1, 2  # FALLOC_FL_...


def folds_names(directory: int) -> bool:
    """Return whether *directory*, a descriptor, ignores case: two names that differ only in case are one file.

    This tests an existing name, or else a temporary file. Return False if neither is possible.
    """
    for test in (_test_existing_name, _test_new_file):
        try:
            answer = test(directory)
        except OSError as e:
            log.debug("can't determine whether a directory ignores case: %s", e)
        else:
            if answer is not None:
                return answer
    return False


def _test_existing_name(directory: int) -> bool | None:
    """Return whether the first names in *directory* show that it ignores case; None if no name is suitable."""
    with os.scandir(directory) as entries:
        for entry in itertools.islice(entries, _MAX_NAMES):
            other = entry.name.swapcase()
            if entry.name.isascii() and other != entry.name:  # the rules for other names vary
                status = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
                # a file with several hard links may have the other name, too
                if stat.S_ISDIR(status.st_mode) or status.st_nlink == 1:
                    return _is_name_of(other, directory, status)
    return None


def _is_name_of(name: str, directory: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name, dir_fd=directory, follow_symlinks=False), status)
    except FileNotFoundError:
        return False


def _test_new_file(directory: int) -> bool:
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
    """Return the number of bytes that this user can still write to the file system of *descriptor*.

    Return None if it is unknown. A file system without blocks does not count them: ramfs, a tmpfs without a limit,
    and many FUSE file systems (statvfs(3)).
    """
    try:
        status = os.statvfs(descriptor)
    except OSError as e:
        if is_disk_error(e):
            raise
        log.debug("can't determine the free space of a file system: %s", e)
        return None
    unit = status.f_frsize or status.f_bsize
    return status.f_bavail * unit if status.f_blocks and unit else None


def allocate(descriptor: int, size: int) -> bool:
    """Make a file *size* bytes long and reserve disk space; return whether the file system supports this.

    Raise `OSError` if there is not enough space. This does not use ``os.posix_fallocate``: if the file system does
    not support it, glibc writes to every block (posix_fallocate(3)).
    """
    return _allocate(descriptor, 0, 0, size)


def punch_hole(descriptor: int, offset: int, size: int) -> bool:
    """Replace *size* bytes at *offset* by a hole of zeros; return whether the file system supports this."""
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
        return False  # EOPNOTSUPP, ENOSYS, EPERM, EINVAL or another, depending on the file system
    return True


def write_back(descriptor: int) -> None:
    """Wait for writes of a file that are in progress, then start to write all its changed pages to the disk.

    After this, the next write through a mapping (mmap(2)) updates the modification time. Without the wait, pages
    that are just being written would be skipped, and later writes to them would not update the time.
    """
    call = _libc_call("sync_file_range", "iqqi")
    if call is not None:
        with contextlib.suppress(OSError):  # without it, some writes through a mapping stay undetected
            call(descriptor, 0, 0, _WAIT_AND_WRITE)


def sync_one(descriptor: int) -> OSError | None:
    """Sync one file, or the names in one directory, to the disk: fsync(2).

    If the file system does not support this, return its error. Raise other errors.
    """
    try:
        os.fsync(descriptor)
    except OSError as e:
        if is_disk_error(e):
            raise
        return e
    return None


def sync(descriptors: Iterable[int]) -> OSError | None:
    """Sync each file system of *descriptors* once: syncfs(2). Without this call, as on macOS, sync each file.

    A descriptor must stay open until the iterable advances. If a file system does not support this, return its
    error, the last one if there are several. Raise other errors.
    """
    call = _libc_call("syncfs", "i")
    synced: set[int] = set()
    unsupported = None
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
            unsupported = e
    return unsupported


@functools.cache
def _libc_call(name: str, kinds: str) -> Callable[..., None] | None:
    """Return the C function *name*, wrapped to raise `OSError`; None if the C library does not have it.

    *kinds* has a letter for each argument: ``i`` is an int, ``q`` has 64 bits.
    """
    import ctypes  # slow to import, and rarely needed

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
