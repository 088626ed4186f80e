"""A local file as the body of an upload."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from pfstorage.errors import LocalFileError
from pfstorage.files.common import READ, local_errors, read_at
from pfstorage.files.tree import LocalTree, Parts


class Body:
    """A local file, or a part of one, as the body of an upload: seekable, and its errors name the file.

    They are `LocalFileError`, never `OSError`, which an HTTP library takes for its own.
    A file that changes while it is read is one: its last bytes are given out only if it
    has still the size and the time of modification that it was opened with, so that no
    store gets the whole of a mixture. One thread at a time may read it; another reads
    another `part`.
    """

    def __init__(
        self, file: BinaryIO, path: str, status: os.stat_result, start: int = 0, size: int | None = None
    ) -> None:
        """Read *size* bytes of *file* from *start* on, None for all; *status* is what it was when it was opened."""
        self._file = file
        self._path = path
        self._status = status
        self._start = start
        self._offset = 0
        self.size = status.st_size if size is None else size

    @property
    def mtime_ns(self) -> int:
        """The time of modification, in nanoseconds since 1970, when the file was opened."""
        return self._status.st_mtime_ns

    def read(self, size: int = -1) -> bytes:
        """Return the next *size* bytes, fewer only at the end; -1 is all that are left."""
        left = self.size - self._offset
        wanted = left if size < 0 else min(size, left)
        with local_errors(self._path):
            data = read_at(self._file.fileno(), wanted, self._start + self._offset)
            if len(data) < wanted or wanted == left:
                self._require_unchanged(is_cut=len(data) < wanted)
        self._offset += len(data)
        return data

    def _require_unchanged(self, *, is_cut: bool) -> None:
        then, now = self._status, os.fstat(self._file.fileno())
        if is_cut or (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
            text = f"{self._path!r} changed while it was read: push it again"
            if now.st_size != then.st_size:
                text += f" (it changed its length from {then.st_size} bytes to {now.st_size})"
            raise LocalFileError(text, local=self._path)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is nothing before the beginning of {self._path!r}")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset

    def begins_with(self, offset: int, magic: bytes) -> bool:
        """Tell whether *magic* is what stands at *offset*: the form of a file, as DICM at 128 tells DICOM.

        It may be asked at any time: `read` goes on where it was.
        """
        with local_errors(self._path):
            return read_at(self._file.fileno(), len(magic), self._start + offset) == magic

    def part(self, offset: int, size: int) -> Body:
        """Return *size* bytes from *offset* on as a body of its own, for as long as the file is open."""
        if not 0 <= offset <= offset + size <= self.size:
            raise ValueError(f"{self._path!r} has no {size} bytes at {offset}")
        return Body(self._file, self._path, self._status, self._start + offset, size)


@contextlib.contextmanager
def open_body(path: str, tree: LocalTree | None = None, parts: Parts = ()) -> Iterator[tuple[Body, int]]:
    """Open the regular file *path*, as *parts* of *tree* if there is one; yield it and its size in bytes.

    Raise `LocalFileError`.
    """
    with local_errors(path):
        descriptor = tree.open(parts) if tree else os.open(path, READ)
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise LocalFileError(f"{path!r} is no regular file", local=path)
        yield Body(file, path, status), status.st_size
