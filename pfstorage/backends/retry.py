"""Repeat requests that failed for a reason that may pass, with random pauses and within bounds."""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TypeVar

from pfstorage.backends.errors import ConnectError
from pfstorage.errors import StorageError, UnavailableError
from pfstorage.runtime.cancellation import CancellationToken

T = TypeVar("T")
log = logging.getLogger(__name__)

# Seconds. A pause is random, below a bound that begins with the first value and doubles up to the second.
FIRST_PAUSE = 0.5
MAX_PAUSE = 8.0
# Seconds. A store may ask for a longer pause by Retry-After, up to this bound.
MAX_RETRY_AFTER = 60.0
# Seconds after which a request to a store that accepts no connection fails, however many retries remain.
# All requests to one store share this time, so a later request does not wait again.
CONNECT_PATIENCE = 3.0
# The retries that all requests of one message share: an initial number, and an addition for each success.
BUDGET = 200.0
BUDGET_FOR_SUCCESS = 0.5
# Seconds between two looks for requests that the cancellation token wants to end.
WATCH_SECONDS = 0.25


class RetryCounter:
    """A count of retries. Safe in many threads."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.value += 1


# All retries of this process, for its metrics.
RETRIES_MADE = RetryCounter()


def zero_progress() -> int:
    """Report no progress: each retry counts."""
    return 0


class OutageTracker:
    """The time for which a store has accepted no connection, over all requests to it. Safe in many threads."""

    def __init__(self) -> None:
        self._began = self._seen = float("-inf")

    def note(self, error: StorageError | None) -> None:
        """Record the result of a request, None for a success. Only a `ConnectError` continues an outage."""
        now = time.monotonic()
        if not isinstance(error, ConnectError):
            self._seen = float("-inf")
            return
        if now - self._seen > MAX_PAUSE:  # without requests in between, the store may have been available
            self._began = now
        self._seen = now

    @property
    def seconds(self) -> float:
        """The length of the current outage in seconds, 0 without an outage."""
        now = time.monotonic()
        return now - self._began if now - self._seen <= MAX_PAUSE else 0.0


class RetryPolicy:
    """A policy that retries failed requests, and ends them early on cancellation. Safe in many threads.

    A request is repeated up to *retries* times, without this limit as long as it makes progress. With *has_budget*,
    all requests share a budget of retries, since retries of most requests would only add to the load of the store.
    *on_failure* gets each error that may be retried. With *is_watched*, a thread aborts the requests soon after
    *cancellation* is requested, even if nothing else looks at it.
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
        self._cancellation = cancellation or CancellationToken()
        self._on_failure = on_failure
        self._budget = BUDGET if has_budget else float("inf")
        self._lock = threading.Lock()
        self._aborts: set[Callable[[], None]] = set()
        self._is_aborted = False
        self._is_watched = is_watched

    def call(
        self,
        call: Callable[[], T],
        retry_on: tuple[type[StorageError], ...] = (UnavailableError,),
        *,
        progress: Callable[[], float] = zero_progress,
        least_rate: float = 0.0,
        outage: OutageTracker | None = None,
        can_repeat: Callable[[], bool] = lambda: True,
    ) -> T:
        """Send one request by *call* and return its result; repeat it after an error of *retry_on*, after a pause.

        Raise the last error, or `StoppedError`. *call* must rewind the bytes that it reads, unless *can_repeat*
        returns False. The count of retries begins again whenever *progress* has grown since, by *least_rate* each
        second. During a long *outage* of the store, nothing is repeated.
        """
        started = counted = time.monotonic()
        reached = progress()
        failures: list[StorageError] = []
        while True:
            self._raise_if_ended()
            try:
                with WATCH.over(self) if self._is_watched else contextlib.nullcontext():
                    result = call()
            except retry_on as e:
                self._raise_if_aborted(e)
                self._on_failure(e)
                gained, now = progress() - reached, time.monotonic()
                if gained > 0 and gained >= least_rate * (now - counted):
                    failures, reached, counted = [], progress(), now
                failures.append(e)
                down = max(now - started, outage.seconds if outage else 0.0)
                is_down = isinstance(e, ConnectError) and down > CONNECT_PATIENCE
                if is_down or self._is_exhausted(failures) or not can_repeat():
                    raise
                self._wait(len(failures) - 1, e)
            else:
                self._add_to_budget(BUDGET_FOR_SUCCESS)
                return result

    def repeat(self, call: Callable[[], T], retry_on: tuple[type[StorageError], ...], times: int) -> T:
        """Return the result of *call*; repeat it up to *times* after an error of *retry_on*.

        `call` retries its requests. This is for a result that a single request can't correct, such as a file with
        damaged bytes: *retry_on* contains no error that `call` retries. A repetition takes from the budget, but a
        success adds nothing.
        """
        for attempt in range(times):
            self._raise_if_ended()
            try:
                return call()
            except retry_on as e:
                self._raise_if_aborted(e)
                self._on_failure(e)
                self._wait(attempt, e)
        return call()

    def _raise_if_ended(self) -> None:
        self._cancellation.raise_if_overdue()
        if self._is_aborted:
            raise self._cancellation.error()

    def _raise_if_aborted(self, error: StorageError) -> None:
        if self._is_aborted:
            raise self._cancellation.error() from error

    def _is_exhausted(self, failures: list[StorageError]) -> bool:
        """Return whether *failures* contains more errors than may be retried, in all or of the kind of the last."""
        last = failures[-1]
        of_kind = sum(type(e) is type(last) for e in failures) if last.max_retries < len(failures) else 0
        return len(failures) > self._retries or of_kind > last.max_retries

    def _wait(self, attempt: int, error: StorageError) -> None:
        """Take one retry from the budget and sleep. Raise *error* if the budget is used up."""
        if self._add_to_budget(-1) < 0:
            raise error
        pause = _pause(attempt, error)
        RETRIES_MADE.add()
        log.debug("trying again in %.1f s: %s", pause, error)
        self._cancellation.sleep(pause)

    def _add_to_budget(self, change: float) -> float:
        with self._lock:
            self._budget += change
            return self._budget

    @contextlib.contextmanager
    def abortable(self, abort: Callable[[], None]) -> Iterator[None]:
        """Register *abort* for the length of the block. `abort_requests` calls it in another thread."""
        with self._lock:
            if self._is_aborted:
                raise self._cancellation.error()
            self._aborts.add(abort)
        try:
            yield
        finally:
            with self._lock:
                self._aborts.discard(abort)

    def abort_if_cancelled(self) -> None:
        """Abort all requests if the cancellation token asks for their end."""
        if self._cancellation.is_cancelled:
            self.abort(self._cancellation.reason)

    def abort(self, reason: str) -> None:
        """Abort the current requests and refuse later ones: each raises `StoppedError`."""
        self._cancellation.cancel(reason)
        with self._lock:
            self._is_aborted = True
        self.abort_requests()

    def abort_requests(self) -> None:
        """Abort the current requests. Each of them fails with an error of its connection."""
        with self._lock:
            aborts = list(self._aborts)
        for abort in aborts:
            abort()


class Watch:
    """A thread that aborts requests after a cancellation, since a thread that waits for a store can't look itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[RetryPolicy] = Counter()  # a listing waits in two threads
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def over(self, retry_policy: RetryPolicy) -> Iterator[None]:
        """Watch the cancellation token of *retry_policy* for the length of the block."""
        with self._lock:
            self._waiting[retry_policy] += 1
            self._is_needed.set()
            if self._thread is None or not self._thread.is_alive():  # a fork copies no threads
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
    """Return the pause in seconds: the store's own wish, or a random part of a growing bound.

    The randomness ("full jitter") spreads the retries of workers that failed at the same time.
    """
    if error.retry_after is not None:
        return min(error.retry_after, MAX_RETRY_AFTER)
    bound: float = min(MAX_PAUSE, FIRST_PAUSE * 2**attempt)
    return random.uniform(0, bound)  # noqa: S311 - no secret depends on it
