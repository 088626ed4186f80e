"""OpenStack Swift through python-swiftclient, which only this file imports.

A request goes through `_Session.request`, which tries again what may help, with a
connection from the pool and the login that all share. `swiftclient.Connection`
does that too, but waits 31 s for a store that isn't there, logs in once for each
connection, can't rewind a body after a 401 and begins a broken download anew.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
import swiftclient.client as swift
import urllib3

from pfstorage.backends.base import CHUNK, ObjectInfo, Sink, Source
from pfstorage.backends.common import guess_content_type, iso_time
from pfstorage.backends.pool import Pool
from pfstorage.backends.retry import retried
from pfstorage.backends.streams import HashedBody, HashedSink
from pfstorage.config import Settings
from pfstorage.errors import (
    ContainerNotFoundError,
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
from pfstorage.pathmap import check_key

T = TypeVar("T")
Connection = tuple[Any, Any]  # a parsed URL and a swiftclient.client.HTTPConnection

PAGE = 10_000
"""Rows of one listing page: Swift's ``container_listing_limit`` unless an operator lowered it."""

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


def open_storage(settings: Settings) -> SwiftStorage:
    return SwiftStorage(settings)


class SwiftStorage:
    """One container of an OpenStack Swift."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session = _Session(settings)
        self._container = settings.swift.container_name
        self._auto_create_container = settings.swift.auto_create_container
        self._creating = threading.Lock()

    def list(
        self, prefix: str = "", *, marker: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[ObjectInfo]:
        rows = self._rows(prefix, marker, limit, delimiter)
        return itertools.islice((_info_of_row(row) for row in rows), limit)

    def _rows(
        self, prefix: str, marker: str, limit: int | None, delimiter: str
    ) -> Iterator[Mapping[str, Any]]:
        page_size: int | None = min(limit or PAGE, PAGE)
        while True:
            try:
                page = self._page(prefix=prefix, marker=marker, limit=page_size, delimiter=delimiter)
            except RejectedError as e:
                if e.facts.get("status") != 412 or page_size is None:
                    raise
                page_size = None  # the operator allows less than we ask for: take the store's own size
                continue
            yield from page
            # a page shorter than asked for is the last one; where nothing was asked, an empty one is
            if len(page) < (page_size or 1):
                return
            marker = page[-1].get("name") or page[-1]["subdir"]

    def _page(self, **query: Any) -> Sequence[dict[str, Any]]:
        try:
            page: Sequence[dict[str, Any]] = self._session.request(
                swift.get_container, self._container, **query
            )[1]
        except NotFoundError as e:
            raise self._no_container() from e
        return page

    def _no_container(self) -> ContainerNotFoundError:
        return ContainerNotFoundError(
            f"there is no container {self._container!r} at {self._session.address}; a push creates it",
            container=self._container,
        )

    def head(self, key: str) -> ObjectInfo:
        headers = self._session.request(swift.head_object, self._container, check_key(key), key=key)
        return _info_of_headers(key, headers)

    def get(self, key: str, sink: Sink) -> ObjectInfo:
        check_key(key)
        hashed = HashedSink(sink)
        first: dict[str, str] = {}
        self._session.request(self._get_rest, key, hashed, first, key=key)
        info = _info_of_headers(key, first)
        hashed.verify(key, info.size, info.etag if _is_md5_of_content(first) else None)
        return info

    def _get_rest(
        self,
        url: str,
        token: str,
        key: str,
        sink: HashedSink,
        first: dict[str, str],
        *,
        http_conn: Connection,
    ) -> None:
        """Get what *sink* has not received yet, if it is the same object; keep the *first* headers."""
        condition = {"Range": f"bytes={sink.received}-", "If-Match": first["etag"]} if sink.received else {}
        headers, body = swift.get_object(
            url, token, self._container, key, resp_chunk_size=CHUNK, headers=condition, http_conn=http_conn
        )
        first.update({} if first else headers)
        known = 0 if "content-range" in headers else sink.received  # a store may ignore Range
        while chunk := body.read(CHUNK):
            sink.write(chunk[known:])
            known = max(0, known - len(chunk))

    def put(self, key: str, body: Source, size: int) -> ObjectInfo:
        check_key(key)
        send = functools.partial(
            self._session.request,
            self._put_once,
            key,
            body,
            body.tell(),
            size,
            key=key,
            again_on=(IntegrityError,),
        )
        try:
            return send()
        except NotFoundError:  # a PUT finds no container
            if not self._auto_create_container:
                raise self._no_container() from None
        with self._creating:
            self._session.request(swift.put_container, self._container)  # to create what is there is no error
        return send()

    def _put_once(
        self, url: str, token: str, key: str, body: Source, start: int, size: int, *, http_conn: Connection
    ) -> ObjectInfo:
        body.seek(start)
        hashed = HashedBody(body, size, key)
        kind = guess_content_type(key)
        answer: dict[str, Any] = {}
        sent: dict[str, Any] = {"content_length": size, "content_type": kind}
        etag = swift.put_object(
            url, token, self._container, key, hashed, **sent, http_conn=http_conn, response_dict=answer
        )
        if etag != hashed.md5:
            raise IntegrityError(f"{key!r}: the store has other bytes than were sent; push it again", key=key)
        return ObjectInfo(
            key, size, etag, _iso_of_http_date(answer["headers"].get("last-modified", "")), kind
        )

    def delete(self, key: str) -> None:
        self._session.request(swift.delete_object, self._container, check_key(key), key=key)

    def copy(self, source: str, target: str) -> ObjectInfo:
        destination = f"/{self._container}/{check_key(target)}"
        self._session.request(swift.copy_object, self._container, check_key(source), destination, key=source)
        return self.head(target)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> SwiftStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Session:
    """What the requests to one Swift share: its address, the login, the connections."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.address = urlsplit(settings.swift.auth_url).netloc.rpartition("@")[2]
        self._login = _Login(self._log_in)
        self._pool: Pool[Connection] = Pool(lambda: self._connect(self._login.get()[0]), _disconnect)

    def request(
        self,
        function: Callable[..., T],
        *args: Any,
        key: str = "",
        again_on: tuple[type[StorageError], ...] = (),
        **kwargs: Any,
    ) -> T:
        """Call *function* of swiftclient with a URL, a token, *args* and a connection.

        Try again what may help; log in once more if the token has run out.
        Raise `StorageError`.
        """

        def send() -> T:
            url, token = self._login.get()
            try:
                return self._send(function, url, token, *args, key=key, **kwargs)
            except UnauthenticatedError:
                self._login.forget(token)
            return self._send(function, *self._login.get(), *args, key=key, **kwargs)

        return retried(send, self._settings.retries, (UnavailableError, *again_on))

    def _send(
        self, function: Callable[..., T], url: str, token: str, *args: Any, key: str, **kwargs: Any
    ) -> T:
        with _swift_errors(self.address, key), self._pool.borrowed() as connection:
            return function(url, token, *args, http_conn=connection, **kwargs)

    def _connect(self, url: str) -> Connection:
        settings = self._settings
        timeouts = (settings.connect_timeout, settings.timeout)
        connection: Connection = swift.http_connection(
            url, cacert=settings.swift.cacert or None, timeout=timeouts
        )
        proxy = settings.http_proxy and f"http://{settings.http_proxy.removeprefix('http://')}"
        session, options = connection[1].request_session, connection[1].requests_args
        found = session.merge_environment_settings(
            url, {"http": proxy, "https": proxy} if proxy else {}, True, options["verify"], None
        )
        options.update(proxies=found["proxies"], verify=found["verify"])
        # requests would read the environment again for each request: a third of a small GET's time
        session.trust_env = False
        return connection

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
            connection[1].request(
                "GET", connection[0].path, "", {"X-Auth-User": block.username, "X-Auth-Key": block.key}
            )
            answer = connection[1].getresponse()
            body = answer.read()
        finally:
            _disconnect(connection)
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


class _Login:
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
                    self._granted = self._log_in()
                except StorageError as e:
                    self._failure = (time.monotonic(), e)
                    raise
            return self._granted

    def forget(self, token: str) -> None:
        """Log in anew for the next caller, unless that has happened since *token* was given."""
        with self._lock:
            if self._granted and self._granted[1] == token:
                self._granted = None


def _disconnect(connection: Connection) -> None:
    connection[1].close()


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
    inner = getattr(e.args[0], "reason", e.args[0]) if e.args else e
    if isinstance(inner, urllib3.exceptions.NameResolutionError):
        return "its name is not known", True
    if isinstance(inner, urllib3.exceptions.NewConnectionError):  # in urllib3 1 a ConnectTimeoutError, too
        return "nothing listens there", True
    if isinstance(inner, urllib3.exceptions.ConnectTimeoutError):
        return "no connection in time", True
    if isinstance(inner, urllib3.exceptions.TimeoutError):
        return "it fell silent", False
    return f"the connection broke ({type(inner).__name__})", False


def _is_md5_of_content(headers: Mapping[str, str]) -> bool:
    """Tell whether the ETag is the MD5 of the bytes: it isn't for large objects made of segments."""
    segmented = {"x-static-large-object", "x-object-manifest"} & headers.keys()
    return not segmented and re.fullmatch("[0-9a-f]{32}", headers.get("etag", "").strip('"')) is not None


def _info_of_row(row: Mapping[str, Any]) -> ObjectInfo:
    if "subdir" in row:
        return ObjectInfo(row["subdir"], is_subdir=True)
    return ObjectInfo(row["name"], row["bytes"], row["hash"], row["last_modified"], row["content_type"])


def _info_of_headers(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    if "x-timestamp" in headers:
        modified = iso_time(float(headers["x-timestamp"]))
    else:
        modified = _iso_of_http_date(headers.get("last-modified", ""))
    size = int(headers.get("content-length", 0))
    return ObjectInfo(
        key, size, headers.get("etag", "").strip('"'), modified, headers.get("content-type", "")
    )


def _iso_of_http_date(text: str) -> str:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return ""
    return iso_time(moment.replace(tzinfo=timezone.utc).timestamp())
