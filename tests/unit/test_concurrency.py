"""Adaptive concurrency and the rate limit, with a simulated clock and with a real one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import pytest

from pfstorage.backends.errors import OverloadedError, SilentStoreError
from pfstorage.errors import StoppedError, UnavailableError
from pfstorage.runtime.cancellation import CancellationToken
from pfstorage.transfer.concurrency import (
    AUTO_MAX,
    AUTO_START,
    LIMIT_SETTLED_SECONDS,
    AdaptiveConcurrency,
    WorkerBudget,
)
from pfstorage.transfer.rate import RateLimiter
from tests.support.waiting import until

MIB = 2**20
BUSY = OverloadedError("too much")


class Store:
    """Time, and a store that moves *maximum* files a second, or fewer with fewer workers."""

    def __init__(
        self, fixed: int = 0, maximum: float = float("inf"), workers: WorkerBudget | None = None
    ) -> None:
        self.now = 1000.0
        self.maximum = maximum
        self.limit = AdaptiveConcurrency(fixed, clock=lambda: self.now, workers=workers)
        self.seen = {self.limit.allowed}

    def work(self, seconds: float, size: int = MIB) -> None:
        """Simulate this time of transfers: each file takes a worker a tenth of a second."""
        end = self.now + seconds
        while self.now < end:
            self.now += 1 / min(self.limit.allowed * 10, self.maximum)
            self.limit.note(size)
            self.seen.add(self.limit.allowed)


def test_a_small_share_proves_nothing_about_more_workers() -> None:
    workers = WorkerBudget(AUTO_START)
    store = Store(workers=workers)
    with workers.registered(lambda: 0), workers.registered(lambda: 0):
        store.work(0.5)
    workers.maximum = AUTO_MAX
    assert store.limit.allowed <= AUTO_START


def test_congestion_halves_the_busy_workers() -> None:
    workers = WorkerBudget(AUTO_START)
    store = Store(workers=workers)
    with workers.registered(lambda: 0), workers.registered(lambda: 0):
        store.limit.note_failure(BUSY)
    assert store.limit.allowed == AUTO_START // 4


def test_a_fixed_number_does_not_change() -> None:
    store = Store(fixed=5)
    store.work(20)
    store.limit.note_failure(BUSY)
    assert (store.limit.allowed, store.limit.maximum, store.seen) == (5, 5, {5})


@pytest.mark.parametrize("size", [0, MIB])
def test_workers_double_up_to_a_bound(size: int) -> None:
    store = Store()
    assert store.limit.allowed == AUTO_START
    store.work(10, size)
    assert (store.limit.allowed, store.limit.maximum) == (AUTO_MAX, AUTO_MAX)
    assert sorted(store.seen) == [8, 16, 32, 64]


def test_useless_workers_are_taken_back() -> None:
    store = Store(maximum=160.0)
    store.work(LIMIT_SETTLED_SECONDS - 1)
    assert store.limit.allowed == 16
    assert sorted(store.seen) == [8, 16, 32]


def test_more_workers_are_tried_again_later() -> None:
    store = Store(maximum=160.0)
    store.work(LIMIT_SETTLED_SECONDS - 1)
    store.maximum = float("inf")
    store.seen.clear()
    store.work(LIMIT_SETTLED_SECONDS + 5)
    assert store.limit.allowed == AUTO_MAX


def test_more_workers_are_seldom_tried_on_a_slow_store() -> None:
    store = Store(maximum=160.0)
    store.work(LIMIT_SETTLED_SECONDS - 1)
    raised = 0
    for _ in range(int(4 * LIMIT_SETTLED_SECONDS / 0.1)):
        before = store.limit.allowed
        store.work(0.1)
        raised += store.limit.allowed > before
    assert raised <= 5


@pytest.mark.parametrize("error", [BUSY, SilentStoreError("no answer")])
def test_congestion_halves_the_workers(error: UnavailableError) -> None:
    store = Store()
    store.limit.note_failure(error)
    assert store.limit.allowed == AUTO_START // 2


def test_failures_of_one_second_count_once() -> None:
    store = Store()
    store.work(10)
    halves = []
    for _ in range(10):
        store.limit.note_failure(BUSY)
        store.limit.note_failure(BUSY)
        halves.append(store.limit.allowed)
        store.now += 0.5
    assert halves == [32, 32, 16, 16, 8, 8, 4, 4, 2, 2]


def test_one_worker_is_always_left() -> None:
    store = Store()
    for _ in range(10):
        store.limit.note_failure(BUSY)
        store.now += 1.0
    assert store.limit.allowed == 1


def test_other_failures_change_nothing() -> None:
    store = Store()
    store.now += 5
    store.limit.note_failure(UnavailableError("broken", status=500))
    store.limit.note_failure(UnavailableError("reset"))
    assert store.limit.allowed == AUTO_START


def test_halved_workers_grow_again_after_a_while() -> None:
    store = Store()
    store.work(10)
    store.limit.note_failure(BUSY)
    store.seen.clear()
    store.work(LIMIT_SETTLED_SECONDS - 1)
    assert store.seen == {AUTO_MAX // 2}
    store.work(10)
    assert store.limit.allowed == AUTO_MAX


def test_no_rate_is_no_limit() -> None:
    rate_limiter, cancellation = RateLimiter(), CancellationToken()
    started = time.monotonic()
    for _ in range(1000):
        rate_limiter.take(10**9, cancellation)
    assert time.monotonic() - started < 1.0


def test_a_wait_for_the_rate_limit_can_be_cancelled() -> None:
    rate_limiter, cancellation, other = RateLimiter(1.0), CancellationToken(), CancellationToken()
    rate_limiter.take(3600, cancellation)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(rate_limiter.take, 1, other)
        time.sleep(0.05)
        started = time.monotonic()
        threading.Timer(0.05, cancellation.cancel).start()
        with pytest.raises(StoppedError):
            rate_limiter.take(1, cancellation)  # behind one who waits on
        assert not first.done()
        other.cancel()
        assert isinstance(first.exception(), StoppedError)
    assert time.monotonic() - started < 5.0


@pytest.mark.parametrize("how", ["stopped", "gone"])
def test_a_cancelled_wait_does_not_delay_others(how: str) -> None:
    rate_limiter, cancellation = RateLimiter(1000.0), CancellationToken()
    rate_limiter.take(1000, CancellationToken())
    has_gone = threading.Event()
    with ThreadPoolExecutor(50) as pool:
        those = [pool.submit(rate_limiter.take, 10_000, cancellation, has_gone.is_set) for _ in range(50)]
        time.sleep(0.2)
        cancellation.cancel() if how == "stopped" else has_gone.set()
        assert all(isinstance(each.exception(), StoppedError) for each in those)
    started = time.monotonic()
    rate_limiter.take(1, CancellationToken())
    assert time.monotonic() - started < 60  # each of them would have taken ten seconds


def test_threads_pass_in_the_order_of_their_calls() -> None:
    rate_limiter, passed, cancellation = RateLimiter(1000.0), [], CancellationToken()

    class RecordingQueue(deque[threading.Event]):
        def remove(self, permit: threading.Event) -> None:
            passed.append(threading.current_thread().name)
            super().remove(permit)

    def take() -> None:
        for _ in range(3):
            rate_limiter.take(30, cancellation)

    rate_limiter._waiting = RecordingQueue()
    rate_limiter._free_at = time.monotonic() + 3600  # until all are there, one after the other
    threads = [threading.Thread(target=take, name=name) for name in "abcde"]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda number=number: len(rate_limiter._waiting) == number)  # type: ignore[misc]
    rate_limiter._free_at = time.monotonic() + 0.1
    for thread in threads:
        thread.join()
    assert "".join(passed) == "abcde" * 3


def test_zero_bytes_pass_at_once() -> None:
    rate_limiter, cancellation = RateLimiter(1.0), CancellationToken()
    rate_limiter.take(3600, cancellation)
    cancellation.cancel()
    rate_limiter.take(0, cancellation)


def test_transfers_share_workers_evenly_and_get_them_back() -> None:
    workers = WorkerBudget(10)
    limits = [AdaptiveConcurrency(fixed, workers=workers) for fixed in (0, 3, 100)]
    with workers.registered(lambda: 4):
        assert [limit.allowed for limit in limits] == [8, 3, 10]
        with workers.registered(lambda: 5), workers.registered(lambda: 0):
            assert [limit.allowed for limit in limits] == [3, 3, 3]
            assert workers.counts() == {"busy": 9, "idle": 1}
        assert [limit.allowed for limit in limits] == [8, 3, 10]
    with contextlib.ExitStack() as stack:
        for _ in range(11):
            stack.enter_context(workers.registered(lambda: 1))
        assert limits[0].allowed == 1
        assert workers.counts() == {"busy": 11, "idle": 0}
    assert workers.counts() == {"busy": 0, "idle": 10}


def test_a_pause_allows_no_burst() -> None:
    rate_limiter, cancellation = RateLimiter(1_000_000), CancellationToken()
    rate_limiter.take(1, cancellation)
    time.sleep(0.3)
    started = time.monotonic()
    for _ in range(3):
        rate_limiter.take(100_000, cancellation)
    assert time.monotonic() - started >= 0.19
