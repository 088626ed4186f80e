"""Pack the reply of a job for the file, within a bound on its length."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pfstorage.wire.packed import Packed, PackedStrings, Packer, TooLongError
from pfstorage.wire.reply import Reply
from pfstorage.wire.rows import RowStream

# Characters of JSON (ASCII) of one stored reply.
MAX_TEXT = 8 * 1024**2
# Rows of a list that a shortened reply still has.
FEW_ROWS = 1000


def pack_reply(reply: Reply, max_length: int = MAX_TEXT) -> Packed:
    """Return the compressed JSON of *reply*, of at most *max_length* characters before compression.

    Shorten a longer reply: leave out lists of more than `FEW_ROWS` rows, then all lists. The shortened reply has
    ``"reply": "summary"``, and its ``files`` is the number of objects in the list that was left out. The bound does
    not apply to a reply that is too long without any list.
    """
    body = reply.body
    for longest in (FEW_ROWS, 0):
        try:
            return _pack(body, max_length)
        except TooLongError:
            body = _summary(reply.body, longest)
    return _pack(body, sys.maxsize)


def _pack(body: dict[str, Any], max_length: int) -> Packed:
    packer = Packer(max_length)
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
