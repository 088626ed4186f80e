"""Download an object: the whole, a range, or 304 if the client has the same object already."""

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
from pfstorage.backends.errors import PreconditionFailedError, RangeNotSatisfiableError, object_changed_error
from pfstorage.backends.streams import PartVerifyingSink
from pfstorage.backends.times import parse_http_date
from pfstorage.errors import BusyError, IntegrityError, MessageError, NotFoundError, RejectedError
from pfstorage.server.exchange import Request, matches_etag, to_response
from pfstorage.server.http1.head import CONTENT_TYPE, Headers
from pfstorage.server.http1.sending import ContentWriter, Response
from pfstorage.transfer import PacedSink
from pfstorage.transfer.replaced import download_current
from pfstorage.wire.reply import Reply

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
_ETAG = re.compile(r'"([!-~]+)"')
# The types of content that a browser would run as part of a page of this server
# (https://mimesniff.spec.whatwg.org/#javascript-mime-type; with nosniff, a style sheet must be text/css).
_EXECUTABLE = re.compile(
    r"\s*(text/css|(text|application)/(x-)?(ecmascript|javascript[0-9.]*|jscript|livescript))\s*(;|$)", re.I
)
# the range of the last 0 bytes: like a range after the end of the object, it can't be satisfied
_NO_BYTES = ByteRange(10**18)


def download(request: Request, key: str) -> Response:
    """Return the response to a GET or a HEAD of the object *key*. A GET asks the store once."""
    storage = request.services.handler.storage_for(request.context)
    response = Response()
    if request.head.method == "HEAD":
        info = storage.head(key)
        _describe(response, key, info)
        response.content, response.length = _write_nothing, info.size
        return _conditional_response(request.head.headers, key, info) or response

    def write(out: ContentWriter) -> None:
        request.client.permit.begin_transfer()  # until the last byte was sent
        sink = _ObjectSink(request, key, storage, response, out)
        try:
            sink.fetch(_requested_range(request.head.headers))
        except _OtherResponseError as e:
            sink.replace_response(e.response)
        else:
            request.services.count_transfer("files", sink.size)

    response.content = write
    return response


def _write_nothing(_: ContentWriter) -> None:
    """Write no content: a HEAD has none."""


class _OtherResponseError(Exception):
    """The client gets *response* instead of the object."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class _UnknownSizeError(Exception):
    """The store does not report the size of the object, so the position of a range is unknown."""


class _ObjectSink:
    """A sink that writes an object to *out*, and completes *response* when the store reports the object."""

    def __init__(
        self, request: Request, key: str, storage: Storage, response: Response, out: ContentWriter
    ) -> None:
        self._request_headers = request.head.headers
        self._key = key
        self._storage = storage
        self._response = response
        rate_limiter, cancellation = request.services.handler.rate_limiter(), request.context.cancellation
        is_gone = request.client.permit.is_gone
        pace = functools.partial(rate_limiter.take, cancellation=cancellation, is_abandoned=is_gone)
        self._paced = PacedSink(out, pace)
        self._out = out
        self._sink: Sink = self._paced
        self._range: ByteRange | None = None
        self._headers = response.headers
        self.size = 0

    def fetch(self, byte_range: ByteRange | None) -> None:
        """Write the object, or *byte_range* of it. Raise `_OtherResponseError`."""
        self._range = byte_range
        try:
            info = download_current(self._storage, self._key, None, self._get, self._out.discard)
        except _UnknownSizeError:
            return self.fetch(None)
        except RejectedError as e:
            if isinstance(e, RangeNotSatisfiableError):
                raise self._range_error() from e
            if not isinstance(e, PreconditionFailedError) or not self._out.discard():
                raise
            raise _replaced_error(self._key) from e
        if info.size is None:
            text = (
                f"the download of {self._key!r} can't be verified: the store reported neither its length nor its"
                " MD5; download it again"
            )
            raise IntegrityError(text, key=self._key)
        return None

    def _get(self, _: ObjectInfo | None) -> ObjectInfo:
        """Write the bytes from the first one on."""
        self.size, self._sink = 0, self._paced
        try:
            return self._storage.get(self._key, self, self._range)
        except RejectedError as e:
            if not (
                isinstance(e, PreconditionFailedError)
                and self._range
                and self._range.etag
                and self._out.discard()
            ):
                raise
            self._range = None  # the object does not match If-Range, so the whole is sent
            return self._get(None)

    def _range_error(self) -> _OtherResponseError:
        info = self._storage.head(self._key)
        size = {} if info.size is None else {"Content-Range": f"bytes */{info.size}"}
        response = error_response(416, f"{self._key!r} has no bytes in this range", size)
        conditional = _conditional_response(self._request_headers, self._key, info)
        return _OtherResponseError(conditional or response)

    def begin(self, info: ObjectInfo) -> None:
        """Complete the head of the response. Raise `_OtherResponseError`, `_UnknownSizeError` or `StorageError`."""
        if conditional := _conditional_response(self._request_headers, self._key, info):
            raise _OtherResponseError(conditional)
        response, byte_range = self._response, self._range
        # a former call may have described an object that was replaced since
        response.status, response.headers = 200, dict(self._headers)
        if byte_range and info.size is None:
            raise _UnknownSizeError
        _describe(response, self._key, info)
        response.length = info.size
        if byte_range and info.size is not None:
            start, size = byte_range.bounds(info.size)
            if size < info.size:
                response.status, response.length = 206, size
                response.headers["Content-Range"] = f"bytes {start}-{start + size - 1}/{info.size}"
                return
        if parts := self._parts_of(info):
            self._sink = PartVerifyingSink(self._paced, self._key, parts)

    def _parts_of(self, info: ObjectInfo) -> Sequence[Part]:
        """Return the parts to verify one by one, if the storage does not verify the whole object itself."""
        if not info.segments_etag:
            return [Part(0, info.size, info.md5)] if self._range and info.size else ()
        try:
            return self._storage.list_parts(info) if isinstance(self._storage, SupportsMultipart) else ()
        except NotFoundError as e:
            raise object_changed_error(self._key) from e

    def write(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        self._sink.write(data)

    def replace_response(self, other: Response) -> None:
        """Send *other* instead of the object."""
        content = other.content if isinstance(other.content, bytes) else b""
        response = self._response
        response.status, response.content_type, response.length = (
            other.status,
            other.content_type,
            len(content),
        )
        response.headers |= other.headers
        self._out.write(content)


def _replaced_error(key: str) -> BusyError:
    return BusyError(f"{key!r} was replaced during the download: download it again", key=key)


def _describe(response: Response, key: str, info: ObjectInfo) -> None:
    """Set the content type and the headers of the object."""
    content_type = info.content_type
    # if a header lists several types, browsers use the last one that they know
    is_harmless = (
        content_type
        and CONTENT_TYPE.fullmatch(content_type)
        and not any(map(_EXECUTABLE.match, content_type.split(",")))
    )
    response.content_type = content_type if is_harmless else UNKNOWN
    response.headers |= _object_headers(key, info)


def _object_headers(key: str, info: ObjectInfo) -> dict[str, str]:
    """Return the headers that describe the object. Leave out those that the store does not report."""
    headers = {}
    etag, modified = _object_etag(info), _modified(info)
    if etag:
        headers["ETag"] = f'"{etag}"'
    if CONTENT_TYPE.fullmatch(info.content_encoding or "\0"):
        headers["Content-Encoding"] = info.content_encoding
    if modified:
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    headers["Accept-Ranges"] = "bytes"
    name = quote(key.rstrip("/").rpartition("/")[2], safe="")
    headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{name}"
    return headers


def _object_etag(info: ObjectInfo) -> str:
    return info.segments_etag or info.etag


def _conditional_response(headers: Headers, key: str, info: ObjectInfo) -> Response | None:
    """Return 412 or 304 if the conditions in *headers* demand it, otherwise None.

    The order, and the use of times only without an ETag condition, are those of RFC 9110, section 13.2.2.
    """
    etag, modified = _object_etag(info), _modified(info)
    if name := _failed_precondition(headers, etag, modified):
        return error_response(412, f"{key!r} is not the object that the header {name} names")
    if _is_known(headers, etag, modified):
        response = Response(304, length=0)
        _describe(response, key, info)
        return response
    return None


def _failed_precondition(headers: Headers, etag: str, modified: datetime | None) -> str:
    """Return the name of the header whose condition the object does not meet, or ""."""
    if (given := headers.get("if-match")) is not None:
        return "" if matches_etag(given, etag, is_strong=True) else "If-Match"
    until = _time_in(headers, "if-unmodified-since")
    return "If-Unmodified-Since" if modified and until and modified > until else ""


def _is_known(headers: Headers, etag: str, modified: datetime | None) -> bool:
    """Return whether the client states that it has this object."""
    if (given := headers.get("if-none-match")) is not None:
        return matches_etag(given, etag)
    since = _time_in(headers, "if-modified-since")
    return bool(modified and since and modified <= since)


def _time_in(headers: Headers, name: str) -> datetime | None:
    """Return the time in the header *name*. An invalid time counts as missing (RFC 9110, section 13.1.3)."""
    return parse_http_date(headers.get(name, ""))


def _modified(info: ObjectInfo) -> datetime | None:
    """Return the time of the last change in whole seconds, as HTTP has it, or None if the store reports none."""
    if not info.last_modified:
        return None
    return datetime.fromisoformat(info.last_modified).replace(tzinfo=timezone.utc, microsecond=0)


def error_response(status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    """Return an error response with *status* and the message *text*."""
    response = to_response(Reply.from_error(MessageError(text)))
    response.status, response.headers = status, {**headers}
    return response


def _requested_range(headers: Headers) -> ByteRange | None:
    """Return the requested range, or None for the whole object.

    Anything but one range of bytes requests the whole object (RFC 9110, section 14.2). So does an If-Range header
    without an ETag, because nothing else identifies the object for certain.
    """
    found = _RANGE.fullmatch(headers.get("range", "").strip())
    if not found:
        return None
    etag_match = _ETAG.fullmatch(headers.get("if-range", "").strip())
    if "if-range" in headers and not etag_match:
        return None
    first, last = found.groups()
    etag = etag_match[1] if etag_match else ""
    if not first:
        return (ByteRange(-int(last), etag=etag) if int(last) else _NO_BYTES) if last else None
    if not last:
        return ByteRange(int(first), etag=etag)
    size = int(last) + 1 - int(first)
    return ByteRange(int(first), size, etag) if size > 0 else None
