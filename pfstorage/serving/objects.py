"""``/api/v1/objects``: objects as resources of HTTP, for whoever wants bytes and not messages."""

from __future__ import annotations

import base64
import contextlib
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

from pfstorage.actions.pushing import known_objects
from pfstorage.backends import ObjectInfo, Storage
from pfstorage.backends.base import CHUNK, Attributes, Piece, Span, SupportsSegments
from pfstorage.backends.common import is_unmet, new_md5, time_of_http
from pfstorage.backends.confined import require_write
from pfstorage.backends.level import SLASH, as_directories, rows_of_level
from pfstorage.backends.streams import PiecewiseSink
from pfstorage.errors import BusyError, InvalidKeyError, MessageError, RejectedError
from pfstorage.pathmap import check_key
from pfstorage.reply import Reply
from pfstorage.serving.body import Reader, Writer
from pfstorage.serving.exchange import Answer, Request, answer_of, names_etag
from pfstorage.serving.spool import Spool
from pfstorage.transfer import PacedSink, PacedSource
from pfstorage.transfer.push import UNKNOWN_TYPE, replacing

OBJECTS = "/api/v1/objects"
MOST_ROWS = 10_000
ROWS = 1000
_KIND = re.compile(r"[ -~]{0,255}")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def list_objects(request: Request) -> Answer:
    """List the objects below a prefix as JSON; the *marker* of the answer begins the next page, if there is one."""
    given = dict(request.parameters())
    limit = given.pop("limit", str(ROWS))
    prefix, delimiter, marker = (given.pop(name, "") for name in ("prefix", "delimiter", "marker"))
    if given:
        raise MessageError(
            f"a listing knows prefix, delimiter, marker and limit, not {next(iter(given))[:80]!r}"
        )
    if not (limit.isdecimal() and len(limit) < 10 and 0 < int(limit) <= MOST_ROWS):
        raise MessageError(f"limit is a number from 1 to {MOST_ROWS}")
    storage = request.handler.storage_for(request.caller)
    if delimiter == SLASH:
        found = as_directories(rows_of_level(storage, prefix, marker=marker, limit=int(limit)))
    else:
        found = storage.list(prefix, limit=int(limit), delimiter=delimiter, marker=marker)
    rows = list(itertools.islice(found, int(limit)))
    more = rows[-1].key if len(rows) == int(limit) else None
    body = {"status": True, "objects": [row.as_row() for row in rows], "marker": more}
    return answer_of(Reply({**body, "writable": request.caller.rights.allows("write")}))


def one_object(request: Request) -> Answer:
    """Give out an object, or store one."""
    key = _key_of(request.path)
    return _put(request, key) if request.method == "PUT" else _get(request, key)


def _key_of(path: str) -> str:
    try:
        return check_key(unquote_to_bytes(path[len(OBJECTS) + 1 :]).decode())
    except UnicodeDecodeError:
        raise InvalidKeyError("the key in the path is not UTF-8") from None


def _get(request: Request, key: str) -> Answer:
    storage = request.handler.storage_for(request.caller)
    info = storage.head(key)
    etag = info.segments_etag or info.etag
    moment = _moment_of(info)
    headers = _headers_of(key, etag, moment)
    kind = info.content_type if _KIND.fullmatch(info.content_type) else UNKNOWN_TYPE  # it stands in the head
    if refusal := _unmet(request, etag, moment):
        return _refused(412, f"the object is another than {refusal} says")
    if _is_known(request, etag, moment):
        return Answer(304, headers=headers, kind=kind)
    is_same = request.headers.get("if-range", f'"{etag}"').strip() == f'"{etag}"'  # else, all of it
    asked = request.headers.get("range", "") if is_same and request.method == "GET" else ""
    start, end = _range_of(asked, info.size)
    if start > end:
        text = f"the object has {info.size} bytes: there are none in this range"
        return _refused(416, text, {"Content-Range": f"bytes */{info.size}"})
    size = end - start
    is_whole = size == info.size
    pieces = _segments_of(storage, info) if is_whole and request.method == "GET" else ()
    span = Span(start, size, etag, info.md5 if is_whole else "")

    def write(out: Writer) -> None:
        if size:
            throttle, stop, is_gone = request.handler.throttle(), request.caller.stop, request.turn.is_gone
            paced = PacedSink(out, functools.partial(throttle.take, stop=stop, is_gone=is_gone))
            try:
                storage.get(key, PiecewiseSink(paced, key, pieces) if pieces else paced, span)
            except RejectedError as e:
                if not is_unmet(e):
                    raise
                raise BusyError(f"{key!r} was replaced at this moment: ask again", key=key) from e
        request.moved("files", size)

    if not is_whole:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
    return Answer(200 if is_whole else 206, write, kind, size, headers)


# in this order, and the times only where nothing more exact is given: RFC 9110, section 13.2.2


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
    return time_of_http(request.headers.get(name, ""))


def _moment_of(info: ObjectInfo) -> datetime | None:
    """Return when the object was stored, to the second, as HTTP tells it; not every store does."""
    if not info.last_modified:
        return None
    return datetime.fromisoformat(info.last_modified).replace(tzinfo=timezone.utc, microsecond=0)


def _segments_of(storage: Storage, info: ObjectInfo) -> Sequence[Piece]:
    if info.segments_etag and isinstance(storage, SupportsSegments):
        return storage.pieces(info)
    return ()


def _refused(status: int, text: str, headers: Mapping[str, str] = MappingProxyType({})) -> Answer:
    answer = answer_of(Reply.of_error(MessageError(text)))
    answer.status, answer.headers = status, {**headers}
    return answer


def _headers_of(key: str, etag: str, moment: datetime | None) -> dict[str, str]:
    name = quote(key.rstrip("/").rpartition("/")[2], safe="")
    return {
        "ETag": f'"{etag}"',
        **({"Last-Modified": format_datetime(moment, usegmt=True)} if moment else {}),
        "Accept-Ranges": "bytes",
        # it is somebody's file: no browser shows it as a page of this server
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
    }


def _range_of(header: str, size: int) -> tuple[int, int]:
    """Return the first byte that is asked for and the one after the last; none are there if it lies after.

    What is no range of bytes, or several, is all of them (RFC 9110, 14.2).
    """
    found = _RANGE.fullmatch(header.strip())
    if not found or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        return max(0, size - int(found[2])), size if int(found[2]) and size else -1
    start = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    if found[2] and int(found[2]) < start:
        return 0, size  # it is no range at all
    return (start, end) if start < size else (1, 0)


def _put(request: Request, key: str) -> Answer:
    require_write(request.caller.rights, key)  # before the body comes
    expected = _md5_of(request.headers.get("content-md5"))
    only_new = _is_only_new(request)
    kind = request.headers.only("content-type")
    if not _KIND.fullmatch(kind):
        raise MessageError("Content-Type is printable ASCII, of 255 characters at most")
    with contextlib.closing(Spool(request.max_upload)) as spool:
        md5 = _spooled(request.open_body(request.max_upload), spool)
        if expected and md5 != expected:
            raise MessageError("the body does not have the MD5 that Content-MD5 says: send it again")
        require_write(request.caller.renewed().rights, key)  # it may have been long in coming
        request.turn.begin_transfer()
        storage = request.handler.storage_for(request.caller)
        with replacing(storage, known_objects(storage, [key]).get(key)):
            # of a client that has gone, too: it sent all of it
            pace = functools.partial(request.handler.throttle().take, stop=request.caller.stop)
            body = PacedSource(spool.file, pace)
            info = storage.put(key, body, spool.size, Attributes(kind), only_new=only_new)
    request.moved("store", spool.size)
    answer = answer_of(Reply({"status": True, "object": info.as_row()}))
    answer.status, answer.headers = 201, {"ETag": f'"{info.etag}"'}
    return answer


def _is_only_new(request: Request) -> bool:
    """Tell whether an object that is there is to stay. Raise `MessageError` for conditions that are not kept."""
    condition = request.headers.get("if-none-match")
    others = [
        name for name in ("if-match", "if-unmodified-since", "content-range") if name in request.headers
    ]
    if others or condition not in (None, "*"):
        raise MessageError("a PUT stores the whole object, and takes no condition but 'If-None-Match: *'")
    return condition == "*"


def _md5_of(header: str | None) -> str:
    """Return in hexadecimal what Content-MD5 says (RFC 1864), "" without one. Raise `MessageError`."""
    if header is None:
        return ""
    try:
        digest = base64.b64decode(header.strip(), validate=True)
    except ValueError:  # that of base64, or of what is no ASCII
        digest = b"?"
    if len(digest) != new_md5().digest_size:
        raise MessageError("Content-MD5 is the MD5 of the body in base64")
    return digest.hex()


def _spooled(body: Reader, spool: Spool) -> str:
    """Copy *body* to *spool*; return its MD5 in hexadecimal."""
    digest = new_md5()
    while chunk := body.read(CHUNK):
        spool.write(chunk)
        digest.update(chunk)
    spool.rewind()
    return digest.hexdigest()
