"""Find the segments in a Swift that no large object uses, by reading every manifest of the account."""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from urllib.parse import quote, unquote, urlencode, urlsplit

from pfstorage.backends.capabilities import Leftover, Leftovers, RunAll
from pfstorage.backends.swift import listing as swift_listing
from pfstorage.backends.swift.headers import LARGE
from pfstorage.backends.swift.manifests import Unreadable, parsed
from pfstorage.backends.swift.names import key_of, upload_of
from pfstorage.backends.swift.network import Connection, path_of
from pfstorage.backends.swift.rows import NO_JSON, require_row
from pfstorage.backends.swift.segments import SwiftSegments
from pfstorage.backends.times import iso_time, parse_http_date
from pfstorage.errors import (
    ContainerNotFoundError,
    NotFoundError,
    RejectedError,
    StorageError,
    UnavailableError,
)

log = logging.getLogger(__name__)

# Objects whose manifests are read before the next objects are listed.
AT_ONCE = 1000

ListedRow = Mapping[str, Any]


@dataclass(frozen=True)
class _Uses:
    """The segments that one object uses: *names* are paths with their container, *prefix* begins the names of others.

    *unread* describes a manifest that can't be read.
    """

    names: frozenset[str] = frozenset()
    prefix: str = ""
    unread: str = ""


@dataclass
class _Look:
    """The results of all objects that were read. *left* has the segments that none of them uses.

    *named* has the used segments that are still to be read: they may be manifests themselves.
    """

    left: dict[str, Leftover]
    unread: list[str]
    read: set[tuple[str, ...]] = field(default_factory=set)
    named: set[str] = field(default_factory=set)

    def note(self, which: tuple[str, ...], named: _Uses) -> None:
        if named.unread:
            self.unread.append(named.unread)
        if named.names or named.prefix:
            self.read.add(which)
        found = named.names & self.left.keys()
        if named.prefix:
            found |= {name for name in self.left if name.startswith(named.prefix)}
        for name in found:
            del self.left[name]
        self.named |= found


class SwiftSweep:
    """A search for the unused segments in a container. All objects of the account may use them.

    The segments are listed first, so a manifest that exists then is found later. The manifests are read twice: one
    that is copied and then removed during the first reading may be missed in both places.
    """

    def __init__(self, segments: SwiftSegments) -> None:
        self._segments = segments
        self._objects = segments.objects

    def leftovers(self, is_wanted: Callable[[str], bool], older_than: float, run_all: RunAll) -> Leftovers:
        """Return the unused segments, as `SupportsMultipart.leftovers` does."""
        home = self._segments.segment_container
        listed, moment, unread = self._containers()
        oldest = iso_time(moment - older_than) if older_than else ""
        look = _Look(dict(self._old_segments(home, is_wanted, oldest)), unread)
        containers = sorted({*listed, self._segments.container, home})
        for is_listed_as_large in (True, False, True):
            for container in containers:
                if look.left:
                    self._look_through(container, look, is_listed_as_large, run_all)
        while look.left and look.named:
            names = [look.named.pop() for _ in range(min(AT_ONCE, len(look.named)))]
            self._look_at(home, [{"name": name.removeprefix(f"/{home}/")} for name in names], look, run_all)
        return Leftovers([*look.left.values()], len(look.read), [*dict.fromkeys(look.unread)])

    def _containers(self) -> tuple[list[str], float, list[str]]:
        """Return the containers of the account, the time of the store, and the reason if the list is not complete."""
        names: list[str] = []
        moment = 0.0

        def get_page(connection: Connection, url: str, token: str) -> list[str]:
            nonlocal moment
            query = urlencode({"format": "json", **({"marker": names[-1]} if names else {})})
            path = f"{urlsplit(url).path}?{query}"
            answer = self._objects.session.send(connection, "GET", path, {"X-Auth-Token": token})
            date = parse_http_date(answer.fields.get("date", ""))
            if date is None:
                raise ValueError("the answer has no valid Date")
            moment = date.timestamp()
            rows = json.loads(connection.http.read_all(answer) or b"[]")
            with self._objects.listings.wrong_rows("the account"):
                for row in rows:
                    require_row(row)
            return [row["name"] for row in rows]

        try:
            while page := self._objects.session.call(get_page):
                if names and page[-1] <= names[-1]:
                    raise RejectedError("the store repeats the same page of its listing")
                names += page
        except UnavailableError:
            raise
        except (StorageError, *NO_JSON) as e:
            return names, moment, [f"the containers of the account can't be listed: {e}"]
        return names, moment, []

    def _old_segments(
        self, home: str, is_wanted: Callable[[str], bool], oldest: str
    ) -> Iterator[tuple[str, Leftover]]:
        """Yield the path and the segment of each upload that has stored none since *oldest*, a date; "" means now."""
        latest: dict[str, str] = {}
        found = []
        try:
            for row in self._objects.list(home):
                key = key_of(row.key)
                if key is not None and is_wanted(key):
                    found.append(Leftover(row.key, key, row.size, row.last_modified))
                    upload = upload_of(row.key)
                    latest[upload] = max(latest.get(upload, ""), row.last_modified)
        except ContainerNotFoundError:
            return
        for each in found:
            if not oldest or latest[upload_of(each.name)] < oldest:
                yield f"/{home}/{each.name}", each

    def _look_through(self, container: str, look: _Look, is_listed_as_large: bool, run_all: RunAll) -> None:
        """Record the segments that objects in *container* use: those that it lists as large, or all others."""
        rows = (
            row
            for row in self._rows(container, look.unread)
            if ("slo_etag" in row) == is_listed_as_large
            and _version_identity(container, row) not in look.read
            and f"/{container}/{row['name']}" not in look.left
        )
        while some := list(islice(rows, AT_ONCE)):
            self._look_at(container, some, look, run_all)

    def _look_at(self, container: str, rows: Sequence[ListedRow], look: _Look, run_all: RunAll) -> None:
        look.named -= {f"/{container}/{row['name']}" for row in rows}
        named = run_all([functools.partial(self._named_by, container, row) for row in rows])
        for row, each in zip(rows, named, strict=True):
            look.note(_version_identity(container, row), each)

    def _rows(self, container: str, unread: list[str]) -> Iterator[ListedRow]:
        """Yield the rows of *container*, including old versions."""
        marks: dict[str, str] = {}
        is_last = False
        try:
            while not is_last:
                page, is_last = self._objects.listings.page(
                    container, {"versions": "true", **marks}, swift_listing.ROWS_PER_PAGE
                )
                yield from page
                last = page[-1] if page else {"name": ""}
                before = marks
                marks = {"marker": last["name"], "version_marker": last.get("version_id") or ""}
                if marks == before:
                    raise RejectedError("the store repeats the same page of its listing")
        except ContainerNotFoundError:
            return
        except UnavailableError:
            raise
        except StorageError as e:
            unread.append(f"container {container!r}: {e}")

    def _named_by(self, container: str, row: ListedRow) -> _Uses:
        key, is_large = str(row["name"]), "slo_etag" in row
        query = "" if row.get("is_latest", True) else f"version-id={quote(str(row['version_id']))}"
        if "symlink_path" in row:  # /v1/account/container/key
            return _Uses(frozenset(["/" + unquote(row["symlink_path"]).split("/", 3)[-1]]))
        try:
            if is_large or self._is_large(container, key, query):
                prefix, content = self._segments.manifests.read(container, key, query and f"&{query}")
                names = () if prefix else (str(each["name"]) for each in parsed(content))
                return _Uses(frozenset(names), prefix and f"/{prefix}")
            return _Uses()
        except UnavailableError:
            raise
        except (StorageError, Unreadable, *NO_JSON) as e:
            if isinstance(e, NotFoundError) and not (is_large and self._is_there(container, key, query)):
                return _Uses()  # a listing may show a removed object for a while
            log.debug("%r in %r: %s", key, container, e)
            return _Uses(unread=f"object {key!r} in container {container!r}: its manifest can't be read")

    def _is_there(self, container: str, key: str, query: str) -> bool:
        """Return whether any replica of an object is left after a 404. Then its segments must stay."""
        try:
            self._head(container, key, query, {"X-Newest": "true"})
        except NotFoundError:
            return False
        except UnavailableError:
            raise
        except StorageError:
            return True
        return True

    def _is_large(self, container: str, key: str, query: str) -> bool:
        return not LARGE.isdisjoint(self._head(container, key, query, {}))

    def _head(self, container: str, key: str, query: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        def head(connection: Connection, url: str, token: str) -> Mapping[str, str]:
            path = path_of(url, container, key) + (query and f"?{query}")
            asked = {"X-Auth-Token": token, **headers}
            answer = self._objects.session.send(connection, "HEAD", path, asked)
            connection.http.skip(answer)
            return answer.fields

        return self._objects.session.call(head, key)

    def remove(self, leftover: Leftover) -> bool:
        """Remove an unused segment, as `SupportsMultipart.remove_leftover` does."""
        home = self._segments.segment_container
        try:
            if self._objects.head(home, leftover.name).last_modified[:19] > leftover.last_modified[:19]:
                return False
            self._objects.session.ask("DELETE", home, leftover.name)
        except NotFoundError:
            return False
        return True


def _version_identity(container: str, row: ListedRow) -> tuple[str, ...]:
    """Return an identity of an object in a listing, which differs for each version of it."""
    return container, str(row.get("name")), str(row.get("version_id")), str(row.get("hash"))
