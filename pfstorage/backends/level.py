"""One level of a store, as a directory: what `Storage.list` gives by the delimiter ``/``, each directory once.

Many tools mark a directory ``d`` by an empty object, whose type says so. A store then lists both that
object and, if there is anything below it, the subdirectory ``d/``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from pfstorage.backends.contract import ObjectInfo, Storage
from pfstorage.keys.mapping import FIRST_CHARACTER, just_before

SLASH = "/"


def rows_of_level(
    storage: Storage, prefix: str, *, marker: str = "", limit: int | None = None
) -> Iterator[ObjectInfo]:
    """Yield what the store lists of the level below *prefix*, after *marker*, for `as_directories`.

    *limit* tells how many rows are wanted: the store is asked for as many at a time. Before
    them come the objects up to *marker* whose directories are to come after it: ``d``, after ``d-1``.
    """
    yield from _marks_before(storage, prefix, marker)
    count = limit
    while count == limit:
        count = 0
        for row in storage.list(prefix, marker=marker, limit=limit, delimiter=SLASH):
            count, marker = count + 1, row.key
            yield row
        if limit is None:
            return


def _marks_before(storage: Storage, prefix: str, marker: str) -> Iterator[ObjectInfo]:
    """Yield the marked directories ``d`` where *marker* is ``d``, or lies between that and ``d/``."""
    name = marker[len(prefix) :].partition(SLASH)[0] if marker.startswith(prefix) else ""
    for length in range(len(prefix), len(prefix) + len(name) + 1):
        key = marker[:length]
        if key and not key.endswith(SLASH) and marker[length : length + 1] < SLASH:
            found = storage.list(
                prefix, marker=just_before(key), end_marker=key + FIRST_CHARACTER, delimiter=SLASH
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
