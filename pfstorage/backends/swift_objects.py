"""The objects of a Swift, in whatever container: sent and fetched, each with one request, and listed."""

from __future__ import annotations

import contextlib
import functools
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from pfstorage.backends.base import CHUNK, ObjectInfo, Sink, Source, Span
from pfstorage.backends.common import another_object, exists, is_unmet, iso_time, mtime_of_text, time_of_http
from pfstorage.backends.http_connection import ConnectionBroken, Refusal
from pfstorage.backends.streams import HashedBody, HashedSink
from pfstorage.backends.swift_listing import SwiftListings, no_container
from pfstorage.backends.swift_session import Connection, SwiftSession, path_of
from pfstorage.errors import (
    ContainerNotFoundError,
    IntegrityError,
    NotFoundError,
    RejectedError,
    StorageError,
)

T = TypeVar("T")

MTIME = "x-object-meta-mtime"
"""Where python-swiftclient and rclone keep the time of the file, too: in seconds since the epoch."""


class SwiftObjects:
    """Requests about objects, by *session*. A missing container is made for a PUT if *makes_containers*."""

    def __init__(self, session: SwiftSession, *, makes_containers: bool) -> None:
        self.session = session
        self._makes_containers = makes_containers
        self._making = threading.Lock()
        self._made: dict[str, float] = {}
        self._missing: set[str] = set()  # of what a listing showed
        self._listings = SwiftListings(session)

    def list(self, container: str, *, limit: int | None = None, **query: str) -> Iterator[ObjectInfo]:
        """Yield the rows that *query*, the parameters of Swift, asks for, *limit* at most."""
        try:
            yield from self._listings.rows(container, query, limit)
        except ContainerNotFoundError:
            self._missing.add(container)
            raise

    def head(self, container: str, key: str) -> ObjectInfo:
        """Do what `Storage.head` says."""

        def ask(connection: Connection, url: str, token: str) -> ObjectInfo:
            path = path_of(url, container, key)
            answer = self.session.send(connection, "HEAD", path, {"X-Auth-Token": token})
            connection.http.read_all(answer)
            return _info_of_headers(key, answer.fields)

        return self.session.tried(ask, key)

    def get(self, container: str, key: str, sink: Sink, span: Span | None = None) -> ObjectInfo:
        """Do what `Storage.get` says."""
        hashed = HashedSink(sink, hashes=not span or bool(span.md5))
        first: dict[str, str] = {}

        def get_rest(connection: Connection, url: str, token: str) -> None:
            """Get what the sink has not received yet, if it is the same object."""
            if not hashed.received:
                first.clear()  # of a try that broke before any byte: the object may be another since
            headers = _range_headers(span, hashed.received, first.get("etag", ""))
            path = path_of(url, container, key)
            answer = self.session.send(connection, "GET", path, {"X-Auth-Token": token, **headers})
            expected = span.etag if span else first.get("etag", "")
            offset = hashed.received + (span.offset if span else 0)
            if _is_other(answer.fields, expected, offset):
                connection.http.close()
                raise another_object(key)
            first.update({} if first else answer.fields)
            # a store may ignore Range, and send all
            surplus = 0 if answer.status == 206 else offset
            left = span.size - hashed.received if span else None
            while count := connection.http.read_into(answer, connection.http.buffer):
                chunk = connection.http.buffer[surplus:count] if surplus else connection.http.buffer[:count]
                surplus = max(0, surplus - count)
                chunk = chunk[:left]
                hashed.write(chunk)
                left = None if left is None else left - len(chunk)
                if left == 0 and answer.status != 206:  # the rest of the object may be long
                    connection.http.close()
                    return

        try:
            self.session.tried(get_rest, key, progress=lambda: hashed.received)
        except RejectedError as e:
            if is_unmet(e):  # it is If-Match
                raise another_object(key) from None
            raise
        info = _info_of_headers(key, first)
        if span:
            hashed.verify(key, span.size, span.md5 or None)
        else:
            md5 = info.etag if _is_md5_of_content(first) else None
            hashed.verify(key, info.size if "content-length" in first else None, md5)
        return info

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

        try:
            return self.in_container(
                container, lambda: self.session.tried(put_whole, key, again_on=(IntegrityError,)), like
            )
        except IntegrityError as e:
            self._remove_damaged(container, key, str(e.facts.get("stored", "")))
            raise
        except RejectedError as e:
            # what is there is new, if it is of a try whose answer was lost
            if unanswered and is_unmet(e):
                with contextlib.suppress(StorageError):  # what is told is why the last try failed
                    if (info := self.head(container, key)).etag in unanswered:
                        return info
            raise

    def _remove_damaged(self, container: str, key: str, etag: str) -> None:
        """Remove what a PUT left that arrived damaged each time, unless somebody has replaced it."""
        with contextlib.suppress(StorageError):  # the error that is told is that of the PUT
            if etag and self.head(container, key).etag == etag:
                self.session.request("delete_object", container, key, key=key)

    def in_container(self, container: str, work: Callable[[], T], like: str = "") -> T:
        """Return what *work* returns. If there is no *container*, make it first, of the policy of *like*."""
        begun = time.monotonic()
        if container not in self._missing:
            try:
                return work()
            except NotFoundError:  # a PUT finds no container
                pass
        self._make(container, begun, like)
        return work()

    def _make(self, container: str, noticed: float, like: str) -> None:
        """Make *container*, unless another thread has done that since it was *noticed* that there is none."""
        if not self._makes_containers:
            raise no_container(container, self.session.address)
        with self._making:
            if self._made.get(container, 0.0) <= noticed:
                self.session.request("put_container", container, headers=self._policy_of(like))
                self._made[container] = time.monotonic()
                self._missing.discard(container)

    def _policy_of(self, container: str) -> dict[str, str]:
        if not container:
            return {}
        try:
            policy = self.session.request("head_container", container).get("x-storage-policy")
        except NotFoundError:
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
        connection.http.read_all(answer)
        etag = answer.fields.get("etag", "").strip('"')
        if etag != body.md5:
            text = f"{key!r}: the store has other bytes than were sent; push it again"
            raise IntegrityError(text, key=key, stored=etag)
        modified = _iso_of_http_date(answer.fields.get("last-modified", ""))
        return ObjectInfo(key, body.size, body.md5, modified, headers["Content-Type"])


_SEGMENTED = {"x-static-large-object", "x-object-manifest"}


@contextlib.contextmanager
def only_if_new(key: str, headers: dict[str, str], only_new: bool) -> Iterator[None]:
    """Let a PUT with *headers* fail with `ExistsError`, if *only_new*, where there is such an object."""
    if only_new:
        headers["If-None-Match"] = "*"
    try:
        yield
    except RejectedError as e:
        if only_new and is_unmet(e):
            raise exists(key) from None
        raise


@contextlib.contextmanager
def noted_if_unanswered(note: Callable[[], None]) -> Iterator[None]:
    """Call *note* if the block sends a request and fails without the store's own answer: it may have done its work."""
    try:
        yield
    except ConnectionBroken as e:
        if not e.connecting:
            note()
        raise
    except Refusal as e:
        if e.status in (502, 504):  # so a proxy says that it has no answer (RFC 9110, 15.6)
            note()
        raise


def _range_headers(span: Span | None, received: int, etag: str) -> dict[str, str]:
    """Return what asks for the bytes of *span*, or of the whole, less those that came already."""
    if span:
        last = span.offset + span.size - 1
        return {"Range": f"bytes={span.offset + received}-{last}", "If-Match": f'"{span.etag}"'}
    return {"Range": f"bytes={received}-", "If-Match": etag} if received else {}


def _is_other(headers: Mapping[str, str], etag: str, offset: int) -> bool:
    """Tell whether an answer is of another object than that of *etag*, or of bytes from elsewhere than *offset* on.

    What lies between here and the store may know nothing of If-Match, or keep an answer to another question.
    """
    told = headers.get("etag", "").strip('"')
    begin = re.match(r"bytes (\d+)-", headers.get("content-range", ""))
    return bool(etag and told and told != etag.strip('"')) or bool(begin and int(begin[1]) != offset)


def _is_md5_of_content(headers: Mapping[str, str]) -> bool:
    """Tell whether the ETag is the MD5 of the bytes: it isn't for large objects made of segments."""
    return (
        not _SEGMENTED & headers.keys()
        and re.fullmatch("[0-9a-f]{32}", headers.get("etag", "").strip('"')) is not None
    )


def _info_of_headers(key: str, headers: Mapping[str, str]) -> ObjectInfo:
    try:
        if "x-timestamp" in headers:
            modified = iso_time(float(headers["x-timestamp"]))
        else:
            modified = _iso_of_http_date(headers.get("last-modified", ""))
        size = int(headers.get("content-length", 0))
        if size < 0:
            raise ValueError
    except (ValueError, OverflowError, OSError):
        text = f"what the store answers of {key!r} is no answer of a Swift: see its proxy"
        raise RejectedError(text, key=key) from None
    etag, kind = headers.get("etag", "").strip('"'), headers.get("content-type", "")
    segments = etag if _SEGMENTED & headers.keys() else ""
    mtime = mtime_of_text(headers.get(MTIME, ""))
    return ObjectInfo(key, size, etag, modified, kind, segments_etag=segments, mtime_ns=mtime)


@functools.lru_cache(maxsize=64)  # those of a second's answers are the same
def _iso_of_http_date(text: str) -> str:
    moment = time_of_http(text)
    return iso_time(moment.timestamp()) if moment else ""
