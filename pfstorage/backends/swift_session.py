"""How requests reach a Swift: by plain HTTP, and by python-swiftclient (`swift_sdk`) what is rare.

A request goes through `SwiftSession`, which tries again what may help, with a
connection from the pool and the login that all share. `swiftclient.Connection`
does that too, but waits 31 s for a store that isn't there, logs in once for each
connection, can't rewind a body after a 401 and begins a broken download anew.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from pfstorage.backends.http_connection import ConnectionBroken, HttpConnection, Refusal, Route
from pfstorage.backends.http_response import Response
from pfstorage.backends.login import Login
from pfstorage.backends.pool import Pool
from pfstorage.backends.retry import Outage, Patience, no_progress
from pfstorage.config import Settings
from pfstorage.errors import (
    Fact,
    IntegrityError,
    NoSpaceError,
    NotFoundError,
    PermissionDeniedError,
    RejectedError,
    StorageError,
    UnauthenticatedError,
    UnavailableError,
)
from pfstorage.masks import without_password

T = TypeVar("T")


class Connection:
    """A kept connection for the bytes of objects, and a second one, made when swiftclient needs it."""

    def __init__(self, http: HttpConnection, connect_sdk: Callable[[], Any]) -> None:
        self.http = http
        self._connect_sdk = connect_sdk

    @functools.cached_property
    def sdk(self) -> tuple[Any, Any]:
        """What swiftclient's functions take: a parsed URL and a connection of its own."""
        made: tuple[Any, Any] = self._connect_sdk()
        return made

    def close(self) -> None:
        self.http.close()
        if "sdk" in self.__dict__:
            self.sdk[1].close()


def path_of(storage_url: str, container: str, key: str = "") -> str:
    """Return the path of a request about *container*, or about the object *key* in it."""
    path = f"{urlsplit(storage_url).path}/{quote(container)}"
    return f"{path}/{quote(key)}" if key else path


ERROR_BY_STATUS: dict[int, type[StorageError]] = {
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    408: UnavailableError,
    413: NoSpaceError,
    422: IntegrityError,
    429: UnavailableError,
    498: UnavailableError,  # Swift's own rate limit
    499: UnavailableError,
    507: NoSpaceError,
}


class SwiftSession:
    """What the requests to one Swift share: its address, the login, the connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.address = urlsplit(settings.swift.auth_url).netloc.rpartition("@")[2]
        self.patience = Patience(settings.retries)
        self._outage = Outage()
        self._login = Login(self._log_in)
        self._route = functools.lru_cache(self._find_route)
        self._pool: Pool[Connection] = Pool(lambda: self._connect(self._login.get()[0]), Connection.close)

    @property
    def connections(self) -> tuple[int, int]:
        """How many are lent, and how many idle."""
        return self._pool.counts

    def with_patience(self, patience: Patience) -> SwiftSession:
        """Return a session with the same login and connections."""
        other = copy.copy(self)
        other.patience = patience
        return other

    def request(self, name: str, *args: Any, key: str = "", **kwargs: Any) -> Any:
        """Return what swiftclient's function *name* returns for *args* and *kwargs*. Raise `StorageError`."""

        def call(connection: Connection, url: str, token: str) -> Any:
            return _sdk().call(name, url, token, connection.sdk, *args, **kwargs)

        return self.tried(call, key)

    def tried(
        self,
        work: Callable[[Connection, str, str], T],
        key: str = "",
        again_on: tuple[type[StorageError], ...] = (),
        progress: Callable[[], int] = no_progress,
    ) -> T:
        """Do *work* about *key* with a connection, the storage URL and a token.

        What fails and may succeed is done again as a whole, so *work* must go on from
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

        again_on = (UnavailableError, *again_on)
        return self.patience.tried(once, again_on, progress=progress, outage=self._outage)

    def _as_logged_in(self, work: Callable[[Connection, str, str], T], key: str) -> T:
        url, token = self._login.get()
        try:
            return self._with_connection(work, url, token, key)
        except UnauthenticatedError:
            self._login.forget(token)
        return self._with_connection(work, *self._login.get(), key)

    def _with_connection(
        self, work: Callable[[Connection, str, str], T], url: str, token: str, key: str
    ) -> T:
        with (
            _swift_errors(self.address, key),
            self._pool.borrowed() as connection,
            self.patience.breakable(connection.http.abort),
        ):
            return work(connection, url, token)

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

        This is where the bytes go, and the rows of listings, and not through swiftclient.
        """
        response = connection.http.request(method, path, headers, body, size)
        if 200 <= response.status < 300:
            return response
        connection.http.read_all(response)
        raise Refusal(response.status, response.reason, response.fields)

    def _connect(self, url: str) -> Connection:
        base = urlsplit(url)
        route = self._route(f"{base.scheme}://{base.netloc.rpartition('@')[2]}")
        cacert = self._settings.swift.cacert
        return Connection(HttpConnection(route), lambda: _sdk().connect(url, route, cacert))

    def _find_route(self, url: str) -> Route:
        """Find how to reach *url*; what the environment says of it is asked only where it says anything."""
        settings = self._settings
        is_plain = url.startswith("http:") and not settings.http_proxy
        if is_plain and not any(name.lower() in ("http_proxy", "all_proxy") for name in os.environ):
            return Route(url, "", settings.connect_timeout, settings.timeout, None)
        with _swift_errors(self.address):
            route: Route = _sdk().find_route(url, settings)
            return route

    def _log_in(self) -> tuple[str, str]:
        """Return the storage URL and a token. Raise `StorageError`."""
        block = self._settings.swift
        options = dict(block.os_options)
        if {"auth_token", "object_storage_url"} <= options.keys():
            return options["object_storage_url"], options["auth_token"]
        with _swift_errors(self.address):
            if block.auth_version in ("1", "1.0"):
                return self._log_in_v1(options.get("object_storage_url", ""))
            return _keystone_login(self._settings)

    def _log_in_v1(self, storage_url: str) -> tuple[str, str]:
        """Log in as Swift's own authentication takes it; swiftclient's function knows no proxy."""
        block = self._settings.swift
        connection = self._connect(block.auth_url)
        try:
            headers = {"X-Auth-User": block.username, "X-Auth-Key": block.key}
            with self.patience.breakable(connection.http.abort):
                answer = connection.http.request("GET", urlsplit(block.auth_url).path or "/", headers)
                connection.http.read_all(answer)
        finally:
            connection.close()
        if answer.status == 401:
            raise UnauthenticatedError(
                f"the store at {self.address} does not accept the key of {block.username!r}: see --swiftKey, SWIFT_KEY",
                address=self.address,
                status=401,
            )
        if not 200 <= answer.status < 300:
            raise Refusal(answer.status, answer.reason, answer.fields)
        url, token = storage_url or answer.fields.get("x-storage-url"), answer.fields.get("x-auth-token")
        if not url or not token:
            raise RejectedError(
                f"what answers at {self.address} is no Swift: it gave no storage URL and token"
            )
        return url, token

    def close(self) -> None:
        self._pool.close()


def _sdk() -> ModuleType:
    return importlib.import_module("pfstorage.backends.swift_sdk")


def _keystone_login(settings: Settings) -> tuple[str, str]:
    granted: tuple[str, str] = _sdk().log_in(settings)
    return granted


@contextlib.contextmanager
def _swift_errors(address: str, key: str = "") -> Iterator[None]:
    """The one seam: turn what connections and swiftclient raise into a `StorageError`.

    They raise no bare `OSError`, so one that passes here is of a sink, and stays as it is.
    """
    try:
        yield
    except Refusal as e:
        raise _error_of_answer(e, address, key) from e
    except ConnectionBroken as e:
        text = f"the store at {address} does not answer: {e.reason}"
        facts: dict[str, Fact] = {"connecting": e.connecting, **_key_fact(key)}
        if e.silent:
            facts["silent"] = True
        raise UnavailableError(text, address=address, **facts) from e


def _error_of_answer(e: Refusal, address: str, key: str) -> StorageError:
    status = e.status
    if status is None:  # swiftclient's own complaint about how it was asked to log in
        reason = without_password(e.reason)  # which may quote the whole address
        return UnauthenticatedError(f"cannot log in at {address}: {reason}", address=address)
    kind = ERROR_BY_STATUS.get(status, UnavailableError if status >= 500 else RejectedError)
    facts: dict[str, Fact] = {"address": address, "status": status, **_key_fact(key)}
    if "x-trans-id" in e.headers:
        facts["transaction"] = e.headers["x-trans-id"]
    wait = e.headers.get("retry-after", "")
    if wait.isdecimal():
        facts["retry_after"] = int(wait)
    if kind is NotFoundError and key:
        return NotFoundError(f"there is no object {key!r}", **facts)
    about = f" about {key!r}" if key else ""
    return kind(f"the store at {address} answered {status} {e.reason}{about}", **facts)


def _key_fact(key: str) -> dict[str, Fact]:
    return {"key": key} if key else {}
