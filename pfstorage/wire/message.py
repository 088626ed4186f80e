"""The message, and the wire forms that it comes in.

A message is ``{"action": "ls", "meta": {...}}``. It arrives as JSON, bare or under
``payload``, as jQuery's form encoding of the same, or as the query of a GET.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar
from urllib.parse import parse_qsl

from pfstorage.errors import MessageError
from pfstorage.wire.decoding import decoded, without_mark
from pfstorage.wire.fields import BoundError, FieldError, known_names, read_fields

T = TypeVar("T")
MAX_FIELDS = 10_000
MAX_DEPTH = 32
MOST_CONTAINERS = 110_000
"""Lists and objects of a message: each item of the longest list that a meta may have, and some more."""
MOST_TOLD = 20
"""Of the keys of a message that nothing looks at."""
_OBJECT = (dict, Mapping)
"""A dict is a `Mapping`; but to be told so takes several times as long as to see that it is a dict."""


_KEYS = frozenset(("action", "meta", "args"))


@dataclass(frozen=True)
class Message:
    """A decoded message. *meta* is an empty dict where there was none; *beside* is what else there was."""

    action: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, source: str | bytes | Mapping[str, Any]) -> Message:
        """Read a message from JSON text, or from what such a text decodes to.

        pypx says ``args`` for ``meta``. Raise `MessageError` for anything that
        is not an object with a text ``action``, or with a ``meta.ctl``.
        """
        content = decode_json(source) if isinstance(source, str | bytes) else source
        if isinstance(content, _OBJECT) and "payload" in content and "action" not in content:
            content = content["payload"]
        if not isinstance(content, _OBJECT):
            raise MessageError(f"a message is a JSON object, not {_kind(content)}")
        if "meta" in content and "args" in content and content["meta"] != content["args"]:
            raise MessageError(
                "a message has either 'meta' or 'args', which is another name for it: send one"
            )
        meta = content.get("meta", content.get("args"))
        if meta is None:
            meta = {}
        if not isinstance(meta, _OBJECT):
            raise MessageError(f"'meta' takes an object, not {_kind(meta)}")
        action = content.get("action", "")
        if not isinstance(action, str) or not (action or "ctl" in meta):
            raise MessageError('a message needs an action, as in {"action": "ls", "meta": {"path": ""}}')
        return cls(action, meta, {str(key): value for key, value in content.items() if key not in _KEYS})


def read_meta(cls: type[T], message: Message) -> tuple[T, list[str]]:
    """Read the meta of *message* as a *cls*; return it and warnings of unknown keys, there and beside it.

    `MOST_TOLD` are named and further ones counted: a reply is not to be many times as long as its message.

    Raise `MessageError` for a wrong value, or one out of bounds, for a key that is a known one but for case, ``_``
    and ``-``, and for a known one beside the meta.
    """
    try:
        meta, unknown = read_fields(cls, message.meta)
    except BoundError as e:
        raise MessageError(f"meta {e}") from None
    except FieldError as e:
        raise MessageError(f"{message.action}: meta {e}") from None
    surplus = [key for key in unknown if key != "ctl"]
    if not (surplus or message.beside):
        return meta, []
    known = known_names(cls)
    names = ", ".join(known)
    meant = {_folded(name): name for name in known}
    for key in surplus:
        if name := meant.get(_folded(key)):  # to go on would be to move what "dryrun" was not to move
            raise MessageError(f"{message.action} knows no meta {key[:80]!r}: it is called {name!r}")
    for key in message.beside:
        if name := meant.get(_folded(key)):
            raise MessageError(f"{message.action} looks for {name!r} in 'meta', and it stands beside it")
    warnings = itertools.chain(
        (f"{message.action} knows no meta {key[:80]!r} (it knows {names})" for key in surplus),
        (f"nothing looks at {key[:80]!r}, beside 'action' and 'meta'" for key in message.beside),
    )
    told = list(itertools.islice(warnings, MOST_TOLD))
    more = len(surplus) + len(message.beside) - len(told)
    return meta, [*told, f"and {more} more of the kind"] if more else told


def _folded(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


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


def decode_form(text: str) -> dict[str, Any]:
    """Decode jQuery's form encoding: ``meta[path]=x``, ``meta[retSpec][]=name``, ``a[0]=x``.

    All values are texts; blank ones are kept. Raise `MessageError` for more than
    `MAX_FIELDS` fields or `MOST_CONTAINERS` lists and objects, and for names that contradict each other.

    >>> decode_form("action=ls&meta[path]=a_b&meta[retSpec][]=name&meta[retSpec][]=bytes")
    {'action': 'ls', 'meta': {'path': 'a_b', 'retSpec': ['name', 'bytes']}}
    """
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError as e:
        raise MessageError(f"the form can't be read: {e}") from None
    if sum(name.count("[") for name, _ in pairs) > MOST_CONTAINERS:
        raise MessageError(f"the form has over {MOST_CONTAINERS} lists and objects")
    content: dict[str, Any] = {}
    for name, value in pairs:
        _insert(content, name, value)
    return {name: _with_lists(value) for name, value in content.items()}


_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


def _insert(content: dict[str, Any], name: str, value: str) -> None:
    match = _NAME.fullmatch(name)
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
    _add(content, keys[-1] or str(len(content)), value)


def _add(content: dict[str, Any], key: str, value: str) -> None:
    """Add a leaf. A name that comes again makes a list, as jQuery's ``traditional`` means it."""
    present = content.get(key)
    if isinstance(present, dict):
        raise MessageError(f"the form has both a value and fields under {key!r}")
    if isinstance(present, list):
        present.append(value)
    else:
        content[key] = value if present is None else [present, value]


def _with_lists(value: Any) -> Any:
    """Turn objects with the keys 0, 1, 2 ... into the lists that jQuery made them from."""
    if not isinstance(value, dict):
        return value
    inner = {key: _with_lists(each) for key, each in value.items()}
    places = [str(number) for number in range(len(inner))]
    return [inner[place] for place in places] if set(places) == set(inner) else inner


def looks_like_json(text: str) -> bool:
    """Tell whether the body of a POST is JSON, not a form, whatever its Content-Type says.

    pfurl sends JSON as ``application/x-www-form-urlencoded``. Text that is
    neither passes for the JSON that it was most likely meant to be.
    """
    return "=" not in text or text.lstrip()[:1] in ("{", "[")


def decode_query(text: str) -> dict[str, Any]:
    """Decode the query of a GET. ``meta`` is JSON, bracketed fields, or a Python literal.

    The literal is what ``pfurl --verb GET`` sends: ``meta={'path': 'chris'}``.
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
        pass  # the other form is tried; its error names both
    try:
        if not _LITERAL.fullmatch(text):
            raise ValueError("not what repr() writes; Python might say so on stderr")
        written_as_json = json.dumps(ast.literal_eval(text), allow_nan=False)
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        raise MessageError(f"{name!r} in the query is neither JSON nor a Python literal") from None
    return decode_json(written_as_json)  # what JSON can't say, such as a set, is no message


_ESCAPED = r"\\[\\'\"nrtxuU]"
_LITERAL = re.compile(
    rf"""(?:[\s\[\](){{}}:,.+\deE-]|True|False|None|'(?:[^'\\]|{_ESCAPED})*'|"(?:[^"\\]|{_ESCAPED})*")*"""
)


def _kind(content: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(content), "a number")
