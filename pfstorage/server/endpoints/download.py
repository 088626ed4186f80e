"""An object on its way to a client: the whole of it, a part, or word that the client's own is the same."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from types import MappingProxyType
from urllib.parse import quote

from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.capabilities import Part, SupportsMultipart
from pfstorage.backends.content_types import UNKNOWN
from pfstorage.backends.contract import ByteRange, Sink
from pfstorage.backends.errors import is_precondition_failed, is_range_error, object_changed_error
from pfstorage.backends.streams import PartVerifyingSink
from pfstorage.backends.times import parse_http_date
from pfstorage.errors import BusyError, IntegrityError, MessageError, NotFoundError, RejectedError
from pfstorage.server.exchange import Answer, Request, answer_of, names_etag
from pfstorage.server.http1.body import Outlet
from pfstorage.server.http1.head import KIND
from pfstorage.transfer import PacedSink
from pfstorage.transfer.replaced import download_current
from pfstorage.wire.reply import Reply

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_ETAG = re.compile(r'"([!-~]+)"')
# https://mimesniff.spec.whatwg.org/#javascript-mime-type; and with nosniff, a style sheet is of text/css alone
_RUN = re.compile(
    r"\s*(text/css|(text|application)/(x-)?(ecmascript|javascript[0-9.]*|jscript|livescript))\s*(;|$)", re.I
)
"""The types of what a browser would run for a page of this server, whose objects are not its own."""


def give_out(request: Request, key: str) -> Answer:
    """Return the answer to a GET or a HEAD of the object *key*. A GET asks the store once."""
    storage = request.handler.storage_for(request.context)
    answer = Answer()
    if request.method == "HEAD":
        info = storage.head(key)
        _describe(answer, key, info)
        answer.content, answer.length = _nothing, info.size
        return _unless_needless(request, key, info) or answer

    def write(out: Outlet) -> None:
        request.permit.begin_transfer()  # until the last byte has left
        sink = _ObjectSink(request, key, storage, answer, out)
        try:
            sink.fetch(_span_of(request))
        except _OtherwiseError as e:
            sink.say(e.answer)
        else:
            request.moved("files", sink.size)

    answer.content = write
    return answer


def _nothing(_: Outlet) -> None:
    """Write nothing: it is what a HEAD is answered."""


class _OtherwiseError(Exception):
    """Instead of the object, *answer* is what the client is to get."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class _PartlessError(Exception):
    """Nobody tells how large the object is, and so which part of it would come."""


class _ObjectSink:
    """A sink that writes an object to *out*, as *answer*, which it completes when it is told what comes."""

    def __init__(self, request: Request, key: str, storage: Storage, answer: Answer, out: Outlet) -> None:
        self._request = request
        self._key = key
        self._storage = storage
        self._answer = answer
        rate_limiter, cancellation = request.handler.rate_limiter(), request.context.cancellation
        pace = functools.partial(
            rate_limiter.take, cancellation=cancellation, is_abandoned=request.permit.is_gone
        )
        self._paced = PacedSink(out, pace)
        self._out = out
        self._sink: Sink = self._paced
        self._span: ByteRange | None = None
        self._headers = answer.headers
        self.size = 0

    def fetch(self, byte_range: ByteRange | None) -> None:
        """Have the object, or *byte_range* of it, written. Raise `_OtherwiseError`."""
        self._span = byte_range
        try:
            info = download_current(self._storage, self._key, None, self._get, self._out.take_back)
        except _PartlessError:
            return self.fetch(None)
        except RejectedError as e:
            if is_range_error(e):
                raise self._without_part() from e
            if not is_precondition_failed(e) or not self._out.take_back():
                raise
            raise _replaced(self._key) from e
        if info.size is None:
            text = f"{self._key!r}: the store tells neither a length nor an MD5, so nothing shows that all of it came"
            raise IntegrityError(text, key=self._key)
        return None

    def _get(self, _: ObjectInfo | None) -> ObjectInfo:
        """Have the bytes written, from the first one on."""
        self.size, self._sink = 0, self._paced
        try:
            return self._storage.get(self._key, self, self._span)
        except RejectedError as e:
            if not (is_precondition_failed(e) and self._span and self._span.etag and self._out.take_back()):
                raise
            self._span = None  # it is another than that of If-Range: all of it
            return self._get(None)

    def _without_part(self) -> _OtherwiseError:
        info = self._storage.head(self._key)
        answer = refused(416, f"{self._key!r} has no bytes in this range", _total_of(info))
        return _OtherwiseError(_unless_needless(self._request, self._key, info) or answer)

    def begin(self, info: ObjectInfo) -> None:
        """Tell what comes in the head of the answer. Raise `_OtherwiseError`, `_PartlessError` or `StorageError`."""
        if needless := _unless_needless(self._request, self._key, info):
            raise _OtherwiseError(needless)
        answer, byte_range = self._answer, self._span
        # it may have told of an object that was replaced
        answer.status, answer.headers = 200, dict(self._headers)
        if byte_range and info.size is None:
            raise _PartlessError
        _describe(answer, self._key, info)
        answer.length = info.size
        if byte_range and info.size is not None:
            start, size = byte_range.bounds(info.size)
            if size < info.size:
                answer.status, answer.length = 206, size
                answer.headers["Content-Range"] = f"bytes {start}-{start + size - 1}/{info.size}"
                return
        if pieces := self._pieces_of(info):
            self._sink = PartVerifyingSink(self._paced, self._key, pieces)

    def _pieces_of(self, info: ObjectInfo) -> Sequence[Part]:
        """Return of what the whole object is made, where the storage does not verify the whole by itself."""
        if not info.segments_etag:
            return [Part(0, info.size, info.md5)] if self._span and info.size else ()
        try:
            return self._storage.list_parts(info) if isinstance(self._storage, SupportsMultipart) else ()
        except NotFoundError as e:
            raise object_changed_error(self._key) from e

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._sink.write(data)

    def say(self, other: Answer) -> None:
        """Let the answer be *other*."""
        content = other.content if isinstance(other.content, bytes) else b""
        self._answer.status, self._answer.kind, self._answer.length = other.status, other.kind, len(content)
        self._answer.headers |= other.headers
        self._out.write(content)


def _replaced(key: str) -> BusyError:
    return BusyError(f"{key!r} was replaced at this moment: ask again", key=key)


def _describe(answer: Answer, key: str, info: ObjectInfo) -> None:
    """Have the head of *answer* tell of the object."""
    told = info.content_type
    # of a list of types, a browser takes the last one that it knows
    is_harmless = told and KIND.fullmatch(told) and not any(map(_RUN.match, told.split(",")))
    answer.kind = told if is_harmless else UNKNOWN
    answer.headers |= _headers_of(key, info)


def _etag_of(info: ObjectInfo) -> str:
    return info.segments_etag or info.etag


# in this order, and the times only where nothing more exact is given: RFC 9110, section 13.2.2


def _unless_needless(request: Request, key: str, info: ObjectInfo) -> Answer | None:
    """Return what is answered instead of the object by what the client says of it, None if it is to get it."""
    etag, moment = _etag_of(info), _moment_of(info)
    if refusal := _unmet(request, etag, moment):
        return refused(412, f"{key!r} is another object than {refusal} says")
    if _is_known(request, etag, moment):
        answer = Answer(304, length=0)
        _describe(answer, key, info)
        return answer
    return None


def _unmet(request: Request, etag: str, moment: datetime | None) -> str:
    """Return the name of the header which has the object of *etag* and *moment* refused, or ""."""
    if (given := request.headers.get("if-match")) is not None:
        return "" if names_etag(given, etag, is_strong=True) else "If-Match"
    until = _time_in(request, "if-unmodified-since")
    return "If-Unmodified-Since" if moment and until and moment > until else ""


def _is_known(request: Request, etag: str, moment: datetime | None) -> bool:
    """Tell whether the client has the object of *etag* and *moment*, by what it says."""
    if (given := request.headers.get("if-none-match")) is not None:
        return names_etag(given, etag)
    since = _time_in(request, "if-modified-since")
    return bool(moment and since and moment <= since)


def _time_in(request: Request, name: str) -> datetime | None:
    """Return the time in the header *name*; what is none counts as not given (RFC 9110, section 13.1.3)."""
    return parse_http_date(request.headers.get(name, ""))


def _moment_of(info: ObjectInfo) -> datetime | None:
    """Return when the object was stored, to the second, as HTTP tells it; not every store does."""
    if not info.last_modified:
        return None
    return datetime.fromisoformat(info.last_modified).replace(tzinfo=timezone.utc, microsecond=0)


def refused(status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
    """Return the answer of *status* to a request that can't be met."""
    answer = answer_of(Reply.from_error(MessageError(text)))
    answer.status, answer.headers = status, {**headers}
    return answer


def _total_of(info: ObjectInfo) -> dict[str, str]:
    return {} if info.size is None else {"Content-Range": f"bytes */{info.size}"}


def _headers_of(key: str, info: ObjectInfo) -> dict[str, str]:
    """Return what is told of the object; what the store does not tell is left out."""
    name = quote(key.rstrip("/").rpartition("/")[2], safe="")
    etag, moment = _etag_of(info), _moment_of(info)
    return {
        **({"ETag": f'"{etag}"'} if etag else {}),
        **(
            {"Content-Encoding": info.content_encoding}
            if KIND.fullmatch(info.content_encoding or "\0")
            else {}
        ),
        **({"Last-Modified": format_datetime(moment, usegmt=True)} if moment else {}),
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }


def _span_of(request: Request) -> ByteRange | None:
    """Return the part that is asked for. What is no range of bytes, or several, is all of them (RFC 9110, 14.2).

    So it is where If-Range does not name an object by its ETag: nothing else is sure to be the same.
    """
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if not found:
        return None
    named = _ETAG.fullmatch(request.headers.get("if-range", "").strip())
    if "if-range" in request.headers and not named:
        return None
    first, last = found.groups()
    etag = named[1] if named else ""
    if not first:
        return (ByteRange(-int(last), etag=etag) if int(last) else _NO_BYTES) if last else None
    if not last:
        return ByteRange(int(first), etag=etag)
    size = int(last) + 1 - int(first)
    return ByteRange(int(first), size, etag) if size > 0 else None


_NO_BYTES = ByteRange(10**18)
"""The last 0 bytes: they are as little to be had as what lies after the end."""
