"""Bytes from outside that are text: the one place that tells in which encoding they are."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from pfstorage.errors import MessageError

MAX_DEPTH = 32
# Lists and objects in one message: as many as items of the longest list that a meta may have, and some more.
MOST_CONTAINERS = 110_000
MARK = "\ufeff"
"""The byte order mark: Windows tools begin a file with it, and no text means it."""


def decoded(data: bytes) -> str:
    """Return the text of *data*, without the mark: UTF-8, or the UTF-16 and UTF-32 that tools of Windows write.

    What comes over HTTP, and the file of tokens, is UTF-8 alone: what looks like something else
    may be an attack. Raise `UnicodeDecodeError`.

    >>> [decoded("{}".encode(each)) for each in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le")]
    ['{}', '{}', '{}', '{}']
    """
    return without_mark(data.decode(json.detect_encoding(data)))


def without_mark(text: str) -> str:
    return text.removeprefix(MARK)


def decode_json(text: str | bytes) -> Any:
    """Decode *text*, which comes from anybody. Raise `MessageError` if it is not JSON.

    A byte order mark before it does not count.
    Not JSON either: ``NaN``, ``Infinity`` and numbers so large that they become it,
    an object with the same key twice, nesting deeper than `MAX_DEPTH`.
    """
    try:
        text = without_mark(text) if isinstance(text, str) else decoded(text)
        _check_containers(text)
        content = _DECODER.decode(text)
    except (ValueError, RecursionError) as e:
        reason = e if text else "it is empty"
        raise MessageError(f"the message is not JSON: {reason}") from None
    if _containers(text) > MAX_DEPTH:  # what has fewer is not as deep
        _check_depth(content)
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


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


def _check_containers(text: str) -> None:
    """Raise `ValueError` before *text* is decoded to more lists and objects than anybody needs."""
    if _containers(text) > MOST_CONTAINERS and _containers(_STRING.sub("", text)) > MOST_CONTAINERS:
        raise ValueError(f"it has over {MOST_CONTAINERS} lists and objects")


def _containers(text: str) -> int:
    return text.count("[") + text.count("{")


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
"""A string, or the rest of a text in which one does not end: to look for its end again from each quote in it would
hold up all threads for an hour."""


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
