"""Where a path leads: to what its process finds there, or to a file of a tree that nothing leads out of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from pfstorage.local.tree import LocalTree, Parts


class ResolvedPath(NamedTuple):
    """The file or directory *parts* of *tree*; without a tree, whatever *path* leads to.

    *path* is how a message or a reply spells it. Methods raise `OSError`. In a tree they
    follow no link: `LocalAccess.resolve` has done that, and what is a link since then is none to follow.
    """

    path: str
    tree: LocalTree | None = None
    parts: Parts = ()

    def child(self, name: str, path: str) -> ResolvedPath:
        """Return the place of *name* in this directory, spelled *path*."""
        return ResolvedPath(path, self.tree, (*self.parts, name) if self.tree else ())

    def status(self, *, follow: bool = False) -> os.stat_result:
        """Return the status of it, or with *follow*, where there is no tree, of what it leads to."""
        if self.tree:
            return self.tree.status(self.parts)
        return os.stat(self.path, follow_symlinks=follow)

    @contextlib.contextmanager
    def entries(self) -> Iterator[Iterator[os.DirEntry[str]]]:
        """Yield what is in the directory. One thread at a time may go through it."""
        with contextlib.ExitStack() as stack:
            directory: int | str = self.path
            if self.tree:
                directory = stack.enter_context(self.tree.open_directory(self.parts))
            yield stack.enter_context(os.scandir(directory))

    def is_below(self, top: ResolvedPath) -> bool:
        """Tell whether it is *top* or in it, after all links."""
        if self.tree or top.tree:
            return self.tree is top.tree and self.parts[: len(top.parts)] == top.parts
        ours, theirs = (os.path.join(os.path.realpath(each.path), "") for each in (self, top))
        return ours.startswith(theirs)
