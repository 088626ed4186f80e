"""How an answer leaves: its head, then its content as it is, or in chunks."""

from __future__ import annotations

from http import HTTPStatus

from pfstorage._version import __version__
from pfstorage.errors import PfstorageError
from pfstorage.serving.body import ChunkedWriter, Writer
from pfstorage.serving.exchange import Answer
from pfstorage.serving.head import answer_head
from pfstorage.serving.site import ALL

METHODS = ", ".join(ALL)
"""How messages may come: what a 405 tells of that knows nothing of its path."""

_BARE = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Statuses without content, and so without its length (RFC 9110, section 8.6)."""

_ALWAYS = {
    "Server": f"pfstorage/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_BY_STATUS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.METHOD_NOT_ALLOWED: {"Allow": METHODS},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}


class UnsentError(Exception):
    """The content of an answer failed with *error* before anything of it had left: something else may be answered."""

    def __init__(self, error: PfstorageError) -> None:
        super().__init__(str(error))
        self.error = error


def send(answer: Answer, out: Writer, method: str, version: str, *, ends: bool) -> bool:
    """Send *answer* to a request by *method* in the *version* of HTTP, and return whether the connection ends with it.

    It does if *ends*, or if only the end tells how long the content is. Raise `UnsentError` if content that is
    written fails before anything has left; after that, whatever is raised while it is written or sent: what has
    left by then is not whole, and the connection must end.
    """
    length = len(answer.content) if isinstance(answer.content, bytes) else answer.length
    is_chunked = length is None and version == "HTTP/1.1"
    ends = ends or (length is None and not is_chunked)
    headers = {"Content-Type": answer.kind, **_ALWAYS, **_BY_STATUS.get(answer.status, {}), **answer.headers}
    if length is not None and answer.status not in _BARE:
        headers["Content-Length"] = str(length)
    elif is_chunked:
        headers["Transfer-Encoding"] = "chunked"
    if ends:
        headers["Connection"] = "close"
    head = answer_head(answer.status, headers)
    content = b"" if method == "HEAD" else answer.content
    if isinstance(content, bytes):
        out.write(head + content)  # in one packet
        return ends
    whole = _Whole(out, head, length)
    try:
        content(ChunkedWriter(whole) if is_chunked else whole)
    except PfstorageError as e:
        if whole.has_begun:
            raise
        raise UnsentError(e) from e
    whole.end(b"0\r\n\r\n" if is_chunked else b"")
    return ends


class _Whole:
    """Has *head* leave with the first bytes of a content, and the last bytes when all of it is known to be right.

    The last are those that make it *length* bytes long; None is a length that nobody knows.
    """

    def __init__(self, out: Writer, head: bytes, length: int | None) -> None:
        self._out = out
        self._waiting = head
        self._left = length
        self.has_begun = False

    def write(self, data: bytes | memoryview) -> int:
        if self._left is not None:
            self._left -= len(data)
            if self._left <= 0:
                self._waiting += data
                return len(data)
        self._let_go(data)
        return len(data)

    def flush(self) -> None:
        self._out.flush()

    def end(self, last: bytes) -> None:
        """Let go what waits, and *last* after it."""
        self._let_go(last)
        self._out.flush()

    def _let_go(self, data: bytes | memoryview) -> None:
        self.has_begun = True
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        self._out.write(data)
