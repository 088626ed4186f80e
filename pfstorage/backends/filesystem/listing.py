"""Listing of the files below a directory, in the order of their keys."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
from collections.abc import Callable, Iterable, Iterator

from pfstorage.backends.content_types import guess_content_type
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.filesystem.errors import store_errors
from pfstorage.backends.filesystem.info import directory_info
from pfstorage.backends.filesystem.row_cache import RowCache
from pfstorage.backends.times import iso_mtime
from pfstorage.errors import InvalidKeyError, NotFoundError, PermissionDeniedError, RejectedError
from pfstorage.keys.mapping import MAX_KEY_BYTES, is_directory_marker, is_unicode, local_parts
from pfstorage.local import LocalTree, is_unfinished, reject_unfinished_name
from pfstorage.runtime.fair_share import FAIR_SHARE

# Errors of a name that was removed during the listing, or became a link, a directory or a file.
_GONE_ERRORS = (NotFoundError, InvalidKeyError)
# Sorting holds the interpreter's lock: 150,000 names at once would stop all other threads for 60 ms.
_NAMES_AT_ONCE = 2048


class Listing:
    """One listing of the objects in *tree* whose keys start with *prefix*, after *start_after*.

    *head* returns the metadata of a key; *cache* avoids most calls. *on_skip* is called with the key, or the prefix, of
    unreadable objects and a reason. If it is None, they raise `PermissionDeniedError`.
    """

    def __init__(
        self,
        tree: LocalTree,
        head: Callable[[str], ObjectInfo],
        cache: RowCache,
        on_skip: Callable[[str, str], None] | None,
        prefix: str,
        start_after: str,
    ) -> None:
        self._tree = tree
        self._head = head
        self._cache = cache
        self._on_skip = on_skip
        self._prefix = prefix
        self._start_after = start_after

    def rows(self) -> Iterator[ObjectInfo]:
        """Yield the objects in the order of their keys. The directories above those of the prefix are not read."""
        directory = self._prefix[: self._prefix.rfind("/") + 1]
        if _can_contain_objects(directory) and self._may_contain_rows(directory):
            yield from self._rows_of(directory)

    def _rows_of(self, directory: str) -> Iterator[ObjectInfo]:
        """Yield the objects below *directory*, which is "" or ends in a slash, in the order of their keys."""
        try:
            with (
                store_errors(self._tree.directory, directory),
                self._tree.open_directory(_parts_of(directory)) as opened,
            ):
                names, status = _sorted_names(opened), os.fstat(opened)
        except _GONE_ERRORS:  # removed after its parent was read
            return
        except PermissionDeniedError as e:
            self._skip(directory, e)
            return
        if names is None:
            yield directory_info(directory, status)
        for name in names or ():
            key = directory + name
            if not self._may_contain_rows(key):
                continue
            if is_directory_marker(key):
                yield from self._rows_of(key)
            elif key > self._start_after and len(key.encode()) <= MAX_KEY_BYTES:
                try:
                    yield self._row(key)
                except _GONE_ERRORS:  # removed after the directory was read
                    continue
                except PermissionDeniedError as e:
                    self._skip(key, e)

    def _may_contain_rows(self, key: str) -> bool:
        if not key.startswith(self._prefix[: len(key)]):
            return False
        return key > self._start_after or self._start_after.startswith(key)

    def _skip(self, key: str, error: PermissionDeniedError) -> None:
        """Report that *key* is skipped. Raise *error* without *on_skip*, or if the whole listing is unreadable."""
        if self._on_skip is None or self._prefix.startswith(key):
            raise error
        self._on_skip(key, os.strerror(errno.EACCES))

    def _row(self, key: str) -> ObjectInfo:
        status = self._status(key)
        if row := self._cache.find(key, status):
            return row
        try:
            row = self._head(key)
            self._cache.keep(row, status, self._status(key))
            return row
        except (PermissionDeniedError, RejectedError):  # the file is unreadable, or a program writes into it
            status = self._status(key)
            return ObjectInfo(key, status.st_size, "", iso_mtime(status), guess_content_type(key))

    def _status(self, key: str) -> os.stat_result:
        with store_errors(self._tree.directory, key):
            return self._tree.status(_parts_of(key))


def _can_contain_objects(directory: str) -> bool:
    """Return whether the files in *directory*, which is "" or ends in a slash, are objects, if it exists."""
    if directory:
        try:
            reject_unfinished_name(local_parts(directory.removesuffix("/"), directory), directory)
        except InvalidKeyError:
            return False
    return is_unicode(directory)


def _parts_of(key: str) -> tuple[str, ...]:
    """Return the components of a key that was found in the store, which needs no validation."""
    return tuple(filter(None, key.split("/")))


def _sorted_names(directory: int) -> Iterable[str] | None:
    """Return the names in *directory*, a descriptor, in the order of their keys. Names of directories end in a slash.

    Return None if the directory is empty. A directory with an unfinished file is not empty.
    """
    runs: list[
        tuple[str, ...]
    ] = []  # a garbage collection examines each item of a list, but not of such a tuple
    with os.scandir(directory) as entries:
        while batch := list(itertools.islice(entries, _NAMES_AT_ONCE)):
            runs.append(tuple(sorted(_names_of_keys(batch))))
            if len(batch) == _NAMES_AT_ONCE:
                FAIR_SHARE.pause()
    if not runs:
        return None
    return runs[0] if len(runs) == 1 else heapq.merge(*runs)


def _names_of_keys(entries: Iterable[os.DirEntry[str]]) -> Iterator[str]:
    """Yield the names of *entries* to which a key leads. Names of directories end in a slash."""
    for entry in entries:
        # a directory may have the name of an unfinished file, too
        if is_unfinished(entry.name) or not is_unicode(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield entry.name + "/"
        elif entry.is_file(follow_symlinks=False):
            yield entry.name
