"""Parse messages and read their metas.

A message is ``{"action": "ls", "meta": {...}}``. It arrives as JSON, bare or under ``payload``, in jQuery's form
encoding, or in the query of a GET.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pfstorage.errors import MessageError
from pfstorage.wire.decoding import decode_json
from pfstorage.wire.fields import BoundError, FieldError, known_names, read_fields, without_style

T = TypeVar("T")
# A reply names this many unknown keys of a message, and counts further ones: a reply must not be much longer than its
# message.
MAX_KEY_WARNINGS = 20
# A dict is a Mapping, too; the test for a dict takes a fraction of the time.
_OBJECT = (dict, Mapping)


_KEYS = frozenset(("action", "meta", "args"))


@dataclass(frozen=True)
class Message:
    """A decoded message. *meta* is empty if the message has none; *other* has the other keys of the message."""

    action: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    other: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, source: str | bytes | Mapping[str, Any]) -> Message:
        """Read a message from JSON text or from decoded JSON.

        pypx names the meta ``args``. Raise `MessageError` unless the message is an object with a text ``action``, or
        with a ``meta.ctl``.
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
    """Read the meta of *message* as a *cls*. Return it with warnings of unknown keys of the meta and of the message.

    Raise `MessageError` for a value of a wrong type or out of bounds, for a key that differs from a known one only in
    case, ``_`` and ``-``, and for a key of the meta that is outside of it.
    """
    try:
        meta, unknown = read_fields(cls, message.meta)
    except BoundError as e:
        raise MessageError(f"meta {e}") from None
    except FieldError as e:
        raise MessageError(f"{message.action}: meta {e}") from None
    surplus = [key for key in unknown if key != "ctl"]
    if not (surplus or message.other):
        return meta, []
    known = known_names(cls)
    names = ", ".join(known)
    intended = {without_style(name): name for name in known}
    for key in surplus:
        if name := intended.get(without_style(key)):  # without this error, "dryrun" would move files
            raise MessageError(f"{message.action} knows no meta {key[:80]!r}: it is called {name!r}")
    for key in message.other:
        if name := intended.get(without_style(key)):
            raise MessageError(f"{name!r} is outside of 'meta': {message.action} takes it in 'meta'")
    warnings = itertools.chain(
        (f"{message.action} knows no meta {key[:80]!r} (it knows {names})" for key in surplus),
        (f"unknown top-level key {key[:80]!r}; a message has 'action' and 'meta'" for key in message.other),
    )
    named = list(itertools.islice(warnings, MAX_KEY_WARNINGS))
    more = len(surplus) + len(message.other) - len(named)
    return meta, [*named, f"and {more} more of the kind"] if more else named


def _kind(content: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(content), "a number")
