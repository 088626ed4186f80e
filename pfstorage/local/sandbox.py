"""Access of messages to local files: to all files of this process, or only below the roots of a server."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Sequence

from pfstorage.errors import ForbiddenError, LocalFileError
from pfstorage.local.deny_list import MAX_LINKS
from pfstorage.local.directories import Parts
from pfstorage.local.errors import local_errors
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.roots import AllowedRoots, path_components
from pfstorage.local.tree import LocalTree

# A file: the tree of its root, and its path components below the root.
TreePath = tuple[LocalTree, Parts]
# Bytes of a path on Linux, with the NUL at its end. Descriptors would allow longer paths, but each step takes longer.
PATH_MAX = 4096


def working_directory() -> str:
    """Return the path of the working directory, without links. Raise `LocalFileError` if it was removed."""
    try:
        return os.getcwd()
    except OSError as e:
        text = f"can't find the working directory ({e.strerror}): change to another one, or use absolute paths only"
        raise LocalFileError(text, local=".") from e


def shell_directory(cwd: str) -> str:
    """Return the shell's name ``$PWD`` of the working directory *cwd*, which may have links.

    If ``$PWD`` is outdated, because a program changed the directory, return *cwd*.
    """
    name = os.environ.get("PWD", "")
    try:
        is_name = os.path.isabs(name) and os.path.normpath(name) == name and os.path.samefile(name, cwd)
    except (OSError, ValueError):
        is_name = False
    return name if is_name else cwd


class LocalAccess:
    """The local files that one message may access: those below *roots*, or all that this process may access.

    With roots, a relative path starts at the first root. An absolute path must start with the name of a root, as
    given or without links. A link counts as its target, which must be below a root, too. ``..`` is allowed only in
    links. Other files are not even looked up, so nobody learns whether they exist. Files of the deny-list raise
    errors.

    A `ResolvedPath` is opened from the descriptor of its root, component by component, without following links, so
    a link that somebody adds later has no effect. The most recently used directories stay open until the end of the
    ``with`` block. Several threads may use this object at once.
    """

    def __init__(self, roots: AllowedRoots | None = None, store: str = "") -> None:
        """Allow the files below *roots*, or without roots, all files. *store* is the directory of the store, or ""."""
        self._store = store
        self._roots = roots.all if roots else ()
        self._earlier = roots.earlier if roots else ()
        self._named_paths = roots.named_paths if roots else ()
        self._moved = {real for _, real in self._earlier if os.path.realpath(real) != real}
        deny_list = roots.deny_list if roots else None
        self._trees = [
            LocalTree(root.path, keeps_open=True, top=root.directory, deny_list=deny_list)
            for root in self._roots
        ]
        self._new_trees: dict[tuple[str, bool], LocalTree] = {}
        self._recent: tuple[tuple[TreePath, Parts], TreePath] | None = None

    def __enter__(self) -> LocalAccess:
        return self

    def __exit__(self, *_: object) -> None:
        for tree in (*self._trees, *self._new_trees.values()):
            tree.close_kept()

    @property
    def cwd(self) -> str:
        """The directory that relative paths start at. Raise `LocalFileError` if it was removed."""
        if self._earlier:
            return self._earlier[0][1]
        return self._roots[0].path if self._roots else working_directory()

    @property
    def cwd_if_any(self) -> str:
        """As `cwd`, but "" if it was removed: absolute paths do not need it."""
        try:
            return self.cwd
        except LocalFileError:
            return ""

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Pairs of an alternative name that messages may use for a directory, and the path of the directory."""
        if self._roots:
            return self._earlier or self._named_paths
        cwd = self.cwd_if_any
        return ((name, cwd),) if (name := shell_directory(cwd)) != cwd else ()

    def resolve(self, path: str, *, follow: bool = True) -> ResolvedPath:
        """Resolve *path*, which need not exist. Without *follow*, a link as the last component is not followed.

        Raise `ForbiddenError` if the path is not allowed, and `LocalFileError` if it is invalid.
        """
        with local_errors(path):
            length = len(os.fsencode(path))
            if not self._roots:
                return ResolvedPath(path)
            if length >= PATH_MAX:
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if "\0" in path or ".." in path.split("/"):
                raise _forbidden(path)
            position, names = self._find_start(path)
            directory = self._directory(path, position, names[:-1])
            return ResolvedPath(path, *self._follow(path, directory, names[-1:], follow=follow))

    def check_access(self, path: str) -> None:
        """Raise `ForbiddenError` if *path* is not allowed. Ignore other errors."""
        with contextlib.suppress(LocalFileError):
            self.resolve(path)

    def directory(self, path: str, *, keeps_open: bool = True) -> tuple[LocalTree, Parts]:
        """Return a tree that contains the directory *path*, and the parts of *path* in this tree.

        With *keeps_open*, the tree keeps its most recently used directories open; omit it for many trees at once.
        """
        _, tree, parts = self.resolve(path)
        return tree or self._tree_of(path, keeps_open=keeps_open), parts

    def file(self, path: str) -> tuple[LocalTree, Parts]:
        """Return the tree and the parts for writing the file *path*. A link of this name is replaced, not followed."""
        _, tree, parts = self.resolve(path, follow=False)
        directory, name = os.path.split(path)
        return (tree, parts) if tree else (self._tree_of(directory), (name,))

    def _tree_of(self, directory: str, *, keeps_open: bool = False) -> LocalTree:
        """Return the tree of *directory*, without roots: the same tree each time, as it has swept the directory."""
        new = LocalTree(directory, keeps_open=keeps_open)
        return self._new_trees.setdefault((directory, keeps_open), new)

    def resolve_link(self, path: ResolvedPath) -> ResolvedPath:
        """Follow *path* if it is a link; return its target. Raise `ForbiddenError` or `OSError`."""
        if path.tree is None:
            return path  # the system follows links when it opens the path
        position = path.tree, path.parts[:-1]
        return ResolvedPath(path.path, *self._follow(path.path, position, path.parts[-1:]))

    def is_store(self, directory: ResolvedPath) -> bool:
        """Return whether *directory* is the store itself. With roots, their deny-list has the store."""
        if not self._store or directory.tree:
            return False
        try:
            return os.path.samefile(directory.path, self._store)
        except (OSError, ValueError):  # one of them does not exist
            return False

    def _find_start(self, path: str) -> tuple[TreePath, Parts]:
        """Return the root that *path* starts at, and the remaining names."""
        names = path_components(path)
        if earlier := self._find_earlier_start(path, names):
            return self._reopen(path, *earlier)
        return self._start(path, names) if path.startswith("/") else ((self._trees[0], ()), names)

    def _find_earlier_start(self, path: str, names: Parts) -> tuple[str, Parts] | None:
        """Return the earlier root that contained *path*, and the names below it; None if there was none."""
        for given, real in self._earlier:
            if not path.startswith("/"):
                return real, names
            for known in (path_components(real), path_components(given)):
                if names[: len(known)] == known:
                    return real, names[len(known) :]
        return None

    def _reopen(self, path: str, top: str, rest: Parts) -> tuple[TreePath, Parts]:
        """Return the present root that contains *rest* below the earlier root *top*, and the names below it."""
        full = path_components(top) + rest
        for root, tree in zip(self._roots, self._trees, strict=True):
            known = root.names[0]  # without links, like *top*: a name may lead elsewhere by now
            if top not in self._moved and full[: len(known)] == known:
                return (tree, ()), full[len(known) :]
        raise ForbiddenError(
            f"{path!r} was in {top!r} when the job was accepted, and no --fsRoot allows that now:"
            " start the server with this root, and send the message with a new jid",
            local=path,
        )

    def _directory(self, path: str, top: TreePath, names: Parts) -> TreePath:
        """Resolve *names*, starting at *top*. This caches one result, as files of a directory follow each other."""
        recent = self._recent
        if recent is None or recent[0] != (top, names):
            recent = self._recent = (top, names), self._follow(path, top, names)
        return recent[1]

    def _follow(
        self, path: str, position: TreePath, names: Sequence[str], *, follow: bool = True
    ) -> TreePath:
        """Resolve *names*, starting at *position*, and follow links. Errors show *path*."""
        remaining, links = list(reversed(names)), 0  # a stack: the next name is the last one
        while remaining:
            name = remaining.pop()
            if name == "..":
                position = self._parent(path, position)
                continue
            position = (position[0], (*position[1], name))
            target = position[0].link(position[1]) if remaining or follow else None
            if target is not None:
                links += 1
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                position, more = self._follow_link(path, position, target)
                remaining += reversed(more)
        return position

    def _follow_link(self, path: str, link: TreePath, target: str) -> tuple[TreePath, Parts]:
        """Return the position at which *target* of the link starts, and its names."""
        names = path_components(target)
        return self._start(path, names) if target.startswith("/") else ((link[0], link[1][:-1]), names)

    def _parent(self, path: str, position: TreePath) -> TreePath:
        """Return the parent of *position*. The parent of a root is checked like any absolute path."""
        tree, parts = position
        if parts:
            return tree, parts[:-1]
        (tree, parts), names = self._start(path, path_components(tree.directory)[:-1])
        return tree, (*parts, *names)

    def _start(self, path: str, names: Parts) -> tuple[TreePath, Parts]:
        """Return the root of the absolute path *names*, and the names below it. Raise `ForbiddenError` without one."""
        for root, tree in zip(self._roots, self._trees, strict=True):
            for known in root.names:
                if names[: len(known)] == known:
                    return (tree, ()), names[len(known) :]
        raise _forbidden(path)


def _forbidden(path: str) -> ForbiddenError:
    return ForbiddenError(
        f"{path!r} is not below a directory that messages may name here: start the server with --fsRoot DIR to allow"
        " the directory DIR, too",
        local=path,
    )
