"""Parse the head of a request from untrusted bytes, and write the head of a response (RFC 9112).

`http.server` parses headers with the package ``email``. That takes four times as long, and accepts lines that
are not headers.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Protocol

from pfstorage.errors import MessageError

MAX_LINE = 64 * 1024
MAX_HEADERS = 100
# the values of Content-Type that the server stores and sends
CONTENT_TYPE = re.compile(r"[ -~]{0,255}")
# bytes of all headers together
MAX_HEAD = 128 * 1024

# a "token" of the grammar, such as a method or the name of a header (RFC 9110, section 5.6.2)
TCHARS = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# the target may contain bytes beyond ASCII: curl sends a name in UTF-8 as the user typed it
_LINE = re.compile(rb"(%b) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)\r\n" % TCHARS.encode())
_HEADER = re.compile(rf"^({TCHARS}):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE)


class Stream(Protocol):
    """The receiving side of a connection."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class HeadError(Exception):
    """The head of a request is not valid. Reply with *status*."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Headers(dict[str, str]):
    """The headers of a request by their names in lower case.

    The values of a repeated header are joined with commas (RFC 9110, section 5.3). `get_all` returns them separately,
    for headers that must have one value.
    """

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] = {}

    def repeat(self, name: str, value: str) -> None:
        """Add *value* to the values of *name*, which has one already."""
        self._repeated.setdefault(name, [self[name]]).append(value)
        self[name] += f", {value}"

    def replace(self, name: str, value: str) -> None:
        """Replace all values of *name* by *value*."""
        self[name] = value
        self._repeated.pop(name, None)

    def get_all(self, name: str) -> list[str]:
        """Return the values of *name* in the order of the request."""
        if name in self._repeated:
            return self._repeated[name]
        return [self[name]] if name in self else []

    def only(self, name: str) -> str:
        """Return the value of *name*, "" if it is missing. Raise `MessageError` if the header is repeated."""
        if name in self._repeated:
            raise MessageError(f"the request has the header {name.title()} more than once: send it once")
        return self.get(name, "")

    def items_of(self, name: str) -> list[str]:
        """Return the comma-separated items of the header *name* in lower case."""
        if name not in self:
            return []
        return [item.strip(" \t").lower() for value in self.get_all(name) for item in value.split(",")]


@dataclass
class RequestHead:
    """The head of a request. *path* keeps its percent-escapes. *query* is the part after the question mark."""

    method: str
    path: str
    query: str
    headers: Headers


def read_line(line: bytes) -> tuple[str, str, str]:
    """Return the method, the target and the version of a request line. Raise `HeadError`.

    Single spaces must separate them, and CR LF must end the line, so that a proxy can't read the line differently.
    HTTP/0.9 is refused, because its responses have no status.
    """
    if len(line) > MAX_LINE:
        raise HeadError(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    found = _LINE.fullmatch(line)
    if not found:
        raise HeadError(HTTPStatus.BAD_REQUEST, "the request line is not METHOD TARGET HTTP/1.1 and CR LF")
    if found[3] != b"1":
        raise HeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "its version is neither 1.0 nor 1.1")
    method, target = found[1].decode("latin-1"), found[2].decode("latin-1")
    if target.startswith("//"):  # in a link, a host name would follow
        target = "/" + target.lstrip("/")
    return method, target, "HTTP/1.0" if found[4] == b"0" else "HTTP/1.1"


def read_headers(stream: Stream) -> Headers:
    """Read headers from *stream* up to and including the empty line. Raise `HeadError`.

    A line that is not a header is refused. So are a line that continues the previous one (RFC 9112, section 5.2) and a
    line that ends with LF alone, because a proxy may read them differently.
    """
    lines: list[bytes] = []
    size = 0
    while (line := stream.readline(MAX_LINE + 1)) != b"\r\n":
        lines.append(line)
        size += len(line)
        if not line.endswith(b"\r\n") and len(line) <= MAX_LINE:  # do not wait: the client may send no more
            text = "a line of its head breaks off, or does not end with CR LF"
            raise HeadError(HTTPStatus.BAD_REQUEST, text)
        if len(line) > MAX_LINE or size > MAX_HEAD:
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header line is too long")
        if len(lines) > MAX_HEADERS:
            text = f"it has more than {MAX_HEADERS} headers"
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
    found = _HEADER.findall(b"".join(lines).decode("latin-1"))
    if len(found) != len(lines):
        raise HeadError(HTTPStatus.BAD_REQUEST, "a line of its head is not a header")
    headers = Headers()
    for name, value in found:
        lower = name.lower()
        if lower in headers:
            headers.repeat(lower, value.strip(" \t"))
        else:
            headers[lower] = value.strip(" \t")
    return headers


def response_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of a response with a Date header, including the empty line at its end."""
    lines = [_status_line(status), f"Date: {_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "strict")


@functools.cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"


@functools.lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
