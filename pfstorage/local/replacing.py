"""Replacement of a file by a new one: which files may be replaced, and the permissions of the new file."""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from pfstorage.local.deny_list import steps

_ACL = "system.posix_acl_access"  # acl(5)
_NO_ACL = {errno.ENODATA, errno.ENOTSUP}
_OWNER = 0o700


def status_to_replace(name: str, directory: int) -> os.stat_result | None:
    """Return the status of the regular file *name* in *directory*, a descriptor; None if there is none.

    A link counts as its target. Raise `IsADirectoryError` for a device, a pipe or a socket: other programs use it
    under this name, so it may not be replaced. rename(2) refuses to replace a directory, so this need not.
    """
    status = None
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status and stat.S_ISLNK(status.st_mode):
        if _leads_to_process(name, directory):
            raise _special()
        status = None
        with contextlib.suppress(OSError):  # it leads nowhere, or to an inaccessible directory
            status = os.stat(name, dir_fd=directory)
    if status and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise _special()
    return status if status and stat.S_ISREG(status.st_mode) else None


def _special() -> OSError:
    text = "it is no regular file, and is not replaced by one: name another, or remove it"
    return IsADirectoryError(errno.EISDIR, text)


def _leads_to_process(name: str, directory: int) -> bool:
    """Return whether the link *name* leads to an open file of a process, as ``/dev/stdout`` does."""
    try:
        here = os.readlink(f"/proc/self/fd/{directory}")
    except OSError:  # without /proc, there are no such links
        return False
    return any(os.path.join(step, "").startswith("/proc/") for step, _ in steps(os.path.join(here, name)))


def copy_permissions(descriptor: int, old: os.stat_result, name: str, directory: int, max_mode: int) -> None:
    """Give a new file the permissions of the file *name* that it will replace, which has the status *old*.

    The new file gets its owner, group, access list and mode, limited to the mode *max_mode*. If the system refuses one
    of them, the new file gets fewer permissions instead. Raise `OSError` if it would have more than the old one.
    """
    wanted = stat.S_IMODE(old.st_mode) & max_mode
    # a tuple: both calls must run
    if not all((_keep_owner(descriptor, old), _keep_acl(descriptor, f"/proc/self/fd/{directory}/{name}"))):
        wanted &= _OWNER
    if _mode(descriptor) == wanted:
        return
    try:
        os.fchmod(descriptor, wanted)
    except OSError as e:
        if _mode(descriptor) & ~stat.S_IMODE(old.st_mode):
            text = f"the new file can't have the permissions of the old one ({e.strerror}): remove the old file first"
            raise OSError(e.errno, text) from e


def _mode(descriptor: int) -> int:
    return stat.S_IMODE(os.fstat(descriptor).st_mode)


def _keep_owner(descriptor: int, old: os.stat_result) -> bool:
    """Change owner and group to those of *old*; return whether the group is right."""
    ours = os.fstat(descriptor)
    for uid in dict.fromkeys((old.st_uid, -1)):
        if (ours.st_uid, ours.st_gid) == (old.st_uid, old.st_gid):
            break
        with contextlib.suppress(OSError):  # only the superuser may give files away
            os.fchown(descriptor, uid, old.st_gid)
            break
    return os.fstat(descriptor).st_gid == old.st_gid


def _keep_acl(descriptor: int, path: str) -> bool:
    """Copy the access list of *path*, or remove the list if *path* has none; return whether that succeeded."""
    try:
        wanted, ours = _acl(path), _acl(descriptor)
        if wanted is None and ours is not None:
            os.removexattr(descriptor, _ACL)
        elif wanted is not None and wanted != ours:
            os.setxattr(descriptor, _ACL, wanted)
    except OSError:
        return False
    return True


def _acl(file: int | str) -> bytes | None:
    try:
        return os.getxattr(file, _ACL)
    except OSError as e:
        if e.errno in _NO_ACL:
            return None
        raise
