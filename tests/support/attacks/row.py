"""One row of a table of attacks, and functions that make its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.support.exchange import message, post, request

CMD = "/api/v1/cmd"
SECRET = "what nobody may read"
TOKENS = [f"{name}-0123456789abcdef0123456789" for name in ("w", "r", "a", "p", "h", "e")]
WRITER, READER, ADMIN, PART, HASHED, EXPIRED = TOKENS
"""One writes the keys below ``own/``, one reads them, one may do all, one is admin of ``own/`` alone; one is on
file as its hash, one has expired."""


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


BEARER = bearer(WRITER)


@dataclass(frozen=True)
class Row:
    """Bytes to the server, and the permitted answer: one of the *statuses* with *text* somewhere in the body.

    The reply has ``"status": false``, unless the row *may_succeed* because the request does no harm. There are
    as many *answers* as requests, and no more, or one request would be taken for two. They have *most* bytes.
    """

    name: str
    data: bytes
    statuses: tuple[int, ...] = (400, 403)
    text: str = ""
    may_succeed: bool = False
    answers: int = 1
    most: int = 10 << 20


def message_bytes(action: str, *, token: str = WRITER, **meta: Any) -> bytes:
    return post(message(action, **meta), bearer(token))


def objects(method: str, path: str, *headers: str, body: bytes = b"x", token: str = WRITER) -> bytes:
    content = body if method == "PUT" else b""
    length = [f"Content-Length: {len(content)}"] if method == "PUT" else []
    return request(method, f"/api/v1/objects{path}", bearer(token), *length, *headers, body=content)
