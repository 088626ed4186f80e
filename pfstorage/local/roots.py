"""The directories below which the messages of a server may name local files: ``--fsRoot``."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pfstorage.errors import SettingsError
from pfstorage.local.deny_list import DenyList, is_same
from pfstorage.local.descriptors import TOP, Directory
from pfstorage.local.directories import Parts


class Root(NamedTuple):
    """An open directory, its *path* without links, and *names*: the components of each path that leads to it."""

    path: str
    names: tuple[Parts, ...]
    directory: Directory


class AllowedRoots:
    """The directories below which messages may name local paths, and the deny-list of files inside them.

    Each directory is resolved and opened once, here. The root stays this directory, even if its name later leads
    elsewhere. The descriptors are closed with the last reference to this object.

    A hard link in a root is a file of this root, because nothing distinguishes it from another one: a user who may
    create links in a root may let others read the linked file. Files of the deny-list are denied under any name.
    """

    def __init__(self, directories: Sequence[str]) -> None:
        """Open *directories*. Relative paths start at the first one. Raise `SettingsError`."""
        if not all(directories) or not directories:
            raise SettingsError("--fsRoot: name a directory that messages may name paths below")
        self.all = tuple(_open_root(directory) for directory in directories)
        self.deny_list = DenyList()
        self.earlier: tuple[tuple[str, str], ...] = ()

    def deny(self, paths: Iterable[str], *, everything: bool = False) -> None:
        """Replace the deny-list: requests may not access *paths* (or any local file, if *everything* is set)."""
        self.deny_list = DenyList(paths, everything=everything)

    @property
    def named_paths(self) -> tuple[tuple[str, str], ...]:
        """The absolute path of each root, as given and without links. See `with_earlier_roots`."""
        return tuple(("/" + "/".join(root.names[-1]), root.path) for root in self.all)

    def with_earlier_roots(self, earlier: tuple[tuple[str, str], ...]) -> AllowedRoots:
        """Return these roots for an old message: its paths are resolved against the roots *earlier*.

        *earlier* are the `named_paths` of the server that accepted the message. Replies still show each path as the
        message spells it.
        """
        if not earlier or earlier == self.named_paths:
            return self
        roots = copy.copy(self)
        roots.earlier = earlier
        return roots

    def contains_root(self, path: str) -> bool:
        """Return whether *path* is one of the roots itself. The files inside it can't be denied."""
        return any(is_same(path, root.directory.descriptor) for root in self.all)


def path_components(path: str) -> Parts:
    """Return the components of *path*, without empty ones and ``.``."""
    return tuple(name for name in path.split("/") if name not in ("", "."))


def _open_root(directory: str) -> Root:
    try:
        path = os.path.realpath(directory)
        descriptor = os.open(path, TOP)
    except (OSError, ValueError) as e:
        raise SettingsError(f"--fsRoot {directory!r}: {getattr(e, 'strerror', None) or e}") from e
    names = dict.fromkeys((path_components(path), path_components(os.path.abspath(directory))))
    return Root(path, tuple(names), Directory(descriptor))
