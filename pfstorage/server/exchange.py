"""A request and its answer as the endpoints see them: without sockets, threads and framing."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from pfstorage.access.principal import Principal
from pfstorage.actions import RequestContext
from pfstorage.errors import MessageError
from pfstorage.handler import StoreHandler
from pfstorage.server.admission import Permit
from pfstorage.server.http1.body import MAX_UPLOAD, Outlet, Reader, Writer
from pfstorage.server.http1.head import Headers
from pfstorage.server.spool import Room, Spool
from pfstorage.wire.packed import Packed
from pfstorage.wire.reply import Reply
from pfstorage.wire.status import http_status

JSON = "application/json"
NOBODY = RequestContext(Principal(is_trusted=False))
PIECE = 32 * 1024
"""Characters of a long reply that leave at once, or somewhat more."""
MOST_HELD = 256 * 1024
"""Bytes of a reply that is held as it is; a longer one waits compressed for its client."""


@dataclass
class Request:
    """One HTTP request. *context* is the one that *new_context* makes once the sender is known.

    *path* is as it came, its escapes included; *query* is what follows the question mark.
    *client* is the address of whoever sent it, *id* what the log calls it. What is done
    for it once its body is there, however slowly that came, is done within its *permit*. *admit* takes a place among
    the connections for the owner of its token, or raises `BusyError`. What
    is moved without a message is told to *moved*. Uploads that lie on the disk take of the *room*. Events are
    streamed for *stream_seconds*. *route* is the path of the endpoint, *action* that of the message. The answer has
    the headers *defaults*, unless it has others of those names.
    """

    method: str
    path: str
    query: str
    headers: Headers
    client: str
    id: str
    handler: StoreHandler
    open_body: Callable[[int], Reader]
    new_context: Callable[[Principal], RequestContext]
    permit: Permit
    admit: Callable[[str], None] = lambda _owner: None
    max_upload: int = MAX_UPLOAD
    room: Room = field(default_factory=Room)
    stream_seconds: float = math.inf
    moved: Callable[[str, int], None] = lambda _to, _size: None
    route: str = ""
    action: str = ""
    defaults: Mapping[str, str] = field(default_factory=dict)
    context: RequestContext = NOBODY

    @property
    def principal(self) -> Principal:
        return self.context.principal

    @property
    def most_on_disk(self) -> int:
        """How many bytes an upload may have that lies on the disk first."""
        return int(min(self.max_upload, self.room.share(self.principal.owner)))

    def new_spool(self, most: int) -> Spool:
        """Return a new file on disk for *most* bytes."""
        return Spool(most, self.room, self.principal.owner)

    def parameters(self) -> Mapping[str, str]:
        """Return the parameters of the query. Raise `MessageError` if it can't be read, or has one twice."""
        try:
            found = parse_qs(self.query, keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as e:
            raise MessageError(f"the query can't be read: {e}") from None
        twice = [name for name, values in found.items() if len(values) > 1]
        if twice:
            raise MessageError(f"the query has {twice[0][:80]!r} twice")
        return {name: values[0] for name, values in found.items()}


@dataclass
class Answer:
    """What goes back: *content* itself, or what writes it while it is sent.

    What writes it may change all but the content until it writes the first byte, with which the head leaves.
    *length* is that of content that is yet to be written, None if it is not known. Whatever
    is raised while it is written ends the connection: the client sees that it is not whole.
    *notes* are for the log.
    """

    status: int = 200
    content: bytes | Callable[[Outlet], None] = b""
    kind: str = JSON
    length: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def names_etag(header: str, etag: str, *, is_strong: bool = False) -> bool:
    """Tell whether *header*, the value of an If-None-Match or If-Match, names *etag*, which is without quotes.

    *is_strong*, as If-Match wants it: a weak one names nothing (RFC 9110, section 8.8.3.2).
    """
    weak = "" if is_strong else "W/"
    named = [each.strip().removeprefix(weak).strip('"') for each in header.split(",") if each.strip()]
    return header.strip() == "*" or (etag != "" and etag in named)


_MARKUP = {character: f"\\u{ord(character):04x}" for character in "<>&"}


def answer_of(reply: Reply, *, as_html: bool = False) -> Answer:
    """Return *reply* as JSON, with the status that its error has.

    With *as_html* it passes for HTML, as 2.x's did: JSON all the same, and no markup to a browser.
    """
    content: bytes | Callable[[Outlet], None]
    length = None
    if reply.is_long:
        content = functools.partial(_write_long, reply, as_html)
    elif len(text := reply.to_json()) > MOST_HELD:  # who reads slowly has it held for long
        content = functools.partial(_write_packed, Packed.of_text(text, len(text)), as_html)
        length = None if as_html else len(text)
    else:
        content = _encoded(text, as_html)
    allow = reply.error.facts.get("allow") if reply.error else None
    headers = {"Allow": str(allow)} if allow else {}  # what this path takes, where the error knows it
    answer = Answer(http_status(reply), content, kind_of(as_html), length, headers)
    if error := reply.body.get("error"):  # also of a part of the files
        answer.notes["error"] = error["type"]
    if reply.is_accepted:
        answer.notes["job"] = reply.body["job"]
    return answer


def _encoded(text: str, as_html: bool) -> bytes:
    if as_html:
        for character, escape in _MARKUP.items():
            text = text.replace(character, escape)
    return text.encode()


def _write_packed(packed: Packed, as_html: bool, out: Outlet) -> None:
    for piece in packed.pieces():
        out.write(_encoded(piece, as_html))


def _write_long(reply: Reply, as_html: bool, out: Writer) -> None:
    """Write a long reply a piece at a time. One whose rows break off is not whole, and no client takes it for that."""
    waiting: list[str] = []
    size = 0

    def write(text: str) -> None:
        nonlocal size
        waiting.append(text)
        size += len(text)
        if size >= PIECE:
            close_kept()

    def close_kept() -> None:
        nonlocal size
        out.write(_encoded("".join(waiting), as_html))
        waiting.clear()
        size = 0

    reply.write_whole(write)
    close_kept()


def kind_of(as_html: bool) -> str:
    """Return the type of content that replies to messages have."""
    return "text/html; charset=utf-8" if as_html else JSON
