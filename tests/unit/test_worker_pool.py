"""The worker pool: the order of tasks, the concurrency, subtasks, and the end."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from pfstorage.transfer.concurrency import AdaptiveConcurrency
from pfstorage.transfer.pool import WorkerPool
from tests.support.waiting import settle

TIMEOUT = 10.0
"""Seconds within which whatever is to happen has happened, on a busy machine, too."""


@pytest.fixture
def make_pool() -> Iterator[Callable[[int], WorkerPool]]:
    """Make pools of the given concurrency, and close them after the test."""
    pools: list[WorkerPool] = []

    def make(workers: int) -> WorkerPool:
        pools.append(WorkerPool(AdaptiveConcurrency(workers)))
        return pools[-1]

    yield make
    for pool in pools:
        assert pool.close(TIMEOUT)


class Meeting:
    """Ends once *count* threads are in it at the same time."""

    def __init__(self, count: int) -> None:
        self._barrier = threading.Barrier(count)
        self.held = threading.Event()

    def __call__(self) -> None:
        try:
            self._barrier.wait(TIMEOUT)
        except threading.BrokenBarrierError:
            return
        self.held.set()


def results_of_share(pool: WorkerPool, tasks: Sequence[Callable[[], int]]) -> list[int] | ValueError:
    """Run *tasks* as the subtasks of a task of *pool*; return their results, or the error."""
    results: list[list[int] | ValueError] = []
    done = threading.Event()

    def task() -> None:
        try:
            results.append(pool.share(tasks))
        except ValueError as e:
            results.append(e)
        done.set()

    pool.submit(task)
    assert done.wait(TIMEOUT)
    return results[0]


def test_tasks_start_in_order(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, all_done = make_pool(1), threading.Event()
    begun: list[int] = []
    for number in range(200):
        pool.submit(functools.partial(begun.append, number))
    pool.submit(all_done.set)
    assert all_done.wait(TIMEOUT)
    assert begun == list(range(200))


def test_the_concurrency_bounds_the_running_tasks(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, lock, all_done = make_pool(4), threading.Lock(), threading.Semaphore(0)
    now, most = 0, 0
    meeting = Meeting(4)

    def task() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        meeting()
        with lock:
            now -= 1
        all_done.release()

    for _ in range(40):
        pool.submit(task)
    for _ in range(40):
        assert all_done.acquire(timeout=TIMEOUT)
    assert meeting.held.is_set()
    assert most == 4


@pytest.mark.parametrize("idle", [0, 1, 3, 4])
def test_idle_threads_do_not_change_the_concurrency(
    make_pool: Callable[[int], WorkerPool], idle: int
) -> None:
    pool = make_pool(4)
    before = Meeting(max(idle, 1))
    for _ in range(idle):
        pool.submit(before)
    assert not idle or before.held.wait(TIMEOUT)
    while pool.busy:
        time.sleep(0.001)
    meeting = Meeting(4)
    for _ in range(4):
        pool.submit(meeting)
    assert meeting.held.wait(TIMEOUT)


def test_free_workers_run_subtasks(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, first, meeting = make_pool(4), Meeting(1), Meeting(4)
    pool.submit(first)  # one thread is there and idle, the others are yet to be made
    assert first.held.wait(TIMEOUT)

    def piece(number: int) -> int:
        meeting()
        return number

    assert results_of_share(pool, [functools.partial(piece, number) for number in range(4)]) == [0, 1, 2, 3]
    assert meeting.held.is_set()


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_results_are_in_order(make_pool: Callable[[int], WorkerPool], workers: int) -> None:
    def piece(number: int) -> int:
        time.sleep(0.002 * (number % 3))
        return number

    pieces = [functools.partial(piece, number) for number in range(50)]
    assert results_of_share(make_pool(workers), pieces) == list(range(50))


def test_a_single_worker_runs_all_subtasks(make_pool: Callable[[int], WorkerPool]) -> None:
    pool = make_pool(1)
    here = results_of_share(pool, [threading.get_ident] * 20)
    assert isinstance(here, list)
    assert len(set(here)) == 1


def test_tasks_with_subtasks_do_not_deadlock(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, results, all_done = make_pool(3), [], threading.Semaphore(0)

    def task() -> None:
        results.append(sum(pool.share([lambda: 1] * 7)))
        all_done.release()

    for _ in range(30):
        pool.submit(task)
    for _ in range(30):
        assert all_done.acquire(timeout=TIMEOUT)
    assert results == [7] * 30


def test_no_subtasks_have_no_results(make_pool: Callable[[int], WorkerPool]) -> None:
    assert results_of_share(make_pool(2), []) == []


def test_subtasks_run_before_other_tasks(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, order = make_pool(2), []
    held, hold, shared_out, release, all_done = (threading.Event() for _ in range(5))

    def busy() -> None:
        held.set()
        hold.wait(TIMEOUT)

    def first() -> None:  # run by the task itself
        shared_out.set()
        release.wait(TIMEOUT)

    pool.submit(busy)
    assert held.wait(TIMEOUT)
    pool.submit(lambda: pool.share([first, *[lambda: order.append("piece")] * 5]))
    assert shared_out.wait(TIMEOUT)
    for _ in range(3):
        pool.submit(lambda: order.append("task"))
    pool.submit(all_done.set)
    hold.set()
    assert all_done.wait(TIMEOUT)
    release.set()
    assert order == ["piece"] * 5 + ["task"] * 3


def test_the_first_error_is_raised_and_drops_further_subtasks(
    make_pool: Callable[[int], WorkerPool],
) -> None:
    begun: list[int] = []

    def piece(number: int) -> int:
        begun.append(number)
        if number >= 3:
            raise ValueError(number)
        return number

    error = results_of_share(make_pool(1), [functools.partial(piece, number) for number in range(100)])
    assert isinstance(error, ValueError)
    assert error.args == (3,)
    assert begun == [0, 1, 2, 3]


def test_the_first_of_two_errors_is_raised(make_pool: Callable[[int], WorkerPool]) -> None:
    both, failed = Meeting(2), threading.Event()

    def fails_first() -> int:
        both()
        failed.set()
        raise ValueError("first")

    def fails_later() -> int:
        both()
        failed.wait(TIMEOUT)
        settle()
        raise ValueError("later")

    for tasks in ([fails_first, fails_later], [fails_later, fails_first]):
        failed.clear()
        assert str(results_of_share(make_pool(2), tasks)) == "first"
        both = Meeting(2)


def test_an_error_waits_for_running_subtasks(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, both, ended = make_pool(2), Meeting(2), threading.Event()

    def slow() -> int:
        both()
        time.sleep(0.1)
        ended.set()
        return 0

    def fails() -> int:
        both()
        raise ValueError

    assert isinstance(results_of_share(pool, [fails, slow]), ValueError)
    assert ended.is_set()


def test_a_changed_concurrency_is_used(
    make_pool: Callable[[int], WorkerPool],
) -> None:
    pool = make_pool(8)
    limit = pool._concurrency
    lock, sizes = threading.Lock(), []
    now = 0

    def task(all_done: threading.Semaphore, are_there: threading.Event) -> None:
        nonlocal now
        with lock:
            now += 1
            sizes.append(now)
            if now == allowed:
                are_there.set()
        assert are_there.wait(TIMEOUT)
        time.sleep(0.002)
        with lock:
            now -= 1
        all_done.release()

    for allowed in (2, 8, 1, 4):
        limit._wanted = allowed
        sizes.clear()
        all_done, are_there = threading.Semaphore(0), threading.Event()
        for _ in range(60):
            pool.submit(functools.partial(task, all_done, are_there))
        for _ in range(60):
            assert all_done.acquire(timeout=TIMEOUT)
        assert max(sizes) == allowed
        while pool.busy:
            time.sleep(0.001)


def test_cancelled_tasks_do_not_start(make_pool: Callable[[int], WorkerPool]) -> None:
    pool, begun, release = make_pool(1), threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        release.wait(TIMEOUT)

    pool.submit(first)
    assert begun.wait(TIMEOUT)
    for number in range(5):
        pool.submit(functools.partial(done.append, number))
    pool.cancel()
    after = threading.Event()
    pool.submit(after.set)
    release.set()
    assert after.wait(TIMEOUT)
    assert done == []


def test_close_waits_and_returns_whether_all_has_ended() -> None:
    pool, begun, release = WorkerPool(AdaptiveConcurrency(2)), threading.Event(), threading.Event()
    done: list[int] = []

    def first() -> None:
        begun.set()
        release.wait(TIMEOUT)
        done.append(1)

    pool.submit(first)
    assert begun.wait(TIMEOUT)
    started = time.monotonic()
    assert not pool.close(0.1)
    assert 0.1 <= time.monotonic() - started < TIMEOUT / 2
    pool.submit(functools.partial(done.append, 2))  # it is closed already
    release.set()
    assert pool.close()
    assert done == [1]


def test_threads_start_when_needed_and_end_with_the_pool() -> None:
    before = threading.active_count()
    pool = WorkerPool(AdaptiveConcurrency(64))
    assert threading.active_count() == before
    pool.share([lambda: 1])
    assert threading.active_count() == before
    pool.submit(lambda: None)
    assert threading.active_count() <= before + 1
    assert pool.close(TIMEOUT)
    assert threading.active_count() == before


@pytest.fixture
def few_threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Limit the threads for transfers to the number in the list, as a system may."""
    left, start = [3], threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if thread.name == "transfer":
            if not left[0]:
                raise RuntimeError("can't start new thread")
            left[0] -= 1
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_one)
    return left


def test_few_threads_run_all_tasks(make_pool: Callable[[int], WorkerPool], few_threads: list[int]) -> None:
    pool, all_done = make_pool(8), threading.Semaphore(0)
    for _ in range(100):
        pool.submit(all_done.release)
    for _ in range(100):
        assert all_done.acquire(timeout=TIMEOUT)
    assert results_of_share(pool, [lambda: 1] * 20) == [1] * 20


def test_without_any_thread_submit_raises(
    make_pool: Callable[[int], WorkerPool], few_threads: list[int]
) -> None:
    pool, done = make_pool(8), threading.Event()
    few_threads[0] = 0
    with pytest.raises(RuntimeError):
        pool.submit(done.set)
    few_threads[0], after = 1, threading.Event()
    pool.submit(after.set)
    assert after.wait(TIMEOUT)
    assert not done.is_set()
