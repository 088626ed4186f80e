"""How an answer leaves: its head, then its content as it is, or in chunks."""

from __future__ import annotations

from http import HTTPStatus

from pfstorage._version import __version__
from pfstorage.errors import PfstorageError
from pfstorage.server.exchange import Answer
from pfstorage.server.http1.body import Writer
from pfstorage.server.http1.head import answer_head
from pfstorage.server.router import ALL

METHODS = ", ".join(ALL)
"""How messages may come: what a 405 tells of that knows nothing of its path."""

SMALL = 64 * 1024

_BARE = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
"""Statuses without content, and so without its length (RFC 9110, section 8.6)."""

_ALWAYS = {
    "Server": f"pfstorage/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # a page of another origin can show none of it, and so does not learn how large it is, or whether it is there
    "Cross-Origin-Resource-Policy": "same-origin",
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
    form = _Form(answer, version, ends)
    if isinstance(answer.content, bytes) or method == "HEAD":
        content = answer.content if isinstance(answer.content, bytes) and method != "HEAD" else b""
        if len(content) > SMALL:  # a slow reader is not to have it held twice
            out.write(form.head())
            out.write(content)
        else:
            out.write(form.head() + content)  # in one packet
        return form.ends
    whole = _Whole(out, form)
    try:
        answer.content(whole)
    except PfstorageError as e:
        if whole.has_begun:
            raise
        raise UnsentError(e) from e
    whole.end()
    return form.ends


class _Form:
    """In which form *answer* leaves. The head settles it: until then, what writes the content may still change it."""

    def __init__(self, answer: Answer, version: str, ends: bool) -> None:
        self._answer = answer
        self._version = version
        self.ends = ends
        self.length: int | None = None
        self.is_chunked = False

    def head(self) -> bytes:
        answer = self._answer
        self.length = len(answer.content) if isinstance(answer.content, bytes) else answer.length
        self.is_chunked = self.length is None and self._version == "HTTP/1.1"
        self.ends = self.ends or (self.length is None and not self.is_chunked)
        headers = {
            "Content-Type": answer.kind,
            **_ALWAYS,
            **_BY_STATUS.get(answer.status, {}),
            **answer.headers,
        }
        if self.length is not None and answer.status not in _BARE:
            headers["Content-Length"] = str(self.length)
        elif self.is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        if self.ends:
            headers["Connection"] = "close"
        return answer_head(answer.status, headers)


class _Whole:
    """Has the head leave with the first bytes of a content, and the last bytes when all of it is known to be right.

    The last are those that complete the length of the content; of one whose length nobody knows, it is the last chunk.
    """

    def __init__(self, out: Writer, form: _Form) -> None:
        self._out = out
        self._form = form
        self._waiting: bytes | None = None
        self._left = 0
        self.has_begun = False

    def write(self, data: bytes | memoryview) -> int:
        self._begin()
        if self._form.length is None:
            self._let_go(_chunk(data) if self._form.is_chunked and data else data)
            return len(data)
        self._left -= len(data)
        if self._left <= 0:
            self._waiting = (self._waiting or b"") + data
        else:
            self._let_go(data)
        return len(data)

    def flush(self) -> None:
        self._out.flush()

    def take_back(self) -> bool:
        """Forget what was written, if nothing of it has left; tell whether that is so."""
        if not self.has_begun:
            self._waiting = None
        return not self.has_begun

    def end(self) -> None:
        """Let go what waits, and what ends the content."""
        self._begin()
        self._let_go(b"0\r\n\r\n" if self._form.is_chunked else b"")
        self._out.flush()

    def _begin(self) -> None:
        if self._waiting is None:
            self._waiting = self._form.head()
            self._left = self._form.length or 0

    def _let_go(self, data: bytes | memoryview) -> None:
        self.has_begun = True
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        self._out.write(data)


def _chunk(data: bytes | memoryview) -> bytes:
    """Return *data* as a chunk of ``Transfer-Encoding: chunked`` (RFC 9112, section 7.1)."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n"))
