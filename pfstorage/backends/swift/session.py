"""How requests reach a Swift: with a connection of the pool, the login that all share, and another try where it helps.

`swiftclient.Connection` does that too, but waits 31 s for a store that isn't there, logs in once for each
connection, can't rewind a body after a 401, begins a broken download anew, and follows a redirection with
the token. So all requests go by plain HTTP, and the SDKs have what is left: `swift_sdk`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pfstorage.backends.coalescing import RequestCoalescer
from pfstorage.backends.errors import ConnectError, SilentStoreError
from pfstorage.backends.http.connection import ConnectionBroken, HttpConnection, Mistake, Refusal, meets_tls
from pfstorage.backends.http.errors import SPEAKS_TLS
from pfstorage.backends.http.pool import Pool
from pfstorage.backends.http.response import Response
from pfstorage.backends.http.routes import find_route
from pfstorage.backends.retry import OutageTracker, RetryPolicy, no_progress
from pfstorage.backends.swift.errors import asked, error_of_answer, error_of_login, is_signed
from pfstorage.backends.swift.login import Login
from pfstorage.errors import (
    ConflictError,
    Fact,
    MisconfiguredError,
    RejectedError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.settings.model import Settings, size_of
from pfstorage.settings.redaction import without, without_password
from pfstorage.settings.urls import is_url

T = TypeVar("T")
log = logging.getLogger(__name__)


class Connection:
    """A kept connection for the requests of one caller."""

    def __init__(self, http: HttpConnection) -> None:
        self.http = http

    def close(self) -> None:
        self.http.close()


def path_of(storage_url: str, container: str = "", key: str = "") -> str:
    """Return the path of a request about the account, about *container*, or about the object *key* in it."""
    names = [each for each in (container, key) if each]
    return "/".join([urlsplit(storage_url).path.rstrip("/"), *map(quote, names)])


def _place_of(url: str) -> str:
    """Return where connections for *url* lead: its scheme, host and port."""
    base = urlsplit(url)
    return f"{base.scheme}://{base.netloc.rpartition('@')[2]}"


class SwiftSession:
    """What the requests to one Swift share: its address, the login, the connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.address = urlsplit(settings.swift.auth_url).netloc.rpartition("@")[2]
        self.retry_policy = RetryPolicy(settings.retries)
        self.timeout = settings.timeout
        self.min_rate = size_of(settings.min_rate)
        self._outage = OutageTracker()
        self._login = Login(self._log_in)
        self._route = functools.lru_cache(lambda place: find_route(place, settings, os.environ))
        self._known = _Known()
        self.pages: RequestCoalescer[Any] = RequestCoalescer()
        """Pages of listings, for whoever asks by any of the sessions `with_retry_policy`."""
        self._pool: Pool[Connection] = Pool(self._connect, Connection.close)

    @property
    def connections(self) -> tuple[int, int]:
        """How many are lent, and how many idle."""
        return self._pool.counts

    def with_retry_policy(self, retry_policy: RetryPolicy) -> SwiftSession:
        """Return a session with the same login and connections."""
        other = object.__new__(
            type(self)
        )  # each request makes one, and copy.copy takes several times as long
        other.__dict__.update(self.__dict__, retry_policy=retry_policy)
        return other

    def ask(
        self, method: str, container: str, key: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Send a request that has no body; return the headers of the answer. Raise `StorageError`."""

        def work(connection: Connection, url: str, token: str) -> dict[str, str]:
            sent = {"X-Auth-Token": token, "Content-Length": "0", **(headers or {})}
            answer = self.send(connection, method, path_of(url, container, key), sent)
            connection.http.skip(answer)
            return answer.fields

        return self.call(work, key)

    def call(
        self,
        work: Callable[[Connection, str, str], T],
        key: str = "",
        retry_on: tuple[type[StorageError], ...] = (),
        progress: Callable[[], float] = no_progress,
        can_repeat: Callable[[], bool] = lambda: True,
    ) -> T:
        """Do *work* about *key* with a connection, the storage URL and a token.

        What fails and may succeed is done again as a whole, if *can_repeat* then, so *work* must go on from
        where it is, or begin anew. A token that has run out is renewed once.
        """

        def once() -> T:
            try:
                result = self._as_logged_in(work, key)
            except StorageError as e:
                self._outage.note(e)
                raise
            self._outage.note(None)
            return result

        retry_on = (UnavailableError, ConflictError, *retry_on)
        rate = self.min_rate
        return self.retry_policy.call(
            once, retry_on, progress=progress, least_rate=rate, outage=self._outage, can_repeat=can_repeat
        )

    def _as_logged_in(self, work: Callable[[Connection, str, str], T], key: str) -> T:
        url, token = self._login.get()
        try:
            return self._with_connection(work, url, token, key)
        except UnauthenticatedError:
            self._login.forget(url, token)
        except UnavailableError as e:
            if isinstance(e, ConnectError):  # the store may have moved to another host
                self._login.doubt(url, token)
            raise
        return self._with_connection(work, *self._login.get(), key)

    def _with_connection(
        self, work: Callable[[Connection, str, str], T], url: str, token: str, key: str
    ) -> T:
        place = _place_of(url)
        try:
            with self._pool.borrowed(place) as connection, self.retry_policy.abortable(connection.http.abort):
                result = work(connection, url, token)
                self._known.answered.add(place)
                return result
        except Refusal as e:
            self._known.answered.add(place)
            about = asked(e, urlsplit(place).netloc, url, key)
            is_own = functools.partial(self._is_own, e, url, token)
            raise error_of_answer(e, about, is_own) from e
        except ConnectionBroken as e:
            raise self._error_of_silence(e, place, key) from e

    def send(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any = None,
        size: int = 0,
    ) -> Response:
        """Send a request for *path*, with its query; return the response, its body yet to be read.

        Raise `Refusal`, also if a server in front of the store answered with success.
        """
        response = connection.http.request(method, path, headers, body, size)
        if is_own := is_signed(response.fields):
            self._known.is_signed = True
        if 200 <= response.status < 300 and (is_own or not self._known.is_signed):
            self._known.has_succeeded = True
            return response
        raise self._refusal(connection.http, response, method, path, headers.get("X-Auth-Token", ""))

    def _refusal(
        self, connection: HttpConnection, answer: Response, method: str, path: str, token: str = ""
    ) -> Refusal:
        """Return the error for a refusal, its words without secrets: a server may send them back."""
        secrets = self._settings.secrets() | ({token} - {""})
        words = without(connection.read_words(answer), secrets)
        return Refusal(answer.status, answer.reason, answer.fields, words=words, method=method, path=path)

    def _is_own(self, e: Refusal, url: str, token: str) -> bool:
        """Tell whether the store itself refused a request, not a server in front of it.

        Some stores that speak Swift name no transactions. Such a store is recognised by its account's answer.
        """
        if is_signed(e.headers):
            return True
        if self._known.is_signed is None:
            self._known.is_signed = self._is_signed_account(url, token)
        return self._known.is_signed is False

    def _is_signed_account(self, url: str, token: str) -> bool | None:
        """Tell whether the answer about the account names its transaction, None if the store does not answer now."""
        try:
            with (
                self._pool.borrowed(_place_of(url)) as connection,
                self.retry_policy.abortable(connection.http.abort),
            ):
                answer = connection.http.request("HEAD", path_of(url), {"X-Auth-Token": token})
                connection.http.skip(answer)
        except ConnectionBroken:
            return None
        if is_signed(answer.fields):
            return True
        # a user with access to containers only may not read the account
        is_withheld = answer.status in (401, 403, 405, 501) and self._known.has_succeeded
        return False if 200 <= answer.status < 300 or is_withheld else None

    def _connect(self, place: str) -> Connection:
        return Connection(HttpConnection(self._route(place)))

    @contextlib.contextmanager
    def _connected(self, url: str) -> Iterator[HttpConnection]:
        """Give a connection for *url* that is not kept."""
        connection = self._connect(_place_of(url)).http
        try:
            with self.retry_policy.abortable(connection.abort):
                yield connection
        finally:
            connection.close()

    def _log_in(self) -> tuple[str, str]:
        """Return the storage URL and a token. Raise `StorageError`."""
        block = self._settings.swift
        options = dict(block.os_options)
        if {"auth_token", "object_storage_url"} <= options.keys():
            given = _checked_url(options["object_storage_url"])
            self._require_no_plain(given)
            return given, options["auth_token"]
        url = without_password(block.auth_url)
        try:
            if block.auth_version in ("1", "1.0"):
                granted, token = self._log_in_v1()
            else:
                granted, token = _sdk().log_in(self._settings, self._connected)
        except Refusal as e:
            raise self._passing(error_of_login(e, self.address, url, block.username)) from e
        except ConnectionBroken as e:
            raise self._error_of_silence(e, _place_of(block.auth_url)) from e
        self._known.answered.add(_place_of(block.auth_url))
        self._known.has_logged_in = True
        storage_url = _checked_url(options.get("object_storage_url") or granted)
        self._require_no_plain(storage_url)
        return storage_url, token

    def _require_no_plain(self, storage_url: str) -> None:
        """Raise `MisconfiguredError` if the login is by TLS and *storage_url* is not, unless the settings allow it.

        Others on the way could read the token, which is as good as the key for a day, and all files.
        """
        login = self._settings.swift.auth_url
        if urlsplit(login).scheme != "https" or urlsplit(storage_url).scheme == "https":
            return
        text = (
            f"the login at {without_password(login)} is by TLS, but the storage URL is not:"
            f" {without_password(storage_url)}"
        )
        if not self._settings.allow_plain_storage:
            raise MisconfiguredError(
                f"{text}. Give the https address by OS_STORAGE_URL, or have the store tell it; --allowPlainStorage lets"
                " the token and the files go in plain text",
                address=urlsplit(storage_url).netloc.rpartition("@")[2],
            )
        log.warning("%s. The token and the files go in plain text (--allowPlainStorage)", text)

    def _log_in_v1(self) -> tuple[str, str]:
        """Log in as Swift's own authentication takes it. Raise `Refusal` or `ConnectionBroken`."""
        block = self._settings.swift
        path = urlsplit(block.auth_url).path or "/"
        headers = {"X-Auth-User": block.username, "X-Auth-Key": block.key}
        with self._connected(block.auth_url) as connection:
            answer = connection.request("GET", path, headers)
            if not 200 <= answer.status < 300:
                raise self._refusal(connection, answer, "GET", path)
            connection.skip(answer)
        url, token = answer.fields.get("x-storage-url"), answer.fields.get("x-auth-token")
        if not url or not token:
            text = f"what answers at {self.address} is no Swift: it gave no storage URL and token; see --swiftAuthUrl"
            raise self._passing(MisconfiguredError(text))
        return url, token

    def _passing(self, error: StorageError) -> StorageError:
        """Return *error*, for an outage if the login has succeeded before: then the settings are not wrong.

        An ingress may show another page while the store restarts.
        """
        if isinstance(error, MisconfiguredError) and self._known.has_logged_in:
            facts = {name: fact for name, fact in error.facts.items() if name != "type"}
            return UnavailableError(str(error), **facts)
        return error

    def _error_of_silence(self, e: ConnectionBroken, place: str, key: str = "") -> StorageError:
        """Return the error for a request that *place* did not answer.

        Connections raise no bare `OSError`. Sinks and bodies do, and theirs pass through.
        """
        address = urlsplit(place).netloc
        facts: dict[str, Fact] = {"key": key} if key else {}
        if not (e.connecting or e.silent) and self._is_new(place) and meets_tls(self._route(place)):
            e = Mistake(SPEAKS_TLS)
        if isinstance(e, Mistake):
            self._route.cache_clear()  # the next try reads the files of certificates again
            if not e.is_setting:
                return RejectedError(f"{key!r}: {e.reason}", **facts)
            text = f"the store at {address} can't be used: {e.reason}"
            return MisconfiguredError(text, address=address, **facts)
        facts["connecting"] = e.connecting
        if e.silent:
            facts["silent"] = True
        text = f"the store at {address} does not answer: {e.reason}"
        kind = ConnectError if e.connecting else SilentStoreError if e.silent else UnavailableError
        return kind(text, address=address, **facts)

    def _is_new(self, place: str) -> bool:
        """Tell whether *place* has broken a connection twice, and has never answered."""
        is_again = place in self._known.broken
        self._known.broken.add(place)
        return is_again and place not in self._known.answered

    def sdk_connection(self) -> Any:
        """Return a new `swiftclient.Connection`, for callers who want the SDK itself."""
        return _sdk().SdkConnection(self._settings, self._log_in, self._route)

    def close(self) -> None:
        self._pool.close()


class _Known:
    """Facts about the store: whether it names its transactions (None: not known yet), and which places answered."""

    def __init__(self) -> None:
        self.is_signed: bool | None = None
        self.has_succeeded = self.has_logged_in = False
        self.answered: set[str] = set()
        self.broken: set[str] = set()


def _sdk() -> ModuleType:
    return importlib.import_module("pfstorage.backends.swift.sdk")


def _checked_url(url: str) -> str:
    url = url.strip()
    if not is_url(url):
        shown = without_password(url)
        text = f"the storage URL '{shown}' is not an http or https URL: see OS_STORAGE_URL, or the answer of the login"
        raise MisconfiguredError(text)
    return url.rstrip("/")
