"""The body of an HTTP request, as untrusted bytes: where it ends, and the message in it."""

from __future__ import annotations

import re
from typing import Protocol

from pfstorage.errors import MessageError, TooLargeError
from pfstorage.server.http1.head import WORD, HeadError, Headers, read_headers

MAX_MESSAGE = 1024 * 1024
"""Bytes of a JSON message, or of all fields of a form that are no file."""

MAX_UPLOAD = 16 * 1024**3
"""Bytes of a file that comes with a message, unless the server was told another bound."""

CHUNK = 64 * 1024
_MAX_LINE = 4096
_NO_TRAILERS = frozenset(("content-length", "host", "transfer-encoding"))  # RFC 9110, 6.5.1

_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rf";[ \t]*{WORD}(?:[ \t]*=[ \t]*(?:{WORD}|{_QUOTED}))?"
# RFC 9112, 7.1. The grammar has blanks between the size and ";", which nobody may send: h11 and Node refuse them, too
_SIZE_LINE = re.compile(
    rf"([0-9A-Fa-f]{{1,15}})(?:{_EXTENSION}(?:[ \t]*{_EXTENSION})*)?\r\n".encode("latin-1")
)


class Stream(Protocol):
    """What a connection is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """What a connection is written to."""

    def write(self, data: bytes | memoryview, /) -> int: ...

    def flush(self) -> object: ...


class Outlet(Writer, Protocol):
    """What the content of an answer is written to."""

    def take_back(self) -> bool:
        """Forget what was written, if nothing of it has left; tell whether that is so."""
        ...


class Reader(Protocol):
    """The bytes of one body. `read` returns b"" at its end, and raises `MessageError` if it breaks off."""

    @property
    def is_at_end(self) -> bool: ...

    def read(self, size: int, /) -> bytes: ...


class SizedReader:
    """A body of *length* bytes at the head of *stream*."""

    def __init__(self, stream: Stream, length: int) -> None:
        self._stream = stream
        self.left = length

    @property
    def is_at_end(self) -> bool:
        return self.left == 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(min(size, self.left))
        if not chunk and self.left:
            raise MessageError(f"the body broke off: {self.left} bytes are missing")
        self.left -= len(chunk)
        return chunk


class ChunkedReader:
    """A body in ``Transfer-Encoding: chunked`` (RFC 9112, section 7.1) at the head of *stream*.

    What deviates from its grammar in a single byte is refused: whoever stands between this server and its client
    may believe that the body ends elsewhere, and what follows is another request then. Extensions and
    trailers mean nothing here.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._chunk = SizedReader(stream, 0)
        self.is_at_end = False

    def read(self, size: int) -> bytes:
        if self._chunk.is_at_end and not self.is_at_end:
            self._next_chunk()
        data = self._chunk.read(size)
        if data and self._chunk.is_at_end and self._line() != b"\r\n":
            raise MessageError("the chunked body has a chunk that is longer than it says")
        return data

    def _next_chunk(self) -> None:
        found = _SIZE_LINE.fullmatch(self._line())
        if not found:
            raise MessageError(
                "the chunked body has a chunk without a length: a hexadecimal number and CR LF"
            )
        self._chunk = SizedReader(self._stream, int(found[1], 16))
        if self._chunk.is_at_end:
            self._skip_trailer()
            self.is_at_end = True

    def _skip_trailer(self) -> None:
        try:
            fields = read_headers(self._stream)
        except HeadError as e:
            raise MessageError(f"the trailer of the chunked body can't be read: {e}") from None
        if misplaced := _NO_TRAILERS & fields.keys():
            raise MessageError(f"a trailer has no header {min(misplaced).title()}")

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise MessageError("the chunked body broke off, or has an endless line")
        return line


def body_of(stream: Stream, headers: Headers) -> Reader | None:
    """Return the body at the head of *stream* that *headers* tell of, None if they tell of none.

    Raise `MessageError` if they leave in doubt where it ends, as two different lengths do: what lies between
    this server and its client may believe the other (RFC 9112, section 6.3).
    """
    if "transfer-encoding" in headers:
        if "content-length" in headers or headers["transfer-encoding"].lower() != "chunked":
            raise MessageError("a body has either a Content-Length or 'Transfer-Encoding: chunked'")
        return ChunkedReader(stream)
    if "content-length" not in headers:
        return None
    lengths = set(headers.get_all("content-length"))
    value = lengths.pop()
    if lengths or not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise MessageError("Content-Length must be one number of bytes")
    return SizedReader(stream, int(value))


def require_length(body: Reader, most: int) -> None:
    """Raise `TooLargeError` if *body* says that it has over *most* bytes."""
    if isinstance(body, SizedReader) and body.left > most:
        raise TooLargeError(f"the body has {body.left} bytes, and {most} at most are taken here")


def read_text(body: Reader) -> str:
    """Read a whole message. Raise `TooLargeError` if it has more than `MAX_MESSAGE` bytes.

    A byte order mark, which some editors begin a file with, is no part of the message.
    """
    content = bytearray()
    while chunk := body.read(CHUNK):
        content += chunk
        if len(content) > MAX_MESSAGE:
            raise TooLargeError(f"a message has at most {MAX_MESSAGE} bytes")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise MessageError(f"the message is not UTF-8: byte {e.start}") from None
