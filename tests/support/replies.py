"""Replies, read from text and made comparable."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

from pfstorage import ObjectInfo
from pfstorage.actions import RequestContext
from pfstorage.backends.memory import MemoryStorage
from pfstorage.wire.reply import Reply

VOLATILE = {"seconds", "timestamp", "last_modified", "transaction", "address"}


def without_volatile(reply: Any) -> Any:
    """Drop the values that differ between calls: times, and the numbers that a store gives requests."""
    if isinstance(reply, dict):
        return {name: without_volatile(value) for name, value in reply.items() if name not in VOLATILE}
    return [without_volatile(each) for each in reply] if isinstance(reply, list) else reply


def decoded(text: str) -> list[Any]:
    """Return the JSON objects in *text*, in order."""
    decoder, replies, text = json.JSONDecoder(), [], text.strip()
    while text:
        reply, end = decoder.raw_decode(text)
        replies.append(reply)
        text = text[end:].strip()
    return replies


STREAMING = RequestContext(stream_after=0)


LS = {"action": "ls"}


def written(reply: Reply) -> str:
    file = io.StringIO()
    reply.write(file)
    return file.getvalue()


class Shelf(MemoryStorage):
    """Rows made on demand. After *count* of them, *error* is raised. *given* counts the rows that were read."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        super().__init__()
        self._count = count
        self._error = error
        self.given = 0

    def list(self, *_: object, **__: object) -> Iterator[ObjectInfo]:
        for number in range(self._count):
            self.given += 1
            yield ObjectInfo(f"chris/{number:07}.dcm", number)
        if self._error:
            raise self._error


def as_2x(body: object) -> str:
    return json.dumps(body, indent=4)
