"""Detection of changes of a local file by its size and its times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

# The resolution of file times: two changes within this time may get the same time. The clock of Linux ticks at least
# 100 times a second; since Linux 6.13, files with a recently read time get finer ones.
_TICK_NS = 10_000_000
_MAX_WAITS = 3


def file_version(status: os.stat_result) -> tuple[int, int, int]:
    """Return the size, the modification time and the change time of a file. They differ if its bytes differ.

    Some tools restore the modification time after a write, as ``exiftool -P`` does. No tool can set the change time
    (st_ctime), but a change of permissions updates it as well.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def is_stable(status: os.stat_result, seconds: float) -> bool:
    """Return whether a file was last modified at least *seconds* ago.

    This looks at the modification time: a tool that sets it has finished writing, and a change of permissions or a
    new hard link does not update it. If it is in the future, this looks at the change time, which no tool can set.
    """
    now, moment = time.time_ns(), status.st_mtime_ns
    if moment > now:
        moment = status.st_ctime_ns
    return now - moment >= seconds * 1e9


def settled_status(
    descriptor: int,
    status: os.stat_result | None = None,
    read_status: Callable[[int], os.stat_result] = os.fstat,
) -> os.stat_result:
    """Return the status of an open file, at a moment when another change would give the file a different time.

    This waits only if the file was changed within the last 10 ms, and at most three times that long, since a file
    may change all the time. *status* is the present status, if the caller has it.
    """
    status = status or read_status(descriptor)
    for _ in range(_MAX_WAITS):
        age = time.time_ns() - status.st_ctime_ns
        if not 0 <= age < _TICK_NS:  # a negative age comes from the clock of a file server
            break
        time.sleep((_TICK_NS - age) / 1e9)
        status = read_status(descriptor)
    return status
