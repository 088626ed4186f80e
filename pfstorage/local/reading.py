"""A local file as the body of an upload."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from typing import IO, BinaryIO

from pfstorage.errors import FileChangedError
from pfstorage.local import disk
from pfstorage.local.common import READ, file_version, local_errors, read_at, require_regular, settled_status
from pfstorage.local.tree import LocalTree, Parts

_SMALL = 256 * 1024
"""Bytes up to which a file is read at once when it is opened."""


class Body:
    """A local file, or a part of one, as the body of an upload: seekable, and its errors name the file.

    They are `LocalFileError`, never `OSError`, which an HTTP library takes for its own.
    A file that changes while it is read raises `FileChangedError`: its last bytes are given out only if it
    has still the size and the times that it was opened with, so that no
    store gets the whole of a mixture. One thread at a time may read it; another reads
    another `part`.
    """

    def __init__(
        self,
        file: IO[bytes],
        path: str,
        status: os.stat_result,
        start: int = 0,
        size: int | None = None,
        *,
        mtime_ns: int | None = None,
        content: bytes | None = None,
    ) -> None:
        """Read *size* bytes of *file* from *start* on, None for all; *status* is what it was when it was opened.

        *mtime_ns* is its time of modification, unless *status* tells. *content* are all its bytes, if they are known.
        """
        self._file = file
        self._path = path
        self._status = status
        self._start = start
        self._offset = 0
        self._content = content
        self.mtime_ns = status.st_mtime_ns if mtime_ns is None else mtime_ns
        """In nanoseconds since 1970, when the file was opened."""
        self.size = status.st_size if size is None else size

    def read(self, size: int = -1) -> bytes:
        """Return the next *size* bytes, fewer only at the end; -1 is all that are left."""
        left = self.size - self._offset
        wanted = left if size < 0 else min(size, left)
        with local_errors(self._path):
            data = self._read_at(wanted, self._start + self._offset)
            is_last = wanted == left and (wanted or not self.size)  # what comes after that is nothing
            if is_last or len(data) < wanted:
                self._require_unchanged(is_cut=len(data) < wanted)
        self._offset += len(data)
        return data

    def _read_at(self, size: int, offset: int) -> bytes:
        if self._content is None:
            return read_at(self._file.fileno(), size, offset)
        return self._content[offset : offset + max(0, size)]

    def _require_unchanged(self, *, is_cut: bool) -> None:
        then, now = self._status, os.fstat(self._file.fileno())
        if is_cut or file_version(now) != file_version(then) or not self._is_content():
            text = f"{self._path!r} changed while it was read: push it again"
            if now.st_size != then.st_size:
                text += f" (it changed its length from {then.st_size} bytes to {now.st_size})"
            raise FileChangedError(text, local=self._path)

    def _is_content(self) -> bool:
        """Tell whether the file still has the bytes that were read: no time tells of a write through a mapping."""
        content = self._content
        return content is None or os.pread(self._file.fileno(), len(content) + 1, 0) == content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"there is nothing before the beginning of {self._path!r}")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset

    def peek(self, size: int) -> bytes:
        """Return the first *size* bytes, or all if there are fewer. `read` goes on where it was."""
        with local_errors(self._path):
            return self._read_at(min(size, self.size), self._start)

    def begins_with(self, offset: int, magic: bytes) -> bool:
        """Tell whether *magic* is what stands at *offset*: the form of a file, as DICM at 128 tells DICOM.

        It may be asked at any time: `read` goes on where it was.
        """
        with local_errors(self._path):
            return self._read_at(len(magic), self._start + offset) == magic

    def part(self, offset: int, size: int) -> Body:
        """Return *size* bytes from *offset* on as a body of its own, for as long as the file is open."""
        if not 0 <= offset <= offset + size <= self.size:
            raise ValueError(f"{self._path!r} has no {size} bytes at {offset}")
        start, mtime_ns, content = self._start + offset, self.mtime_ns, self._content
        return Body(self._file, self._path, self._status, start, size, mtime_ns=mtime_ns, content=content)


@contextlib.contextmanager
def body_of(file: BinaryIO, path: str) -> Iterator[Body]:
    """Yield the open regular *file*, which is called *path*, as a body of all the bytes that a read gives.

    What the system says of the size is another number for some, as of those in ``/proc`` and ``/sys``, and of
    those whose bytes a gateway makes when they are read. Raise `LocalFileError`.
    """
    with contextlib.ExitStack() as stack:
        with local_errors(path):
            body = _body_of(file, path, stack)
        yield body


def _body_of(file: IO[bytes], path: str, stack: contextlib.ExitStack) -> Body:
    """Return *file* as a body; what it needs beside is closed with *stack*. Few calls: many files are small."""
    descriptor = file.fileno()
    status = os.fstat(descriptor)
    require_regular(status)
    if status.st_size > _SMALL:
        status = settled_status(descriptor, look=_written_back)
    else:
        status = settled_status(descriptor, status)
    content = _beginning(descriptor, status.st_size)
    if content is None:
        return _copied(stack.enter_context(tempfile.TemporaryFile(prefix="pfstorage-")), file, path)
    return Body(file, path, status, content=content if status.st_size <= _SMALL else None)


def _written_back(descriptor: int) -> os.stat_result:
    """Return the status that an open file has until somebody writes into it, also through a mapping.

    The file is to be read at once: a page that was written into since takes further writes without a trace.
    """
    disk.write_back(descriptor)
    return os.fstat(descriptor)  # NFS has given it another time by then


def _beginning(descriptor: int, size: int) -> bytes | None:
    """Return the bytes of a file of *size* bytes if it is small, else some; None if it has not that many."""
    start = size - 1 if size > _SMALL else 0
    try:
        data = os.pread(descriptor, size - start + 1, start)
        if len(data) < size - start:
            data = read_at(descriptor, size - start + 1, start)
    except OSError as e:
        if e.errno != errno.ESPIPE:  # what makes its bytes as it goes can't go back
            raise
        return None
    return data if len(data) == size - start else None


def _copied(copy: IO[bytes], file: IO[bytes], path: str) -> Body:
    """Return a body of the bytes that *file* gives, in *copy*: how many they are, only reading tells."""
    status = os.fstat(file.fileno())
    while chunk := os.read(file.fileno(), _SMALL):
        with local_errors(f"the temporary copy of {path}"):
            copy.write(chunk)
            copy.flush()
    if file_version(os.fstat(file.fileno())) != file_version(status):
        raise FileChangedError(f"{path!r} changed while it was read: push it again", local=path)
    return Body(copy, path, os.fstat(copy.fileno()), mtime_ns=status.st_mtime_ns)


@contextlib.contextmanager
def open_body(path: str, tree: LocalTree | None = None, parts: Parts = ()) -> Iterator[tuple[Body, int]]:
    """Open the regular file *path*, as *parts* of *tree* if there is one; yield it and its size in bytes.

    Raise `LocalFileError`.
    """
    with contextlib.ExitStack() as stack:
        with local_errors(path):
            # before it is opened, which some devices take for more than a look
            require_regular(tree.status(parts) if tree else os.stat(path), links=True)
            descriptor = tree.open(parts) if tree else os.open(path, READ)
            file = stack.enter_context(open(descriptor, "rb", buffering=0))
            body = _body_of(file, path, stack)
        yield body, body.size
