"""Bodies and sinks that count and hash the bytes that pass through them."""

from __future__ import annotations

from collections.abc import Iterable

from pfstorage.backends.capabilities import Part, rewind_window
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import ObjectInfo, Sink, Source
from pfstorage.backends.errors import damaged_segment_error
from pfstorage.errors import IntegrityError, LocalFileError


def announce(sink: Sink, info: ObjectInfo) -> None:
    """Call the method ``begin`` of *sink*, if it has one: see `Sink`."""
    begin = getattr(sink, "begin", None)
    if begin:
        begin(info)


class HashedBody:
    """A body of *size* bytes, hashed while it is read.

    If *body* has another size, reading raises `LocalFileError` before it returns the last bytes. The request to the
    store then stays incomplete, and the store keeps the old object.
    """

    def __init__(self, body: Source, size: int, key: str) -> None:
        self.size = size
        self.window = rewind_window(body)
        self._body = body
        self._left = size
        self._key = key
        self._digest = new_md5()

    def read(self, size: int = -1) -> bytes:
        """Read up to *size* bytes, or all that remain, and hash them. Return b"" after the last byte.

        Raise `LocalFileError` if *body* does not have the size of the upload.
        """
        wanted = self._left if size < 0 else min(size, self._left)
        if not wanted and self.size:
            return b""
        chunk = self._body.read(wanted)
        self._left -= len(chunk)
        if len(chunk) < min(wanted, 1) or (not self._left and self._body.read(1)):
            raise LocalFileError(
                f"the file for {self._key!r} changed its length while it was read: push it again"
            )
        self._digest.update(chunk)
        return chunk

    def read_all(self) -> bytes:
        """Read the rest."""
        return b"".join(iter(self.read, b""))

    @property
    def md5(self) -> str:
        """The hexadecimal MD5 of the bytes that were read so far."""
        return self._digest.hexdigest()


class HashedSink:
    """A sink that counts bytes, hashes them if *hashes* is set, and passes them on to *sink*."""

    def __init__(self, sink: Sink, *, hashes: bool = True) -> None:
        self._sink = sink
        self._hashes = hashes
        self._digest = new_md5()
        self.received = 0

    def write(self, chunk: bytes | memoryview) -> None:
        if self._hashes:
            self._digest.update(chunk)
        self._sink.write(chunk)
        self.received += len(chunk)

    def verify(self, key: str, size: int | None, md5: str | None) -> None:
        """Raise `IntegrityError` unless *size* bytes with this *md5* were received. None means unknown."""
        if size is not None and self.received != size:
            raise IntegrityError(f"{key!r}: {self.received} bytes came of {size}; pull it again", key=key)
        if md5 is not None and md5 != self._digest.hexdigest():
            raise IntegrityError(
                f"{key!r}: the bytes that came don't have the store's MD5; pull it again", key=key
            )


class PartVerifyingSink:
    """A sink for a whole object that verifies each of its *parts* before it passes the end of the part on."""

    def __init__(self, sink: Sink, key: str, parts: Iterable[Part]) -> None:
        self._sink = sink
        self._key = key
        self._parts = iter(parts)
        self._begin_next()

    def _begin_next(self) -> None:
        self._part = next((part for part in self._parts if part.size), None)
        self._left = self._part.size if self._part else 0
        self._digest = new_md5()

    def write(self, chunk: bytes | memoryview) -> None:
        """Pass *chunk* on. Raise `IntegrityError` if a part that ends in *chunk* has another MD5."""
        rest = memoryview(chunk)
        while rest and self._part:  # the backend checks the number of bytes
            head, rest = rest[: self._left], rest[self._left :]
            self._digest.update(head)
            self._left -= len(head)
            if not self._left:
                if self._part.md5 not in ("", self._digest.hexdigest()):
                    raise damaged_segment_error(self._key)
                self._begin_next()
        self._sink.write(chunk)
