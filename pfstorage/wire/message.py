"""The message, and the wire forms that it comes in.

A message is ``{"action": "ls", "meta": {...}}``. It arrives as JSON, bare or under
``payload``, as jQuery's form encoding of the same, or as the query of a GET.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pfstorage.errors import MessageError
from pfstorage.wire.decoding import decode_json
from pfstorage.wire.fields import BoundError, FieldError, known_names, read_fields

T = TypeVar("T")
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


def _kind(content: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(content), "a number")
