"""How requests reach a Swift: python-swiftclient, which only this file imports.

A request goes through `SwiftSession`, which tries again what may help, with a
connection from the pool and the login that all share. `swiftclient.Connection`
does that too, but waits 31 s for a store that isn't there, logs in once for each
connection, can't rewind a body after a 401 and begins a broken download anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import swiftclient.client as swift
import urllib3

from pfstorage.backends.base import CHUNK
from pfstorage.backends.login import Login
from pfstorage.backends.pool import Pool
from pfstorage.backends.retry import retried
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

T = TypeVar("T")


@dataclass(frozen=True)
class Connection:
    """One kept connection to a store, for swiftclient and for the bytes of objects.

    *sdk* is what swiftclient's functions take: a parsed URL and its own connection.
    *http* is the urllib3 pool, of one, below that; *prefix* goes before a path in it.
    """

    sdk: tuple[Any, Any]
    http: Any
    prefix: str

    def close(self) -> None:
        self.sdk[1].close()


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
        self._login = Login(self._log_in)
        self._pool: Pool[Connection] = Pool(lambda: self._connect(self._login.get()[0]), Connection.close)

    def request(self, name: str, *args: Any, key: str = "", **kwargs: Any) -> Any:
        """Return what swiftclient's function *name* returns for *args* and *kwargs*. Raise `StorageError`."""

        def call(connection: Connection, url: str, token: str) -> Any:
            return getattr(swift, name)(url, token, *args, http_conn=connection.sdk, **kwargs)

        return self.tried(call, key)

    def tried(
        self,
        work: Callable[[Connection, str, str], T],
        key: str = "",
        again_on: tuple[type[StorageError], ...] = (),
    ) -> T:
        """Do *work* about *key* with a connection, the storage URL and a token.

        What fails and may succeed is done again as a whole, so *work* must go on from
        where it is, or begin anew. A token that has run out is renewed once.
        """

        def once() -> T:
            url, token = self._login.get()
            try:
                return self._with_connection(work, url, token, key)
            except UnauthenticatedError:
                self._login.forget(token)
            return self._with_connection(work, *self._login.get(), key)

        return retried(once, self._settings.retries, (UnavailableError, *again_on))

    def _with_connection(
        self, work: Callable[[Connection, str, str], T], url: str, token: str, key: str
    ) -> T:
        with _swift_errors(self.address, key), self._pool.borrowed() as connection:
            return work(connection, url, token)

    def send(
        self, connection: Connection, method: str, target: str, headers: Mapping[str, str], body: Any = None
    ) -> urllib3.HTTPResponse:
        """Send a request for an object at the URL *target*; return the response, its body yet to be read.

        This is where the bytes go, and not through swiftclient: requests, below it,
        takes more time for a small object than all else here together.
        """
        response: urllib3.HTTPResponse = connection.http.urlopen(
            method,
            connection.prefix + urlsplit(target).path,
            body=body,
            headers=headers,
            timeout=urllib3.Timeout(connect=self._settings.connect_timeout, read=self._settings.timeout),
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
        )
        if 200 <= response.status < 300:
            return response
        response.drain_conn()
        raise swift.ClientException(
            method,
            http_status=response.status,
            http_reason=response.reason,
            http_response_headers=response.headers,
        )

    def _connect(self, url: str) -> Connection:
        settings = self._settings
        sdk = swift.http_connection(
            url,
            cacert=settings.swift.cacert or None,
            timeout=(settings.connect_timeout, settings.timeout),
        )
        session, options = sdk[1].request_session, sdk[1].requests_args
        proxy = settings.http_proxy and f"http://{settings.http_proxy.removeprefix('http://')}"
        given = {"http": proxy, "https": proxy} if proxy else {}
        found = session.merge_environment_settings(url, given, True, options["verify"], None)
        options.update(proxies=found["proxies"], verify=found["verify"])
        # requests would read the environment again for each request: a third of a small GET's time
        session.trust_env = False
        adapter = session.get_adapter(url)
        adapter.init_poolmanager(1, 1, blocksize=CHUNK)
        request = requests.Request("GET", url).prepare()
        http = adapter.get_connection_with_tls_context(request, found["verify"], found["proxies"])
        http.ConnectionCls = _patient(http.ConnectionCls, settings.timeout)
        whole = adapter.request_url(request, found["proxies"])  # a proxy for http is told the whole URL
        return Connection(sdk, http, whole.removesuffix(request.path_url))

    def _log_in(self) -> tuple[str, str]:
        """Return the storage URL and a token. Raise `StorageError`."""
        block = self._settings.swift
        options = dict(block.os_options)
        if {"auth_token", "object_storage_url"} <= options.keys():
            return options["object_storage_url"], options["auth_token"]
        with _swift_errors(self.address):
            if block.auth_version in ("1", "1.0"):
                return self._log_in_v1(options.get("object_storage_url", ""))
            url, token = swift.get_auth(
                block.auth_url,
                block.username,
                block.key,
                auth_version=block.auth_version,
                os_options=options,
                cacert=block.cacert or None,
                timeout=self._settings.timeout,
            )
        return url, token

    def _log_in_v1(self, storage_url: str) -> tuple[str, str]:
        """Log in as Swift's own authentication takes it; swiftclient's function knows no proxy."""
        block = self._settings.swift
        connection = self._connect(block.auth_url)
        try:
            parsed, http = connection.sdk
            http.request("GET", parsed.path, "", {"X-Auth-User": block.username, "X-Auth-Key": block.key})
            answer = http.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status == 401:
            raise UnauthenticatedError(
                f"the store at {self.address} does not accept the key of {block.username!r}: set SWIFT_KEY",
                address=self.address,
                status=401,
            )
        if not 200 <= answer.status < 300:
            raise swift.ClientException.from_response(answer, "login failed", body)
        url, token = storage_url or answer.getheader("x-storage-url"), answer.getheader("x-auth-token")
        if not url or not token:
            raise RejectedError(
                f"what answers at {self.address} is no Swift: it gave no storage URL and token"
            )
        return url, token

    def close(self) -> None:
        self._pool.close()


def _patient(kind: type[Any], seconds: float) -> type[Any]:
    """Return a kind of connection that waits *seconds* for a store that is slow to read, once it is open.

    urllib3 lets the time for connecting bound the sending of the first body, too.
    """

    class Patient(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            self.sock.settimeout(seconds)

    return Patient


@contextlib.contextmanager
def _swift_errors(address: str, key: str = "") -> Iterator[None]:
    """The one seam: turn what swiftclient and the libraries below it raise into a `StorageError`.

    They raise no bare `OSError`, so one that passes here is of a sink, and stays as it is.
    """
    try:
        yield
    except swift.ClientException as e:
        raise _error_of_answer(e, address, key) from e
    except (requests.RequestException, urllib3.exceptions.HTTPError) as e:
        reason, connecting = _reason(e)
        text = f"the store at {address} does not answer: {reason}"
        raise UnavailableError(text, address=address, connecting=connecting, **_key_fact(key)) from e


def _error_of_answer(e: swift.ClientException, address: str, key: str) -> StorageError:
    status = e.http_status
    if status is None:  # swiftclient's own complaint about how it was asked to log in
        return UnauthenticatedError(f"cannot log in at {address}: {e.msg}", address=address)
    kind = ERROR_BY_STATUS.get(status, UnavailableError if status >= 500 else RejectedError)
    facts: dict[str, Fact] = {"address": address, "status": status, **_key_fact(key)}
    if e.transaction_id:
        facts["transaction"] = str(e.transaction_id)
    wait = str((e.http_response_headers or {}).get("retry-after", ""))
    if wait.isdigit():
        facts["retry_after"] = int(wait)
    if kind is NotFoundError and key:
        return NotFoundError(f"there is no object {key!r}", **facts)
    about = f" about {key!r}" if key else ""
    return kind(f"the store at {address} answered {status} {e.http_reason}{about}", **facts)


def _key_fact(key: str) -> dict[str, Fact]:
    return {"key": key} if key else {}


def _reason(e: Exception) -> tuple[str, bool]:
    """Return why there was no answer, in few words, and whether there was no connection at all."""
    inner: object = e
    if isinstance(e, requests.RequestException):  # which wraps what urllib3 raised
        inner = getattr(e.args[0], "reason", e.args[0]) if e.args else e
    if isinstance(inner, urllib3.exceptions.ProtocolError) and len(inner.args) > 1:
        inner = inner.args[1]
    if isinstance(inner, urllib3.exceptions.ProxyError):
        return "its proxy does not (see --httpProxy, or the variables http_proxy and no_proxy)", True
    if isinstance(inner, urllib3.exceptions.NameResolutionError):
        return "its name is not known", True
    if isinstance(inner, urllib3.exceptions.NewConnectionError):
        return "nothing listens there", True
    if isinstance(inner, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time", True
    if isinstance(inner, urllib3.exceptions.TimeoutError):
        return "it fell silent", False
    return f"the connection broke ({type(inner).__name__})", False


def sdk_connection(settings: Settings) -> Any:
    """Return a `swiftclient.Connection` for *settings*, for callers who want the SDK itself."""
    block = settings.swift
    return swift.Connection(
        authurl=block.auth_url,
        user=block.username,
        key=block.key,
        auth_version=block.auth_version,
        os_options=dict(block.os_options),
        cacert=block.cacert or None,
        timeout=settings.timeout,
    )
