"""The body of an HTTP request, as untrusted bytes: its length, and the parts of a form."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from typing import IO, Protocol

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pfstorage.errors import MessageError, NoLengthError, TooLargeError

MAX_MESSAGE = 1024 * 1024
"""Bytes of a JSON message, or of a field of a form that is no file."""

_CHUNK = 64 * 1024
_MAX_LINE = 4096
_MAX_PARTS = 100


class Stream(Protocol):
    """What a connection is read from."""

    def read(self, size: int, /) -> bytes: ...

    def readline(self, size: int, /) -> bytes: ...


class Reader(Protocol):
    """The bytes of one body. `read` returns b"" at its end, and raises `MessageError` if it breaks off."""

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
        digits = self._line().partition(b";")[0].strip()
        if not digits or len(digits) > 15 or not all(digit in b"0123456789abcdefABCDEF" for digit in digits):
            raise MessageError("the chunked body has a chunk without a length")
        self._chunk = SizedReader(self._stream, int(digits, 16))
        if self._chunk.is_at_end:
            while self._line():  # trailer fields mean nothing here
                continue
            self.is_at_end = True

    def _expect_line(self, expected: bytes) -> None:
        if self._line() != expected:
            raise MessageError("the chunked body has a chunk that is longer than it says")

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n"):
            raise MessageError("the chunked body broke off, or has an endless line")
        return line.rstrip(b"\r\n")


def open_body(stream: Stream, encoding: str | None, lengths: list[str]) -> Reader:
    """Return the body at the head of *stream*, by the headers Transfer-Encoding and Content-Length.

    *lengths* are all values of the latter.

    A request whose length is said twice is refused: what lies between this server
    and its client may believe the other (RFC 9112, section 6.3).
    """
    if encoding is not None:
        if lengths or encoding.strip().lower() != "chunked":
            raise MessageError("a body has either a Content-Length or 'Transfer-Encoding: chunked'")
        return ChunkedReader(stream)
    if not lengths:
        raise NoLengthError("the request needs a Content-Length")
    value = lengths[0].strip()
    if len(set(lengths)) > 1 or not (value.isascii() and value.isdigit()) or len(value) > 15:
        raise MessageError("Content-Length must be one number of bytes")
    return SizedReader(stream, int(value))


def read_text(body: Reader) -> str:
    """Read a whole message. Raise `TooLargeError` if it has more than `MAX_MESSAGE` bytes."""
    content = bytearray()
    while chunk := body.read(_CHUNK):
        content += chunk
        if len(content) > MAX_MESSAGE:
            raise TooLargeError(f"a message has at most {MAX_MESSAGE} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as e:
        raise MessageError(f"the message is not UTF-8: byte {e.start}") from None


@dataclass
class Form:
    """The fields of a multipart form by name, and the file *local*, which is on disk, if there is one."""

    fields: dict[str, str] = field(default_factory=dict)
    file: IO[bytes] | None = None
    size: int = 0

    def close(self) -> None:
        if self.file:
            self.file.close()


def boundary_of(content_type: str) -> str:
    """Return the boundary of a multipart form, "" if *content_type* is that of something else."""
    kind, options = parse_options_header(content_type)
    return str(options.get("boundary", "")) if kind == "multipart/form-data" else ""


def read_form(body: Reader, boundary: str) -> Form:
    """Read a multipart form. Its file goes to disk as it comes, and is never whole in memory.

    The caller closes the form. Raise `MessageError` or `TooLargeError`.
    """
    form = Form()
    try:
        with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
            part = _Part(form, "")
            while not parser.closed:
                for event in parser.parse(body.read(_CHUNK)):
                    if isinstance(event, MultipartSegment):
                        part = _Part(form, event.name)
                    elif event:
                        part.write(event)
                    else:
                        part.finish()
    except MultipartError as e:
        form.close()
        raise MessageError(f"the multipart form can't be read: {e}") from None
    except BaseException:
        form.close()
        raise
    return form


class _Part:
    """The part of a form that is being received."""

    def __init__(self, form: Form, name: str) -> None:
        self._form = form
        self._name = name
        self._text = bytearray()
        if name == "local":
            form.close()
            form.file, form.size = tempfile.TemporaryFile(prefix="pfstorage-"), 0  # noqa: SIM115 - closed with the form

    def write(self, data: bytes) -> None:
        if self._name == "local" and self._form.file:
            self._form.file.write(data)
            self._form.size += len(data)
            return
        self._text += data
        if len(self._text) > MAX_MESSAGE:
            raise TooLargeError(
                f"a field has at most {MAX_MESSAGE} bytes; a file goes into the field 'local'"
            )

    def finish(self) -> None:
        if self._name == "local" and self._form.file:
            self._form.file.seek(0)
        else:
            self._form.fields[self._name] = self._text.decode(errors="replace")
