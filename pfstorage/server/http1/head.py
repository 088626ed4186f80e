"""The head of a request, as untrusted bytes: its line and its headers (RFC 9112); and that of an answer.

`http.server` reads headers with the parser of the package ``email``, which takes four times as
long, and makes something of each line that is no header.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from pfstorage.errors import MessageError

if TYPE_CHECKING:
    from pfstorage.server.http1.body import Stream

MAX_LINE = 64 * 1024
MAX_HEADERS = 100
KIND = re.compile(r"[ -~]{0,255}")
"""What a Content-Type may be that stands in a head."""
MAX_HEAD = 128 * 1024
"""Bytes of all headers together."""

WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# the target may have bytes beyond ASCII: curl sends a name in UTF-8 as it was typed
_LINE = re.compile(rb"(%b) ([\x21-\x7e\x80-\xff]+) HTTP/(\d)\.(\d)\r\n" % WORD.encode())
_HEADER = re.compile(rf"^({WORD}):([^\x00-\x08\x0a-\x1f\x7f]*)\r\n", re.MULTILINE)


class HeadError(Exception):
    """The head can't be read; *status* says in which way."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Headers(dict[str, str]):
    """The headers of a request by their names in lower case.

    The value of one that is repeated is all of its values, between commas (RFC 9110, 5.3). `get_all` has
    them apart, for what takes one value and must not guess which.
    """

    def __init__(self) -> None:
        super().__init__()
        self._repeated: dict[str, list[str]] = {}

    def repeat(self, name: str, value: str) -> None:
        """Add one more *value* to those that *name* has."""
        self._repeated.setdefault(name, [self[name]]).append(value)
        self[name] += f", {value}"

    def put(self, name: str, value: str) -> None:
        """Have *value* instead of all that *name* has."""
        self[name] = value
        self._repeated.pop(name, None)

    def get_all(self, name: str) -> list[str]:
        """Return the values of *name* in their order."""
        if name in self._repeated:
            return self._repeated[name]
        return [self[name]] if name in self else []

    def only(self, name: str) -> str:
        """Return the value of *name*, "" if there is none. Raise `MessageError` if there are several."""
        if len(self.get_all(name)) > 1:
            raise MessageError(f"a request has one header {name.title()}")
        return self.get(name, "")

    def words(self, name: str) -> list[str]:
        """Return what the values of *name* list, between commas, in lower case."""
        if name not in self:
            return []
        return [word.strip(" \t").lower() for value in self.get_all(name) for word in value.split(",")]


def read_line(line: bytes) -> tuple[str, str, str]:
    """Return the method, the target and the version that a request line tells. Raise `HeadError`.

    One space divides them, and CR LF ends the line: nothing between this server and its client reads that in
    another way. HTTP/0.9 is refused: its replies have no status.
    """
    if len(line) > MAX_LINE:
        raise HeadError(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    found = _LINE.fullmatch(line)
    if not found:
        raise HeadError(HTTPStatus.BAD_REQUEST, "the request line is not METHOD TARGET HTTP/1.1 and CR LF")
    if found[3] != b"1":
        raise HeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "its version is neither 1.0 nor 1.1")
    method, target = found[1].decode("latin-1"), found[2].decode("latin-1")
    if target.startswith("//"):  # which, in a link, would be the name of a host
        target = "/" + target.lstrip("/")
    return method, target, "HTTP/1.0" if found[4] == b"0" else "HTTP/1.1"


def read_headers(stream: Stream) -> Headers:
    """Read the headers at the head of *stream*, to the empty line after them. Raise `HeadError`.

    A line that is no header is refused, and so is one that goes on with the line before (RFC 9112, 5.2),
    or that LF ends without CR: what lies between this server and its client may make something else of it.
    """
    lines: list[bytes] = []
    size = 0
    while (line := stream.readline(MAX_LINE + 1)) != b"\r\n":
        lines.append(line)
        size += len(line)
        if not line.endswith(b"\r\n") and len(line) <= MAX_LINE:  # at once: no further line may come
            text = "a line of its head breaks off, or does not end with CR LF"
            raise HeadError(HTTPStatus.BAD_REQUEST, text)
        if len(line) > MAX_LINE or size > MAX_HEAD:
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header line is too long")
        if len(lines) > MAX_HEADERS:
            text = f"it has more than {MAX_HEADERS} headers"
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, text)
    found = _HEADER.findall(b"".join(lines).decode("latin-1"))
    if len(found) != len(lines):
        raise HeadError(HTTPStatus.BAD_REQUEST, "a line of its head is no header")
    headers = Headers()
    for name, value in found:
        lower = name.lower()
        if lower in headers:
            headers.repeat(lower, value.strip(" \t"))
        else:
            headers[lower] = value.strip(" \t")
    return headers


def answer_head(status: int, headers: Mapping[str, str]) -> bytes:
    """Return the head of an answer, with its date, to the empty line after it."""
    lines = [_status_line(status), f"Date: {_date(int(time.time()))}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "strict")


@functools.cache
def _status_line(status: int) -> str:
    return f"HTTP/1.1 {int(status)} {HTTPStatus(status).phrase}"


@functools.lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
