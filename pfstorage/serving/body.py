"""The body of an HTTP request, as untrusted bytes: its length, and the parts of a form."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pfstorage.errors import ForbiddenError, MessageError, TooLargeError
from pfstorage.serving.head import WORD, HeadError, Headers, read_headers
from pfstorage.serving.spool import Spool

MAX_MESSAGE = 1024 * 1024
"""Bytes of a JSON message, or of all fields of a form that are no file."""

MAX_UPLOAD = 16 * 1024**3
"""Bytes of a file that comes with a message, unless the server was told another bound."""

_CHUNK = 64 * 1024
_MAX_LINE = 4096
_MAX_PARTS = 100
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
