"""The body of an upload that goes on to the store as it comes: no copy of it lies on the disk."""

from __future__ import annotations

import io
from collections.abc import Callable

from pfstorage.backends.checksums import new_md5
from pfstorage.errors import MessageError, SlowRequestError, UnavailableError
from pfstorage.server.http1.body import CHUNK, Reader

WINDOW = 1024**2
"""Bytes of an upload that are kept in memory, to be sent again if the store fails."""


class UploadStream:
    """A `Source` of the *size* bytes of *body*, which goes back over the last `window` bytes of what has come.

    Before the last bytes leave, *check* gets the MD5 of all, if *hashes*, or else "": what it raises passes
    through, and the store, which lacks those bytes, keeps nothing. `read` raises `PfstorageError` alone.
    """

    window = WINDOW

    def __init__(self, body: Reader, size: int, check: Callable[[str], object], *, hashes: bool) -> None:
        self._body = body
        self._size = size
        self._check = check
        self._digest = new_md5() if hashes else None
        self._kept = bytearray()  # the last of what has come
        self._come = 0
        self._at = 0
        if not size:
            self._finish()

    def read(self, size: int = -1) -> bytes:
        if self._at == self._come and self._come < self._size:
            self._receive()
        begin = len(self._kept) - (self._come - self._at)
        end = len(self._kept) if size < 0 else begin + size
        data = bytes(memoryview(self._kept)[begin:end])
        self._at += len(data)
        return data

    def _receive(self) -> None:
        try:
            data = self._body.read(min(CHUNK, self._size - self._come))
        except TimeoutError as e:
            raise SlowRequestError("the request stopped arriving") from e
        except OSError as e:
            raise MessageError("the body broke off: the client went away") from e
        if self._digest:
            self._digest.update(data)
        if self._come + len(data) == self._size:
            self._finish()
        if len(self._kept) >= self.window + 4 * CHUNK:
            del self._kept[: -self.window]
        self._kept += data
        self._come += len(data)

    def _finish(self) -> None:
        self._check(self._digest.hexdigest() if self._digest else "")

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go back or forth to *offset*. Raise `UnavailableError` if its bytes are not kept: the client has them."""
        if whence != io.SEEK_SET or not self._come - len(self._kept) <= offset <= self._come:
            raise UnavailableError("the store failed in the middle of the upload: send it again")
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at
