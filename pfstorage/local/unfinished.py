"""Unfinished files: their names, their locks, and the removal of files whose writers have died.

A writer holds an exclusive flock(2) on its file from creation to the end. The system releases the lock when the
writer ends, however it ends. So if a lock can be taken, the file has no writer.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import random
import re
import stat
import time
from collections.abc import Iterable

from pfstorage.errors import InvalidKeyError

log = logging.getLogger(__name__)

UNFINISHED_PREFIX = ".pfstorage-"
UNFINISHED_SUFFIX = ".part"
# On a file system without locks, a file without changes for this many seconds has no writer.
DEAD_AFTER_SECONDS = 24 * 3600

_PART = re.compile(re.escape(UNFINISHED_PREFIX) + "[0-9a-f]+" + re.escape(UNFINISHED_SUFFIX))
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Opened for writing, since NFS grants an exclusive lock only then (flock(2), "NFS details").
_TO_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 100


def is_unfinished(name: str) -> bool:
    """Return whether *name* has the form of the names of unfinished files."""
    return name.startswith(UNFINISHED_PREFIX) and name.endswith(UNFINISHED_SUFFIX)


def reject_unfinished_name(parts: Iterable[str], key: str) -> None:
    """Raise `InvalidKeyError` if one of *parts*, the local path of *key*, has the name of an unfinished file."""
    if any(is_unfinished(part) for part in parts):
        raise InvalidKeyError(
            f"the key {key!r} has a component that is reserved for unfinished files", key=key
        )


def unfinished_name() -> str:
    """Return a random new name."""
    return f"{UNFINISHED_PREFIX}{random.getrandbits(64):016x}{UNFINISHED_SUFFIX}"


def create_unfinished(directory: int, mode: int) -> tuple[str, int, os.stat_result]:
    """Create an empty file in *directory*, a descriptor; return its name, a locked descriptor, and its status.

    The descriptor is open for reading and writing. If a concurrent `sweep` removes the file before it is locked,
    this creates another one.
    """
    for _ in range(_TRIES):
        name = unfinished_name()
        descriptor = os.open(name, _NEW, mode, dir_fd=directory)
        is_ours = False
        try:
            is_free = _try_lock(descriptor) is not False
            status = os.fstat(descriptor)
            is_ours = is_free and status.st_nlink > 0
            if is_ours:
                return name, descriptor, status
        finally:
            if not is_ours:
                os.close(descriptor)
                remove_unfinished(name, directory)
    raise OSError(errno.EBUSY, "each new file was removed or locked by another process at once")


def remove_unfinished(name: str, directory: int) -> None:
    """Remove the file *name* in *directory*, a descriptor, if it exists."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def sweep(directory: int) -> None:
    """Remove the unfinished files of dead writers in *directory*, a descriptor.

    This follows no links and touches no other files. Errors are only logged, because they do not prevent writing.
    """
    try:
        with os.scandir(directory) as entries:
            parts = [each.name for each in entries if _PART.fullmatch(each.name)]
    except OSError as e:
        log.debug("can't search the directory for unfinished files: %s", e)
        return
    for name in parts:
        try:
            _remove_if_dead(name, directory)
        except OSError as e:
            log.debug("can't remove the unfinished file %r: %s", name, e)


def _remove_if_dead(name: str, directory: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return  # opening a device may have an effect
    descriptor = os.open(name, _TO_LOCK, dir_fd=directory)
    try:
        locked = _try_lock(descriptor)
        # not the modification time, which a writer may set
        age = time.time() - os.fstat(descriptor).st_ctime
        if locked or (locked is None and age > DEAD_AFTER_SECONDS):
            remove_unfinished(
                name, directory
            )  # if its writer has just finished, the file has another name by now
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool | None:
    """Lock the file without waiting; return False if another process has the lock, None if locks are unsupported."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:  # ENOTSUP, ENOLCK or another, depending on the file system
        log.debug("can't lock an unfinished file: %s", e)
        return None
    return True
