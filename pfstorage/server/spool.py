"""The temporary copy of an upload, and how much room all of them have."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import threading
import time
from collections import Counter
from typing import IO

from pfstorage.errors import BusyError, TooLargeError
from pfstorage.local import Body, local_errors

WANTED_SECONDS = 10.0
"""How long after an upload found no room those that take their time are in the way."""
_NAME = "the temporary copy of the upload"


class Room:
    """How many bytes of uploads may lie on the disk: *most*, and those of one owner half of that. For any thread."""

    def __init__(self, most: float = math.inf) -> None:
        self._most = most
        self._taken: Counter[str] = Counter()
        self._refused_at = float("-inf")
        self._too_large = ""
        self._lock = threading.Lock()

    @property
    def taken(self) -> int:
        return self._taken.total()

    def is_wanted_of(self, owner: str) -> bool:
        """Tell whether an upload found no room lately, since *owner* has most of it, or their share."""
        return owner == self._too_large and time.monotonic() - self._refused_at < WANTED_SECONDS

    def share(self, owner: str) -> float:
        """Return how many bytes *owner* may have at most; "" is all who have no token."""
        return self._most / 2 if owner else self._most

    def take(self, owner: str, size: int) -> None:
        """Take *size* bytes for *owner*, until `give_back`. Raise `BusyError`."""
        with self._lock:
            is_over = self._taken[owner] + size > self.share(owner)
            if is_over or self.taken + size > self._most:
                self._refused_at = time.monotonic()
                self._too_large = owner if is_over else max(self._taken, key=self._taken.__getitem__)
                raise BusyError(
                    "too much of uploads lies on the disk (--maxSpool): try again in some seconds"
                )
            self._taken[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        with self._lock:
            self._taken[owner] -= size
            if not self._taken[owner]:
                del self._taken[owner]


class Spool:
    """A file on disk that has no name, for up to *most* bytes that come from a client, so that they can be sent again.

    It takes of the *room* for *owner* as it grows. Methods raise `LocalFileError` where the disk does not take them.
    """

    def __init__(self, most: int, room: Room | None = None, owner: str = "") -> None:
        with local_errors(_NAME):
            self.file: IO[bytes] = tempfile.TemporaryFile(prefix="pfstorage-")  # noqa: SIM115 - closed by `close`
        self.size = 0
        self.content_type = ""
        self._most = most
        self._room = room or Room()
        self._owner = owner
        self._taken = 0

    def write(self, data: bytes) -> None:
        """Add *data*. Raise `TooLargeError` if that is more than there may be, or `BusyError` if there is no room."""
        self.size += len(data)
        if self.size > self._most:
            raise TooLargeError(
                f"the upload has more than {self._most} bytes: see --maxUpload and --maxSpool"
            )
        self._room.take(self._owner, len(data))
        self._taken += len(data)
        with local_errors(_NAME):
            self.file.write(data)

    def body(self) -> Body:
        """Return all that was written."""
        with local_errors(_NAME):
            self.file.flush()
            return Body(self.file, _NAME, os.fstat(self.file.fileno()))

    def rewind(self) -> None:
        """Have `file` be read from its beginning, when all is written."""
        with local_errors(_NAME):
            self.file.seek(0)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what a full disk did not take is not wanted any more
            self.file.close()
        self._room.give_back(self._owner, self._taken)
        self._taken = 0
