"""Write JSON as 2.x did: ``json.dumps(body, indent=4)``.

With an indent, the module json works in Python, one token at a time. Here a row is made at once, to the same text.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from pfstorage.runtime.fair_share import FAIR_SHARE
from pfstorage.wire.packed import Packed, PackedStrings
from pfstorage.wire.rows import KnownRow, RowStream

INDENT = "    "
ROWS_AT_ONCE = 256
_CONSTANTS = {None: "null", True: "true", False: "false"}
_LISTS = (list, tuple, RowStream, PackedStrings)
_encode = json.JSONEncoder(indent=len(INDENT)).encode


def _value_chunks(value: Any, pad: str) -> Iterator[str]:
    """Yield the JSON of *value*, whose line is indented by *pad*."""
    if isinstance(value, dict):
        yield from object_chunks(value.items(), pad)
    elif isinstance(value, _LISTS):
        yield from _array_chunks(iter(value), pad)
    elif type(value) is Packed:
        yield from value.pieces(pad)
    else:
        yield dumps(value, pad)


def object_chunks(members: Iterable[tuple[str, Any]], pad: str) -> Iterator[str]:
    """Yield the JSON of an object with *members*. Its first line is indented by *pad*."""
    inner = pad + INDENT
    before = "{"
    for name, value in members:
        yield f"{before}\n{inner}{_name(name)}: "
        yield from _value_chunks(value, inner)
        before = ","
    yield "{}" if before == "{" else f"\n{pad}}}"


def _array_chunks(rows: Iterator[Any], pad: str) -> Iterator[str]:
    inner = pad + INDENT
    before = "["
    try:
        while batch := [dumps(row, inner) for row in itertools.islice(rows, ROWS_AT_ONCE)]:
            yield f"{before}\n{inner}" + f",\n{inner}".join(batch)
            before = ","
            if len(batch) == ROWS_AT_ONCE:
                FAIR_SHARE.pause()  # a long list of one reply must not delay the short replies of others
    finally:
        FAIR_SHARE.rest()
    yield "[]" if before == "[" else f"\n{pad}]"


def dumps(value: Any, pad: str = "") -> str:
    """Return the JSON of *value* as one text. Its line is indented by *pad*."""
    kind = type(value)
    if kind is str:
        return quoted(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    if value is None or kind is bool:
        return _CONSTANTS[value]
    inner = pad + INDENT
    if isinstance(value, dict) and value and kind is not KnownRow:
        # most members are texts: each call that is avoided for them is measurable
        members = [
            f"{quoted(name) if type(name) is str else _name(name)}: "
            f"{quoted(each) if type(each) is str else dumps(each, inner)}"
            for name, each in value.items()
        ]
        return f"{{\n{inner}" + f",\n{inner}".join(members) + f"\n{pad}}}"
    if isinstance(value, _LISTS):
        return "".join(_array_chunks(iter(value), pad))
    is_known = kind is Packed or kind is KnownRow
    # a text in JSON contains no newline
    return str(value.indented(pad) if is_known else _encode(value).replace("\n", "\n" + pad))


def _name(key: object) -> str:
    """Return the JSON name of a member. The module json converts a key that is not a text."""
    return quoted(key if isinstance(key, str) else next(iter(json.loads(json.dumps({key: 0})))))
