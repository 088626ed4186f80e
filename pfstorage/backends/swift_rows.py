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

from pfstorage.backends.base import ObjectInfo

Row = tuple[Any, ...]
"""The fields of an object, or the key of a subdir alone."""

BATCH = 1000
"""Rows that are unpacked at once."""
SMALL = 256 * 1024
"""Bytes of a page up to which it is not worth it."""

_FIELDS = ("name", "bytes", "hash", "last_modified", "content_type")
# of every row of a Swift; what stands between may leave one out
_of_each_row = operator.itemgetter(*_FIELDS)
_parse = json.JSONDecoder().raw_decode
_AFTER_ROW = re.compile(r"\s*([,\]])\s*")


def rows_of(content: bytes) -> Sequence[Row]:
    """Return the rows of the page *content*. Raise `ValueError` and its like for what is no listing."""
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
        if last == "]" and text[at:].strip():
            raise ValueError("it is no list")
    if last != "]":
        raise ValueError("it is cut off")


def _row_of(row: dict[str, Any]) -> Row:
    if "subdir" in row:
        return (row["subdir"],)
    try:
        key, size, etag, modified, kind = _of_each_row(row)
    except KeyError:
        key, size, etag, modified, kind = row["name"], *map(row.get, _FIELDS[1:])
    if type(key) is not str:
        raise ValueError("its rows have no names")
    if type(size) is not int or size < 0:
        size = None
    segments = row["slo_etag"].strip('"') if "slo_etag" in row else ""
    return key, size, etag or "", modified or "", kind or "", segments


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
