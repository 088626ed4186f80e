"""Bytes on their way to or from a store: counted and hashed as they pass."""

from __future__ import annotations

from collections.abc import Iterable

from pfstorage.backends.capabilities import Part, rewind_window
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import ObjectInfo, Sink, Source
from pfstorage.backends.errors import damaged_segment_error
from pfstorage.errors import IntegrityError, LocalFileError


def announce(sink: Sink, info: ObjectInfo) -> None:
    """Tell *sink* what comes, if it is one that wants to know: see `Sink`."""
    begin = getattr(sink, "begin", None)
    if begin:
        begin(info)


class HashedBody:
    """A body of *size* bytes that is hashed as it is sent.

    It raises `LocalFileError` before its last bytes leave if there are fewer or
    more: the store then has an unfinished request, and keeps what it had.
    """

    def __init__(self, body: Source, size: int, key: str) -> None:
        self.size = size
        self.window = rewind_window(body)
        self._body = body
        self._left = size
        self._key = key
        self._digest = new_md5()

    def read(self, size: int = -1) -> bytes:
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
        """Return all that is left."""
        return b"".join(iter(self.read, b""))

    @property
    def md5(self) -> str:
        """The MD5, in hexadecimal, of what was read so far."""
        return self._digest.hexdigest()


class HashedSink:
    """A sink that counts what it passes on, and hashes it unless nobody could compare that."""

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
        """Raise `IntegrityError` unless *size* bytes came and have this *md5*; None is not known."""
        if size is not None and self.received != size:
            raise IntegrityError(f"{key!r}: {self.received} bytes came of {size}; pull it again", key=key)
        if md5 is not None and md5 != self._digest.hexdigest():
            raise IntegrityError(
                f"{key!r}: the bytes that came don't have the store's MD5; pull it again", key=key
            )


class PartVerifyingSink:
    """A sink for a whole object of *pieces*, each of which is hashed; what completes a wrong one is not passed on."""

    def __init__(self, sink: Sink, key: str, pieces: Iterable[Part]) -> None:
        self._sink = sink
        self._key = key
        self._pieces = iter(pieces)
        self._begin_next()

    def _begin_next(self) -> None:
        self._piece = next((piece for piece in self._pieces if piece.size), None)
        self._left = self._piece.size if self._piece else 0
        self._digest = new_md5()

    def write(self, chunk: bytes | memoryview) -> None:
        """Raise `IntegrityError` if a piece that ends with *chunk*, or in it, does not have its MD5."""
        rest = memoryview(chunk)
        while rest and self._piece:  # how many bytes come in all is known to who sends them
            part, rest = rest[: self._left], rest[self._left :]
            self._digest.update(part)
            self._left -= len(part)
            if not self._left:
                if self._piece.md5 not in ("", self._digest.hexdigest()):
                    raise damaged_segment_error(self._key)
                self._begin_next()
        self._sink.write(chunk)
