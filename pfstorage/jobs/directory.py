"""The state directory with the file of the jobs: private to its owner, and to one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from pfstorage.errors import SettingsError, StateFileError
from pfstorage.local import require_regular

# The names of the files in a state directory. SQLite makes the second and the third.
STATE_FILES = ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "jobs.lock")
_Identity = tuple[int, int]
_MISSING: _Identity = (0, 0)


@dataclass
class StateDirectory:
    """A directory that this process has locked. *path* is the path of SQLite's file in it."""

    path: str
    _files: dict[str, _Identity]
    _size: int = 0

    def watch(self, path: str) -> None:
        """Make `check` check *path*, too, if that file exists."""
        if (identity := _identity_of(path)) != _MISSING:
            self._files[path] = identity

    def set_aside(self) -> str:
        """Rename SQLite's files, and make a new empty one. Return the new path of the old file."""
        base, suffix = os.path.splitext(self.path)
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{base}.damaged-{moment}{suffix}"
        # the database last: after a crash before that, the next start finds it damaged again
        for part in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + part, aside + part)
        with _private_file(self.path):
            pass
        self.watch(self.path)
        return aside

    def check(self) -> None:
        """Raise `StateFileError` if a file was removed, replaced or truncated: later writes would be lost."""
        for path, identity in self._files.items():
            if _identity_of(path) != identity:
                raise StateFileError(
                    f"{path!r} was removed or replaced while the server used it: put it back, or restart the server"
                )
        size = os.stat(self.path).st_size
        if size < self._size:
            raise StateFileError(f"{self.path!r} was cut while the server used it: put a copy of it back")
        self._size = size


@contextlib.contextmanager
def locked_directory(directory: str) -> Iterator[StateDirectory]:
    """Lock *directory* against other processes for the ``with`` block. Make it if it does not exist.

    Raise `SettingsError`, or `StateFileError` if another process has locked it.
    """
    try:
        if os.path.exists(directory) and not os.path.isdir(directory):
            raise SettingsError(f"--stateDir {directory!r} is no directory: name one, which may be new")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.stat(directory).st_mode & 0o002:
            raise SettingsError(f"anybody may write to {directory!r}: chmod o-w {directory!r}")
        path, lock_path = os.path.join(directory, STATE_FILES[0]), os.path.join(directory, STATE_FILES[-1])
        with _private_file(lock_path) as lock:
            _lock_directory(lock, directory)
            # before SQLite locks the file: closing a descriptor drops all locks of the process on the file
            with _private_file(path):
                pass
            yield StateDirectory(path, {each: _identity_of(each) for each in (lock_path, path)})
    except OSError as e:
        raise SettingsError(f"the state directory {directory!r} can't be used: {e.strerror}") from e


def _identity_of(path: str) -> _Identity:
    try:
        status = os.lstat(path)
    except OSError:
        return _MISSING
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _private_file(path: str) -> Iterator[int]:
    """Open the file *path*, readable by its owner alone. Make it if it does not exist.

    SQLite gives its other files the mode of the database.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        require_regular(os.fstat(descriptor))
        os.fchmod(descriptor, 0o600)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock_directory(descriptor: int, directory: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = (
            f"another pfstorage uses the state directory {directory!r}: give each server its own --stateDir"
        )
        raise StateFileError(text) from None  # it may pass: the other process may be about to end
