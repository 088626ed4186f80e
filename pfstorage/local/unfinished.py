"""Files that are being written: their names, their locks, and the removal of those that a dead writer left.

A writer holds an exclusive flock(2) on its file from its making to its end. The system
lets go of it however the writer ends, so a file whose lock can be had belongs to nobody.
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
DEAD_AFTER = 24 * 3600
"""Seconds without a change after which a file has no writer any more, where there are no locks."""

_PART = re.compile(re.escape(UNFINISHED_PREFIX) + "[0-9a-f]+" + re.escape(UNFINISHED_SUFFIX))
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# for writing, since NFS gives an exclusive lock on no other descriptor (flock(2), "NFS details")
_TO_LOCK = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 100


def is_unfinished(name: str) -> bool:
    """Tell whether *name* is that of a file that is not finished."""
    return name.startswith(UNFINISHED_PREFIX) and name.endswith(UNFINISHED_SUFFIX)


def reject_unfinished_name(parts: Iterable[str], key: str) -> None:
    """Raise `InvalidKeyError` if one of *parts*, those of the local path of *key*, would be taken for unfinished."""
    if any(is_unfinished(part) for part in parts):
        raise InvalidKeyError(f"the key {key!r} has a name that is kept for unfinished files", key=key)


def unfinished_name() -> str:
    """Return a name that no file has."""
    return f"{UNFINISHED_PREFIX}{random.getrandbits(64):016x}{UNFINISHED_SUFFIX}"


def create_unfinished(directory: int, mode: int) -> tuple[str, int, os.stat_result]:
    """Make an empty file in *directory*, a descriptor; return its name, a locked descriptor, and its status.

    That is to read and write. A sweep may come between the making and the lock, and
    remove the file: then another is made.
    """
    for _ in range(_TRIES):
        name = unfinished_name()
        descriptor = os.open(name, _NEW, mode, dir_fd=directory)
        is_ours = False
        try:
            is_free = _lock(descriptor) is not False
            status = os.fstat(descriptor)
            is_ours = is_free and status.st_nlink > 0
            if is_ours:
                return name, descriptor, status
        finally:
            if not is_ours:
                os.close(descriptor)
                remove_unfinished(name, directory)
    raise OSError(errno.EBUSY, "each file that was made to be written was taken at once")


def remove_unfinished(name: str, directory: int) -> None:
    """Remove the file *name* in *directory*, a descriptor, if it is still there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def sweep(directory: int) -> None:
    """Remove the files in *directory*, a descriptor, whose writers are dead.

    It follows no links and touches no other names. What fails is logged, for it is no
    reason to write nothing.
    """
    try:
        with os.scandir(directory) as entries:
            parts = [each.name for each in entries if _PART.fullmatch(each.name)]
    except OSError as e:
        log.debug("the directory was not searched for what dead writers left: %s", e)
        return
    for name in parts:
        try:
            _remove_if_dead(name, directory)
        except OSError as e:
            log.debug("%r was not removed: %s", name, e)


def _remove_if_dead(name: str, directory: int) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        return  # opening a device may do something
    descriptor = os.open(name, _TO_LOCK, dir_fd=directory)
    try:
        locked = _lock(descriptor)
        # not by the time of modification, which a writer may set
        age = time.time() - os.fstat(descriptor).st_ctime
        if locked or (locked is None and age > DEAD_AFTER):
            remove_unfinished(name, directory)  # a writer that has just finished gave it another name
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool | None:
    """Lock the file without waiting; False is that another has it, None that there are no locks here."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as e:  # ENOTSUP, ENOLCK and others, by the file system
        log.debug("no lock on a file that is being written: %s", e)
        return None
    return True
