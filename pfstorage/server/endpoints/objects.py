"""``/api/v1/objects``: list, download and upload objects without messages."""

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
from pfstorage.server.endpoints.download import download, error_response
from pfstorage.server.endpoints.upload_stream import UploadStream
from pfstorage.server.exchange import Request, to_response
from pfstorage.server.http1.body import Reader, SizedReader
from pfstorage.server.http1.head import CONTENT_TYPE, Headers
from pfstorage.server.http1.sending import Response
from pfstorage.server.spool import SpooledFile
from pfstorage.transfer.push import store_one, store_single
from pfstorage.wire.json_text import ROWS_AT_ONCE
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import RowStream

OBJECTS = "/api/v1/objects"
# With these headers, no browser shows an object as a page of this server. Errors have them, too. Otherwise, a page that
# opens an object in a window could learn whether the object exists.
OBJECT_HEADERS = {
    "Content-Disposition": "attachment",
    "Content-Security-Policy": "sandbox; default-src 'none'",
}
MAX_ROWS_PER_PAGE = 10_000
DEFAULT_ROWS_PER_PAGE = 1000


def list_objects(request: Request) -> Response:
    """List the objects below a prefix as JSON. If there are more, the *marker* of the reply begins the next page."""
    given = dict(request.parameters())
    limit = given.pop("limit", str(DEFAULT_ROWS_PER_PAGE))
    prefix, delimiter, marker = (given.pop(name, "") for name in ("prefix", "delimiter", "marker"))
    if given:
        raise MessageError(
            f"unknown parameter {next(iter(given))[:80]!r}; a listing takes prefix, delimiter, marker and limit"
        )
    if not (limit.isdecimal() and len(limit) < 10 and 0 < int(limit) <= MAX_ROWS_PER_PAGE):
        raise MessageError(f"the parameter limit must be a number from 1 to {MAX_ROWS_PER_PAGE}")
    size = min(int(limit), request.context.max_rows or MAX_ROWS_PER_PAGE)
    context = request.services.handler.action_context(request.context)
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
    if request.head.method == "HEAD":
        reply.close()
    return to_response(reply)


def one_object(request: Request) -> Response:
    """Download or upload the object whose key follows in the path."""
    key = _key_of(request.head.path)
    return _upload(request, check_new_key(key)) if request.head.method == "PUT" else download(request, key)


def _key_of(path: str) -> str:
    try:
        return check_key(unquote_to_bytes(path[len(OBJECTS) + 1 :]).decode())
    except UnicodeDecodeError:
        raise InvalidKeyError("the key in the path is not UTF-8: percent-encode its bytes in UTF-8") from None


def _upload(request: Request, key: str) -> Response:
    headers, client = request.head.headers, request.client
    require_write(request.principal.permissions, key)  # before the client sends the body
    encoding = headers.only("content-encoding").strip()
    if encoding.lower() not in ("", "identity"):
        text = (
            f"the body has the Content-Encoding {encoding[:80]!r}, which is not stored: send it without one"
        )
        return error_response(415, text)
    expected = _md5_of(headers.get("content-md5"))
    if_absent = _is_if_absent(headers)
    content_type = headers.only("content-type")
    if not CONTENT_TYPE.fullmatch(content_type):
        raise MessageError("the Content-Type must be printable ASCII, of 255 characters at most")

    def check(md5: str) -> None:
        if expected and md5 != expected:
            raise MessageError("the MD5 of the body is not that of Content-MD5: send it again")
        # checks the token again, because the body may have taken long to arrive
        require_write(request.principal.renewed().permissions, key)

    meta = MoveMeta(overwrite="never" if if_absent else "always")
    transfer_context = request.services.handler.transfer_context(request.context, meta)
    body = client.open_body(request.services.max_upload)
    # Without a place, the upload is spooled: slow clients would occupy too many connections to the store.
    if (
        isinstance(body, SizedReader)
        and takes_streams(transfer_context.storage)
        and client.permit.begin_upload()
    ):
        size = body.left
        stream = UploadStream(body, size, check, hashes=bool(expected))
        info, _ = store_one(transfer_context, key, stream, size, attributes=Attributes(content_type))
    else:
        with contextlib.closing(request.new_spooled_file(request.max_spooled)) as file:
            check(_spool(body, file))
            client.permit.begin_transfer()
            # stored even if the client has left, because it has sent the whole body
            size = file.size
            info, _ = store_single(
                transfer_context, key, file.body(), size, attributes=Attributes(content_type)
            )
    request.services.count_transfer("store", size)
    response = to_response(Reply({"status": True, "object": info.as_row()}))
    response.status, response.headers = 201, {"ETag": f'"{info.etag}"'}
    return response


def _is_if_absent(headers: Headers) -> bool:
    """Return whether the upload must not replace an object. Raise `MessageError` for unsupported conditions."""
    condition = headers.get("if-none-match")
    others = [name for name in ("if-match", "if-unmodified-since", "content-range") if name in headers]
    if others or condition not in (None, "*"):
        raise MessageError("a PUT stores the whole object, and supports no condition but 'If-None-Match: *'")
    return condition == "*"


def _md5_of(header: str | None) -> str:
    """Return the MD5 in the header Content-MD5 (RFC 1864) in hexadecimal, or "". Raise `MessageError`."""
    if header is None:
        return ""
    try:
        digest = base64.b64decode(header.strip(), validate=True)
    except ValueError:  # invalid base64, or not ASCII
        digest = b"?"
    if len(digest) != new_md5().digest_size:
        raise MessageError("Content-MD5 must be the MD5 of the body in base64")
    return digest.hex()


def _spool(body: Reader, file: SpooledFile) -> str:
    """Copy *body* to *file*, and return its MD5 in hexadecimal."""
    digest = new_md5()
    while chunk := body.read(CHUNK):
        file.write(chunk)
        digest.update(chunk)
    file.rewind()
    return digest.hexdigest()
