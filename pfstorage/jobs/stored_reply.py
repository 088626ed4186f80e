"""The reply of a job as it is kept: within a bound, however many names it has."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pfstorage.wire.packed import Packed, PackedStrings, Packer, TooLongError
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import RowStream

MOST_TEXT = 8 * 1024**2
"""Characters of JSON, which is ASCII, that are kept of one reply."""
FEW_ROWS = 1000


def kept(reply: Reply, most: int = MOST_TEXT) -> Packed:
    """Return *reply* as JSON of at most *most* characters, if it comes to that without its lists.

    One that is longer is kept without its long lists, and says ``"reply": "summary"``; if that
    is still too long, without all of them. ``files`` is then how many objects were named.
    """
    body = reply.body
    for longest in (FEW_ROWS, 0):
        try:
            return _packed(body, most)
        except TooLongError:
            body = _summary(reply.body, longest)
    return _packed(body, sys.maxsize)


def _packed(body: dict[str, Any], most: int) -> Packed:
    packer = Packer(most)
    Reply(body).write(packer)
    return packer.packed()


def _summary(body: Mapping[str, Any], longest: int) -> dict[str, Any]:
    keys = body.get("objectFileList")
    count = {"files": len(keys)} if isinstance(keys, Sequence) else {}
    return {**dict(_without_lists(body, longest)), **count, "reply": "summary"}


def _without_lists(body: Mapping[str, Any], longest: int) -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if isinstance(value, Mapping):
            yield name, dict(_without_lists(value, longest))
        elif not isinstance(value, RowStream | PackedStrings | list) or _is_short(value, longest):
            yield name, value


def _is_short(rows: RowStream | PackedStrings | list[Any], longest: int) -> bool:
    return not isinstance(rows, RowStream) and len(rows) <= longest
