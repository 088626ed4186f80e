"""Try again what may help to try again: with growing, random pauses, and not for ever."""

from __future__ import annotations

import contextlib
import itertools
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from pfstorage.backends.errors import ConnectError, ProxyAnswerError
from pfstorage.errors import StorageError, UnavailableError
from pfstorage.runtime.cancellation import CancellationToken

T = TypeVar("T")
log = logging.getLogger(__name__)

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 8.0
LONGEST_RETRY_AFTER = 60.0
CONNECT_PATIENCE = 3.0
"""Seconds after which a store that takes no connection is given up, whatever tries are left.

Where several ask the same store, they count together: who comes later does not wait for what is known.
"""

STRANGE_RETRIES = 2
"""How often a request is repeated at most that something else than the store refused: it may do so for good."""

BUDGET = 200.0
BUDGET_FOR_SUCCESS = 0.5
"""The repetitions that one message may make: so many at first, and so much more for each success."""


WATCH_SECONDS = 0.25


class RetryCounter:
    """A count that any thread may add to."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.value += 1


RETRIES_MADE = RetryCounter()
"""How often something was tried again in this process, for its metrics."""


def no_progress() -> int:
    return 0


class OutageTracker:
    """For how long a store has taken no connection, as all those know together who ask it. Safe in many threads."""

    def __init__(self) -> None:
        self._began = self._seen = float("-inf")

    def note(self, error: StorageError | None) -> None:
        """Note how a request ended: what did not fail to connect ends the outage."""
        now = time.monotonic()
        if not isinstance(error, ConnectError):
            self._seen = float("-inf")
            return
        if now - self._seen > LONGEST_PAUSE:  # nobody has asked for a while, and it may have been there
            self._began = now
        self._seen = now

    @property
    def seconds(self) -> float:
        """For how long it has lasted; 0 if there is none."""
        now = time.monotonic()
        return now - self._began if now - self._seen <= LONGEST_PAUSE else 0.0


class RetryPolicy:
    """What failures of a store are borne: by each request, and by all that share this together.

    A request is repeated up to *retries* times; one that gets further each time, such
    as a download over a bad line, as often as it takes. With *has_budget*, all of them
    share a budget: where most requests fail, repeating each does harm and helps nobody.
    *on_failure* is told of each failure that is worth another try. With *is_watched*, what waits for the store is
    given up soon after *cancellation* is requested, whether or not anybody looks at that. Safe in many threads.
    """

    def __init__(
        self,
        retries: int,
        *,
        cancellation: CancellationToken | None = None,
        on_failure: Callable[[StorageError], None] = lambda _: None,
        has_budget: bool = False,
        is_watched: bool = False,
    ) -> None:
        self._retries = retries
        self._stop = cancellation or CancellationToken()
        self._noticed = on_failure
        self._budget = BUDGET if has_budget else float("inf")
        self._lock = threading.Lock()
        self._breakers: set[Callable[[], None]] = set()
        self._is_given_up = False
        self._is_watched = is_watched

    def call(
        self,
        call: Callable[[], T],
        retry_on: tuple[type[StorageError], ...] = (UnavailableError,),
        *,
        retries: int | None = None,
        progress: Callable[[], float] = no_progress,
        least_rate: float = 0.0,
        outage: OutageTracker | None = None,
        can_repeat: Callable[[], bool] = lambda: True,
    ) -> T:
        """Return what *call* returns; on an error of *retry_on*, call it again, after a pause.

        Raise the last error, or `StoppedError`. *call* must be able to run again, or *can_repeat* says no: rewind
        what it read. Where *progress* has grown since the count of tries began, and by *least_rate* each second, the
        count begins anew: who gets a little further each time would be tried without end.
        During an *outage* that has lasted for long, one try is enough.
        """
        started = counted = time.monotonic()
        reached = progress()
        attempts = itertools.count()
        while True:
            self._stop.raise_if_overdue()
            if self._is_given_up:
                raise self._stop.error()
            try:
                with WATCH.over(self) if self._is_watched else contextlib.nullcontext():
                    result = call()
            except retry_on as e:
                if self._is_given_up:
                    raise self._stop.error() from e
                self._noticed(e)
                gained, now = progress() - reached, time.monotonic()
                if gained > 0 and gained >= least_rate * (now - counted):
                    attempts, reached, counted = itertools.count(), progress(), now
                attempt = next(attempts)
                down = max(time.monotonic() - started, outage.seconds if outage else 0.0)
                out_of_patience = isinstance(e, ConnectError) and down > CONNECT_PATIENCE
                most = self._retries if retries is None else retries
                if isinstance(e, ProxyAnswerError):
                    most = min(most, STRANGE_RETRIES)
                if attempt >= most or out_of_patience or not can_repeat():
                    raise
                if self._add_to_budget(-1) < 0:
                    raise
                pause = _pause(attempt, e)
                RETRIES_MADE.add()
                log.debug("trying again in %.1f s: %s", pause, e)
                self._stop.sleep(pause)
            else:
                self._add_to_budget(BUDGET_FOR_SUCCESS)
                return result

    def _add_to_budget(self, change: float) -> float:
        with self._lock:
            self._budget += change
            return self._budget

    @contextlib.contextmanager
    def abortable(self, breaker: Callable[[], None]) -> Iterator[None]:
        """Let `abort_requests` call *breaker*, from another thread, for the length of the block."""
        with self._lock:
            if self._is_given_up:
                raise self._stop.error()
            self._breakers.add(breaker)
        try:
            yield
        finally:
            with self._lock:
                self._breakers.discard(breaker)

    def abort_if_cancelled(self) -> None:
        if self._stop.is_cancelled:
            self.abort(self._stop.reason)

    def abort(self, reason: str) -> None:
        """Break off what is under way, and let nothing begin any more: each ends with `StoppedError`."""
        self._stop.cancel(reason)
        with self._lock:
            self._is_given_up = True
        self.abort_requests()

    def abort_requests(self) -> None:
        """End every wait for the store that is under way with an error."""
        with self._lock:
            breakers = list(self._breakers)
        for breaker in breakers:
            breaker()


class Watch:
    """A thread that looks some times a second whether those who wait for a store are to stop: they can't themselves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[RetryPolicy] = Counter()  # a listing waits in two threads
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, retry_policy: RetryPolicy) -> Iterator[None]:
        """Give *retry_policy* up once it is to stop, for the length of the block."""
        with self._lock:
            self._waiting[retry_policy] += 1
            self._is_needed.set()
            if self._thread is None or not self._thread.is_alive():  # as in a child of a fork
                self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting[retry_policy] -= 1
                if not self._waiting[retry_policy]:
                    del self._waiting[retry_policy]

    def _look(self) -> None:
        while self._is_needed.wait():
            time.sleep(WATCH_SECONDS)
            with self._lock:
                waiting = [*self._waiting]
                if not waiting:
                    self._is_needed.clear()
            for retry_policy in waiting:
                retry_policy.abort_if_cancelled()


WATCH = Watch()


def _pause(attempt: int, error: StorageError) -> float:
    """Return the seconds to wait: what the store asks for, or a random part of a growing time.

    The randomness ("full jitter") keeps workers that failed together from coming back together.
    """
    if error.retry_after is not None:
        return min(error.retry_after, LONGEST_RETRY_AFTER)
    longest: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    return random.uniform(0, longest)  # noqa: S311 - no secret depends on it
