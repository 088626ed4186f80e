"""Decode text and JSON that come from outside."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from pfstorage.errors import MessageError

MAX_DEPTH = 32
# Lists and objects in one message: as many as items of the longest list that a meta may have, and some more.
MAX_CONTAINERS = 110_000
# The byte order mark. Windows tools begin a file with it; it is not part of the text.
MARK = "\ufeff"


def decoded(data: bytes) -> str:
    """Decode UTF-8, or the UTF-16 and UTF-32 of Windows tools; remove the byte order mark.

    Do not use it for data over HTTP and for the file of tokens. These are UTF-8, and bytes that look like another
    encoding may be an attack. Raise `UnicodeDecodeError`.

    >>> [decoded("{}".encode(each)) for each in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le")]
    ['{}', '{}', '{}', '{}']
    """
    return without_mark(data.decode(json.detect_encoding(data)))


def without_mark(text: str) -> str:
    """Remove the byte order mark."""
    return text.removeprefix(MARK)


def decode_json(text: str | bytes) -> Any:
    """Decode JSON from an untrusted source, with or without a byte order mark. Raise `MessageError`.

    ``NaN``, ``Infinity`` and numbers that overflow are not JSON, nor is an object with the same key twice. Nesting is
    limited to `MAX_DEPTH`, and lists and objects to `MAX_CONTAINERS`.
    """
    try:
        text = without_mark(text) if isinstance(text, str) else decoded(text)
        containers = _containers(text)
        if containers > MAX_CONTAINERS and _containers(_QUOTED.sub("", text)) > MAX_CONTAINERS:
            raise ValueError(f"it has over {MAX_CONTAINERS} lists and objects")
        content = _DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        reason = e if text else "it is empty"
        raise MessageError(f"the message is not JSON: {reason}") from None
    if containers > MAX_DEPTH:  # otherwise the nesting can't be deeper
        _check_depth(content)
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits[:20]} is too large")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("an object has the same key twice")
    return content


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)


def _containers(text: str) -> int:
    """Return the maximum number of lists and objects in *text*."""
    return text.count("[") + text.count("{")


# A string. It also matches an unterminated string up to the end of the text: otherwise the search for its end would
# start again at each quote in it, and block all threads for an hour.
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)


def _check_depth(content: object) -> None:
    level = [content]
    for _ in range(MAX_DEPTH):
        level = [inner for each in level for inner in _children(each)]
        if not level:
            return
    raise MessageError(f"the message is nested deeper than {MAX_DEPTH} levels")


def _children(content: object) -> list[object]:
    if isinstance(content, dict):
        return list(content.values())
    return content if isinstance(content, list) else []
