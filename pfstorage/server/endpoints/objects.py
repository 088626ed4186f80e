"""``/api/v1/objects``: objects as resources of HTTP, for whoever wants bytes and not messages."""

from __future__ import annotations

import base64
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

from pfstorage.access.scoped import require_write
from pfstorage.actions.options import MoveMeta
from pfstorage.backends.capabilities import takes_streams
from pfstorage.backends.checksums import new_md5
from pfstorage.backends.contract import CHUNK, Attributes
from pfstorage.backends.listing import SLASH, as_directories, list_level
from pfstorage.errors import InvalidKeyError, MessageError
from pfstorage.keys.mapping import check_key, check_new_key
from pfstorage.server.endpoints.download import give_out, refused
from pfstorage.server.endpoints.upload_stream import UploadStream
from pfstorage.server.exchange import Answer, Request, answer_of
from pfstorage.server.http1.body import Reader, SizedReader
from pfstorage.server.http1.head import KIND
from pfstorage.server.spool import Spool
from pfstorage.transfer.push import store_one, store_single
from pfstorage.wire.json_text import ROWS_AT_ONCE
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import RowStream

OBJECTS = "/api/v1/objects"
OBJECT_HEADERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
"""An object is somebody's file: no browser shows it as a page of this server. Errors have them, too: a page that has
a window go there does not learn from it whether there is such an object."""
MOST_ROWS = 10_000
ROWS = 1000


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
    size = min(int(limit), request.context.max_rows or MOST_ROWS)
    context = request.handler.action_context(request.context)
    storage = context.listing()
    if delimiter == SLASH:
        found = as_directories(list_level(storage, prefix, start_after=marker, limit=size))
    else:
        found = storage.list(prefix, limit=size, delimiter=delimiter, start_after=marker)
    writable = request.principal.permissions.allows("write")
    body: dict[str, Any] = {"status": True, "objects": [], "marker": None, "writable": writable}

    def rows() -> Iterator[dict[str, Any]]:
        for number, row in enumerate(itertools.islice(context.cancellation.checked(found), size), 1):
            if number == size:
                reply.body["marker"] = row.key
            yield row.as_row()

    body["objects"] = RowStream(rows())
    reply = Reply(body)
    reply.warn(lambda: context.warnings)
    reply.settle(ROWS_AT_ONCE)
    if request.method == "HEAD":
        reply.close()
    return answer_of(reply)


def one_object(request: Request) -> Answer:
    """Give out an object, or store one."""
    key = _key_of(request.path)
    return _put(request, check_new_key(key)) if request.method == "PUT" else give_out(request, key)


def _key_of(path: str) -> str:
    try:
        return check_key(unquote_to_bytes(path[len(OBJECTS) + 1 :]).decode())
    except UnicodeDecodeError:
        raise InvalidKeyError("the key in the path is not UTF-8") from None


def _put(request: Request, key: str) -> Answer:
    require_write(request.principal.permissions, key)  # before the body comes
    encoding = request.headers.only("content-encoding").strip()
    if encoding.lower() not in ("", "identity"):
        text = (
            f"the body comes in the Content-Encoding {encoding[:80]!r}, which would be lost: send it unpacked"
        )
        return refused(415, text)
    expected = _md5_of(request.headers.get("content-md5"))
    if_absent = _is_only_new(request)
    kind = request.headers.only("content-type")
    if not KIND.fullmatch(kind):
        raise MessageError("Content-Type is printable ASCII, of 255 characters at most")

    def check(md5: str) -> None:
        if expected and md5 != expected:
            raise MessageError("the body does not have the MD5 that Content-MD5 says: send it again")
        require_write(request.principal.renewed().permissions, key)  # it may have been long in coming

    work = request.handler.work_for(request.context, MoveMeta(overwrite="never" if if_absent else "always"))
    body = request.open_body(request.max_upload)
    # who has no place goes to disk first: to hold a connection to the store for all who are slow would take too many
    if isinstance(body, SizedReader) and takes_streams(work.storage) and request.permit.begin_upload():
        size = body.left
        stream = UploadStream(body, size, check, hashes=bool(expected))
        info, _ = store_one(work, key, stream, size, attributes=Attributes(kind))
    else:
        with contextlib.closing(request.new_spool(request.most_on_disk)) as spool:
            check(_spooled(body, spool))
            request.permit.begin_transfer()
            # of a client that has gone, too: it sent all of it
            size = spool.size
            info, _ = store_single(work, key, spool.body(), size, attributes=Attributes(kind))
    request.moved("store", size)
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
