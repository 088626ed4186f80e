"""Fetch the pages of a long listing ahead of their use, and from both ends at the same time."""

from __future__ import annotations

import contextlib
import itertools
import logging
import marshal
import queue
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pfstorage.errors import PfstorageError

log = logging.getLogger(__name__)

PageRow = Any
# Returns the page of the rows after a name, and the name that the next page starts after, None at the end.
Fetch = Callable[[str], "tuple[Sequence[PageRow], str | None]"]
# Pages that wait for their use. More would only need memory, since a store makes one page after the other.
AHEAD = 2
# Pages before the listing from the other end starts: that costs a request or two more.
FROM_BOTH_ENDS_AFTER = 5
# Pages from the other end that are kept, compressed, in a file without a name.
MOST_KEPT = 1000
# Bytes of these pages that stay in memory instead.
KEPT_IN_MEMORY = 1024**2
# Rows of these pages that are unpacked at the same time: a whole page needs megabytes.
BATCH = 1000


def fetched_ahead(
    fetch: Fetch,
    start_after: str,
    limit: int | None = None,
    fetch_back: Fetch | None = None,
    name_of: Callable[[PageRow], str] = str,
) -> Iterator[Sequence[PageRow]]:
    """Yield the pages after *start_after*, up to *limit* rows, and fetch the next pages in a thread.

    *fetch_back* returns pages in descending order, before a name or from the end. It is called in another thread if
    the caller waits for pages, until both listings meet: a store makes two pages at a time as fast as one. *name_of*
    returns the sort key of a row. An error of *fetch* is raised here. An error of *fetch_back* is only logged.
    """
    page, following = fetch(start_after)
    if following is None or (limit and len(page) >= limit):
        yield page
        return
    left = None if limit is None else limit - len(page)
    with _Forward(fetch, following, left) as forward, contextlib.ExitStack() as stack:
        backward: _Backward | None = None
        yield page
        for number, page in enumerate(forward.pages()):
            yield page
            if backward and page and backward.covers(name_of(page[-1])):
                forward.stop()
                yield from backward.pages_after(name_of(page[-1]))
                return
            if backward is None and fetch_back and number >= FROM_BOTH_ENDS_AFTER and forward.is_awaited:
                backward = stack.enter_context(_Backward(fetch_back, name_of, forward))


class _Forward:
    """A thread that fetches pages, and keeps them in a queue."""

    def __init__(self, fetch: Fetch, start_after: str, left: int | None) -> None:
        self._fetch = fetch
        self._start_after: str | None = start_after
        self._left = left
        self._pages: queue.Queue[Sequence[PageRow] | BaseException | None] = queue.Queue(AHEAD)
        self._is_stopped = threading.Event()
        # the name that the current page starts after
        self.reached = start_after

    def __enter__(self) -> _Forward:
        threading.Thread(target=self._run, name="listing", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Fetch no further page, and drop those in the queue."""
        self._is_stopped.set()
        while not self._pages.empty():  # so that a thread that waits for space sees the event
            self._pages.get_nowait()

    @property
    def is_awaited(self) -> bool:
        """Whether the caller has to wait for the next page."""
        return self._pages.empty()

    def pages(self) -> Iterator[Sequence[PageRow]]:
        while (got := self._pages.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got

    def _run(self) -> None:
        try:
            while self._start_after is not None and (self._left is None or self._left > 0):
                if self._is_stopped.is_set():
                    break
                self.reached = self._start_after
                page, self._start_after = self._fetch(self._start_after)
                self._left = None if self._left is None else self._left - len(page)
                self._pages.put(page)
            self._pages.put(None)
        except BaseException as e:  # noqa: BLE001 - `pages` raises it
            self._pages.put(e)


class _Backward:
    """A thread that fetches pages from the end, until they meet those of *forward*."""

    def __init__(self, fetch: Fetch, name_of: Callable[[PageRow], str], forward: _Forward) -> None:
        self._fetch = fetch
        self._name_of = name_of
        self._forward = forward
        self._is_stopped = threading.Event()
        self._file = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115 - the last user closes it
        self._extents: list[tuple[int, int]] = []
        self._pages = 0
        self._lowest: str | None = None
        self._users = 2  # of the file: the thread and the creator of this object
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="listing-backward", daemon=True)

    def __enter__(self) -> _Backward:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._release_file()  # without a join, so that a slow page delays nobody

    def _release_file(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._file.close()

    def covers(self, name: str) -> bool:
        """Return whether every row after *name* has been fetched."""
        return self._lowest is not None and self._lowest <= name

    def pages_after(self, name: str) -> Iterator[Sequence[PageRow]]:
        """Yield the rows after *name*, in ascending order."""
        self._is_stopped.set()
        for start, size in self._extents[::-1]:
            with self._lock:
                self._file.seek(start)
                packed = self._file.read(size)
            page: list[PageRow] = marshal.loads(zlib.decompress(packed))  # noqa: S302 - this process wrote it
            page.reverse()
            yield [row for row in page if self._name_of(row) > name]

    def _run(self) -> None:
        stop_before: str | None = ""
        try:
            while stop_before is not None and self._pages < MOST_KEPT and not self._is_stopped.is_set():
                page, stop_before = self._fetch(stop_before)
                if not page or self._name_of(page[0]) < self._name_of(page[-1]):
                    return  # the store supports the ascending order only
                self._store(page)
                self._lowest = self._name_of(page[-1])
                if self._lowest <= self._forward.reached:
                    return
        except (PfstorageError, OSError) as e:  # an error of the store or of the file
            log.debug("the listing continues from one end only: %s", e)
        finally:
            self._release_file()

    def _store(self, page: Sequence[PageRow]) -> None:
        rows = iter(page)
        while batch := list(itertools.islice(rows, BATCH)):
            packed = zlib.compress(marshal.dumps(batch), 1)
            start = sum(self._extents[-1]) if self._extents else 0
            with self._lock:
                self._file.seek(start)
                self._file.write(packed)
            self._extents.append((start, len(packed)))
        self._pages += 1
