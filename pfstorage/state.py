"""The settings as the tree that ``internalctl`` reads and writes: ``/swift/container_name``."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator, Mapping
from typing import Any

from pfstorage._version import __version__
from pfstorage.config import (
    BLOCKS,
    CommonSettings,
    Settings,
    load_settings,
    to_document,
)
from pfstorage.errors import NotFoundError, SettingsError
from pfstorage.fields import known_names
from pfstorage.masks import MASK, without_named, without_password
from pfstorage.sources import SECRET_FLAGS

Tree = dict[str, Any]
_TREES = {"", "this", "this/args", *BLOCKS}
_COMMON = known_names(CommonSettings)


class StateTree:
    """A tree of texts and numbers, begun from *settings*; what is changed in it changes them.

    Nodes that are no settings may be made and read, as in 2.x, and mean nothing
    to pfstorage. A secret reads as `MASK`; setting it to `MASK` leaves it. So does what is
    called one beside the settings, such as ``/swift/password``.
    """

    def __init__(
        self,
        settings: Settings,
        name: str = "pfstorage",
        version: str = __version__,
        args: Mapping[str, Any] | None = None,
    ) -> None:
        """*args* are the parsed flags, shown under ``/this/args`` without their secrets."""
        self.settings = settings
        self._lock = threading.Lock()
        self._tree: Tree = to_document(settings, with_secrets=True)
        shown = {key: _shown_flag(key, value) for key, value in (args or {}).items()}
        self._tree["this"] = {"name": name, "version": version, **self._tree["this"], "args": shown}
        self._masked = self._mask()

    def renew(self, settings: Settings) -> None:
        """Begin again from *settings*; nodes that are no settings stay."""
        tree = to_document(settings, with_secrets=True)
        with self._lock:
            for name, block in tree.items():
                self._tree[name] = {**self._tree[name], **block}
            self.settings = settings
            self._masked = self._mask()

    def get(self, var: str) -> Any:
        """Return the value at *var*, a dict for an inner node. Raise `NotFoundError`."""
        node: Any = self._masked
        for part in var.split("/"):
            if not part:
                continue
            if not isinstance(node, dict) or part not in node:
                raise NotFoundError(f"the state has no {var!r}", var=var)
            node = node[part]
        return copy.deepcopy(node) if isinstance(node, dict | list) else node

    def set(self, var: str, value: Any) -> None:
        """Put *value* at *var*; a dict is merged into what is there. Raise `SettingsError`.

        Nothing is changed if the settings would not be valid.
        """
        if var.strip("/") in _TREES and not isinstance(value, Mapping):
            raise SettingsError(f"{var!r} is a tree: set one of its leaves, or an object")
        self._change(nested(var, value))

    def replace(self, old: str, new: str) -> list[str]:
        """Put *new* wherever the value is *old*; return the paths of those leaves."""
        with self._lock:
            found = [path for path, value in _leaves(self._tree) if value == old]
        change: Tree = {}
        for path in found:
            _merge(change, nested(path, new))
        self._change(change)
        return found

    def _change(self, change: Mapping[str, Any]) -> None:
        with self._lock:
            tree = copy.deepcopy(self._tree)
            _merge(tree, change)
            blocks = {name: tree.get(name, {}) for name in ("this", *BLOCKS)}
            blocks["this"] = {key: blocks["this"][key] for key in _COMMON if key in blocks["this"]}
            self.settings = load_settings(blocks)[0]
            self._tree = tree
            self._masked = self._mask()

    def _mask(self) -> Tree:
        """Return the tree as anybody may see it. It is another one after each change, and never changed itself."""
        tree = copy.deepcopy(self._tree)
        shown = to_document(self.settings)
        for name in ("this", *BLOCKS):
            tree[name] = {**without_named(tree[name]), **shown[name]}
        return tree


def _shown_flag(name: str, value: Any) -> Any:
    if value and name in SECRET_FLAGS:
        return MASK
    if name in ("swiftAuthUrl", "httpProxy"):
        return without_password(str(value or ""))
    return (
        value if isinstance(value, str | int | float | None) else str(value)
    )  # whatever a caller kept there


def nested(var: str, value: Any) -> Any:
    """Return *value* under each of the names in *var*, the first outermost.

    >>> nested("/swift/key", "k")
    {'swift': {'key': 'k'}}
    """
    for part in reversed(_parts(var)):
        value = {part: value}
    return value


def _parts(var: str) -> list[str]:
    return [part for part in var.split("/") if part]


def _merge(tree: Tree, change: Mapping[str, Any]) -> None:
    for name, value in change.items():
        if isinstance(value, Mapping) and isinstance(tree.get(name), dict):
            _merge(tree[name], value)
        elif value != MASK or name not in tree:
            tree[name] = copy.deepcopy(value)


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}/{name}")
        else:
            yield f"{path}/{name}", value
