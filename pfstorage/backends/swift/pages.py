"""Pages of a long listing, fetched while the ones before are being used, and from both ends at once."""

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

Row = Any
Fetch = Callable[[str], "tuple[Sequence[Row], str | None]"]
"""Returns the page after a marker, and the marker of the page after that; None if there is none."""

AHEAD = 2
"""Pages that wait to be used: more only take memory, since a store makes one after the other."""
FROM_BOTH_ENDS_AFTER = 5
"""Pages after which it pays to list from the other end, too: that costs a request or two more."""
MOST_KEPT = 1000
"""Pages from the other end that are kept, compressed, in a file that has no name."""
KEPT_IN_MEMORY = 1024**2
"""Bytes of them that are in memory instead."""
BATCH = 1000
"""Rows of them that are unpacked at once: a whole page takes megabytes."""


def fetched_ahead(
    fetch: Fetch,
    marker: str,
    limit: int | None = None,
    fetch_back: Fetch | None = None,
    name_of: Callable[[Row], str] = str,
) -> Iterator[Sequence[Row]]:
    """Yield page after page, the next ones on their way meanwhile, until they hold *limit* rows.

    *fetch_back* returns pages in descending order, from a marker or the end on. If it
    is given, and whoever uses the pages has to wait for them, it is called as well,
    until both meet: a store makes two pages side by side as fast as one. *name_of* tells the order of rows.
    What *fetch* raises is raised here; without *fetch_back*, it just takes longer.
    """
    page, following = fetch(marker)
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
    """A thread that fetches pages, and the queue in which they wait."""

    def __init__(self, fetch: Fetch, marker: str, left: int | None) -> None:
        self._fetch = fetch
        self._marker: str | None = marker
        self._left = left
        self._pages: queue.Queue[Sequence[Row] | BaseException | None] = queue.Queue(AHEAD)
        self._is_unwanted = threading.Event()
        self.reached = marker
        """The marker after which it fetches now."""

    def __enter__(self) -> _Forward:
        threading.Thread(target=self._run, name="listing", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let no further page be fetched; what waits is dropped."""
        self._is_unwanted.set()
        while not self._pages.empty():  # one that waits to hand over its page goes on, and sees the sign
            self._pages.get_nowait()

    @property
    def is_awaited(self) -> bool:
        """Tell whether whoever uses the pages has to wait for the next one."""
        return self._pages.empty()

    def pages(self) -> Iterator[Sequence[Row]]:
        while (got := self._pages.get()) is not None:
            if isinstance(got, BaseException):
                raise got
            yield got

    def _run(self) -> None:
        try:
            while self._marker is not None and (self._left is None or self._left > 0):
                if self._is_unwanted.is_set():
                    break
                self.reached = self._marker
                page, self._marker = self._fetch(self._marker)
                self._left = None if self._left is None else self._left - len(page)
                self._pages.put(page)
            self._pages.put(None)
        except BaseException as e:  # noqa: BLE001 - it is raised again where the pages are used
            self._pages.put(e)


class _Backward:
    """A thread that fetches pages from the end on, until they meet those of *forward*."""

    def __init__(self, fetch: Fetch, name_of: Callable[[Row], str], forward: _Forward) -> None:
        self._fetch = fetch
        self._name_of = name_of
        self._forward = forward
        self._is_unwanted = threading.Event()
        self._file = tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY)  # noqa: SIM115 - its last user closes it
        self._places: list[tuple[int, int]] = []
        self._pages = 0
        self._lowest: str | None = None
        self._users = 2  # of the file: the thread, and whoever made this
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="listing-backward", daemon=True)

    def __enter__(self) -> _Backward:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_unwanted.set()
        self._leave_file()  # and no join: a page that stalls holds up nobody

    def _leave_file(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._file.close()

    def covers(self, name: str) -> bool:
        """Tell whether every row after *name* has been fetched."""
        return self._lowest is not None and self._lowest <= name

    def pages_after(self, name: str) -> Iterator[Sequence[Row]]:
        """Yield the rows after *name*, in ascending order."""
        self._is_unwanted.set()
        for start, size in self._places[::-1]:
            with self._lock:
                self._file.seek(start)
                packed = self._file.read(size)
            page: list[Row] = marshal.loads(zlib.decompress(packed))  # noqa: S302 - our own
            page.reverse()
            yield [row for row in page if self._name_of(row) > name]

    def _run(self) -> None:
        marker: str | None = ""
        try:
            while marker is not None and self._pages < MOST_KEPT and not self._is_unwanted.is_set():
                page, marker = self._fetch(marker)
                if not page or self._name_of(page[0]) < self._name_of(page[-1]):
                    return  # a store that knows no other order than the ascending one
                self._keep(page)
                self._lowest = self._name_of(page[-1])
                if self._lowest <= self._forward.reached:
                    return
        except (PfstorageError, OSError) as e:  # of the store, or of the file
            log.debug("the listing goes on from one end: %s", e)
        finally:
            self._leave_file()

    def _keep(self, page: Sequence[Row]) -> None:
        rows = iter(page)
        while batch := list(itertools.islice(rows, BATCH)):
            packed = zlib.compress(marshal.dumps(batch), 1)
            start = sum(self._places[-1]) if self._places else 0
            with self._lock:
                self._file.seek(start)
                self._file.write(packed)
            self._places.append((start, len(packed)))
        self._pages += 1
