"""A resolved local path: an ordinary path, or a file in a tree that it can't leave."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from pfstorage.local.directories import Parts
from pfstorage.local.tree import LocalTree


class ResolvedPath(NamedTuple):
    """The file or directory *parts* of *tree*; without a tree, the file at *path*.

    Messages and replies show *path*. Methods raise `OSError`. In a tree, they never follow links:
    `LocalAccess.resolve` has followed them, so a link was put there later.
    """

    path: str
    tree: LocalTree | None = None
    parts: Parts = ()

    def child(self, name: str, path: str) -> ResolvedPath:
        """Return the file *name* in this directory, shown as *path*."""
        return ResolvedPath(path, self.tree, (*self.parts, name) if self.tree else ())

    def status(self, *, follow: bool = False) -> os.stat_result:
        """Return the status of this file. With *follow* and without a tree, follow a link."""
        if self.tree:
            return self.tree.status(self.parts)
        return os.stat(self.path, follow_symlinks=follow)

    def is_directory(self) -> bool:
        """Return whether this is a directory, without a tree also through a link. False if it can't be read."""
        try:
            return stat.S_ISDIR(self.status(follow=True).st_mode)
        except (OSError, ValueError):
            return False

    @contextlib.contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Yield an iterator over the entries of this directory, for one thread at a time."""
        with contextlib.ExitStack() as stack:
            directory: int | str = self.path
            if self.tree:
                directory = stack.enter_context(self.tree.open_directory(self.parts))
            yield stack.enter_context(os.scandir(directory))

    def is_below(self, top: ResolvedPath) -> bool:
        """Return whether this is *top* or inside it, after all links."""
        if self.tree or top.tree:
            return self.tree is top.tree and self.parts[: len(top.parts)] == top.parts
        ours, theirs = (os.path.join(os.path.realpath(each.path), "") for each in (self, top))
        return ours.startswith(theirs)

    def is_same(self, other: ResolvedPath) -> bool:
        """Return whether both are the same file, after all links."""
        if self.tree or other.tree:
            return self.tree is other.tree and self.parts == other.parts
        return os.path.realpath(self.path) == os.path.realpath(other.path)
