"""Listings: filters for stores without their own, and one level of a store shown as a directory.

Many tools mark a directory ``d`` by an empty object with a special content type. A store then lists both this
object and, if there are objects below it, the subdirectory ``d/``. The functions here show the directory once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from pfstorage.backends.contract import ObjectInfo, Storage
from pfstorage.keys.mapping import FIRST_CHARACTER, start_just_before

SLASH = "/"


def select(
    rows: Iterable[ObjectInfo],
    prefix: str,
    start_after: str,
    stop_before: str,
    limit: int | None,
    delimiter: str,
) -> Iterator[ObjectInfo]:
    """Apply the arguments of `Storage.list` to *rows*, in ascending order of their keys."""
    matching = (row for row in rows if row.key.startswith(prefix))
    grouped = _group_by_delimiter(matching, prefix, delimiter) if delimiter else matching
    for count, row in enumerate(row for row in grouped if row.key > start_after):
        if count == limit or (stop_before and row.key >= stop_before):
            return
        yield row


def _group_by_delimiter(rows: Iterable[ObjectInfo], prefix: str, delimiter: str) -> Iterator[ObjectInfo]:
    last = None
    for row in rows:
        head, found, _ = row.key[len(prefix) :].partition(delimiter)
        if not found:
            yield row
        elif prefix + head != last:
            last = prefix + head
            yield ObjectInfo(last + delimiter, is_subdir=True)


def list_level(
    storage: Storage, prefix: str, *, start_after: str = "", limit: int | None = None
) -> Iterator[ObjectInfo]:
    """Yield the rows of the level below *prefix*, after *start_after*, as input for `as_directories`.

    *limit* is the page size of the requests to the store, and the number of rows that the caller wants. More rows
    may follow. The first rows may be marked directories up to *start_after* whose ``d/`` sorts after it: ``d``
    comes before ``d-1``, and ``d/`` after it.
    """
    yield from _earlier_marked_directories(storage, prefix, start_after)
    count = limit
    while count == limit:
        count = 0
        for row in storage.list(prefix, start_after=start_after, limit=limit, delimiter=SLASH):
            count, start_after = count + 1, row.key
            yield row
        if limit is None:
            return


def _earlier_marked_directories(storage: Storage, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Yield each marked directory ``d`` where *start_after* is ``d`` or sorts between ``d`` and ``d/``."""
    name = start_after[len(prefix) :].partition(SLASH)[0] if start_after.startswith(prefix) else ""
    for length in range(len(prefix), len(prefix) + len(name) + 1):
        key = start_after[:length]
        if key and not key.endswith(SLASH) and start_after[length : length + 1] < SLASH:
            found = storage.list(
                prefix, start_after=start_just_before(key), stop_before=key + FIRST_CHARACTER, delimiter=SLASH
            )
            yield from (row for row in found if row.key == key and row.is_directory)


def as_directories(rows: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Yield *rows* in order, but show an object that marks a directory ``d`` as the subdirectory ``d/``, once.

    >>> rows = [ObjectInfo("d", 0, content_type="application/directory"), ObjectInfo("d-1"), ObjectInfo("e")]
    >>> [row.key for row in as_directories(rows)]
    ['d-1', 'd/', 'e']
    """
    # A stack: each key between d and d/ begins with d, so the directory found last sorts first.
    pending: list[str] = []
    end = ObjectInfo("")
    for row in itertools.chain(rows, [end]):
        while pending and (row is end or pending[-1] <= row.key):
            directory = pending.pop()
            if directory != row.key:
                yield ObjectInfo(directory, is_subdir=True)
        if row.is_directory and not row.is_subdir and not row.key.endswith(SLASH):
            pending.append(row.key + SLASH)
        elif row is not end:
            yield row
