"""One login that many callers share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pfstorage.errors import StorageError
from pfstorage.masks import Secret


class Login:
    """One login for all callers: while one logs in, the others wait for what comes of it."""

    def __init__(self, log_in: Callable[[], tuple[str, str]]) -> None:
        self._log_in = log_in
        self._lock = threading.Lock()
        self._granted: tuple[str, str] | None = None
        self._failure: tuple[float, StorageError] | None = None

    def get(self) -> tuple[str, str]:
        """Return the storage URL and the token. Raise `StorageError`."""
        asked_at = time.monotonic()
        with self._lock:
            if self._granted is None:
                if self._failure and self._failure[0] > asked_at:
                    raise self._failure[1]
                try:
                    url, token = self._log_in()
                    self._granted = url, Secret(token)
                except StorageError as e:
                    self._failure = (time.monotonic(), e)
                    raise
            return self._granted

    def forget(self, token: str) -> None:
        """Log in anew for the next caller, unless that has happened since *token* was given."""
        with self._lock:
            if self._granted and self._granted[1] == token:
                self._granted = None
