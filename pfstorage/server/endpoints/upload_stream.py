"""Pass the body of an upload on to the store while it arrives, without a copy on the disk."""

from __future__ import annotations

import io
from collections.abc import Callable

from pfstorage.backends.checksums import new_md5
from pfstorage.errors import MessageError, SlowRequestError, UnavailableError
from pfstorage.server.http1.body import READ_SIZE, Reader

# the bytes that stay in memory, so that they can be sent again if the store fails
WINDOW = 1024**2


class UploadStream:
    """A `Source` of the *size* bytes of *body*. It can seek back over the last `window` bytes.

    Before it returns the last bytes, it calls *check* with the MD5 of all bytes if *hashes* is set, or with "". An
    error of *check* passes through, so that the store lacks these bytes and stores nothing. `read` raises only
    `PfstorageError`.
    """

    window = WINDOW

    def __init__(self, body: Reader, size: int, check: Callable[[str], object], *, hashes: bool) -> None:
        self._body = body
        self._size = size
        self._check = check
        self._digest = new_md5() if hashes else None
        self._kept = bytearray()  # the last received bytes
        self._received = 0
        self._position = 0
        if not size:
            self._finish()

    def read(self, size: int = -1) -> bytes:
        """Return up to *size* bytes, or all received bytes after the position. Wait for the client if there are none.

        Return b"" at the end of the body. Raise `SlowRequestError` if the client sends too slowly, `MessageError` if
        it disconnects, or the error of *check*.
        """
        if self._position == self._received and self._received < self._size:
            self._receive()
        begin = len(self._kept) - (self._received - self._position)
        end = len(self._kept) if size < 0 else begin + size
        data = bytes(memoryview(self._kept)[begin:end])
        self._position += len(data)
        return data

    def _receive(self) -> None:
        try:
            data = self._body.read(min(READ_SIZE, self._size - self._received))
        except TimeoutError as e:
            raise SlowRequestError("the request stopped arriving: send it again, and faster") from e
        except OSError as e:
            raise MessageError("the client closed the connection before it sent the whole body") from e
        if self._digest:
            self._digest.update(data)
        if self._received + len(data) == self._size:
            self._finish()
        if len(self._kept) >= self.window + 4 * READ_SIZE:
            del self._kept[: -self.window]
        self._kept += data
        self._received += len(data)

    def _finish(self) -> None:
        self._check(self._digest.hexdigest() if self._digest else "")

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to *offset*. Raise `UnavailableError` if its bytes are not in memory any more."""
        if whence != io.SEEK_SET or not self._received - len(self._kept) <= offset <= self._received:
            raise UnavailableError("the store failed in the middle of the upload: send it again")
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position
