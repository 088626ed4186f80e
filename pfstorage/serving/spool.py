"""The temporary copy of an upload."""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import IO

from pfstorage.errors import TooLargeError
from pfstorage.files import Body, local_errors

_NAME = "the temporary copy of the upload"


class Spool:
    """A file on disk that has no name, for up to *most* bytes that come from a client, so that they can be sent again.

    Methods raise `LocalFileError` where the disk does not take them.
    """

    def __init__(self, most: int) -> None:
        with local_errors(_NAME):
            self.file: IO[bytes] = tempfile.TemporaryFile(prefix="pfstorage-")  # noqa: SIM115 - closed by `close`
        self.size = 0
        self.content_type = ""
        self._most = most

    def write(self, data: bytes) -> None:
        """Add *data*. Raise `TooLargeError` if that is more than there may be."""
        self.size += len(data)
        if self.size > self._most:
            raise TooLargeError(f"the upload has more than {self._most} bytes: see --maxUpload")
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
