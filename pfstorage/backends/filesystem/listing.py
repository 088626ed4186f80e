"""Listing of the files below a directory, in the order of their keys."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator

from pfstorage.backends.content_types import guess_content_type
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.filesystem.errors import store_errors
from pfstorage.backends.filesystem.info import directory_info
from pfstorage.backends.filesystem.row_cache import RowCache
from pfstorage.backends.times import iso_mtime
from pfstorage.errors import InvalidKeyError, NotFoundError, PermissionDeniedError, RejectedError
from pfstorage.keys.mapping import MAX_KEY_BYTES, is_directory_marker, is_unicode
from pfstorage.local import LocalTree, is_unfinished

# Errors of a name that was removed during the listing, or became a link, a directory or a file.
_GONE = (NotFoundError, InvalidKeyError)


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

    def rows(self, directory: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects below *directory*, which is "" or ends in a slash, in the order of their keys."""
        try:
            with (
                store_errors(self._tree.directory, directory),
                self._tree.open_directory(_parts_of(directory)) as opened,
            ):
                names, status = _sorted_names(opened), os.fstat(opened)
        except _GONE:  # removed after its parent was read
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
                yield from self.rows(key)
            elif key > self._start_after and len(key.encode()) <= MAX_KEY_BYTES:
                try:
                    yield self._row(key)
                except _GONE:  # removed after the directory was read
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


def _parts_of(key: str) -> tuple[str, ...]:
    """Return the components of a key that was found in the store, which needs no validation."""
    return tuple(filter(None, key.split("/")))


def _sorted_names(directory: int) -> list[str] | None:
    """Return the names in *directory*, a descriptor, in the order of their keys. Names of directories end in a slash.

    Return None if the directory is empty. A directory with an unfinished file is not empty.
    """
    names = []
    is_empty = True
    with os.scandir(directory) as entries:
        for entry in entries:
            is_empty = False
            if is_unfinished(entry.name):  # this may be a directory, too: no key leads there
                continue
            if entry.is_dir(follow_symlinks=False):
                names.append(entry.name + "/")
            elif entry.is_file(follow_symlinks=False):
                names.append(entry.name)
    return None if is_empty else sorted(name for name in names if is_unicode(name))
