"""From a JSON object to a typed dataclass: the one reader of metas and settings.

The wire says ``mapLocationOver``, Python says ``map_location_over``; the two meet
here. A field may carry ``aliases`` (older names on the wire) in its metadata, and a ``schema``:
what JSON Schema says of its value beyond `KINDS`. It is both what is enforced and what is told.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Naming = Callable[[str], str]
Converter = Callable[[object], object]
Schema = dict[str, Any]

LONGEST_TEXT = 16 * 1024
"""Characters of a text: more than any store takes for a key, and than Linux takes for a path."""
ANY_LENGTH: Schema = {"maxLength": 1024 * 1024}
"""The bound of a name that, if it is too long, is unknown as others are."""
MOST_ITEMS = 100_000
"""Of a list: more than fit into a message that comes over HTTP, if they are the names of files."""


@dataclasses.dataclass(frozen=True)
class FromTo:
    """An item of a list: a text, or an object ``{"from", "to"}``. *to* is None for a text."""

    from_: str
    to: str | None = None


_TEXT: Schema = {"type": "string", "maxLength": LONGEST_TEXT}
_PAIR: Schema = {
    "type": "object",
    "properties": {"from": _TEXT, "to": _TEXT},
    "required": ["from", "to"],
    "additionalProperties": False,
}

KINDS: dict[object, Schema] = {
    str: _TEXT,
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    tuple[str, ...]: {"type": "array", "maxItems": MOST_ITEMS, "items": _TEXT},
    tuple[FromTo, ...]: {
        "type": "array",
        "minItems": 1,
        "maxItems": MOST_ITEMS,
        "items": {"anyOf": [_TEXT, _PAIR], "maxLength": LONGEST_TEXT},
    },
    object: {},
}
"""What a field takes, by its type. It takes more, as `read_fields` tells; this is what a new client sends."""


class FieldError(ValueError):
    """A value has the wrong type. The text names the field, what it takes, and what came.

    *without_value* leaves out what came, for a field that may hold a secret.
    """

    def __init__(self, name: str, takes: str, value: object) -> None:
        self.without_value = f"{name!r} takes {takes}"
        came = f"{type(value).__name__}{_short(value)}"
        if isinstance(value, list | tuple) and takes.startswith("a list"):
            came = "what this one holds"
        super().__init__(f"{self.without_value}, not {came}")


class BoundError(FieldError):
    """A value has the right type, and is larger or smaller than it may be, or none of those that there are."""

    def __init__(self, name: str, takes: str, value: object) -> None:
        super().__init__(name, takes, value)
        self.args = (f"{self.without_value}{f', not{short}' if (short := _short(value)) else ''}",)


@functools.cache
def camel_case(name: str) -> str:
    """Return the name on the wire of the field *name*.

    >>> camel_case("map_location_over")
    'mapLocationOver'
    """
    head, *tail = name.split("_")
    return head + "".join(part.capitalize() for part in tail)


def snake_case(name: str) -> str:
    """Return *name* as it is: the naming of the blocks of a configuration file."""
    return name


def read_fields(
    cls: type[T], values: Mapping[str, object], naming: Naming = camel_case
) -> tuple[T, list[str]]:
    """Build a *cls* from *values*; return it and the names it does not know, in order.

    A missing name and ``null`` leave the field's default. Text is taken for a
    number or a truth value where it reads as one, since a form has only text; a
    single text is taken for a list of one. Raise `FieldError` for a wrong type, and `BoundError` for
    a value that the schema of the field forbids.
    """
    known: dict[str, object] = {}
    rest = dict(values)
    kind: Any = cls
    for field in wire_fields(kind, naming):
        for name in field.names:
            value = rest.pop(name, None)
            if value is not None and field.attribute not in known:
                known[field.attribute] = _converted(name, value, field.convert)
                _check(name, field.schema, known[field.attribute])
    return cls(**known), list(rest)


def read_value(name: str, hint: object, value: object) -> Any:
    """Return *value* as the type *hint* for the field *name*. Raise `FieldError` for a wrong type."""
    return _converted(name, value, _converter(hint))


def known_names(cls: Any, naming: Naming = camel_case) -> list[str]:
    """Return the wire names of *cls*, in the order of its definition."""
    return [field.names[0] for field in wire_fields(cls, naming)]


def _converted(name: str, value: object, convert: Converter) -> object:
    try:
        return convert(value)
    except ValueError as e:
        raise FieldError(name, str(e), value) from None


def _check(name: str, schema: Schema, value: Any) -> None:
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


def _check_list(name: str, schema: Schema, value: tuple[Any, ...]) -> None:
    if len(value) > (most := schema.get("maxItems", math.inf)):
        raise BoundError(name, f"at most {most} items, not {len(value)}", value)
    if schema.get("uniqueItems") and len(set(value)) < len(value):
        raise BoundError(name, "each item once", value)
    items = schema.get("items", {})
    least, most = items.get("minLength", 0), items.get("maxLength", math.inf)
    texts = (text for each in value for text in _texts_of(each))
    if any(not least <= len(text) <= most for text in texts):
        raise BoundError(name, f"items of {least} to {most} characters", value)


def _texts_of(item: str | FromTo) -> tuple[str, ...]:
    return (item,) if isinstance(item, str) else (item.from_, item.to or "")


def _short(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return ""  # who knows what is in it
    shown = repr(value)
    return f" {shown}" if len(shown) <= 40 else f" {shown[:37]}..."


class WireField(NamedTuple):
    """A field of a dataclass as messages and settings see it: its *names* there, the current one first."""

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
            _converter(hints[each.name]),
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


def _converter(hint: object) -> Converter:
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return _converter(kinds[0]) if len(kinds) == 1 else functools.partial(_one_of, tuple(kinds))
    return _CONVERTERS[hint]


def _one_of(kinds: tuple[type, ...], value: object) -> object:
    if not isinstance(value, kinds):
        raise ValueError(" or ".join(kind.__name__ for kind in kinds))
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("text")
    return value


def _flag(value: object) -> bool:
    word = value.lower() if isinstance(value, str) else value
    if word in (True, "true", "1", "yes", "on"):
        return True
    if word in (False, "false", "0", "no", "off", ""):
        return False
    raise ValueError("true or false")


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("a whole number")
    try:
        return int(value)
    except ValueError:
        raise ValueError("a whole number") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("a number")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError("a number") from None


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,) if value else ()
    if not isinstance(value, list | tuple) or not set(map(type, value)) <= {str}:
        raise ValueError("a list of texts")
    return tuple(value)


def _pairs(value: object) -> tuple[FromTo, ...]:
    items = [value] if isinstance(value, str | Mapping) else value
    if not isinstance(items, list | tuple):
        raise ValueError("a list of texts, or of objects with 'from' and 'to'")
    return tuple(map(_pair, items))


def _pair(item: object) -> FromTo:
    if isinstance(item, str):
        return FromTo(item)
    if not isinstance(item, Mapping) or not isinstance(item.get("from"), str):
        raise ValueError("a list of texts, or of objects with the texts 'from' and 'to'")
    if unknown := set(item) - {"from", "to"}:
        raise ValueError(
            f"a list of texts, or of objects with 'from' and 'to' and no {str(min(unknown))[:80]!r}"
        )
    if not isinstance(item.get("to"), str):
        raise ValueError("a list of texts, or of objects with the text 'to' beside 'from'")
    return FromTo(item["from"], item["to"])


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("an object")
    return value


_CONVERTERS: dict[object, Converter] = {
    str: _text,
    bool: _flag,
    int: _integer,
    float: _number,
    tuple[str, ...]: _texts,
    tuple[FromTo, ...]: _pairs,
    Mapping[str, Any]: _mapping,
    object: lambda value: value,
}
