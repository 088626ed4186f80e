"""The rows of a listing of a Swift, packed: a page of them waits in a fifth of the memory that its dicts would take."""

from __future__ import annotations

import codecs
import itertools
import json
import marshal
import operator
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

from pfstorage.backends.contract import ObjectInfo

Row = tuple[Any, ...]
"""The fields of an object, or the key of a subdir alone."""

MOST_BYTES = 2**63
"""No object has as many: no file can."""
BATCH = 1000
"""Rows that are unpacked at once."""
SMALL = 256 * 1024
"""Bytes of a page up to which it is not worth it."""
LONGEST_ROW = 1024**2
"""Bytes, or a few more, of a row that is waited for: Swift's names and types are 1024 bytes at most."""
NO_JSON = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)
"""The errors of reading what should be JSON of some form."""

_FIELDS = ("name", "bytes", "hash", "last_modified", "content_type")
_PLAIN = len(_FIELDS)
# of every row of a Swift; what stands between may leave one out
_of_each_row = operator.itemgetter(*_FIELDS)
_TEXTS = ("name", "subdir", *_FIELDS[2:], "slo_etag", "version_id", "symlink_path")
_parse = json.JSONDecoder().raw_decode
_AFTER_ROW = re.compile(r"\s*([,\]])\s*")


class WrongRowError(ValueError):
    """A row of a listing, or of a manifest, has a field of a wrong type, or is no object."""


def rows_of(content: bytes) -> Sequence[Row]:
    """Return the rows of the page *content*. Raise `WrongRowError`, or one of `NO_JSON` for what is no listing."""
    rows = json.loads(content)
    if not isinstance(rows, list):
        raise ValueError("it is no list")
    return [_row_of(row) for row in rows]


def rows_coming(chunks: Iterable[bytes]) -> Sequence[Row]:
    """Return the rows of a large page, which is read in *chunks* and never whole in memory. Raise as `rows_of` does."""
    return PackedRows(map(_row_of, _parsed(chunks)))


def _parsed(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield the objects of an array in JSON as they come. Raise `ValueError`."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    text, at, last = "", 0, ""
    for chunk in chunks:
        text, at = (text[at:] + decode(chunk)).lstrip(), 0
        if not last and text:
            if text[0] != "[":
                raise ValueError("it is no list")
            text, last = text[1:].lstrip(), "["
        if last == "[" and text[:1] == "]":
            at, last = 1, "]"
        while last not in ("", "]"):
            try:
                row, end = _parse(text, at)
            except json.JSONDecodeError:  # the rest of it is yet to come
                break
            after = _AFTER_ROW.match(text, end)
            if not after:
                break
            yield row
            at, last = after.end(), after[1]
        if len(text) - at > LONGEST_ROW or (last == "]" and text[at:].strip()):
            raise ValueError("it is no list")
    if last != "]":
        raise ValueError("it is cut off")


def _row_of(row: dict[str, Any]) -> Row:
    try:
        key, size, etag, modified, kind = _of_each_row(row)
        is_plain = type(key) is type(etag) is type(modified) is type(kind) is str and type(size) is int
    except (KeyError, TypeError):
        is_plain = False
    # as nearly all rows are; the others are looked at more closely
    is_plain = is_plain and key and 0 <= size < MOST_BYTES and len(row) == _PLAIN
    if is_plain and ((key.isascii() and kind.isascii()) or _is_unicode(key + kind)):
        return key, size, etag, modified, kind, ""
    require_row(row)
    if "subdir" in row:
        return (row["subdir"],)
    key, size, etag, modified, kind = map(row.get, _FIELDS)
    if type(size) is not int or not 0 <= size < MOST_BYTES:
        size = None
    return key, size, etag or "", modified or "", kind or "", (row.get("slo_etag") or "").strip('"')


def require_row(row: Any) -> None:
    """Raise `WrongRowError` unless *row* is an object with a name, whose texts are texts, or null.

    Its size may be a number that makes no sense: then it is not known.
    """
    if type(row) is not dict:
        raise WrongRowError(f"a row is {_kind_of(row)}, not an object")
    for name in _TEXTS:
        value = row.get(name)
        if not (value is None or (type(value) is str and _is_unicode(value))):
            raise WrongRowError(f"{name!r} of a row is {_kind_of(value)}, not a text")
    if not (row.get("name") or row.get("subdir")):
        raise WrongRowError("a row has no name")
    size = row.get("bytes")
    if not (size is None or isinstance(size, int | float) or (type(size) is str and size.isdecimal())):
        raise WrongRowError(f"'bytes' of a row is {_kind_of(size)}, not a number")


def _is_unicode(text: str) -> bool:
    """Tell whether *text* has no lone surrogate, which JSON can write, and which no key has."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _kind_of(value: object) -> str:
    if isinstance(value, str):
        return "a text" if _is_unicode(value) else "no Unicode"
    return {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )


def name_of(row: Row) -> str:
    return str(row[0])


def info_of_row(row: Row) -> ObjectInfo:
    if len(row) == 1:
        return ObjectInfo(row[0], is_subdir=True)
    key, size, etag, modified, kind, segments = row
    return ObjectInfo(key, size, etag, modified, kind, segments_etag=segments)


class PackedRows(Sequence[Row]):
    """Rows that take little memory until they are used, some at a time."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._batches: list[bytes] = []
        self._count = 0
        rest = iter(rows)
        while batch := list(itertools.islice(rest, BATCH)):
            self._batches.append(marshal.dumps(batch))
            self._count += len(batch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        for number in range(len(self._batches)):
            yield from self._batch(number)

    def _batch(self, number: int) -> list[Row]:
        rows: list[Row] = marshal.loads(self._batches[number])  # noqa: S302 - our own
        return rows

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...

    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return list(self)[place]
        number, offset = divmod(range(self._count)[place], BATCH)
        return self._batch(number)[offset]
