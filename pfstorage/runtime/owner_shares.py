"""Fair use of the processor by the owners of requests: the owner who has used less goes first.

An owner with many or long requests delays their own requests, and those of others little. One owner alone waits for
nobody.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

# All times are in seconds.
# The maximum time for which the first request of the queue waits for requests of others.
YIELD_SECONDS = 0.05
# The maximum time for which a request waits to be the first of the queue.
QUEUE_SECONDS = 1.0
# A request that is not answered after this time waits for something else, such as the store. Nobody waits for it.
REQUEST_LASTS = 0.2
# The minimum time between two requests that leave the queue: all at once would hinder the next short request.
GAP_SECONDS = 0.002
# After this time, used processor time counts half.
HALF_LIFE = 1.5
# An owner who uses less than this part of their equal share of one processor waits for nobody.
FREE_PART = 0.5
# The counted time of an owner who uses one whole processor.
_WHOLE = HALF_LIFE / math.log(2)
# Used processor time below this is forgotten.
_FORGOTTEN = 0.001
_AGE_SECONDS = 0.5
# The share of one processor above which Python threads hinder each other, and the time to measure it over.
_BUSY = 0.5
_BUSY_SECONDS = 0.1


@dataclass(frozen=True)
class Clocks:
    """Three clocks, in seconds: the time, the processor time of the process, and that of the thread."""

    now: Callable[[], float] = time.monotonic
    process: Callable[[], float] = time.process_time
    thread: Callable[[], float] = time.thread_time


class RequestUsage:
    """The use of the processor by the requests of one thread, one after the other.

    The present request *began* at a time. Others wait for it until *awaited_until*, long loops only while it
    *has_priority*. Its *owner* is "" until they are known. *computed* is the counted processor time of the thread.
    """

    __slots__ = ("awaited_until", "began", "computed", "has_priority", "owner")

    def __init__(self) -> None:
        self.began = self.awaited_until = self.computed = 0.0
        self.owner = ""
        self.has_priority = True


class OwnerShares:
    """A count of the recent processor time of each owner: requests wait for those of owners with less.

    The thread of a request calls the methods.
    """

    def __init__(self, clocks: Clocks) -> None:
        self._now = clocks.now
        self._process_time = clocks.process
        self._thread_time = clocks.thread
        self._measured = self._now(), self._process_time()
        self._is_busy = False
        self._requests: dict[int, RequestUsage] = {}  # by thread
        self._used: dict[str, float] = {}  # by owner
        self._aged_at = self._now()
        self._lock = threading.Lock()
        self._queue = threading.Lock()
        # the first request of the queue, and the event that ends its wait
        self._first: tuple[RequestUsage, threading.Event] | None = None
        self._gone_on_at = -math.inf
        self._all_answered = threading.Event()
        self._is_awaited = False  # whether a loop waits for this event

    @property
    def current(self) -> RequestUsage | None:
        """The request of this thread."""
        return self._requests.get(threading.get_ident())

    def is_busy(self, now: float) -> bool:
        """Return whether the process computes so much that its threads hinder each other."""
        then, computed = self._measured
        if now - then > _BUSY_SECONDS:
            total = self._process_time()
            self._is_busy = total - computed > _BUSY * (now - then)
            self._measured = now, total
        return self._is_busy

    def begin(self, request: RequestUsage) -> None:
        """Begin *request*. Others wait for it until `begin_waiting` or `end`, but at most for `REQUEST_LASTS`.

        What the thread has computed since its previous request counts for this one.
        """
        request.began = now = self._now()
        request.awaited_until = now + REQUEST_LASTS
        request.owner, request.has_priority = "", True
        self._requests[threading.get_ident()] = request

    def set_owner(self, request: RequestUsage, owner: str) -> None:
        """Set the owner of *request*. If the process is busy, wait for requests of owners with less."""
        request.owner = owner
        if self.is_busy(self._now()):
            self._give_way(request)

    def end_priority(self, request: RequestUsage) -> None:
        """Let no long loop wait for *request* any longer: it takes long itself."""
        request.has_priority = False
        self._wake()

    def begin_waiting(self, request: RequestUsage) -> None:
        """Let nobody wait for *request* any longer: it waits for its client."""
        request.awaited_until = 0.0
        if self._first or self._is_awaited:
            self._wake()

    def end(self, request: RequestUsage) -> None:
        """End *request*."""
        self._requests.pop(threading.get_ident(), None)
        if request.owner:
            self._count(request)
        if self._first or self._is_awaited:
            self._wake()

    def give_way(self) -> None:
        """If the process is busy, wait while requests of owners who have used less are at work.

        A request waits to be first in a queue, and then for at most `YIELD_SECONDS`.
        """
        request = self._requests.get(threading.get_ident())
        if request and request.owner and self.is_busy(self._now()):
            self._count(request)
            self._give_way(request)

    def _give_way(self, request: RequestUsage) -> None:
        if self._must_wait(request) and self._queue.acquire(timeout=QUEUE_SECONDS):
            try:
                may_go_on = threading.Event()
                self._first = request, may_go_on
                if self._must_wait(request):
                    may_go_on.wait(YIELD_SECONDS)
                if (gap := self._gone_on_at + GAP_SECONDS - self._now()) > 0:
                    time.sleep(gap)
                self._gone_on_at = self._now()
            finally:
                self._first = None
                self._queue.release()

    def wait_until_answered(self, seconds: float) -> None:
        """Wait until no request has priority, at most *seconds*."""
        if self._any_has_priority():
            self._all_answered.clear()
            self._is_awaited = True
            if self._any_has_priority():
                self._all_answered.wait(seconds)

    def _any_has_priority(self) -> bool:
        now = self._now()
        return any(
            request.has_priority and now < request.awaited_until for request in list(self._requests.values())
        )

    def _wake(self) -> None:
        """Wake the threads that wait for nothing any longer."""
        if first := self._first:
            request, may_go_on = first
            if not self._must_wait(request):
                may_go_on.set()
        if self._is_awaited and not self._any_has_priority():
            self._is_awaited = False
            self._all_answered.set()

    def _count(self, request: RequestUsage) -> None:
        computed, now = self._thread_time(), self._now()
        with self._lock:
            if now - self._aged_at > _AGE_SECONDS:
                share = 0.5 ** ((now - self._aged_at) / HALF_LIFE)
                self._used = {
                    owner: used * share for owner, used in self._used.items() if used * share > _FORGOTTEN
                }
                self._aged_at = now
            self._used[request.owner] = self._used.get(request.owner, 0.0) + computed - request.computed
        request.computed = computed

    def _must_wait(self, request: RequestUsage) -> bool:
        owners, used = len(self._used), self._used.get(request.owner, 0.0)
        if owners < 2 or used < FREE_PART * _WHOLE / owners:
            return False
        now = self._now()
        return any(
            other.owner not in ("", request.owner)
            and now < other.awaited_until
            and self._used.get(other.owner, 0.0) < used
            for other in list(self._requests.values())
        )
