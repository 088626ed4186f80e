"""Parse the rows of a listing of a Swift into tuples, and pack them: a page then needs a fifth of the memory."""

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
from pfstorage.keys.mapping import is_unicode

# The fields of an object, or only the key of a subdir.
PackedRow = tuple[Any, ...]

# No object and no file has this size.
MOST_BYTES = 2**63
# Rows that are unpacked at the same time.
ROWS_PER_BATCH = 1000
# Bytes of a page that is small enough to stay unpacked.
SMALL = 256 * 1024
# Bytes, or a few more, of one row. Names and content types in Swift have at most 1024 bytes.
LONGEST_ROW = 1024**2
# The errors of reading a text that should be JSON of some form.
NO_JSON = (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError)

_FIELDS = ("name", "bytes", "hash", "last_modified", "content_type")
_PLAIN = len(_FIELDS)
# each row of a Swift has these fields, but a proxy may drop one
_of_each_row = operator.itemgetter(*_FIELDS)
_TEXTS = ("name", "subdir", *_FIELDS[2:], "slo_etag", "version_id", "symlink_path")
_parse = json.JSONDecoder().raw_decode
_AFTER_ROW = re.compile(r"\s*([,\]])\s*")


class WrongRowError(ValueError):
    """A row of a listing or of a manifest is no object, or has a field of a wrong type."""


def rows_of(content: bytes) -> Sequence[PackedRow]:
    """Parse the page *content*. Raise `WrongRowError`, or one of `NO_JSON` for other content."""
    rows = json.loads(content)
    if not isinstance(rows, list):
        raise ValueError("a listing must be a JSON array")
    return [_row_of(row) for row in rows]


def rows_coming(chunks: Iterable[bytes]) -> Sequence[PackedRow]:
    """Parse a large page from *chunks*, without the whole page in memory. Raise the errors of `rows_of`."""
    return PackedRows(map(_row_of, _parsed(chunks)))


def _parsed(chunks: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Yield each object of a JSON array as soon as it is complete. Raise `ValueError`."""
    decode = codecs.getincrementaldecoder("utf-8")().decode
    text, at, last = "", 0, ""
    for chunk in chunks:
        text, at = (text[at:] + decode(chunk)).lstrip(), 0
        if not last and text:
            if text[0] != "[":
                raise ValueError("a listing must be a JSON array")
            text, last = text[1:].lstrip(), "["
        if last == "[" and text[:1] == "]":
            at, last = 1, "]"
        while last not in ("", "]"):
            try:
                row, end = _parse(text, at)
            except json.JSONDecodeError:  # the rest of the row is in a later chunk
                break
            after = _AFTER_ROW.match(text, end)
            if not after:
                break
            yield row
            at, last = after.end(), after[1]
        if len(text) - at > LONGEST_ROW or (last == "]" and text[at:].strip()):
            raise ValueError("a listing must be a JSON array")
    if last != "]":
        raise ValueError("the listing is cut off")


def _row_of(row: dict[str, Any]) -> PackedRow:
    try:
        key, size, etag, modified, kind = _of_each_row(row)
        is_plain = type(key) is type(etag) is type(modified) is type(kind) is str and type(size) is int
    except (KeyError, TypeError):
        is_plain = False
    # nearly all rows are plain; the others take the slow path below
    is_plain = is_plain and key and 0 <= size < MOST_BYTES and len(row) == _PLAIN
    if is_plain and ((key.isascii() and kind.isascii()) or is_unicode(key + kind)):
        return key, size, etag, modified, kind, ""
    require_row(row)
    if "subdir" in row:
        return (row["subdir"],)
    key, size, etag, modified, kind = map(row.get, _FIELDS)
    if type(size) is not int or not 0 <= size < MOST_BYTES:
        size = None
    return key, size, etag or "", modified or "", kind or "", (row.get("slo_etag") or "").strip('"')


def require_row(row: Any) -> None:
    """Raise `WrongRowError` unless *row* is an object with a name, and each field has its type or is null.

    The size may be any number. A negative or fractional size counts as unknown.
    """
    if type(row) is not dict:
        raise WrongRowError(f"a row is {_kind_of(row)}, not an object")
    for name in _TEXTS:
        value = row.get(name)
        if not (value is None or (type(value) is str and is_unicode(value))):
            raise WrongRowError(f"{name!r} of a row is {_kind_of(value)}, not a text")
    if not (row.get("name") or row.get("subdir")):
        raise WrongRowError("a row has no name")
    size = row.get("bytes")
    if not (size is None or isinstance(size, int | float) or (type(size) is str and size.isdecimal())):
        raise WrongRowError(f"'bytes' of a row is {_kind_of(size)}, not a number")


def _kind_of(value: object) -> str:
    if isinstance(value, str):
        return "a text" if is_unicode(value) else "no Unicode"
    return {dict: "an object", list: "a list", bool: "a truth value", type(None): "null"}.get(
        type(value), "a number"
    )


def name_of(row: PackedRow) -> str:
    """Return the key of a packed row."""
    return str(row[0])


def info_of_row(row: PackedRow) -> ObjectInfo:
    """Return the object, or the group of objects, of a packed row."""
    if len(row) == 1:
        return ObjectInfo(row[0], is_subdir=True)
    key, size, etag, modified, kind, segments = row
    return ObjectInfo(key, size, etag, modified, kind, segments_etag=segments)


class PackedRows(Sequence[PackedRow]):
    """A sequence of rows in packed batches, which are unpacked one at a time."""

    def __init__(self, rows: Iterable[PackedRow]) -> None:
        self._batches: list[bytes] = []
        self._count = 0
        rest = iter(rows)
        while batch := list(itertools.islice(rest, ROWS_PER_BATCH)):
            self._batches.append(marshal.dumps(batch))
            self._count += len(batch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[PackedRow]:
        for number in range(len(self._batches)):
            yield from self._batch(number)

    def _batch(self, number: int) -> list[PackedRow]:
        rows: list[PackedRow] = marshal.loads(self._batches[number])  # noqa: S302 - this process wrote it
        return rows

    @overload
    def __getitem__(self, place: int) -> PackedRow: ...

    @overload
    def __getitem__(self, place: slice) -> list[PackedRow]: ...

    def __getitem__(self, place: int | slice) -> PackedRow | list[PackedRow]:
        if isinstance(place, slice):
            return list(self)[place]
        number, offset = divmod(range(self._count)[place], ROWS_PER_BATCH)
        return self._batch(number)[offset]
