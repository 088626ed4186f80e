"""From a JSON object to a typed dataclass: the one reader of metas and settings.

The wire says ``mapLocationOver``, Python says ``map_location_over``; the two meet
here. A field may carry ``aliases`` (older names on the wire) in its metadata.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
Naming = Callable[[str], str]
Converter = Callable[[object], object]


@dataclasses.dataclass(frozen=True)
class FromTo:
    """An item of a list: a text, or an object ``{"from", "to"}``. *to* is None for a text."""

    from_: str
    to: str | None = None


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
    single text is taken for a list of one. Raise `FieldError` for a wrong type.
    """
    known: dict[str, object] = {}
    rest = dict(values)
    kind: Any = cls
    for field, names, convert in _readers(kind, naming):
        for name in names:
            value = rest.pop(name, None)
            if value is not None and field not in known:
                known[field] = _converted(name, value, convert)
    return cls(**known), list(rest)


def known_names(cls: type[Any], naming: Naming = camel_case) -> list[str]:
    """Return the wire names of *cls*, in the order of its definition."""
    return [naming(field.name) for field in dataclasses.fields(cls)]


def _converted(name: str, value: object, convert: Converter) -> object:
    try:
        return convert(value)
    except ValueError as e:
        raise FieldError(name, str(e), value) from None


def _short(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return ""  # who knows what is in it
    shown = repr(value)
    return f" {shown}" if len(shown) <= 40 else f" {shown[:37]}..."


@functools.cache
def _readers(cls: Any, naming: Naming) -> list[tuple[str, tuple[str, ...], Converter]]:
    """Return each field of *cls*, with its names on the wire and what converts its values."""
    hints = typing.get_type_hints(cls)
    return [
        (each.name, (naming(each.name), *each.metadata.get("aliases", ())), _converter(hints[each.name]))
        for each in dataclasses.fields(cls)
    ]


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
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
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
