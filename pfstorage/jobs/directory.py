"""The directory in which jobs are kept: for its owner alone, and for one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone

from pfstorage.errors import SettingsError, StateFileError
from pfstorage.local import require_regular

FILES = ("jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "jobs.lock")
"""The names of what may be in such a directory: SQLite makes the second and the third."""
_Identity = tuple[int, int]
_NOWHERE: _Identity = (0, 0)


@dataclass
class StateDirectory:
    """A directory that this process has to itself; *path* is that of SQLite's file in it."""

    path: str
    _files: dict[str, _Identity]
    _size: int = 0

    def watch(self, path: str) -> None:
        """Check *path*, too, if it is there."""
        if (identity := _identity_of(path)) != _NOWHERE:
            self._files[path] = identity

    def set_aside(self) -> str:
        """Give the file and SQLite's others another name, make a new one, and return the old one's new path."""
        base, suffix = os.path.splitext(self.path)
        moment = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
        aside = f"{base}.damaged-{moment}{suffix}"
        # the file itself is the last: until then, the next start finds it damaged again
        for part in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path + part, aside + part)
        with _private(self.path):
            pass
        self.watch(self.path)
        return aside

    def check(self) -> None:
        """Raise `StateFileError` if its files are gone or cut: nobody would find what the server writes into them."""
        for path, identity in self._files.items():
            if _identity_of(path) != identity:
                raise StateFileError(
                    f"{path!r} was removed or replaced while the server used it: put it back, or start the server anew"
                )
        size = os.stat(self.path).st_size
        if size < self._size:
            raise StateFileError(f"{self.path!r} was cut while the server used it: put a copy of it back")
        self._size = size


@contextlib.contextmanager
def guarded(directory: str) -> Iterator[StateDirectory]:
    """Keep *directory*, made if it isn't there, from other processes.

    Raise `SettingsError`, or `StateFileError` if another process has it.
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        if os.stat(directory).st_mode & 0o002:
            raise SettingsError(f"anybody may write to {directory!r}: chmod o-w {directory!r}")
        path, lock_path = os.path.join(directory, FILES[0]), os.path.join(directory, FILES[-1])
        with _private(lock_path) as lock:
            _lock(lock, directory)
            # before SQLite locks it: to close a file drops all locks of the process on it
            with _private(path):
                pass
            yield StateDirectory(path, {each: _identity_of(each) for each in (lock_path, path)})
    except OSError as e:
        raise SettingsError(f"the state directory {directory!r} can't be used: {e.strerror}") from e


def _identity_of(path: str) -> _Identity:
    try:
        status = os.lstat(path)
    except OSError:
        return _NOWHERE
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _private(path: str) -> Iterator[int]:
    """Open *path*, made if it isn't there, that its owner alone can read; SQLite's other files are as its file is."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        require_regular(os.fstat(descriptor))
        os.fchmod(descriptor, 0o600)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = f"another pfstorage uses the state directory {directory!r}: give each a --stateDir of its own"
        raise StateFileError(text) from None  # which may be about to end
