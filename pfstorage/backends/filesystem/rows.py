"""The rows that a directory of files was last listed with: to know that a file is the same takes one look at it."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict

from pfstorage.backends.contract import ObjectInfo
from pfstorage.local import file_version

MOST_ROWS = 4096
SETTLED_SECONDS = 1.0
"""Seconds after which the next change of a file is sure to have another time than the one before."""

_Version = tuple[int, int, int]


def shows_changes_at_once(status: os.stat_result) -> bool:
    """Tell whether the status of a file is never an old one, as it may be for a minute where NFS is mounted.

    That is so for file systems on a block device. The others have devices of the major number 0, local ones
    as well (Linux, Documentation/admin-guide/devices.txt): these are not told apart.
    """
    return os.major(status.st_dev) != 0


class RowCache:
    """Rows of files by their device and inode; of too many, those go that were not asked for lately.

    A row is good for as long as the size and the times of its file are the same, and it has the same key. Any thread
    may ask.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[int, int], tuple[_Version, ObjectInfo]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str, status: os.stat_result) -> ObjectInfo | None:
        """Return the row of the file *key*, whose *status* was taken now, if it is known."""
        which = status.st_dev, status.st_ino
        version, row = self._rows.get(which, (None, None))
        if row is None or version != file_version(status) or row.key != key:
            return None
        with self._lock:
            if which in self._rows:
                self._rows.move_to_end(which)
        return row

    def keep(self, row: ObjectInfo, before: os.stat_result, after: os.stat_result) -> None:
        """Keep *row*, which was found out between two looks at its file, unless that was changed then or lately."""
        if not shows_changes_at_once(before):
            return
        which, version = (before.st_dev, before.st_ino), file_version(before)
        is_settled = before.st_ctime_ns < time.time_ns() - SETTLED_SECONDS * 1e9
        if is_settled and (which, version) == ((after.st_dev, after.st_ino), file_version(after)):
            with self._lock:
                self._rows[which] = version, row
                self._rows.move_to_end(which)
                while len(self._rows) > MOST_ROWS:
                    self._rows.popitem(last=False)
