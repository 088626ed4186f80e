"""A multipart form (RFC 7578), as untrusted bytes: its fields, and the file that comes with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from pfstorage.errors import ForbiddenError, MessageError, TooLargeError
from pfstorage.server.http1.body import CHUNK, MAX_MESSAGE, MAX_UPLOAD, Reader
from pfstorage.server.http1.head import KIND
from pfstorage.server.spool import Spool

_MAX_PARTS = 100
_INCOMPLETE = re.compile(rb"-{0,2}[ \t]*\r?")
_MOST_BLANKS = 4096
_AS_IT_IS = frozenset(("7bit", "8bit", "binary", "identity"))
_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii", "ascii"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin-1", "latin1"), "latin-1"),
}
"""What Java's HTTP clients say of their fields, beside what all say. Other texts are refused, and not guessed."""


@dataclass
class Form:
    """The fields of a multipart form by name, and the file *local*, which is on disk, if there is one."""

    fields: dict[str, str] = field(default_factory=dict)
    local: Spool | None = None

    def close(self) -> None:
        if self.local:
            self.local.close()


def boundary_of(content_type: str) -> str | None:
    """Return the boundary of a multipart form, None if *content_type* is that of something else.

    Raise `MessageError` if it names two boundaries: who looked at the form on its way may have taken the other one.
    """
    if not content_type.lower().startswith("multipart/"):
        return None
    kind, options = parse_options_header(content_type.replace("\t", " "))
    if len(re.findall(r";\s*boundary\s*=", content_type, re.IGNORECASE)) > 1:
        raise MessageError("the Content-Type has two boundaries")
    return str(options.get("boundary", "")) if kind == "multipart/form-data" else None


def read_form(
    body: Reader, boundary: str, most: int = MAX_UPLOAD, new_spool: Callable[[int], Spool] = Spool
) -> Form:
    """Read a multipart form with a file of *most* bytes. It goes to disk as it comes, and is never whole in memory.

    The caller closes the form. Raise `MessageError` or `TooLargeError`; `ForbiddenError` for a
    file where *most* is 0; `BusyError` or `LocalFileError`, if there is no room for the file.
    """
    form = Form()
    try:
        _read_parts(_Unpadded(body, boundary), boundary, form, most, new_spool)
    except (MultipartError, UnicodeError) as e:
        form.close()
        raise MessageError(f"the multipart form can't be read: {e}") from None
    except BaseException:
        form.close()
        raise
    return form


class _Unpadded:
    """The bytes of a form without the blanks that may stand after a boundary, in the same line (RFC 2046, 5.1.1).

    Some gateways pad it, and the parser takes none. What looks like the last boundary and goes on is refused, which
    the parser takes for the end: it would cut off a file.
    """

    def __init__(self, body: Reader, boundary: str) -> None:
        self._body = body
        self._delimiter = b"\r\n--" + boundary.encode()
        self._held = b"\r\n"  # the first boundary may be in the first line
        self._is_over = False

    def read(self, size: int) -> bytes:
        while chunk := self._body.read(size):
            if data := self._complete(self._held + chunk):
                return data
        rest, self._held = self._held, b""
        return rest

    def _complete(self, data: bytes) -> bytes:
        """Return what of *data* is complete, and hold the rest: the beginning of a boundary, or of its line."""
        lines = []
        if self._delimiter in data:
            data, *lines = data.split(self._delimiter)
        self._held = b""
        if lines and _INCOMPLETE.fullmatch(lines[-1]):
            self._held = self._delimiter + lines.pop()
            if len(self._held) > len(self._delimiter) + _MOST_BLANKS:
                raise MessageError("the multipart form has a boundary with endless blanks after it")
        data = self._delimiter.join((data, *map(self._line, lines)))
        begun = data.rfind(b"\r", -len(self._delimiter))
        if not self._held and begun >= 0 and self._delimiter.startswith(data[begun:]):
            data, self._held = data[:begun], data[begun:]
        return data

    def _line(self, line: bytes) -> bytes:
        mark = line[:2] if line.startswith(b"--") else b""
        rest = line[len(mark) :].lstrip(b" \t")
        if self._is_over or not rest.startswith(b"\r\n"):
            if mark and not self._is_over:
                raise MessageError("the multipart form goes on in the line of its last boundary")
            return line
        self._is_over = bool(mark)
        return mark + rest


def _read_parts(
    body: _Unpadded, boundary: str, form: Form, most: int, new_spool: Callable[[int], Spool]
) -> None:
    texts: dict[str, bytearray] = {}
    charsets: dict[str, str] = {}
    name, room = "", MAX_MESSAGE
    with PushMultipartParser(boundary, max_segment_count=_MAX_PARTS) as parser:
        while not parser.closed:
            for event in parser.parse(body.read(CHUNK)):
                if isinstance(event, MultipartSegment):
                    name = _name_of(event)
                    _begin_part(name, texts, form)
                    if name == "local":
                        form.local = _new_file(most, new_spool)
                        form.local.content_type = _content_type_of(event)
                    charsets[name] = "" if name == "local" else _charset_of(event)
                elif event and name == "local" and form.local:
                    form.local.write(event)
                elif event:
                    texts[name] += event
                    room -= len(event)
                if room < 0:
                    raise TooLargeError(
                        f"the fields have at most {MAX_MESSAGE} bytes; a file goes into the field 'local'"
                    )
    form.fields = {name: text.decode(charsets[name]) for name, text in texts.items()}
    if form.local:
        form.local.rewind()


def _name_of(part: MultipartSegment) -> str:
    """Return the name of *part*. Raise `MessageError` if its bytes are not what they stand for, or that is in doubt."""
    name = str(part.name)
    headers = dict(part.headerlist)
    if len(headers) < len(part.headerlist):
        raise MessageError(f"the field {name[:80]!r} has a header twice, which may say two things")
    for header in ("Content-Transfer-Encoding", "Content-Encoding"):
        encoding = headers.get(header, "binary").strip().lower()
        if encoding not in _AS_IT_IS:
            raise MessageError(
                f"the field {name[:80]!r} comes in the encoding {encoding[:80]!r}, which forms have no more:"
                " send its bytes as they are (RFC 7578, 4.7)"
            )
    if part.content_type == "multipart/mixed":
        raise MessageError(
            f"the field {name[:80]!r} is a form of its own: send each file by a message of its own"
        )
    return name


def _content_type_of(part: MultipartSegment) -> str:
    kind = str(part.header("Content-Type", "")).strip()
    if not KIND.fullmatch(kind):
        raise MessageError(
            "the Content-Type of the field 'local' is printable ASCII, of 255 characters at most"
        )
    return kind


def _charset_of(part: MultipartSegment) -> str:
    charset = part.charset or "utf-8"
    if known := _CHARSETS.get(charset.lower()):
        return known
    raise MessageError(
        f"the field {str(part.name)[:80]!r} is in the charset {charset[:80]!r}: send it in UTF-8"
    )


def _begin_part(name: str, texts: dict[str, bytearray], form: Form) -> None:
    if name in texts or (name == "local" and form.local):
        raise MessageError(f"the multipart form has the field {name[:80]!r} twice")
    if name != "local":
        texts[name] = bytearray()


def _new_file(most: int, new_spool: Callable[[int], Spool]) -> Spool:
    if not most:
        raise ForbiddenError("to upload a file takes a token with the right to write")
    return new_spool(most)
