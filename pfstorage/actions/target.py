"""The local files of a pull: the path of each object, and conflicts between paths."""

from __future__ import annotations

import functools
import hashlib
import os
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.errors import InvalidKeyError, LocalFileError
from pfstorage.keys.collisions import Collisions
from pfstorage.keys.mapping import join, local_parts, relative_to
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalAccess, local_errors, reject_unfinished_name
from pfstorage.transfer import Failure, Transfer


class Target:
    """The mapping of objects below *location* to files below *over*; without *over*, of whole keys to files in *cwd*.

    Raise `ForbiddenError` if *local_access* does not allow the directory.
    """

    def __init__(
        self, location: str, over: str, local_access: LocalAccess, *, keeps_open: bool = True
    ) -> None:
        self.local_access = local_access
        self.cwd = local_access.cwd_if_any if over else local_access.cwd
        self.location = location
        self.over = over
        self.root = (self.over.rstrip("/") or "/") if self.over else self.cwd
        self._tree, self._parts = local_access.directory(self.root, keeps_open=keeps_open)

    @property
    def path(self) -> str:
        """The path of the target, as the message spells it."""
        return self.over or self.top

    @property
    def top(self) -> str:
        """The directory that contains all files."""
        return self.root if self.over else join(self.cwd, self.location)

    def relative_path(self, key: str, *, is_directory: bool = False) -> str | None:
        """Return the path of *key* relative to the root, or None if *key* is not below the location.

        The path of the location itself is "", because the root is its file, or with *is_directory*, its directory. A
        root with a final slash is always a directory, and the file in it has the last component of the location.
        """
        rest = relative_to(key, self.location)
        if rest is None or not self.over:
            return rest if rest is None else key
        is_inside = not rest and not is_directory and self.over.endswith("/")
        return key.removesuffix("/").rpartition("/")[2] if is_inside else rest

    def transfer(self, row: ObjectInfo) -> Transfer:
        """Return the transfer of *row* to its file. Raise `InvalidKeyError` if its key can't be a file."""
        rest = self.relative_path(row.key, is_directory=row.is_directory)
        if rest is None:
            raise InvalidKeyError(f"{row.key!r} is not below fromLocation {self.location!r}", key=row.key)
        if rest:
            inner_parts = local_parts(rest.removesuffix("/"), row.key)
            reject_unfinished_name(inner_parts, row.key)
            parts = (*self._parts, *inner_parts)
            return Transfer(row.key, join(self.root, rest), row, self._tree, parts)
        if row.is_directory:  # the location itself: the root is its directory
            return Transfer(row.key, self.root, row, self._tree, self._parts)
        # one object: the root is its file
        reject_unfinished_name(local_parts(os.path.basename(self.root), row.key), row.key)
        tree, parts = self.local_access.file(self.root)
        return Transfer(row.key, self.root, row, tree, parts)

    def plan(self, row: ObjectInfo) -> Transfer | Failure:
        """Return the transfer of *row* to its file, or a failure if its key can't be a file."""
        try:
            return self.transfer(row)
        except InvalidKeyError as e:
            rest = self.relative_path(row.key, is_directory=row.is_directory)
            return Failure(row.key, join(self.root, rest or ""), e)

    def selects(self, selection: Selection, key: str) -> bool:
        """Return whether *selection* includes *key*. Globs are matched with its path relative to the location."""
        rest = relative_to(key, self.location)
        return selection.selects(key, key if rest is None else rest)

    def folds_names(self, answers: dict[tuple[int, int], bool] | None = None) -> bool:
        """Return whether the file system takes names that differ only in case for the same name.

        *answers* caches the result by directory, for several targets.
        """
        return self._tree.folds_names(self._parts, answers)

    def free_bytes(self) -> int | None:
        """Return the number of bytes that fit on the disk, or None if it is unknown. Raise `LocalFileError`."""
        with local_errors(self.root):
            return self._tree.free_bytes(self._parts)


class Claims:
    """The assignment of each local file of a message to one object."""

    def __init__(self, folds_names: bool) -> None:
        self._collisions = Collisions(folds_names, is_sorted=False)
        self._seen: set[bytes] = set()
        self._real = functools.lru_cache(maxsize=64)(os.path.realpath)

    def real_path(self, item: Transfer) -> str:
        """Return the absolute path of the file of *item*. No directory in it is a link."""
        assert item.tree is not None
        return os.path.join(self._real(item.tree.directory), *item.parts)

    def claim(self, item: Transfer, is_directory: bool = False) -> str | None:
        """Assign the file to *item*.

        Return None if it was free, "" if *item* has it already, or the reason of a conflict.
        """
        path = self.real_path(item)
        text = f"{path}\0{item.key}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=16).digest()
        if digest in self._seen:
            return ""
        self._seen.add(digest)
        return self._collisions.check(path, is_directory)


def refusal(item: Transfer, reason: str) -> Failure:
    """Return the failure of *item*, whose key can't be a local file for *reason*."""
    return Failure(item.key, item.path, InvalidKeyError(f"the key {item.key!r}: {reason}", key=item.key))


def resolve_link(transfer: Transfer, local_access: LocalAccess, top: str) -> Transfer:
    """Return *transfer* with the file that the link at its path leads to, as a push reads it.

    Raise `LocalFileError` if the link leads out of the directory *top*, and `OSError` if it is broken.
    """
    place = local_access.resolve_link(local_access.resolve(transfer.path, follow=False))
    if not place.is_below(local_access.resolve(top)):
        raise LocalFileError(f"{transfer.path!r} is a link that leads out of the tree", local=transfer.path)
    place.status(follow=True)
    return replace(transfer, tree=place.tree, parts=place.parts)
