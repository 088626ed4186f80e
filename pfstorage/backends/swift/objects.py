"""The objects of a Swift, in whatever container: sent and fetched, each with one request, and listed."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pfstorage.backends.capabilities import rewind_window
from pfstorage.backends.contract import CHUNK, ByteRange, ObjectInfo, Sink, Source
from pfstorage.backends.errors import PreconditionFailedError, already_exists_error
from pfstorage.backends.http.errors import ConnectionBroken, Refusal
from pfstorage.backends.streams import HashedBody
from pfstorage.backends.swift.download import Download
from pfstorage.backends.swift.errors import no_container
from pfstorage.backends.swift.headers import etag_in, info_of, iso_of_http_date
from pfstorage.backends.swift.listing import SwiftListings
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.errors import (
    ConflictError,
    ContainerNotFoundError,
    IntegrityError,
    RejectedError,
    StorageError,
)

T = TypeVar("T")


class WrongBytesStoredError(IntegrityError, is_public=False):
    """The store has an object, of the ETag *etag*, whose bytes are not those that were sent."""

    def __init__(self, text: str, key: str, etag: str) -> None:
        super().__init__(text, key=key, stored=etag)
        self.etag = etag


class SwiftObjects:
    """Requests about objects, by *session*. A missing container is made for a PUT if *makes_containers*."""

    def __init__(self, session: SwiftSession, *, makes_containers: bool) -> None:
        self.session = session
        self._makes_containers = makes_containers
        self._making = threading.Lock()
        self._made: dict[str, float] = {}
        self._missing: set[str] = set()  # of what a listing showed
        self.listings = SwiftListings(session)

    def list(self, container: str, *, limit: int | None = None, **query: str) -> Iterator[ObjectInfo]:
        """Yield the rows that *query*, the parameters of Swift, asks for, *limit* at most."""
        try:
            yield from self.listings.rows(container, query, limit)
        except ContainerNotFoundError:
            self._missing.add(container)
            raise

    def head(self, container: str, key: str) -> ObjectInfo:
        """Do what `Storage.head` says."""

        def ask(connection: Connection, url: str, token: str) -> ObjectInfo:
            return info_of(key, self.ask_head(connection, path_of(url, container, key), token))

        return self.session.call(ask, key)

    def ask_head(self, connection: Connection, path: str, token: str) -> dict[str, str]:
        answer = self.session.send(connection, "HEAD", path, {"X-Auth-Token": token})
        connection.http.skip(answer)
        return answer.fields

    def get(self, container: str, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        """Do what `Storage.get` says."""
        return Download(self.session, container, key, sink, byte_range).run()

    def put(
        self, container: str, key: str, body: Source, size: int, headers: Mapping[str, str], like: str = ""
    ) -> ObjectInfo:
        """Do what `Storage.put` says, with *headers*, of which Content-Type is one.

        A container that is missing is made in the storage policy of the container *like*.
        """
        start = body.tell()
        is_damaged = False
        unanswered: set[str] = set()  # the MD5s of bodies that may have been stored

        def put_whole(connection: Connection, url: str, token: str) -> ObjectInfo:
            nonlocal is_damaged
            body.seek(start)
            path = path_of(url, container, key)
            hashed = HashedBody(body, size, key)
            with_token = {"X-Auth-Token": token, **headers}
            if is_damaged:  # what arrived damaged is there now, and is to be replaced
                with_token.pop("If-None-Match", None)
            try:
                with noted_if_unanswered(lambda: unanswered.add(hashed.md5)):
                    return self._put_whole(connection, path, with_token, key, hashed)
            except IntegrityError:
                is_damaged = True
                raise

        def can_repeat() -> bool:
            window = rewind_window(body)
            return window == math.inf or body.tell() - start <= window

        try:
            return self.in_container(container, put_whole, key, like, can_repeat=can_repeat)
        except WrongBytesStoredError as e:
            self._remove_damaged(container, key, e.etag)
            raise
        except RejectedError as e:
            # what is there is new, if it is of a try whose answer was lost
            if unanswered and isinstance(e, PreconditionFailedError):
                with contextlib.suppress(StorageError):  # what is told is why the last try failed
                    if (info := self.head(container, key)).etag in unanswered:
                        return info
            raise

    def _remove_damaged(self, container: str, key: str, etag: str) -> None:
        """Remove what a PUT left that arrived damaged each time, unless somebody has replaced it."""
        with contextlib.suppress(StorageError):  # the error that is told is that of the PUT
            if self.head(container, key).etag == etag:
                self.session.ask("DELETE", container, key)

    def in_container(
        self,
        container: str,
        put: Callable[[Connection, str, str], T],
        key: str,
        like: str = "",
        *,
        retry_on: tuple[type[StorageError], ...] = (IntegrityError,),
        can_repeat: Callable[[], bool] = lambda: True,
    ) -> T:
        """Return the result of *put*, which stores *key*. If there is no *container*, create it first.

        The new container has the storage policy of the container *like*.
        """
        begun = time.monotonic()
        if container not in self._missing:
            try:
                return self.session.call(put, key, retry_on, can_repeat=can_repeat)
            except ContainerNotFoundError:
                pass
        self._make(container, begun, like)
        # a cluster may need a moment until each of its servers knows a new container
        return self.session.call(put, key, (*retry_on, ContainerNotFoundError), can_repeat=can_repeat)

    def _make(self, container: str, noticed: float, like: str) -> None:
        """Make *container*, unless another thread has done that since it was *noticed* that there is none."""
        if not self._makes_containers:
            raise no_container(container, self.session.address)
        with self._making:
            if self._made.get(container, 0.0) <= noticed:
                self._put_container(container, self._policy_of(like))
                self._made[container] = time.monotonic()
                self._missing.discard(container)

    def _put_container(self, container: str, policy: Mapping[str, str]) -> None:
        try:
            self.session.ask("PUT", container, headers=policy)
        except ConflictError as conflict:  # so it is where somebody else has made it, of another policy
            try:
                self.session.ask("HEAD", container)
            except ContainerNotFoundError:
                raise conflict from None

    def _policy_of(self, container: str) -> dict[str, str]:
        if not container:
            return {}
        try:
            policy = self.session.ask("HEAD", container).get("x-storage-policy")
        except ContainerNotFoundError:
            return {}
        return {"X-Storage-Policy": policy} if policy else {}

    def _put_whole(
        self, connection: Connection, path: str, headers: dict[str, str], key: str, body: HashedBody
    ) -> ObjectInfo:
        headers["Content-Length"] = str(body.size)
        content: Any = body
        if body.size <= CHUNK:  # it is read as a whole anyway, so the store can be told what must arrive
            content = body.read_all()
            headers["ETag"] = body.md5
        answer = self.session.send(connection, "PUT", path, headers, content, body.size)
        connection.http.skip(answer)
        fields = answer.fields
        if "etag" not in fields:  # what lies between here and the store may drop it from one answer alone
            fields = self.ask_head(connection, path, headers["X-Auth-Token"])
        etag = etag_in(fields)
        if not etag:
            text = (
                f"{key!r}: the store tells no ETag, so nothing shows that it has what was sent; see its proxy"
            )
            raise IntegrityError(text, key=key)
        if etag != body.md5:
            text = f"{key!r}: the store has other bytes than were sent; push it again"
            raise WrongBytesStoredError(text, key, etag)
        modified = iso_of_http_date(fields.get("last-modified", ""))
        return ObjectInfo(key, body.size, body.md5, modified, headers["Content-Type"])


@contextlib.contextmanager
def only_if_new(key: str, headers: dict[str, str], if_absent: bool) -> Iterator[None]:
    """Let a PUT with *headers* fail with `ExistsError`, if *if_absent*, where there is such an object."""
    if if_absent:
        headers["If-None-Match"] = "*"
    try:
        yield
    except RejectedError as e:
        if if_absent and isinstance(e, PreconditionFailedError):
            raise already_exists_error(key) from None
        raise


def _has_no_answer(refusal: Refusal) -> bool:
    return refusal.status in (502, 504)  # so a proxy says that it has no answer (RFC 9110, 15.6)


@contextlib.contextmanager
def noted_if_unanswered(
    note: Callable[[], None], is_unclear: Callable[[Refusal], bool] = _has_no_answer
) -> Iterator[None]:
    """Call *note* if the block sends a request that may have done its work, though it fails.

    It may have if there is no answer, or one that *is_unclear*: by default, one that the store itself did not give.
    """
    try:
        yield
    except ConnectionBroken as e:
        if not e.connecting:
            note()
        raise
    except Refusal as e:
        if is_unclear(e):
            note()
        raise
