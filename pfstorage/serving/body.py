"""The body of an HTTP request, as untrusted bytes: its length, and the parts of a form."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pfstorage.errors import ForbiddenError, MessageError, NoLengthError, TooLargeError
from pfstorage.serving.spool import Spool

MAX_MESSAGE = 1024 * 1024
"""Bytes of a JSON message, or of all fields of a form that are no file."""

MAX_UPLOAD = 16 * 1024**3
"""Bytes of a file that comes with a message, unless the server was told another bound."""

_CHUNK = 64 * 1024
_MAX_LINE = 4096
_MAX_PARTS = 100
_MAX_TRAILERS = 100


class Stream(Protocol):
    """What a connection is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """What a connection is written to."""

    def write(self, data: bytes | memoryview, /) -> int: ...

    def flush(self) -> object: ...


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
    """A body in ``Transfer-Encoding: chunked`` (RFC 9112, section 7.1) at the head of *stream*."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._chunk = SizedReader(stream, 0)
        self.is_at_end = False

    def read(self, size: int) -> bytes:
        if self._chunk.is_at_end and not self.is_at_end:
            self._next_chunk()
        data = self._chunk.read(size)
        if data and self._chunk.is_at_end:
            self._expect_line(b"")
        return data

    def _next_chunk(self) -> None:
        digits = self._line().partition(b";")[0].strip(b" \t")
        if not digits or len(digits) > 15 or not all(digit in b"0123456789abcdefABCDEF" for digit in digits):
            raise MessageError("the chunked body has a chunk without a length")
        self._chunk = SizedReader(self._stream, int(digits, 16))
        if self._chunk.is_at_end:
            self._skip_trailer()
            self.is_at_end = True

    def _skip_trailer(self) -> None:
        for _ in range(_MAX_TRAILERS):
            if not self._line():
                return
        raise MessageError("the chunked body has an endless trailer")

    def _expect_line(self, expected: bytes) -> None:
        if self._line() != expected:
            raise MessageError("the chunked body has a chunk that is longer than it says")

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise MessageError("the chunked body broke off, or has an endless line")
        return line.rstrip(b"\r\n")


def open_body(stream: Stream, encodings: list[str], lengths: list[str]) -> Reader:
    """Return the body at the head of *stream*, by the headers Transfer-Encoding and Content-Length.

    *encodings* and *lengths* are all values of the two. A request with two different
    lengths is refused: what lies between this server and its client may believe the
    other (RFC 9112, section 6.3).
    """
    if encodings:
        if lengths or [each.strip(" \t").lower() for each in encodings] != ["chunked"]:
            raise MessageError("a body has either a Content-Length or 'Transfer-Encoding: chunked'")
        return ChunkedReader(stream)
    if not lengths:
        raise NoLengthError("the request needs a Content-Length")
    value = lengths[0].strip(" \t")
    if len(set(lengths)) > 1 or not (value.isascii() and value.isdigit()) or len(value) > 15:
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
    while chunk := body.read(_CHUNK):
        content += chunk
        if len(content) > MAX_MESSAGE:
            raise TooLargeError(f"a message has at most {MAX_MESSAGE} bytes")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as e:
        raise MessageError(f"the message is not UTF-8: byte {e.start}") from None


@dataclass
class Form:
    """The fields of a multipart form by name, and the file *local*, which is on disk, if there is one."""

    fields: dict[str, str] = field(default_factory=dict)
    local: Spool | None = None

    def close(self) -> None:
        if self.local:
            self.local.close()


def boundary_of(content_type: str) -> str | None:
    """Return the boundary of a multipart form, None if *content_type* is that of something else."""
    if not content_type.lower().startswith("multipart/"):
        return None
    kind, options = parse_options_header(content_type)
    return str(options.get("boundary", "")) if kind == "multipart/form-data" else None


def read_form(body: Reader, boundary: str, most: int = MAX_UPLOAD) -> Form:
    """Read a multipart form with a file of *most* bytes. It goes to disk as it comes, and is never whole in memory.

    The caller closes the form. Raise `MessageError` or `TooLargeError`; `ForbiddenError` for a
    file where *most* is 0; or `LocalFileError`, if there is no room for the file.
    """
    form = Form()
    try:
        _read_parts(body, boundary, form, most)
    except (MultipartError, UnicodeError) as e:
        form.close()
        raise MessageError(f"the multipart form can't be read: {e}") from None
    except BaseException:
        form.close()
        raise
    return form


def _read_parts(body: Reader, boundary: str, form: Form, most: int) -> None:
    texts: dict[str, bytearray] = {}
    name, room = "", MAX_MESSAGE
    with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
        while not parser.closed:
            for event in parser.parse(body.read(_CHUNK)):
                if isinstance(event, MultipartSegment):
                    name = event.name
                    _begin_part(name, texts, form, most)
                elif event and name == "local" and form.local:
                    form.local.write(event)
                elif event:
                    texts[name] += event
                    room -= len(event)
                if room < 0:
                    raise TooLargeError(
                        f"the fields have at most {MAX_MESSAGE} bytes; a file goes into the field 'local'"
                    )
    form.fields = {name: text.decode() for name, text in texts.items()}
    if form.local:
        form.local.rewind()


def _begin_part(name: str, texts: dict[str, bytearray], form: Form, most: int) -> None:
    if name in texts or (name == "local" and form.local):
        raise MessageError(f"the multipart form has the field {name[:80]!r} twice")
    if name != "local":
        texts[name] = bytearray()
        return
    if not most:
        raise ForbiddenError("to upload a file takes a token with the right to write")
    form.local = Spool(most)


class ChunkedWriter:
    """Writes a body in ``Transfer-Encoding: chunked`` to *stream*, a chunk for each write; the end is the caller's."""

    def __init__(self, stream: Writer) -> None:
        self._stream = stream

    def write(self, data: bytes | memoryview) -> int:
        if data:
            self._stream.write(b"".join((b"%x\r\n" % len(data), data, b"\r\n")))  # in one packet
        return len(data)

    def flush(self) -> None:
        self._stream.flush()
