"""The backends by name. Each is one module, imported when its storage is opened."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

from pfstorage.backends.contract import ObjectInfo, Storage
from pfstorage.errors import SettingsError
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import BLOCKS, CommonSettings, Settings
from pfstorage.settings.sources import from_environment
from pfstorage.wire.fields import camel_case

__all__ = ["BACKENDS", "ObjectInfo", "Storage", "open_settings", "open_storage"]

BACKENDS = {
    "swift": "pfstorage.backends.swift.store",
    "filesystem": "pfstorage.backends.filesystem.store",
    "memory": "pfstorage.backends.memory",
}


def open_settings(settings: Settings) -> Storage:
    """Open the storage that *settings* describe. No connection is made before it is needed."""
    storage: Storage = importlib.import_module(BACKENDS[settings.type]).open_storage(settings)
    return storage


def open_storage(type: str = "swift", **options: Any) -> Storage:  # noqa: A002 - the word of the flag
    """Open a storage of the backend *type*: over the defaults, the environment, then *options*.

    *options* are fields of `Settings` and of the backend's own settings, such as
    ``auth_url``, ``username``, ``key``, ``container_name`` for Swift, ``store_base``
    for the file system, and ``workers``, ``retries``, ``timeout`` for any.
    Raise `SettingsError` for an unknown backend or option. Use it as a context
    manager, or call ``close()``.
    """
    known = {"this": _fields_of(CommonSettings), type: _fields_of(BLOCKS.get(type, CommonSettings))}
    document: dict[str, dict[str, Any]] = {"this": {"type": type}, type: {}}
    for name, value in options.items():
        block = next((block for block, fields in known.items() if name in fields), None)
        if block is None:
            raise SettingsError(f"the backend {type!r} has no option {name!r}")
        document[block][camel_case(name) if block == "this" else name] = value
    return open_settings(load_settings(from_environment(os.environ), document)[0])


def _fields_of(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]
