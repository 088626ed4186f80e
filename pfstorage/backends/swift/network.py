"""Connections to the servers of a Swift, and the errors of requests that get no answer."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator
from urllib.parse import quote, urlsplit

from pfstorage.backends.errors import ConnectError, SilentStoreError
from pfstorage.backends.http.connection import HttpConnection
from pfstorage.backends.http.dialing import NetworkRoute, speaks_tls
from pfstorage.backends.http.errors import SPEAKS_TLS, ConnectionBroken, Mistake, Refusal
from pfstorage.backends.http.pool import Pool
from pfstorage.backends.http.response import StoreResponse
from pfstorage.backends.http.routes import find_route
from pfstorage.backends.retry import RetryPolicy
from pfstorage.errors import Fact, MisconfiguredError, RejectedError, StorageError, UnavailableError
from pfstorage.settings.model import Settings
from pfstorage.settings.redaction import without


class Connection:
    """A pooled connection for the requests of one caller at a time."""

    def __init__(self, http: HttpConnection) -> None:
        self.http = http

    def close(self) -> None:
        self.http.close()


def path_of(storage_url: str, container: str = "", key: str = "") -> str:
    """Return the path of a request about the account, about *container*, or about the object *key* in it."""
    names = [each for each in (container, key) if each]
    return "/".join([urlsplit(storage_url).path.rstrip("/"), *map(quote, names)])


def origin_of(url: str) -> str:
    """Return the scheme, the host and the port of *url*: ``SCHEME://HOST:PORT``."""
    base = urlsplit(url)
    return f"{base.scheme}://{base.netloc.rpartition('@')[2]}"


class Network:
    """The pooled connections of one storage, opened as its settings describe. Safe in many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pool: Pool[Connection] = Pool(self._connect, Connection.close)
        self._broken: set[str] = set()
        # The origins that have answered a request.
        self.answered: set[str] = set()
        self.route = functools.lru_cache(self._find_route)

    def _find_route(self, origin: str) -> NetworkRoute:
        return find_route(origin, self._settings, os.environ)

    def _connect(self, origin: str) -> Connection:
        return Connection(HttpConnection(self.route(origin)))

    @property
    def counts(self) -> tuple[int, int]:
        """The number of connections in use, and of idle ones."""
        return self._pool.counts

    @contextlib.contextmanager
    def borrowed(self, origin: str, retry_policy: RetryPolicy) -> Iterator[Connection]:
        """Lend a pooled connection to *origin*. *retry_policy* may abort its requests."""
        with self._pool.borrowed(origin) as connection, retry_policy.abortable(connection.http.abort):
            yield connection

    @contextlib.contextmanager
    def opened(self, url: str, retry_policy: RetryPolicy) -> Iterator[HttpConnection]:
        """Open a connection for *url*, and close it at the end. *retry_policy* may abort its requests."""
        connection = self._connect(origin_of(url)).http
        try:
            with retry_policy.abortable(connection.abort):
                yield connection
        finally:
            connection.close()

    def close(self) -> None:
        self._pool.close()

    def refusal(
        self, connection: HttpConnection, answer: StoreResponse, method: str, path: str, token: str = ""
    ) -> Refusal:
        """Return the error for a refused request, without secrets: a server may send them back."""
        secrets = self._settings.secrets() | ({token} - {""})
        words = without(connection.read_words(answer), secrets)
        return Refusal(answer.status, answer.reason, answer.fields, words=words, method=method, path=path)

    def unanswered_error(self, e: ConnectionBroken, origin: str, key: str = "") -> StorageError:
        """Return the error for a request about *key* that the server at *origin* did not answer."""
        address = urlsplit(origin).netloc
        facts: dict[str, Fact] = {"key": key} if key else {}
        if not (e.connecting or e.silent) and self._may_be_tls(origin) and speaks_tls(self.route(origin)):
            e = Mistake(SPEAKS_TLS)
        if isinstance(e, Mistake):
            self.route.cache_clear()  # the next request reads the files of certificates again
            if not e.is_setting:
                return RejectedError(f"{key!r}: {e.reason}", **facts)
            text = f"the store at {address} can't be used: {e.reason}"
            return MisconfiguredError(text, address=address, **facts)
        facts["connecting"] = e.connecting
        if e.silent:
            facts["silent"] = True
        kind = ConnectError if e.connecting else SilentStoreError if e.silent else UnavailableError
        return kind(f"the store at {address} does not answer: {e.reason}", address=address, **facts)

    def _may_be_tls(self, origin: str) -> bool:
        """Return whether *origin* has broken two connections and has never answered."""
        is_again = origin in self._broken
        self._broken.add(origin)
        return is_again and origin not in self.answered
