"""OpenStack Swift: one container as a `Storage`. How its requests are sent is `swift_session`."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

from pfstorage.backends.base import CHUNK, ObjectInfo, Sink, Source
from pfstorage.backends.common import guess_content_type, iso_time
from pfstorage.backends.streams import HashedBody, HashedSink
from pfstorage.backends.swift_session import Connection, SwiftSession
from pfstorage.config import Settings
from pfstorage.errors import ContainerNotFoundError, IntegrityError, NotFoundError, RejectedError
from pfstorage.pathmap import check_key

PAGE = 10_000
"""Rows of one listing page: Swift's ``container_listing_limit`` unless an operator lowered it."""


def open_storage(settings: Settings) -> SwiftStorage:
    return SwiftStorage(settings)


class SwiftStorage:
    """One container of an OpenStack Swift."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._session = SwiftSession(settings)
        self._container = settings.swift.container_name
        self._creating = threading.Lock()

    def list(
        self, prefix: str = "", *, marker: str = "", limit: int | None = None, delimiter: str = ""
    ) -> Iterator[ObjectInfo]:
        rows = self._rows(prefix, marker, limit, delimiter)
        return itertools.islice((_info_of_row(row) for row in rows), limit)

    def _rows(
        self, prefix: str, marker: str, limit: int | None, delimiter: str
    ) -> Iterator[Mapping[str, Any]]:
        try:
            (prefix + marker + delimiter).encode()
        except UnicodeEncodeError:
            return  # a lone surrogate is in no key
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
            if page and _name_of(page[-1]) <= marker:
                raise RejectedError(
                    f"the store at {self._session.address} lists the same page again and again"
                )
            # a page shorter than asked for is the last one; where nothing was asked, an empty one is
            if len(page) < (page_size or 1):
                return
            marker = _name_of(page[-1])

    def _page(self, **query: Any) -> Sequence[dict[str, Any]]:
        try:
            page: Sequence[dict[str, Any]] = self._session.request("get_container", self._container, **query)[
                1
            ]
            for row in page:
                _info_of_row(row)
        except NotFoundError as e:
            raise self._no_container() from e
        except (ValueError, TypeError, KeyError, AttributeError) as e:
            text = f"what the store at {self._session.address} answers is no listing: is it a Swift?"
            raise RejectedError(text, address=self._session.address) from e
        return page

    def _no_container(self) -> ContainerNotFoundError:
        return ContainerNotFoundError(
            f"there is no container {self._container!r} at {self._session.address}; a push creates it",
            container=self._container,
        )

    def head(self, key: str) -> ObjectInfo:
        headers = self._session.request("head_object", self._container, check_key(key), key=key)
        return _info_of_headers(key, headers)

    def get(self, key: str, sink: Sink) -> ObjectInfo:
        check_key(key)
        hashed = HashedSink(sink)
        first: dict[str, str] = {}

        def get_rest(connection: Connection, url: str, token: str) -> None:
            """Get what the sink has not received yet, if it is the same object."""
            headers = {"X-Auth-Token": token}
            if not hashed.received:
                first.clear()  # of a try that broke before any byte: the object may be another since
            else:
                headers |= {"Range": f"bytes={hashed.received}-", "If-Match": first["etag"]}
            answer = self._session.send(connection, "GET", self._url(url, key), headers)
            first.update({} if first else {name.lower(): value for name, value in answer.headers.items()})
            known = 0 if "content-range" in answer.headers else hashed.received  # a store may ignore Range
            with contextlib.closing(answer):  # one that was read to its end has given its connection back
                while chunk := answer.read(CHUNK):
                    hashed.write(chunk[known:])
                    known = max(0, known - len(chunk))

        self._session.tried(get_rest, key)
        info = _info_of_headers(key, first)
        hashed.verify(
            key,
            info.size if "content-length" in first else None,
            info.etag if _is_md5_of_content(first) else None,
        )
        return info

    def _url(self, storage_url: str, key: str) -> str:
        return f"{storage_url}/{quote(self._container)}/{quote(key)}"

    def put(self, key: str, body: Source, size: int) -> ObjectInfo:
        check_key(key)
        start = body.tell()

        def put_whole(connection: Connection, url: str, token: str) -> ObjectInfo:
            body.seek(start)
            return self._put_whole(connection, self._url(url, key), token, key, HashedBody(body, size, key))

        try:
            return self._session.tried(put_whole, key, again_on=(IntegrityError,))
        except NotFoundError:  # a PUT finds no container
            if not self.settings.swift.auto_create_container:
                raise self._no_container() from None
        with self._creating:
            self._session.request("put_container", self._container)  # to create what is there is no error
        return self._session.tried(put_whole, key, again_on=(IntegrityError,))

    def _put_whole(
        self, connection: Connection, target: str, token: str, key: str, body: HashedBody
    ) -> ObjectInfo:
        kind = guess_content_type(key)
        headers = {"X-Auth-Token": token, "Content-Length": str(body.size), "Content-Type": kind}
        answer = self._session.send(connection, "PUT", target, headers, body)
        answer.drain_conn()
        if answer.headers.get("etag", "").strip('"') != body.md5:
            raise IntegrityError(f"{key!r}: the store has other bytes than were sent; push it again", key=key)
        modified = _iso_of_http_date(answer.headers.get("last-modified", ""))
        return ObjectInfo(key, body.size, body.md5, modified, kind)

    def delete(self, key: str) -> None:
        self._session.request("delete_object", self._container, check_key(key), key=key)

    def copy(self, source: str, target: str) -> ObjectInfo:
        destination = f"/{self._container}/{check_key(target)}"
        self._session.request("copy_object", self._container, check_key(source), destination, key=source)
        return self.head(target)

    def close(self) -> None:
        self._session.close()

    def __enter__(self) -> SwiftStorage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_md5_of_content(headers: Mapping[str, str]) -> bool:
    """Tell whether the ETag is the MD5 of the bytes: it isn't for large objects made of segments."""
    segmented = {"x-static-large-object", "x-object-manifest"} & headers.keys()
    return not segmented and re.fullmatch("[0-9a-f]{32}", headers.get("etag", "").strip('"')) is not None


def _name_of(row: Mapping[str, Any]) -> str:
    return str(row["subdir"] if "subdir" in row else row["name"])


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
