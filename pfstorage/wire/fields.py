"""Read JSON objects into typed dataclasses: metas, settings and the options of the server.

JSON has the name ``mapLocationOver`` for the attribute ``map_location_over``. The metadata of a field may have
``aliases``, which are older names in JSON, and a ``schema`` in JSON Schema, which adds to the one of its type in
`KINDS`. The reader enforces this schema, and the server publishes it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pfstorage.wire.converters import Converter, FromTo, converter

T = TypeVar("T")
Naming = Callable[[str], str]
Schema = dict[str, Any]

# Characters of a text: more than any store accepts for a key, and than Linux accepts for a path.
MAX_TEXT_LENGTH = 16 * 1024
# The bound of a name whose action reports a longer one as unknown, like any other unknown name.
ANY_LENGTH: Schema = {"maxLength": 1024 * 1024}
# Items of a list: more file names than fit into a message over HTTP.
MAX_ITEMS = 100_000


_TEXT: Schema = {"type": "string", "maxLength": MAX_TEXT_LENGTH}
_PAIR: Schema = {
    "type": "object",
    "properties": {"from": _TEXT, "to": _TEXT},
    "required": ["from", "to"],
    "additionalProperties": False,
}

# The schema of each type of a field, for new clients. `read_fields` also accepts the forms of older clients.
KINDS: dict[object, Schema] = {
    str: _TEXT,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    tuple[str, ...]: {"type": "array", "maxItems": MAX_ITEMS, "items": _TEXT},
    tuple[FromTo, ...]: {
        "type": "array",
        "minItems": 1,
        "maxItems": MAX_ITEMS,
        "items": {"anyOf": [_TEXT, _PAIR], "maxLength": MAX_TEXT_LENGTH},
    },
    object: {},
}


class FieldError(ValueError):
    """A value has the wrong type. The text names the field, the expected type and the value.

    *without_value* is the text without the value, which may be a secret.
    """

    def __init__(self, name: str, takes: str, value: object) -> None:
        self.without_value = f"{name!r} takes {takes}"
        given = f"{type(value).__name__}{_shown(value)}"
        if isinstance(value, list | tuple) and takes.startswith("a list"):
            given = "the items of this one"
        super().__init__(f"{self.without_value}, not {given}")


class BoundError(FieldError):
    """A value has the right type, but is out of bounds or not one of the allowed values."""

    def __init__(self, name: str, takes: str, value: object) -> None:
        super().__init__(name, takes, value)
        self.args = (f"{self.without_value}{f', not{short}' if (short := _shown(value)) else ''}",)


@functools.cache
def camel_case(name: str) -> str:
    """Return the name in messages of the field *name*.

    >>> camel_case("map_location_over")
    'mapLocationOver'
    """
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def snake_case(name: str) -> str:
    """Return *name* unchanged: the blocks of a configuration file have the names of the fields."""
    return name


def without_style(name: str) -> str:
    """Return *name* in lower case without ``_`` and ``-``: two names with the same result are easily confused.

    >>> without_style("dry_run") == without_style("dryRun")
    True
    """
    return name.replace("_", "").replace("-", "").lower()


def read_fields(
    cls: type[T], values: Mapping[str, object], naming: Naming = camel_case
) -> tuple[T, list[str]]:
    """Build a *cls* from *values*. Return it and the unknown names, in order.

    A missing name and ``null`` leave the default. Forms have only text: so a text may be a number or a boolean, and a
    single text may be a list of one item. Raise `FieldError` for a wrong type, and `BoundError` for a value that the
    schema of the field forbids.
    """
    known: dict[str, object] = {}
    rest = dict(values)
    kind: Any = cls
    for field in wire_fields(kind, naming):
        for name in field.names:
            value = rest.pop(name, None)
            if value is not None and field.attribute not in known:
                if isinstance(value, list):
                    _check_length(name, field.schema, value)  # before the conversion, which takes longer
                known[field.attribute] = _converted(name, value, field.convert)
                _check_bounds(name, field.schema, known[field.attribute])
    return cls(**known), list(rest)


def read_value(name: str, hint: object, value: object) -> Any:
    """Return *value* as the type *hint* for the field *name*. Raise `FieldError` for a wrong type."""
    return _converted(name, value, converter(hint))


def known_names(cls: Any, naming: Naming = camel_case) -> list[str]:
    """Return the names of the fields of *cls* in messages, in the order of its definition."""
    return [field.names[0] for field in wire_fields(cls, naming)]


def _converted(name: str, value: object, convert: Converter) -> object:
    try:
        return convert(value)
    except ValueError as e:
        raise FieldError(name, str(e), value) from None


def _check_bounds(name: str, schema: Schema, value: Any) -> None:
    """Raise `BoundError` if *schema* does not allow *value*, which has its type."""
    if isinstance(value, str):
        words = schema.get("enum")
        if words and value not in words:
            raise BoundError(name, " or ".join(words), value)
        if len(value) > (most := schema.get("maxLength", math.inf)):
            raise BoundError(name, f"text of up to {most} characters", value)
    elif isinstance(value, tuple):
        _check_list(name, schema, value)
    elif "minimum" in schema:
        least, most = schema["minimum"], schema.get("maximum", math.inf)
        if not least <= value <= most:
            bounds = f"from {least} to {most}" if "maximum" in schema else f"from {least} on"
            raise BoundError(name, f"a number {bounds}", value)


def _check_length(name: str, schema: Schema, value: Sequence[object]) -> None:
    if len(value) > (most := schema.get("maxItems", math.inf)):
        raise BoundError(name, f"at most {most} items, not {len(value)}", value)


def _check_list(name: str, schema: Schema, value: tuple[Any, ...]) -> None:
    _check_length(name, schema, value)
    if schema.get("uniqueItems") and len(set(value)) < len(value):
        raise BoundError(name, "each item once", value)
    items = schema.get("items", {})
    least, most = items.get("minLength", 0), items.get("maxLength", math.inf)
    texts = (text for each in value for text in _texts_of(each))
    if any(not least <= len(text) <= most for text in texts):
        raise BoundError(name, f"items of {least} to {most} characters", value)


def _texts_of(item: str | FromTo) -> tuple[str, ...]:
    return (item,) if isinstance(item, str) else (item.from_, item.to or "")


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return ""  # its content may be long, or secret
    shown = repr(value)
    return f" {shown}" if len(shown) <= 40 else f" {shown[:37]}..."


class WireField(NamedTuple):
    """A field of a dataclass: its *names* in messages or settings, the current one first."""

    attribute: str
    names: tuple[str, ...]
    hint: object
    schema: Schema
    convert: Converter
    default: object


@functools.cache
def wire_fields(cls: Any, naming: Naming = camel_case) -> tuple[WireField, ...]:
    """Return the fields of the dataclass *cls*, in the order of its definition."""
    hints = typing.get_type_hints(cls)
    return tuple(
        WireField(
            each.name,
            (naming(each.name), *each.metadata.get("aliases", ())),
            hints[each.name],
            {**_schema_of_type(hints[each.name]), **each.metadata.get("schema", {})},
            converter(hints[each.name]),
            each.default,
        )
        for each in dataclasses.fields(cls)
    )


def _schema_of_type(hint: object) -> Schema:
    if not isinstance(hint, types.UnionType):
        return KINDS.get(hint, {})
    kinds = [KINDS[kind] for kind in typing.get_args(hint) if kind is not type(None)]
    if len(kinds) == 1:
        return kinds[0]
    return {
        **{key: value for kind in kinds for key, value in kind.items()},
        "type": [kind["type"] for kind in kinds],
    }
