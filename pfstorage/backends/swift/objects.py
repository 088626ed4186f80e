"""Store, fetch and list the objects of a Swift, in any container, with one request for each object."""

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
    """Objects of a Swift, requested by *session*. A PUT creates a missing container if *makes_containers* is set."""

    def __init__(self, session: SwiftSession, *, makes_containers: bool) -> None:
        self.session = session
        self._makes_containers = makes_containers
        self._making = threading.Lock()
        self._made: dict[str, float] = {}
        self._missing: set[str] = set()  # containers that a listing did not find
        self.listings = SwiftListings(session)

    def list(self, container: str, *, limit: int | None = None, **query: str) -> Iterator[ObjectInfo]:
        """Yield up to *limit* rows for *query*, which has the parameters of Swift. Raise `ContainerNotFoundError`."""
        try:
            yield from self.listings.rows(container, query, limit)
        except ContainerNotFoundError:
            self._missing.add(container)
            raise

    def head(self, container: str, key: str) -> ObjectInfo:
        """Return the object, as `Storage.head` does."""

        def ask(connection: Connection, url: str, token: str) -> ObjectInfo:
            return info_of(key, self.ask_head(connection, path_of(url, container, key), token))

        return self.session.call(ask, key)

    def ask_head(self, connection: Connection, path: str, token: str) -> dict[str, str]:
        answer = self.session.send(connection, "HEAD", path, {"X-Auth-Token": token})
        connection.http.skip(answer)
        return answer.fields

    def get(self, container: str, key: str, sink: Sink, byte_range: ByteRange | None = None) -> ObjectInfo:
        """Write the bytes of the object into *sink*, as `Storage.get` does."""
        return Download(self.session, container, key, sink, byte_range).run()

    def put(
        self, container: str, key: str, body: Source, size: int, headers: Mapping[str, str], like: str = ""
    ) -> ObjectInfo:
        """Store the object with *headers*, which include Content-Type, as `Storage.put` does.

        A missing container is created with the storage policy of the container *like*.
        """
        start = body.tell()
        is_damaged = False
        unanswered: set[str] = set()  # MD5s of bodies that the store may have despite an error

        def put_whole(connection: Connection, url: str, token: str) -> ObjectInfo:
            nonlocal is_damaged
            body.seek(start)
            path = path_of(url, container, key)
            hashed = HashedBody(body, size, key)
            with_token = {"X-Auth-Token": token, **headers}
            if is_damaged:  # the damaged object exists now, and must be replaced
                with_token.pop("If-None-Match", None)
            try:
                with note_if_unanswered(lambda: unanswered.add(hashed.md5)):
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
            # an earlier attempt, whose answer was lost, may have stored the object
            if unanswered and isinstance(e, PreconditionFailedError):
                with contextlib.suppress(StorageError):  # the error of the PUT is raised instead
                    if (info := self.head(container, key)).etag in unanswered:
                        return info
            raise

    def _remove_damaged(self, container: str, key: str, etag: str) -> None:
        """Remove the object of the ETag *etag*, which a PUT left damaged, unless somebody has replaced it."""
        with contextlib.suppress(StorageError):  # the error of the PUT is raised instead
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
        """Create *container*, unless another thread has done so since *noticed*, a monotonic time."""
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
        except ConflictError as conflict:  # somebody else may have created it with another policy
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
        if body.size <= CHUNK:  # a small body fits in memory, so its MD5 is known before it is sent
            content = body.read_all()
            headers["ETag"] = body.md5
        answer = self.session.send(connection, "PUT", path, headers, content, body.size)
        connection.http.skip(answer)
        fields = answer.fields
        if "etag" not in fields:  # a proxy may have dropped it from this answer alone
            fields = self.ask_head(connection, path, headers["X-Auth-Token"])
        etag = etag_in(fields)
        if not etag:
            text = f"{key!r}: the store sent no ETag, so nothing proves that it has the right bytes; see its proxy"
            raise IntegrityError(text, key=key)
        if etag != body.md5:
            text = f"{key!r}: the store has other bytes than were sent; push it again"
            raise WrongBytesStoredError(text, key, etag)
        modified = iso_of_http_date(fields.get("last-modified", ""))
        return ObjectInfo(key, body.size, body.md5, modified, headers["Content-Type"])


@contextlib.contextmanager
def if_absent_errors(key: str, headers: dict[str, str], if_absent: bool) -> Iterator[None]:
    """Make a PUT with *headers* raise `ExistsError` for an existing object, if *if_absent* is set."""
    if if_absent:
        headers["If-None-Match"] = "*"
    try:
        yield
    except RejectedError as e:
        if if_absent and isinstance(e, PreconditionFailedError):
            raise already_exists_error(key) from None
        raise


def _has_no_answer(refusal: Refusal) -> bool:
    return refusal.status in (502, 504)  # a proxy got no answer of the store (RFC 9110, 15.6)


@contextlib.contextmanager
def note_if_unanswered(
    note: Callable[[], None], is_unclear: Callable[[Refusal], bool] = _has_no_answer
) -> Iterator[None]:
    """Call *note* if the request of the block fails, but the store may have carried it out.

    That is possible without an answer, and after a refusal for which *is_unclear* returns True.
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
