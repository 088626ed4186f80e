"""Durability of directory names: a directory that loses its name in a power cut loses its files."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from pfstorage.local import disk
from pfstorage.local.descriptors import TOP, Directory

_MAX_REMEMBERED = 100_000


class SyncedNames:
    """The names of the directories of one tree, and the name of the tree itself, to sync to the disk.

    This includes directories that other programs have made, because those may not have synced them. With
    *remembers*, each directory is synced once; use it for a single transfer. A long-lived tree syncs each time,
    since another process may remove a directory and make it again. Several threads may use it at once.
    """

    def __init__(self, *, remembers: bool) -> None:
        self._remembers = remembers
        self._known: set[tuple[str, ...]] = set()
        self._is_top_known = False
        self._lock = threading.Lock()

    def sync_above(self, parts: tuple[str, ...], opened: Callable[[tuple[str, ...]], Directory]) -> None:
        """Sync the names of the directory *parts* and of its parents in the tree. *opened* opens a directory."""
        for depth in range(len(parts), 0, -1):
            if self._remembers and parts[:depth] in self._known:
                return
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # removed, with all its files
                parent = opened(parts[: depth - 1])
                disk.sync_one(parent.descriptor)
        with self._lock:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            self._known.update(parts[:depth] for depth in range(1, len(parts) + 1))

    def sync_above_top(self, top: str) -> None:
        """Sync the name of the tree at *top* and of its parents, up to the root of the file system.

        This skips directories that this user may not read, because this user did not create them.
        """
        if self._is_top_known:
            return
        path = os.path.realpath(top)
        device = os.stat(path).st_dev
        while path != (path := os.path.dirname(path)):
            with contextlib.suppress(PermissionError):
                directory = Directory(os.open(path, TOP))
                if os.fstat(directory.descriptor).st_dev != device:
                    break
                disk.sync_one(directory.descriptor)
        self._is_top_known = True

    def forget(self) -> None:
        """Forget all synced names. Call this after a directory was removed, or the tree was created."""
        with self._lock:
            self._known.clear()
            self._is_top_known = False
