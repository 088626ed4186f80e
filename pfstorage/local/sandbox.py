"""Which local files the messages of others may touch: those below some directories, and no others."""

from __future__ import annotations

import copy
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from pfstorage.errors import ForbiddenError, LocalFileError, SettingsError
from pfstorage.local.common import Directory, local_errors
from pfstorage.local.deny_list import MOST_LINKS, DenyList, is_same
from pfstorage.local.resolved import ResolvedPath
from pfstorage.local.tree import LocalTree, Parts

TreePath = tuple[LocalTree, Parts]
PATH_MAX = 4096
"""Bytes of a path on Linux, with the NUL behind it. By descriptors a way could go on, and each step takes longer."""


class Root(NamedTuple):
    """An open directory: its *path* without links, and the components of *names* that lead to it."""

    path: str
    names: tuple[Parts, ...]
    directory: Directory


class AllowedRoots:
    """The directories that messages from elsewhere may name local paths below: ``--fsRoot``.

    Each is resolved and opened once, here. From then on it is this directory, even if
    its name comes to lead elsewhere; it is released with the last use of this.

    What is a hard link in them to a file that lies elsewhere as well can't be told from
    a file of theirs, and is one: who may link into a root may let others read. But what is closed is so by any name.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        """The first of *directories* is where relative paths begin. Raise `SettingsError`."""
        if not all(directories) or not directories:
            raise SettingsError("--fsRoot: name a directory that messages may name paths below")
        self.all = tuple(_opened(directory) for directory in directories)
        self.deny_list = DenyList()
        self.earlier: tuple[tuple[str, str], ...] = ()

    def deny(self, paths: Iterable[str], *, everything: bool = False) -> None:
        """Keep messages from the files and directories *paths*, or from *everything*: from no more than that."""
        self.deny_list = DenyList(paths, everything=everything)

    @property
    def named_paths(self) -> tuple[tuple[str, str], ...]:
        """The absolute path of each, as it was given and without links: what `with_earlier_roots` takes."""
        return tuple(("/" + "/".join(root.names[-1]), root.path) for root in self.all)

    def with_earlier_roots(self, earlier: tuple[tuple[str, str], ...]) -> AllowedRoots:
        """Return these roots for a message whose paths mean what they did where the roots were *earlier*.

        They are spelled as the message spells them all the same.
        """
        if not earlier or earlier == self.named_paths:
            return self
        roots = copy.copy(self)
        roots.earlier = earlier
        return roots

    def contains_root(self, path: str) -> bool:
        """Tell whether *path* is one of them itself: what is in it can't be closed."""
        return any(is_same(path, root.directory.descriptor) for root in self.all)

    @property
    def first(self) -> str:
        """The absolute path of the first, without links."""
        return self.all[0].path


def _opened(directory: str) -> Root:
    try:
        path = os.path.realpath(directory)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (OSError, ValueError) as e:
        raise SettingsError(f"--fsRoot {directory!r}: {getattr(e, 'strerror', None) or e}") from e
    names = dict.fromkeys((_components(path), _components(os.path.abspath(directory))))
    return Root(path, tuple(names), Directory(descriptor))


def working_directory() -> str:
    """Return the path of the working directory, without links. Raise `LocalFileError`."""
    try:
        return os.getcwd()
    except OSError as e:
        text = f"the working directory can't be told ({e.strerror}): go to another one, or give absolute paths alone"
        raise LocalFileError(text, local=".") from e


def shell_directory(cwd: str) -> str:
    """Return what the shell calls the working directory *cwd*, as ``$PWD`` tells: that may have links.

    Who has gone to another directory since has an old one there.
    """
    name = os.environ.get("PWD", "")
    try:
        is_name = os.path.isabs(name) and os.path.normpath(name) == name and os.path.samefile(name, cwd)
    except (OSError, ValueError):
        is_name = False
    return name if is_name else cwd


class LocalAccess:
    """The local files that one message may touch: those below *roots*, or all that its process may.

    Below roots, a path that is relative begins at the first, and one that is absolute must
    begin with the name of one, as it was given or without links. What the roots have closed
    is an error to touch. Links count as what they
    lead to, as long as each leads to below a root; ``..`` is not taken, but in a link. What
    is elsewhere is not even looked at, so nobody learns whether it is there.

    A `ResolvedPath` that comes of it is opened from the descriptor of its root, component by
    component and without following links: what is put there meanwhile leads nowhere.
    Directories used last stay open until the end of its ``with``. Several threads may ask.
    """

    def __init__(self, roots: AllowedRoots | None = None) -> None:
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
        """The directory where relative paths begin. Raise `LocalFileError`."""
        if self._earlier:
            return self._earlier[0][1]
        return self._roots[0].path if self._roots else working_directory()

    @property
    def cwd_if_any(self) -> str:
        """As `cwd`, but "" if that was removed: absolute paths need none."""
        try:
            return self.cwd
        except LocalFileError:
            return ""

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """What messages may call directories beside their own paths, each before that."""
        if self._roots:
            return self._earlier or self._named_paths
        cwd = self.cwd_if_any
        return ((name, cwd),) if (name := shell_directory(cwd)) != cwd else ()

    def resolve(self, path: str, *, follow: bool = True) -> ResolvedPath:
        """Return where *path* leads; without *follow*, the last component is no link to follow.

        It need not be there. Raise `ForbiddenError`, or `LocalFileError` if it can't be a path.
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

    def directory(self, path: str, *, keeps_open: bool = True) -> tuple[LocalTree, Parts]:
        """Return the tree to write below the directory *path* by, and what comes before the parts of each file.

        It *keeps open* the directories that were used last, unless there are to be many such trees.
        """
        _, tree, parts = self.resolve(path)
        return tree or self._tree_of(path, keeps_open=keeps_open), parts

    def file(self, path: str) -> tuple[LocalTree, Parts]:
        """Return the tree and the parts to write the file *path* by; it replaces a link of that name."""
        _, tree, parts = self.resolve(path, follow=False)
        directory, name = os.path.split(path)
        return (tree, parts) if tree else (self._tree_of(directory), (name,))

    def _tree_of(self, directory: str, *, keeps_open: bool = False) -> LocalTree:
        """Return the tree of *directory*, where there are no roots: that of before, which has swept it already."""
        new = LocalTree(directory, keeps_open=keeps_open)
        return self._new_trees.setdefault((directory, keeps_open), new)

    def resolve_link(self, place: ResolvedPath) -> ResolvedPath:
        """Return where *place*, which may be a link, leads. Raise `ForbiddenError` or `OSError`."""
        if place.tree is None:
            return place  # it is opened by its path, and the system follows links
        position = place.tree, place.parts[:-1]
        return ResolvedPath(place.path, *self._follow(place.path, position, place.parts[-1:]))

    def _find_start(self, path: str) -> tuple[TreePath, Parts]:
        """Return the root that *path* begins at, and the names to go from there."""
        names = _components(path)
        for top, rest in self._earlier_starts(path, names):
            meant = _components(top) + rest
            for root, tree in zip(self._roots, self._trees, strict=True):
                known = root.names[0]  # without links, as top is: a name may lead elsewhere now
                if top not in self._moved and meant[: len(known)] == known:
                    return (tree, ()), meant[len(known) :]
            raise ForbiddenError(
                f"{path!r} was in {top!r} when the job came, which no --fsRoot allows now:"
                " start the server with it, and send the message with a new jid",
                local=path,
            )
        return self._start(path, names) if path.startswith("/") else ((self._trees[0], ()), names)

    def _earlier_starts(self, path: str, names: Parts) -> Iterator[tuple[str, Parts]]:
        """Yield the root, of those that there were before, that *path* of *names* lay in, and its names below that."""
        for given, real in self._earlier:
            if not path.startswith("/"):
                yield real, names
                return
            for known in (_components(real), _components(given)):
                if names[: len(known)] == known:
                    yield real, names[len(known) :]
                    return

    def _directory(self, path: str, top: TreePath, names: Parts) -> TreePath:
        """Return where *names* lead from *top*. Mostly, that is where those of the path before led."""
        recent = self._recent
        if recent is None or recent[0] != (top, names):
            recent = self._recent = (top, names), self._follow(path, top, names)
        return recent[1]

    def _follow(
        self, path: str, position: TreePath, names: Sequence[str], *, follow: bool = True
    ) -> TreePath:
        """Return where *names* lead from *position*; what *path* is spelled by is what an error names."""
        to_go, links = list(reversed(names)), 0  # the next is the last of them
        while to_go:
            name = to_go.pop()
            if name == "..":
                position = self._parent(path, position)
                continue
            position = (position[0], (*position[1], name))
            target = position[0].link(position[1]) if to_go or follow else None
            if target is not None:
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                position, more = self._follow_link(path, position, target)
                to_go += reversed(more)
        return position

    def _follow_link(self, path: str, link: TreePath, target: str) -> tuple[TreePath, Parts]:
        """Return where the way goes on after *link*, and the names to go from there."""
        names = _components(target)
        return self._start(path, names) if target.startswith("/") else ((link[0], link[1][:-1]), names)

    def _parent(self, path: str, position: TreePath) -> TreePath:
        tree, parts = position
        if parts:
            return tree, parts[:-1]
        (tree, parts), names = self._start(path, _components(tree.directory)[:-1])
        return tree, (*parts, *names)

    def _start(self, path: str, names: Parts) -> tuple[TreePath, Parts]:
        """Return the root that the absolute path of *names* lies below, and the names to go from there."""
        for root, tree in zip(self._roots, self._trees, strict=True):
            for known in root.names:
                if names[: len(known)] == known:
                    return (tree, ()), names[len(known) :]
        raise _forbidden(path)


def _components(path: str) -> Parts:
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _forbidden(path: str) -> ForbiddenError:
    return ForbiddenError(
        f"{path!r} is not below a directory that messages may name here: --fsRoot DIR allows one more",
        local=path,
    )
