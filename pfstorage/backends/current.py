"""The open storage of settings that may change."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pfstorage.backends import Storage, open_settings
from pfstorage.backends.capabilities import SupportsAbort
from pfstorage.settings.model import Settings


class CurrentStorage:
    """The open storage of the present settings. It is reopened after they change.

    It is safe to use from many threads.
    """

    def __init__(self, storage: Storage | None, settings: Callable[[], Settings]) -> None:
        """Begin with *storage*, which the caller closes. With None, open one on demand."""
        self._lock = threading.Lock()
        self._storage = storage
        self._is_own = storage is None
        self._settings = settings

    def open(self) -> Storage:
        """Return the storage of the present settings."""
        with self._lock:
            settings = self._settings()
            if self._storage is None or _connection_of(self._storage.settings) != _connection_of(settings):
                self._close()
                self._storage, self._is_own = open_settings(settings), True
            return self._storage

    def abort(self, reason: str) -> None:
        """Abort pending requests to the store and close it, unless the storage is the caller's."""
        with self._lock:
            if self._storage and self._is_own and isinstance(self._storage, SupportsAbort):
                self._storage.abort(reason)
                self._close()

    def close(self) -> None:
        """Close the storage, unless it is the caller's."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._storage is not None and self._is_own:
            self._storage.close()
        self._storage = None


def _connection_of(settings: Settings) -> tuple[Any, ...]:
    """Return the part of *settings* that an open storage depends on."""
    transport = (
        settings.retries,
        settings.timeout,
        settings.connect_timeout,
        settings.min_rate,
        settings.http_proxy,
        settings.insecure,
        settings.allow_plain_storage,
    )
    return settings.type, getattr(settings, settings.type), *(transport if settings.type == "swift" else ())
