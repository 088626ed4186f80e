"""Directories whose names are on the disk: a directory that loses its name in a power cut loses its files."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from pfstorage.local import disk
from pfstorage.local.common import TOP, Directory

_MOST_REMEMBERED = 100_000


class SyncedNames:
    """Brings the names of the directories of one tree to the disk, and that of the tree. Safe in many threads.

    It includes directories that others made: they may not have synced them. A tree for one piece of work *remembers*
    the directories that it has synced; another tree syncs each time, since other processes may remove a directory
    and make it again.
    """

    def __init__(self, *, remembers: bool) -> None:
        self._remembers = remembers
        self._known: set[tuple[str, ...]] = set()
        self._is_top_known = False
        self._lock = threading.Lock()

    def sync_above(self, parts: tuple[str, ...], opened: Callable[[tuple[str, ...]], Directory]) -> None:
        """Bring the name of the directory *parts* to the disk, and those of the directories of the tree above it.

        *opened* opens one by its parts.
        """
        for depth in range(len(parts), 0, -1):
            if self._remembers and parts[:depth] in self._known:
                return
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # its files have gone with it
                above = opened(parts[: depth - 1])
                disk.sync_one(above.descriptor)
        with self._lock:
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known.update(parts[:depth] for depth in range(1, len(parts) + 1))

    def sync_above_top(self, top: str) -> None:
        """Bring the name of the tree at the path *top* to the disk, as far up as its file system goes.

        Directories that this user may not read are left out: this user did not make them.
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
        """Remember nothing any more: somebody removed a directory, or the tree itself is new."""
        with self._lock:
            self._known.clear()
            self._is_top_known = False
