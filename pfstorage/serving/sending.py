"""How an answer leaves: its head, then its content as it is, or in chunks."""

from __future__ import annotations

from http import HTTPStatus

from pfstorage._version import __version__
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


def send(answer: Answer, out: Writer, method: str, version: str, *, ends: bool) -> bool:
    """Send *answer* to a request by *method* in the *version* of HTTP, and return whether the connection ends with it.

    It does if *ends*, or if only the end tells how long the content is. Raise whatever is raised while
    the content is made or sent: what has left by then is not whole, and the connection must end.
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
    out.write(head)
    content(ChunkedWriter(out) if is_chunked else out)
    if is_chunked:
        out.write(b"0\r\n\r\n")
    return ends
