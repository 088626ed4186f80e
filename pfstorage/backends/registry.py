"""The backends by name. The module of a backend is imported when its first storage is opened."""

from __future__ import annotations

import dataclasses
import importlib
import os
from typing import Any

from pfstorage.backends.contract import Storage
from pfstorage.errors import SettingsError
from pfstorage.settings.loading import load_settings
from pfstorage.settings.model import BLOCKS, CommonSettings, Settings
from pfstorage.settings.sources import from_environment
from pfstorage.wire.fields import camel_case

# Each module has a function ``open_storage(settings)``.
BACKENDS = {
    "swift": "pfstorage.backends.swift.store",
    "filesystem": "pfstorage.backends.filesystem.store",
    "memory": "pfstorage.backends.memory",
}


def open_settings(settings: Settings) -> Storage:
    """Open the storage that *settings* describe. Network connections are opened with the first request."""
    storage: Storage = importlib.import_module(BACKENDS[settings.type]).open_storage(settings)
    return storage


def open_storage(type: str = "swift", **options: Any) -> Storage:  # noqa: A002 - the name of the flag
    """Open a storage of the backend *type*: ``swift``, ``filesystem`` or ``memory``.

    *options* are fields of `Settings` and of the settings of the backend: ``workers``, ``retries``, ``timeout`` for
    any backend, ``auth_url``, ``username``, ``key``, ``container_name`` for Swift, ``store_base`` for the file
    system. They take precedence over the environment, and the environment over the defaults.

    The storage is a context manager that closes itself; otherwise, call its ``close()``. Raise `SettingsError` for
    an unknown backend or option, or an invalid value.
    """
    known = {"this": _fields_of(CommonSettings)}
    document: dict[str, dict[str, Any]] = {"this": {"type": type}}
    if type in BLOCKS:
        known[type], document[type] = _fields_of(BLOCKS[type]), {}
    for name, value in options.items():
        block = next((block for block, fields in known.items() if name in fields), None)
        if block is None:
            raise SettingsError(f"the backend {type!r} has no option {name!r}")
        document[block][camel_case(name) if block == "this" else name] = value
    return open_settings(load_settings(from_environment(os.environ), document)[0])


def _fields_of(cls: type[Any]) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)]
