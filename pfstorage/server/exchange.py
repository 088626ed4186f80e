"""Requests and responses as endpoints see them: without sockets, threads and framing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs

from pfstorage._version import __version__
from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.errors import MessageError, MethodNotAllowedError
from pfstorage.handler import StoreHandler
from pfstorage.server.admission import RequestPermit
from pfstorage.server.http1.body import Reader
from pfstorage.server.http1.head import RequestHead
from pfstorage.server.http1.sending import JSON, ContentWriter, Response, Writer
from pfstorage.server.spool import SpooledFile, SpoolSpace
from pfstorage.wire.packed import Packed
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import http_status

ANONYMOUS = RequestContext(Principal(is_trusted=False))
MESSAGE_METHODS = ("GET", "HEAD", "POST")
# characters of a long reply that are collected before they are sent
PIECE = 32 * 1024
# Bytes of a reply that stay in memory as they are. A longer one is compressed, since a slow client keeps it for long.
MAX_UNPACKED = 256 * 1024

_STANDARD_HEADERS = {
    "Server": f"pfstorage/{__version__}",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    # A page of another origin can't embed a response, and so can't learn its size or whether it exists.
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HEADERS_BY_STATUS: dict[int, dict[str, str]] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "5"},
}


@dataclass
class Services:
    """The dispatcher and the limits that all requests of one server share.

    *count_transfer* counts bytes that an endpoint moves without a message, to ``store`` or to ``files``. Sizes are in
    bytes. *stream_seconds* limits a stream of events.
    """

    handler: StoreHandler
    spool_space: SpoolSpace
    max_upload: int
    stream_seconds: float
    count_transfer: Callable[[str, int], None]


@dataclass
class Client:
    """The client of one request and its connection.

    *address* is its IP address. *open_body* returns the request body; its argument is the largest accepted size in
    bytes. *permit* is held while the request is at work. *admit* takes a place among the connections for the owner of
    a token, or raises `BusyError`.
    """

    address: str
    open_body: Callable[[int], Reader]
    permit: RequestPermit
    admit: Callable[[str], None]


@dataclass
class Request:
    """One request. `Router.respond` sets its *context* with *new_context*, once the token is checked."""

    head: RequestHead
    client: Client
    services: Services
    new_context: Callable[[Principal], RequestContext]
    context: RequestContext = ANONYMOUS

    @property
    def principal(self) -> Principal:
        """The sender of the request."""
        return self.context.principal

    @property
    def max_spooled(self) -> int:
        """The bytes that an upload of this sender may have if it is spooled on disk."""
        services = self.services
        return int(min(services.max_upload, services.spool_space.share(self.principal.owner)))

    def new_spooled_file(self, max_size: int) -> SpooledFile:
        """Return a new temporary file for up to *max_size* bytes."""
        return SpooledFile(max_size, self.services.spool_space, self.principal.owner)

    def parameters(self) -> Mapping[str, str]:
        """Return the parameters of the query. Raise `MessageError` if it is not valid, or has a parameter twice."""
        try:
            found = parse_qs(self.head.query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as e:
            raise MessageError(f"the query can't be read: {e}") from None
        repeated = [name for name, values in found.items() if len(values) > 1]
        if repeated:
            raise MessageError(f"the query has the parameter {repeated[0][:80]!r} twice: send it once")
        return {name: values[0] for name, values in found.items()}


def standard_headers(status: int) -> dict[str, str]:
    """Return the headers that every response with *status* has, unless its endpoint sets others."""
    return {**_STANDARD_HEADERS, **_HEADERS_BY_STATUS.get(status, {})}


def matches_etag(header: str, etag: str, *, is_strong: bool = False) -> bool:
    """Return whether *header*, the value of If-None-Match or If-Match, lists *etag*, which has no quotes.

    If-Match uses a strong comparison (*is_strong*): a weak ETag matches nothing (RFC 9110, section 8.8.3.2).
    """
    weak = "" if is_strong else "W/"
    listed = [each.strip().removeprefix(weak).strip('"') for each in header.split(",") if each.strip()]
    return header.strip() == "*" or (etag != "" and etag in listed)


_MARKUP = {character: f"\\u{ord(character):04x}" for character in "<>&"}


def to_response(reply: Reply, *, as_html: bool = False) -> Response:
    """Return *reply* as a JSON response. Its error determines the status.

    With *as_html*, the response has the content type HTML, as in 2.x. The text is still JSON, with all markup escaped.
    """
    content: bytes | Callable[[ContentWriter], None]
    length = None
    if not reply.is_plain:
        content = functools.partial(_write_long, reply, as_html)
    elif len(text := reply.to_json()) > MAX_UNPACKED:
        content = functools.partial(_write_packed, Packed.of_text(text, len(text)), as_html)
        length = None if as_html else len(text)
    else:
        content = _encoded(text, as_html)
    headers = {}
    if isinstance(reply.error, MethodNotAllowedError):
        headers["Allow"] = str(reply.error.facts.get("allow", ", ".join(MESSAGE_METHODS)))
    response = Response(http_status(reply), content, reply_type(as_html), length, headers, reply.error)
    if error := reply.body.get("error"):  # without `reply.error`, if only some of the files failed
        response.log_fields["error"] = error["type"]
    if reply.is_accepted:
        response.log_fields["job"] = reply.body["job"]
    return response


def _encoded(text: str, as_html: bool) -> bytes:
    if as_html:
        for character, escape in _MARKUP.items():
            text = text.replace(character, escape)
    return text.encode()


def _write_packed(packed: Packed, as_html: bool, out: Writer) -> None:
    for piece in packed.pieces():
        out.write(_encoded(piece, as_html))


def _write_long(reply: Reply, as_html: bool, out: Writer) -> None:
    """Write a long reply piece by piece. An error in its rows passes through, and leaves the JSON incomplete."""
    waiting: list[str] = []
    size = 0

    def write(text: str) -> None:
        nonlocal size
        waiting.append(text)
        size += len(text)
        if size >= PIECE:
            send()

    def send() -> None:
        nonlocal size
        out.write(_encoded("".join(waiting), as_html))
        waiting.clear()
        size = 0

    reply.write_whole(write)
    send()


def reply_type(as_html: bool) -> str:
    """Return the content type of replies to messages."""
    return "text/html; charset=utf-8" if as_html else JSON
