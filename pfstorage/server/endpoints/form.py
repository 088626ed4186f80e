"""Read a multipart form (RFC 7578) from untrusted bytes: its fields, and a file."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pfstorage.errors import ForbiddenError, MessageError, TooLargeError
from pfstorage.server.http1.body import MAX_MESSAGE, READ_SIZE, Reader
from pfstorage.server.http1.head import CONTENT_TYPE
from pfstorage.server.options import MAX_UPLOAD
from pfstorage.server.spool import SpooledFile

NewFile = Callable[[int], SpooledFile]

# the field that holds the file
FILE_FIELD = "local"
_MAX_PARTS = 100
_INCOMPLETE = re.compile(rb"-{0,2}[ \t]*\r?")
_MAX_PADDING = 4096
_UNENCODED = frozenset(("7bit", "8bit", "binary", "identity"))
# Java's HTTP clients name these charsets for their fields. Any other charset is refused.
_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin-1", "latin1"), "latin-1"),
}


@dataclass
class Form:
    """The text fields of a multipart form by name, and its *file* on disk, or None."""

    fields: dict[str, str] = field(default_factory=dict)
    file: SpooledFile | None = None

    def close(self) -> None:
        """Delete the file."""
        if self.file:
            self.file.close()


def boundary_of(content_type: str) -> str | None:
    """Return the boundary in *content_type*, or None if the body is not a multipart form.

    Raise `MessageError` if there are two boundaries: a proxy that inspected the form may have used the other one.
    """
    if not content_type.lower().startswith("multipart/"):
        return None
    kind, options = parse_options_header(content_type.replace("\t", " "))
    if len(re.findall(r";\s*boundary\s*=", content_type, re.IGNORECASE)) > 1:
        raise MessageError("the Content-Type has two boundaries: send one")
    return str(options.get("boundary", "")) if kind == "multipart/form-data" else None


def read_form(
    body: Reader, boundary: str, max_file: int = MAX_UPLOAD, new_file: NewFile = SpooledFile
) -> Form:
    """Read a multipart form. Write its file of up to *max_file* bytes to the disk while it arrives.

    The caller closes the form. Raise `MessageError` or `TooLargeError`; `ForbiddenError` if *max_file* is 0 and the
    form has a file; `BusyError` or `LocalFileError` if the disk has no space for the file.
    """
    form = Form()
    try:
        _read_parts(_UnpaddedReader(body, boundary), boundary, form, max_file, new_file)
    except (MultipartError, UnicodeError) as e:
        form.close()
        raise MessageError(f"the multipart form can't be read: {e}") from None
    except BaseException:
        form.close()
        raise
    return form


class _UnpaddedReader:
    """A reader of a form without the blanks that may follow a boundary in its line (RFC 2046, section 5.1.1).

    Some gateways add these blanks, and the parser refuses them. A last boundary with more text in its line raises
    `MessageError`: the parser would take it for the end of the form, and cut off the file.
    """

    def __init__(self, body: Reader, boundary: str) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode()
        self._held = b"\r\n"  # the first boundary may begin the first line
        self._is_finished = False

    def read(self, size: int) -> bytes:
        while chunk := self._body.read(size):
            if data := self._complete(self._held + chunk):
                return data
        rest, self._held = self._held, b""
        return rest

    def _complete(self, data: bytes) -> bytes:
        """Return the complete part of *data*. Hold the rest, which may be the start of a boundary or of its line."""
        lines = []
        if self._delimiter in data:
            data, *lines = data.split(self._delimiter)
        self._held = b""
        if lines and _INCOMPLETE.fullmatch(lines[-1]):
            self._held = self._delimiter + lines.pop()
            if len(self._held) > len(self._delimiter) + _MAX_PADDING:
                raise MessageError(
                    f"the multipart form has a boundary with more than {_MAX_PADDING} blanks after it: remove them"
                )
        data = self._delimiter.join((data, *map(self._line, lines)))
        begun = data.rfind(b"\r", -len(self._delimiter))
        if not self._held and begun >= 0 and self._delimiter.startswith(data[begun:]):
            data, self._held = data[:begun], data[begun:]
        return data

    def _line(self, line: bytes) -> bytes:
        mark = line[:2] if line.startswith(b"--") else b""
        rest = line[len(mark) :].lstrip(b" \t")
        if self._is_finished or not rest.startswith(b"\r\n"):
            if mark and not self._is_finished:
                raise MessageError(
                    "the multipart form has text after its last boundary, in the same line: end the line with CR LF"
                )
            return line
        self._is_finished = bool(mark)
        return mark + rest


def _read_parts(body: _UnpaddedReader, boundary: str, form: Form, max_file: int, new_file: NewFile) -> None:
    texts: dict[str, bytearray] = {}
    charsets: dict[str, str] = {}
    name, left = "", MAX_MESSAGE
    with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
        while not parser.closed:
            for event in parser.parse(body.read(READ_SIZE)):
                if isinstance(event, MultipartSegment):
                    name = _name_of(event)
                    _begin_part(name, texts, form)
                    if name == FILE_FIELD:
                        form.file = _open_file(max_file, new_file)
                        form.file.content_type = _content_type_of(event)
                    charsets[name] = "" if name == FILE_FIELD else _charset_of(event)
                elif event and name == FILE_FIELD and form.file:
                    form.file.write(event)
                elif event:
                    texts[name] += event
                    left -= len(event)
                if left < 0:
                    raise TooLargeError(
                        f"the fields have more than {MAX_MESSAGE} bytes: send a file in the field 'local'"
                    )
    form.fields = {name: text.decode(charsets[name]) for name, text in texts.items()}
    if form.file:
        form.file.rewind()


def _name_of(part: MultipartSegment) -> str:
    """Return the name of *part*. Raise `MessageError` if the part is encoded or nested, or has a header twice."""
    name = str(part.name)
    headers = dict(part.headerlist)
    if len(headers) < len(part.headerlist):
        raise MessageError(f"the field {name[:80]!r} has a header twice: send each header once")
    for header in ("Content-Transfer-Encoding", "Content-Encoding"):
        encoding = headers.get(header, "binary").strip().lower()
        if encoding not in _UNENCODED:
            raise MessageError(
                f"the field {name[:80]!r} has the encoding {encoding[:80]!r}, which forms do not support any more:"
                " send its bytes without an encoding (RFC 7578, section 4.7)"
            )
    if part.content_type == "multipart/mixed":
        raise MessageError(
            f"the field {name[:80]!r} is a form itself: send each file with a message of its own"
        )
    return name


def _content_type_of(part: MultipartSegment) -> str:
    content_type = str(part.header("Content-Type", "")).strip()
    if not CONTENT_TYPE.fullmatch(content_type):
        raise MessageError(
            "the Content-Type of the field 'local' must be printable ASCII, of 255 characters at most"
        )
    return content_type


def _charset_of(part: MultipartSegment) -> str:
    charset = part.charset or "utf-8"
    if known := _CHARSETS.get(charset.lower()):
        return known
    raise MessageError(
        f"the field {str(part.name)[:80]!r} has the charset {charset[:80]!r}: send it in UTF-8"
    )


def _begin_part(name: str, texts: dict[str, bytearray], form: Form) -> None:
    if name in texts or (name == FILE_FIELD and form.file):
        raise MessageError(f"the multipart form has the field {name[:80]!r} twice: send it once")
    if name != FILE_FIELD:
        texts[name] = bytearray()


def _open_file(max_file: int, new_file: NewFile) -> SpooledFile:
    if not max_file:
        raise ForbiddenError("an upload needs a token with the permission to write")
    return new_file(max_file)
