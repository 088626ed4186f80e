"""Send requests to a Swift: over pooled connections, with one shared login, with retries.

`swiftclient.Connection` does this too. But it waits 31 s for a store that does not exist, logs in once for each
connection, can't rewind a body after a 401, restarts a broken download, and sends the token along with a redirection.
So all requests are plain HTTP. The module `sdk` uses the SDKs for the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pfstorage.backends.coalescing import RequestCoalescer
from pfstorage.backends.errors import ConnectError
from pfstorage.backends.http.errors import ConnectionBroken, Refusal
from pfstorage.backends.http.response import StoreResponse
from pfstorage.backends.retry import OutageTracker, RetryPolicy, zero_progress
from pfstorage.backends.swift.errors import error_from_answer, is_signed, subject_of
from pfstorage.backends.swift.login import Authenticator, Login, sdk
from pfstorage.backends.swift.network import Connection, Network, origin_of, path_of
from pfstorage.errors import ConflictError, StorageError, UnauthenticatedError, UnavailableError
from pfstorage.settings.model import Settings, size_of

T = TypeVar("T")


class SwiftSession:
    """A session at one Swift, with one login and one pool of connections. Safe in many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.address = urlsplit(settings.swift.auth_url).netloc.rpartition("@")[2]
        self.retry_policy = RetryPolicy(settings.retries)
        self.timeout = settings.timeout
        self.min_rate = size_of(settings.min_rate)
        self._outage = OutageTracker()
        self._network = Network(settings)
        self.log_in = Authenticator(settings, self._network, self.retry_policy).log_in
        self._login = Login(self.log_in)
        self._signature = _Signature()
        # Pages of listings. All sessions of `with_retry_policy` share them.
        self.pages: RequestCoalescer[Any] = RequestCoalescer()

    @property
    def connections(self) -> tuple[int, int]:
        """The number of connections in use, and of idle ones."""
        return self._network.counts

    def with_retry_policy(self, retry_policy: RetryPolicy) -> SwiftSession:
        """Return a session with *retry_policy* that shares the login and the connections of this one."""
        # each message calls this, and copy.copy takes several times as long
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, retry_policy=retry_policy)
        return other

    def ask(
        self, method: str, container: str, key: str = "", headers: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Send a request without a body; return the headers of the answer. Raise `StorageError`."""

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
        progress: Callable[[], float] = zero_progress,
        can_repeat: Callable[[], bool] = lambda: True,
    ) -> T:
        """Call *work*, which sends a request about *key*, with a connection, the storage URL and a token.

        After an outage, a conflict or an error of *retry_on*, call *work* again as `RetryPolicy.call` does: it must
        continue its work or start again. A token that has expired is renewed once.
        """

        def once() -> T:
            try:
                result = self._call_logged_in(work, key)
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

    def _call_logged_in(self, work: Callable[[Connection, str, str], T], key: str) -> T:
        url, token = self._login.get()
        try:
            return self._call_connected(work, url, token, key)
        except UnauthenticatedError:
            self._login.forget(url, token)
        except ConnectError:
            self._login.forget_unless_new(url, token)
            raise
        return self._call_connected(work, *self._login.get(), key)

    def _call_connected(self, work: Callable[[Connection, str, str], T], url: str, token: str, key: str) -> T:
        origin = origin_of(url)
        try:
            with self._network.borrowed(origin, self.retry_policy) as connection:
                result = work(connection, url, token)
                self._network.answered.add(origin)
                return result
        except Refusal as e:
            self._network.answered.add(origin)
            about = subject_of(e, urlsplit(origin).netloc, url, key)
            is_own = functools.partial(self._is_own, e, url, token)
            raise error_from_answer(e, about, is_own) from e
        except ConnectionBroken as e:
            raise self._network.unanswered_error(e, origin, key) from e

    def send(
        self,
        connection: Connection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Any = None,
        size: int = 0,
    ) -> StoreResponse:
        """Send a request for *path*, which includes the query; return the response, whose body the caller reads.

        Raise `Refusal`, also for a success that a server in front of the store answered.
        """
        response = connection.http.request(method, path, headers, body, size)
        if is_own := is_signed(response.fields):
            self._signature.is_used = True
        if 200 <= response.status < 300 and (is_own or not self._signature.is_used):
            self._signature.has_succeeded = True
            return response
        token = headers.get("X-Auth-Token", "")
        raise self._network.refusal(connection.http, response, method, path, token)

    def _is_own(self, e: Refusal, url: str, token: str) -> bool:
        """Return whether the store itself refused a request, not a server in front of it.

        Some stores with the API of Swift name no transactions. The answer about the account reveals such a store.
        """
        if is_signed(e.headers):
            return True
        if self._signature.is_used is None:
            self._signature.is_used = self._is_account_signed(url, token)
        return self._signature.is_used is False

    def _is_account_signed(self, url: str, token: str) -> bool | None:
        """Return whether the answer about the account names its transaction, None if the store does not answer now."""
        try:
            with self._network.borrowed(origin_of(url), self.retry_policy) as connection:
                answer = connection.http.request("HEAD", path_of(url), {"X-Auth-Token": token})
                connection.http.skip(answer)
        except ConnectionBroken:
            return None
        if is_signed(answer.fields):
            return True
        # a user with access to containers only may not read the account
        is_withheld = answer.status in (401, 403, 405, 501) and self._signature.has_succeeded
        return False if 200 <= answer.status < 300 or is_withheld else None

    def sdk_connection(self) -> Any:
        """Return a new `swiftclient.Connection` for callers of the SDK."""
        return sdk().SdkConnection(self._settings, self.log_in, self._network.route)

    def close(self) -> None:
        self._network.close()


class _Signature:
    """The knowledge whether the store names a transaction in each answer, None before that is known."""

    def __init__(self) -> None:
        self.is_used: bool | None = None
        self.has_succeeded = False
