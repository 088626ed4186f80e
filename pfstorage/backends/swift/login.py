"""Log in to a Swift, once for all callers."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from types import ModuleType
from urllib.parse import urlsplit

from pfstorage.backends.http.errors import ConnectionBroken, Refusal
from pfstorage.backends.retry import RetryPolicy
from pfstorage.backends.swift.errors import error_from_login
from pfstorage.backends.swift.network import Network, origin_of
from pfstorage.errors import MisconfiguredError, StorageError, UnavailableError
from pfstorage.settings.model import Settings
from pfstorage.settings.redaction import Secret, without_password
from pfstorage.settings.urls import is_url

log = logging.getLogger(__name__)

# Seconds for which a new login is kept even if its server is down: clusters limit logins.
DOUBT_SECONDS = 5.0


class Login:
    """A login that all callers share. One of them logs in, and the others wait for the result."""

    def __init__(self, log_in: Callable[[], tuple[str, str]]) -> None:
        self._log_in = log_in
        self._lock = threading.Lock()
        self._granted: tuple[str, str] | None = None
        self._granted_at = float("-inf")
        self._failure: tuple[float, StorageError] | None = None

    def get(self) -> tuple[str, str]:
        """Return the storage URL and the token. Raise `StorageError`."""
        started = time.monotonic()
        with self._lock:
            if self._granted is None:
                if self._failure and self._failure[0] > started:
                    raise self._failure[1]
                try:
                    url, token = self._log_in()
                    self._granted, self._granted_at = (url, Secret(token)), time.monotonic()
                except StorageError as e:
                    self._failure = (time.monotonic(), e)
                    raise
            return self._granted

    def forget(self, url: str, token: str) -> None:
        """Log in again for the next caller, unless that has happened since *url* and *token* were returned."""
        with self._lock:
            if self._granted == (url, token):
                self._granted = None

    def forget_unless_new(self, url: str, token: str) -> None:
        """Do as `forget`, unless the login is new. The store may have moved if nothing answers at *url*."""
        if time.monotonic() - self._granted_at > DOUBT_SECONDS:
            self.forget(url, token)


class Authenticator:
    """The login that *settings* describe, over connections of *network* that *retry_policy* may abort."""

    def __init__(self, settings: Settings, network: Network, retry_policy: RetryPolicy) -> None:
        self._settings = settings
        self._network = network
        self._retry_policy = retry_policy
        self._address = urlsplit(settings.swift.auth_url).netloc.rpartition("@")[2]
        self._has_logged_in = False

    def log_in(self) -> tuple[str, str]:
        """Return the storage URL and a token. Raise `StorageError`."""
        block = self._settings.swift
        options = dict(block.os_options)
        if {"auth_token", "object_storage_url"} <= options.keys():
            given = _checked_url(options["object_storage_url"])
            self._require_tls(given)
            return given, options["auth_token"]
        url = without_password(block.auth_url)
        origin = origin_of(block.auth_url)
        try:
            if block.auth_version in ("1", "1.0"):
                granted, token = self._log_in_v1()
            else:
                granted, token = sdk().log_in(
                    self._settings, lambda url: self._network.opened(url, self._retry_policy)
                )
        except Refusal as e:
            raise self._outage_if_known(error_from_login(e, self._address, url, block.username)) from e
        except ConnectionBroken as e:
            raise self._network.unanswered_error(e, origin) from e
        self._network.answered.add(origin)
        self._has_logged_in = True
        storage_url = _checked_url(options.get("object_storage_url") or granted)
        self._require_tls(storage_url)
        return storage_url, token

    def _log_in_v1(self) -> tuple[str, str]:
        """Log in by Swift's own authentication, version 1. Raise `Refusal` or `ConnectionBroken`."""
        block = self._settings.swift
        path = urlsplit(block.auth_url).path or "/"
        headers = {"X-Auth-User": block.username, "X-Auth-Key": block.key}
        with self._network.opened(block.auth_url, self._retry_policy) as connection:
            answer = connection.request("GET", path, headers)
            if not 200 <= answer.status < 300:
                raise self._network.refusal(connection, answer, "GET", path)
            connection.skip(answer)
        url, token = answer.fields.get("x-storage-url"), answer.fields.get("x-auth-token")
        if not url or not token:
            text = f"the server at {self._address} is no Swift: its login gave no storage URL and token"
            raise self._outage_if_known(MisconfiguredError(f"{text}; see --swiftAuthUrl"))
        return url, token

    def _outage_if_known(self, error: StorageError) -> StorageError:
        """Return *error*, as an outage if an earlier login succeeded: the settings are right then.

        An ingress may serve another page while the store restarts.
        """
        if isinstance(error, MisconfiguredError) and self._has_logged_in:
            facts = {name: fact for name, fact in error.facts.items() if name != "type"}
            return UnavailableError(str(error), **facts)
        return error

    def _require_tls(self, storage_url: str) -> None:
        """Raise `MisconfiguredError` if the login uses TLS and *storage_url* does not, unless the settings allow it.

        Anybody on the network could read the files, and the token, which is valid for a day.
        """
        login = self._settings.swift.auth_url
        if urlsplit(login).scheme != "https" or urlsplit(storage_url).scheme == "https":
            return
        text = (
            f"the login at {without_password(login)} uses TLS, but the storage URL does not:"
            f" {without_password(storage_url)}"
        )
        if not self._settings.allow_plain_storage:
            raise MisconfiguredError(
                f"{text}. Set OS_STORAGE_URL to the https address, or configure the store to return it;"
                " --allowPlainStorage sends the token and the files in plain text",
                address=urlsplit(storage_url).netloc.rpartition("@")[2],
            )
        log.warning("%s. The token and the files are sent in plain text (--allowPlainStorage)", text)


def sdk() -> ModuleType:
    """Import the module of the SDKs, which takes longer than many messages do."""
    return importlib.import_module("pfstorage.backends.swift.sdk")


def _checked_url(url: str) -> str:
    url = url.strip()
    if not is_url(url):
        shown = without_password(url)
        text = f"the storage URL '{shown}' is not an http or https URL: see OS_STORAGE_URL, or the answer of the login"
        raise MisconfiguredError(text)
    return url.rstrip("/")
