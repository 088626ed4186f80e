"""Present the settings as the tree that ``internalctl`` reads and writes, as in ``/swift/container_name``."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pfstorage._version import __version__
from pfstorage.errors import ForbiddenError, NotFoundError, SettingsError
from pfstorage.settings.changes import AT_RUN_TIME, leaves, require_new_secrets
from pfstorage.settings.flags import FLAGS
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import BLOCKS, Document, Settings, is_masked, to_document
from pfstorage.settings.redaction import MASK, without_named, without_password

Tree = dict[str, Any]
# Names in a path to a leaf. Settings have two; Python can't copy a tree that is nested much deeper.
MAX_PATH_DEPTH = 16
_TREES = {"", "this", "this/args", *BLOCKS}
_HOLDS = {flag.dest: flag.holds for flag in FLAGS}


class StateTree:
    """The settings as a tree of texts and numbers. A change of the tree changes the settings. Any thread may use it.

    A message may also add nodes that are not settings, as in 2.x; pfstorage ignores them. A secret reads as `MASK`,
    and to set a secret to `MASK` leaves it as it is. The same holds for a node whose name says that it is a secret,
    such as ``/swift/password``.
    """

    def __init__(
        self,
        settings: Settings,
        name: str = "pfstorage",
        version: str = __version__,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """Present *settings*. *args* are the parsed flags, which ``/this/args`` shows without their secrets."""
        self.settings = settings
        # called with the settings after each change
        self.on_change: Callable[[Settings], None] = lambda _: None
        self._lock = threading.Lock()
        self._identity = {"name": name, "version": version}
        self._args = dict(args or {})
        # Most processes never look at the tree, so it is built when somebody does.
        self._tree: Tree | None = None
        self._masked: Tree | None = None

    def renew(self, settings: Settings, documents: tuple[Document, ...] = ()) -> None:
        """Replace the settings by *settings*, which were made of *documents*. Nodes that are not settings stay.

        Raise `SettingsError` if the old secret would go to a new address; then nothing changes.
        """
        with self._lock:
            require_new_secrets(self.settings, settings, documents, with_proxy=True)
            if self._tree is not None:
                for name, block in to_document(settings, with_secrets=True).items():
                    self._tree[name] = {**self._tree[name], **block}
            self._replace(settings, self._tree)

    def get(self, var: str) -> Any:
        """Return the value at *var*, a dict for an inner node.

        Raise `NotFoundError`, or `SettingsError` for more than `MAX_PATH_DEPTH` names.
        """
        node: Any = self._shown()
        for part in _path_parts(var):
            if not isinstance(node, dict) or part not in node:
                raise NotFoundError(f"the state has no {var!r}", var=var)
            node = node[part]
        return copy.deepcopy(node) if isinstance(node, dict | list) else node

    def identity(self) -> Tree:
        """Return the name and the version of this program, which 2.x's clients may have changed."""
        this = self._shown()["this"]
        return {name: this[name] for name in self._identity}

    def set(self, var: str, value: Any, *, at_run_time: bool = False) -> None:
        """Put *value* at *var*; merge a dict into the node that is there. Raise `SettingsError`.

        Nothing changes if the settings would not be valid, or if an old secret would go to a new address. With
        *at_run_time*, raise `ForbiddenError` for a path that is not in `AT_RUN_TIME`, unless `get` returns *value*.
        """
        if var.strip("/") in _TREES and not isinstance(value, Mapping):
            raise SettingsError(f"{var!r} is a tree: set one of its leaves, or an object")
        change = nested(var, value)
        self._change(self._allowed(change) if at_run_time else change)

    def _allowed(self, change: Mapping[str, Any]) -> Tree:
        """Return the part of *change* that differs from the tree as messages see it.

        A value that `get` shows may come back: that does not reveal the secret behind a mask.
        """
        allowed: Tree = {}
        shown = self._shown()
        for path, value in leaves(change):
            if path in AT_RUN_TIME:
                _merge(allowed, nested("/".join(path), value))
            elif value != _at(shown, path):
                names = ", ".join(sorted("/".join(("", *each)) for each in AT_RUN_TIME))
                raise ForbiddenError(
                    f"{'/'.join(('', *path))[:80]!r} does not change over HTTP, unlike {names}: change the file of"
                    " --configFileLoad and send SIGHUP, or restart the server"
                )
        return allowed

    def replace(self, old: str, new: str, *, at_run_time: bool = False) -> list[str]:
        """Put *new* at each leaf whose value is *old*; return the paths of those leaves.

        With *at_run_time*, only the paths in `AT_RUN_TIME` count, so that the result does not reveal a secret.
        """
        with self._lock:
            found = [path for path, value in leaves(self._whole()) if value == old]
        if at_run_time:
            found = [path for path in found if path in AT_RUN_TIME]
        paths = ["/".join(("", *path)) for path in found]
        change: Tree = {}
        for path in paths:
            _merge(change, nested(path, new))
        self._change(change)
        return paths

    def _change(self, change: Mapping[str, Any]) -> None:
        if _depth(change) > MAX_PATH_DEPTH:
            raise _too_deep()
        with self._lock:
            tree = copy.deepcopy(self._whole())
            _merge(tree, change)
            blocks = {name: tree.get(name, {}) for name in ("this", *BLOCKS)}
            settings = load_settings(blocks)[0]
            require_new_secrets(self.settings, settings, (change,))
            self._replace(settings, tree)

    def _replace(self, settings: Settings, tree: Tree | None) -> None:
        self.settings = settings
        self._tree = tree
        self._masked = None
        self.on_change(settings)

    def _whole(self) -> Tree:
        """Return the tree with its secrets. The caller holds the lock."""
        if self._tree is None:
            tree: Tree = to_document(self.settings, with_secrets=True)
            args = {name: _shown_flag(name, value) for name, value in self._args.items()}
            tree["this"] = {**self._identity, **tree["this"], "args": args}
            self._tree = tree
        return self._tree

    def _shown(self) -> Tree:
        """Return the tree with its secrets masked. Nobody changes it: a change of the settings makes a new one."""
        with self._lock:
            if self._masked is None:
                masked = copy.deepcopy(self._whole())
                shown = to_document(self.settings)
                for name in ("this", *BLOCKS):
                    masked[name] = {**without_named(masked[name]), **shown[name]}
                self._masked = masked
            return self._masked


def _shown_flag(name: str, value: Any) -> Any:
    if value and _HOLDS.get(name) == "secret":
        return MASK
    if _HOLDS.get(name) == "url" and isinstance(value, str):
        return without_password(value)
    return (
        value if isinstance(value, str | int | float | None) else str(value)
    )  # whatever a caller kept there


def nested(var: str, value: Any) -> Any:
    """Return *value* inside an object for each name in the path *var*; the first name is the outermost.

    Raise `SettingsError` if there are more than `MAX_PATH_DEPTH`.

    >>> nested("/swift/key", "k")
    {'swift': {'key': 'k'}}
    """
    for part in reversed(_path_parts(var)):
        value = {part: value}
    return value


def _path_parts(var: str) -> list[str]:
    parts = [part for part in var.split("/") if part]
    if len(parts) > MAX_PATH_DEPTH:
        raise _too_deep()
    return parts


def _depth(value: object) -> int:
    """Return the depth of the deepest leaf of *value*, in names of objects and items of lists."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return max((1 + _depth(each) for each in inner), default=0)


def _too_deep() -> SettingsError:
    return SettingsError(
        f"a path of the state has at most {MAX_PATH_DEPTH} names, with those in the value that is set"
    )


def _merge(tree: Tree, change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        elif not is_masked(value) or name not in tree:
            tree[name] = copy.deepcopy(value)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    """Return the value of *tree* at *path*, or None."""
    for part in path:
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
