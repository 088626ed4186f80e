"""Decode the forms of older clients: jQuery's encoding, and the query of a GET."""

from __future__ import annotations

import ast
import itertools
import json
import re
from typing import Any
from urllib.parse import parse_qsl

from pfstorage.errors import MessageError
from pfstorage.wire.decoding import MAX_CONTAINERS, MAX_DEPTH, decode_json

MAX_FIELDS = 10_000


def decode_form(text: str) -> dict[str, Any]:
    """Decode jQuery's form encoding: ``meta[path]=x``, ``meta[retSpec][]=name``, ``a[0]=x``.

    All values are texts, also empty ones. Raise `MessageError` for more than `MAX_FIELDS` fields or `MAX_CONTAINERS`
    lists and objects, and for names that contradict each other.

    >>> decode_form("action=ls&meta[path]=a_b&meta[retSpec][]=name&meta[retSpec][]=bytes")
    {'action': 'ls', 'meta': {'path': 'a_b', 'retSpec': ['name', 'bytes']}}
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as e:
        raise MessageError(f"the form is malformed: {e}") from None
    if sum(name.count("[") for name, _ in pairs) > MAX_CONTAINERS:
        raise MessageError(f"the form has over {MAX_CONTAINERS} lists and objects")
    content: dict[str, Any] = {}
    for name, value in pairs:
        _insert(content, name, value)
    return {name: _with_lists(value) for name, value in content.items()}


_FIELD_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def _insert(content: dict[str, Any], name: str, value: str) -> None:
    match = _FIELD_NAME.fullmatch(name)
    if not match:
        raise MessageError(
            f"the form has a field {name[:80]!r}; a name is like meta[path] or meta[retSpec][]"
        )
    keys = [match[1], *re.findall(r"\[([^\[\]]*)\]", match[2])]
    if len(keys) > MAX_DEPTH:
        raise MessageError(f"the form is nested deeper than {MAX_DEPTH} levels")
    for key, following in itertools.pairwise(keys):
        content = content.setdefault(key if key else str(len(content)), {})
        if not isinstance(content, dict):
            raise MessageError(f"the form has both a value and fields [{following}] under {key!r}")
    _add_leaf(content, keys[-1] or str(len(content)), value)


def _add_leaf(content: dict[str, Any], key: str, value: str) -> None:
    """Add a leaf. A repeated name makes a list, as jQuery's option ``traditional`` does."""
    present = content.get(key)
    if isinstance(present, dict):
        raise MessageError(f"the form has both a value and fields under {key!r}")
    if isinstance(present, list):
        present.append(value)
    else:
        content[key] = value if present is None else [present, value]


def _with_lists(value: Any) -> Any:
    """Turn objects with the keys 0, 1, 2 ... back into lists."""
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(each) for key, each in value.items()}
    places = [str(number) for number in range(len(inner))]
    return [inner[place] for place in places] if set(places) == set(inner) else inner


def looks_like_json(text: str) -> bool:
    """Return whether the body of a POST is JSON rather than a form.

    The Content-Type does not count: pfurl sends JSON as ``application/x-www-form-urlencoded``. Text that is neither
    counts as JSON.
    """
    return "=" not in text or text.lstrip()[:1] in ("{", "[")


def decode_query(text: str) -> dict[str, Any]:
    """Decode the query of a GET. ``meta`` is JSON, bracketed fields, or a Python literal.

    ``pfurl --verb GET`` sends such a literal: ``meta={'path': 'chris'}``.
    """
    content = decode_form(text)
    for name in ("payload", "meta", "args"):
        if isinstance(content.get(name), str):
            content[name] = _decode_nested(name, content[name])
    return content


def _decode_nested(name: str, text: str) -> Any:
    if not text.strip():
        return {}
    try:
        return decode_json(text)
    except MessageError:
        pass  # try a literal; the error below names both
    try:
        if not _LITERAL.fullmatch(text):
            raise ValueError("not written by repr(); Python might print a warning to stderr")
        written_as_json = json.dumps(ast.literal_eval(text), allow_nan=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise MessageError(f"{name!r} in the query is neither JSON nor a Python literal") from None
    return decode_json(
        written_as_json
    )  # a literal without equivalent in JSON, such as a set, is not a message


_ESCAPED = r"\\[\\'\"nrtxuU]"
_LITERAL = re.compile(
    rf"""(?:[\s\[\](){{}}:,.+\deE-]|True|False|None|'(?:[^'\\]|{_ESCAPED})*'|"(?:[^"\\]|{_ESCAPED})*")*"""
)
