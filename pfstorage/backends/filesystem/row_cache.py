"""A cache of listing rows. For an unchanged file, only its status is read."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict

from pfstorage.backends.contract import ObjectInfo
from pfstorage.local import file_version

MAX_CACHED_ROWS = 4096
# Seconds after which another change of a file gets a different time.
SETTLED_SECONDS = 1.0

_FileVersion = tuple[int, int, int]


def shows_changes_at_once(status: os.stat_result) -> bool:
    """Return whether the status of a file is always up to date. NFS may show an old status for a minute.

    This is true for file systems on a block device. Other file systems have devices of the major number 0 (Linux,
    Documentation/admin-guide/devices.txt). That includes local ones, which this can't distinguish.
    """
    return os.major(status.st_dev) != 0


class RowCache:
    """A cache of rows by the device and inode of their files, which drops the least recently used rows.

    A row is valid while its file has the same size, times and key. Several threads may use the cache.
    """

    def __init__(self) -> None:
        self._rows: OrderedDict[tuple[int, int], tuple[_FileVersion, ObjectInfo]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str, status: os.stat_result) -> ObjectInfo | None:
        """Return the cached row of the file *key* with the present *status*; None without a valid row."""
        identity = status.st_dev, status.st_ino
        version, row = self._rows.get(identity, (None, None))
        if row is None or version != file_version(status) or row.key != key:
            return None
        with self._lock:
            if identity in self._rows:
                self._rows.move_to_end(identity)
        return row

    def keep(self, row: ObjectInfo, before: os.stat_result, after: os.stat_result) -> None:
        """Cache *row*, unless its file changed recently, or between the statuses *before* and *after*."""
        if not shows_changes_at_once(before):
            return
        identity, version = (before.st_dev, before.st_ino), file_version(before)
        is_settled = before.st_ctime_ns < time.time_ns() - SETTLED_SECONDS * 1e9
        if is_settled and (identity, version) == ((after.st_dev, after.st_ino), file_version(after)):
            with self._lock:
                self._rows[identity] = version, row
                self._rows.move_to_end(identity)
                while len(self._rows) > MAX_CACHED_ROWS:
                    self._rows.popitem(last=False)
