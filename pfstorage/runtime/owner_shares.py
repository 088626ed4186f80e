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
# Used processor time below this is forgotten.
_FORGOTTEN = 0.001
_AGE_SECONDS = 0.5


@dataclass(eq=False)
class _Request:
    """A request of *owner*. Others wait for it until a time. *computed* is the counted processor time of its thread."""

    owner: str
    awaited_until: float
    computed: float


class OwnerShares:
    """A count of the recent processor time of each owner: requests wait for those of owners with less.

    *now* and *thread_time* are clocks in seconds. Each method is about the request of the calling thread.
    """

    def __init__(self, now: Callable[[], float], thread_time: Callable[[], float]) -> None:
        self._now = now
        self._thread_time = thread_time
        self._requests: dict[int, _Request] = {}  # by thread
        self._used: dict[str, float] = {}  # by owner
        self._aged_at = now()
        self._lock = threading.Lock()
        self._queue = threading.Lock()
        # the first request of the queue, and the event that ends its wait
        self._first: tuple[_Request, threading.Event] | None = None
        self._gone_on_at = -math.inf

    def begin(self, owner: str) -> None:
        """Begin a request. Others wait for it until `begin_reply`, but at most for `REQUEST_LASTS`."""
        awaited_until = self._now() + REQUEST_LASTS
        self._requests[threading.get_ident()] = _Request(owner, awaited_until, self._thread_time())

    def begin_reply(self) -> None:
        """Let nobody wait for this request any longer: sending its reply may take the client's time."""
        if request := self._requests.get(threading.get_ident()):
            request.awaited_until = 0.0
            self._wake_first()

    def end(self) -> None:
        """End the request, if there is one."""
        if request := self._requests.pop(threading.get_ident(), None):
            self._count(request)
            self._wake_first()

    def _wake_first(self) -> None:
        if first := self._first:
            request, may_go_on = first
            if not self._must_wait(request):
                may_go_on.set()

    def give_way(self) -> None:
        """Wait while requests of owners who have used less are at work: first in a queue, then for `YIELD_SECONDS`."""
        request = self._requests.get(threading.get_ident())
        if request is None:
            return
        self._count(request)
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

    def _count(self, request: _Request) -> None:
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

    def _must_wait(self, request: _Request) -> bool:
        if len(self._used) < 2:
            return False
        now, used = self._now(), self._used.get(request.owner, 0.0)
        return any(
            other.owner != request.owner
            and now < other.awaited_until
            and self._used.get(other.owner, 0.0) < used
            for other in list(self._requests.values())
        )
