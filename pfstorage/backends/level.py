"""One level of a store, as a directory: what `Storage.list` gives by the delimiter ``/``, each directory once.

Many tools mark a directory ``d`` by an empty object, whose type says so. A store then lists both that
object and, if there is anything below it, the subdirectory ``d/``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from pfstorage.backends.contract import ObjectInfo, Storage
from pfstorage.keys.mapping import FIRST_CHARACTER, start_just_before

SLASH = "/"


def list_level(
    storage: Storage, prefix: str, *, start_after: str = "", limit: int | None = None
) -> Iterator[ObjectInfo]:
    """Yield what the store lists of the level below *prefix*, after *start_after*, for `as_directories`.

    *limit* tells how many rows are wanted: the store is asked for as many at a time. Before
    them come the objects up to *start_after* whose directories are to come after it: ``d``, after ``d-1``.
    """
    yield from _marks_before(storage, prefix, start_after)
    count = limit
    while count == limit:
        count = 0
        for row in storage.list(prefix, start_after=start_after, limit=limit, delimiter=SLASH):
            count, start_after = count + 1, row.key
            yield row
        if limit is None:
            return


def _marks_before(storage: Storage, prefix: str, start_after: str) -> Iterator[ObjectInfo]:
    """Yield the marked directories ``d`` where *start_after* is ``d``, or lies between that and ``d/``."""
    name = start_after[len(prefix) :].partition(SLASH)[0] if start_after.startswith(prefix) else ""
    for length in range(len(prefix), len(prefix) + len(name) + 1):
        key = start_after[:length]
        if key and not key.endswith(SLASH) and start_after[length : length + 1] < SLASH:
            found = storage.list(
                prefix, start_after=start_just_before(key), stop_before=key + FIRST_CHARACTER, delimiter=SLASH
            )
            yield from (row for row in found if row.key == key and row.is_directory)


def as_directories(rows: Iterable[ObjectInfo]) -> Iterator[ObjectInfo]:
    """Yield *rows*, in order, each object that marks a directory ``d`` as the subdirectory ``d/``, and that once.

    >>> rows = [ObjectInfo("d", 0, content_type="application/directory"), ObjectInfo("d-1"), ObjectInfo("e")]
    >>> [row.key for row in as_directories(rows)]
    ['d-1', 'd/', 'e']
    """
    waiting: list[str] = []  # what comes between d and d/ begins with d: the last comes first
    end = ObjectInfo("")
    for row in itertools.chain(rows, [end]):
        while waiting and (row is end or waiting[-1] <= row.key):
            directory = waiting.pop()
            if directory != row.key:
                yield ObjectInfo(directory, is_subdir=True)
        if row.is_directory and not row.is_subdir and not row.key.endswith(SLASH):
            waiting.append(row.key + SLASH)
        elif row is not end:
            yield row
