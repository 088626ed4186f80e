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
from pfstorage.local.descriptors import READ, read_at, require_regular
from pfstorage.local.directories import Parts
from pfstorage.local.errors import local_errors
from pfstorage.local.tree import LocalTree
from pfstorage.local.versions import file_version, settled_status

# A file of up to this many bytes is read as a whole when it is opened.
_SMALL = 256 * 1024


class Body:
    """A local file, or a part of one, as the seekable body of an upload.

    Methods raise `LocalFileError`, never `OSError`, which an HTTP library would take for a network error. If the
    file changes while it is read, they raise `FileChangedError`: the last bytes are returned only if the file still
    has the size and the times that it had when it was opened. So no store receives a mixture of two versions.
    One thread at a time may read a body; other threads may read other parts: see `part`.
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
        """Read *size* bytes of *file* at *start*, or all of it if *size* is None.

        *status* is the status of the file when it was opened. *mtime_ns* replaces its modification time. *content*
        is the whole file, if it has been read already.
        """
        self._file = file
        self._path = path
        self._status = status
        self._start = start
        self._offset = 0
        self._content = content
        # The modification time of the file when it was opened, in nanoseconds since the epoch.
        self.mtime_ns = status.st_mtime_ns if mtime_ns is None else mtime_ns
        self.size = status.st_size if size is None else size

    def read(self, size: int = -1) -> bytes:
        """Read the next *size* bytes, fewer only at the end; -1 reads the rest."""
        left = self.size - self._offset
        wanted = left if size < 0 else min(size, left)
        with local_errors(self._path):
            data = self._read_at(wanted, self._start + self._offset)
            is_last = wanted == left and (wanted or not self.size)  # the next read returns nothing
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
        """Return whether the file still has the bytes in memory. A write through a mapping may not update the times."""
        content = self._content
        return content is None or os.pread(self._file.fileno(), len(content) + 1, 0) == content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._offset, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError(f"can't seek before the beginning of {self._path!r}")
        self._offset = base + offset
        return self._offset

    def tell(self) -> int:
        return self._offset

    def peek(self, size: int) -> bytes:
        """Return the first *size* bytes, or all if there are fewer. The position of `read` does not change."""
        with local_errors(self._path):
            return self._read_at(min(size, self.size), self._start)

    def part(self, offset: int, size: int) -> Body:
        """Return a separate body of *size* bytes at *offset*. It is usable while the file is open."""
        if not 0 <= offset <= offset + size <= self.size:
            raise ValueError(f"{self._path!r} does not have {size} bytes at {offset}")
        start, mtime_ns, content = self._start + offset, self.mtime_ns, self._content
        return Body(self._file, self._path, self._status, start, size, mtime_ns=mtime_ns, content=content)


@contextlib.contextmanager
def body_of(file: BinaryIO, path: str) -> Iterator[Body]:
    """Yield the open regular *file*, named *path*, as a body of all the bytes that reading returns.

    Some files have another size than the system reports: those in ``/proc`` and ``/sys``, and those that a gateway
    generates on request. They are copied to a temporary file. Raise `LocalFileError`.
    """
    with contextlib.ExitStack() as stack:
        with local_errors(path):
            body = _body_of(file, path, stack)
        yield body


def _body_of(file: IO[bytes], path: str, stack: contextlib.ExitStack) -> Body:
    """Return *file* as a body. A temporary copy, if it needs one, is closed with *stack*.

    Since most files are small, this makes few system calls.
    """
    descriptor = file.fileno()
    status = os.fstat(descriptor)
    require_regular(status)
    if status.st_size > _SMALL:
        status = settled_status(descriptor, read_status=_written_back)
    else:
        status = settled_status(descriptor, status)
    content = _beginning(descriptor, status.st_size)
    if content is None:
        return _copied(stack.enter_context(tempfile.TemporaryFile(prefix="pfstorage-")), file, path)
    return Body(file, path, status, content=content if status.st_size <= _SMALL else None)


def _written_back(descriptor: int) -> os.stat_result:
    """Return the status of an open file, such that a later write through a mapping changes it.

    Read the file at once: after the first such write to a page, further writes to this page leave no trace.
    """
    disk.write_back(descriptor)
    return os.fstat(descriptor)  # on NFS, the write-back has updated the time


def _beginning(descriptor: int, size: int) -> bytes | None:
    """Return the content of a small file, or the last byte of a large one; None if it is not *size* bytes long."""
    start = size - 1 if size > _SMALL else 0
    try:
        data = os.pread(descriptor, size - start + 1, start)
        if len(data) < size - start:
            data = read_at(descriptor, size - start + 1, start)
    except OSError as e:
        if e.errno != errno.ESPIPE:  # a generated file may not be seekable
            raise
        return None
    return data if len(data) == size - start else None


def _copied(copy: IO[bytes], file: IO[bytes], path: str) -> Body:
    """Copy *file* to *copy*, since only reading shows how long it is; return the copy as a body."""
    status = os.fstat(file.fileno())
    while chunk := os.read(file.fileno(), _SMALL):
        with local_errors(f"the temporary copy of {path} (TMPDIR)"):
            copy.write(chunk)
            copy.flush()
    if file_version(os.fstat(file.fileno())) != file_version(status):
        raise FileChangedError(f"{path!r} changed while it was read: push it again", local=path)
    return Body(copy, path, os.fstat(copy.fileno()), mtime_ns=status.st_mtime_ns)


@contextlib.contextmanager
def open_body(path: str, tree: LocalTree | None = None, parts: Parts = ()) -> Iterator[tuple[Body, int]]:
    """Open the regular file *path*, or *parts* of *tree*; yield its body and its size in bytes.

    Raise `LocalFileError`.
    """
    with contextlib.ExitStack() as stack:
        with local_errors(path):
            # checked before it is opened, because opening some devices has an effect
            require_regular(tree.status(parts) if tree else os.stat(path), links=True)
            descriptor = tree.open(parts) if tree else os.open(path, READ)
            file = stack.enter_context(open(descriptor, "rb", buffering=0))
            body = _body_of(file, path, stack)
        yield body, body.size
