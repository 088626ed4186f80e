"""Convert decoded JSON, or the texts of a form, to the types of fields."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Converter = Callable[[object], object]


@dataclass(frozen=True)
class FromTo:
    """An item of a list: a text, or an object ``{"from", "to"}``. *to* is None for a text."""

    from_: str
    to: str | None = None


def converter(hint: object) -> Converter:
    """Return the function that converts a value to the type *hint*. It raises `ValueError` with the expected type."""
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return converter(kinds[0]) if len(kinds) == 1 else functools.partial(_one_of, tuple(kinds))
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
        raise ValueError("a list of texts, or of objects with the texts 'from' and 'to'")
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
