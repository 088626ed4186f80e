"""List a container of a Swift by pages, which are fetched ahead. Callers share equal requests at the same time."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode

from pfstorage.backends.coalescing import RequestCoalescer
from pfstorage.backends.contract import ObjectInfo
from pfstorage.backends.http.errors import ConnectionBroken
from pfstorage.backends.http.response import StoreResponse
from pfstorage.backends.swift.errors import NotListingError, PageTooLongError
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.pages import fetched_ahead
from pfstorage.backends.swift.rows import (
    NO_JSON,
    SMALL,
    PackedRow,
    WrongRowError,
    info_of_row,
    name_of,
    require_row,
    rows_coming,
    rows_of,
)
from pfstorage.backends.swift.session import SwiftSession
from pfstorage.errors import RejectedError, UnavailableError
from pfstorage.keys.mapping import FIRST_CHARACTER, MAX_KEY_BYTES

# Rows of a page: the default ``container_listing_limit`` of Swift, which an operator may lower.
ROWS_PER_PAGE = 10_000
# Bytes of a page. A row has about 5000 bytes at most.
MOST_OF_PAGE = 256 * 1024**2
# Bytes of the path and query in a request line. Swift accepts 8192 (``MAX_REQUEST_LINE``), with the method.
LONGEST_PATH = 8000
# Characters of a prefix that fit into a request line with any two markers.
SHORT = 64


R = TypeVar("R")


class SwiftListings:
    """The listings of containers, requested by *session*."""

    def __init__(self, session: SwiftSession) -> None:
        self._session = session
        self._pages: RequestCoalescer[Sequence[PackedRow]] = session.pages

    def rows(
        self, container: str, query: Mapping[str, str], limit: int | None = None
    ) -> Iterator[ObjectInfo]:
        """Yield up to *limit* rows for *query*, which has the parameters of Swift. Raise `ContainerNotFoundError`."""
        rows, prefix = self._rows(container, query, limit), query.get("prefix", "")
        if len(prefix) > SHORT:  # the request may contain only its beginning
            rows = (row for row in rows if name_of(row).startswith(prefix))
        return itertools.islice(map(info_of_row, rows), limit)

    def _rows(self, container: str, query: Mapping[str, str], limit: int | None) -> Iterator[PackedRow]:
        try:
            "".join(query.values()).encode()
        except UnicodeEncodeError:
            return  # no key contains a lone surrogate
        query = _shortened_query(query)
        size = min(limit or ROWS_PER_PAGE, ROWS_PER_PAGE)
        packed = functools.partial(self._packed_page, container)

        def page_after(start_after: str) -> tuple[Sequence[PackedRow], str | None]:
            """Return a page, and the name that the next page starts after, None at the end."""
            page, is_last = self._page(container, {**query, "marker": start_after}, size, packed)
            last = name_of(page[-1]) if page else ""
            if page and last <= start_after:
                raise RejectedError(
                    f"the store at {self._session.address} repeats the same page of its listing"
                )
            return page, None if is_last or _ends_before(last, query.get("end_marker", "")) else last

        def page_before(stop_before: str) -> tuple[Sequence[PackedRow], str | None]:
            """Return a page in descending order, for which Swift exchanges the meanings of both markers."""
            bounds = {
                "marker": stop_before or query.get("end_marker", ""),
                "end_marker": query.get("marker", ""),
            }
            page, is_last = self._page(container, {**query, **bounds, "reverse": "true"}, size, packed)
            return page, None if is_last else name_of(page[-1])

        is_whole = limit is None and not query.get("delimiter")
        back = page_before if is_whole else None
        for page in fetched_ahead(page_after, query.get("marker", ""), limit, back, name_of):
            yield from page

    def page(
        self, container: str, query: Mapping[str, str], size: int
    ) -> tuple[Sequence[dict[str, Any]], bool]:
        """Return a page of up to *size* rows with all fields of Swift, and whether it is certainly the last.

        Raise `ContainerNotFoundError`.
        """
        return self._page(container, query, size, lambda asked: self._fetched(container, asked, _as_they_are))

    def _page(
        self, container: str, query: Mapping[str, str], size: int, fetch: Callable[..., Sequence[R]]
    ) -> tuple[Sequence[R], bool]:
        asked = {name: value for name, value in query.items() if value}
        try:
            page = fetch({**asked, "limit": str(size)})
            return page, len(page) < size
        except PageTooLongError:
            page = fetch(asked)
            return page, not page

    def _packed_page(self, container: str, query: Mapping[str, str]) -> Sequence[PackedRow]:
        name = (container, *sorted(query.items()))
        return self._pages.get(name, lambda: self._fetched(container, query, _packed_rows))

    def _fetched(
        self,
        container: str,
        query: Mapping[str, str],
        read: Callable[[Connection, StoreResponse], Sequence[R]],
    ) -> Sequence[R]:
        def get_page(connection: Connection, url: str, token: str) -> Sequence[R]:
            path = _with_query(path_of(url, container), {"format": "json", **query})
            answer = self._session.send(connection, "GET", path, {"X-Auth-Token": token})
            try:
                with self.wrong_rows(f"the container {container!r}"):
                    return read(connection, answer)
            except NO_JSON as e:
                text = f"the answer of the store at {self._session.address} is no listing: is it a Swift?"
                raise NotListingError(text, address=self._session.address) from e

        return self._session.call(get_page, retry_on=(NotListingError,))

    @contextlib.contextmanager
    def wrong_rows(self, what: str) -> Iterator[None]:
        """Convert a `WrongRowError` about *what* to an `UnavailableError`: an intact store lists no such row."""
        try:
            yield
        except WrongRowError as e:
            address = self._session.address
            raise UnavailableError(
                f"the store at {address} lists {what} wrongly: {e}", address=address
            ) from e


def _shortened_query(query: Mapping[str, str]) -> dict[str, str]:
    """Shorten values of *query* that are longer than any key, so that they fit into a request line.

    A marker is cut after the character that makes it longer than `MAX_KEY_BYTES`. The same keys follow it then. A
    longer delimiter is removed, since no key contains it.
    """
    short = dict(query)
    if marker := short.get("marker"):
        short["marker"] = marker.encode()[: MAX_KEY_BYTES + 4].decode(errors="ignore")
    if len(short.get("delimiter", "").encode()) > MAX_KEY_BYTES:
        del short["delimiter"]
    return short


def _packed_rows(connection: Connection, answer: StoreResponse) -> Sequence[PackedRow]:
    if answer.length is not None and answer.length <= SMALL:
        return rows_of(_whole_page(connection.http.read_all(answer), answer.status))
    return rows_coming(_body_chunks(connection, answer))


def _as_they_are(connection: Connection, answer: StoreResponse) -> Sequence[dict[str, Any]]:
    rows = json.loads(_whole_page(connection.http.read_all(answer), answer.status))
    if not isinstance(rows, list):
        raise ValueError("a listing must be a JSON array")
    for row in rows:
        require_row(row)
    return rows


def _whole_page(content: bytes, status: int) -> bytes:
    if not content and status != 204:
        raise ConnectionBroken("the connection broke (the listing is cut off)")
    return content or b"[]"


def _body_chunks(connection: Connection, answer: StoreResponse) -> Iterator[bytes]:
    """Yield the body of *answer* in chunks. Raise `ConnectionBroken` if it is too long or empty."""
    http, left = connection.http, MOST_OF_PAGE
    while left >= 0 and (count := http.read_into(answer, http.buffer)):
        left -= count
        yield bytes(http.buffer[:count])
    if left < 0:
        raise ConnectionBroken(f"a page of its listing has more than {MOST_OF_PAGE} bytes")
    if left == MOST_OF_PAGE:
        yield _whole_page(b"", answer.status)


def _with_query(path: str, query: Mapping[str, str]) -> str:
    """Return *path* with *query*. Shorten the prefix if the result is too long: the markers bound the listing, too."""
    whole = f"{path}?{urlencode(query)}"
    if len(whole) <= LONGEST_PATH or "delimiter" in query:
        return whole
    return f"{path}?{urlencode({**query, 'prefix': query.get('prefix', '')[:SHORT]})}"


def _ends_before(last: str, stop_before: str) -> bool:
    """Return whether there can be no key between *last* and *stop_before*."""
    return bool(stop_before) and last + FIRST_CHARACTER >= stop_before
