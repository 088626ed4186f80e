"""Listings of a Swift: pages of rows, fetched ahead, each asked for once by all who want it at the same time."""

from __future__ import annotations

import itertools
import json
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from pfstorage.backends.base import ObjectInfo
from pfstorage.backends.http_connection import ConnectionBroken
from pfstorage.backends.pages import fetched_ahead
from pfstorage.backends.shared import Shared
from pfstorage.backends.swift_session import Connection, SwiftSession, path_of
from pfstorage.errors import MisconfiguredError, RejectedError
from pfstorage.pathmap import FIRST_CHARACTER

PAGE = 10_000
"""Rows of one listing page: Swift's ``container_listing_limit`` unless an operator lowered it."""


class SwiftListings:
    """Requests for listings, by *session*."""

    def __init__(self, session: SwiftSession) -> None:
        self._session = session
        self._pages: Shared[Sequence[dict[str, Any]]] = Shared()

    def rows(
        self, container: str, query: Mapping[str, str], limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """Yield what *query*, the parameters of Swift, asks for, *limit* at most. Raise `ContainerNotFoundError`."""
        return itertools.islice((_info_of_row(row) for row in self._rows(container, query, limit)), limit)

    def _rows(self, container: str, query: Mapping[str, str], limit: int | None) -> Iterator[dict[str, Any]]:
        try:
            "".join(query.values()).encode()
        except UnicodeEncodeError:
            return  # a lone surrogate is in no key
        size = min(limit or PAGE, PAGE)

        def page_after(marker: str) -> tuple[Sequence[dict[str, Any]], str | None]:
            """Return a page, and the marker of the next one if there may be one."""
            page, is_last = self.page(container, {**query, "marker": marker}, size)
            last = _name_of(page[-1]) if page else ""
            if page and last <= marker:
                raise RejectedError(
                    f"the store at {self._session.address} lists the same page again and again"
                )
            return page, None if is_last or _ends_before(last, query.get("end_marker", "")) else last

        def page_before(marker: str) -> tuple[Sequence[dict[str, Any]], str | None]:
            """Return a page in descending order, in which the markers change their places."""
            bounds = {"marker": marker or query.get("end_marker", ""), "end_marker": query.get("marker", "")}
            page, is_last = self.page(container, {**query, **bounds, "reverse": "true"}, size)
            return page, None if is_last else _name_of(page[-1])

        is_whole = limit is None and not query.get("delimiter")
        back = page_before if is_whole else None
        for page in fetched_ahead(page_after, query.get("marker", ""), limit, back, _name_of):
            yield from page

    def page(
        self, container: str, query: Mapping[str, str], size: int
    ) -> tuple[Sequence[dict[str, Any]], bool]:
        """Return a page of *size* rows, or of what the store allows, and whether it is known to be the last.

        Raise `ContainerNotFoundError`.
        """
        asked = {name: value for name, value in query.items() if value}
        try:
            page = self._page_of(container, {**asked, "limit": str(size)})
            return page, len(page) < size
        except RejectedError as e:
            if e.facts.get("status") != 412 or isinstance(e, MisconfiguredError):
                raise
        page = self._page_of(container, asked)  # the operator allows less than we ask for
        return page, not page

    def _page_of(self, container: str, query: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        name = (container, *sorted(query.items()))
        return self._pages.get(name, lambda: self._fetched(container, query))

    def _fetched(self, container: str, query: Mapping[str, str]) -> Sequence[dict[str, Any]]:
        def get_page(connection: Connection, url: str, token: str) -> bytes:
            path = f"{path_of(url, container)}?{urlencode({'format': 'json', **query})}"
            answer = self._session.send(connection, "GET", path, {"X-Auth-Token": token})
            content = connection.http.read_all(answer)
            if not content and answer.status != 204:
                raise ConnectionBroken("the connection broke (the listing is cut off)")
            return content or b"[]"

        for is_last_try in (False, True):  # a page that was cut short in between is whole the next time
            try:
                return _rows_of(self._session.tried(get_page))
            except (ValueError, TypeError, KeyError, AttributeError) as e:
                if is_last_try:
                    text = f"what the store at {self._session.address} answers is no listing: is it a Swift?"
                    raise RejectedError(text, address=self._session.address) from e
        raise AssertionError("the loop above returns or raises")


def _ends_before(last: str, end_marker: str) -> bool:
    """Tell whether no key lies between *last* and *end_marker*."""
    return bool(end_marker) and last + FIRST_CHARACTER >= end_marker


# of every row of a Swift; what stands between may leave one out
_of_each_row = operator.itemgetter("name", "bytes", "hash", "last_modified", "content_type")


def _rows_of(content: bytes) -> Sequence[dict[str, Any]]:
    """Return the rows of a page. Raise `ValueError` and its like for what is no listing."""
    rows: Sequence[dict[str, Any]] = json.loads(content)
    if not isinstance(rows, list):
        raise ValueError("it is no list")
    for row in rows:
        if "subdir" not in row and type(row["name"]) is not str:
            raise ValueError("its rows have no names")
    return rows


def _name_of(row: Mapping[str, Any]) -> str:
    return str(row["subdir"] if "subdir" in row else row["name"])


def _info_of_row(row: Mapping[str, Any]) -> ObjectInfo:
    if "subdir" in row:
        return ObjectInfo(row["subdir"], is_subdir=True)
    segments_etag = row["slo_etag"].strip('"') if "slo_etag" in row else ""
    try:
        key, size, etag, modified, kind = _of_each_row(row)
    except KeyError as e:
        return _info_of_row({**row, e.args[0]: None})
    if type(size) is not int or size < 0:
        size = None
    return ObjectInfo(key, size, etag or "", modified or "", kind or "", segments_etag=segments_etag)
