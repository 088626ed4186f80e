"""Find the end of a request body in untrusted bytes, and read the message in it."""

from __future__ import annotations

import re
from typing import Protocol

from pfstorage.errors import MessageError, TooLargeError
from pfstorage.server.http1.head import TCHARS, HeadError, Headers, Stream, read_headers

# bytes of a JSON message, or of all fields of a form together, without the file
MAX_MESSAGE = 1024 * 1024

READ_SIZE = 64 * 1024
_MAX_LINE = 4096
_NO_TRAILERS = frozenset(("content-length", "host", "transfer-encoding"))  # RFC 9110, section 6.5.1

_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_EXTENSION = rf";[ \t]*{TCHARS}(?:[ \t]*=[ \t]*(?:{TCHARS}|{_QUOTED}))?"
# The grammar of RFC 9112, section 7.1, allows recipients to accept blanks between the size and ";", but no client may
# send them. h11 and Node refuse them, too.
_SIZE_LINE = re.compile(
    rf"([0-9A-Fa-f]{{1,15}})(?:{_EXTENSION}(?:[ \t]*{_EXTENSION})*)?\r\n".encode("latin-1")
)


class Reader(Protocol):
    """The bytes of one body. `read` returns b"" at the end, and raises `MessageError` if the body is cut short."""

    @property
    def is_at_end(self) -> bool: ...

    def read(self, size: int, /) -> bytes: ...


class SizedReader:
    """A reader of a body of *length* bytes from *stream*."""

    def __init__(self, stream: Stream, length: int) -> None:
        self._stream = stream
        self.left = length

    @property
    def is_at_end(self) -> bool:
        return self.left == 0

    def read(self, size: int) -> bytes:
        chunk = self._stream.read(min(size, self.left))
        if not chunk and self.left:
            raise MessageError(f"the body ended early, {self.left} bytes are missing: send the request again")
        self.left -= len(chunk)
        return chunk


class ChunkedReader:
    """A reader of a body in ``Transfer-Encoding: chunked`` from *stream* (RFC 9112, section 7.1).

    Any deviation from the grammar raises `MessageError`: a proxy may find another end of such a body, and take the
    rest for another request. Chunk extensions and trailers are ignored.
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
            raise MessageError("the chunked body has a chunk that is longer than its stated size")
        return data

    def _next_chunk(self) -> None:
        found = _SIZE_LINE.fullmatch(self._line())
        if not found:
            raise MessageError(
                "the chunked body has a chunk without a size: write a hexadecimal number and CR LF before each chunk"
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
            raise MessageError(
                f"the trailer of the chunked body has the header {min(misplaced).title()}: send it in the head"
            )

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise MessageError(
                f"the chunked body ended early, or has a line of more than {_MAX_LINE} bytes: send the request again"
            )
        return line


def request_body(stream: Stream, headers: Headers) -> Reader | None:
    """Return a reader of the body that *headers* announce on *stream*, or None if they announce no body.

    Raise `MessageError` if the end of the body is ambiguous, as with two different lengths: a proxy may use the other
    one (RFC 9112, section 6.3).
    """
    if "transfer-encoding" in headers:
        if "content-length" in headers or headers["transfer-encoding"].lower() != "chunked":
            raise MessageError("send either a Content-Length or 'Transfer-Encoding: chunked' with the body")
        return ChunkedReader(stream)
    if "content-length" not in headers:
        return None
    lengths = set(headers.get_all("content-length"))
    value = lengths.pop()
    if lengths or not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise MessageError("Content-Length must be one number of bytes")
    return SizedReader(stream, int(value))


def check_length(body: Reader, max_size: int) -> None:
    """Raise `TooLargeError` if the stated length of *body* is over *max_size* bytes."""
    if isinstance(body, SizedReader) and body.left > max_size:
        remedy = (
            "send a shorter message" if max_size == MAX_MESSAGE else "the server's --maxUpload limits uploads"
        )
        raise TooLargeError(f"the body has {body.left} bytes, and may have at most {max_size}: {remedy}")


def body_text(body: Reader) -> str:
    """Read a whole message as text. Raise `TooLargeError` if it has more than `MAX_MESSAGE` bytes.

    A byte order mark, which some editors write at the start of a file, is dropped.
    """
    content = bytearray()
    while chunk := body.read(READ_SIZE):
        content += chunk
        if len(content) > MAX_MESSAGE:
            raise TooLargeError(f"a message has at most {MAX_MESSAGE} bytes")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise MessageError(f"the message is not UTF-8: byte {e.start}") from None
