"""A new file in the place of another: whether it may go there, and who may read it then."""

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
    """Return the status of the file *name* in *directory*, a descriptor, None if there is no file to be replaced.

    A link is what it leads to. Raise `IsADirectoryError` for a device, a pipe or a socket, which is not to be replaced:
    programs have agreed on it. That a directory can't be is told by rename(2).
    """
    status = None
    with contextlib.suppress(FileNotFoundError):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    if status and stat.S_ISLNK(status.st_mode):
        if _is_of_process(name, directory):
            raise _special()
        status = None
        with contextlib.suppress(OSError):  # it leads nowhere, or where nobody can look
            status = os.stat(name, dir_fd=directory)
    if status and not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise _special()
    return status if status and stat.S_ISREG(status.st_mode) else None


def _special() -> OSError:
    text = "it is no regular file, and is not replaced by one: name another, or remove it"
    return IsADirectoryError(errno.EISDIR, text)


def _is_of_process(name: str, directory: int) -> bool:
    """Tell whether the link *name* leads to what a process has open, as ``/dev/stdout`` does, whatever that is."""
    try:
        here = os.readlink(f"/proc/self/fd/{directory}")
    except OSError:  # without /proc, there is no such link
        return False
    return any(os.path.join(step, "").startswith("/proc/") for step, _ in steps(os.path.join(here, name)))


def copy_permissions(descriptor: int, there: os.stat_result, name: str, directory: int, most: int) -> None:
    """Let nobody use a new file who can't use the file *name* that it is to replace, the status of which is *there*.

    It gets the owner and the group of that one, its access list and its mode, as far as *most* goes. What the
    system does not let it have makes it narrower. Raise `OSError` if it would be wider.
    """
    wanted = stat.S_IMODE(there.st_mode) & most
    # not one after the other: both are to be tried
    if not all((_keep_owner(descriptor, there), _keep_acl(descriptor, f"/proc/self/fd/{directory}/{name}"))):
        wanted &= _OWNER
    if _mode(descriptor) == wanted:
        return
    try:
        os.fchmod(descriptor, wanted)
    except OSError as e:
        if _mode(descriptor) & ~stat.S_IMODE(there.st_mode):
            text = f"the new file can't have the rights of the old one ({e.strerror}): remove that one before"
            raise OSError(e.errno, text) from e


def _mode(descriptor: int) -> int:
    return stat.S_IMODE(os.fstat(descriptor).st_mode)


def _keep_owner(descriptor: int, there: os.stat_result) -> bool:
    """Give the file to the owner and the group of the other one; tell whether at least it has its group."""
    ours = os.fstat(descriptor)
    for uid in dict.fromkeys((there.st_uid, -1)):
        if (ours.st_uid, ours.st_gid) == (there.st_uid, there.st_gid):
            break
        with contextlib.suppress(OSError):  # only the superuser may give files away
            os.fchown(descriptor, uid, there.st_gid)
            break
    return os.fstat(descriptor).st_gid == there.st_gid


def _keep_acl(descriptor: int, path: str) -> bool:
    """Give the file the access list of *path*, or none if that has none; tell whether it has it."""
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
