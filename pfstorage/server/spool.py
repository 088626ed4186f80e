"""Temporary files of uploads, and the disk space that all of them may use."""

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

# Seconds for which the client that holds most must be faster, after an upload found no space or a connection no place.
CONTENTION_SECONDS = 10.0
_COPY_NAME = "the temporary copy of the upload (TMPDIR)"


class SpoolSpace:
    """The disk space of spooled uploads: *limit* bytes for all, and half of them for one owner. Thread-safe."""

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._used: Counter[str] = Counter()
        self._refused_at = float("-inf")
        self._largest_owner = ""
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """The bytes in use."""
        return self._used.total()

    def is_wanted_of(self, owner: str) -> bool:
        """Return whether an upload found no space lately because *owner* uses most of it, or all of their share."""
        return owner == self._largest_owner and time.monotonic() - self._refused_at < CONTENTION_SECONDS

    def share(self, owner: str) -> float:
        """Return the bytes that *owner* may use. The owner "" means all clients without a token."""
        return self._limit / 2 if owner else self._limit

    def take(self, owner: str, size: int) -> None:
        """Reserve *size* bytes for *owner* until `give_back`. Raise `BusyError` if there is not enough space."""
        with self._lock:
            is_over = self._used[owner] + size > self.share(owner)
            if is_over or self.used + size > self._limit:
                self._refused_at = time.monotonic()
                self._largest_owner = owner if is_over else max(self._used, key=self._used.__getitem__)
                raise BusyError(
                    "the disk space for uploads is used up (--maxSpool): try again in some seconds"
                )
            self._used[owner] += size

    def give_back(self, owner: str, size: int) -> None:
        """Release *size* bytes of *owner*."""
        with self._lock:
            self._used[owner] -= size
            if not self._used[owner]:
                del self._used[owner]


class SpooledFile:
    """A temporary file without a name that holds an upload, so that it can be sent to the store more than once.

    It has up to *max_size* bytes, and takes *space* for *owner* as it grows. Methods raise `LocalFileError` if the
    disk fails.
    """

    def __init__(self, max_size: int, space: SpoolSpace | None = None, owner: str = "") -> None:
        with local_errors(_COPY_NAME):
            self.file: IO[bytes] = tempfile.TemporaryFile(prefix="pfstorage-")  # noqa: SIM115 - `close` closes it
        self.size = 0
        self.content_type = ""
        self._max_size = max_size
        self._space = space or SpoolSpace()
        self._owner = owner
        self._reserved = 0

    def write(self, data: bytes) -> None:
        """Append *data*. Raise `TooLargeError` above the size limit, and `BusyError` without space."""
        self.size += len(data)
        if self.size > self._max_size:
            raise TooLargeError(
                f"the upload has more than {self._max_size} bytes: see --maxUpload and --maxSpool"
            )
        self._space.take(self._owner, len(data))
        self._reserved += len(data)
        with local_errors(_COPY_NAME):
            self.file.write(data)

    def body(self) -> Body:
        """Return all written bytes as a body."""
        with local_errors(_COPY_NAME):
            self.file.flush()
            return Body(self.file, _COPY_NAME, os.fstat(self.file.fileno()))

    def rewind(self) -> None:
        """Move to the start of the file, after the last write."""
        with local_errors(_COPY_NAME):
            self.file.seek(0)

    def close(self) -> None:
        """Delete the file, and give back its space."""
        with contextlib.suppress(
            OSError
        ):  # a full disk refuses the last bytes, which are not needed any more
            self.file.close()
        self._space.give_back(self._owner, self._reserved)
        self._reserved = 0
