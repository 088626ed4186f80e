"""Where the objects of a pull go."""

from __future__ import annotations

import os
from dataclasses import replace

from pfstorage.backends import ObjectInfo
from pfstorage.errors import InvalidKeyError, LocalFileError
from pfstorage.keys.mapping import join, local_parts, relative_to
from pfstorage.keys.selection import Selection
from pfstorage.local import LocalAccess, local_errors, reject_unfinished_name
from pfstorage.transfer import Failure, Transfer


class Target:
    """Where objects go: from below *location* to below *over*, or without that under their whole keys to below *cwd*.

    Raise `ForbiddenError` if that is not on the *local_access*.
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
        """The path that stands for all of it, as the message spells it."""
        return self.over or self.top

    @property
    def top(self) -> str:
        """The path below which the files lie."""
        return self.root if self.over else join(self.cwd, self.location)

    def rest_of(self, key: str) -> str | None:
        """Return the path of *key* below the root; None if it is not below the location."""
        rest = relative_to(key, self.location)
        return key if rest is not None and not self.over else rest

    def transfer(self, row: ObjectInfo) -> Transfer:
        """Decide where *row* goes. Raise `InvalidKeyError` if it has no place."""
        rest = self.rest_of(row.key)
        if rest is None:
            raise InvalidKeyError(f"{row.key!r} is not below fromLocation {self.location!r}", key=row.key)
        if rest:
            below_it = local_parts(rest.removesuffix("/"), row.key)
            reject_unfinished_name(below_it, row.key)
            parts = (*self._parts, *below_it)
            return Transfer(row.key, join(self.root, rest), row, self._tree, parts)
        if row.is_directory:  # the location itself: over is its directory
            return Transfer(row.key, self.root, row, self._tree, self._parts)
        # one object, and over is its file
        reject_unfinished_name(local_parts(os.path.basename(self.root), row.key), row.key)
        tree, parts = self.local_access.file(self.root)
        return Transfer(row.key, self.root, row, tree, parts)

    def planned(self, row: ObjectInfo) -> Transfer | Failure:
        """Return where *row* goes, or why it has no place."""
        try:
            return self.transfer(row)
        except InvalidKeyError as e:
            return Failure(row.key, join(self.root, self.rest_of(row.key) or ""), e)

    def selects(self, selection: Selection, key: str) -> bool:
        """Tell whether *selection* takes *key*, whose path below the location is what globs are matched with."""
        rest = relative_to(key, self.location)
        return selection.selects(key, key if rest is None else rest)

    def folds_names(self, told: dict[tuple[int, int], bool] | None = None) -> bool:
        """Tell whether names that differ in case alone are one where the objects go.

        *told* is where the answers of directories are kept, for many targets: each is asked once.
        """
        return self._tree.folds_names(self._parts, told)

    def free_bytes(self) -> int | None:
        """Return for how many bytes there is room, None if that can't be told. Raise `LocalFileError`."""
        with local_errors(self.root):
            return self._tree.free_bytes(self._parts)


def refused(item: Transfer, reason: str) -> Failure:
    """Return that *item* can't be local, for a *reason* in words."""
    return Failure(item.key, item.path, InvalidKeyError(f"the key {item.key!r}: {reason}", key=item.key))


def resolved(transfer: Transfer, local_access: LocalAccess, top: str) -> Transfer:
    """Return *transfer* with the file that a link in its place leads to, as a push takes it.

    Raise `LocalFileError` if that is not in the directory *top*, and `OSError` if it leads nowhere.
    """
    place = local_access.resolve_link(local_access.resolve(transfer.path, follow=False))
    if not place.is_below(local_access.resolve(top)):
        raise LocalFileError(f"{transfer.path!r} is a link that leads out of the tree", local=transfer.path)
    place.status(follow=True)
    return replace(transfer, tree=place.tree, parts=place.parts)
