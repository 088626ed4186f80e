"""One login that many callers share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from pfstorage.errors import StorageError
from pfstorage.settings.redaction import Secret

DOUBT_SECONDS = 5.0
"""Seconds for which `doubt` keeps a login: clusters limit logins, so an outage must not multiply them."""


class Login:
    """One login for all callers: while one logs in, the others wait for what comes of it."""

    def __init__(self, log_in: Callable[[], tuple[str, str]]) -> None:
        self._log_in = log_in
        self._lock = threading.Lock()
        self._granted: tuple[str, str] | None = None
        self._granted_at = float("-inf")
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
                    self._granted, self._granted_at = (url, Secret(token)), time.monotonic()
                except StorageError as e:
                    self._failure = (time.monotonic(), e)
                    raise
            return self._granted

    def forget(self, url: str, token: str) -> None:
        """Log in anew for the next caller, unless that has happened since *url* and *token* were given."""
        with self._lock:
            if self._granted == (url, token):
                self._granted = None

    def doubt(self, url: str, token: str) -> None:
        """Forget the login if nothing answers at *url*, unless the login is new."""
        if time.monotonic() - self._granted_at > DOUBT_SECONDS:
            self.forget(url, token)
