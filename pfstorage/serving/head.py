"""The head of a request, as untrusted bytes: its line and its headers (RFC 9112); and that of an answer.

`http.server` reads headers with the parser of the package ``email``, which takes four times as
long, and makes something of each line that is no header.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Iterator, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import overload

from pfstorage.serving.body import Stream

MAX_LINE = 64 * 1024
MAX_HEADERS = 100
MAX_HEAD = 128 * 1024
"""Bytes of all headers together."""

_LINE = re.compile(rb"([^\s\x00-\x1f\x7f]+) +([^\s\x00-\x1f\x7f]+) +HTTP/(\d)\.(\d)\s*")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\x00-\x08\x0a-\x1f\x7f]*)\r?\n")


class HeadError(Exception):
    """The head can't be read; *status* says in which way."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Headers:
    """The headers of a request. Their names know no case, and one may be there several times."""

    def __init__(self) -> None:
        self._values: dict[str, list[str]] = {}

    def add(self, name: str, value: str) -> None:
        self._values.setdefault(name.lower(), []).append(value)

    def put(self, name: str, value: str) -> None:
        """Have *value* instead of all that *name* has."""
        self._values[name.lower()] = [value]

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    @overload
    def get(self, name: str) -> str | None: ...

    @overload
    def get(self, name: str, default: str) -> str: ...

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of *name*."""
        values = self._values.get(name.lower())
        return values[0] if values else default

    def words(self, name: str) -> list[str]:
        """Return what the values of *name* list, between commas, in lower case."""
        return [word.strip(" \t").lower() for value in self.get_all(name) for word in value.split(",")]

    def get_all(self, name: str) -> list[str]:
        """Return the values of *name* in their order."""
        return self._values.get(name.lower(), [])


def read_line(line: bytes) -> tuple[str, str, str]:
    """Return the method, the target and the version that a request line tells. Raise `HeadError`.

    HTTP/0.9 is refused: its replies have no status.
    """
    if len(line) > MAX_LINE:
        raise HeadError(HTTPStatus.REQUEST_URI_TOO_LONG, "the request line is too long")
    found = _LINE.fullmatch(line)
    if not found:
        raise HeadError(HTTPStatus.BAD_REQUEST, "the request line is not METHOD TARGET HTTP/1.1")
    if found[3] != b"1":
        raise HeadError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "its version is neither 1.0 nor 1.1")
    method, target = found[1].decode("latin-1"), found[2].decode("latin-1")
    if target.startswith("//"):  # which, in a link, would be the name of a host
        target = "/" + target.lstrip("/")
    return method, target, "HTTP/1.0" if found[4] == b"0" else "HTTP/1.1"


def read_headers(stream: Stream) -> Headers:
    """Read the headers at the head of *stream*, to the empty line after them. Raise `HeadError`.

    A line that is no header is refused, and so is one that goes on with the line before (RFC 9112, 5.2):
    what lies between this server and its client may make something else of it.
    """
    headers, size = Headers(), 0
    for _ in range(MAX_HEADERS + 1):
        line = stream.readline(MAX_LINE + 1)
        if line in (b"\r\n", b"\n"):
            return headers
        size += len(line)
        if len(line) > MAX_LINE or size > MAX_HEAD:
            raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "a header line is too long")
        found = _HEADER.fullmatch(line)
        if not found:
            raise HeadError(HTTPStatus.BAD_REQUEST, "a line of its head is no header")
        headers.add(found[1].decode("ascii"), found[2].strip(b" \t").decode("latin-1"))
    raise HeadError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"it has more than {MAX_HEADERS} headers")


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
